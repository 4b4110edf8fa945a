"""How long items waited for their batch, against the bound that engine/scheduler.py states."""

from dataclasses import dataclass, field
from typing import Any

from engine.config import EngineOptions
from engine.scheduler import Batch, Scheduler


@dataclass(slots=True)
class Waits:
    """Watches the schedulers of one run.

    The bound: the longer of max_delay and max_age, the batch that is running then, and one batch for each item that is
    no younger. So an item that waited w, when n were queued that came no later, itself among them, kept it if
    (w - max_age) / (n + 1) is no more than the longest batch. Where models take turns, an item waits for its model
    besides.
    """

    options: EngineOptions
    longest_seconds: dict[str, float] = field(default_factory=dict)  # by role
    needed_batch_seconds: float = 0.0  # the longest batch that would explain every wait
    _arrived: dict[int, float] = field(default_factory=dict)  # by identity of the job
    _no_younger: dict[float, int] = field(default_factory=dict)  # by arrival: items queued then

    def watch(self, scheduler: Scheduler[Any]) -> None:
        """Look at what goes into a scheduler and what comes out."""
        self._arrived.clear()
        append, next_batch = scheduler.append, scheduler.next_batch

        def appended(role: str, item: Any, host_bytes: int, now_seconds: float, *args: Any, **more: Any) -> None:
            append(role, item, host_bytes, now_seconds, *args, **more)
            self._arrived[id(item)] = now_seconds
            self._no_younger[now_seconds] = len(scheduler)

        def taken(now_seconds: float, *args: Any, **more: Any) -> Batch[Any] | None:
            batch = next_batch(now_seconds, *args, **more)
            if batch is not None:
                self._see(batch, now_seconds)
            return batch

        scheduler.append = appended  # type: ignore[method-assign]
        scheduler.next_batch = taken  # type: ignore[method-assign]

    def _see(self, batch: Batch[Any], now_seconds: float) -> None:
        allowed = max(self.options.max_delay_ms, self.options.max_age_ms) / 1000
        for item in batch.items:
            arrived = self._arrived.pop(id(item))
            wait = now_seconds - arrived
            self.longest_seconds[batch.role] = max(self.longest_seconds.get(batch.role, 0.0), wait)
            needed = (wait - allowed) / (self._no_younger[arrived] + 1)
            self.needed_batch_seconds = max(self.needed_batch_seconds, needed)
