"""What the watcher says, what it must know, and the watched roots as the settings name them."""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import watchfiles

from engine.config import WatchOptions, WatchRoot
from engine.errors import ConfigError
from engine.hints import Watch
from engine.mounts import is_network
from engine.scan import Rules, rules
from engine.settling import MAX_FILES, Mark, Marked, Now


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file is complete, and is not known as it is: it is new, has changed, or is back."""

    path: bytes
    root: bytes
    priority: int
    complete_seconds: float  # wall clock: its last change


@dataclass(frozen=True, slots=True)
class Gone:
    """A known file was deleted, or moved away; its new path, if that is watched, has mostly been given before."""

    path: bytes
    root: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the log."""

    text: str


Event = Arrived | Gone | Notice


class Recorded(Marked, Protocol):
    """What a file is known by, and what became of it."""

    @property
    def state(self) -> Literal["present", "gone", "failed"]: ...


class Known(Protocol):
    """What has been recorded of files. Made and used by one thread.

    Raises:
        SluiceError: it cannot be read for now; it is asked again later.
    """

    def mark(self, path: bytes) -> Recorded | None:
        """As the file was when it was recorded; None: it never was."""

    def paths_below(self, root: bytes) -> Iterator[tuple[bytes, int]]:
        """Every recorded file below a directory that is not recorded as gone, with its device."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Root:
    """One watched directory, with all that decides what is taken from it and when."""

    path: bytes  # absolute; links in it are not resolved
    priority: int
    names: Rules
    poll: Literal["auto", "always", "never"]
    quiet_seconds: float
    scan_seconds: float
    poll_seconds: float
    follow_links: bool
    others: tuple[bytes, ...]  # the other roots: what lies below one of them is not this one's

    def owns(self, path: bytes) -> bool:
        """Whether a path below this root is in no root within it."""
        return not any(_below(path, other) for other in self.others if _below(other, self.path))


def _below(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def roots_of(options: WatchOptions, extensions: Sequence[str]) -> tuple[Root, ...]:
    """The roots of the settings.

    Raises:
        ConfigError: a root without a path, or one that is named twice.
    """
    entries = [entry if isinstance(entry, WatchRoot) else WatchRoot(entry) for entry in options.roots]
    paths = [_absolute(entry.path) for entry in entries]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ConfigError("bad-value", f"watch.roots names {os.fsdecode(path)!r} twice; leave one of them out")
    return tuple(_root(entry, paths, options, extensions) for entry in entries)


def _absolute(path: str) -> bytes:
    if not path.strip() or "\0" in path:
        raise ConfigError("bad-value", f"watch.roots: {path!r} is no path; name a directory, or leave it out")
    return os.path.abspath(os.fsencode(path))  # noqa: PTH100 - bytes


def _root(entry: WatchRoot, paths: Sequence[bytes], options: WatchOptions, extensions: Sequence[str]) -> Root:
    path = _absolute(entry.path)
    return Root(
        path=path,
        priority=entry.priority,
        names=rules(
            options.include if entry.include is None else entry.include,
            options.exclude if entry.exclude is None else entry.exclude,
            extensions,
        ),
        poll=entry.poll or options.poll,
        quiet_seconds=options.quiet_seconds,
        scan_seconds=options.scan_seconds,
        poll_seconds=options.poll_seconds,
        follow_links=options.follow_links,
        others=tuple(other for other in paths if other != path),
    )


@dataclass(frozen=True, slots=True)
class WatchState:
    """How a root is doing, for `status`."""

    path: str  # printable
    priority: int
    state: str  # watching | missing | lost: REASON
    polled: bool  # scanned every poll_seconds, for there are no hints
    files: int  # that match, in the last whole scan
    ignored: int  # other entries
    settling: int  # files that are not complete yet
    queued: int  # events that nobody has taken yet
    scan_seconds: float | None  # how long the last whole scan took; None: there was none yet
    scanned_seconds_ago: float | None
    unreadable: tuple[str, ...]  # directories and files, the first MAX_NAMED


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are done, and the clocks; tests put their own in."""

    look_seconds: float = 5.0  # between looks at whether a root is there
    settle_seconds: float = 1.0  # between looks at the files that are not complete; a quarter of the quiet time at most
    queue_events: int = 256
    max_files: int = MAX_FILES
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    uniform: Callable[[float, float], float] = random.uniform
    is_network: Callable[[bytes], bool] = is_network
    watch: Watch = watchfiles.watch

    def now(self) -> Now:
        """This moment."""
        return Now(self.monotonic(), self.wall())


