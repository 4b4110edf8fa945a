"""What the writer has in hand: messages on their way into the store, and operations that wait for their turn. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.store_work import Operation, stored_points
from stages.store import StoredPoint
from transport.messages import Points, TaskResult


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

    operation: Operation
    ticket: int
    segment: int


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
