"""Where the time of one thread goes: counted for the profile, and recorded for the trace.

A thread is in one state at a time; entering the next one ends the one before. It costs a look at the clock.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from engine.trace import NoTrace

SHORTEST_SECONDS = 0.001  # what is shorter is counted, and not recorded


class Timesheet:
    """Seconds by state. `shown` names the states that the trace shows, by what they are called there."""

    def __init__(
        self,
        state: str,
        trace: NoTrace | None = None,
        shown: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._trace = trace or NoTrace()
        self._shown = dict(shown or {})
        self._state = state
        self._since = clock()
        self._seconds: dict[str, float] = {}

    def enter(self, state: str, **about: Any) -> None:
        """The thread does this from now on. about: what is to be said of what it did until now."""
        if state == self._state:
            return
        now, since = self._clock(), self._since
        self._seconds[self._state] = self._seconds.get(self._state, 0.0) + now - since
        if self._trace.enabled and now - since >= SHORTEST_SECONDS and (name := self._shown.get(self._state)):
            self._trace.complete(name, since, now, **about)
        self._state, self._since = state, now

    def seconds(self, state: str) -> float:
        """How long it was in a state, until now."""
        running = self._clock() - self._since if state == self._state else 0.0
        return self._seconds.get(state, 0.0) + running
