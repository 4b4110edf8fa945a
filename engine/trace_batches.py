"""What the engine ran, for the trace: one event a batch, by what its counters say before and after."""

from collections.abc import Mapping
from dataclasses import replace

from engine.residency import Residency
from engine.runner import RunCounters
from engine.trace import NoTrace

QUERY = "search query"  # a step that no counter of items notices


class BatchWatch:
    """Compares the counters of the models with what they were at the last look."""

    def __init__(self, counters: Mapping[str, RunCounters], residency: Residency, trace: NoTrace) -> None:
        self._counters = counters
        self._residency = residency
        self._trace = trace
        self._before = {role: replace(each) for role, each in counters.items()}
        self._changes = residency.changes

    def ran(self, start_seconds: float, end_seconds: float) -> None:
        """A step of the engine took so long. Costs nothing while nothing is recorded."""
        if not self._trace.enabled:
            return
        name, about = QUERY, {}
        for role, now in self._counters.items():
            before = self._before[role]
            if now.batches != before.batches:
                name, about = role, _growth(before, now)
                self._before[role] = replace(now)
        if (changes := self._residency.changes - self._changes) > 0:
            about["models brought in"] = changes
            self._changes = self._residency.changes
        self._trace.complete(name, start_seconds, end_seconds, **about)


def _growth(before: RunCounters, now: RunCounters) -> dict[str, float]:
    """What one batch counted; what is usual and says nothing is left out."""
    milliseconds = round(1000 * (now.busy_seconds - before.busy_seconds), 3)
    about: dict[str, float] = {"items": now.items - before.items, "model ms": milliseconds}
    for name in ("oom_events", "batch_splits", "alone"):
        if growth := getattr(now, name) - getattr(before, name):
            about[name] = growth
    return about
