"""What is still to be done: the tasks of every video in work, and what the store has to be told.

A task keeps its id over restarts. What came of it is merged section by section, in the order of sections, each once.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from engine.ledger_schema import Database
from engine.notes import summed_notes
from stages.hearing import Votes
from transport.messages import AudioResume, Gap, ItemFailure, TaskResult

NAMED = 400  # gaps, failures and notes of one task that are named one by one; more are one further entry
MORE_GAPS = re.compile(r"many: (\d+) further gaps lie in here")
MORE_FAILURES = re.compile(r"(\d+) further items failed")
MORE_NOTES = "further notes are not listed"
SUMS = ("speech_seconds", "text_seconds", "voiced_seconds", "voice_seconds", "oom_events", "batch_splits")

Kind = Literal["frames", "audio"]
OperationKind = Literal["repath", "remove", "record", "label"]


@dataclass(frozen=True, slots=True)
class TaskSpan:
    """What a task covers."""

    kind: Kind
    start_seconds: float
    end_seconds: float | None  # None: to wherever the stream ends


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task as the ledger knows it."""

    task_id: int  # its own for ever, and above 2^40: numbers below never belong to a task of a ledger
    span: TaskSpan
    state: Literal["open", "done", "failed"]
    deaths: int  # decoders that died on it
    resume: AudioResume | None  # where an open one goes on; None: at its beginning
    results: TaskResult | None  # merged, of all sections that are durable
    error: tuple[str, str] | None  # code and message, of a failed one


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that the store has yet to be told."""

    operation_id: int
    kind: OperationKind
    video_id: str
    payload: dict[str, Any]
    refused: str | None = None  # why the store would not have it


class Tasks:
    """The task book, for one fingerprint."""

    def __init__(self, database: Database, fingerprint: str) -> None:
        self._database = database
        self._fingerprint = fingerprint

    def plan(self, video_id: str, spans: Sequence[TaskSpan], retry_failed: bool) -> list[PlannedTask]:
        """The tasks of a video, in the order of `spans`: as they stand, or new ones when the spans are others now.

        retry_failed: those that were given up are open again, where they had come to; those with failed items, anew.

        Raises:
            LedgerUnavailable, LedgerDamaged: nothing was changed. ValueError: a span is named twice.
        """
        if len(set(spans)) != len(spans):
            raise ValueError(f"a span is named twice: {spans}")
        with self._database.transaction():
            known = {task.span: task for task in self._stored(video_id)}
            if known.keys() != set(spans):
                self._begin(video_id, spans)
            elif retry_failed:
                self.retry(video_id)
            known = {task.span: task for task in self._stored(video_id)}
        return [known[span] for span in spans]

    def section(self, task_id: int, result: TaskResult) -> bool:
        """A section is durable in the store; without `resume` it was the last. False: known before, or no open task."""
        with self._database.transaction():
            row = self._database.row(
                "SELECT result FROM tasks WHERE id = ? AND state = 'open' AND section = ?", (task_id, result.section)
            )
            if row is None:
                return False
            whole = merged(_decoded(row[0]), result) if row[0] is not None else result
            self._advance(task_id, whole, result.resume)
        return True

    def failed(self, task_id: int, code: str, message: str) -> None:
        """An open task is given up."""
        with self._database.transaction():
            self._database.write(
                "UPDATE tasks SET state = 'failed', error_code = ?, error_message = ? WHERE id = ? AND state = 'open'",
                (code, message, task_id),
            )

    def died(self, task_id: int) -> int:
        """A decoder died on an open task: how many did, with this one. 0: there is no such task."""
        with self._database.transaction():
            row = self._database.row(
                "UPDATE tasks SET deaths = deaths + 1 WHERE id = ? AND state = 'open' RETURNING deaths", (task_id,)
            )
        return int(row[0]) if row is not None else 0

    def retry(self, video_id: str) -> int:
        """Open the failed tasks of a video again, where they had come to, and anew those of which single items failed;
        returns how many.
        """
        mine = "WHERE video_id = ? AND fingerprint = ?"
        with self._database.transaction():
            given_up = self._database.write(
                f"UPDATE tasks SET state = 'open', deaths = 0, error_code = NULL, error_message = NULL {mine}"
                " AND state = 'failed'",
                (video_id, self._fingerprint),
            )
            in_part = self._database.write(
                f"UPDATE tasks SET state = 'open', deaths = 0, section = 0, resume_seconds = NULL, resume_state = NULL,"
                f" resume_languages = NULL, result = NULL {mine} AND state = 'done'"
                " AND json_array_length(result, '$.failures') > 0",
                (video_id, self._fingerprint),
            )
        return given_up + in_part

    def prune(self, video_id: str) -> None:
        """Forget the tasks of a video, of every fingerprint: it is indexed, and its report says what came of them."""
        with self._database.transaction():
            self._database.write("DELETE FROM tasks WHERE video_id = ?", (video_id,))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _stored(self, video_id: str) -> list[PlannedTask]:
        rows = self._database.rows(
            "SELECT id, kind, start_seconds, end_seconds, state, deaths, section, resume_seconds, resume_state,"
            " resume_languages, result, error_code, error_message FROM tasks WHERE video_id = ? AND fingerprint = ?"
            " ORDER BY id",
            (video_id, self._fingerprint),
        )
        return [_planned(row) for row in rows]

    def _begin(self, video_id: str, spans: Sequence[TaskSpan]) -> None:
        self._database.write("DELETE FROM tasks WHERE video_id = ? AND fingerprint = ?", (video_id, self._fingerprint))
        for span in spans:
            self._database.write(
                "INSERT INTO tasks (video_id, fingerprint, kind, start_seconds, end_seconds) VALUES (?, ?, ?, ?, ?)",
                (video_id, self._fingerprint, span.kind, span.start_seconds, span.end_seconds),
            )

    def _advance(self, task_id: int, whole: TaskResult, resume: AudioResume | None) -> None:
        text = msgspec.json.encode(msgspec.structs.replace(whole, resume=None, transcribed=None)).decode()
        place: tuple[Any, ...] = (whole.section, None, None, None)
        if resume is not None:
            place = (resume.section, resume.seconds, resume.state, json.dumps(resume.languages))
        self._database.write(
            "UPDATE tasks SET state = ?, section = ?, resume_seconds = ?, resume_state = ?, resume_languages = ?,"
            " result = ? WHERE id = ?",
            ("done" if resume is None else "open", *place, text, task_id),
        )


class OperationList:
    """What can be asked of the outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self, limit: int) -> list[Operation]:
        """The oldest that are neither done nor refused."""
        return self._list("refused IS NULL", limit)

    def refusals(self, limit: int) -> list[Operation]:
        """Those that the store would not have."""
        return self._list("refused IS NOT NULL", limit)

    def count(self) -> int:
        """How many are pending."""
        row = self._database.row("SELECT count(*) FROM operations WHERE refused IS NULL")
        return int(row[0]) if row is not None else 0

    def _list(self, condition: str, limit: int) -> list[Operation]:
        rows = self._database.rows(
            f"SELECT id, kind, video_id, payload, refused FROM operations WHERE {condition} ORDER BY id LIMIT ?",
            (limit,),
        )
        return [Operation(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows]


class Operations(OperationList):
    """The outbox: what the store still has to be told, in order."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database)
        self._clock = clock

    def add(self, kind: OperationKind, video_id: str, payload: dict[str, Any]) -> int:
        """Queue one; returns its id, never used again. In one transaction with what it follows from."""
        with self._database.transaction():
            return self._database.insert(
                "INSERT INTO operations (kind, video_id, payload, at) VALUES (?, ?, ?, ?)",
                (kind, video_id, json.dumps(payload), self._clock()),
            )

    def is_removing(self, video_id: str) -> bool:
        """Whether the store has yet to remove points of this video."""
        found = self._database.row(
            "SELECT 1 FROM operations WHERE video_id = ? AND kind = 'remove' AND refused IS NULL LIMIT 1", (video_id,)
        )
        return found is not None

    def done(self, operation_id: int) -> None:
        """It is durable in the store. One that is unknown was done before."""
        with self._database.transaction():
            self._database.write("DELETE FROM operations WHERE id = ?", (operation_id,))

    def refused(self, operation_id: int, message: str) -> None:
        """The store would not have it, for good: it is kept to be shown."""
        with self._database.transaction():
            self._database.write("UPDATE operations SET refused = ? WHERE id = ?", (message, operation_id))


def merged(first: TaskResult, second: TaskResult) -> TaskResult:
    """What two results of one task, the earlier first, say together. Its key, section and resume are the second's."""
    points = dict(first.points)
    for collection, count in second.points.items():
        points[collection] = points.get(collection, 0) + count
    return msgspec.structs.replace(
        second,
        points=points,
        gaps=_bounded(first.gaps + second.gaps, _count_of_gap, _rest_of_gaps),
        failures=_bounded(first.failures + second.failures, _count_of_failure, _rest_of_failures),
        notes=_noted(first.notes + second.notes),
        languages=_added(first.languages, second.languages),
        **{name: getattr(first, name) + getattr(second, name) for name in SUMS},
    )


EntryT = TypeVar("EntryT", Gap, ItemFailure)


def _bounded(
    entries: tuple[EntryT, ...],
    count_of: Callable[[EntryT], int],
    rest_of: Callable[[int, float, float, EntryT], EntryT],
) -> tuple[EntryT, ...]:
    """The first NAMED entries; one that stands for all the others. Such a one is never among those that are named.

    count_of: how many an entry stands for, 0 for one that is named.
    """
    named: list[EntryT] = []
    rest: list[EntryT] = []
    for entry in entries:
        (rest if count_of(entry) or len(named) == NAMED else named).append(entry)
    if rest:
        start_seconds = min(entry.start_seconds for entry in rest)
        end_seconds = max(entry.end_seconds for entry in rest)
        count = sum(max(count_of(entry), 1) for entry in rest)
        named.append(rest_of(count, start_seconds, end_seconds, rest[0]))
    return tuple(named)


def _count_of_gap(gap: Gap) -> int:
    found = MORE_GAPS.fullmatch(gap.reason)
    return int(found[1]) if found else 0


def _rest_of_gaps(count: int, start_seconds: float, end_seconds: float, first: Gap) -> Gap:
    reason = f"many: {count} further gaps lie in here"
    return Gap(start_seconds=start_seconds, end_seconds=end_seconds, reason=reason)


def _count_of_failure(failure: ItemFailure) -> int:
    found = MORE_FAILURES.fullmatch(failure.message) if failure.code == "many" else None
    return int(found[1]) if found else 0


def _rest_of_failures(count: int, start_seconds: float, end_seconds: float, first: ItemFailure) -> ItemFailure:
    message = f"{count} further items failed"
    return ItemFailure(
        kind=first.kind, start_seconds=start_seconds, end_seconds=end_seconds, code="many", message=message
    )


def _added(first: Votes, second: Votes) -> Votes:
    seconds = dict(first)
    for language, more in second:
        seconds[language] = seconds.get(language, 0.0) + more
    return tuple(sorted(seconds.items()))


def _noted(notes: tuple[str, ...]) -> tuple[str, ...]:
    distinct = [note for note in summed_notes(notes) if note != MORE_NOTES]
    is_more = len(distinct) > NAMED or MORE_NOTES in notes
    return (*distinct[:NAMED], MORE_NOTES) if is_more else tuple(distinct)


def _decoded(text: str) -> TaskResult:
    return msgspec.json.decode(text, type=TaskResult)


def _planned(row: tuple[Any, ...]) -> PlannedTask:
    task_id, kind, start, end, state, deaths, section, seconds, resume_state, languages, result, code, message = row
    heard = tuple((language, heard_seconds) for language, heard_seconds in json.loads(languages or "[]"))
    is_resumed = state == "open" and seconds is not None
    resume = AudioResume(section=section, seconds=seconds, state=resume_state, languages=heard) if is_resumed else None
    return PlannedTask(
        task_id=task_id,
        span=TaskSpan(kind, start, end),
        state=state,
        deaths=deaths,
        resume=resume,
        results=_decoded(result) if result is not None else None,
        error=(code, message) if code is not None else None,
    )
