"""The floor: what no schedule can beat, and the two processes that measure what it is made of."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches.floor import Floor, Task, best_wall_seconds, bounds, left_over, started_bounds, together, what_binds

seconds = st.floats(0.0, 1000.0)
tasks = st.lists(st.builds(Task, seconds, seconds), max_size=20).map(tuple)
cores = st.integers(1, 16)
floors = st.builds(Floor, tasks, seconds, seconds, cores)


def greedy_wall_seconds(floor: Floor) -> float:
    """A schedule that can be done: first all decoding, the longest task first, then all models."""
    free = [0.0] * floor.cores
    for task in sorted(floor.tasks, key=lambda each: -each.seconds):
        heapq.heapreplace(free, free[0] + task.seconds)
    return max(free) + max(floor.models_alone_seconds, floor.model_cpu_seconds / floor.cores, longest_tail(floor))


def longest_tail(floor: Floor) -> float:
    return max((task.tail_seconds for task in floor.tasks), default=0.0)


@given(floors)
def test_best_wall_is_never_below_a_bound(floor: Floor) -> None:
    best = best_wall_seconds(floor)
    assert all(best >= bound for bound in bounds(floor).values())
    assert best == bounds(floor)[what_binds(floor)]


@given(floors)
def test_a_schedule_that_can_be_done_takes_at_least_as_long(floor: Floor) -> None:
    assert best_wall_seconds(floor) <= greedy_wall_seconds(floor) + 1e-6


@given(floors, st.builds(Task, seconds, seconds), seconds)
def test_more_work_never_takes_less(floor: Floor, task: Task, more: float) -> None:
    longer = Floor((*floor.tasks, task), floor.model_cpu_seconds + more, floor.models_alone_seconds + more, floor.cores)
    assert best_wall_seconds(longer) >= best_wall_seconds(floor)
    assert longer.cpu_seconds >= floor.cpu_seconds - 1e-6


@given(floors, st.integers(1, 16))
def test_more_cores_never_take_longer(floor: Floor, more: int) -> None:
    wider = Floor(floor.tasks, floor.model_cpu_seconds, floor.models_alone_seconds, floor.cores + more)
    assert best_wall_seconds(wider) <= best_wall_seconds(floor)


@given(tasks, seconds, seconds, tasks, seconds, seconds, cores)
def test_two_works_take_no_longer_together_than_one_after_the_other(
    first: tuple[Task, ...],
    first_cpu: float,
    first_wall: float,
    second: tuple[Task, ...],
    second_cpu: float,
    second_wall: float,
    count: int,
) -> None:
    one, other = Floor(first, first_cpu, first_wall, count), Floor(second, second_cpu, second_wall, count)
    both = best_wall_seconds(together([one, other]))
    assert max(best_wall_seconds(one), best_wall_seconds(other)) <= both + 1e-6
    assert both <= best_wall_seconds(one) + best_wall_seconds(other) + 1e-6


@given(floors, seconds)
def test_what_is_left_is_less_the_more_is_done_and_never_less_than_the_models(floor: Floor, done: float) -> None:
    left, less = left_over(floor, done), left_over(floor, done + 1.0)
    assert left.decode_cpu_seconds == pytest.approx(max(0.0, floor.decode_cpu_seconds - done), abs=1e-6)
    assert best_wall_seconds(left) <= best_wall_seconds(floor) + 1e-6
    assert best_wall_seconds(less) <= best_wall_seconds(left) + 1e-6
    assert best_wall_seconds(left) >= max(floor.models_alone_seconds, floor.model_cpu_seconds / floor.cores)


@given(floors, seconds, st.floats(0.0, 1.0))
def test_a_start_takes_its_time_and_work_beside_it_hides_no_more_than_its_cores(
    floor: Floor, start: float, share: float
) -> None:
    """Loading is one chain, whose processor time is part of what the start takes of all cores."""
    best = max(started_bounds(floor, start, share * start).values())
    assert best >= best_wall_seconds(floor)
    assert best <= best_wall_seconds(floor) + start + 1e-6, "one after the other is a schedule that can be done"


def test_one_core_does_everything_itself() -> None:
    floor = Floor((Task(3.0), Task(4.0)), 5.0, 5.0, cores=1)
    assert best_wall_seconds(floor) == 12.0
    assert what_binds(floor) == "all cores busy"


def test_a_long_sound_track_binds_where_there_are_cores_enough() -> None:
    floor = Floor((Task(1.0), Task(10.0, tail_seconds=0.5)), 2.0, 1.0, cores=8)
    assert best_wall_seconds(floor) == 10.5
    assert what_binds(floor) == "longest chain"


def test_models_that_gain_nothing_from_cores_bind_by_themselves() -> None:
    assert what_binds(Floor((Task(1.0),), 9.0, 9.0, cores=4)) == "models alone"


def test_no_cores_and_unlike_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="cores"):
        bounds(Floor((), 1.0, 1.0, cores=0))
    with pytest.raises(ValueError, match="one machine"):
        together([Floor((), 1.0, 1.0, cores=1), Floor((), 1.0, 1.0, cores=2)])
