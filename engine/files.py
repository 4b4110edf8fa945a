"""Which files a PATH means, and how a path is shown."""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.scan import Listing, Rules, rules, walk
from engine.videos import VideoError


@dataclass(frozen=True, slots=True)
class Found:
    """A file to index, or a path that gives none and why."""

    path: bytes  # as the file system spells it
    error: VideoError | None = None
    priority: int = 0  # the highest goes first
    complete_at: float | None = None  # when it was complete, in unix seconds; None: unknown

    def complete_since(self, now_seconds: float, unix_seconds: float | None = None) -> float | None:
        """When it was complete, on the clock that shows now_seconds; never in the future, whatever the clocks do."""
        if self.complete_at is None:
            return None
        unix = time.time() if unix_seconds is None else unix_seconds
        return now_seconds - max(0.0, unix - self.complete_at)


def shown(path: bytes) -> str:
    """A path as printable, valid Unicode on one line: odd bytes and control characters are escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def find_files(paths: Sequence[bytes], extensions: Sequence[str]) -> Iterator[Found]:
    """Files named outright, and the media files below directories, in order of name.

    A path that does not exist, cannot be read or holds no media gives one `Found` with its error. Links to files are
    taken, links to directories are not followed.
    """
    names = rules((), (".*",), extensions)
    for path in paths:
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - Path does not take bytes
        except OSError as error:
            yield Found(path, _of(error))
            continue
        if stat.S_ISDIR(mode):
            yield from _below(path, names)
        elif stat.S_ISREG(mode):
            yield Found(path)
        else:
            yield Found(path, VideoError("not-a-file", "neither a file nor a directory"))


def _below(root: bytes, names: Rules) -> Iterator[Found]:
    errors: list[Found] = []
    empty = True
    for listing in walk(root, names, lambda path, error: errors.append(Found(path, _of(error)))):
        found = [Found(os.path.join(listing.path, name)) for name in _media(listing, names)]  # noqa: PTH118 - bytes
        empty = empty and not found and not errors
        yield from found
        yield from errors
        errors.clear()
    yield from errors
    if empty and not errors:
        known = "add its ending to run.extensions, or name the file itself"
        yield Found(root, VideoError("no-media", f"the directory holds no file with a known ending ({known})"))


def _media(listing: Listing, names: Rules) -> list[bytes]:
    """Files and links to files."""
    links = [name for name in listing.links if names.takes(name)]
    return sorted(
        listing.files + [name for name in links if not os.path.isdir(os.path.join(listing.path, name))]  # noqa: PTH112, PTH118
    )


def _of(error: OSError) -> VideoError:
    match error:
        case FileNotFoundError():
            return VideoError("not-found", "no such file or directory")
        case PermissionError():
            return VideoError("no-permission", "permission denied")
    return VideoError("read-error", error.strerror or str(error))
