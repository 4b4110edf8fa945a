"""One whole run whose supervisor is this process, which imports little else: so its own memory means something, too.

`benches.memory_runs` starts it, with a `Job` as JSON on standard input; a `Result` comes back on standard output. It
watches the memory of its decoders, and stops the engine for some time where asked for.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from engine.config import load_config
from engine.files import find_files
from engine.heap import keep_heap_whole
from engine.report import Peaks
from engine.supervisor import Supervisor
from engine.tasks import Board


class Job(msgspec.Struct, frozen=True):
    """What to run."""

    medium: str
    settings: tuple[str, ...]
    libraries: tuple[str, ...]  # that its decoder imports
    stop_seconds: float = 0.0


class Result(msgspec.Struct, frozen=True):
    """What came of it. Memory in MB."""

    report: dict[str, Any]
    decoder_mb: float  # of the largest
    decoder_anonymous_mb: float
    imports_mb: float  # of a decoder that does nothing
    stopped_seconds: float


@dataclass
class Use:
    """Memory of one decoder, the most that was seen, in MB."""

    peak_mb: float = 0.0
    anonymous_mb: float = 0.0


@dataclass
class Watcher:
    """An observer of a run that reads its decoders' memory at each tick, and may stop the engine for some time."""

    stop_seconds: float = 0.0
    uses: dict[int, Use] = field(default_factory=dict)  # by process id
    supervisor: Supervisor | None = None
    stopped_at: float | None = None
    stopped_seconds: float = 0.0

    def phase(self, text: str) -> None:
        """Not of interest."""

    def note(self, text: str) -> None:
        """Not of interest."""

    def finished(self, row: dict[str, Any]) -> None:
        """The report has it."""

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        fleet = self.supervisor.fleet if self.supervisor is not None else None
        if fleet is None:
            return
        for decoder in fleet.decoders:
            if decoder.process.pid is not None:
                self._look(decoder.process.pid)
        if self.stop_seconds and board is not None and any(job.media is not None for job in board.jobs.values()):
            assert fleet.engine.process.pid is not None
            self._stop_or_continue(fleet.engine.process.pid)

    def _look(self, pid: int) -> None:
        status = status_mb(pid)
        use = self.uses.setdefault(pid, Use())
        use.peak_mb = max(use.peak_mb, status.get("VmHWM", 0.0))
        use.anonymous_mb = max(use.anonymous_mb, status.get("RssAnon", 0.0))

    def _stop_or_continue(self, engine: int) -> None:
        now = time.monotonic()
        if self.stopped_at is None:
            self.stopped_at = now
            os.kill(engine, signal.SIGSTOP)
        elif not self.stopped_seconds and now - self.stopped_at >= self.stop_seconds:
            os.kill(engine, signal.SIGCONT)
            self.stopped_seconds = now - self.stopped_at


def status_mb(pid: int) -> dict[str, float]:
    """The sizes in /proc/PID/status, in MB; empty when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines if line.endswith(" kB")}


def imports_mb(libraries: Sequence[str]) -> float:
    """What a decoder weighs before it works."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=only_import, args=(libraries, theirs))
    process.start()
    theirs.close()
    resident_mb: float = ours.recv()
    process.join()
    return resident_mb


def only_import(libraries: Sequence[str], result: Connection) -> None:
    """Runs in a process of its own: as a decoder starts, and no further."""
    keep_heap_whole()
    for name in ("engine.producer", *libraries):
        importlib.import_module(name)
    result.send(status_mb(os.getpid())["VmRSS"])


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    config = load_config(settings=job.settings)
    watcher = Watcher(job.stop_seconds)
    watcher.supervisor = Supervisor(config, watcher)
    report = watcher.supervisor.run(find_files([os.fsencode(job.medium)], config.run.extensions))
    largest = max(watcher.uses.values(), key=lambda use: use.peak_mb)
    imported = imports_mb(job.libraries)
    result = Result(report, largest.peak_mb, largest.anonymous_mb, imported, watcher.stopped_seconds)
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
