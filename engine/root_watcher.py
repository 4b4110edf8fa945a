"""The thread that watches one root: when to look, and at how much. What it finds is in `engine/looking.py`.

It looks for the root every few seconds; at all of it now and then, for only that is the truth; at what the system hints
at, at once. Where there are no hints, whole looks are more frequent.
"""

import os
import stat
import threading
from collections import deque
from collections.abc import Callable

from engine.files import shown
from engine.hints import MAX_DIRECTORIES, Hints, advice
from engine.looking import Look
from engine.scan import Identity
from engine.watched import Given, Known, Notice, Notices, Outbox, Pace, Root, WatchState
from stages.errors import SluiceError

MAX_PASSING_FAILURES = 3  # tries to watch directories of which one had just gone


class RootWatcher(threading.Thread):
    """Watches one root; its events are in `outbox`."""

    def __init__(
        self,
        root: Root,
        make_known: Callable[[], Known],
        taken: dict[bytes, Given],
        lines: deque[Notice],
        identities: dict[bytes, Identity],
        pace: Pace,
    ) -> None:
        """taken, lines, identities: shared by all roots."""
        super().__init__(name=f"watch-{shown(root.path)}", daemon=True)  # one that hangs on a dead mount ends with us
        self.root = root
        self.outbox = Outbox(pace.queue_events, taken)
        self.served = 0  # when an event of it was last taken
        self._make_known = make_known
        self._known: Known | None = None
        self._notices = Notices(lines)
        self._pace = pace
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._scan_wanted = threading.Event()
        self._state = "watching"
        self._identity: Identity | None = None  # of the root, when it was last there
        self._identities = identities
        self._polled = False
        self._look: Look | None = None  # None: the root is not there
        self._hints: Hints | None = None
        self._scan_at = self._settle_at = self._arm_at = float("-inf")
        self._passing_failures = 0  # in a row
        self._scanned_at: float | None = None
        self._scan_seconds: float | None = None

    def stop(self) -> None:
        """Have it end soon; `join` waits for that."""
        self._stopped.set()
        self._wake.set()

    def scan_soon(self) -> None:
        """Begin a whole scan as soon as there is time for it. For any thread."""
        self._scan_wanted.set()
        self._wake.set()

    def state(self) -> WatchState:
        """How it is doing. For any thread."""
        look, scanned_at = self._look, self._scanned_at
        return WatchState(
            path=shown(self.root.path),
            priority=self.root.priority,
            state=self._state,
            polled=self._polled or self._hints is None,
            files=look.files if look else 0,
            ignored=look.ignored if look else 0,
            settling=look.settling_files if look else 0,
            queued=len(self.outbox),
            scan_seconds=self._scan_seconds,
            scanned_seconds_ago=None if scanned_at is None else self._pace.monotonic() - scanned_at,
            unreadable=tuple(map(shown, look.unreadable)) if look else (),
        )

    def run(self) -> None:
        """Look until stopped."""
        try:
            while not self._stopped.is_set():
                self._round()
                self._wake.wait(self._pause_seconds())
                self._wake.clear()
        finally:
            self._drop_hints()
            self._close_known()

    def _round(self) -> None:
        try:
            if self._known is None:
                self._known = self._make_known()
            if self._is_there(self._known) and self._look is not None:
                self._look_around(self._look)
                self._notices.over("trouble")
        except (SluiceError, OSError) as error:
            self._notices.say("trouble", f"{shown(self.root.path)}: {error}; it is tried again")
            self._state = f"lost: {error}"
            self._close_known()
            self._look = None

    def _close_known(self) -> None:
        if self._known is not None:
            self._known.close()
            self._known = None

    def _pause_seconds(self) -> float:
        look, now_seconds = self._look, self._pace.monotonic()
        if look is None:
            return self._pace.look_seconds
        pause_seconds = self._settle_seconds() if look.is_waiting else self._pace.look_seconds
        if look.fresh:
            pause_seconds = min(pause_seconds, self._arm_at - now_seconds)
        return max(0.0, min(pause_seconds, self._scan_at - now_seconds))

    def _settle_seconds(self) -> float:
        return min(self._pace.settle_seconds, self.root.quiet_seconds / 4)

    # --- the root itself ----------------------------------------------------------------------------------------------

    def _is_there(self, known: Known) -> bool:
        try:
            found = os.stat(self.root.path)  # noqa: PTH116 - bytes
        except (FileNotFoundError, NotADirectoryError):
            return self._miss("there is no such directory")
        except OSError as error:
            return self._miss(error.strerror or str(error))
        if not stat.S_ISDIR(found.st_mode):
            return self._miss("it is not a directory; name one in watch.roots")
        identity = found.st_dev, found.st_ino
        if self._look is None or identity != self._identity:
            self._begin(identity, known)
        return True

    def _miss(self, reason: str) -> bool:
        self._state = "missing" if self._identity is None and "no such" in reason else f"lost: {reason}"
        text = f"{shown(self.root.path)}: {reason}; it is looked for again, and nothing below it is taken for deleted"
        self._notices.say("root", text)
        self._identities.pop(self.root.path, None)
        self._look = None
        self._drop_hints()
        return False

    def _begin(self, identity: Identity, known: Known) -> None:
        """It is there, or another directory is there in its place."""
        self._drop_hints()
        root = self.root
        self._polled = root.poll == "always" or (root.poll == "auto" and self._pace.is_network(root.path))
        self._identity = self._identities[root.path] = identity
        self._look = Look(
            root, not self._polled, known, self.outbox, self._notices, self._pace, self._stopped, self._identities
        )
        self._scan_at = self._arm_at = self._pace.monotonic()
        self._notices.over("root", f"{shown(root.path)}: the directory is there and is watched")

    # --- looks --------------------------------------------------------------------------------------------------------

    def _look_around(self, look: Look) -> None:
        if self._hints is not None and self._hints.failure is not None:
            self._lose_hints(look)
        if self._scan_wanted.is_set() or self._pace.monotonic() >= self._scan_at:
            self._scan_wanted.clear()  # before the scan: what is wanted while it goes on is wanted again
            self._scan(look)
        else:
            self._follow_hints(look)
        if look.fresh and self._pace.monotonic() >= self._arm_at and not self._stopped.is_set():
            self._arm(look)
        self._look_again(look)
        if look.scan_wanted:
            look.scan_wanted = False
            self._scan_at = min(self._scan_at, self._pace.monotonic() + self.root.quiet_seconds)
        if look.lost is None:
            self._notices.over("lost", f"{shown(self.root.path)}: its files are there again")
        self._state = f"lost: {look.lost}" if look.lost else "watching"

    def _scan(self, look: Look) -> None:
        began = self._pace.monotonic()
        look.whole()
        ended = self._pace.monotonic()
        self._scan_seconds, self._scanned_at = ended - began, ended
        self._scan_at = ended + self._pace.uniform(0.75, 1.25) * self._interval_seconds()

    def _interval_seconds(self) -> float:
        return self.root.poll_seconds if self._polled or self._hints is None else self.root.scan_seconds

    def _follow_hints(self, look: Look) -> None:
        if self._hints is None:
            return
        if self._hints.too_many:
            self._hints.too_many = False
            self._scan(look)
            return
        for path in sorted(self._hints.take()):  # a directory before what is in it
            if self._stopped.is_set():
                return
            look.hinted(path)

    def _look_again(self, look: Look) -> None:
        """At files that are not complete; then at those that were missing, so that a moved file arrives first."""
        if self._pace.monotonic() >= self._settle_at:
            look.settling()
            look.missing()
            self._settle_at = self._pace.monotonic() + self._settle_seconds()

    # --- hints --------------------------------------------------------------------------------------------------------

    def _arm(self, look: Look) -> None:
        """Have the directories watched that are not yet, and look at them once more: they may have changed before."""
        self._arm_at = self._pace.monotonic() + self._pace.look_seconds
        if len(look.directories) > MAX_DIRECTORIES:
            self._do_without(look, f"it has more than {MAX_DIRECTORIES} directories")
            return
        hints = self._begin_hints(look)
        if hints.failure is not None:
            hints.stop()
            self._arm_later(look, hints)
            return
        self._drop_hints()
        self._hints, self._passing_failures = hints, 0
        fresh, look.fresh = look.fresh, set()
        look.watched = dict(look.directories)
        self._notices.over("hints", f"{shown(self.root.path)}: the system tells of changes again")
        for path in sorted(fresh):
            if os.path.dirname(path) not in fresh:  # noqa: PTH120 - bytes
                look.below(path)

    def _begin_hints(self, look: Look) -> Hints:
        """The new ones beside the old ones, so that nothing is missed; alone, if both are too much for the system."""
        hints = Hints(list(look.directories), self._wake, self._pace.watch)
        if not hints.begin() and not hints.is_passing and self._hints is not None:
            hints.stop()
            self._drop_hints()
            self._scan_at = self._pace.monotonic()
            hints = Hints(list(look.directories), self._wake, self._pace.watch)
            hints.begin()
        return hints

    def _arm_later(self, look: Look, failed: Hints) -> None:
        self._passing_failures = self._passing_failures + 1 if failed.is_passing else 0
        if 0 < self._passing_failures <= MAX_PASSING_FAILURES:
            self._scan_at = self._pace.monotonic()  # to know which directories there are now; the old hints go on
        else:
            self._do_without(look, advice(str(failed.failure)))

    def _do_without(self, look: Look, reason: str) -> None:
        seconds = self.root.poll_seconds
        text = f"{shown(self.root.path)}: the system tells of no changes ({reason}); it is scanned every {seconds:g} s"
        self._notices.say("hints", text)
        self._lose_hints(look)

    def _lose_hints(self, look: Look) -> None:
        """Scan as if it were polled, until a further try, after the next scan."""
        self._drop_hints()
        look.watched = {}
        look.fresh = set(look.directories)
        now_seconds = self._pace.monotonic()
        self._arm_at = now_seconds + self.root.poll_seconds
        last_seconds = now_seconds if self._scanned_at is None else self._scanned_at
        self._scan_at = min(self._scan_at, last_seconds + self.root.poll_seconds)

    def _drop_hints(self) -> None:
        if self._hints is not None:
            self._hints.stop()
            self._hints = None
