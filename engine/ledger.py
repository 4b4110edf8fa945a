"""What has been indexed, and what is to be done, in SQLite: the ledger of one store, written by one supervisor.

A video counts as known when its content and everything that decides its points (models, sampling, how speech is found)
are the same. (device, inode, size, mtime) is only a cache of the content hash. See docs/ledger.md.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.config import Config
from engine.errors import StartError
from engine.files import shown
from engine.ledger_files import Files
from engine.ledger_rescue import opened
from engine.ledger_schema import Database
from engine.ledger_tasks import Operations, Tasks
from engine.locks import hold

PREFIX_CHARACTERS = 4  # of a video id, at least, for it to be found by
FOUND = 100  # videos that one beginning may mean

# Settings of [decode] that decide how fast and how safely a file is read, and not what is found in it; and of [voice]
# that decide what voices are called, and not which there are.
HOW_NOT_WHAT = (
    "processes", "threads", "span_seconds", "max_pixels", "max_streams", "max_hours", "memory_gb", "cpu_minutes",
    "network", "recycle_tasks", "nice",
)  # fmt: skip
NAMES_NOT_VOICES = ("same_speaker", "enroll_min_seconds")

VideoState = Literal["working", "indexed", "partial", "failed"]
COLUMNS = "video_id, fingerprint, state, path, shown_path, report, error_code, error_message, started_at, finished_at"
INTO_VIDEOS = f"INTO videos ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class VideoRow:
    """A video as the ledger knows it, for one fingerprint."""

    video_id: str
    fingerprint: str
    state: VideoState
    path: bytes
    shown_path: str
    report: dict[str, Any] | None  # its row of the report, once it is finished
    error: tuple[str, str] | None  # code and message
    started_at: float  # unix seconds
    finished_at: float | None


class VideoList:
    """What can be asked of the videos."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, text: str, limit: int = FOUND) -> list[VideoRow]:
        """The videos that a person means by a path, or by an id or the beginning of one; each as it was begun last."""
        path = os.fsencode(text)
        name = shown(path)  # and so valid Unicode
        end = name + "\U0010ffff" if len(name) >= PREFIX_CHARACTERS else name
        return self._latest(
            "(video_id >= ? AND video_id <= ?) OR path = ? OR shown_path = ?"
            " OR video_id IN (SELECT video_id FROM files WHERE path = ?)",
            (name, end, path, name, path),
            limit,
        )

    def listing(self, limit: int, state: VideoState | None = None) -> list[VideoRow]:
        """Videos in a state, or in any, the one begun last first; each as it was begun last."""
        return self._latest("?1 IS NULL OR state = ?1", (state,), limit)

    def path_of(self, video_id: str) -> bytes | None:
        """Its path of record, which its points carry; None: it is not known."""
        row = self._database.row(
            "SELECT path FROM videos WHERE video_id = ? ORDER BY started_at DESC LIMIT 1", (video_id,)
        )
        return bytes(row[0]) if row is not None else None

    def at(self, path: bytes) -> list[str]:
        """The videos whose path of record this is, in whatever state."""
        rows = self._database.rows("SELECT DISTINCT video_id FROM videos WHERE path = ?", (path,))
        return [row[0] for row in rows]

    def counts(self) -> dict[str, int]:
        """Videos by state."""
        return self._database.counts(
            "SELECT state, count(*) FROM (SELECT state, max(started_at) FROM videos GROUP BY video_id) GROUP BY state"
        )

    def _latest(self, condition: str, values: Sequence[object], limit: int) -> list[VideoRow]:
        """Reports may be long: they are read of the rows that are wanted alone."""
        latest = "SELECT rowid AS id, *, max(started_at) FROM videos GROUP BY video_id"  # the row of the maximum
        wanted = f"SELECT id FROM ({latest}) WHERE {condition} ORDER BY started_at DESC, video_id LIMIT {limit:d}"
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM videos WHERE rowid IN ({wanted}) ORDER BY started_at DESC, video_id", values
        )
        return [_video(row) for row in rows]


