"""What the engine has made and the consumer has not made durable yet."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from transport.codec import cost_of, encode
from transport.credit import CreditAccount
from transport.messages import Message


class Outgoing:
    """A message for the consumer, encoded once: its cost is known before it is sent."""

    __slots__ = ("array", "cost_bytes", "header")

    def __init__(self, message: Message, array: NDArray[np.float16] | None = None) -> None:
        self.header = encode(message)
        self.array = array
        self.cost_bytes = cost_of(self.header, array)


class Outbox:
    """Messages for the consumer, first in, first out, with a limit above which no model may run."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: deque[Outgoing] = deque()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether what waits has reached the limit."""
        return self.held_bytes >= self._limit_bytes

    def put(self, message: Message, array: NDArray[np.float16] | None = None) -> None:
        """Add a message."""
        outgoing = Outgoing(message, array)
        self._waiting.append(outgoing)
        self.held_bytes += outgoing.cost_bytes

    def take(self) -> Outgoing | None:
        """The next message; None when nothing waits."""
        if not self._waiting:
            return None
        outgoing = self._waiting.popleft()
        self.held_bytes -= outgoing.cost_bytes
        return outgoing


class Delivery:
    """What was handed over for the consumer, in order, until its credit is back: then it is durable. Pure.

    Credit returns first in, first out; so it says which messages are durable, although it is only a number of bytes.
    """

    def __init__(self) -> None:
        self.unsent_bytes = 0
        self._unsent: deque[Outgoing] = deque()
        self._sent: deque[Outgoing] = deque()
        self._credit = CreditAccount()
        self._returned_bytes = 0  # credit that came back, less that of the messages it was for
        self._put = self._durable = 0  # messages so far
        self._fences: deque[tuple[int, int]] = deque()  # number, and how many messages must be durable for it

    @property
    def is_empty(self) -> bool:
        """Whether everything is durable."""
        return not (self._unsent or self._sent)

    def put(self, outgoing: Outgoing) -> None:
        """Add a message."""
        self._unsent.append(outgoing)
        self.unsent_bytes += outgoing.cost_bytes
        self._put += 1

    def fence(self, number: int, coming: int) -> None:
        """`take_passed` says when all that was put, and the next so many, are durable."""
        self._fences.append((number, self._put + coming))

    @property
    def has_fences(self) -> bool:
        """Whether one is not passed yet, or not given."""
        return bool(self._fences)

    def take_passed(self) -> int | None:
        """The last fence that is passed; each is given once."""
        passed: int | None = None
        while self._fences and self._fences[0][1] <= self._durable:
            passed, _ = self._fences.popleft()
        return passed

    def grant(self, credit_bytes: int) -> None:
        """Credit came: at first the share, then that of messages which are durable now."""
        is_share = self._credit.limit_bytes == 0
        self._credit.grant(credit_bytes)
        if is_share:
            return
        self._returned_bytes += credit_bytes
        while self._sent and self._sent[0].cost_bytes <= self._returned_bytes:
            self._returned_bytes -= self._sent.popleft().cost_bytes
            self._durable += 1

    @property
    def may_send(self) -> bool:
        """Whether a message waits that has credit."""
        return bool(self._unsent) and self._credit.can_send(self._unsent[0].cost_bytes)

    def take(self) -> Outgoing | None:
        """The next message to be sent, kept until it is durable; None when none may be sent now."""
        if not self.may_send:
            return None
        outgoing = self._unsent.popleft()
        self.unsent_bytes -= outgoing.cost_bytes
        self._credit.spend(outgoing.cost_bytes)
        self._sent.append(outgoing)
        return outgoing

    def start_over(self) -> None:
        """Another consumer: nothing that is not known to be durable has been sent, and there is no credit yet."""
        self._unsent.extendleft(reversed(self._sent))
        self.unsent_bytes += sum(outgoing.cost_bytes for outgoing in self._sent)
        self._sent.clear()
        self._credit = CreditAccount()
        self._returned_bytes = 0
