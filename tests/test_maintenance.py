"""Trying failed videos again, and forgetting videos: on a real ledger and a real store."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import maintenance
from engine.archive import Archive
from engine.client import targets_of
from engine.config import Config, load_config
from engine.errors import ConfigError
from engine.ledger import Ledger, fingerprint, ledger_path
from engine.ledger_tasks import TaskSpan
from engine.maintenance import Alone, forget, forget_alone, opened, retry, retry_alone, stopped
from engine.operations import Operations
from stages.errors import SluiceError, StoreUnavailable
from stages.qdrant import open_store
from stages.store import FRAMES, StoredPoint, StoredVideo, frames_spec, point_id, video_point, videos_spec
from transport.requests import ForgetRequest, RetryRequest

IDS = {name: (name[0] * 8 + "0123456789abcdef" * 4)[:64] for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4")}
SPAN = TaskSpan("frames", 0.0, 60.0)


class Shelf:
    """Files, and a ledger that knows them: a is indexed, b and c failed, of d there is not even a hash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = [f"store.path={root / 'store'}", f"run.state={root / 'state'}"]
        self.config: Config = load_config(settings=settings)
        self.films = root / "films"
        self.films.mkdir()
        for name in IDS:
            (self.films / name).write_bytes(name.encode())
        open_store(self.config.store, None).close()
        with self.opened() as books:
            self._fill(books.ledger)

    def opened(self) -> Any:
        return opened(self.config, ())

    def path(self, name: str) -> bytes:
        return os.fsencode(self.films / name)

    def _fill(self, ledger: Ledger) -> None:
        for name in ("a.mp4", "b.mp4", "c.mp4"):
            ledger.videos.begin(IDS[name], self.path(name))
        ledger.record_video(IDS["a.mp4"], self.path("a.mp4"), {"status": "indexed", "error": None})
        ledger.files.record_file(self.path("a.mp4"), self._stat("a.mp4"), IDS["a.mp4"])
        for name in ("b.mp4", "c.mp4"):
            (task,) = ledger.tasks.plan(IDS[name], [SPAN], retry_failed=False)
            ledger.tasks.failed(task.task_id, "decoder-died", "three times")
            ledger.videos.fail(IDS[name], "decoder-died", "three times")
            ledger.files.fail_file(self.path(name), self._stat(name), IDS[name], "decoder-died", "three times")
        ledger.files.fail_file(self.path("d.mp4"), self._stat("d.mp4"), None, "not-media", "no")

    def _stat(self, name: str) -> os.stat_result:
        return (self.films / name).stat()

    def failed(self, ledger: Ledger) -> set[str]:
        return {os.fsdecode(row.path).rpartition("/")[2] for row in ledger.files.failed(100)}

    def task_state(self, ledger: Ledger, name: str) -> str:
        (task,) = ledger.tasks.plan(IDS[name], [SPAN], retry_failed=False)
        return task.state


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def books(shelf: Shelf) -> Iterator[Alone]:
    with shelf.opened() as made:
        yield made


def retrying(*arguments: str, everything: bool = False) -> RetryRequest:
    return RetryRequest(targets=targets_of(arguments), everything=everything)


def forgetting(*arguments: str) -> ForgetRequest:
    return ForgetRequest(targets=targets_of(arguments))


