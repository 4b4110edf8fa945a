"""The supervisor's own track in a trace: what it says, every video from its start to its end, and figures over time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from engine.profile import Onlooker
from engine.records import Observer
from engine.report import Peaks
from engine.tasks import Board
from engine.trace import Trace, TraceFile
from engine.videos import VideoJob

COUNT_SECONDS = 0.25  # between two looks at the figures
FLUSH_SECONDS = 1.0


class TraceObserver(Onlooker):
    """An observer that records what it is told."""

    def __init__(self, observer: Observer, trace: Trace, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(observer)
        self._trace = trace
        self._clock = clock
        self._numbers = count(1)
        self._videos: dict[int, tuple[int, VideoJob]] = {}  # in work: their numbers, by identity
        self._counted_at = self._flushed_at = float("-inf")

    def phase(self, text: str) -> None:
        """What the run as a whole is doing: deaths and restarts, too."""
        self._trace.instant(text)
        super().phase(text)

    def note(self, text: str) -> None:
        """Something that whoever started the run should know."""
        self._trace.instant(f"note: {text}")
        super().note(text)

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""
        self._trace.instant(f"{row['status']}: {row['path']}", points=row["points"], gaps=len(row["gaps"]))
        super().finished(row)

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        now = self._clock()
        self._follow({id(job): job for job in board.jobs.values()} if board is not None else {}, now)
        if now - self._counted_at >= COUNT_SECONDS:
            self._counted_at = now
            self._count(board, peaks)
        if now - self._flushed_at >= FLUSH_SECONDS:
            self._flushed_at = now
            self._trace.flush()
        super().tick(board, peaks, rows)

    def close(self) -> None:
        """The run is over, in whatever way."""
        self._follow({}, self._clock())
        self._trace.flush()

    def _follow(self, jobs: dict[int, VideoJob], now_seconds: float) -> None:
        for identity, job in jobs.items():
            if identity not in self._videos:
                number = next(self._numbers)
                self._videos[identity] = (number, job)
                self._trace.span("b", job.shown_path, job.started_seconds, number)
        for identity in self._videos.keys() - jobs.keys():
            number, job = self._videos.pop(identity)
            status = job.status or "interrupted"
            self._trace.span("e", job.shown_path, job.finished_seconds or now_seconds, number, status=status)

    def _count(self, board: Board | None, peaks: Peaks) -> None:
        count = self._trace.counter
        if board is not None:
            count("work", {"videos": len(board.jobs), "queued tasks": board.queued_tasks})
        if (engine := peaks.engine) is not None:
            count("host memory, MB", {"waiting for models": engine.host_bytes / 1e6})
            count("queued items", {role: model.queued_items for role, model in engine.models.items()})
            count("device memory, MB", {"held": engine.device_bytes / 1e6})
        if (consumer := peaks.consumer) is not None:
            count("results, MB", {"queued": consumer.queued_bytes / 1e6, "spooled": consumer.spool_bytes / 1e6})
            count("points", {"stored": consumer.points})
        if peaks.latest_rss_bytes:
            count("resident memory, MB", {name: size / 1e6 for name, size in sorted(peaks.latest_rss_bytes.items())})


@contextmanager
def recording(path: Path | None, observer: Observer) -> Iterator[tuple[Observer, TraceFile | None]]:
    """Within it the run is recorded to a file: gives who is to observe it, and the file. None: nothing is recorded.

    Raises:
        ConfigError: the file cannot be written.
    """
    if path is None:
        yield observer, None
        return
    file = TraceFile(path)
    watching = TraceObserver(observer, Trace("supervisor", file.take))
    try:
        yield watching, file
    finally:
        watching.close()
        if file.trouble:
            observer.note(f"--trace {path}: not all of it is there: {file.trouble}")
        file.close()
