"""How benches measure: rounds in which the candidates take turns, their median and spread, processor time and memory.

A shared machine is slower now than a minute ago. So candidates that are compared run in turn, in the same minutes, the
order reversed in every other round, after a warm-up that is not counted; and they are compared by ratios of each round.
"""

import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benches.report import Ratio


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took."""

    wall_seconds: float
    cpu_seconds: float  # of this process with all threads, and of the children that it waited for
    values: Mapping[str, float] = field(default_factory=dict)  # what the candidate itself found


Candidate = Callable[[], Mapping[str, float] | None]


def cost_of(candidate: Candidate) -> Cost:
    """Run it once, in this process."""
    gc.collect()
    cpu, wall = cpu_seconds(), time.perf_counter()
    values = candidate() or {}
    return Cost(time.perf_counter() - wall, cpu_seconds() - cpu, dict(values))


def cpu_seconds() -> float:
    """Processor time of this process with all its threads so far, and of the children that have ended and been waited
    for, with theirs. In microseconds, where psutil and /proc count in hundredths (getrusage(2)).
    """
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def rounds(candidates: Mapping[str, Candidate], count: int, warm_up: bool = True) -> dict[str, list[Cost]]:
    """Each candidate `count` times, in turn."""
    if warm_up:
        for candidate in candidates.values():
            candidate()
    costs: dict[str, list[Cost]] = {name: [] for name in candidates}
    for number in range(count):
        for name in in_turn(list(candidates), number):
            costs[name].append(cost_of(candidates[name]))
    return costs


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Their order in a round: every other one is reversed, so that nobody always comes behind the same neighbour."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def median(values: Sequence[float]) -> float:
    """Raises statistics.StatisticsError where there are none."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest."""
    return min(values), max(values)


def ratio_of(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    aim: float | None = None,
    better: str = "lower",
) -> Ratio:
    """Median and spread of the ratios of each round: what slowed a round down slowed both."""
    ratios = [high / low for high, low in zip(above, below, strict=True)]
    low, high = spread(ratios)
    return Ratio(name, median(ratios), aim, "lower" if better == "lower" else "higher", low, high)
