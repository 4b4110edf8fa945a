"""A command's side of the daemon's socket: find the daemon of this store, ask it, wait for the answer."""

import os
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import zmq

from engine.config import Config
from engine.errors import ConfigError
from engine.presence import Presence, find
from stages.errors import SluiceError
from transport.codec import encode
from transport.requests import MAX_REQUEST_BYTES, MIN_ID_DIGITS, Answer, Request, Target

SLICE_MS = 500  # of waiting; between them we look whether the daemon still lives
ANSWER_SECONDS = 60.0  # the daemon itself gives up on its own processes after 30 s

_VIDEO_ID = re.compile(f"[0-9a-f]{{{MIN_ID_DIGITS},64}}")


def ask(config: Config, request: Request, timeout_seconds: float = ANSWER_SECONDS) -> dict[str, Any] | None:
    """The body of the daemon's answer; None when no daemon runs for this store, so that the command works on its own.

    Raises:
        SluiceError: what the daemon answered instead; or it said nothing in time, or ended.
        ConfigError: the same, where the request or a setting is wrong; or the request is too long.
    """
    presence = find(config)
    if presence is None:
        return None
    encoded = encode(request)
    if len(encoded) > MAX_REQUEST_BYTES:
        raise ConfigError(
            "request-too-long", f"{len(encoded)} bytes, of at most {MAX_REQUEST_BYTES}: name fewer videos"
        )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IDENTITY, f"command-{uuid.uuid4().hex}".encode())
        socket.connect(presence.endpoint)
        socket.send(encoded)
        return _body_of(_wait(socket, config, presence, timeout_seconds))
    finally:
        context.destroy(linger=0)


def _wait(socket: "zmq.Socket[bytes]", config: Config, presence: Presence, timeout_seconds: float) -> bytes:
    until = time.monotonic() + timeout_seconds
    while (left_seconds := until - time.monotonic()) > 0:
        if socket.poll(min(SLICE_MS, max(1, round(left_seconds * 1000)))):
            return socket.recv()
        if find(config) != presence and not socket.poll(0):  # its last act may have been to answer
            raise SluiceError("daemon-gone", f"the daemon (process {presence.pid}) ended before it answered; ask again")
    raise SluiceError(
        "daemon-silent",
        f"the daemon (process {presence.pid}) did not answer within {timeout_seconds:g} s; `status` may tell why, "
        "or stop it and start it again",
    )


def _body_of(encoded: bytes) -> dict[str, Any]:
    answer = msgspec.msgpack.decode(encoded, type=Answer)
    if answer.body is None:
        raise (ConfigError if answer.usage else SluiceError)(answer.code, answer.message)
    return answer.body


def targets_of(arguments: Sequence[str]) -> tuple[Target, ...]:
    """What VIDEO on the command line means: 8 to 64 hex digits are an id or its beginning, all else is a path.

    A path is made absolute: the daemon's working directory is another. (./cafebabe names a file of that name.)
    """
    return tuple(_target_of(argument) for argument in arguments)


def _target_of(argument: str) -> Target:
    if _VIDEO_ID.fullmatch(argument):
        return Target(video_id=argument)
    absolute = os.path.abspath(argument)  # noqa: PTH100 - links are kept as they are
    return Target(path=os.fsencode(absolute), spelled=os.fsencode(argument))
