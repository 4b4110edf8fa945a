"""The task book against a model of it, and what results of sections come to together."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.ledger_schema import Database
from engine.ledger_tasks import MORE_NOTES, NAMED, Operations, PlannedTask, Tasks, TaskSpan, merged
from engine.notes import RETRIED, counted_note, summed_notes
from transport.messages import AudioResume, Gap, ItemFailure, TaskKey, TaskResult

SPANS = [TaskSpan("audio", 0.0, 120.5), TaskSpan("frames", 0.0, 60.0), TaskSpan("frames", 60.0, None)]


def result(section: int = 0, resume: AudioResume | None = None, count: int = 1, task_id: int = 1) -> TaskResult:
    return TaskResult(
        key=TaskKey(task_id, 0),
        points={"speech": count},
        gaps=(Gap(start_seconds=section, end_seconds=section + 1, reason="a: b"),),
        failures=(),
        notes=("note", f"of {section}"),
        speech_seconds=1.0,
        text_seconds=1.0,
        voiced_seconds=1.0,
        voice_seconds=1.0,
        oom_events=1,
        batch_splits=2,
        section=section,
        resume=resume,
    )


def resume(section: int) -> AudioResume:
    heard = (("en", 9.5), ("fr", section / 4)) if section > 1 else ()
    return AudioResume(section=section, seconds=section * 10.25, state=b"\x00state" * section, languages=heard)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "l.sqlite")
    yield database
    database.close()


def test_a_planned_task_keeps_its_id_over_restarts(tmp_path: Path) -> None:
    first = Database(tmp_path / "l.sqlite")
    before = Tasks(first, "f").plan("v", SPANS, False)
    first.close()
    second = Database(tmp_path / "l.sqlite")
    assert Tasks(second, "f").plan("v", list(reversed(SPANS)), False) == list(reversed(before))
    assert [task.span for task in before] == SPANS
    second.close()


def test_ids_are_never_used_again_not_even_by_another_ledger(tmp_path: Path) -> None:
    seen: list[int] = []
    for name in ("a", "b"):
        database = Database(tmp_path / name)
        tasks = Tasks(database, "f")
        for video_id in ("v", "w", "v"):
            seen += [task.task_id for task in tasks.plan(video_id, SPANS, False)]
            tasks.prune(video_id)
        database.close()
    assert len(set(seen)) == len(seen) == 18
    assert all(2**40 < task_id < 2**53 for task_id in seen)


def test_other_spans_begin_the_video_anew_and_leave_others_alone(database: Database) -> None:
    tasks, others = Tasks(database, "f"), Tasks(database, "other settings")
    old = tasks.plan("v", SPANS, False)
    kept = [others.plan("v", SPANS, False), tasks.plan("w", SPANS, False)]
    tasks.section(old[1].task_id, result())
    new = tasks.plan("v", [*SPANS[:2], TaskSpan("frames", 60.0, 90.0)], False)
    assert not {task.task_id for task in old} & {task.task_id for task in new}
    assert [task.state for task in new] == ["open"] * 3
    assert [others.plan("v", SPANS, False), tasks.plan("w", SPANS, False)] == kept


def test_the_sections_of_a_sound_track_are_merged_each_once(database: Database) -> None:
    tasks = Tasks(database, "f")
    task_id = tasks.plan("v", SPANS, False)[0].task_id
    assert tasks.section(task_id, result(0, resume(1)))
    assert not tasks.section(task_id, result(0, resume(1)))  # a replay
    assert not tasks.section(task_id, result(2, resume(3)))  # out of order
    task = tasks.plan("v", SPANS, False)[0]
    assert (task.state, task.resume) == ("open", resume(1))
    assert tasks.section(task_id, result(1, resume(2)))
    assert tasks.section(task_id, result(2))
    assert not tasks.section(task_id, result(2))
    task = tasks.plan("v", SPANS, False)[0]
    assert (task.state, task.resume) == ("done", None)
    assert task.results is not None
    assert task.results.points == {"speech": 3}
    assert task.results.notes == ("note", "of 0", "of 1", "of 2")
    assert (task.results.speech_seconds, task.results.batch_splits) == (3.0, 6)


def test_what_is_not_an_open_task_is_left_alone(database: Database) -> None:
    tasks = Tasks(database, "f")
    task_id = tasks.plan("v", SPANS, False)[1].task_id
    tasks.failed(task_id, "decoder-died", "three times")
    tasks.failed(task_id, "later", "reason")
    assert not tasks.section(task_id, result())
    assert not tasks.section(7, result())
    assert tasks.died(task_id) == tasks.died(7) == 0
    tasks.failed(7, "a", "b")
    assert tasks.plan("v", SPANS, False)[1].error == ("decoder-died", "three times")


def test_a_retry_opens_what_failed_where_it_had_come_to(database: Database) -> None:
    tasks = Tasks(database, "f")
    planned = tasks.plan("v", SPANS, False)
    audio, frames = planned[0].task_id, planned[1].task_id
    tasks.section(audio, result(0, resume(1)))
    assert [tasks.died(audio), tasks.died(audio)] == [1, 2]
    tasks.failed(audio, "decoder-died", "twice")
    tasks.section(frames, result())
    assert tasks.plan("v", SPANS, False)[0].resume is None
    assert tasks.plan("v", SPANS, False)[0].results == msgspec.structs.replace(result(0), resume=None)
    task, done, _ = tasks.plan("v", SPANS, True)
    assert (task.state, task.deaths, task.error, task.resume) == ("open", 0, None, resume(1))
    assert done.state == "done"
    assert tasks.retry("v") == 0


def test_a_retry_does_a_task_with_failed_items_anew(database: Database) -> None:
    tasks = Tasks(database, "f")
    audio, frames, _ = tasks.plan("v", SPANS, False)
    failure = ItemFailure(kind="text", start_seconds=0.0, end_seconds=1.0, code="a", message="b")
    tasks.section(audio.task_id, msgspec.structs.replace(result(0, resume(1)), failures=(failure,)))
    tasks.section(audio.task_id, result(1))
    tasks.section(frames.task_id, result())
    again, done, _ = tasks.plan("v", SPANS, True)
    assert again == audio
    assert done.state == "done"
    assert tasks.section(audio.task_id, result(0))


def test_a_span_named_twice_is_a_mistake(database: Database) -> None:
    with pytest.raises(ValueError, match="named twice"):
        Tasks(database, "f").plan("v", [SPANS[0], SPANS[0]], False)


def test_a_video_without_tasks_has_an_empty_plan(database: Database) -> None:
    assert Tasks(database, "f").plan("v", [], True) == []


class TaskBook(RuleBasedStateMachine):
    """The task book, and a dictionary that should say the same; the file is closed and opened in between."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.open()
        self.model: dict[str, list[PlannedTask]] = {}
        self.sections: dict[int, int] = {}  # by task: the next section

    def open(self) -> None:
        self.database = Database(Path(self.directory.name) / "l.sqlite")
        self.database.rows("PRAGMA synchronous = OFF")  # the process stays alive
        self.tasks = Tasks(self.database, "f")

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()

    def replaced(self, task_id: int, **changes: object) -> None:
        for tasks in self.model.values():
            for index, task in enumerate(tasks):
                if task.task_id == task_id:
                    values = {name: getattr(task, name) for name in PlannedTask.__slots__}
                    tasks[index] = PlannedTask(**(values | changes))

    def task(self, task_id: int) -> PlannedTask | None:
        return next((task for tasks in self.model.values() for task in tasks if task.task_id == task_id), None)

    ids = st.integers(0, 5)

    def nth(self, number: int) -> int:
        known = [task.task_id for tasks in self.model.values() for task in tasks]
        return known[number] if number < len(known) else number

    @rule(video_id=st.sampled_from("vw"), count=st.integers(0, 3), retry_failed=st.booleans())
    def plan(self, video_id: str, count: int, retry_failed: bool) -> None:
        planned = self.tasks.plan(video_id, SPANS[:count], retry_failed)
        if [task.span for task in self.model.setdefault(video_id, [])] != SPANS[:count]:
            assert all(task.task_id not in self.sections for task in planned)
            self.sections.update({task.task_id: 0 for task in planned})
            self.model[video_id] = [
                PlannedTask(task.task_id, span, "open", 0, None, None, None)
                for task, span in zip(planned, SPANS[:count], strict=True)
            ]
        elif retry_failed:
            for task in self.model[video_id]:
                if task.state == "failed":
                    at = self.sections[task.task_id]
                    self.replaced(task.task_id, state="open", deaths=0, error=None, resume=resume(at) if at else None)
        assert planned == self.model[video_id]

    @rule(number=ids, section=st.integers(0, 2), is_last=st.booleans())
    def section(self, number: int, section: int, is_last: bool) -> None:
        task_id = self.nth(number)
        task, new = self.task(task_id), result(section, None if is_last else resume(section + 1))
        fits = task is not None and task.state == "open" and self.sections[task_id] == section
        assert self.tasks.section(task_id, new) == fits
        if fits:
            assert task is not None
            whole = merged(task.results, new) if task.results else new
            state = "done" if is_last else "open"
            self.sections[task_id] = section if is_last else section + 1
            self.replaced(task_id, state=state, resume=new.resume, results=msgspec.structs.replace(whole, resume=None))

    @rule(number=ids)
    def die(self, number: int) -> None:
        task = self.task(self.nth(number))
        deaths = task.deaths + 1 if task is not None and task.state == "open" else 0
        assert self.tasks.died(self.nth(number)) == deaths
        if deaths:
            self.replaced(self.nth(number), deaths=deaths)

    @rule(number=ids)
    def fail(self, number: int) -> None:
        task = self.task(self.nth(number))
        self.tasks.failed(self.nth(number), "code", "message")
        if task is not None and task.state == "open":
            self.replaced(self.nth(number), state="failed", error=("code", "message"), resume=None)

    @rule(video_id=st.sampled_from("vw"))
    def prune(self, video_id: str) -> None:
        self.tasks.prune(video_id)
        self.model.pop(video_id, None)

    @rule()
    def reopen(self) -> None:
        self.database.close()
        self.open()

    @invariant()
    def says_the_same(self) -> None:
        for video_id, tasks in self.model.items():
            assert self.tasks.plan(video_id, [task.span for task in tasks], False) == tasks


