"""Which items make the next batch. Pure: time is passed in, and it knows no model, device or socket.

Each model has lanes: one for each item length where a batch must be of equal length (the voice model), else one. A lane
is first in, first out. A lane is ready when it holds a full batch, when its oldest item has waited `max_delay`, or when
the stream has ended. Of the ready lanes the one goes that belongs to the model holding most host bytes (that frees the
most credit for the decoders), unless an item is older than `max_age`: then the oldest goes.

An item waits at most max_delay (for company) + the batches ahead of it + max_age's worth of batches of other models.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

ItemT = TypeVar("ItemT")


def batch_size(waiting: int, max_batch: int) -> int:
    """How many of the waiting items go: a full batch, else the largest power of two.

    Few sizes, because libraries keep memory and compiled kernels for each shape that they have seen: with any size from
    1 to 32 the speaker model on a CPU grew to 780 MB, with powers of two to 540 (and took a third of the time).
    """
    return max_batch if waiting >= max_batch else 1 << (waiting.bit_length() - 1)


class Queued(NamedTuple, Generic[ItemT]):
    """An item as it waits."""

    item: ItemT
    host_bytes: int
    arrived_seconds: float


class Batch(NamedTuple, Generic[ItemT]):
    """Items of one model that run together."""

    role: str
    items: list[ItemT]


@dataclass(slots=True)
class _Lane(Generic[ItemT]):
    role: str
    items: deque[Queued[ItemT]] = field(default_factory=deque)

    @property
    def oldest_seconds(self) -> float:
        return self.items[0].arrived_seconds


class Scheduler(Generic[ItemT]):
    """Queues of all models, and the choice among them."""

    def __init__(self, max_batch: dict[str, int], max_delay_seconds: float, max_age_seconds: float) -> None:
        if any(size < 1 for size in max_batch.values()):
            raise ValueError(f"a batch holds at least one item: {max_batch}")
        self.max_batch = max_batch
        self.max_delay_seconds = max_delay_seconds
        self.max_age_seconds = max_age_seconds
        self.ended = False  # nothing more is expected for now: part-filled batches may go
        self._lanes: dict[tuple[str, int], _Lane[ItemT]] = {}
        self._bytes = dict.fromkeys(max_batch, 0)
        self._count = dict.fromkeys(max_batch, 0)

    def append(self, role: str, item: ItemT, host_bytes: int, now_seconds: float, length: int = 0) -> None:
        """Queue an item. `length` is 0 for models whose batches may be of mixed length."""
        lane = self._lanes.setdefault((role, length), _Lane(role))
        lane.items.append(Queued(item, host_bytes, now_seconds))
        self._bytes[role] += host_bytes
        self._count[role] += 1

    def queued_bytes(self, role: str) -> int:
        """Host bytes that the items of a model hold while they wait."""
        return self._bytes[role]

    def queued_items(self, role: str) -> int:
        """Items of a model that wait."""
        return self._count[role]

    def __len__(self) -> int:
        return sum(self._count.values())

    def next_batch(self, now_seconds: float, blocked: frozenset[str] = frozenset()) -> Batch[ItemT] | None:
        """Take the next batch, or None when no lane is ready. `blocked` models may not run for now."""
        ready = [
            key for key, lane in self._lanes.items() if lane.role not in blocked and self._is_ready(lane, now_seconds)
        ]
        if not ready:
            return None
        return self._take(min(ready, key=lambda key: self._rank(self._lanes[key], now_seconds)))

    def next_deadline_seconds(self, blocked: frozenset[str] = frozenset()) -> float | None:
        """When the next part-filled lane will be ready by age; None when nothing waits."""
        waiting = [lane.oldest_seconds for lane in self._lanes.values() if lane.items and lane.role not in blocked]
        return min(waiting) + self.max_delay_seconds if waiting else None

    def _is_ready(self, lane: _Lane[ItemT], now_seconds: float) -> bool:
        if not lane.items:
            return False
        full = len(lane.items) >= self.max_batch[lane.role]
        # The same sum as in next_deadline_seconds: a difference would round otherwise, and miss its own deadline.
        return full or self.ended or now_seconds >= lane.oldest_seconds + self.max_delay_seconds

    def _rank(self, lane: _Lane[ItemT], now_seconds: float) -> tuple[float, float, float]:
        """Smallest goes first: overdue lanes by age, then by the model's host bytes, then by age."""
        overdue = now_seconds - lane.oldest_seconds >= self.max_age_seconds
        return (lane.oldest_seconds if overdue else float("inf"), -self._bytes[lane.role], lane.oldest_seconds)

    def _take(self, key: tuple[str, int]) -> Batch[ItemT]:
        lane = self._lanes[key]
        taken = [lane.items.popleft() for _ in range(batch_size(len(lane.items), self.max_batch[lane.role]))]
        if not lane.items:
            del self._lanes[key]  # lengths are many over the months; empty lanes must not pile up
        self._bytes[lane.role] -= sum(queued.host_bytes for queued in taken)
        self._count[lane.role] -= len(taken)
        return Batch(lane.role, [queued.item for queued in taken])
