"""The daemon's log: one line for each event, on standard error, as JSON or as text. Rotation is the system's affair.

{"time": "2026-11-21T15:00:00.123Z", "level": "info", "event": "video", "path": "a.mp4", "status": "indexed", …}
2026-11-21T15:00:00.123Z info video path=a.mp4 status=indexed …
"""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from engine.pace import media_progress
from engine.report import Peaks
from engine.tasks import Board

Format = Literal["json", "text"]
STANDARD_ERROR = 2
SUMMARY_SECONDS = 60.0  # between lines on the work as a whole
REASON_SECONDS = 60.0  # between lines on a store that stays away, for reasons that change
LEVELS = {"indexed": "info", "unchanged": "info", "partial": "warning", "failed": "warning"}  # of a video's status


class Log:
    """Writes lines. A log that cannot be written stops nothing: what is lost is counted, and said when it can be."""

    def __init__(
        self, form: Format, descriptor: int = STANDARD_ERROR, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """wall_clock: seconds since 1970."""
        self.format: Format = form
        self._descriptor = descriptor
        self._wall_clock = wall_clock
        self._lost = 0
        self._torn = False

    def event(self, name: str, level: str = "info", /, **fields: Any) -> None:
        """One line. fields: plain values; control characters in them are escaped."""
        if self._lost and self._write("log-lost", "warning", {"lines": self._lost}):
            self._lost = 0
        if self._lost or not self._write(name, level, fields):
            self._lost += 1

    def _write(self, name: str, level: str, fields: dict[str, Any]) -> bool:
        moment = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        facts = {"time": moment.replace("+00:00", "Z"), "level": level, "event": name, **_clean(fields)}
        line = json.dumps(facts, ensure_ascii=False) if self.format == "json" else text_line(facts)
        return self._put(b"\n" * self._torn + line.encode() + b"\n")

    def _put(self, line: bytes) -> bool:
        """Past Python's buffers: what did not go out of those would come again with each later line."""
        try:
            while line:
                written = os.write(self._descriptor, line)
                line = line[written:]
                self._torn = bool(line)
        except OSError:  # a full disk, or a reader that is gone
            return False
        return True


def text_line(facts: dict[str, Any]) -> str:
    """Time, level and event, then the other facts as key=value."""
    time_, level, name, *others = facts.items()
    return " ".join([time_[1], level[1], name[1], *(f"{key}={_plain(value)}" for key, value in others)])


def _plain(value: Any) -> str:
    """Bare where it is one word, else as JSON has it."""
    if isinstance(value, str) and value and not set(value) & set(' "=\\'):
        return value
    return json.dumps(value, ensure_ascii=False)


def _clean(value: Any) -> Any:
    """The same value, with the characters of its texts escaped that a terminal would obey or that are no Unicode."""
    match value:
        case str():
            return "".join(char if char.isprintable() else _escaped(char) for char in value)
        case dict():
            return {_clean(key): _clean(part) for key, part in value.items()}
        case list() | tuple():
            return [_clean(part) for part in value]
    return value


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class _Away(NamedTuple):
    """Of a store that is away: since when, when it was said last, and for what reason. Monotonic seconds."""

    since_seconds: float
    said_seconds: float
    reason: str


class DaemonObserver:
    """Logs what happens in a run without an end (an Observer, engine/records.py)."""

    def __init__(self, form: Format, log: Log | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """form: daemon.log_format."""
        self._log = log or Log(form)
        self._clock = clock
        self._finished_media_seconds = 0.0
        self._summary = (clock(), 0.0)  # when the last one was, or work began; media done by then
        self._away: _Away | None = None

    @property
    def format(self) -> Format:
        """json or text; may be changed at any time."""
        return self._log.format

    @format.setter
    def format(self, form: Format) -> None:
        self._log.format = form

    def event(self, name: str, level: str = "info", /, **fields: Any) -> None:
        """Something that happened to the daemon itself: a child died, a root is gone."""
        self._log.event(name, level, **fields)

    def phase(self, text: str) -> None:
        """What the run as a whole is doing."""
        waiting = text.startswith("waiting: ")
        self._log.event("waiting" if waiting else "phase", "warning" if waiting else "info", text=text)

    def note(self, text: str) -> None:
        """Something that whoever started the daemon should know."""
        self._log.event("note", "notice", text=text)

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""
        if row["status"] in ("indexed", "partial"):
            self._finished_media_seconds += row["duration_seconds"] or 0.0
        error = {"error": row["error"]["code"], "message": row["error"]["message"]} if row["error"] else {}
        self._log.event(
            "video",
            LEVELS[row["status"]],
            path=row["path"],
            status=row["status"],
            video_id=row["video_id"],
            points=row["points"],
            seconds=row["wall_seconds"],
            media_seconds=row["duration_seconds"],
            first_searchable_seconds=row.get("first_searchable_seconds"),  # rows of an older ledger lack it
            gaps=len(row["gaps"]),
            failures=len(row["failures"]),
            **error,
        )

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second; says when the store goes away or is back, and now and then how work goes."""
        if peaks.consumer is not None:
            self._watch_store(peaks.consumer.state, self._clock())
        if board is None or not board.jobs:
            self._summary = (self._clock(), self._finished_media_seconds)
        elif self._clock() - self._summary[0] >= SUMMARY_SECONDS:
            self._summarise(board, peaks)

    def _watch_store(self, state: str, now: float) -> None:
        away = self._away
        if state.startswith("drained"):  # that says nothing of the store
            return
        if not state.startswith("waiting"):
            if away is not None:
                self._log.event("store-back", seconds=round(now - away.since_seconds, 1))
            self._away = None
            return
        reason = state.removeprefix("waiting: ")
        if away is None:
            self._away = _Away(now, now, reason)
        elif reason == away.reason or now - away.said_seconds < REASON_SECONDS:
            return
        else:
            self._away = _Away(away.since_seconds, now, reason)
        self._log.event("store-waiting", "warning", reason=reason)

    def _summarise(self, board: Board, peaks: Peaks) -> None:
        now = self._clock()
        (before, done_before), jobs = self._summary, list(board.jobs.values())
        done, total = media_progress(jobs, self._finished_media_seconds)
        self._summary = (now, done)
        models = list(peaks.engine.models.values()) if peaks.engine is not None else []
        self._log.event(
            "progress",
            videos_in_work=len(jobs),
            media_seconds_left=round(total - done, 1),
            hours_per_hour=round(max(done - done_before, 0.0) / (now - before), 2),
            points=peaks.consumer.points if peaks.consumer is not None else 0,
            spool_bytes=peaks.consumer.spool_bytes if peaks.consumer is not None else 0,
            queued_items=sum(model.queued_items for model in models),
            oom_events=sum(model.oom_events for model in models),
        )
