"""A ledger that is new while its store is not: real stores, real ledgers, damaged and empty ones."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.ledger import Ledger, ledger_path
from engine.rebuilding import rebuild_from_store
from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.qdrant_local import LocalStore
from stages.store import VIDEOS, StoredVideo, video_point, videos_spec
from tests.store_samples import SPECS, frames

FINGERPRINT = "f"


def video(number: int, status: str = "indexed") -> StoredVideo:
    report = {"path": f"/films/{number}.mp4", "status": status, "points": 3, "error": None}
    return StoredVideo(f"{number:064}", FINGERPRINT, f"/films/{number}.mp4", json.dumps(report))


class Shelf:
    """A store with records of videos, and the ledger beside it."""

    def __init__(self, directory: Path) -> None:
        self.config = Config(store=StoreOptions(path=str(directory / "store")))
        self.said: list[str] = []

    @property
    def path(self) -> Path:
        return ledger_path(self.config)

    def store(self, videos: list[StoredVideo], specs: Any = SPECS) -> None:
        store = open_store(self.config.store, None)
        store.ensure(specs)
        store.upsert("frames", frames(3))
        if videos:
            store.upsert(VIDEOS, [video_point(each) for each in videos])
        store.close()

    def ledger(self) -> Ledger:
        return Ledger(self.path, FINGERPRINT)

    def rebuild(self) -> set[str]:
        """Ids of the videos that are known afterwards."""
        ledger = self.ledger()
        try:
            rebuild_from_store(ledger, self.config, self.said.append)
            return {row.video_id for row in ledger.videos.listing(10_000) if ledger.known_video(row.video_id)}
        finally:
            ledger.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def absent(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [garbage, absent])
def test_finished_videos_come_back_from_the_store(shelf: Shelf, damage: Callable[[Path], None]) -> None:
    shelf.store([video(1), video(2, "partial"), video(3)])
    shelf.ledger().close()
    damage(shelf.path)
    assert shelf.rebuild() == {video(number).video_id for number in (1, 2, 3)}
    assert shelf.said == [
        "the ledger is new: 3 finished videos were entered from the store; their files are hashed again"
    ]
    assert shelf.rebuild() == {video(number).video_id for number in (1, 2, 3)}
    assert len(shelf.said) == 1, "it is not new any more"


def test_the_row_of_the_report_and_the_path_come_back_too(shelf: Shelf) -> None:
    shelf.store([video(7)])
    shelf.rebuild()
    ledger = shelf.ledger()
    assert ledger.known_video(video(7).video_id) == json.loads(video(7).report)
    assert ledger.videos.path_of(video(7).video_id) == b"/films/7.mp4"
    assert ledger.files.counts() == {}, "files are hashed again"
    ledger.close()


def test_a_ledger_that_knows_videos_is_left_alone(shelf: Shelf) -> None:
    shelf.store([video(1), video(2)])
    ledger = shelf.ledger()
    ledger.videos.begin("9" * 64, b"/films/9.mp4")
    ledger.close()
    assert shelf.rebuild() == set()
    assert shelf.said == []


def test_records_that_cannot_be_read_are_passed_over(shelf: Shelf) -> None:
    spoilt = [video(1)._replace(report="{"), video(2)._replace(report="[]"), video(3, "failed"), video(4)]
    shelf.store(spoilt)
    assert shelf.rebuild() == {video(4).video_id}


def test_a_store_that_is_new_or_empty_or_of_an_older_version_has_nothing_to_say(tmp_path: Path) -> None:
    for name, specs in (("new", None), ("empty", SPECS), ("old", [spec for spec in SPECS if spec != videos_spec()])):
        shelf = Shelf(tmp_path / name)
        if specs is not None:
            shelf.store([], specs)
        assert shelf.rebuild() == set()
        assert shelf.said == []


def test_of_a_server_that_is_away_it_is_said_and_work_goes_on(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    options = StoreOptions(url="http://127.0.0.1:1", timeout_seconds=1)
    shelf.config = Config(store=options)
    ledger = Ledger(tmp_path / "ledger.sqlite", FINGERPRINT)
    rebuild_from_store(ledger, shelf.config, shelf.said.append)
    assert ledger.videos.counts() == {}
    ledger.close()
    (line,) = shelf.said
    assert line.startswith("the ledger is new and the store cannot be asked what it holds (")


def test_a_store_that_refuses_ends_the_start(shelf: Shelf) -> None:
    shelf.store([video(1)])
    (Path(shelf.config.store.path) / "sluice-store.json").write_text('{"version": 99}')
    with pytest.raises(StoreError):
        shelf.rebuild()


def test_a_store_that_goes_away_midway_leaves_a_ledger_that_is_still_new(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next start would take it for one that knows all there is."""
    shelf.store([video(number) for number in range(1200)])
    scroll = LocalStore.scroll

    def breaking(self: LocalStore, *arguments: Any, **more: Any) -> Iterator[Any]:
        for number, point in enumerate(scroll(self, *arguments, **more)):
            if number == 700:
                raise StoreUnavailable("store-unreachable", "it went away")
            yield point

    with monkeypatch.context() as broken:
        broken.setattr(LocalStore, "scroll", breaking)
        assert shelf.rebuild() == set()
    assert len(shelf.rebuild()) == 1200
