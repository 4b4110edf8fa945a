"""Which items make the next batch. Pure: time is passed in, and it knows no model, device or socket.

Each model has one queue, or one for each item length where a batch must be of equal length (the voice model). A queue
is ready when it holds a full batch (by items, or by host bytes), when its oldest item has waited `max_delay`, or when
the stream has ended. Of the ready queues the one goes that belongs to the model holding most host bytes (that frees the
most credit for the decoders), unless an item is older than `max_age`: then the oldest goes. Every batch holds the
oldest item of its queue. Search queries have a lane of their own, ahead of all.

How long an item waits at most until its batch begins, while its model may run and no query comes:
    the longer of max_delay, for company, and max_age, in which models with more bytes go first;
  + the batch that is running then;
  + one batch for each item, of any model, that still waits then and came no later: every batch takes one of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Literal, NamedTuple, TypeVar

ItemT = TypeVar("ItemT")
Grouping = Literal["any", "equal", "near"]  # which lengths may share a batch; near: any, but like ones are sought
Limit = Callable[[str, int], int]  # (role, length of the longest) → how many items a batch may hold now, at least 1

LOOK_AHEAD = 8  # batches' worth of items among which a batch of like lengths is sought


def batch_size(waiting: int, limit: int) -> int:
    """How many of the waiting items go: a full batch, else the largest power of two.

    Few sizes, because libraries keep memory and compiled kernels for each shape that they have seen.
    """
    return limit if waiting >= limit else 1 << (waiting.bit_length() - 1)


class Queued(NamedTuple, Generic[ItemT]):
    """An item as it waits."""

    item: ItemT
    host_bytes: int
    arrived_seconds: float
    length: int


class Batch(NamedTuple, Generic[ItemT]):
    """Items of one model that run together."""

    role: str
    items: list[ItemT]
    length: int  # of the longest
    urgent: bool = False  # search queries


class Waiting(NamedTuple):
    """What waits for one model."""

    items: int
    host_bytes: int
    oldest_seconds: float  # when its oldest item arrived; infinity when nothing waits


@dataclass(slots=True)
class _Lane(Generic[ItemT]):
    role: str
    items: deque[Queued[ItemT]] = field(default_factory=deque)
    host_bytes: int = 0

    @property
    def oldest_seconds(self) -> float:
        return self.items[0].arrived_seconds


class Scheduler(Generic[ItemT]):
    """Queues of all models, and the choice among them."""

    def __init__(
        self,
        grouping: Mapping[str, Grouping],
        limit: Limit,
        max_delay_seconds: float,
        max_age_seconds: float,
        max_batch_bytes: int = 1 << 62,
    ) -> None:
        self.max_delay_seconds = max_delay_seconds
        self.max_age_seconds = max_age_seconds
        self.ended = False  # nothing more is expected for now: part-filled batches may go
        self._grouping = dict(grouping)
        self._limit = limit
        self._max_batch_bytes = max_batch_bytes  # of host memory: more could not gather before credit runs out
        self._lanes: dict[tuple[str, int], _Lane[ItemT]] = {}
        self._alone = 0  # counts lanes of a single item
        self._urgent: dict[str, deque[Queued[ItemT]]] = {role: deque() for role in grouping}
        self._bytes = dict.fromkeys(grouping, 0)
        self._count = dict.fromkeys(grouping, 0)

    # --- in -----------------------------------------------------------------------------------------------------------

    def append(
        self,
        role: str,
        item: ItemT,
        host_bytes: int,
        now_seconds: float,
        length: int = 0,
        urgent: bool = False,
        alone: bool = False,
    ) -> None:
        """Queue an item. length: what its cost grows with, 0 where all cost the same. urgent: a search query. alone: it
        shares its batch with no other.
        """
        queued = Queued(item, host_bytes, now_seconds, length)
        self._bytes[role] += host_bytes
        self._count[role] += 1
        if urgent:
            self._urgent[role].append(queued)
            return
        key = (role, length if self._grouping[role] == "equal" else 0)
        if alone:
            self._alone += 1
            key = (role, -self._alone)
        lane = self._lanes.setdefault(key, _Lane(role))
        lane.items.append(queued)
        lane.host_bytes += host_bytes

    # --- what waits ---------------------------------------------------------------------------------------------------

    def queued_bytes(self, role: str) -> int:
        """Host bytes that the items of a model hold while they wait."""
        return self._bytes[role]

    def queued_items(self, role: str) -> int:
        """Items of a model that wait."""
        return self._count[role]

    def __len__(self) -> int:
        return sum(self._count.values())

    def waiting(self, role: str) -> Waiting:
        """What waits for a model, search queries included."""
        fronts = [lane.oldest_seconds for lane in self._lanes.values() if lane.role == role]
        fronts += [queue[0].arrived_seconds for queue in (self._urgent[role],) if queue]
        return Waiting(self._count[role], self._bytes[role], min(fronts, default=float("inf")))

    def waiting_by_role(self) -> dict[str, Waiting]:
        """What waits for each model."""
        return {role: self.waiting(role) for role in self._grouping}

    def ready_roles(self, now_seconds: float) -> frozenset[str]:
        """Models that have a batch ready."""
        return frozenset(lane.role for lane in self._lanes.values() if self._is_ready(lane, now_seconds))

    def urgent_roles(self) -> frozenset[str]:
        """Models that a search query waits for."""
        return frozenset(role for role, queue in self._urgent.items() if queue)

    def next_deadline_seconds(self, blocked: frozenset[str] = frozenset()) -> float | None:
        """When the next part-filled queue will be ready by age; None when nothing waits."""
        waiting = [lane.oldest_seconds for lane in self._lanes.values() if lane.role not in blocked]
        return min(waiting) + self.max_delay_seconds if waiting else None

    # --- out ----------------------------------------------------------------------------------------------------------

    def next_batch(self, now_seconds: float, blocked: frozenset[str] = frozenset()) -> Batch[ItemT] | None:
        """Take the next batch, or None when none is ready. `blocked` models may not run for now; queries may always."""
        if (query := self._next_urgent()) is not None:
            return query
        ready = [
            key for key, lane in self._lanes.items() if lane.role not in blocked and self._is_ready(lane, now_seconds)
        ]
        if not ready:
            return None
        return self._take(min(ready, key=lambda key: self._rank(self._lanes[key], now_seconds)))

    def _next_urgent(self) -> Batch[ItemT] | None:
        waiting = [(queue[0].arrived_seconds, role) for role, queue in self._urgent.items() if queue]
        if not waiting:
            return None
        role = min(waiting)[1]
        queue = self._urgent[role]
        first = list(islice(queue, self._limit(role, queue[0].length)))
        alike = [queued for queued in first if queued.length == queue[0].length]
        taken = self._choose(alike if self._grouping[role] == "equal" else first, role)
        return self._batch(role, queue, taken, urgent=True)

    def _is_ready(self, lane: _Lane[ItemT], now_seconds: float) -> bool:
        full = lane.host_bytes >= self._max_batch_bytes or len(lane.items) >= self._limit(
            lane.role, lane.items[0].length
        )
        # The same sum as in next_deadline_seconds: a difference would round otherwise, and miss its own deadline.
        return full or self.ended or now_seconds >= lane.oldest_seconds + self.max_delay_seconds

    def _rank(self, lane: _Lane[ItemT], now_seconds: float) -> tuple[float, float, float]:
        """Smallest goes first: overdue queues by age, then by the model's host bytes, then by age."""
        overdue = now_seconds - lane.oldest_seconds >= self.max_age_seconds
        return (lane.oldest_seconds if overdue else float("inf"), -self._bytes[lane.role], lane.oldest_seconds)

    def _take(self, key: tuple[str, int]) -> Batch[ItemT]:
        lane = self._lanes[key]
        near = self._grouping[lane.role] == "near"
        limit = self._limit(lane.role, lane.items[0].length)
        taken = self._choose(list(islice(lane.items, limit * (LOOK_AHEAD if near else 1))), lane.role)
        batch = self._batch(lane.role, lane.items, taken)
        lane.host_bytes -= sum(queued.host_bytes for queued in taken)
        if not lane.items:
            del self._lanes[key]  # lengths are many over the months; empty lanes must not pile up
        return batch

    def _choose(self, candidates: list[Queued[ItemT]], role: str) -> list[Queued[ItemT]]:
        """The first candidate and those nearest to it in length, as many as may go: by items and by host bytes."""
        first = candidates[0]
        if self._grouping[role] == "near":
            candidates.sort(key=lambda queued: (queued is not first, abs(queued.length - first.length)))
        chosen, longest, bytes_ = 0, 0, 0
        for queued in candidates:
            longest, bytes_ = max(longest, queued.length), bytes_ + queued.host_bytes
            if chosen and (chosen + 1 > self._limit(role, longest) or bytes_ > self._max_batch_bytes):
                break
            chosen += 1
        whole = chosen == self._limit(role, max(queued.length for queued in candidates[:chosen]))
        return candidates[: chosen if whole else batch_size(chosen, chosen + 1)]

    def _batch(
        self, role: str, queue: deque[Queued[ItemT]], taken: Iterable[Queued[ItemT]], urgent: bool = False
    ) -> Batch[ItemT]:
        """Take these out of their queue. They are among its first, so that only its front is gone through."""
        chosen = list(taken)
        gone, kept = {id(queued) for queued in chosen}, []
        while gone:
            queued = queue.popleft()
            if id(queued) in gone:
                gone.remove(id(queued))
            else:
                kept.append(queued)
        queue.extendleft(reversed(kept))
        self._bytes[role] -= sum(queued.host_bytes for queued in chosen)
        self._count[role] -= len(chosen)
        longest = max(queued.length for queued in chosen)
        return Batch(role, [queued.item for queued in chosen], longest, urgent)
