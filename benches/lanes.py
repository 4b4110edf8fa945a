"""How a model uses the cores of a CPU: with one thread, with its library's own threads, and with parts of each batch
side by side (stages/lanes.py).

    one thread   a batch at a time, every step of it on one core
    threads      every step shared out to all cores, by torch's and CTranslate2's own threads: what both do by default
    lanes        a part of the batch for each core, every step of it on that core: what the engine does

The three take turns, each model by itself. Small untrained models where none are named; `benches.real_size` makes some
that are as large as real ones.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benches.measuring import Cost, median, ratio_of, rounds
from benches.models import Subject, add_subjects, repeats_for, subject
from benches.report import Chart, Findings, Ratio, Table
from stages.base import Role
from stages.lanes import Lanes, cores_for_models

TITLE = "the cores of a CPU: one thread, the libraries' threads, or parts of a batch side by side"

ONE, THREADS, LANES = "one thread", "threads", "lanes"
BATCHES: dict[Role, int] = {"image": 32, "speech": 8, "text": 64, "voice": 32}  # as the engine starts with
Costs = Mapping[str, Sequence[Cost]]  # by way


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models, how often, how long."""
    add_subjects(parser)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a way in a round (default: %(default)s)")


def measure(arguments: argparse.Namespace) -> Findings:
    """Model by model: only one of them is in memory, in three copies."""
    arguments.device = "cpu"
    cores = cores_for_models()
    return findings({role: compared(role, arguments, cores) for role in arguments.roles}, cores)


def compared(role: Role, arguments: argparse.Namespace, cores: int) -> tuple[int, Costs]:
    """How many items each way ran in a round, and what that took."""
    ways = {ONE: (Lanes(1), 1), THREADS: (Lanes(1, cores), cores), LANES: (Lanes(cores), 1)}
    subjects = {way: subject(role, arguments, lanes) for way, (lanes, _) in ways.items()}
    size = BATCHES[role]
    for way, each in subjects.items():
        run(each, size, ways[way][1], 1)  # what is done for the first time only
    seconds = rounds({ONE: lambda: run(subjects[ONE], size, 1, 1)}, 1)[ONE][0].wall_seconds
    repeats = repeats_for(seconds, arguments.seconds)
    candidates = {way: candidate(subjects[way], size, threads, repeats) for way, (_, threads) in ways.items()}
    return size * repeats, rounds(candidates, arguments.rounds)


def candidate(of: Subject, size: int, threads: int, repeats: int) -> Callable[[], None]:
    """One way, for `rounds`."""
    return lambda: run(of, size, threads, repeats)


def run(of: Subject, size: int, threads: int, repeats: int) -> None:
    """threads: of torch, for what is asked for by this thread and not by a lane."""
    import torch

    torch.set_num_threads(threads)
    batch = of.batch(size)
    for _ in range(repeats):
        of.model.run(batch)


# --- findings: pure ---------------------------------------------------------------------------------------------------


def findings(found: Mapping[Role, tuple[int, Costs]], cores: int) -> Findings:
    """By model."""
    rows = [row(role, way, items, each) for role, (items, costs) in found.items() for way, each in costs.items()]
    rates = {
        role: {way: items / median([cost.wall_seconds for cost in each]) for way, each in costs.items()}
        for role, (items, costs) in found.items()
    }
    bars = {f"{role}, {way}": rate / by_way[ONE] for role, by_way in rates.items() for way, rate in by_way.items()}
    columns = ("model", "way", "items/s", "wall ms/item", "CPU ms/item")
    return Findings(
        tables=[Table(f"{cores} cores", columns, tuple(rows))],
        ratios=[each for role, (_, costs) in found.items() for each in ratios(role, costs)],
        charts=[Chart("lanes", "Speed beside one thread's", "", "times", bars=bars, kind="bars")],
        notes=["one core: all three are the same" if cores == 1 else "batches as the engine starts with"],
    )


def row(role: Role, way: str, items: int, costs: Sequence[Cost]) -> tuple[Any, ...]:
    """Medians of the rounds."""
    wall, cpu = median([cost.wall_seconds for cost in costs]), median([cost.cpu_seconds for cost in costs])
    return role, way, items / wall, 1000 * wall / items, 1000 * cpu / items


def ratios(role: Role, costs: Costs) -> list[Ratio]:
    """Lanes beside the libraries' threads."""
    wall = {way: [cost.wall_seconds for cost in each] for way, each in costs.items()}
    cpu = {way: [cost.cpu_seconds for cost in each] for way, each in costs.items()}
    return [
        ratio_of(f"{role}: speed, lanes / threads", wall[THREADS], wall[LANES], better="higher"),
        ratio_of(f"{role}: CPU seconds, lanes / threads", cpu[LANES], cpu[THREADS]),
    ]
