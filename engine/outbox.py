"""What the engine has made and the consumer has not taken yet."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from transport.codec import cost_of, encode
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
