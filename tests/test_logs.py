"""The daemon's log: a line for each event, whatever happens to the reader of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.logs import SUMMARY_SECONDS, DaemonObserver, Log, text_line
from engine.records import Observer
from engine.report import Peaks, failed_row, video_row
from engine.tasks import Board
from engine.videos import VideoJob
from transport.messages import ConsumerStats, MediaInfo

MEDIA = MediaInfo(container="mp4", duration_seconds=600.0, start_seconds=0.0, video=None, audio=None)


class Journal:
    """A log file, a clock, and the lines so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        self.log = Log("json", self._descriptor, wall_clock=lambda: 1_795_273_200.1234)
        self.now = 1000.0
        self.observer = DaemonObserver("json", self.log, clock=lambda: self.now)
        self.peaks = Peaks()

    def lines(self) -> list[str]:
        return self._file.read_text("utf-8").splitlines()

    def events(self) -> list[dict[str, Any]]:
        """Every line but for its time."""
        return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in self.lines()]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def tick(self, state: str = "writing", seconds: float = 1.0, jobs: dict[int, VideoJob] | None = None) -> None:
        self.now += seconds
        self.peaks.consumer = ConsumerStats(points=5, queued_bytes=0, retries=0, state=state, peak_rss_bytes=1)
        self.observer.tick(cast(Board, SimpleNamespace(jobs=jobs or {})), self.peaks, 0)

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "log")
    yield journal
    journal.close()


# --- lines ------------------------------------------------------------------------------------------------------------


def test_an_event_is_a_line_of_json(journal: Journal) -> None:
    journal.observer.event("child-died", "warning", name="decoder 1", pid=17, reason="was killed by SIGKILL")
    (line,) = journal.lines()
    assert line == (
        '{"time": "2026-11-21T15:00:00.123Z", "level": "warning", "event": "child-died", "name": "decoder 1", '
        '"pid": 17, "reason": "was killed by SIGKILL"}'
    )


def test_text_is_for_people(journal: Journal) -> None:
    journal.observer.format = "text"
    journal.observer.event("child-died", "warning", name="decoder 1", pid=17, store=None, file="a.mp4", empty="")
    journal.observer.format = "json"
    journal.observer.phase("draining")
    assert journal.lines()[0] == (
        '2026-11-21T15:00:00.123Z warning child-died name="decoder 1" pid=17 store=null file=a.mp4 empty=""'
    )
    assert json.loads(journal.lines()[1])["text"] == "draining"


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_terminal_would_obey_is_escaped(journal: Journal, form: Any) -> None:
    journal.observer.format = form
    path = "a\n{fake}\x1b[2J\u202e\x85\u2028\udc80é.mp4"
    journal.observer.event("video", path=path, gaps=[{"reason": "x\ny"}])
    text = "\n".join(journal.lines())
    assert len(journal.lines()) == 1
    assert text.isprintable()
    assert "é.mp4" in text
    assert r"\x1b[2J" in text


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text()), max_size=5))
def test_any_text_gives_one_printable_line(fields: dict[str, Any]) -> None:
    written: list[bytes] = []

    def write(descriptor: int, line: bytes) -> int:
        written.append(line)
        return len(line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        log = Log("json", 2, wall_clock=lambda: 0.0)
        log.event("name", **{f"field-{key}": value for key, value in fields.items()})
        log.format = "text"
        log.event("name", **{f"field-{key}": value for key, value in fields.items()})
    lines = b"".join(written).decode().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[0])["event"] == "name"


def test_words_stay_bare_in_text() -> None:
    facts = {"time": "T", "level": "info", "event": "e", "a": "one", "b": "two words", "c": 'q"', "d": 1.5, "e": "k=v"}
    assert text_line(facts) == 'T info e a=one b="two words" c="q\\"" d=1.5 e="k=v"'


# --- a log that cannot be written -------------------------------------------------------------------------------------


def test_a_full_disk_stops_nothing_and_what_was_lost_is_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    full = os.open("/dev/full", os.O_WRONLY)
    journal.log._descriptor, good = full, journal.log._descriptor
    journal.observer.note("one")
    journal.observer.note("two")
    journal.log._descriptor = good
    journal.observer.note("three")
    os.close(full)
    assert [(event["event"], event.get("lines", event.get("text"))) for event in journal.events()] == [
        ("log-lost", 2),
        ("note", "three"),
    ]
    journal.close()


def test_a_reader_that_is_gone_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Log("json", writer)
    log.event("note")
    os.close(writer)
    assert log._lost == 1


