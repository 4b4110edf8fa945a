"""Which deaths of the engine are borne, and that an item that poisons the device is found and nothing else."""

from hypothesis import example, given
from hypothesis import strategies as st

from engine.restarts import CONDEMNING, Restarts
from transport.messages import EngineLost, Suspect


def item(number: int) -> Suspect:
    return Suspect(video_id="v", role="image", start_seconds=float(number), end_seconds=number + 1.0)


def lost(*numbers: int) -> EngineLost:
    return EngineLost(code="device-lost", message="illegal access", suspects=tuple(item(number) for number in numbers))


def condemned(restarts: Restarts) -> set[Suspect]:
    return {each.item for each in restarts.condemned}


def test_deaths_without_progress_are_borne_up_to_the_limit() -> None:
    restarts = Restarts(limit=3)
    borne = []
    for _ in range(4):
        restarts.lost(None)
        borne.append(restarts.may_restart)
    assert borne == [True, True, True, False]


def test_none_is_borne_when_the_limit_is_zero() -> None:
    restarts = Restarts(limit=0)
    restarts.lost(lost(1))
    assert not restarts.may_restart


def test_a_durable_task_starts_the_count_again() -> None:
    restarts = Restarts(limit=1)
    for _ in range(5):
        restarts.lost(None)
        assert restarts.may_restart
        restarts.progress()
    restarts.lost(None)
    restarts.lost(None)
    assert not restarts.may_restart


def test_a_batch_is_suspected_and_who_dies_alone_is_condemned() -> None:
    restarts = Restarts(limit=3)
    restarts.lost(lost(1, 2, 3))
    assert list(restarts.suspects) == [item(1), item(2), item(3)]
    restarts.lost(lost(2))
    assert list(restarts.suspects) == [item(1), item(3)]
    (only,) = restarts.condemned
    assert (only.item, only.code, only.message) == (item(2), "device-lost", "illegal access")


def test_to_condemn_is_progress_but_only_once() -> None:
    restarts = Restarts(limit=2)
    for number in range(9):
        restarts.lost(lost(number))
        assert restarts.may_restart
    for _ in range(2):
        restarts.lost(lost(8))
        assert restarts.may_restart
    restarts.lost(lost(8))
    assert not restarts.may_restart, "an engine that runs what is condemned does not get on"
    assert len(restarts.condemned) == 9


def test_the_condemned_are_suspected_no_more() -> None:
    restarts = Restarts(limit=9)
    restarts.lost(lost(1))
    restarts.lost(lost(1, 2))
    assert restarts.suspects == (item(2),)


def test_memory_is_bounded_and_the_end_is_certain() -> None:
    restarts = Restarts(limit=2, max_remembered=4)
    restarts.lost(lost(*range(10)))
    assert restarts.suspects == tuple(item(number) for number in range(6, 10)), "the oldest are forgotten"
    borne = 0
    for number in range(100):
        restarts.lost(lost(number))
        borne += restarts.may_restart
    assert borne == 4 + 2, "beyond the bound no item is condemned, so that is no progress"
    assert condemned(restarts) == {item(number) for number in range(4)}


@given(
    poison=st.sets(st.integers(0, 30), max_size=5),
    batch_size=st.integers(1, 12),
    limit=st.integers(1, 3),
)
def test_whatever_poisons_is_condemned_and_nothing_else(poison: set[int], batch_size: int, limit: int) -> None:
    """Engines that run suspects alone, and skip the condemned, finish all other items."""
    restarts, done, deaths = Restarts(limit), set[int](), 0
    while len(done) + len(restarts.condemned) < 31:
        words = run_engine(restarts, poison, batch_size, done)
        if words is None:
            break
        deaths += 1
        restarts.lost(words)
        assert restarts.may_restart
    assert condemned(restarts) == {item(number) for number in poison}
    assert done == set(range(31)) - poison
    assert deaths <= 2 * len(poison)


def run_engine(restarts: Restarts, poison: set[int], batch_size: int, done: set[int]) -> EngineLost | None:
    """One engine process, from the first item again: its last words, or None when it comes to the end."""
    suspects, out = set(restarts.suspects), condemned(restarts)
    alone = [(number,) for number in range(31) if item(number) in suspects]
    others = [number for number in range(31) if item(number) not in suspects | out]
    batches = [tuple(others[at : at + batch_size]) for at in range(0, len(others), batch_size)]
    for batch in alone + batches:
        if poison & set(batch):
            return lost(*batch)
        done |= set(batch)
    return None


messages = st.none() | st.lists(st.integers(0, 6), max_size=4).map(lambda numbers: lost(*numbers))


@given(st.lists(messages | st.just("progress"), max_size=40), st.integers(0, 4))
@example([*[None] * 10, lost(0)], 1)  # to condemn an item is progress, but no task was done for ten deaths
def test_no_item_is_both_and_only_progress_starts_the_count_again(
    events: list[EngineLost | str | None], limit: int
) -> None:
    restarts, count, since_task = Restarts(limit, max_remembered=5), 0, 0
    for event in events:
        before = condemned(restarts)
        if isinstance(event, str):
            restarts.progress()
            count = since_task = 0
        else:
            restarts.lost(event)
            count = 0 if condemned(restarts) > before else count + 1
            since_task += 1
        assert before <= condemned(restarts)
        assert not condemned(restarts) & set(restarts.suspects)
        assert max(len(restarts.suspects), len(restarts.condemned)) <= 5
        assert restarts.fruitless == count
        assert restarts.may_restart == (limit > 0 and count <= limit and since_task <= CONDEMNING * limit)


def test_a_device_that_is_lost_in_whatever_it_runs_is_given_up() -> None:
    restarts = Restarts(limit=3)
    deaths = 0
    while restarts.may_restart:
        deaths += 1
        item = Suspect(video_id="v", role="image", start_seconds=float(deaths), end_seconds=deaths + 1.0)
        restarts.lost(EngineLost(code="device-lost", message="illegal access", suspects=(item,)))
    assert deaths == 10 * 3 + 1
    assert len(restarts.condemned) == deaths


def test_an_item_that_found_no_memory_is_run_alone_and_not_condemned() -> None:
    item = Suspect(video_id="v", role="image", start_seconds=0.0, end_seconds=1.0)
    restarts = Restarts(limit=1)
    restarts.lost(EngineLost(code="memory-stuck", message="2 GB do not come back", suspects=(item,)))
    assert restarts.suspects == (item,)
    assert not restarts.condemned
    assert restarts.fruitless == 0
    for _ in range(2):
        restarts.lost(EngineLost(code="memory-stuck", message="2 GB do not come back", suspects=(item,)))
    assert not restarts.may_restart, "the same items again are no progress"
