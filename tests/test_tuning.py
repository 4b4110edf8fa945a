"""The batch size that is found: it grows while that pays, settles when not, and is taken up again."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.budget import power_of_two
from engine.tuning import GAIN, PATIENCE, SETTLED, TRIALS, BatchTuner

Seconds = Callable[[int], float]  # of a batch of so many items


def by_a_line(batch_seconds: float, item_seconds: float) -> Seconds:
    """What a batch takes when each launch costs, and each item."""
    return lambda count: batch_seconds + item_seconds * count


def run(tuner: BatchTuner, seconds: Seconds, batches: int, most: int = 1 << 30) -> list[int]:
    """Batches as large as wanted, or as `most` allows; returns how large they were."""
    sizes = []
    for _ in range(batches):
        count = min(tuner.wanted, most)
        tuner.record(count, seconds(count))
        sizes.append(count)
    return sizes


def worth_it(seconds: Seconds, start: int, largest: int) -> int:
    """The size at which doubling brings too little, found with open eyes."""
    size = start
    while 2 * size <= largest and 2 * size / seconds(2 * size) >= GAIN * (size / seconds(size)):
        size *= 2
    return size


@given(
    st.floats(0.0, 1.0),
    st.floats(0.001, 0.1),
    st.integers(0, 9).map(lambda power: 1 << power),
    st.integers(0, 9).map(lambda power: 1 << power),
)
@settings(deadline=None)
def test_it_grows_as_long_as_that_pays_and_no_further(
    batch_seconds: float, item_seconds: float, start: int, largest: int
) -> None:
    start = min(start, largest)
    seconds = by_a_line(batch_seconds, item_seconds)
    tuner = BatchTuner(start, largest)
    sizes = run(tuner, seconds, 2 * TRIALS * 12)
    assert tuner.size == worth_it(seconds, start, largest)
    assert tuner.wanted == tuner.size
    assert max(sizes) <= min(largest, 2 * tuner.size), "one size beyond is tried"
    assert sizes.count(2 * tuner.size) in (0, TRIALS)


@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.lists(st.tuples(st.integers(1, 600), st.floats(0, 10), st.booleans()), max_size=200),
)
def test_it_never_wants_more_than_the_largest_and_always_a_power_of_two(
    start: int, largest: int, history: list[tuple[int, float, bool]]
) -> None:
    tuner = BatchTuner(start, largest)
    for count, seconds, as_wanted in history:
        tuner.record(tuner.wanted if as_wanted else count, seconds)
        if seconds > 9:
            tuner.shrink(count)
        assert 1 <= tuner.size <= tuner.wanted <= largest
        assert tuner.wanted in (tuner.size, 2 * tuner.size)
        assert power_of_two(tuner.size) == tuner.size


@pytest.mark.parametrize(("start", "largest", "size"), [(12, 64, 8), (48, 512, 32), (100, 24, 16), (1, 1, 1)])
def test_it_starts_from_the_power_of_two_that_the_budget_will_allow(start: int, largest: int, size: int) -> None:
    assert BatchTuner(start, largest).wanted == size


def test_a_start_between_two_sizes_still_grows() -> None:
    """The scheduler sends 8, 16, 32 … whatever the configuration says: a size of 12 would never come about."""
    tuner = BatchTuner(12, 64)
    run(tuner, by_a_line(1.0, 0.0), 100)
    assert tuner.size == 64


def test_noise_of_a_few_per_cent_does_not_make_it_grow() -> None:
    source = random.Random(3)
    tuner = BatchTuner(8, 512)
    run(tuner, lambda count: count * source.uniform(0.97, 1.03), 3000)
    assert tuner.size == 8


def test_one_slow_batch_does_not_decide() -> None:
    tuner = BatchTuner(8, 16)
    run(tuner, by_a_line(1.0, 0.0), TRIALS)
    assert tuner.wanted == 16
    for number in range(TRIALS):
        tuner.record(16, 100.0 if number == 0 else 1.0)
    assert tuner.size == 16


def test_a_size_that_settled_is_doubled_again_after_a_while() -> None:
    tuner = BatchTuner(8, 64)
    run(tuner, by_a_line(0.0, 1.0), 3 * TRIALS)
    assert tuner.wanted == 8
    sizes = run(tuner, by_a_line(1.0, 0.0), SETTLED - TRIALS)
    assert set(sizes) == {8}
    run(tuner, by_a_line(1.0, 0.0), 10 * TRIALS)
    assert tuner.size == 64


def test_and_settles_again_when_nothing_has_changed() -> None:
    tuner = BatchTuner(8, 64)
    sizes = run(tuner, by_a_line(0.0, 1.0), 5 * SETTLED)
    assert tuner.size == 8
    assert sizes.count(16) <= 5 * TRIALS
    assert max(sizes) == 16


def test_a_size_that_the_budget_does_not_allow_is_given_up() -> None:
    tuner = BatchTuner(8, 64)
    run(tuner, by_a_line(1.0, 0.0), TRIALS)
    assert tuner.wanted == 16
    run(tuner, by_a_line(1.0, 0.0), PATIENCE, most=8)
    assert tuner.wanted == 16
    run(tuner, by_a_line(1.0, 0.0), 1, most=8)
    assert tuner.wanted == tuner.size == 8


def test_a_size_that_seldom_comes_about_is_judged_all_the_same() -> None:
    tuner = BatchTuner(8, 16)
    run(tuner, by_a_line(1.0, 0.0), TRIALS)
    for number in range(20 * TRIALS):
        tuner.record(16 if number % 20 == 0 else 2, 1.0)
    assert tuner.size == 16


def test_part_filled_batches_decide_nothing() -> None:
    tuner = BatchTuner(8, 64)
    for _ in range(1000):
        tuner.record(4, 0.001)
    assert tuner.wanted == 8


def test_running_out_of_memory_gives_up_what_is_tried_and_nothing_else() -> None:
    tuner = BatchTuner(8, 64)
    tuner.shrink(8)
    assert tuner.wanted == 8
    run(tuner, by_a_line(1.0, 0.0), TRIALS)
    tuner.shrink(8)
    assert tuner.wanted == 16
    tuner.shrink(16)
    assert tuner.wanted == tuner.size == 8


def test_batches_that_take_no_time_at_all_are_borne() -> None:
    tuner = BatchTuner(1, 4)
    run(tuner, lambda count: 0.0, 100)
    assert tuner.size == 4