MAX_NAMED = 100  # unreadable directories
MAX_LINES = 20  # of one kind, before only one more says that there are others


class Notices:
    """Lines for the log, each said once until it changes."""

    def __init__(self, lines: deque[Notice]) -> None:
        self._lines = lines
        self._said: dict[tuple[str, bytes], str] = {}
        self._seen: set[tuple[str, bytes]] = set()

    def say(self, kind: str, text: str, about: bytes = b"") -> None:
        """Say it, unless it was said. about: the path that it is about, where there may be several."""
        if (kind, about) not in self._said and self.full(kind):
            about, text = b"*", f"there is more than {MAX_LINES} times of this; the last one said: {self._last(kind)}"
        self._seen.add((kind, about))
        if about != b"*" or (kind, about) not in self._said:
            self._tell((kind, about), text)

    def full(self, kind: str) -> bool:
        """Whether no further ones of this kind are named."""
        return sum(each == kind for each, _ in self._said) >= MAX_LINES

    def over(self, kind: str, text: str | None = None) -> None:
        """It is not so any more; text: to be said if it was."""
        gone = [key for key in self._said if key[0] == kind]
        for key in gone:
            del self._said[key]
        if gone and text is not None:
            self._lines.append(Notice(text))

    def begin(self) -> None:
        """A whole scan begins, in which all that still holds is said again."""
        self._seen.clear()

    def forget(self, *kinds: str) -> None:
        """Forget what was not said again since `begin`."""
        for key in [key for key in self._said if key[0] in kinds and key not in self._seen]:
            del self._said[key]

    def _tell(self, key: tuple[str, bytes], text: str) -> None:
        if self._said.get(key) != text:
            self._said[key] = text
            self._lines.append(Notice(text))

    def _last(self, kind: str) -> str:
        return [text for (each, _), text in self._said.items() if each == kind][-1]


Given = Mark | None  # what was said of a path: how it is, or that it is gone


class Outbox:
    """Events of one root on their way to the supervisor: a queue that is full holds its thread up.

    What has been said of a path is not said again while it waits here, or until the supervisor has settled it.
    """

    def __init__(self, limit: int, taken: dict[bytes, Given]) -> None:
        self._limit = limit
        self._taken = taken  # shared by all roots: taken and not settled yet
        self._events: deque[tuple[Arrived | Gone, Given]] = deque()
        self._last: dict[bytes, Given] = {}  # of what is in the queue
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Arrived | Gone, given: Given, stopped: threading.Event) -> None:
        """Wait for room and queue it; dropped when the watcher is stopped meanwhile."""
        with self._changed:
            while len(self._events) >= self._limit and not stopped.is_set():
                self._changed.wait(0.5)
            if not stopped.is_set():
                self._events.append((event, given))
                self._last[event.path] = given

    def take(self) -> Arrived | Gone | None:
        """The next one, at once; what is out of date is left out."""
        with self._changed:
            while self._events:
                event, given = self._events.popleft()
                if len(self._events) <= self._limit // 2:  # not at each: threads that wake each other in turn are slow
                    self._changed.notify()
                if self._last.get(event.path, ...) is given:
                    self._taken[event.path] = self._last.pop(event.path)
                    return event
            return None

    def holds(self, path: bytes, given: Given, inodes: bool) -> bool:
        """Whether this has been said and nothing has come of it yet."""
        with self._changed:
            said = self._last.get(path, self._taken.get(path, ...))
        if said is ... or said is None or given is None:
            return said is given
        return given.same_content(said, inodes)
