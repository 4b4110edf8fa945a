"""What else goes wrong: each scenario disturbs a trial in its own way, and returns what was wrong then, a line each.

`trial.finish()` tells the rest. They raise Surprised as the subject does, and TimeoutError, when the daemon never met
what was prepared for it, too: then nothing would be shown.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import failpoints
from tests.chaos.disks import Ballast, small_disk
from tests.chaos.processes import Process, figures
from tests.chaos.schedule import KINDS
from tests.chaos.subject import DaemonSubject, wait_until
from tests.chaos.trial import Trial
from tests.qdrant_loopback import LoopbackQdrant

THERE_SECONDS = 120.0  # by then whatever was to come about has
LOOK_SECONDS = 0.1
STORE_LEFT_BYTES = 32 << 20  # less than the store and the spool leave free (their RESERVE_BYTES)
SERVER_SETTINGS = ("store.timeout_seconds=1", "engine.results_mb=1")
OUTAGE_RSS_MB = 64.0  # what the consumer may grow by while the store is away: results_mb, and what its libraries take
FAR_TOO_OFTEN = 100_000

Place = tuple[str, int]  # a failpoint, and which time it is reached


def daemon_of(trial: Trial) -> DaemonSubject:
    """The subject, which must be a daemon."""
    assert isinstance(trial.subject, DaemonSubject)
    return trial.subject


def start(trial: Trial) -> None:
    """Have it run, with its models loaded."""

    def is_at_work() -> bool:
        trial.subject.ensure_running()
        return trial.subject.is_at_work

    wait_until(is_at_work, THERE_SECONDS, "a daemon at work")


def until(trial: Trial, condition: Callable[[dict[str, Any]], object], what: str) -> None:
    """Wait until its status is so. Raises TimeoutError."""
    subject = daemon_of(trial)

    def is_so() -> bool:
        subject.ensure_running()
        status = subject.status()
        return status is not None and bool(condition(status))

    wait_until(is_so, THERE_SECONDS, f"a daemon that says {what}; its log ends:\n{subject.tail(10)}\n{what}")


def pause(trial: Trial, seconds: float, look: Callable[[], None] = lambda: None) -> None:
    """Wait; what ends meanwhile is started again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        trial.subject.ensure_running()
        look()
        time.sleep(LOOK_SECONDS)


# --- processes --------------------------------------------------------------------------------------------------------


def stop_each(trial: Trial, seconds: float, kinds: Sequence[str] = KINDS) -> list[str]:
    """Every process stands still for a while, one kind after the other. A decoder has to be found out."""
    stall_seconds = daemon_of(trial).config.run.stall_seconds
    for kind in kinds:
        start(trial)
        process = trial.subject.processes(kind)[0]
        os.kill(process.pid, signal.SIGSTOP)
        trial.workload.add_wave()
        time.sleep(seconds)
        if kind == "decoder" and seconds > stall_seconds:
            _until_gone(trial, process)
        if _is_there(trial, process):
            os.kill(process.pid, signal.SIGCONT)
        daemon_of(trial).wait_idle(THERE_SECONDS)
    return []


def _until_gone(trial: Trial, process: Process) -> None:
    wait_until(lambda: not _is_there(trial, process), THERE_SECONDS, f"the end of a {process.kind} that stands still")


def _is_there(trial: Trial, process: Process) -> bool:
    return process in trial.subject.processes(process.kind)


def die_at(
    trial: Trial,
    places: Sequence[Place],
    settle: bool = True,
    between: Callable[[], None] = lambda: None,
    at_work: Callable[[], None] = lambda: None,
) -> list[str]:
    """Whoever comes to a place dies there: one life of the daemon for each, with work at hand.

    A child is replaced, and the work done, where it is to settle; then the daemon is killed, for its environment is
    that of its start. `between` is called when it is dead, and `at_work` when it is at work again.
    """
    subject = daemon_of(trial)
    subject.may_die = True
    for name, count in places:
        subject.crash()
        between()
        file = trial.directory / f"died-{name}"
        file.unlink(missing_ok=True)  # of a round before
        subject.environment = {failpoints.VARIABLE: f"{name}:{count}:{file}"}
        trial.workload.add_wave()
        _until_reached(trial, name, file, subject.drain if name == failpoints.DURING_DRAIN else at_work)
        if settle and subject.is_running:
            subject.wait_idle(THERE_SECONDS)
    return []


def _until_reached(trial: Trial, name: str, file: Path, at_work: Callable[[], None]) -> None:
    subject, was_at_work = daemon_of(trial), False

    def is_reached() -> bool:
        nonlocal was_at_work
        if file.exists():
            return True
        subject.ensure_running()
        if subject.is_at_work and not was_at_work:
            was_at_work = True
            at_work()
        elif was_at_work and name != failpoints.DURING_DRAIN and subject.is_idle():
            trial.workload.add_wave()  # it was not enough to come there so often
        return False

    wait_until(is_reached, THERE_SECONDS, f"somebody at {name}")


# --- the store --------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A store that can go away and come back at the same place."""

    directory: Path

    def __post_init__(self) -> None:
        self.loopback = LoopbackQdrant(self.directory)
        self.url = self.loopback.url

    def failures(self) -> Iterator[Callable[[], None]]:
        """Ways to be away, to be used one after the other."""
        yield self.refuse
        yield lambda: self.loopback.timeout(times=FAR_TOO_OFTEN, seconds=3.0)
        yield lambda: self.loopback.drop(times=FAR_TOO_OFTEN, applied=False)
        yield lambda: self.loopback.drop(times=FAR_TOO_OFTEN, applied=True)
        yield self.loopback.close

    def refuse(self) -> None:
        """Answer 503 from now on."""
        self.loopback.fail(503, times=FAR_TOO_OFTEN)

    def recover(self) -> None:
        """Serve again what was stored, at the same port."""
        self.loopback = LoopbackQdrant(self.directory, int(self.url.rpartition(":")[2]))

    def close(self) -> None:
        """No more."""
        self.loopback.close()


