"""The tiers of memory pressure: where they begin and end, and what is counted."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.device import Reading
from engine.pressure import HYSTERESIS, RELEASE_SECONDS, WORTH_RELEASING, Pressure, Tier

TOTAL = 1000
PLENTY = 10 * TOTAL


def using(used: int, cached: int = 0, free: int = PLENTY) -> Reading:
    return Reading(used_bytes=used, cached_bytes=cached, free_bytes=free)


def tiers(uses: Sequence[int]) -> list[Tier]:
    pressure = Pressure(TOTAL)
    return [pressure.see(using(used)) for used in uses]


def test_tiers_begin_at_their_shares() -> None:
    assert tiers([0, 699, 700, 799, 800, 899, 900, 1200]) == [
        Tier.CALM,
        Tier.CALM,
        Tier.RELEASE,
        Tier.RELEASE,
        Tier.HALVE,
        Tier.HALVE,
        Tier.STOP,
        Tier.STOP,
    ]


def test_a_tier_is_left_only_well_below_where_it_began() -> None:
    assert tiers([900, 870, 869]) == [Tier.STOP, Tier.STOP, Tier.HALVE]
    assert tiers([900, 770, 769]) == [Tier.STOP, Tier.HALVE, Tier.RELEASE]
    assert tiers([900, 670, 669]) == [Tier.STOP, Tier.RELEASE, Tier.CALM]
    assert tiers([760, 799]) == [Tier.RELEASE, Tier.RELEASE], "what was not entered has no hysteresis"


@given(st.lists(st.integers(0, 1200), max_size=40))
def test_the_tier_is_that_of_the_use_or_the_one_before_while_use_is_near_it(uses: list[int]) -> None:
    pressure = Pressure(TOTAL)
    for used in uses:
        before = pressure.tier
        tier = pressure.see(using(used))
        plain = Tier(sum(used >= start for start in (700, 800, 900)))
        later = Tier(sum(used + HYSTERESIS * TOTAL >= start for start in (700, 800, 900)))
        assert tier == max(plain, min(before, later))


@given(st.lists(st.integers(0, 1200), max_size=40))
def test_entering_a_tier_counts_once(uses: list[int]) -> None:
    pressure = Pressure(TOTAL)
    seen = [Tier.CALM] + [pressure.see(using(used)) for used in uses]
    for tier, counted in ((Tier.HALVE, pressure.counters.halvings), (Tier.STOP, pressure.counters.stops)):
        inside = [each >= tier for each in seen]
        assert counted == sum(now and not before for before, now in pairwise(inside))


def test_one_leap_to_the_top_counts_for_every_tier_that_it_enters() -> None:
    pressure = Pressure(TOTAL)
    for used in (950, 950, 100, 950):
        pressure.see(using(used))
    assert (pressure.counters.halvings, pressure.counters.stops) == (2, 2)


@given(st.integers(0, 1200), st.integers(0, 2000))
def test_what_other_processes_take_makes_the_budget_smaller(used: int, free: int) -> None:
    tier = Pressure(TOTAL).see(using(used, free=free))
    within = min(TOTAL, used + free)
    assert tier == Tier(sum(used >= share * within for share in (0.7, 0.8, 0.9)))


def test_a_device_that_others_fill_up_is_full_even_for_who_uses_little() -> None:
    assert Pressure(TOTAL).see(using(100, free=0)) is Tier.STOP
    assert Pressure(TOTAL).see(using(0, free=0)) is Tier.STOP


@pytest.mark.parametrize("used", [100, 750, 850, 950])
@pytest.mark.parametrize("limit", [1, 2, 7, 64])
def test_batches_are_halved_from_the_second_tier_on_and_never_empty(used: int, limit: int) -> None:
    pressure = Pressure(TOTAL)
    halved = pressure.see(using(used)) >= Tier.HALVE
    assert pressure.batch_limit(limit) == (max(1, limit // 2) if halved else limit)


def test_caches_worth_it_are_released_from_the_first_tier_on() -> None:
    worth = int(WORTH_RELEASING * TOTAL)
    assert not Pressure(TOTAL).should_release(using(699, cached=600), 0.0)
    assert not Pressure(TOTAL).should_release(using(700, cached=worth - 1), 0.0)
    pressure = Pressure(TOTAL)
    assert pressure.should_release(using(700, cached=worth), 0.0)
    assert pressure.counters.releases == 1


def test_in_the_first_tier_caches_are_released_no_more_often_than_once_a_second() -> None:
    pressure = Pressure(TOTAL)
    released = [at / 8 for at in range(33) if pressure.should_release(using(750, cached=200), at / 8)]
    assert released == [0.0, RELEASE_SECONDS, 2 * RELEASE_SECONDS, 3 * RELEASE_SECONDS, 4 * RELEASE_SECONDS]
    assert pressure.counters.releases == 5


def test_above_it_they_are_released_after_every_batch() -> None:
    pressure = Pressure(TOTAL)
    assert [pressure.should_release(using(850, cached=200), at / 8) for at in range(4)] == [True] * 4


def test_asking_whether_to_release_changes_no_tier() -> None:
    pressure = Pressure(TOTAL)
    pressure.should_release(using(950, cached=500), 0.0)
    assert pressure.tier is Tier.CALM
    assert pressure.see(using(450)) is Tier.CALM
    assert pressure.counters.halvings == 0


@pytest.mark.parametrize("shares", [(0.8, 0.7, 0.9), (0.7, 0.9, 0.8), (0.0, 0.5, 0.9), (0.7, 0.8, 1.1)])
def test_tiers_that_do_not_rise_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="tiers must rise"):
        Pressure(TOTAL, shares)


def test_tiers_may_be_set() -> None:
    pressure = Pressure(TOTAL, (0.3, 0.5, 0.5))
    assert pressure.see(using(300)) is Tier.RELEASE
    assert pressure.see(using(500)) is Tier.STOP