TaskBook.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_the_task_book_does_as_its_model_does = TaskBook.TestCase


# --- merging ----------------------------------------------------------------------------------------------------------

SECONDS = st.integers(0, 10**6).map(float)  # whole numbers add up exactly, in any order
GAPS = st.builds(Gap, start_seconds=SECONDS, end_seconds=SECONDS, reason=st.sampled_from(["a: b", "many: so many"]))
FAILURES = st.builds(
    ItemFailure,
    kind=st.sampled_from(["image", "text"]),
    start_seconds=SECONDS,
    end_seconds=SECONDS,
    code=st.sampled_from(["oom", "many"]),
    message=st.sampled_from(["a", "b"]),
)


def many(entries: st.SearchStrategy[tuple[object, ...]]) -> st.SearchStrategy[tuple[object, ...]]:
    """Short ones, and such as have more than is named."""
    return st.tuples(entries, st.sampled_from([1, NAMED // 2, NAMED])).map(lambda pair: pair[0] * pair[1])


def notes_of(count: int, windows: int) -> tuple[str, ...]:
    """So many, and one that counts windows."""
    notes = tuple(f"note {i % 300 + count}" for i in range(count))
    return (*notes, counted_note(RETRIED, windows)) if windows else notes


RESULTS = st.builds(
    TaskResult,
    key=st.builds(TaskKey, st.integers(0, 9), st.integers(0, 9)),
    points=st.dictionaries(st.sampled_from(["frames", "speech"]), st.integers(0, 99)),
    gaps=many(st.lists(GAPS, max_size=3).map(tuple)),
    failures=many(st.lists(FAILURES, max_size=3).map(tuple)),
    notes=st.tuples(st.integers(0, 2 * NAMED), st.integers(0, 3)).map(lambda pair: notes_of(*pair)),
    speech_seconds=SECONDS,
    text_seconds=SECONDS,
    voiced_seconds=SECONDS,
    voice_seconds=SECONDS,
    oom_events=st.integers(0, 9),
    batch_splits=st.integers(0, 9),
    section=st.integers(0, 9),
    languages=st.dictionaries(st.sampled_from(["de", "en"]), SECONDS).map(lambda heard: tuple(sorted(heard.items()))),
)


@settings(max_examples=60, deadline=None)
@given(RESULTS, RESULTS, RESULTS)
def test_it_does_not_matter_which_sections_are_merged_first(a: TaskResult, b: TaskResult, c: TaskResult) -> None:
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@settings(max_examples=60, deadline=None)
@given(RESULTS, RESULTS)
def test_nothing_is_lost_by_merging_but_names(a: TaskResult, b: TaskResult) -> None:
    both = merged(a, b)
    assert sum(both.points.values()) == sum(a.points.values()) + sum(b.points.values())
    gaps = a.gaps + b.gaps
    assert both.gaps[:NAMED] == gaps[:NAMED]
    assert len(both.gaps) <= NAMED + 1
    if len(gaps) > NAMED:
        rest = both.gaps[-1]
        assert rest.reason == f"many: {len(gaps) - NAMED} further gaps lie in here"
        assert all(rest.start_seconds <= gap.start_seconds for gap in gaps[NAMED:])
        assert all(rest.end_seconds >= gap.end_seconds for gap in gaps[NAMED:])
    failures = a.failures + b.failures
    assert both.failures[:NAMED] == failures[:NAMED]
    if len(failures) > NAMED:
        assert both.failures[-1].message == f"{len(failures) - NAMED} further items failed"
    assert len(set(both.notes)) == len(both.notes) <= NAMED + 1
    assert set(both.notes) >= set(summed_notes(a.notes + b.notes)) or both.notes[-1] == MORE_NOTES
    assert retried(both) == retried(a) + retried(b)
    assert (both.section, both.key, both.resume) == (b.section, b.key, b.resume)
    for language in ("de", "en"):
        one, other = dict(a.languages).get(language, 0.0), dict(b.languages).get(language, 0.0)
        assert dict(both.languages).get(language, 0.0) == one + other


def retried(result: TaskResult) -> int:
    return sum(int(note.rpartition(" ")[2]) for note in result.notes if note.startswith(RETRIED))


# --- the outbox -------------------------------------------------------------------------------------------------------


def test_operations_come_in_order_until_they_are_done_or_refused(database: Database) -> None:
    outbox = Operations(database, lambda: 5.0)
    ids = [outbox.add("repath", "v", {"path": f"/{n}é"}) for n in range(3)]
    assert [operation.payload["path"] for operation in outbox.pending(2)] == ["/0é", "/1é"]
    outbox.done(ids[0])
    outbox.done(ids[0])
    outbox.refused(ids[1], "the store says no")
    assert [operation.operation_id for operation in outbox.pending(10)] == [ids[2]]
    assert [(operation.kind, operation.refused) for operation in outbox.refusals(10)] == [
        ("repath", "the store says no")
    ]
    assert outbox.count() == 1
    outbox.done(ids[2])
    assert not outbox.is_removing("v")
    removal = outbox.add("remove", "v", {})
    assert removal > ids[2]
    assert outbox.is_removing("v")
    assert not outbox.is_removing("w")
    outbox.refused(removal, "no")
    assert not outbox.is_removing("v")
