"""When what was written is made durable: many batches by one flush, which costs about the same for one point as for
thousands. Pure.
"""

import math
from collections.abc import Iterator

from engine.writer_items import Item, results_of

COMMIT_POINTS = 4096  # a flush of so many costs each a tenth of what writing it does
# A flush costs some milliseconds for each collection, however little it is for. In a steady stream so long is between
# two; when the stream pauses somebody may be waiting for it, and it comes after a moment.
COMMIT_SECONDS = 1.0
PAUSE_SECONDS = 0.1
LEAST_SECONDS = 0.2  # between two: what trickles in costs five flushes a second at most


class Group:
    """What is written and not durable yet, in order."""

    def __init__(self, limit_bytes: int, limit_points: int = COMMIT_POINTS) -> None:
        """limit_bytes: of credit that may wait for a commit."""
        self._limit_bytes = limit_bytes
        self._limit_points = limit_points
        self._items: list[Item] = []
        self._bytes = 0
        self.points = 0
        self.results = 0
        self._committed_seconds = self._added_seconds = -math.inf

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def add(self, batch: list[Item], now_seconds: float) -> None:
        """These were written."""
        self._added_seconds = now_seconds
        self._items += batch
        self.points += sum(item.points for item in batch)
        self.results += len(results_of(batch))
        self._bytes += sum(item.cost_bytes for item in batch)

    @property
    def is_full(self) -> bool:
        """Whether it is worth a flush, or holds more credit than it may."""
        return self.points >= self._limit_points or self._bytes >= self._limit_bytes

    def wait_seconds(self, now_seconds: float) -> float:
        """How long to wait for more before it is committed; for ever when it is empty."""
        if not self._items:
            return math.inf
        if self.is_full:
            return 0.0
        paused = max(self._added_seconds + PAUSE_SECONDS, self._committed_seconds + LEAST_SECONDS)
        return max(0.0, min(paused, self._committed_seconds + COMMIT_SECONDS) - now_seconds)

    def take(self) -> list[Item]:
        """All of it, to be written once more: it could not be made durable."""
        items, self._items = self._items, []
        self._bytes = self.points = self.results = 0
        return items

    def commit(self, now_seconds: float) -> list[Item]:
        """All of it: it is durable now."""
        self._committed_seconds = now_seconds
        return self.take()
