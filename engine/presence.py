"""How a running daemon makes itself known to the commands, and how they find it: two files in run.state.

daemon.lock   held (flock) by the daemon for as long as it lives; names it
daemon.json   where to ask it, and which store it serves; without the lock it is a leftover, and ignored
"""

import contextlib
import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.config import Config
from engine.errors import StartError
from engine.locks import Held, Lock, hold

LOCK_NAME = "daemon.lock"
CARD_NAME = "daemon.json"
# A command that looks whether the lock is held, holds it itself for a moment. Such a moment is waited out.
TRIES = 10
PAUSE_SECONDS = 0.05


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What daemon.json holds."""

    endpoint: str  # of its front desk
    pid: int
    command: str
    started: float  # seconds since 1970
    store: str  # URL, or the absolute path of an embedded store
    prefix: str  # of its collections


def store_name(config: Config) -> str:
    """The store that the settings name, the same for every way to spell it: a URL, or an absolute path."""
    return config.store.url.rstrip("/") if config.store.url is not None else str(Path(config.store.path).resolve())


@contextlib.contextmanager
def announce(config: Config, endpoint: str) -> Iterator[Presence]:
    """Make this daemon known for as long as the context lasts. Its front desk must be bound already.

    Raises:
        StartError: another daemon holds run.state, or nothing can be written there.
    """
    presence = Presence(
        endpoint=endpoint,
        pid=os.getpid(),
        command=shlex.join(sys.argv)[:200],
        started=time.time(),
        store=store_name(config),
        prefix=config.store.prefix,
    )
    state = Path(config.run.state)
    with contextlib.ExitStack() as held:
        try:
            state.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(state))
            _write_card(state / CARD_NAME, presence)
        except OSError as error:
            raise StartError(
                "run-state", f"{state}: {error.strerror}; set run.state to a writable directory"
            ) from error
        held.callback((state / CARD_NAME).unlink, missing_ok=True)
        yield presence


def find(config: Config) -> Presence | None:
    """The daemon that runs now and serves the store of these settings; None when there is none."""
    state = Path(config.run.state)
    try:
        presence = msgspec.json.decode((state / CARD_NAME).read_bytes(), type=Presence)
        alive = _is_locked(state / LOCK_NAME)
    except (OSError, msgspec.DecodeError):  # none was ever here, or not one that we may ask
        return None
    same_store = (presence.store, presence.prefix) == (store_name(config), config.store.prefix)
    return presence if alive and same_store else None


def _locked(state: Path) -> Lock:
    for attempt in range(TRIES):
        time.sleep(PAUSE_SECONDS if attempt else 0)
        try:
            return hold(state / LOCK_NAME, f"run.state {state}")
        except Held as error:
            held = error
            if held.code != "held":
                break
    code = "already-running" if held.code == "held" else "run-state"
    raise StartError(code, f"{held.message}, or set another run.state") from held


def _is_locked(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write_card(card: Path, presence: Presence) -> None:
    """Whole or not at all, and for this user alone: a URL may hold a password."""
    temporary = card.with_name(card.name + ".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(msgspec.json.encode(presence))
    temporary.replace(card)
