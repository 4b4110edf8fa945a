"""The recorder of a trace and its file: events, bounds, what a full disk or a liar leaves."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config
from engine.errors import ConfigError
from engine.report import Peaks
from engine.residency import Residency
from engine.runner import RunCounters
from engine.trace import FLUSH_EVENTS, HEAD, NoTrace, Trace, TraceFile, trace_of
from engine.trace_batches import BatchWatch
from engine.trace_observer import COUNT_SECONDS, TraceObserver, recording
from engine.trace_tasks import begin_task
from engine.trace_timesheet import Timesheet
from engine.videos import VideoJob
from engine.worker import Endpoints, WorkerSpec
from tests.runs import Meddler
from transport.messages import DecodeAudio, DecodeFrames, FrameFormat, MediaInfo, Probe, TaskKey, Traced


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Said:
    """Keeps what a recorder handed over."""

    def __init__(self) -> None:
        self.messages: list[Traced] = []

    def __call__(self, message: Traced) -> None:
        self.messages.append(message)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for message in self.messages for event in json.loads(b"[" + message.events + b"]")]

    @property
    def told(self) -> list[dict[str, Any]]:
        """Without those that name the tracks."""
        return [event for event in self.events if event["ph"] != "M"]


def test_an_event_says_what_when_where_and_how_long() -> None:
    said, clock = Said(), Clock()
    trace = Trace("decoder 1", said, start=7, clock=clock)
    trace.complete("wait for credit", 100.5, 100.75, bytes=3)
    trace.begin("frames", path="a\nb.mp4")
    clock.now = 102.0
    trace.instant("seen")
    trace.end(items=2)
    trace.flush()
    here = {"pid": os.getpid(), "tid": os.getpid()}
    names = {event["name"]: event["args"] for event in said.events if event["ph"] == "M"}
    assert names["process_name"] == {"name": "decoder 1"}
    assert names["thread_name"] == {"name": "tasks"}
    assert names["process_labels"] == {"labels": "process 7 of the run"}
    assert said.told == [
        {"ph": "X", "ts": 100_500_000, **here, "name": "wait for credit", "dur": 250_000, "args": {"bytes": 3}},
        {"ph": "B", "ts": 100_000_000, **here, "name": "frames", "args": {"path": "a\nb.mp4"}},
        {"ph": "i", "ts": 102_000_000, **here, "name": "seen", "s": "p", "args": {}},
        {"ph": "E", "ts": 102_000_000, **here, "name": "frames", "args": {"items": 2}},
    ]


def test_memory_is_bounded_by_handing_over_in_between() -> None:
    said = Said()
    trace = Trace("engine", said)
    for number in range(3 * FLUSH_EVENTS):
        trace.complete("image", number, number + 1)
        assert len(trace._events) <= FLUSH_EVENTS
    trace.flush()
    trace.flush()
    assert len(said.told) == 3 * FLUSH_EVENTS
    assert len(said.messages) == 4, "and nothing is said when there is nothing to say"


def test_a_full_trace_says_so_and_ends_what_it_began() -> None:
    said = Said()
    trace = Trace("engine", said, max_events=3)
    trace.begin("load")
    for second in range(5):
        trace.complete("image", second, second + 1)
    trace.begin("never recorded")
    trace.end()
    trace.end()
    trace.flush()
    assert [event["ph"] for event in said.told] == ["B", "X", "X", "i", "E"]
    assert said.told[3]["name"].startswith("the trace is full")
    assert said.messages[-1].is_full


plain = st.text() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.text(), st.dictionaries(st.text(), plain))
def test_any_text_survives(name: str, about: dict[str, Any]) -> None:
    said = Said()
    trace = Trace("consumer", said)
    trace._record("i", name, 1.0, args=about)
    trace.flush()
    assert (said.told[0]["name"], said.told[0]["args"]) == (name, about)


# --- what records nothing -------------------------------------------------------------------------------------------


def spec(traced: bool) -> WorkerSpec:
    endpoints = Endpoints(control="c", items="i", points="p", traced=traced)
    return WorkerSpec(role="decoder", index=2, generation=5, endpoints=endpoints, config=Config())


def test_a_child_records_only_when_it_is_told_to() -> None:
    said = Said()
    nothing = trace_of(spec(traced=False), said)
    assert not nothing.enabled
    nothing.begin("x")
    nothing.complete("x", 0.0, 1.0)
    nothing.instant("x")
    nothing.end()
    nothing.flush()
    begin_task(nothing, Probe(key=TaskKey(1, 1), path=b"a"))
    assert said.messages == []
    trace_of(spec(traced=True), said).flush()
    assert said.events[0]["args"] == {"name": "decoder 2"}


# --- the file -------------------------------------------------------------------------------------------------------


def events_in(file: Path) -> list[Any]:
    return list(json.loads(file.read_text())["traceEvents"])


def test_the_file_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(path)
    assert events_in(path) == []
    for number in range(3):
        file.take(Traced(events=b'{"n":%d},{"n":0}' % number))
        assert len(events_in(path)) == 2 * (number + 1)
    file.close()
    file.close()
    file.take(Traced(events=b"{}"))
    assert len(events_in(path)) == 6


def test_a_trace_is_written_over_and_anything_else_is_left_alone(tmp_path: Path) -> None:
    old, video = tmp_path / "trace.json", tmp_path / "film.mp4"
    first = TraceFile(old)
    first.take(Traced(events=b'{"old":1}'))
    first.close()
    TraceFile(old).close()
    assert events_in(old) == []
    video.write_bytes(b"not to be written to")
    for path in (video, tmp_path, tmp_path / "nowhere" / "trace.json"):
        with pytest.raises(ConfigError) as refused:
            TraceFile(path)
        assert refused.value.code == "bad-trace"
        assert str(path) in refused.value.message
    assert video.read_bytes() == b"not to be written to"


@pytest.mark.parametrize("events", [b'{"a":1', b"1", b'{"a":1}]}', b"", b'{"a":\xff}'])
def test_what_is_no_list_of_events_does_not_spoil_the_file(tmp_path: Path, events: bytes) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(path)
    file.take(Traced(events=b'{"good":1}'))
    file.take(Traced(events=events))
    file.take(Traced(events=b'{"good":2}'))
    file.close()
    assert events_in(path) == [{"good": 1}, {"good": 2}]


def test_the_file_grows_no_further_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(path, max_bytes=len(HEAD) + 25)
    for _ in range(5):
        file.take(Traced(events=b'{"good":1}'))
    assert len(events_in(path)) == 2
    assert "as much as it may" in file.trouble
    file.close()


def test_a_full_disk_leaves_what_was_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "trace.json", os.pwrite
    file = TraceFile(path)
    file.take(Traced(events=b'{"good":1}'))

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        """Half of it is written; then nothing that would make the file longer."""
        room = path.stat().st_size + 8 - at
        if len(data) <= 4:
            return real(descriptor, data, at)
        if room <= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:room], at)

    monkeypatch.setattr("engine.trace.os.pwrite", pwrite)
    file.take(Traced(events=b'{"lost":' + b"1" * 100 + b"}"))
    monkeypatch.undo()
    file.take(Traced(events=b'{"late":1}'))
    file.close()
    assert file.trouble == "No space left on device"
    assert events_in(path) == [{"good": 1}]


# --- where time goes ------------------------------------------------------------------------------------------------


def test_a_timesheet_counts_every_state_and_shows_those_with_a_name() -> None:
    said, clock = Said(), Clock()
    trace = Trace("engine", said, clock=clock)
    times = Timesheet("working", trace, {"waiting": "wait for items"}, clock)
    for state, seconds in (("working", 1.0), ("waiting", 2.0), ("waiting", 3.0), ("working", 0.5), ("waiting", 1e-4)):
        times.enter(state)
        clock.now += seconds
    times.enter("working", why="enough")
    clock.now += 4.0
    trace.flush()
    assert times.seconds("working") == pytest.approx(5.5)
    assert times.seconds("waiting") == pytest.approx(5.0001)
    assert times.seconds("never") == 0.0
    assert [(event["name"], event["dur"]) for event in said.told] == [("wait for items", 5_000_000)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e3)), max_size=30))
def test_a_timesheet_loses_no_time(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    times = Timesheet("a", clock=clock)
    for state, seconds in steps:
        times.enter(state)
        clock.now += seconds
    assert sum(times.seconds(state) for state in "abc") == pytest.approx(clock.now - 100.0, abs=1e-6)


# --- what is recorded of whom ---------------------------------------------------------------------------------------


def test_a_batch_is_shown_with_what_went_wrong_in_it() -> None:
    said = Said()
    trace = Trace("engine", said)
    counters, residency = {"image": RunCounters(), "text": RunCounters(items=5, batches=1)}, Residency(60.0)
    watch = BatchWatch(counters, residency, trace)
    image = counters["image"]
    image.items, image.batches, image.busy_seconds = 32, 1, 0.25
    watch.ran(1.0, 1.3)
    image.items, image.batches, image.oom_events, image.batch_splits, image.alone = 40, 2, 3, 2, 1
    residency.changes += 1
    watch.ran(2.0, 2.3)
    watch.ran(3.0, 3.1)
    trace.flush()
    assert [(event["name"], event["args"]) for event in said.told] == [
        ("image", {"items": 32, "model ms": 250.0}),
        (
            "image",
            {"items": 8, "model ms": 0.0, "oom_events": 3, "batch_splits": 2, "alone": 1, "models brought in": 1},
        ),
        ("search query", {}),
    ]
    BatchWatch(counters, residency, NoTrace()).ran(4.0, 4.1)
    assert len(said.told) == 3


MEDIA = MediaInfo(container="mp4", duration_seconds=9.0, start_seconds=0.0, video=None, audio=None)


def test_a_task_is_told_of_at_once() -> None:
    said = Said()
    trace = Trace("decoder 0", said)
    shared: dict[str, Any] = {
        "key": TaskKey(3, 2),
        "path": b"a",
        "shown_path": "a.mp4",
        "video_id": "v",
        "media": MEDIA,
    }
    size = FrameFormat(width=8, height=8, fit="crop")
    begin_task(trace, Probe(key=TaskKey(1, 1), path=b"odd\xff.mp4"))
    begin_task(trace, DecodeFrames(start_seconds=60.0, end_seconds=None, format=size, **shared))
    begin_task(trace, DecodeAudio(captions=None, transcribe=True, voices=True, **shared))
    assert [(event["ph"], event["name"], event["args"]) for event in said.told] == [
        ("B", "probe", {"task": 1, "attempt": 1, "path": "odd\\xff.mp4"}),
        ("B", "frames", {"task": 3, "attempt": 2, "path": "a.mp4", "from s": 60.0, "to s": None}),
        ("B", "sound", {"task": 3, "attempt": 2, "path": "a.mp4", "from s": 0.0}),
    ]


class BoardOf:
    """What the observer looks at of a board."""

    def __init__(self, *jobs: VideoJob) -> None:
        self.jobs = {job.path: job for job in jobs}
        self.queued_tasks = 4


def test_videos_are_shown_from_their_start_to_their_end() -> None:
    said, clock, told = Said(), Clock(), Meddler(lambda supervisor: True)
    told.supervisor = object()  # type: ignore[assignment]
    observer = TraceObserver(told, Trace("supervisor", said, clock=clock), clock)
    first, second = VideoJob(b"a", "a.mp4", 90.0), VideoJob(b"b", "b.mp4", 95.0)
    observer.tick(BoardOf(first, second), Peaks(), 0)  # type: ignore[arg-type]
    first.status, first.finished_seconds = "indexed", 99.0
    observer.finished({"status": "indexed", "path": "a.mp4", "points": 3, "gaps": []})
    observer.tick(BoardOf(second), Peaks(), 1)  # type: ignore[arg-type]
    clock.now = 101.0
    observer.phase("draining")
    observer.note("a note")
    observer.close()
    spans = [(e["ph"], e["id"], e["name"], e["ts"], e["args"]) for e in said.told if e["ph"] in "be"]
    assert spans == [
        ("b", 1, "a.mp4", 90_000_000, {}),
        ("b", 2, "b.mp4", 95_000_000, {}),
        ("e", 1, "a.mp4", 99_000_000, {"status": "indexed"}),
        ("e", 2, "b.mp4", 101_000_000, {"status": "interrupted"}),
    ]
    assert [e["name"] for e in said.told if e["ph"] == "i"] == ["indexed: a.mp4", "draining", "note: a note"]
    assert (told.phases, told.notes, len(told.rows)) == (["draining"], ["a note"], 1), "and it hands everything on"


def test_figures_are_looked_at_now_and_then_and_not_at_every_turn() -> None:
    said, clock, told = Said(), Clock(), Meddler(lambda supervisor: True)
    told.supervisor = object()  # type: ignore[assignment]
    observer = TraceObserver(told, Trace("supervisor", said, clock=clock), clock)
    for _ in range(10):
        observer.tick(BoardOf(), Peaks(), 0)  # type: ignore[arg-type]
        clock.now += COUNT_SECONDS / 5
    observer.close()
    works = [event["args"] for event in said.told if event["ph"] == "C" and event["name"] == "work"]
    assert works == [{"videos": 0, "queued tasks": 4}] * 2


def test_an_observer_is_told_when_not_all_of_a_trace_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Meddler()
    with recording(None, told) as (observer, no_file):
        assert observer is told
        assert no_file is None
    path = tmp_path / "trace.json"
    with recording(path, told) as (observer, file):
        assert file is not None
        file.trouble = "No space left on device"
        observer.phase("work")
    assert told.notes == [f"--trace {path}: not all of it is there: No space left on device"]
    assert events_in(path) == []
