"""The rows of a run: which files need no work, and what the ledger is to remember of those that did."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.config import Config
from engine.files import Found, shown
from engine.ledger import Ledger, fingerprint, ledger_path
from engine.report import Peaks, failed_row, unchanged_row, video_row
from engine.tasks import Board
from engine.videos import VideoJob
from stages.registry import configured, identify, resolve


class Observer(Protocol):
    """Who watches a run: the live display, the plain lines, a test."""

    def phase(self, text: str) -> None:
        """What the run as a whole is doing."""

    def note(self, text: str) -> None:
        """Something that whoever started the run should know."""

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""


def model_labels(config: Config) -> list[str]:
    """Role and label of every model that is not off, from its files alone.

    Raises:
        ModelError: one is missing, or of the wrong kind.
    """
    directory = Path(config.models.directory)
    paths = {role: resolve(role, source, directory) for role, source in configured(config.models)}
    infos = [identify(role, source, paths[role]).info(role, 0) for role, source in configured(config.models)]
    return [f"{info.role} {info.label}" for info in infos]


class Records:
    """The ledger, and the rows of the report so far."""

    def __init__(self, config: Config, observer: Observer, models: Sequence[str]) -> None:
        """models: from `model_labels`."""
        self._observer = observer
        self.rows: list[dict[str, Any]] = []
        self.ledger = Ledger(ledger_path(config), fingerprint(config, models))

    def settled_at_once(self, found: Found) -> bool:
        """Whether a file needs no decoder: it cannot be read, or the ledger knows it as it is."""
        if found.error is not None:
            self._finish(failed_row(shown(found.path), found.error.code, found.error.message))
            return True
        known = self._known(found.path)
        if known is not None:
            self._finish(unchanged_row(known, shown(found.path)))
        return known is not None

    def _known(self, path: bytes) -> dict[str, Any] | None:
        stat = _stat(path)
        video_id = self.ledger.known_file(path, stat) if stat is not None else None
        return self.ledger.known_video(video_id) if video_id is not None else None

    def take_finished(self, board: Board) -> None:
        """Rows of the videos that the board has finished."""
        while board.finished:
            job = board.finished.popleft()
            stat = _stat(job.path)
            if stat is not None and job.media is not None and (stat.st_size, stat.st_mtime_ns) != job.marks:
                job.changed()
            row = video_row(job)
            self._record(job, stat, row)
            self._finish(row)

    def _record(self, job: VideoJob, stat: os.stat_result | None, row: dict[str, Any]) -> None:
        """Into the ledger when its points are durable and trying again would give no more."""
        if job.video_id is None or job.error is not None:
            return
        if job.status in ("indexed", "partial"):
            self.ledger.record_video(job.video_id, job.path, row)
        if stat is not None:  # else it vanished after it was read; its content is indexed all the same
            self.ledger.record_file(job.path, stat, job.video_id)

    def _finish(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._observer.finished(row)


def _stat(path: bytes) -> os.stat_result | None:
    """None: it cannot be had, and whoever opens the file next will say why."""
    try:
        return os.stat(path)  # noqa: PTH116 - bytes, which Path does not take
    except OSError:
        return None
