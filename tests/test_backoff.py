"""When a process that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from engine.backoff import Backoff

SECONDS = st.floats(0.01, 1000.0)
CHANCES = st.floats(0.0, 1.0)


def delays_of(backoff: Backoff, lives: list[float], start: float = 0.0) -> list[float]:
    """The delays after lives of these lengths, each begun when it was due."""
    now, delays = start, []
    for life in lives:
        now += life
        delays.append(backoff.died(now))
        now += delays[-1]
    return delays


def test_a_single_death_is_mended_at_once() -> None:
    assert Backoff(1.0, 60.0, 30.0).died(1000.0) == 0.0


def test_deaths_in_a_row_wait_twice_as_long_each_time() -> None:
    assert delays_of(Backoff(1.0, 10.0, 30.0), [2.0] * 7) == [0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_long_life_ends_the_row() -> None:
    backoff = Backoff(1.0, 10.0, 30.0)
    assert delays_of(backoff, [2.0, 2.0, 2.0, 31.0, 2.0]) == [0.0, 1.0, 2.0, 0.0, 1.0]
    assert backoff.deaths == 2


def test_the_delay_is_no_part_of_the_life() -> None:
    """After a wait of a minute, dying at once is still a death in a row."""
    assert delays_of(Backoff(60.0, 600.0, 30.0), [1.0] * 4) == [0.0, 60.0, 120.0, 240.0]


def test_chance_cuts_up_to_a_quarter() -> None:
    assert delays_of(Backoff(4.0, 8.0, 30.0, chance=lambda: 0.0), [1.0] * 4) == [0.0, 3.0, 6.0, 6.0]
    assert delays_of(Backoff(4.0, 8.0, 30.0, chance=lambda: 1.0), [1.0] * 4) == [0.0, 4.0, 8.0, 8.0]


@given(SECONDS, SECONDS, SECONDS, st.lists(SECONDS, max_size=50), CHANCES, st.floats(0.0, 1e6))
def test_delays_stay_within_their_bounds(
    first: float, longest: float, forget: float, lives: list[float], chance: float, start: float
) -> None:
    delays = delays_of(Backoff(first, longest, forget, lambda: chance), lives, start)
    assert all(0.0 <= delay <= longest for delay in delays)
    assert all(delay == 0.0 or delay >= 0.75 * min(first, longest) for delay in delays)


@given(SECONDS, SECONDS, st.integers(2, 2000))
def test_a_storm_comes_down_to_one_start_in_the_longest_delay(first: float, longest: float, deaths: int) -> None:
    delays = delays_of(Backoff(first, longest, forget_after_seconds=1.0), [0.5] * deaths)
    assert delays[0] == 0.0
    assert delays == sorted(delays)
    assert delays[-1] == min(first * 2.0 ** (deaths - 2), longest) if deaths < 900 else delays[-1] == longest
