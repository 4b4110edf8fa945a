"""When what was written is flushed: at once what is full, else not too often; and nothing is forgotten."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.group_commit import COMMIT_SECONDS, LEAST_SECONDS, PAUSE_SECONDS, Group
from engine.writer_items import Item
from tests.writer_rig import points_message, result_message
from transport.messages import TaskKey


def item(points: int, cost_bytes: int = 1) -> Item:
    if not points:
        return Item(result_message(TaskKey(1, 0)), b"", cost_bytes)
    message, payload = points_message("v", range(points), TaskKey(1, 0))
    return Item(message, payload, cost_bytes)


def test_what_comes_after_long_does_not_wait() -> None:
    group = Group(limit_bytes=1000)
    assert group.wait_seconds(0.0) == math.inf, "nothing is there"
    group.add([item(1)], 0.0)
    assert group.wait_seconds(0.0) == 0.0
    group.commit(0.0)
    group.add([item(1)], 10.0)
    assert group.wait_seconds(10.0) == 0.0


def test_in_a_steady_stream_a_commit_waits_for_its_time_and_in_a_pause_for_a_moment() -> None:
    group = Group(limit_bytes=1000)
    group.commit(0.0)
    group.add([item(1)], 0.01)
    assert group.wait_seconds(0.01) == pytest.approx(LEAST_SECONDS - 0.01), "the last one was just now"
    now = 0.01
    while now < COMMIT_SECONDS - PAUSE_SECONDS / 2:
        assert group.wait_seconds(now) > 0
        now += PAUSE_SECONDS / 2
        group.add([item(1)], now)
    assert group.wait_seconds(now) == pytest.approx(COMMIT_SECONDS - now), "that is long enough"
    group.commit(COMMIT_SECONDS)
    group.add([item(1)], COMMIT_SECONDS + 0.5)
    assert group.wait_seconds(COMMIT_SECONDS + 0.5) == pytest.approx(PAUSE_SECONDS), "nothing more came"


@given(st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_no_wait_ends_later_than_the_longest_or_sooner_than_the_least(times: list[float]) -> None:
    """Of what is not full; counted from the last commit."""
    group = Group(limit_bytes=1 << 30)
    group.commit(0.0)
    for now in sorted(times):
        group.add([item(1)], now)
        due = now + group.wait_seconds(now)
        assert due <= max(now, COMMIT_SECONDS)
        assert due >= min(now + PAUSE_SECONDS, LEAST_SECONDS)


@pytest.mark.parametrize("fill", [lambda: item(4), lambda: item(0, cost_bytes=1000)], ids=["points", "bytes"])
def test_what_is_full_does_not_wait(fill: Callable[[], Item]) -> None:
    group = Group(limit_bytes=1000, limit_points=4)
    group.commit(5.0)
    group.add([item(3)], 5.0)
    assert not group.is_full
    group.add([fill()], 5.0)
    assert group.is_full
    assert group.wait_seconds(5.0) == 0.0


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=8))
def test_a_commit_gives_all_in_order_and_leaves_nothing(batches: list[list[int]]) -> None:
    group = Group(limit_bytes=1 << 30)
    given_items = [[item(points) for points in batch] for batch in batches]
    for batch in given_items:
        group.add(batch, 0.0)
    every = [each for batch in given_items for each in batch]
    assert list(group) == every
    assert group.points == sum(each.points for each in every)
    assert group.results == sum(not each.points for each in every)
    assert group.commit(1.0) == every
    assert (len(group), group.points, group.results, group.is_full) == (0, 0, 0, False)
