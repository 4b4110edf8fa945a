"""Properties of the cost model and the budget: what is admitted fits, and what failed is not tried again at once."""

import random
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.budget import (
    FIRST_MARGIN,
    FORGET,
    GIB,
    GROW_AFTER,
    LEAST_MARGIN,
    Budget,
    CostModel,
    length_class,
    power_of_two,
    total_bytes,
)
from engine.device import Reading

MIB = 1024**2
ROOM = 1 << 40

Truth = Callable[[int, int], int]  # (items, length of the longest) → bytes that they really take

sizes = st.tuples(st.integers(1, 256), st.integers(0, 200))  # of a batch: items, length
observations = st.lists(st.tuples(sizes, st.integers(0, 10**9)), max_size=25)
events = st.lists(st.tuples(st.booleans(), sizes, st.integers(0, 10**9)), max_size=25)  # (went well, size, bytes)
truths = st.builds(
    lambda fixed, linear, square: lambda count, length: fixed + count * (linear * length + square * length**2),
    fixed=st.integers(0, 10**6),
    linear=st.integers(0, 10**4),
    square=st.integers(0, 100),
)


def learned(history: list[tuple[bool, tuple[int, int], int]]) -> CostModel:
    """A cost model after any history, contradictory ones included."""
    cost = CostModel()
    for went_well, (count, length), bytes_ in history:
        if went_well:
            cost.observe(count, length, bytes_)
        else:
            cost.ran_out(count, length, bytes_)
    return cost


def calibrated(truth: Truth, length: int, most: int = 512) -> CostModel:
    """As `engine.calibration.probe` leaves it."""
    cost, count = CostModel(), 1
    while count <= most:
        cost.observe(count, length, truth(count, length))
        count *= 2
    return cost


def predicted(cost: CostModel, count: int, length: int) -> int:
    """`predict`, where something is known."""
    found = cost.predict(count, length)
    assert found is not None
    return found


# --- what a batch will take -------------------------------------------------------------------------------------------


@given(events, st.integers(0, 200), st.lists(st.integers(1, 600), min_size=2, max_size=6))
def test_more_items_never_take_less(
    history: list[tuple[bool, tuple[int, int], int]], length: int, counts: list[int]
) -> None:
    cost = learned(history)
    assume(cost.rows)
    found = [predicted(cost, count, length) for count in sorted(counts)]
    assert found == sorted(found)


@given(events, sizes, st.integers(0, 10**9), st.integers(0, 300), st.integers(0, 200))
def test_a_prediction_is_never_below_the_latest_measurement(
    history: list[tuple[bool, tuple[int, int], int]], size: tuple[int, int], peak: int, more: int, longer: int
) -> None:
    cost = learned(history)
    cost.observe(*size, peak)
    assert predicted(cost, size[0] + more, size[1] + longer) >= peak


@given(truths, st.lists(st.tuples(sizes, st.integers(0, 1 << 33)), min_size=1, max_size=25))
def test_what_was_measured_once_is_never_forgotten_while_it_stays_true(
    truth: Truth, attempts: list[tuple[tuple[int, int], int]]
) -> None:
    cost, measured = CostModel(), []
    for (count, length), room in attempts:
        if truth(count, length) > room:
            cost.ran_out(count, length, room)
        else:
            cost.observe(count, length, truth(count, length))
            measured.append((count, length))
    for count, length in measured:
        for more, longer in [*measured, (count, length), (count + 1, length), (count, 2 * length)]:
            if more >= count and longer >= length:
                assert predicted(cost, more, longer) >= truth(count, length)


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 512))
def test_costs_that_grow_by_a_line_are_not_underestimated_and_hit_after_two_measurements(
    fixed: int, each: int, count: int
) -> None:
    cost = CostModel()
    cost.observe(1, 100, fixed + each)
    assert cost.expect(count, 100) == count * (fixed + each), "one point says no more than: in proportion"
    cost.observe(2, 100, fixed + 2 * each)
    assert cost.expect(max(2, count), 100) == fixed + max(2, count) * each


def test_between_two_measurements_the_larger_bounds_and_so_does_proportion() -> None:
    cost = CostModel()
    cost.observe(4, 0, 400)
    cost.observe(64, 0, 2000)
    assert cost.expect(5, 0) == 500
    assert cost.expect(32, 0) == 2000
    assert cost.expect(3, 0) == 400


