"""The daemon's side of the commands' socket: requests come in, answers go out, and no client stops the daemon.

A client sends one request and waits for its answer. The socket lies in the run's private directory, so only the user
who runs the daemon reaches it; even so, sizes and numbers are bounded.
"""

from typing import Any

import msgspec
import zmq

from engine.errors import ConfigError
from stages.errors import SluiceError
from transport.codec import encode
from transport.requests import MAX_REQUEST_BYTES, Answer, Request

MAX_OPEN = 64  # requests taken and not answered
UNSENT_ANSWERS = 4  # for one client that does not read; each may be some hundred kB


class FrontDesk:
    """A ROUTER socket. Belongs to the thread that made it; register `socket` with the loop's poller."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, max_open: int = MAX_OPEN) -> None:
        """Raises zmq.ZMQError when the endpoint cannot be bound."""
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)  # who sends more is cut off
        self.socket.setsockopt(zmq.RCVHWM, UNSENT_ANSWERS)
        self.socket.setsockopt(zmq.SNDHWM, UNSENT_ANSWERS)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(endpoint)
        self._max_open = max_open
        self._open: set[bytes] = set()
        self._decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)

    @property
    def open_requests(self) -> int:
        """Requests taken and not answered."""
        return len(self._open)

    def take(self) -> list[tuple[bytes, Request]]:
        """The requests that have come since, each with the name of the client that waits for its answer. Never blocks.

        At most `max_open` messages are looked at, so that a client in a hurry does not hold up the loop. What cannot
        be read, or comes while too many are open, is answered here.
        """
        taken = []
        for _ in range(self._max_open):
            if not self.socket.poll(0):
                break
            client, *frames = self.socket.recv_multipart()
            request = self._read(client, frames)
            if request is not None:
                self._open.add(client)
                taken.append((client, request))
        return taken

    def answer(self, client: bytes, result: dict[str, Any] | SluiceError) -> None:
        """Answer a request that `take` gave. A client that is gone, or does not read, loses its answer silently."""
        self._open.discard(client)
        if isinstance(result, SluiceError):
            usage = isinstance(result, ConfigError)
            self._send(client, Answer(body=None, code=result.code, message=result.message, usage=usage))
        else:
            self._send(client, Answer(body=result))

    def close(self) -> None:
        """Whoever still waits is told that the daemon stops."""
        for client in list(self._open):
            self.answer(client, SluiceError("daemon-stopping", "the daemon is stopping; ask again when it runs"))
        self.socket.close(linger=500)  # ms, for these last answers

    def _read(self, client: bytes, frames: list[bytes]) -> Request | None:
        if client in self._open:
            self._refuse(client, "bad-request", "one request at a time")
            return None
        if len(self._open) >= self._max_open:
            self._refuse(client, "busy", f"the daemon has {self._max_open} requests open; ask again later")
            return None
        try:
            return self._decoder.decode(b"".join(frames))
        except msgspec.DecodeError as error:
            self._refuse(client, "bad-request", f"the daemon cannot read this request: {error}")
            return None

    def _refuse(self, client: bytes, code: str, message: str) -> None:
        self._send(client, Answer(body=None, code=code, message=message))

    def _send(self, client: bytes, answer: Answer) -> None:
        try:
            self.socket.send_multipart([client, encode(answer)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):  # gone, or it does not read
                raise
