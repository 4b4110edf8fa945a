"""Properties of the turns that models take: nobody is held back for ever, and changes do not take the time."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.residency import WORTH, Residency
from engine.scheduler import Scheduler, Waiting

ROLES = ("image", "speech", "text", "voice")
BATCH = 4
FOREVER_SECONDS = 10_000  # none of the simulations here takes half of it
NOTHING = Waiting(0, 0, float("inf"))


def queue(items: int = 0, oldest_seconds: float = 0.0) -> Waiting:
    return Waiting(items, items, oldest_seconds) if items else NOTHING


# --- a device for fewer models than there are -------------------------------------------------------------------------


class Ran(NamedTuple):
    """One batch of the simulated device."""

    start_seconds: int
    end_seconds: int  # of the change, if there was one, and the batch
    change_seconds: int  # part of it in which a model came in; 0: it was there
    interrupted: bool  # residents had work when the model came in
    items: list[int]


class Rig(NamedTuple):
    """What is drawn by hypothesis. All times are whole seconds, so that sums are exact."""

    arrivals: list[tuple[int, str]]  # (seconds since the one before, role)
    room: int  # models that fit together
    prices: list[int]  # seconds of each change, in turn
    durations: list[int]  # seconds of each batch, in turn
    max_turn: int
    max_delay: int
    max_age: int

    def arrived(self) -> list[int]:
        """When each item arrives."""
        return [sum(wait for wait, _ in self.arrivals[: number + 1]) for number in range(len(self.arrivals))]


rigs = st.builds(
    Rig,
    arrivals=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(ROLES)), min_size=1, max_size=60),
    room=st.integers(1, 3),
    prices=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    durations=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    max_turn=st.integers(1, 20),
    max_delay=st.integers(0, 3),
    max_age=st.integers(1, 8),
)


class Turns:
    """Scheduler and residency on a clock of whole seconds, put together as `engine.gate` and `engine.turns` do it."""

    def __init__(self, rig: Rig, hurry: bool = False) -> None:
        self.rig, self.hurry = rig, hurry
        self.arrived = rig.arrived()
        self.residency = Residency(rig.max_turn, set(ROLES[: rig.room]))
        self.scheduler: Scheduler[int] = Scheduler(
            dict.fromkeys(ROLES, "any"), lambda role, length: BATCH, rig.max_delay, rig.max_age
        )
        self.ran: list[Ran] = []

    def run(self) -> list[Ran]:
        """Until everything has run; a second passes when nothing may."""
        now = came = 0
        while came < len(self.arrived) or len(self.scheduler):
            while came < len(self.arrived) and self.arrived[came] <= now:
                self.scheduler.append(self.rig.arrivals[came][1], came, 1, self.arrived[came])
                came += 1
            now = self.step(now) or now + 1
            assert now < FOREVER_SECONDS, "somebody is held back for ever"
        return self.ran

    def step(self, now: int) -> int | None:
        """When the batch that may run now is done; None when there is none."""
        ready, waiting = self.scheduler.ready_roles(now), self.scheduler.waiting_by_role()
        held = self.residency.held_back(waiting, ready, now, self.hurry)
        assert not held & self.residency.resident
        batch = self.scheduler.next_batch(now, held)
        if batch is None:
            return None
        price = 0
        interrupted = bool(ready & self.residency.resident)
        if batch.role not in self.residency.resident:
            price = self.rig.prices[self.residency.changes % len(self.rig.prices)]
            full = len(self.residency.resident) == self.rig.room
            sizes = dict.fromkeys(ROLES, 1)
            victims = self.residency.victims(batch.role, 1 if full else 0, sizes, waiting)
            self.residency.changed(batch.role, victims, now + price, price)
            assert len(self.residency.resident) <= self.rig.room
        seconds = self.rig.durations[len(self.ran) % len(self.rig.durations)]
        self.residency.worked(batch.role, len(batch.items), seconds)
        self.ran.append(Ran(now, now + price + seconds, price, interrupted, batch.items))
        return now + price + seconds


@given(rigs, st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_item_waits_for_its_model_longer_than_the_bound(rig: Rig, hurry: bool) -> None:
    """Theorem: when an item has waited for max_turn (max_delay, max_age), then for each item that still waits and came
    no later, and once more, at most this goes by: a change, the turn that pays for it, and two batches.
    """
    turns = Turns(rig, hurry)
    started = {item: batch.start_seconds for batch in turns.run() for item in batch.items}
    assert sorted(started) == list(range(len(rig.arrivals)))
    each = (1 + WORTH) * max(rig.prices) + 2 * max(rig.durations)
    for item, start in started.items():
        overdue = turns.arrived[item] + max(rig.max_turn, rig.max_delay, rig.max_age)
        ahead = [
            other
            for other in started
            if other != item and started[other] >= overdue and turns.arrived[other] <= turns.arrived[item]
        ]
        assert start <= overdue + (len(ahead) + 1) * each


@given(rigs, st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_change_that_interrupts_others_comes_after_those_before_have_been_paid_for(rig: Rig, hurry: bool) -> None:
    """So that of the time in which those on the device have work, changes take at most 1 / (1 + WORTH)."""
    changes = [batch for batch in Turns(rig, hurry).run() if batch.change_seconds]
    for before, after in combinations(changes, 2):
        if after.interrupted:
            since_seconds = after.start_seconds - (before.start_seconds + before.change_seconds)
            assert since_seconds >= WORTH * before.change_seconds


@pytest.mark.parametrize("prices", [[1], [0, 5], [10, 1, 1]])
def test_when_everybody_always_has_work_changes_take_a_ninth_of_the_time_and_all_get_their_turn(
    prices: list[int],
) -> None:
    arrivals = [(0 if number % 3 else 1, ROLES[number % 3]) for number in range(3000)]  # more than can be done
    rig = Rig(arrivals, 1, prices, [2], max_turn=30, max_delay=0, max_age=5)
    ran = Turns(rig).run()
    busy = [batch for batch in ran if batch.start_seconds < 1000]
    changing = sum(batch.change_seconds for batch in busy)
    assert changing <= (busy[-1].end_seconds + max(prices) * WORTH) / (1 + WORTH)
    assert {ROLES[batch.items[0] % 3] for batch in busy} == set(ROLES[:3])


def test_two_models_that_change_cheaply_do_not_keep_out_a_third_that_is_dear() -> None:
    """Every change begins a turn that pays for itself; it need not pay for the change that ends it."""
    residency = Residency(10.0, {"image"})
    residency.changed("speech", ["image"], 0.0, 20.0)  # the price of speech is known, and high
    waiting = {"image": queue(9), "text": queue(9), "speech": queue(9)}
    now = 1000.0
    for role, other in (("image", "speech"), ("text", "image"), ("image", "text")):
        residency.changed(role, [other], now, 0.5)
        now += WORTH * 0.5
        assert "speech" not in residency.held_back(waiting, ["image", "text", "speech"], now, hurry=False)


# --- who may come in --------------------------------------------------------------------------------------------------


def known() -> Residency:
    """Image is here; a change to voice takes a second, an item of it a tenth."""
    residency = Residency(30.0, {"voice"})
    residency.changed("image", ["voice"], 0.0, 2.0)
    residency.changed("voice", ["image"], 50.0, 1.0)
    residency.changed("image", ["voice"], 100.0, 2.0)
    residency.worked("voice", 10, 1.0)
    return residency


def held(residency: Residency, waiting: Mapping[str, Waiting], now: float, *ready: str, hurry: bool = False) -> bool:
    return "voice" in residency.held_back(waiting, ready, now, hurry)


def test_who_is_here_is_never_held_back() -> None:
    waiting = {"image": queue(5), "voice": queue(5)}
    assert known().held_back(waiting, ["image", "voice"], 101.0, hurry=False) == {"voice"}


def test_while_those_here_have_work_nobody_comes_in_but_who_has_waited_too_long() -> None:
    waiting = {"image": queue(5), "voice": queue(1000, oldest_seconds=100.0)}
    assert held(known(), waiting, 129.9, "image")
    assert held(known(), waiting, 129.9, "image", hurry=True)
    assert not held(known(), waiting, 130.0, "image")


def test_and_not_before_the_change_has_been_paid_for() -> None:
    waiting = {"image": queue(5), "voice": queue(5, oldest_seconds=0.0)}
    assert held(known(), waiting, 100.0 + WORTH * 2.0 - 0.1, "image")
    assert not held(known(), waiting, 100.0 + WORTH * 2.0, "image")


def test_a_cheap_change_does_not_end_the_turn_that_pays_for_a_dear_one() -> None:
    residency = known()
    residency.changed("text", ["image"], 101.0, 0.0)
    waiting = {"text": queue(5), "voice": queue(5, oldest_seconds=0.0)}
    assert held(residency, waiting, 100.0 + WORTH * 2.0 - 0.1, "text")


def test_when_those_here_have_none_the_work_must_be_worth_the_change() -> None:
    for items, comes in ((79, False), (80, True)):  # a tenth of a second each, and a change takes one
        waiting = {"image": NOTHING, "voice": queue(items, oldest_seconds=100.0)}
        assert held(known(), waiting, 101.0, "voice") is not comes


def test_or_nothing_more_is_to_come_or_it_has_waited_too_long() -> None:
    waiting = {"image": NOTHING, "voice": queue(1, oldest_seconds=100.0)}
    assert held(known(), waiting, 101.0)
    assert not held(known(), waiting, 101.0, hurry=True)
    assert not held(known(), waiting, 130.0)


def test_a_model_for_which_nothing_waits_stays_away() -> None:
    assert held(known(), {"image": NOTHING, "voice": NOTHING}, 1000.0, hurry=True)


def test_a_model_of_unknown_price_comes_in_when_nobody_else_has_work() -> None:
    residency = Residency(30.0, {"image"})
    waiting = {"image": queue(5), "voice": queue(1)}
    assert held(residency, waiting, 1.0, "image")
    assert not held(residency, waiting, 1.0)


def test_a_model_that_was_taken_off_may_be_held_back() -> None:
    residency = known()
    residency.parked("image")
    assert residency.resident == set()
    assert residency.held_back({"image": queue(1, 100.0)}, [], 101.0, hurry=False) == {"image"}


def test_changes_are_counted() -> None:
    residency = known()
    assert residency.changes == 3
    assert residency.change_seconds == 5.0
    assert residency.resident == {"image"}


def test_what_an_item_takes_is_smoothed() -> None:
    residency = known()
    residency.worked("voice", 10, 101.0)  # one slow batch: 10.1 s for an item, instead of 0.1
    waiting = {"image": NOTHING, "voice": queue(4, oldest_seconds=100.0)}
    assert not held(residency, waiting, 101.0), "0.8 · 0.1 + 0.2 · 10.1 = 2.1 s for each of four"
    assert held(residency, {**waiting, "voice": queue(3, oldest_seconds=100.0)}, 101.0)


# --- who makes way ----------------------------------------------------------------------------------------------------


@given(
    st.frozensets(st.sampled_from(ROLES)),
    st.integers(-5, 50),
    st.fixed_dictionaries({role: st.integers(0, 20) for role in ROLES}),
    st.fixed_dictionaries({role: st.integers(0, 5) for role in ROLES}),
)
def test_victims_give_enough_and_none_too_many(
    resident: frozenset[str], need: int, sizes: dict[str, int], items: dict[str, int]
) -> None:
    residency = Residency(1.0, set(resident))
    for role in ROLES:
        residency.worked(role, 1, 1.0)
    victims = residency.victims("image", need, sizes, {role: queue(count) for role, count in items.items()})
    others = resident - {"image"}
    given_back = sum(sizes[victim] for victim in victims)
    assert len(set(victims)) == len(victims)
    assert set(victims) <= others
    assert residency.resident == resident, "it is only said"
    if sum(sizes[other] for other in others) < need:
        assert set(victims) == others, "all, when even that is too little"
    else:
        assert given_back >= need or not victims
        assert given_back >= need or need <= 0
        assert all(given_back - sizes[victim] < need for victim in victims), "none of them in vain"


def test_those_with_least_work_make_way_first_and_of_equals_the_largest() -> None:
    residency = Residency(1.0, {"image", "speech", "text"})
    residency.worked("image", 1, 0.1)
    residency.worked("speech", 1, 5.0)
    waiting = {"image": queue(10), "speech": queue(1), "text": queue(1)}
    sizes = {"image": 10, "speech": 10, "text": 10}
    assert residency.victims("voice", 5, sizes, waiting) == ["text"], "nothing is known of it"
    assert residency.victims("voice", 15, sizes, waiting) == ["text", "image"], "1 s of work against 5 s"
    assert residency.victims("voice", 5, {**sizes, "speech": 20}, {}) == ["speech"]


def test_a_model_does_not_make_way_for_itself() -> None:
    assert Residency(1.0, {"image"}).victims("image", 100, {"image": 1000}, {}) == []
