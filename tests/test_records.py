"""Patience with a ledger that is away, and files that need no work."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.errors import StartError
from engine.files import Found
from engine.ledger_schema import LedgerUnavailable
from engine.records import LedgerPatience, Records, StoreAbsence
from engine.tasks import Board
from engine.videos import VideoError, VideoJob
from stages.options import StoreOptions
from tests.runs import Meddler


@pytest.fixture
def records(tmp_path: Path) -> Any:
    config = Config(store=StoreOptions(path=str(tmp_path / "store")))
    records = Records(config, Meddler(), ["image a"])
    yield records
    records.ledger.close()


def observer_of(records: Records) -> Meddler:
    observer = records._observer
    assert isinstance(observer, Meddler)
    return observer


class Away:
    """A step that finds the ledger away so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self) -> bool:
        self.times -= 1
        if self.times >= 0:
            raise LedgerUnavailable("ledger-unavailable", "the disk is full")
        return False


def test_a_ledger_that_is_away_is_waited_for_and_said_once(records: Records) -> None:
    patience, step = LedgerPatience(records, 10.0), Away(3)
    assert [patience.attempt(step) for _ in range(4)] == [True, True, True, False]
    assert observer_of(records).phases == ["waiting: the disk is full", "the ledger is back"]
    assert records.waiting_for is None


def test_patience_ends(records: Records) -> None:
    now = [0.0]
    patience = LedgerPatience(records, 10.0, clock=lambda: now[0])
    assert patience.attempt(Away(1))
    now[0] = 11.0
    with pytest.raises(StartError, match="the disk is full"):
        patience.attempt(Away(1))


def test_patience_begins_anew_after_each_success(records: Records) -> None:
    now = [0.0]
    patience = LedgerPatience(records, 10.0, clock=lambda: now[0])
    for now[0] in (0.0, 9.0, 18.0):
        step = Away(1)
        assert patience.attempt(step)
        assert not patience.attempt(step)


def test_an_endless_patience_never_ends(records: Records) -> None:
    now = [0.0]
    patience = LedgerPatience(records, float("inf"), clock=lambda: now[0])
    for now[0] in (0.0, 1e9):
        assert patience.attempt(Away(1))


def indexed(records: Records, path: Path, video_id: str = "a" * 64) -> None:
    with records.ledger.transaction():
        records.ledger.record_video(video_id, os.fsencode(path), row(path))
        records.ledger.record_file(os.fsencode(path), path.stat(), video_id)


def row(path: Path) -> dict[str, Any]:
    return {"path": str(path), "status": "indexed", "points": 3, "error": None}


def test_a_renamed_file_is_known_without_being_read(records: Records, tmp_path: Path) -> None:
    old, new = tmp_path / "old.mp4", tmp_path / "new.mp4"
    old.write_text("x")
    indexed(records, old)
    old.rename(new)
    settled: list[bytes] = []
    records.on_settled = settled.append
    assert records.settled_at_once(Found(os.fsencode(new)))
    (finished,) = records.rows
    assert (finished["status"], finished["path"], finished["points"]) == ("unchanged", str(new), 3)
    assert [each.kind for each in records.ledger.operations.pending(10)] == ["repath"]
    assert settled == [os.fsencode(new)]


def test_a_new_file_and_a_changed_one_need_work(records: Records, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("x")
    assert not records.settled_at_once(Found(os.fsencode(path)))
    indexed(records, path)
    assert records.settled_at_once(Found(os.fsencode(path)))
    path.write_text("longer than before")
    assert not records.settled_at_once(Found(os.fsencode(path)))


def test_a_path_with_an_error_is_a_row_of_its_own(records: Records) -> None:
    assert records.settled_at_once(Found(b"/a", VideoError("not-found", "no such file")))
    assert [finished["status"] for finished in records.rows] == ["failed"]
    assert records.count == 1


def test_a_video_that_moved_before_it_was_finished_tells_the_store(records: Records) -> None:
    records.begun("v", b"/old")
    assert records.ledger.operations.pending(10) == []
    records.begun("v", b"/new")
    assert [(each.kind, each.payload["path"]) for each in records.ledger.operations.pending(10)] == [("repath", "/new")]


@pytest.mark.parametrize(("voices", "error"), [(3, None), (3, VideoError("image-failed", "")), (0, None)])
def test_the_speakers_of_a_video_are_to_be_found_once_its_voices_are_stored(
    tmp_path: Path, voices: int, error: VideoError | None
) -> None:
    """Even when something else of it failed: what is stored is labelled."""
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    config = Config(store=StoreOptions(path=str(tmp_path / "store")))
    records = Records(config, Meddler(), ["image a", "voice ecapa@1 (untrained)"])
    board = Board(config, None)
    job = VideoJob(bytes(film), str(film), 0.0, video_id="v", status="partial", error=error, finished_seconds=1.0)
    job.points["voices"] = voices
    board.finished.append(job)
    records.take_finished(board)
    told = [(each.kind, each.payload) for each in records.ledger.operations.pending(9) if each.kind == "label"]
    assert told == ([("label", {"model": "ecapa@1 (untrained)"})] if voices else [])
    records.ledger.close()


def test_an_absent_store_is_absent_since_the_first_word_of_it() -> None:
    now = [0.0]
    absence = StoreAbsence(2.0, clock=lambda: now[0])
    assert not absence.is_long()
    for now[0] in (10.0, 11.0, 12.0):
        absence.see("waiting: store-unreachable")
        assert not absence.is_long()
    now[0] = 12.1
    assert absence.is_long()
    absence.see("drained, 3.0 MB spooled")
    assert absence.is_long()
    absence.see("writing from the spool")
    assert not absence.is_long()
