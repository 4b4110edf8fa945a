"""One run of `run.py ingest`, watched from outside: what it took, process by process, and when.

A run has three parts: it starts (imports, models) until it says "indexing on", works until it says "draining", and
ends. What it says on standard error tells when, and what all its processes had used until then is read at once.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benches.floor_work import Time
from benches.watching import ROLES, TreeWatch, Watched
from engine.sandbox import PROCESS_NAMES
from stages.errors import SluiceError

ROOT = Path(__file__).parents[1]
ROLE_NAMES = ("supervisor", "decoder", "engine", "consumer")
READY, DRAINING = "indexing on ", "draining"  # how the lines begin that part a run


class RunFailedError(SluiceError):
    """A run of the engine that is measured ended otherwise than it should."""

    def __init__(self, command: Sequence[str], code: int, words: Sequence[str]) -> None:
        last = words[-1] if words else "it said nothing"
        super().__init__("run-failed", f"{' '.join(command[1:3])} ended with {code}: {last}")


@dataclass(frozen=True)
class Moment:
    """What had been used when the run said something."""

    wall_seconds: float  # since the run was started
    cpu_seconds: Mapping[str, float]  # by role, of the processes that live and of those that were waited for

    @property
    def total_cpu_seconds(self) -> float:
        return sum(self.cpu_seconds.values())


@dataclass(frozen=True)
class Seen:
    """A run, from outside."""

    total: Time  # from its start to its end, with all its processes
    ready: Moment  # models are loaded, work begins
    done: Moment  # the last video is finished
    report: dict[str, Any]
    processes: tuple[Watched, ...]
    cpu: Mapping[str, tuple[tuple[float, float], ...]]  # by role: (seconds since the start, CPU seconds so far)
    peak_bytes: int  # of all processes together

    @property
    def work_cpu_seconds(self) -> float:
        """From ready to the very end."""
        return self.total.cpu_seconds - self.ready.total_cpu_seconds

    @property
    def work_wall_seconds(self) -> float:
        """From ready until the last video is finished."""
        return self.done.wall_seconds - self.ready.wall_seconds

    def work_cpu_by_role(self) -> dict[str, float]:
        """From ready until the last video is finished."""
        return {role: self.done.cpu_seconds[role] - self.ready.cpu_seconds[role] for role in ROLE_NAMES}


class CpuWatch(TreeWatch):
    """Keeps the processor time of each role over time, too."""

    def __init__(self, pid: int, interval_seconds: float = 0.1) -> None:
        super().__init__(pid, interval_seconds)
        self.cpu: dict[str, list[tuple[float, float]]] = {role: [] for role in ROLE_NAMES}

    def look(self) -> None:
        super().look()
        now = time.monotonic() - self._started
        for role, seconds in self.by_role().items():
            self.cpu[role].append((now, seconds))

    def by_role(self) -> dict[str, float]:
        """Processor time as last seen, dead processes included."""
        used = dict.fromkeys(ROLE_NAMES, 0.0)
        for watched in list(self.processes.values()):
            used[watched.role if watched.role in used else "supervisor"] += watched.cpu_seconds
        return used


@dataclass
class Ingest:
    """`run.py ingest` with settings, in a directory that is made anew for each run."""

    settings: Sequence[str]
    directory: Path
    options: Sequence[str] = ()  # further ones, such as --trace
    environment: Mapping[str, str] = field(default_factory=dict)
    allowed_codes: Sequence[int] = (0,)

    @property
    def store(self) -> Path:
        return self.directory / "store"

    def all_settings(self) -> list[str]:
        """With the places of store and state."""
        return [*self.settings, f'store.path="{self.store}"', f'run.state="{self.directory / "state"}"']

    def run(self, media: Iterable[Path], keep: bool = False) -> Seen:
        """keep: what is stored there already.

        Raises RunFailedError when it ends with a code that is not allowed, or never says what is waited for.
        """
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        report = self.directory / "report.json"
        command = [sys.executable, "run.py", "ingest", *map(os.fspath, media), "--report", os.fspath(report)]
        command += [word for setting in self.all_settings() for word in ("--set", setting)]
        return self._watched([*command, *self.options], report)

    def _watched(self, command: list[str], report: Path) -> Seen:
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        environment = {**os.environ, "NO_COLOR": "1", **self.environment}
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            watch = CpuWatch(process.pid)
            with watch:
                moments, words = _heard(process, begun)
                code = process.wait()
        total = _used(before, time.perf_counter() - begun)
        if code not in self.allowed_codes or READY not in moments or DRAINING not in moments:
            raise RunFailedError(command, code, words)
        series = {role: tuple(points) for role, points in watch.cpu.items()}
        watch.processes[process.pid].name = PROCESS_NAMES[
            "supervisor"
        ]  # a command bears the name that it was called by
        processes = tuple(watch.processes.values())
        found = msgspec.json.decode(report.read_bytes())
        return Seen(total, moments[READY], moments[DRAINING], found, processes, series, watch.peak_bytes)


def _heard(process: "subprocess.Popen[str]", begun_seconds: float) -> tuple[dict[str, Moment], list[str]]:
    """What it says until it ends: when it said the words that part a run, and all its lines."""
    moments: dict[str, Moment] = {}
    words: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        words.append(line.rstrip())
        for beginning in (READY, DRAINING):
            if line.startswith(beginning):
                used = cpu_by_role(psutil.Process(process.pid))
                moments[beginning] = Moment(time.perf_counter() - begun_seconds, used)
    return moments, words


def _used(before: resource.struct_rusage, wall_seconds: float) -> Time:
    """By the children that were waited for since."""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Time(wall_seconds, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)


def cpu_by_role(root: psutil.Process) -> dict[str, float]:
    """Processor time of a living tree so far; what its root gathered from the dead counts as the supervisor's."""
    used = dict.fromkeys(ROLE_NAMES, 0.0)
    for process in [root, *root.children(recursive=True)]:
        try:
            with process.oneshot():
                times, role = process.cpu_times(), ROLES.get(process.name(), "supervisor")
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        used[role] += float(times.user + times.system)
        if process == root:
            used[role] += float(times.children_user + times.children_system)
    return used


def tiny_settings(models: Mapping[str, Path]) -> list[str]:
    """The small untrained models on the CPU, every word transcribed, nothing left to chance."""
    return [
        f'models.image="{models["clip"]}"',
        f'models.speech="{models["whisper"]}"',
        f'models.voice="{models["ecapa"]}"',
        "speech.captions=ignore",
        "speech.temperatures=[0]",  # untrained, so that no text is ever found good
        "device.name=cpu",
    ]


class StoredPoint(msgspec.Struct, frozen=True):
    """A line of `run.py points --vectors`."""

    collection: str  # frames | speech | voices
    payload: dict[str, Any]
    vectors: dict[str, list[float]]


def points(ingest: Ingest) -> list[StoredPoint]:
    """Everything that a run has stored, by the command that anybody would use. Raises RunFailedError."""
    command = [sys.executable, "run.py", "points", "--vectors"]
    command += [word for setting in ingest.all_settings() for word in ("--set", setting)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise RunFailedError(command, done.returncode, done.stderr.decode("utf-8", "replace").splitlines())
    return [msgspec.json.decode(line, type=StoredPoint) for line in done.stdout.splitlines()]
