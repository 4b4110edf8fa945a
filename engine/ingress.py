"""Where decoders' items enter the engine process."""

import queue
import threading
from collections import deque

import zmq

from engine.bell import Bell
from transport.credit import CreditBook
from transport.messages import Grant, Join, Message, ToEngine
from transport.sockets import Channel, Received


class Ingress(threading.Thread):
    """Receives items into `inbox` and returns credit. Memory: at most one share for each decoder."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, share_bytes: int) -> None:
        super().__init__(name="ingress", daemon=True)
        self.inbox: queue.SimpleQueue[Received[Message]] = queue.SimpleQueue()
        self._channel: Channel[Message] = Channel.bind(context, endpoint, ToEngine)
        self._book = CreditBook(share_bytes)
        self._releases: deque[tuple[bytes, int]] = deque()
        self._bell = Bell(context, "ingress")

    @property
    def held_bytes(self) -> int:
        """Host bytes of all items received and not released."""
        return self._book.held_bytes

    def release(self, releases: list[tuple[bytes, int]]) -> None:
        """Called by the main thread: these bytes have left memory."""
        self._releases.extend(releases)
        self._bell.ring()

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._channel.socket, zmq.POLLIN)
        poller.register(self._bell.listener, zmq.POLLIN)
        while True:
            poller.poll()
            self._bell.clear()
            while (received := self._channel.receive(0)) is not None:
                self._take(received)
            while self._releases:
                self._book.release(*self._releases.popleft())
            self._grant()

    def _take(self, received: Received[Message]) -> None:
        if isinstance(received.message, Join):
            self._book.join(received.sender)
            return
        self._book.receive(received.sender, received.cost_bytes)
        self.inbox.put(received)

    def _grant(self) -> None:
        for sender, credit_bytes in self._book.take_owed().items():
            try:
                self._channel.send(Grant(credit_bytes=credit_bytes), to=sender)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._book.leave(sender)  # a decoder that died holds no credit
