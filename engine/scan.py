"""Walks directories: which names are taken, which are passed over, and whether a file that is missing is gone.

Nothing here opens a file. A walk holds the names of one directory that are taken, and of the directories still to come;
names that are passed over are only counted.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

Identity = tuple[int, int]  # device and inode of a directory
Problem = Callable[[bytes, OSError], None]
Skip = Callable[[bytes, Identity], bool]


@dataclass(frozen=True, slots=True)
class Rules:
    """Which names are taken. Letters are compared without regard to case, for cameras write .MP4."""

    endings: tuple[bytes, ...]  # in lower case
    wanted: re.Pattern[str] | None
    unwanted: re.Pattern[str] | None

    def takes(self, name: bytes) -> bool:
        """Whether a file of this name is wanted."""
        if not name.lower().endswith(self.endings) and not _matches(self.wanted, name):
            return False
        return not _matches(self.unwanted, name)

    def passes_over(self, name: bytes) -> bool:
        """Whether a directory of this name is not entered."""
        return _matches(self.unwanted, name)


def rules(include: Sequence[str], exclude: Sequence[str], extensions: Sequence[str]) -> Rules:
    """Rules from patterns of names. include: none means every file with one of the extensions."""
    patterns = include or [f"*.{extension}" for extension in extensions]
    plain = [
        pattern
        for pattern in patterns
        if re.fullmatch(r"\*[\x20-\x7e]*", pattern) and not re.search(r"[*?[]", pattern[1:])
    ]
    return Rules(
        endings=tuple(os.fsencode(pattern[1:].lower()) for pattern in plain),  # a million names are compared with these
        wanted=_compiled([pattern for pattern in patterns if pattern not in plain]),
        unwanted=_compiled(exclude),
    )


def _compiled(patterns: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(fnmatch.translate, patterns)), re.IGNORECASE) if patterns else None


def _matches(pattern: re.Pattern[str] | None, name: bytes) -> bool:
    return pattern is not None and pattern.match(os.fsdecode(name)) is not None


class Entry(Protocol):
    """What is asked of an os.DirEntry."""

    @property
    def name(self) -> bytes: ...
    def is_dir(self) -> bool: ...
    def is_symlink(self) -> bool: ...


Scandir = Callable[[bytes], AbstractContextManager[Iterator[Entry]]]


@dataclass(slots=True)
class Listing:
    """One directory: what was taken of it, each in order of name."""

    path: bytes
    identity: Identity
    files: list[bytes] = field(default_factory=list)  # names that are taken: regular or not
    directories: list[bytes] = field(default_factory=list)  # names, to be entered next
    links: list[bytes] = field(default_factory=list)  # names of symbolic links that were not followed
    ignored: int = 0


def walk(
    top: bytes,
    names: Rules,
    problem: Problem,
    *,
    follow_links: bool = False,
    skip: Skip = lambda path, identity: False,
    scandir: Scandir = os.scandir,
) -> Iterator[Listing]:
    """A directory and all below it, each before what it holds. `top` itself may be a link.

    A directory that holds itself, by way of a link or a mount, is not entered again; nor is one, below the top,
    that is to be skipped. What cannot be read is told to `problem`, and the rest goes on.
    """
    waiting: list[tuple[bytes, tuple[Identity, ...]]] = [(top, ())]
    while waiting:
        path, above = waiting.pop()
        try:
            identity = _identity(path)
        except OSError as error:
            problem(path, error)
            continue
        if identity in above or (above and skip(path, identity)):
            continue
        listing = _list(Listing(path, identity), names, follow_links, problem, scandir)
        below = (*above, identity)
        waiting += [(os.path.join(path, name), below) for name in reversed(listing.directories)]  # noqa: PTH118 - bytes
        yield listing


def _identity(path: bytes) -> Identity:
    found = os.stat(path)  # noqa: PTH116 - bytes
    return found.st_dev, found.st_ino


def _list(listing: Listing, names: Rules, follow_links: bool, problem: Problem, scandir: Scandir) -> Listing:
    try:
        with scandir(listing.path) as entries:
            for entry in entries:
                try:
                    _sort_in(entry, listing, names, follow_links)
                except OSError as error:  # a link to itself, or an entry that the server does not describe
                    problem(os.path.join(listing.path, entry.name), error)  # noqa: PTH118 - bytes
    except OSError as error:
        problem(listing.path, error)
    for each in (listing.files, listing.directories, listing.links):
        each.sort()
    return listing


def _sort_in(entry: Entry, listing: Listing, names: Rules, follow_links: bool) -> None:
    if entry.is_symlink() and not follow_links:
        kind = listing.links
        taken = not names.passes_over(entry.name)
    elif entry.is_dir():
        kind = listing.directories
        taken = not names.passes_over(entry.name)
    else:
        kind = listing.files
        taken = names.takes(entry.name)
    if taken:
        kind.append(entry.name)
    else:
        listing.ignored += 1


class Presence(Enum):
    """What became of a known file."""

    HERE = auto()  # something is there
    GONE = auto()  # it is not, and the directory it was in can be read and is on the same file system as before
    ELSEWHERE = auto()  # it is not, but another file system is there than the one that held it
    UNSURE = auto()  # nobody can tell: no permission, an error of the disk, the root is not there


def presence(path: bytes, device: int, root: bytes, same: Callable[[int, int], bool]) -> tuple[Presence, bytes]:
    """Whether a known file is there, and the nearest directory above it that is.

    device: where it was recorded. same: whether a recorded device is the one of this number now.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _absence(path, device, root, same)
    except OSError:
        return Presence.UNSURE, path
    return Presence.HERE, path


def _absence(path: bytes, device: int, root: bytes, same: Callable[[int, int], bool]) -> tuple[Presence, bytes]:
    directory = path
    while len(directory) > len(root):
        directory = os.path.dirname(directory)  # noqa: PTH120 - bytes
        try:
            found = os.stat(directory)  # noqa: PTH116 - bytes
            if not stat.S_ISDIR(found.st_mode):
                continue
            with os.scandir(directory):
                here = same(device, found.st_dev)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return Presence.UNSURE, directory
        return (Presence.GONE if here else Presence.ELSEWHERE), directory
    return Presence.UNSURE, root