def names(videos: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(video["path"].rpartition("/")[2] for video in videos)


# --- retry ------------------------------------------------------------------------------------------------------------


def test_a_failed_video_is_tried_again_by_path_or_by_the_beginning_of_its_id(shelf: Shelf, books: Alone) -> None:
    assert shelf.task_state(books.ledger, "b.mp4") == "failed"
    body = retry(books, retrying(str(shelf.films / "b.mp4"), IDS["c.mp4"][:10]), frozenset())
    assert (names(body["retried"]), body["count"]) == (["b.mp4", "c.mp4"], 2)
    assert body["retried"][0]["video_id"] == IDS["b.mp4"]
    assert shelf.failed(books.ledger) == {"d.mp4"}
    assert shelf.task_state(books.ledger, "b.mp4") == "open"
    assert books.ledger.files.failure(shelf.path("b.mp4"), (shelf.films / "b.mp4").stat()) is None


def test_all_failed_videos_are_tried_again_page_by_page(
    shelf: Shelf, books: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "PAGE", 2)
    body = retry(books, retrying(everything=True), frozenset())
    assert body["count"] == 3
    assert len(body["retried"]) == 2, "an answer names so many"
    assert shelf.failed(books.ledger) == set()
    assert shelf.task_state(books.ledger, "c.mp4") == "open"
    assert retry(books, retrying(everything=True), frozenset())["count"] == 0


def test_what_did_not_fail_and_what_is_in_work_is_left_alone_and_said(shelf: Shelf, books: Alone) -> None:
    body = retry(books, retrying(IDS["a.mp4"], IDS["b.mp4"]), frozenset({IDS["b.mp4"]}))
    assert (names(body["not_failed"]), names(body["in_work"]), body["retried"]) == (["a.mp4"], ["b.mp4"], [])
    body = retry(books, retrying(everything=True), frozenset({IDS["b.mp4"]}))
    assert names(body["retried"]) == ["c.mp4", "d.mp4"]
    assert shelf.failed(books.ledger) == {"b.mp4"}


def test_a_video_named_twice_counts_once(shelf: Shelf, books: Alone) -> None:
    body = retry(books, retrying(IDS["b.mp4"], IDS["b.mp4"][:9], str(shelf.films / "b.mp4")), frozenset())
    assert body["count"] == 1


@pytest.mark.parametrize("argument", ["/nowhere/x.mp4", "0123456789"])
def test_a_target_that_names_nothing_changes_nothing(shelf: Shelf, books: Alone, argument: str) -> None:
    with pytest.raises(ConfigError) as caught:
        retry(books, retrying(IDS["b.mp4"], argument), frozenset())
    assert caught.value.code == "no-such-video"
    assert argument in caught.value.message
    assert "b.mp4" in shelf.failed(books.ledger)


def test_digits_that_begin_several_ids_are_refused(shelf: Shelf, books: Alone) -> None:
    twin = IDS["b.mp4"][:20] + "f" * 44
    books.ledger.videos.begin(twin, b"/films/twin.mp4")
    with pytest.raises(ConfigError, match="give more digits") as caught:
        retry(books, retrying(IDS["b.mp4"][:20]), frozenset())
    assert caught.value.code == "ambiguous-video"
    assert retry(books, retrying(IDS["b.mp4"]), frozenset())["count"] == 1


def test_a_path_of_odd_bytes_and_one_that_was_noted_as_it_was_typed_are_found(shelf: Shelf, books: Alone) -> None:
    odd = shelf.path("") + b"\xff\n.mp4"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    for path in (odd, b"films/relative.mp4"):
        books.ledger.files.fail_file(path, Path(os.fsdecode(odd)).stat(), None, "not-media", "no")
    body = retry(books, retrying(os.fsdecode(odd), "films/relative.mp4"), frozenset())
    assert body["count"] == 2
    with pytest.raises(ConfigError, match=r"\\xfe"):
        retry(books, retrying(os.fsdecode(b"/nowhere/\xfe.mp4")), frozenset())


# --- forget -----------------------------------------------------------------------------------------------------------


def test_forgetting_queues_the_removal_and_keeps_the_file_known(shelf: Shelf, books: Alone) -> None:
    body = forget(books, forgetting(str(shelf.films / "a.mp4")), frozenset())
    assert body == {"forgotten": [{"path": str(shelf.films / "a.mp4"), "video_id": IDS["a.mp4"]}]}
    assert [(each.kind, each.video_id) for each in books.ledger.operations.pending(9)] == [("remove", IDS["a.mp4"])]
    assert books.ledger.known_video(IDS["a.mp4"]) is None
    assert books.ledger.files.find(shelf.path("a.mp4")) is not None, "else a scan would bring it back"
    assert books.ledger.files.history(IDS["a.mp4"])[-1].event == "forgotten"


def test_what_is_being_indexed_cannot_be_forgotten(shelf: Shelf, books: Alone) -> None:
    with pytest.raises(SluiceError, match="being indexed") as caught:
        forget(books, forgetting(IDS["a.mp4"], IDS["b.mp4"]), frozenset({IDS["b.mp4"]}))
    assert caught.value.code == "video-in-work"
    assert books.ledger.known_video(IDS["a.mp4"]) is not None, "nor anything that was named beside it"
    assert books.ledger.operations.count() == 0


def test_a_file_without_content_has_nothing_to_forget(shelf: Shelf, books: Alone) -> None:
    with pytest.raises(ConfigError, match="before anything of it was stored"):
        forget(books, forgetting(str(shelf.films / "d.mp4")), frozenset())


# --- without a daemon -------------------------------------------------------------------------------------------------


def fill_store(shelf: Shelf) -> None:
    """A frame and a record of a and b."""
    store = open_store(shelf.config.store, None)
    store.ensure([frames_spec(2), videos_spec()])
    for name in ("a.mp4", "b.mp4"):
        facts = {"video_id": IDS[name], "path": name, "start_seconds": 0.0, "end_seconds": 1.0, "model": "m@1"}
        point = StoredPoint(point_id(IDS[name], "frames", "m@1", 0), FRAMES, facts, {"image": [1.0, 0.0]})
        store.upsert(FRAMES, [point])
        store.upsert("videos", [video_point(StoredVideo(IDS[name], "f", name, "{}"))])
    store.close()


def stored(shelf: Shelf) -> list[str]:
    store = open_store(shelf.config.store, None, read_only=True)
    found = [point.payload["video_id"] for name in (FRAMES, "videos") for point in store.scroll(name, False)]
    store.close()
    return sorted(found)


def test_without_a_daemon_the_points_are_removed_at_once(shelf: Shelf) -> None:
    fill_store(shelf)
    with shelf.opened() as books:
        Operations(books.ledger).record(IDS["a.mp4"], "f", "a.mp4", "{}")  # not told yet; it must not come back
        Operations(books.ledger).record(IDS["b.mp4"], "f", "b.mp4", "{}")
    body = forget_alone(shelf.config, forgetting(IDS["a.mp4"]))
    assert (names(body["forgotten"]), body["pending"]) == (["a.mp4"], None)
    assert stored(shelf) == [IDS["b.mp4"]] * 2
    with shelf.opened() as books:
        assert [each.video_id for each in books.ledger.operations.pending(9)] == [IDS["b.mp4"]]


def test_a_store_that_is_away_is_told_by_the_next_run(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object) -> None:
        raise StoreUnavailable("store-full", "no room")

    monkeypatch.setattr("stages.qdrant_local.LocalStore.delete", away)
    body = forget_alone(shelf.config, forgetting(IDS["a.mp4"]))
    assert body["pending"] == "store-full: no room"
    with shelf.opened() as books:
        assert [each.kind for each in books.ledger.operations.pending(9)] == ["remove"]


def test_a_store_that_another_process_holds_loses_nothing(shelf: Shelf) -> None:
    store = open_store(shelf.config.store, None)
    with pytest.raises(SluiceError) as caught:
        forget_alone(shelf.config, forgetting(IDS["a.mp4"]))
    store.close()
    assert caught.value.code == "store-locked"
    with shelf.opened() as books:
        assert books.ledger.known_video(IDS["a.mp4"]) is not None


def test_without_a_daemon_retry_opens_the_tasks_of_the_present_models(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "model_labels", lambda config: [])
    assert retry_alone(shelf.config, retrying(IDS["b.mp4"]))["count"] == 1
    ledger = Ledger(ledger_path(shelf.config), fingerprint(shelf.config, []))
    assert shelf.task_state(ledger, "b.mp4") == "open"
    ledger.close()


def test_where_nothing_was_indexed_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = load_config(settings=[f"store.path={tmp_path / 'store'}"])
    with pytest.raises(SluiceError, match="nothing was indexed yet"):
        retry_alone(config, retrying(everything=True))
    with pytest.raises(SluiceError, match="nothing was indexed yet"):
        forget_alone(config, forgetting("a"))
    assert not (tmp_path / "store").exists()
    assert stopped(config)["videos"] == {}


def test_the_status_of_a_daemon_that_does_not_run_is_in_its_ledger(shelf: Shelf) -> None:
    with shelf.opened() as books:
        Archive(books.ledger, Operations(books.ledger)).forget(IDS["c.mp4"])
    found = stopped(shelf.config)
    assert (found["state"], found["videos"], found["operations"]) == ("stopped", {"indexed": 1, "failed": 1}, 1)
    assert (found["files"], found["tasks"]) == ({"present": 1, "failed": 3}, {"failed": 1})
    assert {failure["code"] for failure in found["failures"]} == {"decoder-died", "not-media"}
    assert found["failures"][0].keys() == {"path", "code", "message"}


def test_looking_is_possible_while_another_process_writes(shelf: Shelf) -> None:
    with shelf.opened():
        assert stopped(shelf.config)["videos"] == {"indexed": 1, "failed": 2}
