"""Moves, copies, changes and deletions: what the ledger remembers, and what the store is told."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.archive import Archive, stat_of
from engine.ledger import Ledger
from engine.operations import Operations

OLD, NEW = "a" * 64, "b" * 64


class Shelf:
    """A directory of files, a ledger, and the archive over both."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = Ledger(directory / "ledger" / "ledger.sqlite", "f")
        self.archive = Archive(self.ledger, Operations(self.ledger))

    def path(self, name: str) -> bytes:
        return os.fsencode(self.directory / name)

    def write(self, name: str, content: str = "one") -> bytes:
        (self.directory / name).write_text(content)
        return self.path(name)

    def indexed(self, name: str, video_id: str = OLD) -> bytes:
        """As after a run: the video is recorded, and its file is held."""
        path = self.path(name)
        self.ledger.videos.begin(video_id, path)
        self.ledger.record_video(video_id, path, {"status": "indexed", "points": 1})
        self.holds(name, video_id)
        return path

    def holds(self, name: str, video_id: str = OLD) -> None:
        stat = stat_of(self.path(name))
        assert stat is not None
        self.archive.holds(self.path(name), stat, video_id)

    def told(self) -> list[tuple[str, str, Any]]:
        """What the store has to be told."""
        return [(each.kind, each.video_id, each.payload.get("path")) for each in self.ledger.operations.pending(100)]

    def events(self, video_id: str = OLD) -> list[str]:
        return [row.event for row in self.ledger.files.history(video_id)]


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.ledger.close()


def test_what_is_where_it_was_gives_the_store_nothing_to_do(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.holds("a")
    assert shelf.told() == []
    assert shelf.events() == ["seen"]


def test_a_file_that_moved_takes_its_points_along(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    (shelf.directory / "a").rename(shelf.directory / "b")
    shelf.holds("b")
    assert shelf.told() == [("repath", OLD, str(shelf.directory / "b"))]
    assert shelf.ledger.videos.path_of(OLD) == shelf.path("b")
    shelf.archive.gone(shelf.path("a"))
    assert len(shelf.told()) == 1, "its content lives on"


def test_a_copy_is_only_remembered(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.write("b")
    shelf.holds("b")
    assert shelf.told() == []
    assert shelf.ledger.files.paths_of(OLD) == [shelf.path("a"), shelf.path("b")]


def test_when_the_path_of_record_is_deleted_a_copy_takes_its_place(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.write("b")
    shelf.holds("b")
    shelf.archive.on_delete = "remove"
    shelf.archive.gone(shelf.path("a"))
    assert shelf.told() == [("repath", OLD, str(shelf.directory / "b"))]
    shelf.archive.gone(shelf.path("b"))
    assert [kind for kind, _, _ in shelf.told()] == ["repath", "remove"]
    assert shelf.ledger.known_video(OLD) is None


def test_a_copy_that_is_deleted_changes_nothing(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.write("b")
    shelf.holds("b")
    shelf.archive.on_delete = "remove"
    shelf.archive.gone(shelf.path("b"))
    assert shelf.told() == []


def test_points_of_a_deleted_file_are_kept_by_default(shelf: Shelf) -> None:
    shelf.write("a")
    path = shelf.indexed("a")
    shelf.archive.gone(path)
    row = shelf.ledger.files.find(path)
    assert row is not None
    assert row.state == "gone"
    assert shelf.told() == []
    assert shelf.ledger.known_video(OLD) is not None


def test_points_of_what_a_file_held_before_it_changed_are_removed(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.write("a", "something else")
    shelf.indexed("a", NEW)
    assert shelf.told() == [("remove", OLD, None)]
    assert shelf.ledger.known_video(OLD) is None
    assert shelf.events() == ["seen", "changed", "forgotten"] or shelf.events() == ["seen", "changed"]


def test_content_that_lives_on_elsewhere_survives_a_change(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.write("b")
    shelf.holds("b")
    shelf.write("a", "something else")
    shelf.indexed("a", NEW)
    assert shelf.told() == [("repath", OLD, str(shelf.directory / "b"))]


def test_content_that_is_being_indexed_elsewhere_is_not_removed(shelf: Shelf) -> None:
    shelf.write("a")
    shelf.indexed("a")
    shelf.write("a", "something else")
    shelf.ledger.videos.begin(NEW, shelf.path("a"))
    shelf.archive.in_work = lambda: frozenset({OLD})
    shelf.holds("a", NEW)
    assert shelf.told() == []


def test_a_half_indexed_file_that_changed_leaves_nothing_behind(shelf: Shelf) -> None:
    """It was begun, some of its points are there, and it never was finished."""
    shelf.write("a")
    shelf.ledger.videos.begin(OLD, shelf.path("a"))
    shelf.write("a", "something else")
    shelf.indexed("a", NEW)
    assert shelf.told() == [("remove", OLD, None)]


def test_a_path_that_was_never_known_can_be_gone(shelf: Shelf) -> None:
    shelf.archive.gone(b"/nowhere")
    assert shelf.told() == []


def test_forgetting_removes_points_and_keeps_the_file_known(shelf: Shelf) -> None:
    shelf.write("a")
    path = shelf.indexed("a")
    shelf.archive.forget(OLD)
    assert shelf.told() == [("remove", OLD, None)]
    assert shelf.ledger.files.find(path) is not None


def test_what_there_is_of_a_file_that_vanished_in_work_has_the_fate_of_deleted_files(shelf: Shelf) -> None:
    shelf.ledger.videos.begin(OLD, shelf.path("a"))
    shelf.archive.vanished(OLD)
    assert shelf.told() == []
    shelf.archive.on_delete = "remove"
    shelf.archive.vanished(OLD)
    assert shelf.told() == [("remove", OLD, None)]


def test_a_copy_of_a_file_that_vanished_in_work_keeps_what_there_is(shelf: Shelf) -> None:
    shelf.archive.on_delete = "remove"
    shelf.write("b")
    shelf.ledger.videos.begin(OLD, shelf.path("a"))
    shelf.holds("b")
    shelf.archive.vanished(OLD)
    assert all(kind != "remove" for kind, _, _ in shelf.told())
