"""What else goes wrong: each scenario disturbs a trial in its own way, lets it finish, and tells what is wrong.

They raise Surprised and TimeoutError as the subject does.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine import failpoints
from tests.chaos.processes import Process, figures
from tests.chaos.schedule import KINDS
from tests.chaos.subject import DaemonSubject, Subject, wait_until
from tests.chaos.trial import Trial
from tests.qdrant_loopback import LoopbackQdrant

THERE_SECONDS = 120.0  # by then whatever was to come about has
MB = 1_000_000
DISK_BYTES = 256 << 20
LEFT_BYTES = 1 << 20  # on a disk that is full
SERVER_SETTINGS = ("store.timeout_seconds=1", "engine.results_mb=1")
OUTAGE_RSS_MB = 64.0  # what the consumer may grow by while the store is away: results_mb, and what its libraries take


# --- processes --------------------------------------------------------------------------------------------------------


def stop_each(trial: Trial, seconds: float, kinds: Sequence[str] = KINDS) -> list[str]:
    """Every process stands still for a while, one kind after the other."""
    for kind in kinds:
        trial.workload.add_wave()
        process = first(trial.subject, kind)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        if process in trial.subject.processes(kind):  # else it was found out and replaced
            os.kill(process.pid, signal.SIGCONT)
    return trial.finish()


def first(subject: Subject, kind: str) -> Process:
    """The first living process of a kind, waited for."""
    found: list[Process] = []

    def is_there() -> bool:
        subject.ensure_running()
        found[:] = subject.processes(kind)
        return bool(found)

    wait_until(is_there, THERE_SECONDS, f"a process of the kind {kind}")
    return found[0]


def die_at(trial: Trial, name: str, count: int) -> list[str]:
    """Whoever comes to a failpoint for the count-th time dies there, once."""
    file = trial.directory / "died"
    subject = trial.subject
    subject.environment = {failpoints.VARIABLE: f"{name}:{count}:{file}"}
    subject.may_die = True
    if name == failpoints.DURING_DRAIN:
        assert isinstance(subject, DaemonSubject)
        wait_until(lambda: _is_at_work(subject), THERE_SECONDS, "a daemon at work")
        subject.drain()
    wait_until(lambda: _reached(subject, file), THERE_SECONDS, f"failpoint {name}")
    return trial.finish()


def _is_at_work(subject: DaemonSubject) -> bool:
    subject.ensure_running()
    status = subject.status()
    return status is not None and status["state"] == "indexing" and bool(status["totals"]["points"])


def _reached(subject: Subject, file: Path) -> bool:
    if not file.exists():
        subject.ensure_running()
    return file.exists()


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
        yield lambda: self.loopback.fail(503, times=100_000)
        yield lambda: self.loopback.timeout(times=100_000, seconds=3.0)
        yield lambda: self.loopback.drop(times=100_000, applied=False)
        yield lambda: self.loopback.drop(times=100_000, applied=True)
        yield self.loopback.close

    def recover(self) -> None:
        """Serve again what was stored, at the same port."""
        self.loopback = LoopbackQdrant(self.directory, int(self.url.rpartition(":")[2]))

    def close(self) -> None:
        """No more."""
        self.loopback.close()


def outage(trial: Trial, server: Server, seconds: float, failpoint: str | None = None) -> list[str]:
    """The store fails in five ways, one after the other; nothing is lost, memory is bounded, the spool ends empty."""
    if failpoint is not None:
        trial.subject.environment = {failpoints.VARIABLE: f"{failpoint}:1:{trial.directory / 'died'}"}
    before = first(trial.subject, "consumer")
    wait_until(lambda: server.loopback.requests["PUT points"] > 0, THERE_SECONDS, "the first upsert")
    base, peak = figures(before.pid).get("rss_mb", 0.0), 0.0
    for fail in server.failures():
        server.loopback.clear()
        fail()
        trial.workload.add_wave()
        until = time.monotonic() + seconds / 5
        while time.monotonic() < until:
            trial.subject.ensure_running()
            peak = max([peak, *(figures(each.pid).get("rss_mb", 0.0) for each in trial.subject.processes("consumer"))])
            time.sleep(0.1)
    server.recover()
    wrong = trial.finish()
    if peak > base + OUTAGE_RSS_MB:
        wrong.append(f"the consumer grew from {base:.0f} to {peak:.0f} MB while the store was away")
    if failpoint is not None and not (trial.directory / "died").exists():
        wrong.append(f"failpoint {failpoint} was never reached")
    left = [path for path in trial.directory.rglob("*.spool") if path.stat().st_size]
    return wrong + [f"left in the spool: {path} ({path.stat().st_size} bytes)" for path in left]


# --- disks ------------------------------------------------------------------------------------------------------------


def may_mount() -> bool:
    """Whether this process may mount file systems."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


@contextmanager
def small_disk(directory: Path, size_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """A file system in memory at `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "none"]
    subprocess.run(["mount", *options, str(directory)], check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


def fill_for(disk: Path, seconds: float, meanwhile: Callable[[], None]) -> None:
    """Take all but LEFT_BYTES of a disk for a while."""
    ballast = disk / "ballast"
    stat = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, stat.f_bavail * stat.f_frsize - LEFT_BYTES))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        meanwhile()
        time.sleep(0.1)
    ballast.unlink()


def full_disk(trial: Trial, disk: Path, seconds: float) -> list[str]:
    """The disk of the store or the ledger has no room for a while, with work at hand."""
    first(trial.subject, "decoder")
    trial.workload.add_wave()
    fill_for(disk, seconds, trial.subject.ensure_running)
    trial.workload.add_wave()
    return trial.finish()


# --- directories ------------------------------------------------------------------------------------------------------


def grow(trial: Trial, source: Path, seconds: float, pieces: int = 20) -> list[str]:
    """A file is written slowly, with one pause that is longer than watch.quiet_seconds."""
    trial.subject.ensure_running()
    data, path = source.read_bytes(), trial.workload.directory / f"growing-{source.name}"
    size = -(-len(data) // pieces)
    with path.open("wb", buffering=0) as file:
        for number in range(pieces):
            file.write(data[number * size : (number + 1) * size])
            time.sleep(seconds / pieces if number != pieces // 2 else max(1.5, seconds / pieces))
            trial.subject.ensure_running()
    return trial.finish()


def swap(trial: Trial, seconds: float) -> list[str]:
    """Something empty is mounted over the root, for several scans: nothing may be taken for deleted."""
    subject = trial.subject
    assert isinstance(subject, DaemonSubject)
    subject.wait_idle(THERE_SECONDS)
    with small_disk(trial.workload.directory):
        time.sleep(seconds)
        subject.ensure_running()
    time.sleep(seconds)
    return trial.finish()


def crowd(trial: Trial, count: int) -> list[str]:
    """So many files that are none of its business, in the same directory."""
    for number in range(count):
        (trial.workload.directory / f"note-{number}.txt").touch()
    trial.workload.add_wave()
    return trial.finish()
