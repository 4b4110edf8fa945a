"""Properties of the scheduler: nothing lost, nothing doubled, nothing forgotten, all within its limits and in time."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.scheduler import Batch, Grouping, Scheduler, batch_size

GROUPING: dict[str, Grouping] = {"image": "any", "speech": "any", "text": "near", "voice": "equal"}
ROLES = tuple(GROUPING)
LIMITS = {"image": 4, "speech": 2, "text": 5, "voice": 3}
EVERYTHING = frozenset(ROLES)

items = st.lists(
    st.tuples(st.sampled_from(ROLES), st.integers(1, 10_000), st.integers(0, 2), st.floats(0, 3)), max_size=60
)


def make(max_delay: float = 1.0, max_age: float = 5.0, max_batch_bytes: int = 1 << 62) -> Scheduler[int]:
    return Scheduler(GROUPING, lambda role, length: LIMITS[role], max_delay, max_age, max_batch_bytes)


def fill(scheduler: Scheduler[int], queued: list[tuple[str, int, int, float]], origin: float = 0.0) -> None:
    now = origin
    for number, (role, size, length, wait) in enumerate(queued):
        now += wait
        scheduler.append(role, number, size, now, length)


def drain(scheduler: Scheduler[int], now: float = 1e9) -> Iterator[Batch[int]]:
    while (batch := scheduler.next_batch(now)) is not None:
        yield batch


class Known(NamedTuple):
    """What the test knows of an item that it queued."""

    role: str
    host_bytes: int
    arrived_seconds: float
    length: int
    urgent: bool
    alone: bool


class SchedulerAgainstAModel(RuleBasedStateMachine):
    """Any sequence of arrivals, batches, limits and ends. The model is a dict of what waits, in order of arrival."""

    MAX_BYTES = 100
    DELAY = 2.0
    AGE = 6.0

    def __init__(self) -> None:
        super().__init__()
        self.base = dict.fromkeys(ROLES, 4)
        self.scheduler: Scheduler[int] = Scheduler(GROUPING, self.limit, self.DELAY, self.AGE, self.MAX_BYTES)
        self.waiting: dict[int, Known] = {}
        self.count = 0
        self.now = 0.0

    def limit(self, role: str, length: int) -> int:
        """Long items allow fewer; the base changes while items wait."""
        return max(1, self.base[role] // (1 + length // 3))

    @rule(
        role=st.sampled_from(ROLES),
        host_bytes=st.integers(0, 150),
        length=st.integers(0, 6),
        kind=st.sampled_from(("plain", "plain", "plain", "plain", "urgent", "alone")),
        wait=st.integers(0, 3),
    )
    def append(self, role: str, host_bytes: int, length: int, kind: str, wait: int) -> None:
        self.now += wait / 2
        urgent, alone = kind == "urgent", kind == "alone"
        self.scheduler.append(role, self.count, host_bytes, self.now, length, urgent=urgent, alone=alone)
        self.waiting[self.count] = Known(role, host_bytes, self.now, length, urgent, alone)
        self.count += 1

    @rule(role=st.sampled_from(ROLES), base=st.integers(1, 9))
    def change_limit(self, role: str, base: int) -> None:
        self.base[role] = base

    @rule(ended=st.booleans())
    def end(self, ended: bool) -> None:
        self.scheduler.ended = ended

    @rule(wait=st.integers(0, 4), blocked=st.frozensets(st.sampled_from(ROLES), max_size=3))
    def take(self, wait: int, blocked: frozenset[str]) -> None:
        self.now += wait / 2
        ready = self.ready_lanes(blocked)
        batch = self.scheduler.next_batch(self.now, blocked)
        if batch is None:
            assert not ready
            assert not any(item.urgent for item in self.waiting.values())
            return
        self.check_batch(batch)
        if batch.urgent:
            self.check_urgent(batch)
        else:
            assert not any(item.urgent for item in self.waiting.values()), "queries go ahead of all"
            self.check_choice(batch, ready)
        for item in batch.items:
            del self.waiting[item]  # KeyError: it came out twice, or never went in

    def check_batch(self, batch: Batch[int]) -> None:
        """Within every limit."""
        known = [self.waiting[item] for item in batch.items]
        assert len(set(batch.items)) == len(batch.items) >= 1
        assert {item.role for item in known} == {batch.role}
        assert batch.length == max(item.length for item in known)
        limit = self.limit(batch.role, batch.length)
        assert len(known) <= limit
        assert len(known) == limit or len(known) & (len(known) - 1) == 0, "batches are of few sizes"
        assert len(known) == 1 or sum(item.host_bytes for item in known) <= self.MAX_BYTES
        assert len(known) == 1 or not any(item.alone for item in known)
        assert GROUPING[batch.role] != "equal" or len({item.length for item in known}) == 1

    def check_urgent(self, batch: Batch[int]) -> None:
        urgent = [number for number, item in self.waiting.items() if item.urgent]
        assert set(batch.items) <= set(urgent), "queries share a batch with queries only"
        assert min(self.waiting[number].arrived_seconds for number in urgent) == min(
            self.waiting[number].arrived_seconds for number in batch.items
        ), "the oldest query goes first"

    def lanes(self) -> dict[tuple[str, object], list[int]]:
        """Items in order of arrival, by the queue that they wait in."""
        lanes: dict[tuple[str, object], list[int]] = defaultdict(list)
        for number, item in self.waiting.items():
            if not item.urgent:
                own = ("alone", number) if item.alone else item.length if GROUPING[item.role] == "equal" else None
                lanes[item.role, own].append(number)
        return lanes

    def ready_lanes(self, blocked: frozenset[str]) -> list[list[int]]:
        ready = []
        for (role, _), lane in self.lanes().items():
            first = self.waiting[lane[0]]
            full = len(lane) >= self.limit(role, first.length)
            full |= sum(self.waiting[number].host_bytes for number in lane) >= self.MAX_BYTES
            aged = self.now >= first.arrived_seconds + self.DELAY
            if role not in blocked and (full or aged or self.scheduler.ended):
                ready.append(lane)
        return ready

    def check_choice(self, batch: Batch[int], ready: list[list[int]]) -> None:
        """It is of a ready queue, holds its oldest, and that queue was the one to go."""
        lane = next(lane for lane in ready if batch.items[0] in lane)
        assert set(batch.items) <= set(lane)
        assert lane[0] in batch.items, "every batch holds the oldest item of its queue"
        if GROUPING[batch.role] != "near":
            assert batch.items == lane[: len(batch.items)], "first in, first out"
        fronts = [self.waiting[each[0]].arrived_seconds for each in ready]
        if self.now - min(fronts) >= self.AGE:
            assert self.waiting[lane[0]].arrived_seconds == min(fronts), "the oldest goes when it is overdue"
        else:
            most = max(self.bytes_of(self.waiting[each[0]].role) for each in ready)
            assert self.bytes_of(batch.role) == most, "the model that holds most host bytes goes first"

    def bytes_of(self, role: str) -> int:
        return sum(item.host_bytes for item in self.waiting.values() if item.role == role)

    @invariant()
    def counters_agree(self) -> None:
        assert len(self.scheduler) == len(self.waiting)
        for role in ROLES:
            own = [item for item in self.waiting.values() if item.role == role]
            oldest = min((item.arrived_seconds for item in own), default=float("inf"))
            assert self.scheduler.queued_items(role) == len(own)
            assert self.scheduler.queued_bytes(role) == self.bytes_of(role)
            assert self.scheduler.waiting(role) == (len(own), self.bytes_of(role), oldest)
        assert self.scheduler.waiting_by_role() == {role: self.scheduler.waiting(role) for role in ROLES}
        assert self.scheduler.urgent_roles() == {item.role for item in self.waiting.values() if item.urgent}
        ready = self.ready_lanes(frozenset())
        assert self.scheduler.ready_roles(self.now) == {self.waiting[lane[0]].role for lane in ready}

    @invariant()
    def deadline_agrees(self) -> None:
        plain = [item for item in self.waiting.values() if not item.urgent and item.role != "image"]
        oldest = min((item.arrived_seconds for item in plain), default=None)
        deadline = self.scheduler.next_deadline_seconds(frozenset({"image"}))
        assert deadline == (None if oldest is None else oldest + self.DELAY)

    def teardown(self) -> None:
        """Whatever was done to it, all that is left comes out."""
        self.scheduler.ended = True
        for batch in drain(self.scheduler):
            self.check_batch(batch)
            for item in batch.items:
                del self.waiting[item]
        assert not self.waiting
        assert len(self.scheduler) == 0
        assert not self.scheduler._lanes, "empty queues do not pile up"


TestSchedulerAgainstAModel = SchedulerAgainstAModel.TestCase
TestSchedulerAgainstAModel.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)


# --- how long an item waits -------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    """One batch of a simulated device."""

    start_seconds: int
    end_seconds: int
    items: list[int]


Arrivals = list[tuple[int, str, int, int]]  # (seconds since the one before, role, host bytes, length)

arrivals_strategy = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(ROLES), st.integers(1, 1000), st.integers(1, 3)),
    min_size=1,
    max_size=50,
)


def simulate(
    arrivals: Arrivals, delay: int, age: int, durations: list[int], limits: list[int]
) -> tuple[list[int], list[Ran]]:
    """A device that runs one batch after the other, as long as something is ready. Returns when each item arrived,
    and what ran when. Limits change from batch to batch.
    """
    ran: list[Ran] = []
    scheduler: Scheduler[int] = Scheduler(
        GROUPING, lambda role, length: limits[len(ran) % len(limits)], delay, age, max_batch_bytes=1500
    )
    arrived = [sum(wait for wait, *_ in arrivals[: number + 1]) for number in range(len(arrivals))]
    now = came = 0
    while came < len(arrivals) or len(scheduler):
        while came < len(arrivals) and arrived[came] <= now:
            _, role, host_bytes, length = arrivals[came]
            scheduler.append(role, came, host_bytes, arrived[came], length)
            came += 1
        batch = scheduler.next_batch(now)
        if batch is not None:
            end = now + durations[len(ran) % len(durations)]
            ran.append(Ran(now, end, batch.items))
            now = end
            continue
        deadline = scheduler.next_deadline_seconds()
        due = [int(deadline)] if deadline is not None else []
        now = min(due + ([arrived[came]] if came < len(arrivals) else []))
    return arrived, ran


@given(
    arrivals_strategy,
    st.integers(0, 6),
    st.integers(1, 12),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_no_item_waits_longer_than_the_bound(
    arrivals: Arrivals, delay: int, age: int, durations: list[int], limits: list[int]
) -> None:
    """Theorem: from max(delay, age) after its arrival on, the device is never idle before an item's batch begins, and
    runs no more batches than items wait then that came no later.
    """
    arrived, ran = simulate(arrivals, delay, age, durations, limits)
    started = {item: batch.start_seconds for batch in ran for item in batch.items}
    assert sorted(item for batch in ran for item in batch.items) == list(range(len(arrivals)))
    for item, start in started.items():
        overdue = arrived[item] + max(delay, age)
        if start <= overdue:
            continue
        ahead = [other for other in started if started[other] >= overdue and arrived[other] <= arrived[item]]
        running = [batch for batch in ran if batch.start_seconds < overdue < batch.end_seconds]
        since = [batch for batch in ran if overdue <= batch.start_seconds < start]
        assert len(since) <= len(ahead) - 1
        begin = running[0].end_seconds if running else overdue
        assert start == begin + sum(batch.end_seconds - batch.start_seconds for batch in since), "nothing idles"


# --- batches of like lengths ------------------------------------------------------------------------------------------


def padded(batches: list[list[int]]) -> int:
    """Total length when all of a batch are as long as its longest."""
    return sum(len(batch) * max(batch) for batch in batches)


def near_batches(lengths: list[int], size: int) -> list[list[int]]:
    scheduler: Scheduler[int] = Scheduler({"text": "near"}, lambda role, length: size, 0.0, 1e9)
    for length in lengths:
        scheduler.append("text", length, 1, 0.0, length)
    return [batch.items for batch in drain(scheduler)]


MIXES: dict[str, Callable[[random.Random], int]] = {
    "even": lambda source: source.randint(1, 512),
    "mostly short": lambda source: min(512, int(source.expovariate(1 / 40)) + 1),
    "two kinds": lambda source: source.choice((20, 400)) + source.randint(0, 20),
}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("size", [8, 64])
def test_like_lengths_waste_less_padding_than_first_in_first_out(mix: str, size: int) -> None:
    source = random.Random(7)
    wasted = fifo_wasted = 0
    for _ in range(10):
        lengths = [MIXES[mix](source) for _ in range(16 * size)]
        batches = near_batches(lengths, size)
        assert sorted(length for batch in batches for length in batch) == sorted(lengths)
        wasted += padded(batches) - sum(lengths)
        fifo_wasted += padded([lengths[at : at + size] for at in range(0, len(lengths), size)]) - sum(lengths)
    assert wasted <= 0.6 * fifo_wasted


@given(st.lists(st.integers(1, 100), min_size=1, max_size=100), st.integers(1, 8))
def test_those_nearest_to_the_oldest_are_chosen(lengths: list[int], size: int) -> None:
    scheduler: Scheduler[int] = Scheduler({"text": "near"}, lambda role, length: size, 0.0, 1e9)
    for number, length in enumerate(lengths):
        scheduler.append("text", number, 1, 0.0, length)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.items[0] == 0
    farthest = max(abs(lengths[item] - lengths[0]) for item in batch.items)
    left = [item for item in range(min(len(lengths), 8 * size)) if item not in batch.items]
    assert all(abs(lengths[item] - lengths[0]) >= farthest for item in left)


# --- single rules -----------------------------------------------------------------------------------------------------


@given(items)
def test_every_item_comes_out_once_in_order_of_its_lane(queued: list[tuple[str, int, int, float]]) -> None:
    scheduler = make()
    fill(scheduler, queued)
    scheduler.ended = True
    out: list[int] = []
    for batch in drain(scheduler, 1000.0):
        assert 1 <= len(batch.items) <= LIMITS[batch.role]
        assert {queued[item][0] for item in batch.items} == {batch.role}
        assert GROUPING[batch.role] == "near" or batch.items == sorted(batch.items)
        out += batch.items
    assert sorted(out) == list(range(len(queued)))


@given(items)
def test_a_deadline_that_has_come_makes_a_batch(queued: list[tuple[str, int, int, float]]) -> None:
    scheduler = make()
    fill(scheduler, queued)
    while (deadline := scheduler.next_deadline_seconds()) is not None:
        assert scheduler.next_batch(deadline) is not None
    assert len(scheduler) == 0


@given(items, st.floats(0, 1e6))
def test_deadlines_hold_whatever_the_clock_stands_at(queued: list[tuple[str, int, int, float]], origin: float) -> None:
    scheduler = make(max_delay=0.2)
    fill(scheduler, queued, origin)
    while (deadline := scheduler.next_deadline_seconds()) is not None:
        assert scheduler.next_batch(deadline) is not None


def test_a_part_filled_batch_waits_for_company_and_no_longer() -> None:
    scheduler = make(max_delay=1.0)
    scheduler.append("image", 1, 10, now_seconds=5.0)
    assert scheduler.next_batch(5.9) is None
    assert scheduler.next_deadline_seconds() == 6.0
    batch = scheduler.next_batch(6.0)
    assert batch is not None
    assert batch.items == [1]


def test_a_full_batch_leaves_at_once_and_the_rest_waits() -> None:
    scheduler = make()
    for number in range(5):
        scheduler.append("image", number, 10, now_seconds=0.0)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.items == [0, 1, 2, 3]
    assert scheduler.next_batch(0.0) is None


def test_a_batch_that_is_full_by_host_bytes_leaves_at_once() -> None:
    scheduler = make(max_batch_bytes=100)
    scheduler.append("image", 1, 60, now_seconds=0.0)
    assert scheduler.next_batch(0.0) is None
    scheduler.append("image", 2, 60, now_seconds=0.0)
    assert [batch.items for batch in drain(scheduler, 0.0)] == [[1]], "both together would be too many bytes"
    assert scheduler.queued_items("image") == 1


def test_an_item_larger_than_any_batch_goes_alone() -> None:
    scheduler = make(max_batch_bytes=100)
    for number, size in enumerate((1000, 10, 10)):
        scheduler.append("image", number, size, now_seconds=0.0)
    scheduler.ended = True
    assert [batch.items for batch in drain(scheduler, 0.0)] == [[0], [1, 2]]


def test_the_limit_is_that_of_the_longest_in_the_batch() -> None:
    scheduler: Scheduler[int] = Scheduler({"text": "near"}, lambda role, length: 8 if length < 10 else 2, 1.0, 5.0)
    for number, length in enumerate((9, 9, 9, 9, 10, 10)):
        scheduler.append("text", number, 1, 0.0, length)
    scheduler.ended = True
    assert [batch.items for batch in drain(scheduler, 0.0)] == [[0, 1, 2, 3], [4, 5]]


def test_the_model_that_holds_most_bytes_goes_first() -> None:
    scheduler = make()
    scheduler.append("image", 1, 10, now_seconds=0.0)
    scheduler.append("speech", 2, 1000, now_seconds=1.0)
    batch = scheduler.next_batch(3.0)
    assert batch is not None
    assert batch.role == "speech"


def test_an_item_past_the_age_cap_goes_before_all_others() -> None:
    scheduler = make(max_age=5.0)
    scheduler.append("image", 1, 1, now_seconds=0.0)
    for number in range(8):
        scheduler.append("speech", 10 + number, 10_000, now_seconds=4.0)
    first = scheduler.next_batch(4.5)
    assert first is not None
    assert first.role == "speech"
    second = scheduler.next_batch(5.0)
    assert second is not None
    assert second.role == "image"


def test_a_blocked_model_does_not_run_and_sets_no_deadline() -> None:
    scheduler = make()
    scheduler.append("speech", 1, 1000, now_seconds=0.0)
    blocked = frozenset({"speech"})
    assert scheduler.next_batch(100.0, blocked) is None
    assert scheduler.next_deadline_seconds(blocked) is None
    assert scheduler.next_batch(100.0) is not None


def test_the_end_of_the_stream_sends_what_there_is() -> None:
    scheduler = make(max_delay=1000.0)
    scheduler.append("voice", 1, 10, now_seconds=0.0, length=16_000)
    scheduler.append("voice", 2, 10, now_seconds=0.0, length=32_000)
    assert scheduler.next_batch(1.0) is None
    scheduler.ended = True
    assert [batch.items for batch in drain(scheduler, 1.0)] == [[1], [2]]


def test_a_search_query_goes_at_once_ahead_of_all_even_where_its_model_is_blocked() -> None:
    scheduler = make(max_delay=1000.0)
    for number in range(4):
        scheduler.append("image", number, 10_000, now_seconds=0.0)
    scheduler.append("text", 100, 10, now_seconds=900.0, length=5, urgent=True)
    scheduler.append("text", 101, 10, now_seconds=900.0, length=5)
    assert scheduler.urgent_roles() == {"text"}
    batch = scheduler.next_batch(900.0, EVERYTHING)
    assert batch == Batch("text", [100], 5, urgent=True)
    assert scheduler.next_batch(900.0, EVERYTHING) is None
    assert scheduler.waiting("text").items == 1


def test_queries_with_voices_of_different_lengths_do_not_share_a_batch() -> None:
    scheduler = make()
    for number, length in enumerate((3, 5, 3)):
        scheduler.append("voice", number, 10, 0.0, length, urgent=True)
    assert [batch.items for batch in drain(scheduler, 0.0)] == [[0, 2], [1]]


def test_a_suspect_shares_its_batch_with_nobody() -> None:
    scheduler = make()
    for number in range(6):
        scheduler.append("image", number, 10, 0.0, alone=number in (1, 2))
    scheduler.ended = True
    assert sorted(batch.items for batch in drain(scheduler, 0.0)) == [[0, 3, 4, 5], [1], [2]]


@given(st.integers(1, 1000), st.integers(1, 100))
def test_batches_are_of_few_sizes(waiting: int, limit: int) -> None:
    size = batch_size(waiting, limit)
    assert 1 <= size <= min(waiting, limit)
    assert size == limit or (size & (size - 1) == 0 and 2 * size > waiting)


def test_taking_a_batch_leaves_the_order_of_the_others_alone() -> None:
    scheduler: Scheduler[int] = Scheduler({"text": "near"}, lambda role, length: 2, 0.0, 1e9)
    for number, length in enumerate((1, 9, 1, 8, 5, 9)):
        scheduler.append("text", number, 1, float(number), length)
    assert [batch.items for batch in drain(scheduler)] == [[0, 2], [1, 5], [3, 4]]
