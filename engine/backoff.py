"""When a process that died is started again. Pure: time and chance are passed in.

A single death is mended at once. Deaths that follow each other are a storm: each start costs seconds of loading, and
what the processes die of is the same. So each waits twice as long as the one before, up to a limit.
"""

from collections.abc import Callable


class Backoff:
    """The delays of one process and its successors."""

    def __init__(
        self,
        first_seconds: float,
        longest_seconds: float,
        forget_after_seconds: float,
        chance: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """first_seconds: after the second death in a row (run.backoff_seconds); longest_seconds: the most
        (run.backoff_max_seconds). A life longer than forget_after_seconds ends the row. chance gives numbers of [0, 1]:
        a delay is cut by up to a quarter, so that processes that died together do not come back together.
        """
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._forget_after_seconds = forget_after_seconds
        self._chance = chance
        self._due_seconds: float | None = None  # when the latest life began, or begins
        self.deaths = 0  # in a row

    def died(self, now_seconds: float) -> float:
        """It is dead; returns how long to wait before the next start, in seconds. 0 for the first death of a row."""
        if self._due_seconds is None or now_seconds - self._due_seconds > self._forget_after_seconds:
            self.deaths = 0
        self.deaths += 1
        delay = self._delay_seconds() * (0.75 + 0.25 * self._chance())
        self._due_seconds = now_seconds + delay
        return delay

    def _delay_seconds(self) -> float:
        if self.deaths == 1:
            return 0.0
        doublings = min(self.deaths - 2, 60)  # no more: 2.0**1024 overflows
        return float(min(self._first_seconds * 2.0**doublings, self._longest_seconds))