def test_a_line_that_was_cut_off_does_not_spoil_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    written, room = bytearray(), [10, 0, 10_000]

    def write(descriptor: int, line: bytes) -> int:
        size = min(len(line), room.pop(0) if len(room) > 1 else room[0])
        if size == 0:
            raise OSError(28, "No space left on device")
        written.extend(line[:size])
        return size

    monkeypatch.setattr(os, "write", write)
    log = Log("json", 2)
    log.event("first")
    log.event("second")
    torn, lost, second, end = written.decode().split("\n")
    assert len(torn) == 10
    assert json.loads(lost)["lines"] == 1
    assert json.loads(second)["event"] == "second"
    assert end == ""


# --- an observer of a run ---------------------------------------------------------------------------------------------


def test_it_is_an_observer() -> None:
    observer: Observer = DaemonObserver("json")
    assert isinstance(observer, DaemonObserver)


def test_a_finished_video_is_told_with_its_figures(journal: Journal) -> None:
    job = VideoJob(b"a.mp4", "a.mp4", 10.0, media=MEDIA)
    row = {
        **video_row(job),
        "status": "partial",
        "video_id": "ab" * 32,
        "points": 7,
        "wall_seconds": 2.5,
        "first_searchable_seconds": 1.5,
    }
    journal.observer.finished(row)
    journal.observer.finished(failed_row("b.mp4", "no-permission", "permission denied"))
    first, second = journal.events()
    assert first == {
        "level": "warning", "event": "video", "path": "a.mp4", "status": "partial", "video_id": "ab" * 32,
        "points": 7, "seconds": 2.5, "media_seconds": 600.0, "first_searchable_seconds": 1.5, "gaps": 0, "failures": 0,
    }  # fmt: skip
    assert second["error"] == "no-permission"
    assert second["message"] == "permission denied"


@pytest.mark.parametrize(
    ("status", "level"),
    [("indexed", "info"), ("unchanged", "info"), ("partial", "warning"), ("failed", "warning")],
)
def test_levels_follow_the_status(journal: Journal, status: str, level: str) -> None:
    journal.observer.finished({**failed_row("a", "code", "words"), "status": status})
    assert journal.events()[0]["level"] == level


def test_waiting_stands_out(journal: Journal) -> None:
    journal.observer.phase("loading models")
    journal.observer.phase("waiting: ledger: database is locked")
    journal.observer.note("roots: /b is gone")
    assert [(event["event"], event["level"]) for event in journal.events()] == [
        ("phase", "info"),
        ("waiting", "warning"),
        ("note", "notice"),
    ]


def test_a_store_that_goes_away_and_comes_back_is_said_once_each(journal: Journal) -> None:
    for state in ("writing", "waiting: refused", "waiting: refused", "waiting: refused", "writing", "writing"):
        journal.tick(state)
    assert journal.events() == [
        {"level": "warning", "event": "store-waiting", "reason": "refused"},
        {"level": "info", "event": "store-back", "seconds": 3.0},
    ]


def test_a_consumer_that_ends_while_the_store_is_away_does_not_say_that_it_is_back(journal: Journal) -> None:
    for state in ("waiting: refused", "drained, 3.0 MB spooled"):
        journal.tick(state)
    assert journal.names() == ["store-waiting"]


def test_reasons_that_change_are_said_at_most_once_a_minute(journal: Journal) -> None:
    for number in range(180):
        journal.tick(f"waiting: {number} % full")
    assert journal.names() == ["store-waiting"] * 3
    journal.tick("writing")
    assert journal.events()[-1]["seconds"] == 180.0


def test_a_summary_comes_once_a_minute_while_there_is_work(journal: Journal) -> None:
    job = VideoJob(b"a.mp4", "a.mp4", 10.0, media=MEDIA, total_seconds=600.0)
    journal.tick(seconds=10 * SUMMARY_SECONDS)  # idle
    for _ in range(150):
        job.settled_seconds += 2.0
        journal.tick(jobs={1: job})
    assert journal.names() == ["progress", "progress"]
    second = journal.events()[1]
    assert second["hours_per_hour"] == 2.0
    assert second["videos_in_work"] == 1
    assert second["media_seconds_left"] == 360.0


def test_an_idle_daemon_says_nothing(journal: Journal) -> None:
    for _ in range(10):
        journal.tick(seconds=SUMMARY_SECONDS)
    assert journal.lines() == []


def test_nothing_is_said_of_a_store_that_is_not_there_yet(journal: Journal) -> None:
    journal.observer.tick(None, Peaks(), 0)
    assert journal.lines() == []