class Videos(VideoList):
    """The videos, and what becomes of them, for one fingerprint."""

    def __init__(self, database: Database, fingerprint: str, clock: Callable[[], float]) -> None:
        super().__init__(database)
        self._fingerprint = fingerprint
        self._clock = clock

    def known_video(self, video_id: str) -> dict[str, Any] | None:
        """Its row of the report, if it was indexed with the present settings and trying again would give no more."""
        row = self._database.row(
            "SELECT report FROM videos WHERE video_id = ? AND fingerprint = ? AND state IN ('indexed', 'partial')"
            " AND error_code IS NULL AND report IS NOT NULL",
            (video_id, self._fingerprint),
        )
        return dict(json.loads(row[0])) if row else None

    def begin(self, video_id: str, path: bytes) -> None:
        """It is in work now."""
        row = (video_id, self._fingerprint, "working", path, shown(path), None, None, None, self._clock(), None)
        with self._database.transaction():
            self._database.write(f"REPLACE {INTO_VIDEOS}", row)

    def record_video(self, video_id: str, path: bytes, report: dict[str, Any]) -> None:
        """It is finished, with this row of the report. Call it only when all its points are durable."""
        row = _finished(video_id, self._fingerprint, path, shown(path), report, self._clock())
        with self._database.transaction():
            self._database.write(
                f"INSERT {INTO_VIDEOS} ON CONFLICT (video_id, fingerprint) DO UPDATE SET state = excluded.state,"
                " path = excluded.path, shown_path = excluded.shown_path, report = excluded.report,"
                " error_code = excluded.error_code, error_message = excluded.error_message,"
                " finished_at = excluded.finished_at",
                row,
            )

    def fail(self, video_id: str, code: str, message: str) -> bool:
        """It is given up. False: it was never begun."""
        with self._database.transaction():
            changed = self._database.write(
                "UPDATE videos SET state = 'failed', error_code = ?, error_message = ?, finished_at = ?"
                " WHERE video_id = ? AND fingerprint = ?",
                (code, message, self._clock(), video_id, self._fingerprint),
            )
        return changed > 0

    def repath(self, video_id: str, path: bytes) -> None:
        """Its content is to be found at another path."""
        with self._database.transaction():
            self._database.write(
                "UPDATE videos SET path = ?, shown_path = ? WHERE video_id = ?", (path, shown(path), video_id)
            )

    def forget(self, video_id: str) -> None:
        """Forget what was indexed of it, with whatever settings, and its tasks. Its files stay known as they are, so
        that no scan brings it back. What the store holds of it is for an operation to remove.
        """
        with self._database.transaction():
            self._database.write("DELETE FROM videos WHERE video_id = ?", (video_id,))
            self._database.write("DELETE FROM tasks WHERE video_id = ?", (video_id,))
            Files(self._database, self._clock).note_forgotten(video_id)

    def restore(self, video_id: str, fingerprint: str, shown_path: str, report: dict[str, Any]) -> bool:
        """Enter what the store remembers of a finished video. False: the ledger knows it already."""
        row = _finished(video_id, fingerprint, os.fsencode(shown_path), shown_path, report, self._clock())
        with self._database.transaction():
            return self._database.write(f"INSERT {INTO_VIDEOS} ON CONFLICT DO NOTHING", row) > 0


class Ledger:
    """One SQLite file, written by the supervisor alone, and locked by it."""

    def __init__(self, path: Path, fingerprint: str, clock: Callable[[], float] = time.time) -> None:
        """Open or create it. One that is damaged is set aside, and a new one begun: `rescued` says so.

        Raises:
            Held: another process has it. LedgerUnavailable: locked, a full disk, …: worth another try.
            StartError: its directory cannot be made, or it is from a newer version.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as undo:
                undo.enter_context(hold(path.with_name(path.name + ".lock"), f"ledger {path}"))
                self._database, self.rescued = opened(path)
                undo.callback(self._database.close)
                self._undo = undo.pop_all()
        except OSError as error:
            raise StartError("ledger", f"ledger {path}: {error}; set store.path or run.state") from error
        self.path = path
        self.tasks = Tasks(self._database, fingerprint)
        self.files = Files(self._database, clock)
        self.videos = Videos(self._database, fingerprint, clock)
        self.operations = Operations(self._database, clock)

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside becomes durable together, or not at all."""
        return self._database.transaction()

    def close(self) -> None:
        """Close the file, and let go of it."""
        self._undo.close()

    def known_file(self, path: bytes, stat: os.stat_result) -> str | None:
        """The content hash of a file that has not changed since it was hashed."""
        return self.files.known_file(path, stat)

    def known_video(self, video_id: str) -> dict[str, Any] | None:
        """Its row of the report from when it was indexed with the present settings."""
        return self.videos.known_video(video_id)

    def record_video(self, video_id: str, path: bytes, report: dict[str, Any]) -> None:
        """A video is indexed. Call it only when all its points are durable."""
        self.videos.record_video(video_id, path, report)

    def record_file(self, path: bytes, stat: os.stat_result, video_id: str) -> None:
        """Remember the hash of a file."""
        self.files.record_file(path, stat, video_id)


def _finished(
    video_id: str, fingerprint: str, path: bytes, shown_path: str, report: dict[str, Any], now: float
) -> tuple[object, ...]:
    """The row of a video from its row of the report."""
    error = report.get("error") or {"code": None, "message": None}
    state = report.get("status", "indexed")
    text = json.dumps(report)
    return video_id, fingerprint, state, path, shown_path, text, error["code"], error["message"], now, now


def _video(row: tuple[Any, ...]) -> VideoRow:
    video_id, fingerprint, state, path, shown_path, report, code, message, started_at, finished_at = row
    return VideoRow(
        video_id=video_id,
        fingerprint=fingerprint,
        state=state,
        path=path,
        shown_path=shown_path,
        report=json.loads(report) if report is not None else None,
        error=(code, message) if code is not None else None,
        started_at=started_at,
        finished_at=finished_at,
    )


def ledger_path(config: Config) -> Path:
    """Beside the points in an embedded store; for a server, a file of its own for each URL and prefix."""
    if config.store.url is None:
        return Path(config.store.path) / "ledger.sqlite"
    name = hashlib.sha256(f"{config.store.url} {config.store.prefix}".encode()).hexdigest()[:16]
    return Path(config.run.state) / f"ledger-{name}.sqlite"


def fingerprint(config: Config, labels: Sequence[str]) -> str:
    """Hash of everything that decides which points a video gets. labels: "role name@revision" of every model."""
    decode = msgspec.to_builtins(config.decode)
    for name in HOW_NOT_WHAT:
        decode.pop(name)
    if not decode["skip_similar"]:
        del decode["skip_similar"]  # what was indexed before there was this setting is as it is without it
    voice = msgspec.to_builtins(config.voice)
    for name in NAMES_NOT_VOICES:
        voice.pop(name)
    parts = {
        "models": sorted(labels),
        "decode": decode,
        "speech": msgspec.to_builtins(config.speech),
        "voice": voice,
        "prefix": config.store.prefix,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