def test_longer_items_bound_shorter_ones_and_shorter_ones_are_scaled_up() -> None:
    cost = CostModel()
    assert cost.expect(1, 10) is None
    assert cost.predict(1, 10) is None
    cost.observe(8, 100, 800)
    assert cost.expect(8, 3) == 800
    assert cost.expect(8, 400) == 3200
    cost.observe(8, 50, 500)
    assert cost.expect(8, 40) == 500


def test_a_flat_stretch_of_longer_items_does_not_hide_what_shorter_ones_took() -> None:
    """Workspaces and the driver's blocks make the first batches equal: their line is flat, and no bound."""
    cost = CostModel()
    cost.observe(1, 200, 2 * MIB)
    cost.observe(2, 200, 2 * MIB)
    cost.observe(64, 100, 60 * MIB)
    assert cost.expect(64, 100) == 60 * MIB
    assert cost.expect(64, 200) == 60 * MIB, "and longer ones take no less than shorter ones"


@given(st.integers(0, 10**6))
def test_lengths_of_a_class_are_within_twofold(length: int) -> None:
    kind = length_class(length)
    assert length_class(2 * length) <= kind + 1
    assert length <= 1 or 1 << (kind - 1) < length <= 1 << kind


# --- how many may go --------------------------------------------------------------------------------------------------


@given(events, st.integers(0, 300), st.integers(0, 10**10), st.integers(1, 600))
def test_the_most_is_a_power_of_two_that_fits(
    history: list[tuple[bool, tuple[int, int], int]], length: int, room: int, limit: int
) -> None:
    cost = learned(history)
    most = cost.most(length, room, limit)
    if not cost.rows:
        assert most == 1, "nothing is known: one item tells"
    elif most == 0:
        assert predicted(cost, 1, length) > room
    else:
        assert power_of_two(most) == most <= limit
        assert predicted(cost, most, length) <= room
        fewest_proven = cost.most(length, ROOM * 1000, limit)
        assert most == fewest_proven or predicted(cost, 2 * most, length) > room, "and no more would"


