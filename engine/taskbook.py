"""What the board needs of whoever remembers its tasks: the ledger, or for a test nobody."""

from collections.abc import Sequence
from typing import Protocol

from engine.ledger_tasks import PlannedTask, TaskSpan
from transport.messages import TaskResult


class TaskBook(Protocol):
    """Remembers tasks beyond the run. Every method may raise LedgerUnavailable; then it has changed nothing."""

    def plan(self, video_id: str, spans: Sequence[TaskSpan], retry_failed: bool) -> list[PlannedTask]:
        """The tasks of a video, in the same order, as they stand; those that are new are entered."""

    def section(self, task_id: int, result: TaskResult) -> bool:
        """A task, or a section of it, is durable. False: it was known, or the task is not."""

    def failed(self, task_id: int, code: str, message: str) -> None:
        """A task is given up for good."""

    def died(self, task_id: int) -> int:
        """A decoder died on it; how many have."""


class MemoryBook:
    """Remembers nothing: every task of every video is new."""

    def __init__(self) -> None:
        self._last = 0

    def plan(self, video_id: str, spans: Sequence[TaskSpan], retry_failed: bool) -> list[PlannedTask]:
        return [self._new(span) for span in spans]

    def _new(self, span: TaskSpan) -> PlannedTask:
        self._last += 1
        return PlannedTask(self._last, span, "open", 0, None, None, None)

    def section(self, task_id: int, result: TaskResult) -> bool:
        return True

    def failed(self, task_id: int, code: str, message: str) -> None:
        """Nothing to note."""

    def died(self, task_id: int) -> int:
        return 1
