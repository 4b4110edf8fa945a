"""The directory of the embedded store: whose it is, who has it open, and whether there is room in it.

DIR/sluice-store.json     the mark that the directory is ours
DIR/lock                  held (flock) by the one process that has the store open; names it
DIR/<prefix>_<name>/      one collection, written by Qdrant Edge
DIR/.new-<prefix>_<name>/ a collection that is being made; left behind by a crash, removed at the next try
"""

import errno
import fcntl
import json
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from stages.errors import StoreError, StoreUnavailable

_MARK = "sluice-store.json"
_LOCK = "lock"
_VERSION = 1
_OURS_BEFORE_THE_MARK = {_LOCK, _MARK + ".tmp"}  # what a crash while the directory was being made may leave
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_A_DIRECTORY = {errno.ENOTDIR, errno.EEXIST}
MIB = 1 << 20

# Edge maps its files into memory: a write to a full disk is no error but a SIGBUS, which kills the process and leaves
# a store that kills the next one too. So it must never come to that. One batch of 256 points touches about 10 MiB.
RESERVE_BYTES = 64 * MIB


class StoreDirectory:
    """A store directory, made if need be, and held until close().

    Raises StoreError: store-not-a-directory, store-not-writable, store-not-ours, store-version, store-damaged,
    store-missing (read_only, and nothing there), store-locked; StoreUnavailable: store-full.
    """

    def __init__(self, path: Path, read_only: bool, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.path = path
        self._reserve_bytes = reserve_bytes
        self._lock_descriptor: int | None = None
        try:
            self._open(read_only)
        except OSError as error:
            raise os_error(path, error) from error

    def close(self) -> None:
        """Release the lock. The lock file stays: removing it would race with the next opener."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def check_room(self, needed_bytes: int) -> None:
        """Raise StoreUnavailable "store-full" unless that much can be written with the reserve left untouched."""
        self._check_free(needed_bytes + self._reserve_bytes)

    def check_room_to_open(self) -> None:
        """Opening replays one unflushed batch at most: less will do, so that a store on a full disk can be searched."""
        self._check_free(self._reserve_bytes // 4)

    def _check_free(self, needed_bytes: int) -> None:
        disk = os.statvfs(self.path)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < needed_bytes:
            raise StoreUnavailable(
                "store-full",
                f"the disk of {self.path} is full: {free_bytes // MIB} MiB are free, {-(-needed_bytes // MIB)} MiB are "
                "needed; make room there, or choose another store.path",
            )

    def _open(self, read_only: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        marked = (self.path / _MARK).exists()
        if read_only and not marked:
            raise StoreError("store-missing", f"there is no store in {self.path}: ingest first, or set store.path")
        if not marked:
            self._make()
        self._lock_descriptor = take_lock(self.path)
        with ExitStack() as undo:
            undo.callback(self.close)  # gives the lock back, whatever stops us here
            self._check_mark() if marked else self._write_mark()
            undo.pop_all()

    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        strangers = {entry.name for entry in self.path.iterdir()} - _OURS_BEFORE_THE_MARK - {_MARK}
        if strangers:
            raise StoreError(
                "store-not-ours",
                f"{self.path} is neither empty nor a Sluice store (it holds {min(strangers)!r}): set store.path",
            )
        self._check_free(self._reserve_bytes)

    def _write_mark(self) -> None:
        temporary = self.path / (_MARK + ".tmp")
        temporary.write_text(json.dumps({"version": _VERSION}))
        temporary.replace(self.path / _MARK)
        sync_directory(self.path)

    def _check_mark(self) -> None:
        mark = self.path / _MARK
        try:
            version = json.loads(mark.read_bytes())["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError("store-damaged", f"{mark} cannot be read: restore the store, or use another") from error
        if version != _VERSION:
            raise StoreError(
                "store-version",
                f"the store in {self.path} has format {version}, this Sluice reads {_VERSION}: set store.path",
            )


def locked_error(path: Path, owner: str) -> StoreError:
    return StoreError("store-locked", f"the store in {path} is in use by {owner}: stop it, or use another store.path")


def take_lock(path: Path, taken: Callable[[Path, str], Exception] = locked_error) -> int:
    """Descriptor of the lock file in a directory, locked. The kernel frees it when the process ends, however it ends.

    Raises what `taken` makes of the path and of the owner's name; OSError.
    """
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} ({shlex.join(sys.argv)[:200]})".encode(errors="replace"), 0)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
        os.close(descriptor)
        raise taken(path, owner) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def full_error(path: Path) -> StoreUnavailable:
    return StoreUnavailable("store-full", f"the disk of {path} is full: make room there, or choose another store.path")


def os_error(path: Path, error: OSError) -> StoreError:
    """What an operating system error at this path means for the store."""
    where = error.filename or path
    if error.errno in _FULL:
        return full_error(path)
    if error.errno in _NOT_A_DIRECTORY:
        return StoreError("store-not-a-directory", f"store.path {path} cannot be used: {where} is not a directory")
    return StoreError(
        "store-not-writable",
        f"store.path {path} cannot be written: {where}: {error.strerror}; change its permissions, or choose another",
    )


def sync_directory(path: Path) -> None:
    """Make new and renamed entries of a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
