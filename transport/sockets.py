"""ZeroMQ sockets with the options that matter set, and typed sending and receiving."""

from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import zmq
from numpy.typing import NDArray

from transport.codec import WireError, cost_of, encode
from transport.messages import Message

MAX_IPC_PATH = 107  # bytes in sockaddr_un.sun_path, less the closing zero
HIGH_WATER_MARK = 1000  # messages; a backstop behind the byte credits
LINGER_MS = 2000  # last words of a process that ends in order; a dead peer may not hold it longer
MAX_MESSAGE_BYTES = 256 * 1024 * 1024  # ZeroMQ's own default is no limit

MessageT = TypeVar("MessageT", bound=Message)


class Received(NamedTuple, Generic[MessageT]):
    """One message as it arrived."""

    sender: bytes  # identity of the peer at a ROUTER; empty at a DEALER
    message: MessageT
    payload: memoryview | None  # frame 1, not copied
    cost_bytes: int  # both frames: what it took of the sender's credit


class Channel(Generic[MessageT]):
    """A socket that sends any message and receives one union of them. Belongs to the thread that made it."""

    def __init__(self, socket: "zmq.Socket[bytes]", receives: Any) -> None:
        self.socket = socket
        self._decoder: msgspec.msgpack.Decoder[MessageT] = msgspec.msgpack.Decoder(receives)
        self._is_router = socket.type == zmq.ROUTER

    @classmethod
    def bind(cls, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, receives: Any) -> "Channel[MessageT]":
        """A ROUTER at `endpoint`: it knows its peers by name, and says so when one is gone (ROUTER_MANDATORY)."""
        socket = _configured(context.socket(zmq.ROUTER))
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.bind(endpoint)
        return cls(socket, receives)

    @classmethod
    def connect(
        cls, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, receives: Any, identity: bytes
    ) -> "Channel[MessageT]":
        """A DEALER towards `endpoint`, known there as `identity`."""
        socket = _configured(context.socket(zmq.DEALER))
        socket.setsockopt(zmq.IDENTITY, identity)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.connect(endpoint)
        return cls(socket, receives)

    def send(self, message: Message, payload: NDArray[Any] | None = None, to: bytes = b"") -> int:
        """Send a message, with its array in frame 1; returns what it costs in credit.

        Raises:
            zmq.ZMQError: EHOSTUNREACH when a ROUTER does not know `to` (any more).
        """
        return self.send_encoded(encode(message), payload, to)

    def send_encoded(self, header: bytes, payload: NDArray[Any] | None = None, to: bytes = b"") -> int:
        """Send a message whose header is encoded already (its cost had to be known first)."""
        frames: list[Any] = [to] if self._is_router else []
        frames.append(header)
        if payload is not None:
            frames.append(payload.data.cast("B") if payload.size else b"")
        self.socket.send_multipart(frames, copy=False)
        return cost_of(header, payload)

    def receive(self, timeout_ms: int | None = 0) -> Received[MessageT] | None:
        """The next message, or None when none came within the time (None: wait for ever).

        Raises:
            WireError: it has the wrong number of frames, or its header is not of the expected types.
        """
        if not self.socket.poll(timeout_ms):
            return None
        frames = self.socket.recv_multipart(copy=False)
        sender = bytes(frames.pop(0).buffer) if self._is_router else b""
        if len(frames) not in (1, 2):
            raise WireError(f"a message of {len(frames)} frames from {sender!r}")
        return self._decoded(sender, frames)

    def _decoded(self, sender: bytes, frames: list[zmq.Frame]) -> Received[MessageT]:
        header = frames[0].buffer
        try:
            message = self._decoder.decode(header)
        except msgspec.DecodeError as error:
            raise WireError(f"a message from {sender!r} cannot be read: {error}") from error
        payload = frames[1].buffer if len(frames) == 2 else None
        return Received(sender, message, payload, header.nbytes + (payload.nbytes if payload is not None else 0))

    def close(self) -> None:
        """Close the socket; what is still queued gets LINGER_MS to leave."""
        self.socket.close()


def _configured(socket: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    return socket
