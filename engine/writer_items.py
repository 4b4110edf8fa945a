"""What the writer has in hand: messages on their way into the store, and operations that wait for their turn. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from engine.store_work import Operation, stored_points
from stages.store import StoredPoint
from transport.messages import Label, Points, TaskKey, TaskResult

ANNOUNCED_KEYS = 10_000  # attempts that were called searchable and have not ended; some were given up and never will


@dataclass(slots=True)
class Item:
    """A message on its way into the store. It has a ticket if it came just now, a segment if it was in the spool."""

    message: Points | TaskResult
    payload: bytes | memoryview
    cost_bytes: int  # of credit, or of memory
    ticket: int = -1
    segment: int | None = None

    @property
    def points(self) -> int:
        """How many it holds."""
        return len(self.message.ids) if isinstance(self.message, Points) else 0


@dataclass(slots=True)
class Waiting:
    """An operation, and what must be done with before it: messages below a ticket, and segments of the spool."""

    operation: Operation | Label
    ticket: int
    segment: int


class Labels(Protocol):
    """Who finds the speakers."""

    def add(self, message: Label) -> None:
        """Do this in its turn."""

    def forget(self, video_id: str) -> None:
        """The points of this video are gone."""


class Announced:
    """Attempts of which points are searchable, each said once."""

    def __init__(self) -> None:
        self._keys: dict[TaskKey, None] = {}

    def add(self, key: TaskKey) -> bool:
        """True: it is new."""
        if key in self._keys:
            return False
        if len(self._keys) >= ANNOUNCED_KEYS:
            self._keys.pop(next(iter(self._keys)))
        self._keys[key] = None
        return True

    def forget(self, key: TaskKey) -> None:
        """It has ended."""
        self._keys.pop(key, None)


def batch_of(items: Iterator[Item], limit: int) -> list[Item]:
    """The first of the items, up to so many points, or items."""
    batch: list[Item] = []
    points = 0
    while max(points, len(batch)) < limit and (item := next(items, None)) is not None:
        batch.append(item)
        points += item.points
    return batch


def points_of(batch: Iterable[Item]) -> list[StoredPoint]:
    """What is to be stored. Raises WireError: an array is not what its message says."""
    return [
        point
        for item in batch
        if isinstance(item.message, Points)
        for point in stored_points(item.message, item.payload)
    ]


def results_of(batch: Iterable[Item]) -> list[TaskResult]:
    """What is to be told of."""
    return [item.message for item in batch if isinstance(item.message, TaskResult)]
