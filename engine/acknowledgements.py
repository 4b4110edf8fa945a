"""Which messages may have their credit back: strictly first in, first out for each sender. Pure.

A sender keeps what it has no credit back for, and sends it again to a consumer that takes the place of one that died.
It counts returned bytes to know how far that is; so no message gets its credit back before all that came before it.
"""

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class _Entry:
    ticket: int
    cost_bytes: int
    settled: bool = False


class Acknowledgements:
    """Messages that were received and whose credit has not gone back."""

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[_Entry]] = {}
        self._unsettled: dict[int, _Entry] = {}
        self.next_ticket = 0

    def receive(self, sender: bytes, cost_bytes: int) -> int:
        """Count a message that came; returns its ticket. Tickets go up by one with each message, whoever sent it."""
        entry = _Entry(self.next_ticket, cost_bytes)
        self._queues.setdefault(sender, deque()).append(entry)
        self._unsettled[entry.ticket] = entry
        self.next_ticket += 1
        return entry.ticket

    def settle(self, ticket: int) -> None:
        """The message is safe, and may be forgotten by its sender. KeyError when it was settled before."""
        self._unsettled.pop(ticket).settled = True

    def take_released(self) -> list[tuple[bytes, int]]:
        """(sender, bytes) of every message that is settled and has no unsettled one before it; each is given once."""
        released: list[tuple[bytes, int]] = []
        for sender, queue in self._queues.items():
            while queue and queue[0].settled:
                released.append((sender, queue.popleft().cost_bytes))
        self._queues = {sender: queue for sender, queue in self._queues.items() if queue}
        return released

    @property
    def oldest(self) -> int:
        """Ticket of the oldest message that was not released; the next ticket when there is none."""
        return min((queue[0].ticket for queue in self._queues.values()), default=self.next_ticket)
