"""Files: what each shows, what became of it, and the history that is written of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger import Ledger
from engine.ledger_files import HISTORY_KEPT, FileRow, Marks, _signed, _time_ns, _unsigned, below_bounds


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "l.sqlite", "f", iter(range(1, 10**6)).__next__)
    yield ledger
    ledger.close()


def stat_of(inode: int = 1, mtime_ns: int = 1, size_bytes: int = 1, device: int = 1) -> os.stat_result:
    return os.stat_result((0, inode, device, 1, 0, 0, size_bytes, 0, 0, 0), {"st_mtime_ns": mtime_ns})


def events(ledger: Ledger, video_id: str) -> list[tuple[bytes, str]]:
    return [(row.path, row.event) for row in ledger.files.history(video_id)]


def found(ledger: Ledger, path: bytes) -> FileRow:
    row = ledger.files.find(path)
    assert row is not None
    return row


def test_a_file_is_known_until_it_changes(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    ledger.record_file(bytes(file), file.stat(), "v1")
    assert ledger.known_file(bytes(file), file.stat()) == "v1"
    file.write_bytes(b"other")
    assert ledger.known_file(bytes(file), file.stat()) is None
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    assert ledger.known_file(bytes(file), file.stat()) is None


def test_marks_that_sqlite_cannot_hold_are_kept_all_the_same(ledger: Ledger) -> None:
    far = stat_of(inode=2**64 - 1, mtime_ns=13 * 10**18, device=2**63)  # the year 2381, and an inode of a network mount
    ledger.files.record_file(b"/far", far, "v")
    assert ledger.files.known_file(b"/far", far) == "v"
    assert found(ledger, b"/far").marks == Marks(2**63, 2**64 - 1, 1, 13 * 10**18)
    assert [row.path for row in ledger.files.by_identity(far)] == [b"/far"]


@given(st.integers(0, 2**64 - 1))
def test_any_inode_comes_back(value: int) -> None:
    assert -(2**63) <= _signed(value) < 2**63
    assert _unsigned(_signed(value)) == value


@given(st.integers(-2_200_000_000, 16_000_000_000), st.integers(0, 999_999_999))
def test_any_time_from_1901_to_2477_comes_back(seconds: int, nanoseconds: int) -> None:
    time_ns = seconds * 10**9 + nanoseconds
    assert -(2**63) <= _signed(time_ns) < 2**63
    assert _time_ns(_signed(time_ns)) == time_ns


def test_the_history_tells_what_came_changed_went_and_came_back(ledger: Ledger) -> None:
    files = ledger.files
    assert files.record_file(b"/a", stat_of(1), "v") is None
    assert files.record_file(b"/a", stat_of(1), "v") is None  # looked at again
    assert files.record_file(b"/b", stat_of(2), "v") is None
    assert files.mark_gone(b"/a") == "v"
    assert files.mark_gone(b"/a") is None
    assert files.record_file(b"/a", stat_of(1), "v") is None
    assert files.record_file(b"/a", stat_of(1, mtime_ns=2), "w") == "v"
    assert events(ledger, "v") == [(b"/a", "seen"), (b"/b", "copied"), (b"/a", "gone"), (b"/a", "returned"),
                                   (b"/a", "changed")]  # fmt: skip
    assert events(ledger, "w") == [(b"/a", "seen")]
    assert (files.paths_of("v"), files.paths_of("w")) == ([b"/b"], [b"/a"])


def test_a_file_that_is_gone_keeps_its_first_sight_and_is_known_when_it_returns(ledger: Ledger) -> None:
    ledger.files.record_file(b"/a", stat_of(), "v")
    ledger.files.mark_gone(b"/a")
    gone = found(ledger, b"/a")
    assert (gone.state, gone.first_seen) == ("gone", 1.0)
    assert gone.gone_at is not None
    assert ledger.files.known_file(b"/a", stat_of()) == "v"
    ledger.files.record_file(b"/a", stat_of(), "v")
    back = found(ledger, b"/a")
    assert (back.state, back.first_seen, back.gone_at) == ("present", 1.0, None)


def test_a_moved_file_takes_its_row_and_its_video_along(ledger: Ledger) -> None:
    ledger.files.record_file(b"/old", stat_of(5), "v")
    ledger.videos.record_video("v", b"/old", {"status": "indexed"})
    assert [row.path for row in ledger.files.by_identity(stat_of(5))] == [b"/old"]
    assert ledger.files.mark_moved(b"/old", b"/new") is None
    assert ledger.files.find(b"/old") is None
    assert ledger.files.known_file(b"/new", stat_of(5)) == "v"
    assert [row.path for row in ledger.videos.find("/new")] == [b"/new"]
    assert events(ledger, "v") == [(b"/old", "seen"), (b"/new", "moved")]
    assert ledger.files.mark_moved(b"/old", b"/newer") is None
    assert ledger.files.find(b"/newer") is None


def test_a_file_moved_over_another_names_what_it_covers(ledger: Ledger) -> None:
    ledger.files.record_file(b"/old", stat_of(5), "v")
    ledger.files.record_file(b"/new", stat_of(6), "w")
    assert ledger.files.mark_moved(b"/old", b"/new") == "w"
    assert ledger.files.paths_of("w") == []
    assert events(ledger, "w")[-1] == (b"/new", "changed")


def test_a_gone_file_that_turns_up_elsewhere_is_present_again(ledger: Ledger) -> None:
    ledger.files.record_file(b"/old", stat_of(5), "v")
    ledger.files.mark_gone(b"/old")
    ledger.files.mark_moved(b"/old", b"/new")
    row = found(ledger, b"/new")
    assert (row.state, row.gone_at) == ("present", None)


def test_hard_links_are_all_named_by_their_identity(ledger: Ledger) -> None:
    for path in (b"/a", b"/b"):
        ledger.files.record_file(path, stat_of(5), "v")
    ledger.files.record_file(b"/c", stat_of(5, size_bytes=2), "w")
    assert sorted(row.path for row in ledger.files.by_identity(stat_of(5))) == [b"/a", b"/b"]


def test_a_failed_file_counts_its_attempts_until_it_changes(ledger: Ledger) -> None:
    files = ledger.files
    assert [files.fail_file(b"/a", stat_of(), None, "empty-file", f"try {n}") for n in range(3)] == [1, 2, 3]
    row = files.failure(b"/a", stat_of())
    assert row is not None
    assert (row.error, row.attempts, row.video_id) == (("empty-file", "try 2"), 3, None)
    assert files.failure(b"/a", stat_of(mtime_ns=2)) is None
    assert files.fail_file(b"/a", stat_of(mtime_ns=2), "v", "not-media", "no") == 1
    assert [row.path for row in files.failed(10)] == [b"/a"]
    files.record_file(b"/a", stat_of(mtime_ns=2), "v")
    assert (found(ledger, b"/a").error, files.failed(10)) == (None, [])
    assert events(ledger, "v") == [(b"/a", "seen")]


def test_a_file_that_fails_after_it_changed_no_longer_shows_its_content(ledger: Ledger) -> None:
    ledger.files.record_file(b"/a", stat_of(), "v")
    ledger.files.fail_file(b"/a", stat_of(mtime_ns=2), None, "not-media", "no")
    assert ledger.files.paths_of("v") == []
    assert events(ledger, "v") == [(b"/a", "seen"), (b"/a", "changed")]


@pytest.mark.parametrize("by", ["path", "video"])
def test_a_cleared_failure_is_looked_at_again(ledger: Ledger, by: str) -> None:
    ledger.files.fail_file(b"/a", stat_of(), "v", "set-aside", "a decoder died")
    ledger.files.record_file(b"/b", stat_of(2), "v")
    cleared = ledger.files.clear_failure(path=b"/a") if by == "path" else ledger.files.clear_failure(video_id="v")
    assert cleared == [b"/a"]
    assert ledger.files.known_file(b"/a", stat_of()) is None  # hashed again
    assert ledger.files.known_file(b"/b", stat_of(2)) == "v"
    assert ledger.files.paths_of("v") == [b"/a", b"/b"]  # and never taken for gone
    assert ledger.files.clear_failure(path=b"/a") == []


def test_the_files_below_a_directory_come_in_pages_and_no_neighbours_with_them(ledger: Ledger) -> None:
    inside = [b"/r/a", b"/r/b/c", b"/r/b\xff", b"/r/z"]
    for path in [*inside, b"/r", b"/r-1/a", b"/r.mp4", b"/r0/a", b"/q/a", b"/r/gone"]:
        ledger.files.record_file(path, stat_of(), "v")
    ledger.files.mark_gone(b"/r/gone")
    for root in (b"/r", b"/r/"):
        for page in (1, 2, 3, 4, 100):
            assert [row.path for row in ledger.files.below(root, page)] == inside
    assert len(list(ledger.files.below(b"/"))) == 9
    assert ledger.files.counts() == {"present": 9, "gone": 1}


@given(st.lists(st.binary(min_size=1, max_size=3).filter(lambda name: b"/" not in name), max_size=4), st.binary())
def test_the_bounds_hold_all_below_and_nothing_else(parts: list[bytes], other: bytes) -> None:
    root = b"/" + b"/".join(parts)
    first, end = below_bounds(root)
    assert first < first + b"x" < end
    path = b"/" + other
    assert (first < path < end) == (path.startswith(first) and path != first)


def test_a_mount_that_comes_and_goes_does_not_fill_the_disk(ledger: Ledger) -> None:
    ledger.files.record_file(b"/a", stat_of(), "v")
    ledger.files.fail_file(b"/b", stat_of(), None, "a", "b")
    with ledger.transaction():
        for _ in range(HISTORY_KEPT):
            ledger.files.mark_gone(b"/a")
            ledger.files.record_file(b"/a", stat_of(), "v")
            ledger.files.mark_gone(b"/b")
            ledger.files.fail_file(b"/b", stat_of(), None, "a", "b")
    assert len(events(ledger, "v")) == HISTORY_KEPT
    assert events(ledger, "v")[-1] == (b"/a", "returned")
