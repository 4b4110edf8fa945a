"""The least that some work can take on a machine: processor seconds, and wall seconds of the best schedule. Pure.

Given is what decoding takes task by task with nothing behind it, and what the models take with everything in memory.
Every figure here is a lower bound: no schedule on these cores, however clever, ends sooner than the largest of them.
docs/floor.md says why, and what is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A span of frames, or a sound track: one core works at it from its beginning to its end."""

    seconds: float  # of processor time
    tail_seconds: float = 0.0  # what the models need at least for its last item, which nobody has before it ends


@dataclass(frozen=True, slots=True)
class Floor:
    """The work, as two processes did it alone."""

    tasks: tuple[Task, ...]
    model_cpu_seconds: float  # of all models, in the way that takes least of it
    models_alone_seconds: float  # wall time of all their batches in turn, in the way that takes least of it
    cores: int

    @property
    def decode_cpu_seconds(self) -> float:
        """Of all tasks."""
        return sum(task.seconds for task in self.tasks)

    @property
    def cpu_seconds(self) -> float:
        """What the whole engine would use if nothing but decoding and models cost anything."""
        return self.decode_cpu_seconds + self.model_cpu_seconds


def bounds(floor: Floor) -> dict[str, float]:
    """Wall seconds that no schedule can beat, each with its reason. Raises ValueError without cores."""
    if floor.cores < 1:
        raise ValueError(f"{floor.cores} cores do nothing")
    return {
        "all cores busy": floor.cpu_seconds / floor.cores,
        "longest chain": max((task.seconds + task.tail_seconds for task in floor.tasks), default=0.0),
        "models alone": floor.models_alone_seconds,
    }


def best_wall_seconds(floor: Floor) -> float:
    """Wall time of the best possible schedule: the largest bound."""
    return max(bounds(floor).values())


def what_binds(floor: Floor) -> str:
    """Which bound that is."""
    all_bounds = bounds(floor)
    return max(all_bounds, key=lambda name: all_bounds[name])


def left_over(floor: Floor, decoded_seconds: float) -> Floor:
    """What is left to do when so much of decoding, in seconds of processor time, is done already, and no model has run.

    Which tasks are left is not known, nor how far each is: the longest chain is no bound of it.
    """
    left = max(0.0, floor.decode_cpu_seconds - decoded_seconds)
    return Floor(_evenly(left, len(floor.tasks)), floor.model_cpu_seconds, floor.models_alone_seconds, floor.cores)


def _evenly(seconds: float, count: int) -> tuple[Task, ...]:
    return (Task(seconds / count),) * count if count else ()


def started_bounds(floor: Floor, start_cpu_seconds: float, loading_seconds: float) -> dict[str, float]:
    """As `bounds`, from the start of the run on. start_cpu_seconds: what a run costs whatever is in it, of all cores;
    loading_seconds: until a model can run, however many cores there are.
    """
    work = bounds(floor)
    return {
        "all cores busy": work["all cores busy"] + start_cpu_seconds / floor.cores,
        "longest chain": work["longest chain"],
        "loading, then models alone": loading_seconds + work["models alone"],
    }


def together(floors: Sequence[Floor]) -> Floor:
    """The same work and some more, on the same cores: one after the other or side by side is all one to a bound.

    Raises ValueError for none, and for floors of different machines.
    """
    if len({floor.cores for floor in floors}) != 1:
        raise ValueError("floors to be put together are of one machine")
    return Floor(
        tuple(task for floor in floors for task in floor.tasks),
        sum(floor.model_cpu_seconds for floor in floors),
        sum(floor.models_alone_seconds for floor in floors),
        floors[0].cores,
    )