@given(observations, st.integers(0, 300), st.integers(1, 2000))
def test_no_more_than_twice_what_went_well(
    measured: list[tuple[tuple[int, int], int]], length: int, limit: int
) -> None:
    """In items; in items times length where only batches of shorter classes went well."""
    cost, proven = CostModel(), 0
    for (count, longest), bytes_ in measured:
        cost.observe(count, longest, bytes_)
        as_long = length_class(longest) >= length_class(length)
        proven = max(proven, count if as_long else count * longest // max(1, length))
    assert cost.most(length, ROOM, limit) <= max(1, 2 * proven)


@given(events, sizes, st.integers(0, 10**9), st.integers(0, 200), st.data())
def test_what_ran_out_is_not_tried_again_with_as_little(
    history: list[tuple[bool, tuple[int, int], int]], size: tuple[int, int], room: int, longer: int, data: st.DataObject
) -> None:
    cost, (count, length) = learned(history), size
    cost.ran_out(count, length, room)
    less = data.draw(st.integers(0, room))
    known = bool(cost.rows)
    assert cost.most(length, less, 1024) < count or (count == 1 and not known)
    assert cost.most(length + longer, less, 1024) < count or (count == 1 and not known)


@given(sizes, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_failure_refutes_what_says_that_it_fits_and_nothing_else(size: tuple[int, int], room: int, peak: int) -> None:
    cost, (count, length) = CostModel(), size
    cost.observe(count, length, peak)
    cost.observe(2 * count, 3 * length + 3, peak)
    cost.observe(count, length // 3, peak)
    if count > 1:
        cost.observe(count // 2, length, peak)
    cost.ran_out(count, length, room)
    left = {(n, cell.length) for row in cost.rows.values() for n, cell in row.items()}
    refuted = {(count, length), (2 * count, 3 * length + 3)} if peak <= room else set()
    if length_class(length // 3) != length_class(length):
        assert (count, length // 3) in left
    if count > 1:
        assert (count // 2, length) in left
    assert not left & refuted
    assert peak <= room or {(2 * count, 3 * length + 3)} <= left


def test_room_that_grows_byte_by_byte_is_not_tried_byte_by_byte() -> None:
    cost = calibrated(lambda count, length: 100 * count, 10, most=8)
    cost.ran_out(8, 10, 10_000)
    assert cost.most(10, 10_001, 8) == 4
    assert cost.most(10, int(10_001 * (1 + cost.margin)), 8) == 4
    assert cost.most(10, 20_000, 8) == 8


def test_a_failure_with_less_room_does_not_replace_one_with_more() -> None:
    cost = calibrated(lambda count, length: 100 * count, 10, most=8)
    cost.ran_out(8, 10, 10_000)
    cost.ran_out(8, 10, 5000)
    assert cost.most(10, 9000, 8) == 4


def test_a_ceiling_is_forgotten_after_many_good_batches_below_it() -> None:
    cost = calibrated(lambda count, length: 100 * count, 10, most=16)
    cost.ran_out(16, 10, ROOM)
    for _ in range(GROW_AFTER - 1):
        cost.observe(8, 10, 800)
        cost.observe(2, 10, 200)  # says nothing about sixteen
    assert cost.most(10, ROOM, 64) == 8
    cost.observe(8, 10, 800)
    assert cost.most(10, ROOM, 64) == 16
    assert not cost.failures


def test_a_ceiling_of_short_items_is_forgotten_after_good_batches_of_longer_ones() -> None:
    cost = calibrated(lambda count, length: 100 * count, 100, most=16)
    cost.ran_out(16, 10, ROOM)  # short items that come about no more
    assert cost.most(100, ROOM, 16) == 8
    for _ in range(GROW_AFTER):
        cost.observe(8, 100, 800)
    assert cost.most(100, ROOM, 16) == 16


def test_another_failure_begins_the_count_anew() -> None:
    cost = calibrated(lambda count, length: 100 * count, 10, most=16)
    cost.ran_out(16, 10, ROOM)
    for _ in range(GROW_AFTER - 1):
        cost.observe(8, 10, 800)
    cost.ran_out(16, 10, ROOM)
    cost.observe(8, 10, 800)
    assert cost.most(10, ROOM, 16) == 8


def test_a_failure_is_forgotten_when_such_a_batch_goes_well() -> None:
    cost = calibrated(lambda count, length: 100 * count, 10, most=16)
    cost.ran_out(8, 10, 5000)
    cost.ran_out(16, 10, 5000)
    cost.observe(8, 10, 800)
    assert cost.failures == {length_class(10): {16: 5000}}


# --- margin and correction --------------------------------------------------------------------------------------------


def test_the_margin_shrinks_with_evidence_and_grows_after_an_underestimate() -> None:
    cost = CostModel()
    assert cost.margin == FIRST_MARGIN
    margins = []
    for _ in range(200):
        cost.observe(4, 10, 1000)
        margins.append(cost.margin)
    assert margins == sorted(margins, reverse=True)
    assert margins[0] == FIRST_MARGIN
    assert margins[-1] == LEAST_MARGIN
    assert cost.predict(4, 10) == 1050
    cost.observe(4, 10, 1049)
    assert cost.evidence == 201, "within the margin: no reason for distrust"
    for peak in (2000, 4000):
        cost.observe(4, 10, peak)
    assert cost.evidence == (201 // 4 + 1) // 4 + 1
    assert cost.margin > LEAST_MARGIN


@given(events, sizes, st.integers(0, 10**9))
def test_running_out_widens_the_margin(
    history: list[tuple[bool, tuple[int, int], int]], size: tuple[int, int], room: int
) -> None:
    cost = learned(history)
    before = cost.margin
    cost.ran_out(*size, room)
    assert before <= cost.margin <= FIRST_MARGIN


def test_evidence_counts_for_a_quarter_after_running_out() -> None:
    cost = CostModel()
    for _ in range(100):
        cost.observe(4, 10, 1000)
    cost.ran_out(8, 10, 1500)
    assert cost.evidence == 25


def test_small_batches_say_nothing_about_much_larger_ones() -> None:
    """On the CPU a small batch often fits into what the heap holds already, and seems to take nothing."""
    cost = CostModel()
    cost.observe(8, 10, 3200)
    for _ in range(100):
        cost.observe(2, 10, 0)
    assert cost.expect(8, 10) == 3200


def test_a_batch_that_takes_less_lowers_the_table_slowly() -> None:
    cost = CostModel()
    cost.observe(8, 10, 32_000)
    cost.observe(8, 10, 0)
    assert cost.expect(8, 10) == 32_000 - 32_000 // FORGET
    for _ in range(20 * FORGET):
        cost.observe(8, 10, 0)
    assert (cost.expect(8, 10) or 0) < FORGET


def test_shorter_items_that_take_less_say_nothing_about_longer_ones() -> None:
    cost = CostModel()
    cost.observe(8, 15, 1000)
    cost.observe(8, 10, 10)
    assert cost.expect(8, 15) == 1000


def test_longer_items_that_take_less_than_shorter_ones_are_not_scaled_up() -> None:
    cost = CostModel()
    cost.observe(8, 17, 3200)
    cost.observe(8, 32, 3200)
    assert cost.expect(8, 32) == 3200


def test_a_first_batch_that_took_what_is_taken_only_once_does_not_weigh_on_all_others() -> None:
    cost = CostModel()
    cost.observe(1, 10, 10_000)  # libraries load their kernels with the first batch
    for _ in range(10 * FORGET):
        cost.observe(8, 10, 800)
    assert (cost.expect(8, 10) or 0) < 800 + FORGET


@pytest.mark.parametrize("inflated", [8, 16, 64])
def test_a_measurement_far_too_high_does_not_keep_batches_small_for_ever(inflated: int) -> None:
    """Where only the driver tells, memory that another process took during the batch is in the measurement."""
    cost = calibrated(lambda count, length: 100 + 10 * count, 10, most=64)
    cost.observe(inflated, 10, 1_000_000)
    sizes = []
    for _ in range(2000):
        count = cost.most(10, 10_000, 64)
        cost.observe(count, 10, 100 + 10 * count)
        sizes.append(count)
    assert min(sizes) >= inflated // 2
    assert sizes[-1] == 64


# --- the whole loop: ask, run, learn ----------------------------------------------------------------------------------


class Card:
    """A room that varies, a model that takes what it truly takes, and a runner that halves what does not fit."""

    def __init__(self, truth: Truth, cost: CostModel, limit: int = 512) -> None:
        self.truth, self.cost, self.limit = truth, cost, limit
        self.out_of_memory = 0
        self.shares: list[float] = []  # of the largest batch that would have fitted

    def batch(self, length: int, room: int) -> None:
        most = self.cost.most(length, room, self.limit)
        best = max(n for n in (1 << bit for bit in range(10)) if n <= self.limit and self.truth(n, length) <= room)
        self.shares.append(most / best)
        self._attempt(max(1, most), length, room)

    def _attempt(self, count: int, length: int, room: int) -> None:
        bytes_ = self.cost.predict(count, length)
        if bytes_ is None or bytes_ <= room:
            assert bytes_ is not None or count == 1, "what nothing is known of goes one by one"
            if self.truth(count, length) <= room:
                self.cost.observe(count, length, self.truth(count, length))
                return
            self.out_of_memory += 1
            self.cost.ran_out(count, length, room)
        if count > 1:
            self._attempt(count // 2, length, room)
            self._attempt(count - count // 2, length, room)


TRUTHS: dict[str, Truth] = {
    "in proportion": lambda count, length: 10 * MIB * count * length // 64,
    "by a line": lambda count, length: 100 * MIB + 3 * MIB * count * length // 64,
    "by the square of the length": lambda count, length: (
        50 * MIB + MIB * count * length // 64 + count * length**2 * 256
    ),
    "in steps": lambda count, length: -(-3 * count * length // 1280) * 20 * MIB,
}
LENGTHS: dict[str, tuple[int, ...]] = {"one": (64,), "any": tuple(range(1, 129))}


def rooms(kind: str, source: random.Random, least: int, count: int) -> list[int]:
    """Room before each batch, in bytes; never less than `least`."""
    walk, found = 1000.0 * MIB, []
    for number in range(count):
        walk = min(4000.0 * MIB, max(200.0 * MIB, walk * source.uniform(0.93, 1.08)))
        room = {
            "steady": 2000 * MIB,
            "random": source.randint(200 * MIB, 4000 * MIB),
            "growing": (500 + 10 * number) * MIB,
            "wandering": int(walk),
        }[kind]
        found.append(max(least, room))
    return found


@pytest.mark.parametrize("room", ["steady", "random", "growing", "wandering"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("wrong", [1, 3])
def test_memory_runs_out_a_handful_of_times_and_not_every_time(truth: str, lengths: str, room: str, wrong: int) -> None:
    """Costs calibrated rightly, or at a third of the truth; 300 batches; `Card` admits what is predicted to fit."""
    longest = max(LENGTHS[lengths])
    for seed in range(2):
        source = random.Random(seed)
        cost = calibrated(lambda count, length: TRUTHS[truth](count, length) // wrong, longest)
        card = Card(TRUTHS[truth], cost)
        for bytes_ in rooms(room, source, TRUTHS[truth](1, longest), 300):
            card.batch(source.choice(LENGTHS[lengths]), bytes_)
        assert card.out_of_memory <= (3 if wrong == 1 else 8)
        assert sum(card.shares[-100:]) / 100 >= 0.6, "and not because batches stay small"


@given(
    st.integers(0, 200), st.integers(1, 20), st.integers(0, 3), st.sampled_from((1, 2, 3, 10)), st.integers(0, 10**6)
)
@settings(max_examples=40, deadline=None)
def test_few_failures_whatever_it_truly_costs(fixed: int, each: int, square: int, wrong: int, seed: int) -> None:
    def truth(count: int, length: int) -> int:
        return fixed * MIB + count * length * (each * MIB // 64 + square * MIB * length // 4096)

    source = random.Random(seed)
    card = Card(truth, calibrated(lambda count, length: truth(count, length) // wrong, 128))
    kind = source.choice(("steady", "random", "growing", "wandering"))
    for bytes_ in rooms(kind, source, truth(1, 128), 300):
        card.batch(source.randint(1, 128), bytes_)
    assert card.out_of_memory <= 20


def test_without_calibration_batches_grow_by_doubling() -> None:
    card = Card(TRUTHS["by a line"], CostModel())
    for _ in range(12):
        card.batch(64, 4000 * MIB)
    assert card.out_of_memory == 0
    assert card.shares == [2.0**-power for power in range(9, 0, -1)] + [1.0] * 3


# --- the budget of the process ----------------------------------------------------------------------------------------


def test_torchs_cache_is_room_for_torch_alone() -> None:
    budget = Budget(1000)
    assert budget.room_bytes(Reading(used_bytes=600, cached_bytes=150, free_bytes=9000), outside_torch=False) == 550
    assert budget.room_bytes(Reading(used_bytes=600, cached_bytes=150, free_bytes=9000), outside_torch=True) == 400


def test_there_is_no_more_room_than_the_driver_gives() -> None:
    budget = Budget(1000)
    assert budget.room_bytes(Reading(used_bytes=600, cached_bytes=150, free_bytes=10), outside_torch=False) == 160
    assert budget.room_bytes(Reading(used_bytes=600, cached_bytes=150, free_bytes=10), outside_torch=True) == 10


def test_cache_beyond_the_budget_is_room_as_far_as_the_budget_goes() -> None:
    budget = Budget(1000)
    assert budget.room_bytes(Reading(used_bytes=1200, cached_bytes=500, free_bytes=100), outside_torch=False) == 300
    assert budget.room_bytes(Reading(used_bytes=1200, cached_bytes=100, free_bytes=100), outside_torch=False) == 0


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000), st.booleans())
def test_using_the_room_stays_within_the_budget(used: int, cached: int, free: int, outside: bool) -> None:
    reading = Reading(used, min(used, cached), free)
    room = Budget(1000).room_bytes(reading, outside)
    in_use = used if outside else used - reading.cached_bytes
    assert room >= 0
    assert room == 0 or in_use + room <= 1000
    assert room == 0 or in_use + room <= used + free


def test_overhead_is_what_the_weights_do_not_explain() -> None:
    budget = Budget(1000)
    budget.add("image", 300)
    budget.add("text", 200)
    budget.see_overhead(420, ["image"])
    assert budget.overhead_bytes == 120
    budget.see_overhead(420, ["image", "text"])
    assert budget.overhead_bytes == 0


def test_each_model_has_a_cost_model_of_its_own() -> None:
    budget = Budget(1000)
    known = CostModel()
    known.observe(4, 0, 40)
    budget.add("image", 300, known)
    budget.add("text", 200)
    assert budget.most("image", 0, 1000, 4) == 4
    assert budget.most("image", 0, 5, 4) == 0
    assert budget.most("text", 0, 1000, 4) == 1


@given(st.integers(0, 100 * GIB), st.integers(0, 100 * GIB), st.none() | st.floats(0.1, 200), st.floats(0.01, 1))
def test_the_budget_is_what_was_asked_for_and_within_reach(
    used: int, free: int, memory_gb: float | None, share: float
) -> None:
    total = total_bytes(Reading(used, 0, free), memory_gb, share)
    assert 0 <= total <= used + free
    if memory_gb is not None:
        assert total == min(used + free, round(memory_gb * GIB))
    else:
        assert total == int((used + free) * share)