def outage(trial: Trial, server: Server, seconds: float) -> list[str]:
    """The store fails in five ways, one after the other; memory is bounded, and the spool is used."""
    start(trial)
    wait_until(lambda: server.loopback.requests["PUT points"] > 0, THERE_SECONDS, "the first upsert")
    watch = _Memory(trial)
    for fail in server.failures():
        server.loopback.clear()
        fail()
        trial.workload.add_wave()
        until(trial, lambda status: status["store"]["state"].startswith("waiting"), "that the store is away")
        pause(trial, seconds / 5, watch.look)
    wrong = watch.wrong()
    if not spooled(trial):
        wrong.append("nothing was put into the spool")
    server.recover()
    return wrong


def die_while_away(trial: Trial, server: Server, flush: Place, replay: Place) -> list[str]:
    """The consumer dies when it writes the spool, then when it reads it back: after a start, and not yet ready."""
    die_at(trial, [flush], settle=False, at_work=server.refuse)
    wait_until(lambda: bool(spooled(trial)), THERE_SECONDS, "a spool")
    return die_at(trial, [replay], between=server.loopback.clear)


class _Memory:
    """What the consumer grows by."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.look()
        self._first = self._peak

    _peak = 0.0

    def look(self) -> None:
        now = [figures(each.pid).get("rss_mb", 0.0) for each in self._trial.subject.processes("consumer")]
        self._peak = max([self._peak, *now])

    def wrong(self) -> list[str]:
        if self._peak <= self._first + OUTAGE_RSS_MB:
            return []
        return [f"the consumer grew from {self._first:.0f} to {self._peak:.0f} MB while the store was away"]


def spooled(trial: Trial) -> list[str]:
    """What lies in the spool."""
    files = [path for path in trial.directory.rglob("*.spool") if path.stat().st_size]
    return [f"in the spool: {path} ({path.stat().st_size} bytes)" for path in files]


# --- disks ------------------------------------------------------------------------------------------------------------


def full_store(trial: Trial, disk: Path, seconds: float) -> list[str]:
    """The disk of store and ledger gets full: first for the store, which leaves a reserve, then altogether."""
    start(trial)
    ballast = Ballast(disk)
    ballast.take(STORE_LEFT_BYTES)
    trial.workload.add_wave()
    until(trial, lambda status: "full" in status["store"]["state"], "that the disk of the store is full")
    ballast.take(0)
    trial.workload.add_wave()
    until(trial, lambda status: status["ledger"] != "ok", "that the ledger cannot be written")
    pause(trial, seconds)
    ballast.free()
    until(trial, lambda status: status["ledger"] == "ok", "that the ledger is well")
    trial.workload.add_wave()
    return []


def full_spool(trial: Trial, server: Server, disk: Path, seconds: float) -> list[str]:
    """The server is away, and there is no room for the spool; then none for the ledger, too."""
    start(trial)
    ballast = Ballast(disk)
    ballast.take(STORE_LEFT_BYTES)
    server.refuse()
    trial.workload.add_wave()
    until(trial, lambda status: "spool cannot be written" in status["store"]["state"], "that there is no room to spool")
    ballast.take(0)
    trial.workload.add_wave()
    until(trial, lambda status: status["ledger"] != "ok", "that the ledger cannot be written")
    pause(trial, seconds)
    ballast.free()
    until(trial, lambda status: status["ledger"] == "ok", "that the ledger is well")
    pause(trial, seconds)
    server.loopback.clear()
    trial.workload.add_wave()
    return []


# --- directories ------------------------------------------------------------------------------------------------------


def grow(trial: Trial, seconds: float, pieces: int = 20) -> list[str]:
    """A file is written slowly, with one pause that is longer than watch.quiet_seconds."""
    start(trial)
    quiet_seconds = daemon_of(trial).config.watch.quiet_seconds

    def write(path: Path, data: bytes) -> None:
        size = -(-len(data) // pieces)
        with path.open("wb", buffering=0) as file:
            for number in range(pieces):
                file.write(data[number * size : (number + 1) * size])
                step = seconds / pieces
                pause(trial, step if number != pieces // 2 else max(4 * quiet_seconds, step))

    trial.workload.add_slowly(write)
    return []


def swap(trial: Trial, seconds: float) -> list[str]:
    """Something empty is mounted over the root, for several scans: nothing may be taken for deleted."""
    start(trial)
    daemon_of(trial).wait_idle(THERE_SECONDS)
    with small_disk(trial.workload.directory):
        until(trial, lambda status: status["roots"][0]["state"].startswith("waiting"), "that the root is lost")
        pause(trial, seconds)
    until(trial, lambda status: not status["roots"][0]["state"].startswith("waiting"), "that the root is back")
    trial.workload.add_wave()
    return []


def crowd(trial: Trial, count: int) -> list[str]:
    """So many files that are none of its business, in the same directory."""
    for number in range(count):
        (trial.workload.directory / f"note-{number}.txt").touch()
    trial.workload.add_wave()
    daemon_of(trial).wait_idle(THERE_SECONDS)
    return []
