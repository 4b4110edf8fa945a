"""The watched directories: a thread for each, and the next event of all of them.

For one thread, the supervisor's, which none of this ever holds up. A root that hangs on a dead mount, or has a million
new files, holds nobody up but itself.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence

from engine.config import WatchOptions
from engine.files import shown
from engine.root_watcher import RootWatcher
from engine.scan import Identity
from engine.watched import Arrived, Event, Given, Gone, Known, Notice, Pace, Root, WatchState, roots_of

__all__ = ["Arrived", "Event", "Gone", "Known", "Notice", "Pace", "WatchState", "Watcher"]

MAX_LINES = 1000  # for the log, that nobody has taken yet; beyond them the oldest are dropped
REVIVE_SECONDS = 60.0  # between two starts of threads that died
STOP_SECONDS = 5.0  # a thread that has not ended by then hangs on a mount, and ends with the process


class Watcher:
    """Watches directories, and gives what happens in them."""

    def __init__(
        self,
        options: WatchOptions,
        extensions: Sequence[str],
        make_known: Callable[[], Known],
        pace: Pace | None = None,
    ) -> None:
        """extensions: of the files that are taken where no patterns are set. make_known: called in each root's thread.

        Raises:
            ConfigError: watch.roots names a root twice, or one without a path.
        """
        self._wanted = roots_of(options, extensions)
        self._extensions = extensions
        self._make_known = make_known
        self._pace = pace or Pace()
        self._roots: list[RootWatcher] = []
        self._leaving: list[RootWatcher] = []
        self._taken: dict[bytes, Given] = {}
        self._identities: dict[bytes, Identity] = {}  # of the roots that were there
        self._lines: deque[Notice] = deque(maxlen=MAX_LINES)
        self._turns = itertools.count(1)
        self._revive_at = float("-inf")

    def start(self) -> None:
        """Begin to watch."""
        self._apply()

    def reload(self, options: WatchOptions) -> None:
        """Watch what the settings name now. Roots that are as before go on; others begin anew.

        Raises:
            ConfigError: as at the start; then nothing has changed.
        """
        self._wanted = roots_of(options, self._extensions)
        self._apply()

    def take(self, above: int | None = None) -> Event | None:
        """The next notice, or the next event of the root with the highest priority; of equal ones in turn.

        above: only events of roots with a higher priority than this. Returns None at once when there is none.
        """
        self._revive()
        if self._lines:
            return self._lines.popleft()
        for watcher in sorted(self._roots, key=lambda each: (-each.root.priority, each.served)):
            if above is not None and watcher.root.priority <= above:
                return None
            event = watcher.outbox.take()
            if event is not None:
                watcher.served = next(self._turns)
                return event
        return None

    def settled(self, path: bytes) -> None:
        """What was said of the path has been recorded, or was given up: it may be said again."""
        self._taken.pop(path, None)

    def scan_soon(self) -> None:
        """Look through all roots now: what is known of their files has changed."""
        for watcher in self._roots:
            watcher.scan_soon()

    def states(self) -> list[WatchState]:
        """How each root is doing."""
        return [watcher.state() for watcher in self._roots]

    @property
    def waiting_files(self) -> int:
        """Events that were not taken yet."""
        return sum(len(watcher.outbox) for watcher in self._roots)

    def stop(self) -> None:
        """End all threads."""
        self._wanted = ()
        self._apply()
        for watcher in self._leaving:
            watcher.join(STOP_SECONDS)
        self._leaving.clear()

    def _apply(self) -> None:
        """Bring the threads in line with the roots that are wanted."""
        wanted = set(self._wanted)
        for watcher in [each for each in self._roots if each.root not in wanted]:
            watcher.stop()
            self._roots.remove(watcher)
            self._leaving.append(watcher)
        running = {watcher.root for watcher in self._roots}
        for root in self._wanted:
            if root not in running:
                self._roots.append(self._begin(root))

    def _begin(self, root: Root) -> RootWatcher:
        watcher = RootWatcher(root, self._make_known, self._taken, self._lines, self._identities, self._pace)
        watcher.start()
        return watcher

    def _revive(self) -> None:
        """A thread that has died of an error nobody foresaw is replaced, and its trace is on standard error."""
        self._leaving = [each for each in self._leaving if each.is_alive()]
        now_seconds = self._pace.monotonic()
        if now_seconds < self._revive_at:
            return
        for number, watcher in enumerate(self._roots):
            if not watcher.is_alive():
                self._revive_at = now_seconds + REVIVE_SECONDS
                self._lines.append(Notice(f"{shown(watcher.root.path)}: its watcher has died, and is started again"))
                self._roots[number] = self._begin(watcher.root)
