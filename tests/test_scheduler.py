"""Properties of the scheduler: nothing lost, nothing doubled, nothing forgotten, order kept."""

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduler import Scheduler, batch_size

ROLES = ("image", "speech", "voice")
LIMITS = {"image": 4, "speech": 2, "voice": 3}

items = st.lists(
    st.tuples(st.sampled_from(ROLES), st.integers(1, 10_000), st.integers(0, 2), st.floats(0, 3)), max_size=60
)


def make(max_delay: float = 1.0, max_age: float = 5.0) -> Scheduler[int]:
    return Scheduler(dict.fromkeys(ROLES, "equal"), lambda role, length: LIMITS[role], max_delay, max_age)


def fill(scheduler: Scheduler[int], queued: list[tuple[str, int, int, float]]) -> None:
    now = 0.0
    for number, (role, size, length, wait) in enumerate(queued):
        now += wait
        scheduler.append(role, number, size, now, length)


@given(items)
def test_every_item_comes_out_once_in_order_of_its_lane(queued: list[tuple[str, int, int, float]]) -> None:
    scheduler = make()
    fill(scheduler, queued)
    scheduler.ended = True
    out: list[int] = []
    while (batch := scheduler.next_batch(1000.0)) is not None:
        assert 1 <= len(batch.items) <= LIMITS[batch.role]
        assert {queued[item][0] for item in batch.items} == {batch.role}
        assert len({queued[item][2] for item in batch.items}) == 1, "a batch is of one length"
        assert batch.items == sorted(batch.items)
        out += batch.items
    assert sorted(out) == list(range(len(queued)))
    assert len(scheduler) == 0
    assert all(scheduler.queued_bytes(role) == 0 and scheduler.queued_items(role) == 0 for role in ROLES)


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
    now = origin
    for number, (role, size, length, wait) in enumerate(queued):
        now += wait
        scheduler.append(role, number, size, now, length)
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
    assert [batch.items for batch in iter(lambda: scheduler.next_batch(1.0), None) if batch] == [[1], [2]]


@given(st.integers(1, 1000), st.integers(1, 100))
def test_batches_are_of_few_sizes(waiting: int, max_batch: int) -> None:
    size = batch_size(waiting, max_batch)
    assert 1 <= size <= min(waiting, max_batch)
    assert size == max_batch or (size & (size - 1) == 0 and 2 * size > waiting)
