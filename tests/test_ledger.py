"""The ledger: which videos are known, for which settings, and how they are found, begun, forgotten."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, load_config
from engine.errors import StartError
from engine.ledger import Ledger, fingerprint, ledger_path
from engine.ledger_tasks import TaskSpan
from engine.locks import Held

LABELS = ["image a@1", "text b@1"]
REPORT: dict[str, Any] = {"status": "indexed", "error": None, "points": 3}
PARTIAL = {**REPORT, "status": "partial"}
FAILED = {**PARTIAL, "error": {"code": "item", "message": "2 failed items"}}


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path / "l.sqlite", "settings-1", iter(range(1, 10**6)).__next__)
    yield ledger
    ledger.close()


def test_a_video_is_known_for_the_same_settings_only(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "settings-1")
    ledger.record_video("v1", b"/a\xff.mp4", REPORT)
    assert ledger.known_video("v1") == REPORT
    assert ledger.known_video("v2") is None
    ledger.close()
    other = Ledger(tmp_path / "l.sqlite", "settings-2")
    assert other.known_video("v1") is None
    other.record_video("v1", b"/a\xff.mp4", PARTIAL)
    other.close()
    first = Ledger(tmp_path / "l.sqlite", "settings-1")
    assert first.known_video("v1") == REPORT  # kept, for whoever returns to the old settings
    first.close()


def test_a_video_is_known_when_trying_again_would_give_no_more(ledger: Ledger) -> None:
    ledger.videos.begin("v", b"/v")
    assert ledger.videos.known_video("v") is None
    ledger.videos.record_video("v", b"/v", FAILED)
    assert ledger.videos.known_video("v") is None
    ledger.videos.record_video("v", b"/v", PARTIAL)
    assert ledger.videos.known_video("v") == PARTIAL
    assert ledger.videos.fail("v", "set-aside", "a decoder died three times")
    assert ledger.videos.known_video("v") is None
    (row,) = ledger.videos.listing(10, "failed")
    assert (row.state, row.error) == ("failed", ("set-aside", "a decoder died three times"))


def test_a_video_that_was_never_begun_cannot_fail(ledger: Ledger) -> None:
    assert not ledger.videos.fail("v", "a", "b")
    assert ledger.videos.listing(10) == []


def test_a_video_in_work_keeps_its_beginning_when_it_is_finished(ledger: Ledger) -> None:
    ledger.videos.begin("v", b"/v\xff")
    ((begun),) = ledger.videos.listing(10, "working")
    ledger.videos.record_video("v", b"/w", REPORT)
    (row,) = ledger.videos.listing(10)
    assert (begun.path, begun.shown_path, begun.report, begun.finished_at) == (b"/v\xff", "/v\\xff", None, None)
    assert (row.path, row.shown_path, row.report, row.started_at) == (b"/w", "/w", REPORT, begun.started_at)
    assert row.finished_at is not None
    assert row.finished_at > row.started_at


def test_videos_are_listed_and_counted_as_they_were_begun_last(tmp_path: Path) -> None:
    for number, name in enumerate(("settings-1", "settings-2")):
        ledger = Ledger(tmp_path / "l.sqlite", name, iter(range(100 * number + 1, 10**6)).__next__)
        ledger.videos.record_video("aaaa-old", b"/a", REPORT)
        ledger.videos.begin("bbbb-work", b"/b") if number else ledger.videos.record_video("bbbb-work", b"/b", REPORT)
        assert [row.fingerprint for row in ledger.videos.listing(10)] == [name, name]
        assert [row.video_id for row in ledger.videos.listing(1)] == ["bbbb-work"]
        counts = ledger.videos.counts()
        ledger.close()
    assert counts == {"indexed": 1, "working": 1}


def test_a_video_is_found_by_id_by_its_beginning_and_by_any_of_its_paths(ledger: Ledger, tmp_path: Path) -> None:
    ledger.videos.record_video("abcdef01", b"/a\xff.mp4", REPORT)
    ledger.videos.record_video("abcdef02", b"/b.mp4", REPORT)
    ledger.files.record_file(b"/copy.mp4", tmp_path.stat(), "abcdef02")
    found = {
        text: [row.video_id for row in ledger.videos.find(text)]
        for text in ("abcdef01", "abcdef", "abc", "/b.mp4", "/copy.mp4", os.fsdecode(b"/a\xff.mp4"), "/a\\xff.mp4", "")
    }
    assert found == {
        "abcdef01": ["abcdef01"],
        "abcdef": ["abcdef02", "abcdef01"],
        "abc": [],  # too short to mean one
        "/b.mp4": ["abcdef02"],
        "/copy.mp4": ["abcdef02"],
        os.fsdecode(b"/a\xff.mp4"): ["abcdef01"],
        "/a\\xff.mp4": ["abcdef01"],
        "": [],
    }
    assert len(ledger.videos.find("abcdef", limit=1)) == 1


def test_a_forgotten_video_leaves_its_files_known_and_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    ledger.files.record_file(b"/v", tmp_path.stat(), "v")
    ledger.videos.record_video("v", b"/v", REPORT)
    task = ledger.tasks.plan("v", [TaskSpan("frames", 0.0, None)], False)[0]
    ledger.videos.forget("v")
    assert ledger.videos.known_video("v") is None
    assert ledger.videos.find("/v") == []
    assert ledger.tasks.died(task.task_id) == 0
    assert ledger.files.known_file(b"/v", tmp_path.stat()) == "v"
    assert [row.event for row in ledger.files.history("v")] == ["seen", "forgotten"]


def test_a_video_is_repathed_for_all_settings(ledger: Ledger) -> None:
    ledger.videos.record_video("v", b"/old", REPORT)
    ledger.videos.repath("v", b"/new\n")
    (row,) = ledger.videos.find("/new\n")
    assert (row.path, row.shown_path) == (b"/new\n", "/new\\n")
    assert (ledger.videos.path_of("v"), ledger.videos.at(b"/new\n")) == (b"/new\n", ["v"])
    assert (ledger.videos.path_of("w"), ledger.videos.at(b"/old")) == (None, [])


def test_what_decides_the_points_is_in_the_fingerprint_and_speed_is_not() -> None:
    base = fingerprint(Config(), LABELS)
    assert fingerprint(Config(), list(reversed(LABELS))) == base
    assert (
        fingerprint(load_config(settings=["decode.processes=7", "decode.nice=0", "decode.span_seconds=9"]), LABELS)
        == base
    )
    for setting in ("decode.recycle_tasks=3", "voice.same_speaker=0.5", "voice.enroll_min_seconds=9"):
        assert fingerprint(load_config(settings=[setting]), LABELS) == base
    assert fingerprint(load_config(settings=["decode.fps=2"]), LABELS) != base
    assert fingerprint(load_config(settings=["decode.skip_similar=4"]), LABELS) != base
    assert fingerprint(load_config(settings=["speech.captions=ignore"]), LABELS) != base
    assert fingerprint(Config(), ["image a@2", "text b@1"]) != base


def test_archives_of_earlier_versions_are_still_known() -> None:
    assert fingerprint(Config(), LABELS) == "934c679f41d480d955698ed1a5e9c0da", "everybody's archive is indexed anew"


def test_a_server_has_a_ledger_of_its_own() -> None:
    one = ledger_path(load_config(settings=["store.url=http://a:6333"]))
    two = ledger_path(load_config(settings=["store.url=http://b:6333"]))
    embedded = ledger_path(load_config(settings=["store.path=somewhere"]))
    assert len({one, two, embedded}) == 3
    assert embedded == Path("somewhere/ledger.sqlite")


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (tmp_path / "l.sqlite").read_bytes()
    for _ in range(2):  # and its lock is free again
        with pytest.raises(StartError, match="newer than this program"):
            Ledger(tmp_path / "l.sqlite", "f")
    assert (tmp_path / "l.sqlite").read_bytes() == before


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        connection.execute("CREATE TABLE songs (name)")
    connection.close()
    with pytest.raises(StartError, match=r"l\.sqlite is a database of something else; set"):
        Ledger(tmp_path / "l.sqlite", "f")


def test_two_supervisors_never_share_a_ledger(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l.sqlite", "f")
    with pytest.raises(Held, match=rf"l\.sqlite is held by process {os.getpid()}"):
        Ledger(tmp_path / "l.sqlite", "f")
    first.close()
    Ledger(tmp_path / "l.sqlite", "f").close()


def test_a_ledger_whose_directory_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"set store\.path or run\.state"):
        Ledger(tmp_path / "file" / "l.sqlite", "f")
