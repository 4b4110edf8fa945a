"""When a file is complete, and when a missing one is believed to be gone. Pure: both clocks are passed in.

Nothing tells that a writer has finished, so a file counts as complete when it has not changed for a while. How long ago
it changed is measured on the monotonic clock, from look to look. Only at first sight the wall clock may decide: the
ctime of a local file cannot be set back, so a file whose ctime is old has been left alone since.
"""

from dataclasses import dataclass
from typing import Protocol

ABSURD_SECONDS = 40 * 365 * 86400.0  # a file this old was written while the clock stood at its beginning
MAX_FILES = 10_000  # held in memory, of each kind: about 3 MB


class Marked(Protocol):
    """What a file is known by."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...
    @property
    def device(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells whether a file is the same as when it was last looked at."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int

    def same_content(self, other: Marked, inodes: bool) -> bool:
        """Whether nothing was written between the two.

        A device may get another number when the system starts. inodes: False where they, too, may change at a mount.
        """
        alike = (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)
        return alike and (not inodes or self.inode == other.inode)


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks."""

    seconds: float  # monotonic
    wall_seconds: float  # since 1970


class SteadyClock:
    """Says whether the wall clock can be trusted: not for a while after it was set."""

    def __init__(self, quiet_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._tolerance_seconds = min(1.0, quiet_seconds / 2)
        self._offset_seconds: float | None = None
        self._set_seconds = float("-inf")  # when it was last noticed to have been set

    def steady(self, now: Now) -> bool:
        """Whether ages up to the quiet time, and any greater ones, are right.

        What was written before the clock was set is older than the quiet time when this says so again.
        """
        offset_seconds = now.wall_seconds - now.seconds
        if self._offset_seconds is not None and abs(offset_seconds - self._offset_seconds) > self._tolerance_seconds:
            self._set_seconds = now.seconds
        self._offset_seconds = offset_seconds
        return now.seconds - self._set_seconds >= self._quiet_seconds


@dataclass(slots=True)
class _Waiting:
    mark: Mark
    since_seconds: float  # monotonic: when it was first seen as it is
    changed_seconds: float  # wall clock: its last change


class Settling:
    """Files that are waited for, up to a number; of others it says so, and they have to come again."""

    def __init__(self, quiet_seconds: float, inodes: bool, limit: int = MAX_FILES) -> None:
        self.turned_away = False  # whether a file found no room since this was last set to False
        self._quiet_seconds = quiet_seconds
        self._inodes = inodes
        self._limit = limit
        self._clock = SteadyClock(quiet_seconds)
        self._waiting: dict[bytes, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, path: bytes) -> bool:
        return path in self._waiting

    def paths(self) -> list[bytes]:
        """The files to look at again."""
        return list(self._waiting)

    def forget(self, path: bytes) -> None:
        """It is gone, or not wanted any more."""
        self._waiting.pop(path, None)

    def see(self, path: bytes, mark: Mark, ctime_ns: int | None, now: Now) -> float | None:
        """When the file was complete, on the wall clock; None: it has to be looked at again.

        ctime_ns: None where the clock of another host has set it.
        """
        age_seconds = self._age(ctime_ns, now)
        waiting = self._waiting.get(path)
        if waiting is not None and mark.same_content(waiting.mark, self._inodes):
            if now.seconds - waiting.since_seconds < self._quiet_seconds:
                return None
            del self._waiting[path]
            return waiting.changed_seconds
        changed_seconds = now.wall_seconds - (age_seconds or 0.0)
        if waiting is None and age_seconds is not None and age_seconds >= self._quiet_seconds:
            return changed_seconds
        self._await(path, _Waiting(mark, now.seconds, changed_seconds))
        return None

    def _age(self, ctime_ns: int | None, now: Now) -> float | None:
        """Seconds since the last change; None where that cannot be known."""
        if not self._clock.steady(now) or ctime_ns is None:
            return None
        age_seconds = now.wall_seconds - ctime_ns / 1e9
        return age_seconds if 0 <= age_seconds < ABSURD_SECONDS else None

    def _await(self, path: bytes, waiting: _Waiting) -> None:
        if path in self._waiting or len(self._waiting) < self._limit:
            self._waiting[path] = waiting
        else:
            self.turned_away = True


class Departures:
    """Known files that were missing once, up to a number, each waiting for a second look."""

    def __init__(self, wait_seconds: float, limit: int = MAX_FILES) -> None:
        self._wait_seconds = wait_seconds
        self._limit = limit
        self._missing: dict[bytes, tuple[float, int]] = {}  # since when, on which device; the oldest first

    def __len__(self) -> int:
        return len(self._missing)

    @property
    def full(self) -> bool:
        """Whether others have to come again."""
        return len(self._missing) >= self._limit

    def miss(self, path: bytes, device: int, now_seconds: float) -> None:
        """A known file is not there."""
        if not self.full:
            self._missing.setdefault(path, (now_seconds, device))

    def back(self, path: bytes) -> None:
        """It is there after all, has been given, or nobody can tell."""
        self._missing.pop(path, None)

    def clear(self) -> None:
        """None of them was missing: what held them is not there itself."""
        self._missing.clear()

    def due(self, now_seconds: float) -> list[tuple[bytes, int]]:
        """Paths and devices of those that have been missing for long enough to be looked for again."""
        found = []
        for path, (since_seconds, device) in self._missing.items():
            if now_seconds - since_seconds < self._wait_seconds:
                break
            found.append((path, device))
        return found
