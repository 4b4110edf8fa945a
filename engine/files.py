"""Which files a PATH means, and how a path is shown."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.videos import VideoError


@dataclass(frozen=True, slots=True)
class Found:
    """A file to index, or a path that gives none and why."""

    path: bytes  # as the file system spells it
    error: VideoError | None = None


def shown(path: bytes) -> str:
    """A path as printable, valid Unicode on one line: odd bytes and control characters are escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def find_files(paths: Sequence[bytes], extensions: Sequence[str]) -> Iterator[Found]:
    """Files named outright, and the media files below directories, in order of name.

    A path that does not exist, cannot be read or holds no media gives one `Found` with its error.
    """
    endings = tuple(f".{extension.lower()}".encode() for extension in extensions)
    for path in paths:
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - Path does not take bytes
        except OSError as error:
            yield Found(path, _of(error))
            continue
        if stat.S_ISDIR(mode):
            yield from _below(path, endings)
        elif stat.S_ISREG(mode):
            yield Found(path)
        else:
            yield Found(path, VideoError("not-a-file", "neither a file nor a directory"))


def _below(root: bytes, endings: tuple[bytes, ...]) -> Iterator[Found]:
    count = 0
    errors: list[OSError] = []
    for directory, names, files in os.walk(root, onerror=errors.append):
        names.sort()
        names[:] = [name for name in names if not name.startswith(b".")]
        for name in sorted(files):
            if name.lower().endswith(endings) and not name.startswith(b"."):
                count += 1
                yield Found(os.path.join(directory, name))  # noqa: PTH118 - bytes
        while errors:
            yield _unreadable(errors.pop())
    while errors:
        count += 1
        yield _unreadable(errors.pop())
    if not count:
        known = "add its ending to run.extensions, or name the file itself"
        yield Found(root, VideoError("no-media", f"the directory holds no file with a known ending ({known})"))


def _unreadable(error: OSError) -> Found:
    return Found(os.fsencode(error.filename), _of(error))


def _of(error: OSError) -> VideoError:
    match error:
        case FileNotFoundError():
            return VideoError("not-found", "no such file or directory")
        case PermissionError():
            return VideoError("no-permission", "permission denied")
    return VideoError("read-error", error.strerror or str(error))
