"""Hints of changes from the system: they bring a look forward, and nothing depends on them.

Each directory is watched by itself, for the library follows links when it watches a tree, and would look into what is
passed over. It gives up at a name that is not UTF-8; whoever is told by `failure` scans instead.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import watchfiles

MAX_DIRECTORIES = 100_000  # of one root: about 40 MB with the paths
MAX_PATHS = 10_000  # that changed and were not looked at yet
STEP_MS = 100  # how often the library's thread is asked, and the pause that ends a group of changes
GROUP_MS = 500  # longest time for which changes are held back to be told together

# It says on level INFO how many changes there were, which is the watcher's to say.
logging.getLogger("watchfiles").setLevel(logging.WARNING)

Watch = Callable[..., Iterator[set[tuple[Any, str]]]]


class Hints(threading.Thread):
    """Gathers the paths that change in some directories, and wakes whoever wants to know."""

    def __init__(self, directories: Sequence[bytes], wake: threading.Event, watch: Watch = watchfiles.watch) -> None:
        super().__init__(name="watch-hints", daemon=True)
        self.failure: str | None = None  # why there are no hints any more
        self.is_passing = False  # … a directory has just gone, or was closed: without it they may begin
        self.too_many = False  # more changed than could be remembered, since this was last set to False
        self._directories = [text for path in directories if (text := _utf8(path)) is not None]
        self._wake = wake
        self._watch = watch
        self._lock = threading.Lock()
        self._paths: set[bytes] = set()
        self._armed = threading.Event()
        self._done = threading.Event()

    def begin(self) -> bool:
        """Start, and wait until changes are seen; False: that failed."""
        self.start()
        self._armed.wait()
        return self.failure is None

    def take(self) -> set[bytes]:
        """What has changed since the last time."""
        with self._lock:
            paths, self._paths = self._paths, set()
        return paths

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Until stopped, or the library fails; it returns once in a while to say that it is there."""
        try:
            for changes in self._watch(
                *self._directories,
                watch_filter=None,
                debounce=GROUP_MS,
                step=STEP_MS,
                stop_event=self._done,
                rust_timeout=STEP_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                force_polling=False,
                recursive=False,
                ignore_permission_denied=False,  # True would hide every error, the limit of the system among them
            ):
                self._armed.set()
                self._gather(changes)
        except (OSError, RuntimeError) as error:  # its own error is a RuntimeError
            self.is_passing = isinstance(error, FileNotFoundError | PermissionError)
            self.failure = str(error) or type(error).__name__
        finally:
            self._armed.set()
            self._wake.set()

    def _gather(self, changes: set[tuple[Any, str]]) -> None:
        if not changes:
            return
        with self._lock:
            self._paths.update(os.fsencode(path) for _, path in changes)
            if len(self._paths) > MAX_PATHS:
                self._paths.clear()
                self.too_many = True
        self._wake.set()


def _utf8(path: bytes) -> str | None:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return None


def advice(failure: str) -> str:
    """What to do about a failure, for people."""
    if "watch limit" in failure:
        return "raise the sysctl fs.inotify.max_user_watches above the number of directories"
    if "Too many open files" in failure:
        return "raise the sysctl fs.inotify.max_user_instances"
    return failure
