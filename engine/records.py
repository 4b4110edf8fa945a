"""The rows of a run: which files need no work, and what the ledger is to remember of those that did."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.archive import Archive, stat_of
from engine.config import Config
from engine.errors import StartError
from engine.files import Found, shown
from engine.ledger import Ledger, fingerprint, ledger_path
from engine.ledger_schema import LedgerUnavailable
from engine.operations import Operations
from engine.report import Peaks, failed_row, unchanged_row, video_row
from engine.tally import Tally
from engine.tasks import Board
from engine.videos import VideoJob
from stages.registry import configured, identify, resolve
from stages.store import VOICES
from transport.messages import FrameFormat


class Observer(Protocol):
    """Who watches a run: the live display, the plain lines, the daemon's log, a test."""

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
    """The ledger, what follows from it for the store, and the rows of the report so far.

    Whatever reads or writes the ledger may raise LedgerUnavailable; then nothing has happened, and it can be called
    again.
    """

    def __init__(self, config: Config, observer: Observer, models: Sequence[str], keep_rows: bool = True) -> None:
        """models: from `model_labels`. keep_rows: for a report at the end; a daemon has none."""
        self._observer = observer
        self._keep_rows = keep_rows
        self._fingerprint = fingerprint(config, models)
        self._voice_model = next((each.removeprefix("voice ") for each in models if each.startswith("voice ")), None)
        self._waiting_for: str | None = None
        self.rows: list[dict[str, Any]] = []
        self.tally = Tally()
        self.on_settled: Callable[[bytes], None] = lambda path: None  # told of each file that is done with
        self.on_passing: Callable[[], None] = lambda: None  # told when one of them is to be tried again by itself
        self.ledger = Ledger(ledger_path(config), self._fingerprint)
        self.operations = Operations(self.ledger)
        self.archive = Archive(self.ledger, self.operations, config.watch.on_delete)
        if self.ledger.rescued is not None:
            observer.note(self.ledger.rescued)

    @property
    def count(self) -> int:
        """How many videos are finished."""
        return sum(self.tally.videos.values())

    @property
    def waiting_for(self) -> str | None:
        """Why the ledger is away."""
        return self._waiting_for

    def waits(self, reason: str | None) -> None:
        """The ledger cannot be had, or can again: said once."""
        if reason is not None and self._waiting_for is None:
            self._observer.phase(f"waiting: {reason}")
        elif reason is None and self._waiting_for is not None:
            self._observer.phase("the ledger is back")
        self._waiting_for = reason

    def open_board(self, config: Config, frame_format: FrameFormat | None, retry_failed: bool) -> Board:
        """A board whose task book is the ledger. retry_failed: who names files wishes them tried again."""
        board = Board(config, frame_format, self.ledger.known_video, self.ledger.tasks, retry_failed)
        self.archive.in_work = lambda: board.content_in_work
        return board

    # --- files that need no work --------------------------------------------------------------------------------------

    def settled_at_once(self, found: Found) -> bool:
        """Whether a file needs no decoder: it cannot be read, or the ledger knows it as it is."""
        if found.error is not None:
            self.tally.rejected(shown(found.path), found.error.code, found.error.message)
            self._finish(found.path, failed_row(shown(found.path), found.error.code, found.error.message))
            return True
        known = self._known(found.path)
        if known is not None:
            self.tally.videos["unchanged"] += 1
            self._finish(found.path, unchanged_row(known, shown(found.path)))
        return known is not None

    def _known(self, path: bytes) -> dict[str, Any] | None:
        stat = stat_of(path)
        if stat is None:
            return None
        video_id = self.ledger.files.known_file(path, stat)
        if video_id is None:  # the same file under another name need not be read to know what it holds
            video_id = next((row.video_id for row in self.ledger.files.by_identity(stat) if row.video_id), None)
        report = self.ledger.known_video(video_id) if video_id is not None else None
        if report is not None and video_id is not None:
            self.archive.holds(path, stat, video_id)
        return report

    # --- videos in work -----------------------------------------------------------------------------------------------

    def begun(self, video_id: str, path: bytes) -> None:
        """The content of a file is known, and points of it may be written from now on."""
        if self.ledger.known_video(video_id) is not None:
            return
        with self.ledger.transaction():
            home = self.ledger.videos.path_of(video_id)
            if home is not None and home != path:  # it was moved before it was finished
                self.operations.repath(video_id, shown(path))
            self.ledger.videos.begin(video_id, path)

    def take_finished(self, board: Board) -> None:
        """Rows of the videos that the board has finished."""
        while board.finished:
            job = board.finished[0]
            stat = stat_of(job.path)
            if stat is not None and job.media is not None and (stat.st_size, stat.st_mtime_ns) != job.marks:
                job.changed()
            row = video_row(job)
            self._record(job, row)
            board.finished.popleft()
            self.tally.add(job)
            self._finish(job.path, row)
            if job.is_passing:
                self.on_passing()

    def _record(self, job: VideoJob, row: dict[str, Any]) -> None:
        """Into the ledger: what is durable, and what failed and why, unless it is to be tried again by itself."""
        stat = stat_of(job.path)
        if job.is_passing or stat is None:
            self._record_vanished(job, row)
            return
        with self.ledger.transaction():
            self._label(job)
            if job.error is not None:
                if job.video_id is not None:
                    self.ledger.videos.fail(job.video_id, job.error.code, job.error.message)
                self.ledger.files.fail_file(job.path, stat, job.video_id, job.error.code, job.error.message)
                return
            assert job.video_id is not None
            if job.status in ("indexed", "partial"):
                self._indexed(job.video_id, job, row)
            self.archive.holds(job.path, stat, job.video_id)

    def _record_vanished(self, job: VideoJob, row: dict[str, Any]) -> None:
        """It went away after it was read, and its content is indexed all the same; or it is to be tried again."""
        if job.video_id is None:
            return
        with self.ledger.transaction():
            if job.error is None and job.status in ("indexed", "partial"):
                self._label(job)
                self._indexed(job.video_id, job, row)
            else:
                self.archive.left_off(job.path, job.video_id)
            if stat_of(job.path) is None and not job.twins:
                self.archive.vanished(job.video_id)

    def _label(self, job: VideoJob) -> None:
        """Its speakers are found when all of it is stored, or as much of it as could be."""
        if job.video_id is not None and self._voice_model is not None and job.points[VOICES]:
            self.operations.label(job.video_id, self._voice_model)

    def _indexed(self, video_id: str, job: VideoJob, row: dict[str, Any]) -> None:
        self.ledger.record_video(video_id, job.path, row)
        self.ledger.tasks.prune(video_id)
        self.operations.record(video_id, self._fingerprint, job.shown_path, json.dumps(row))

    def _finish(self, path: bytes, row: dict[str, Any]) -> None:
        if self._keep_rows:
            self.rows.append(row)
        self._observer.finished(row)
        self.on_settled(path)


