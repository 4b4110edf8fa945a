"""When a file is complete, and when a missing one is believed to be gone."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.settling import Departures, Mark, Now, Settling, SteadyClock
from tests.watching import mark

QUIET = 10.0
WALL = 1_900_000_000.0


def now(seconds: float, jump_seconds: float = 0.0) -> Now:
    """A moment; the wall clock has been set by so much."""
    return Now(seconds, WALL + seconds + jump_seconds)


def ctime(seconds: float, jump_seconds: float = 0.0) -> int:
    """As a file has it that changed at such a moment."""
    return int((WALL + seconds + jump_seconds) * 1e9)


def settling(limit: int = 100, inodes: bool = True) -> Settling:
    return Settling(QUIET, inodes=inodes, limit=limit)


def test_an_old_local_file_is_complete_at_first_sight() -> None:
    assert settling().see(b"a", mark(), ctime(-3600), now(0)) == pytest.approx(WALL - 3600)


def test_a_young_file_is_complete_when_it_has_been_quiet_for_long_enough() -> None:
    files = settling()
    seen = [files.see(b"a", mark(), ctime(-2), now(seconds)) for seconds in (0, 5, 9.9)]
    assert seen == [None, None, None]
    assert b"a" in files
    assert files.see(b"a", mark(), ctime(-2), now(10)) == pytest.approx(WALL - 2)
    assert len(files) == 0


@pytest.mark.parametrize("other", [mark(size_bytes=2), mark(mtime_ns=2), mark(inode=2)])
def test_any_change_begins_the_wait_anew(other: Mark) -> None:
    files = settling()
    assert files.see(b"a", mark(), ctime(0), now(0)) is None
    assert files.see(b"a", other, ctime(9), now(9)) is None
    assert files.see(b"a", other, ctime(9), now(18)) is None
    assert files.see(b"a", other, ctime(9), now(19)) == pytest.approx(WALL + 9)


def test_another_number_of_the_device_is_no_change() -> None:
    files = settling()
    assert files.see(b"a", mark(device=1), None, now(0)) is None
    assert files.see(b"a", mark(device=2), None, now(10)) is not None


def test_inodes_of_a_network_mount_do_not_count() -> None:
    files = settling(inodes=False)
    assert files.see(b"a", mark(inode=1), None, now(0)) is None
    assert files.see(b"a", mark(inode=2), None, now(10)) is not None


def test_where_another_clock_sets_the_times_even_an_old_file_waits() -> None:
    files = settling()
    assert files.see(b"a", mark(), None, now(0)) is None
    assert files.see(b"a", mark(), None, now(10)) == WALL


@pytest.mark.parametrize("changed_seconds", [1.0, 86400.0, -WALL, -WALL - 3600])
def test_times_in_the_future_or_absurdly_old_count_as_now(changed_seconds: float) -> None:
    files = settling()
    assert files.see(b"a", mark(), ctime(changed_seconds), now(0)) is None
    assert files.see(b"a", mark(), ctime(changed_seconds), now(10)) == WALL


def test_after_the_clock_was_set_forward_a_file_that_is_being_written_waits() -> None:
    files = settling()
    files.see(b"other", mark(), ctime(-100), now(0))
    assert files.see(b"a", mark(), ctime(19), now(20, jump_seconds=3600)) is None
    assert files.see(b"b", mark(), ctime(19), now(29, jump_seconds=3600)) is None
    assert files.see(b"c", mark(), ctime(19), now(30, jump_seconds=3600)) is not None


def test_a_clock_that_is_slowed_or_hurried_gently_is_steady() -> None:
    clock = SteadyClock(QUIET)
    assert all(clock.steady(Now(float(second), WALL + second * 1.0005)) for second in range(1000))


def test_a_file_more_than_can_be_held_has_to_come_again() -> None:
    files = settling(limit=2)
    for path in (b"a", b"b", b"c"):
        files.see(path, mark(), None, now(0))
    assert files.paths() == [b"a", b"b"]
    assert files.turned_away
    assert files.see(b"a", mark(size_bytes=2), None, now(1)) is None  # what is held may change
    assert files.see(b"b", mark(), None, now(10)) is not None
    files.turned_away = False
    files.see(b"c", mark(), None, now(10))
    assert not files.turned_away


def test_an_old_file_needs_no_room() -> None:
    files = settling(limit=0)
    assert files.see(b"a", mark(), ctime(-3600), now(0)) is not None
    assert not files.turned_away


def test_what_is_forgotten_waits_from_the_beginning() -> None:
    files = settling()
    files.see(b"a", mark(), None, now(0))
    files.forget(b"a")
    files.forget(b"never seen")
    assert files.see(b"a", mark(), None, now(10)) is None


@dataclass(frozen=True)
class Step:
    """What happens next: time passes, then maybe the clock is set, the file is written, somebody looks."""

    pause_seconds: float
    jump_seconds: float
    writes: bool
    looks: bool


steps = st.builds(
    Step,
    pause_seconds=st.sampled_from([0.0, 0.5, 3.0, QUIET, 4 * QUIET]),
    jump_seconds=st.sampled_from([0.0, 0.0, 0.0, 60.0, 3600.0, 1e9, -60.0, -1e9]),
    writes=st.booleans(),
    looks=st.booleans(),
)


@given(st.lists(steps, max_size=30), st.booleans())
def test_no_file_is_complete_within_the_quiet_time_whatever_the_clock_does(plan: list[Step], local: bool) -> None:
    """A clock that is set, and set back before anybody looked, leaves no trace: here somebody always looks."""
    files = settling()
    files.see(b"before", mark(), ctime(-3600), now(0))
    seconds = jump = 0.0
    size, written_at, changed_ns = 1, 0.0, ctime(0)
    for step in plan:
        seconds, jump = seconds + step.pause_seconds, jump + step.jump_seconds
        if step.writes:
            size, written_at, changed_ns = size + 1, seconds, ctime(seconds, jump)
        if not (step.looks or step.jump_seconds):
            continue
        if files.see(b"a", mark(size), changed_ns if local else None, now(seconds, jump)) is not None:
            assert seconds - written_at >= QUIET


@given(st.lists(steps, max_size=30), st.booleans())
def test_every_file_that_is_left_alone_becomes_complete(plan: list[Step], local: bool) -> None:
    files = settling()
    seconds = jump = 0.0
    size, changed_ns = 1, ctime(0)
    for step in plan:
        seconds, jump = seconds + step.pause_seconds, jump + step.jump_seconds
        if step.writes:
            size, changed_ns = size + 1, ctime(seconds, jump)
        if step.looks:
            files.see(b"a", mark(size), changed_ns if local else None, now(seconds, jump))
    looks = [
        files.see(b"a", mark(size), changed_ns if local else None, now(seconds + wait, jump)) for wait in (0, QUIET)
    ]
    assert any(complete is not None for complete in looks)


def test_a_missing_file_is_due_when_it_has_been_missing_for_long_enough() -> None:
    missing = Departures(20.0)
    missing.miss(b"a", 7, 0)
    missing.miss(b"b", 8, 5)
    missing.miss(b"a", 7, 15)  # still missing: that does not begin anew
    assert missing.due(19.9) == []
    assert missing.due(20) == [(b"a", 7)]
    assert missing.due(25) == [(b"a", 7), (b"b", 8)]


def test_a_file_that_is_back_was_not_missing() -> None:
    missing = Departures(20.0)
    missing.miss(b"a", 7, 0)
    missing.back(b"a")
    missing.miss(b"a", 7, 15)
    assert missing.due(20) == []
    missing.clear()
    assert len(missing) == 0


def test_of_missing_files_only_so_many_are_held() -> None:
    missing = Departures(20.0, limit=2)
    for path in (b"a", b"b", b"c"):
        missing.miss(path, 7, 0)
    assert missing.full
    assert [path for path, _ in missing.due(20)] == [b"a", b"b"]
