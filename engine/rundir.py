"""The directory of one run's sockets: private, locked while the run lives, removed at its end.

A ZeroMQ ipc bind silently takes over an existing endpoint; a fresh directory for each run makes that impossible.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.errors import StartError
from engine.worker import Endpoints
from transport.sockets import MAX_IPC_PATH

PREFIX = "sluice-run-"


@contextlib.contextmanager
def run_directory(parent: str | None) -> Iterator[Path]:
    """A new 0700 directory below `parent` ($XDG_RUNTIME_DIR, else the temporary directory), locked by this process.

    Raises:
        StartError: it cannot be made, or its path is too long for a socket.
    """
    base = Path(parent or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    try:
        _sweep(base)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    except OSError as error:
        raise StartError("run-directory", f"no directory for sockets in {base}: {error}; set run.directory") from error
    try:
        with _locked(path):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def endpoints_in(path: Path) -> Endpoints:
    """Where the sockets of a run are.

    Raises:
        StartError: the path is longer than a socket's may be.
    """
    longest = len(os.fsencode(path / "control.ipc"))
    if longest > MAX_IPC_PATH:
        raise StartError(
            "run-directory", f"{path} is too long for a socket ({longest} > {MAX_IPC_PATH} bytes); set run.directory"
        )
    return Endpoints(
        control=f"ipc://{path}/control.ipc", items=f"ipc://{path}/items.ipc", points=f"ipc://{path}/points.ipc"
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _sweep(base: Path) -> None:
    """Remove what killed runs of this user left behind: their locks are free."""
    for path in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (path / "lock").open("r+") as lock:  # another user's, or just going away
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