class LedgerPatience:
    """Does what may need the ledger; where that is unavailable, says so and waits, as long as a store is waited for."""

    def __init__(self, records: Records, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self.limit_seconds = seconds
        self._clock = clock
        self._away_since: float | None = None

    def attempt(self, step: Callable[..., Any], *arguments: Any) -> bool:
        """Whether the step is to be done again: it says so itself, or the ledger could not be had.

        Raises:
            StartError: the ledger has been away for too long.
        """
        try:
            again = bool(step(*arguments))
        except LedgerUnavailable as error:
            now = self._clock()
            self._away_since = now if self._away_since is None else self._away_since
            self._records.waits(error.message)
            if now - self._away_since > self.limit_seconds:
                waited = f"waited for {now - self._away_since:.0f} s (store.retry_seconds)"
                raise StartError("ledger", f"{error.message}; {waited}") from error
            return True
        self._away_since = None
        self._records.waits(None)
        return again


class StoreAbsence:
    """For how long the consumer has been saying that it waits for the store."""

    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._since_seconds: float | None = None

    def see(self, state: str) -> None:
        """The consumer's state (ConsumerStats)."""
        if state.startswith("drained"):  # that says nothing of the store
            return
        if not state.startswith("waiting"):
            self._since_seconds = None
        elif self._since_seconds is None:
            self._since_seconds = self._clock()

    def is_long(self) -> bool:
        """Whether it has been away for longer than the limit."""
        return self._since_seconds is not None and self._clock() - self._since_seconds > self._limit_seconds
