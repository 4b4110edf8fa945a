"""Where results leave the engine process, for the consumer.

What was sent is kept until its credit is back, which is when the consumer has it for good. When the consumer dies, a
successor gets all of that again, in order, and then what is new.
"""

import threading

import zmq

from engine.bell import Bell
from engine.outbox import Delivery, Outgoing
from transport.messages import Grant, Join
from transport.sockets import Channel

AHEAD_BYTES = 4 * 1024 * 1024  # handed over ahead of the sending
CONNECT_MS = 500  # how long a connection may take; the consumer may not be there yet


class Egress(threading.Thread):
    """Sends results to the consumer as its credit allows. Memory: AHEAD_BYTES, and at most the credit."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, identity: bytes) -> None:
        super().__init__(name="egress", daemon=True)
        # A connection that breaks stays broken: on a new one to a successor, under the old name, its credit would be
        # taken for that of messages which died with the consumer before it.
        context.setsockopt(zmq.RECONNECT_IVL, -1)
        self._context = context
        self._endpoint = endpoint
        self._identity = identity
        self._connections = 0
        self._delivery = Delivery()
        self._lock = threading.Lock()  # of the delivery
        self._bell = Bell(context, "egress")
        self._replaced = threading.Event()
        self._closing = threading.Event()

    @property
    def has_room(self) -> bool:
        """Whether the main thread may hand over more."""
        return self._delivery.unsent_bytes < AHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        """The consumer has everything for good that was handed over."""
        with self._lock:
            return self._delivery.is_empty

    def put(self, outgoing: Outgoing) -> None:
        """Called by the main thread. The array must not change any more."""
        with self._lock:
            self._delivery.put(outgoing)
        self._bell.ring()

    def consumer_replaced(self) -> None:
        """Called by the main thread: another consumer is there, which knows nothing of what the one before it got."""
        self._replaced.set()
        self._bell.ring()

    def fence(self, number: int, coming: int) -> None:
        """Called by the main thread: `take_passed` says when all that was put, and the next so many, are durable."""
        with self._lock:
            self._delivery.fence(number, coming)

    def take_passed(self) -> int | None:
        """Called by the main thread: the last fence that is passed; each is given once."""
        if not self._delivery.has_fences:  # nearly always, and no reason to wait for the other thread
            return None
        with self._lock:
            return self._delivery.take_passed()

    def close(self) -> None:
        """Called by the main thread: end, whatever is left."""
        self._closing.set()
        self._bell.ring()
        self.join()
        self._bell.close()

    def run(self) -> None:
        while not self._closing.is_set():
            self._replaced.clear()
            with self._lock:
                self._delivery.start_over()
            channel = self._connect()
            if channel.socket.poll(CONNECT_MS, zmq.POLLOUT):
                channel.send(Join())
                self._serve(channel)
            channel.socket.close(linger=0)  # what it still holds is not acknowledged, so it is not lost

    def _connect(self) -> Channel[Grant]:
        """Under a name of its own each time: credit is counted by name."""
        number = b"-%d" % self._connections if self._connections else b""
        self._connections += 1
        return Channel.connect(self._context, self._endpoint, Grant, self._identity + number)

    def _serve(self, channel: Channel[Grant]) -> None:
        """Send, until the consumer at the other end is replaced."""
        poller = zmq.Poller()
        poller.register(self._bell.listener, zmq.POLLIN)
        while not (self._replaced.is_set() or self._closing.is_set()):
            poller.register(channel.socket, zmq.POLLIN | (zmq.POLLOUT if self._may_send() else 0))
            poller.poll()
            self._bell.clear()
            while (received := channel.receive(0)) is not None:
                with self._lock:
                    self._delivery.grant(received.message.credit_bytes)
            self._send_what_fits(channel)

    def _may_send(self) -> bool:
        with self._lock:
            return self._delivery.may_send

    def _send_what_fits(self, channel: Channel[Grant]) -> None:
        """As much as there is credit for, without waiting: who waits for a dead consumer does not hear of the next."""
        while channel.socket.poll(0, zmq.POLLOUT):
            with self._lock:
                outgoing = self._delivery.take()
            if outgoing is None:
                return
            channel.send_encoded(outgoing.header, outgoing.array)
