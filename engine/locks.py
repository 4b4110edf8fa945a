"""A lock on something that one process at a time may use, which says who holds it."""

import fcntl
import os
import shlex
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from stages.errors import SluiceError

COMMAND_CHARACTERS = 200  # of the holder's command line, in the file and in the error
FILE_BYTES = 4096  # read of the file, which anybody may have written


class Held(SluiceError):
    """Another process holds what we want, or the lock cannot be had."""


class Lock:
    """A lock that is held, until `close` or the end of this process, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let go. The file stays: to remove it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hold(path: Path, what: str) -> Lock:
    """Take the exclusive lock of the file `path`, made if need be, and write into it who we are.

    what: what it guards, as the error's first words.

    Raises:
        Held: "held": another process has it, and which; "no-lock": the file cannot be made or locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _no_lock(path, what, error) from error
    with ExitStack() as undo:
        undo.callback(os.close, descriptor)
        _take(descriptor, path, what)
        undo.pop_all()
    return Lock(descriptor)


def _take(descriptor: int, path: Path, what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _read(descriptor) or "another process"
        raise Held("held", f"{what} is held by {holder}; stop that one first (lock: {path})") from error
    except OSError as error:
        raise _no_lock(path, what, error) from error
    _write(descriptor)


def _no_lock(path: Path, what: str, error: OSError) -> Held:
    return Held("no-lock", f"{what} cannot be locked: {path}: {error.strerror}; make it writable, on a local disk")


def _write(descriptor: int) -> None:
    """Who we are. A full disk may keep it out: the lock holds all the same, and the next one is told less."""
    command = shlex.join(sys.argv)[:COMMAND_CHARACTERS]
    text = f"process {os.getpid()} ({command}) on {socket.gethostname()}"
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(errors="backslashreplace"), 0)
    except OSError:
        os.ftruncate(descriptor, 0)  # not half a name


def _read(descriptor: int) -> str:
    text = os.pread(descriptor, FILE_BYTES, 0).decode(errors="replace")
    return "".join(char if char.isprintable() else " " for char in text)[: 2 * COMMAND_CHARACTERS].strip()
