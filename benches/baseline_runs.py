"""Runs Sluice and the baselines, each in a process of its own, and watches it and all below it from outside.

Memory is counted twice: the sum of what is resident (RSS), in which pages that processes share count for each of them,
and the proportional share (PSS, psutil's name and the kernel's), in which they count once.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
import psutil

from benches.baseline_one_by_one import Done, Job, Ready
from benches.baseline_steps import Reader
from benches.watching import TreeWatch
from stages.errors import SluiceError
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import FRAMES, SPEECH, VOICES

ROOT = Path(__file__).parents[1]
SLUICE, ONE_BY_ONE, WORKERS = "Sluice", "one by one", "workers"
SYSTEMS = (SLUICE, ONE_BY_ONE, WORKERS)
MODULES = {ONE_BY_ONE: "benches.baseline_one_by_one", WORKERS: "benches.baseline_workers"}
READY = "indexing on "  # how the line begins with which Sluice says that its models are loaded
INTERVAL_SECONDS = 0.5  # between two looks: for PSS the kernel walks over all pages, 15 % of a core at 0.25 s


class RunFailedError(SluiceError):
    """A system that is measured ended otherwise than it should."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all systems are given alike."""

    models: Mapping[str, Path]  # clip, whisper, ecapa
    reader: Reader = "pyav"
    speech_batch: int = 8
    workers: int = 2
    limit_bytes: int | None = None  # a system that takes more is killed, as the kernel would


@dataclass(frozen=True)
class Run:
    """What one system took for some videos."""

    wall_seconds: float
    cpu_seconds: float
    ready_seconds: float  # since its start, until its models are loaded (of several processes: the last's)
    ready_cpu_seconds: float
    peak_rss_bytes: int  # of all its processes at one time
    peak_pss_bytes: int
    peaks: Mapping[str, int]  # RSS of each role, or of each process of other systems; the highest of several
    memory: tuple[tuple[float, float], ...]  # (seconds since the start, PSS of all)
    points: Mapping[str, int]  # by collection
    done: tuple[Done, ...]  # of a baseline: each video
    killed: bool  # for its memory

    @property
    def work_seconds(self) -> float:
        """Without loading models."""
        return self.wall_seconds - self.ready_seconds

    @property
    def work_cpu_seconds(self) -> float:
        """Without loading models."""
        return self.cpu_seconds - self.ready_cpu_seconds


class MemoryWatch(TreeWatch):
    """Sees the proportional share, too, and kills what takes more than a limit."""

    def __init__(self, pid: int, limit_bytes: int | None) -> None:
        super().__init__(pid, INTERVAL_SECONDS)
        self.pid, self._limit_bytes = pid, limit_bytes
        self.memory: list[tuple[float, float]] = []
        self.killed = False

    def look(self) -> None:
        super().look()
        used = tree_pss_bytes(self.pid)
        self.memory.append((time.monotonic() - self._started, float(used)))
        if self._limit_bytes is not None and used > self._limit_bytes and not self.killed:
            with contextlib.suppress(ProcessLookupError):  # it may just have ended
                os.killpg(self.pid, signal.SIGKILL)  # it leads a session of its own
                self.killed = True

    @property
    def cpu_seconds(self) -> float:
        """Of all processes, as far as they were seen."""
        return sum(watched.cpu_seconds for watched in list(self.processes.values()))


def tree_pss_bytes(pid: int) -> int:
    """Proportional share of a process and of all below it; 0 of what is gone."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += int(process.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total


@dataclass
class _Heard:
    """What a system said."""

    ready: list[tuple[float, float]] = field(default_factory=list)  # wall and CPU seconds at each time
    done: list[Done] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # the rest


def run_system(system: str, media: Sequence[Path], directory: Path, setup: Setup) -> Run:
    """One system over some videos, with a fresh store in a new `directory`.

    Raises RunFailedError when it fails otherwise than by being killed for its memory.
    """
    directory.mkdir(parents=True)
    before, begun = children_cpu_seconds(), time.perf_counter()
    heard = _Heard()
    with (
        (directory / "log").open("w+", encoding="utf-8") as log,
        _started(command(system, media, directory, setup), log, tells_on_stderr=system == SLUICE) as process,
    ):
        watch = MemoryWatch(process.pid, setup.limit_bytes)
        with watch:
            _hear(process.stderr or process.stdout, heard, watch, begun)
            code = process.wait()
            wall_seconds = time.perf_counter() - begun
        log.seek(0)
        words = [*heard.words, *log.read().splitlines()]
    if code != 0 and not watch.killed:
        raise RunFailedError("run-failed", f"{system} ended with {code}: {words[-1] if words else 'it said nothing'}")
    points = {} if watch.killed else points_in(directory / "store")
    cpu_seconds = children_cpu_seconds() - before
    return _run(heard, watch, wall_seconds, cpu_seconds, points, "supervisor" if system == SLUICE else "main")


def _started(command: list[str], log: IO[str], tells_on_stderr: bool) -> "subprocess.Popen[str]":
    """In a session of its own, so that all of it can be killed. What it does not tell on goes to `log`."""
    tells, other = subprocess.PIPE, log
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=other if tells_on_stderr else tells,
        stderr=tells if tells_on_stderr else other,
        env=os.environ | {"NO_COLOR": "1"},
        start_new_session=True,
        text=True,
    )


def _run(
    heard: _Heard, watch: MemoryWatch, wall_seconds: float, cpu_seconds: float, points: dict[str, int], root: str
) -> Run:
    ready = heard.ready[-1] if heard.ready else (wall_seconds, cpu_seconds)
    return Run(
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds,
        ready_seconds=ready[0],
        ready_cpu_seconds=ready[1],
        peak_rss_bytes=watch.peak_bytes,
        peak_pss_bytes=int(max(used for _, used in watch.memory)),
        peaks=_peaks(watch, root),
        memory=tuple(watch.memory),
        points=points,
        done=tuple(heard.done),
        killed=watch.killed,
    )


def _hear(said: IO[str] | None, heard: _Heard, watch: MemoryWatch, begun: float) -> None:
    assert said is not None  # a pipe
    for line in said:
        event = said_in(line)
        if isinstance(event, Done):
            heard.done.append(event)
        elif isinstance(event, Ready):
            watch.look()
            heard.ready.append((time.perf_counter() - begun, watch.cpu_seconds))
        else:
            heard.words.append(line.rstrip())


def said_in(line: str) -> Ready | Done | None:
    """What a line means: of a baseline it is JSON, of Sluice words. Pure."""
    if line.startswith(READY):
        return Ready()
    try:
        return msgspec.json.decode(line, type=Ready | Done)
    except msgspec.DecodeError:
        return None


def _peaks(watch: MemoryWatch, root: str) -> dict[str, int]:
    """root: what the first process is called."""
    peaks: dict[str, int] = {}
    for pid, watched in watch.processes.items():
        role = root if pid == watch.pid else watched.role
        peaks[role] = max(peaks.get(role, 0), watched.peak_rss_bytes)
    return peaks


def children_cpu_seconds() -> float:
    """Processor time of all children that were waited for, with what they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def points_in(store: Path) -> dict[str, int]:
    """How many of each kind are stored."""
    opened = open_store(StoreOptions(path=str(store)), None, read_only=True)
    try:
        return {collection: opened.count(collection) for collection in (FRAMES, SPEECH, VOICES)}
    finally:
        opened.close()


# --- commands ---------------------------------------------------------------------------------------------------------


def command(system: str, media: Sequence[Path], directory: Path, setup: Setup) -> list[str]:
    """What is run. Pure."""
    if system == SLUICE:
        return sluice_command(media, directory, setup)
    job = Job(
        media=tuple(map(str, media)),
        store=str(directory / "store"),
        image=str(setup.models["clip"].resolve()),
        speech=str(setup.models["whisper"].resolve()),
        voice=str(setup.models["ecapa"].resolve()),
        reader=setup.reader,
        speech_batch=setup.speech_batch,
        workers=setup.workers,
    )
    return [sys.executable, "-m", MODULES[system], msgspec.json.encode(job).decode()]


def sluice_command(media: Sequence[Path], directory: Path, setup: Setup) -> list[str]:
    """Its own defaults, with the models, temperatures and captions that the baselines have. Pure."""
    settings = {
        "models.image": setup.models["clip"].resolve(),
        "models.speech": setup.models["whisper"].resolve(),
        "models.voice": setup.models["ecapa"].resolve(),
        "device.name": "cpu",
        "speech.temperatures": "[0.0]",
        "speech.captions": "ignore",
        "store.path": directory / "store",
        "run.state": directory / "state",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [sys.executable, "run.py", "ingest", *map(str, media), *given]
