"""The engine's scheduling on simulated cards, beside what came before: `python -m benches scheduler`.

Core, gate, scheduler, runner and budget are the real ones; the device, its models and the clock are simulated, so a
card of any size can be had, and hours pass in seconds. The same videos go through every system on every card. What the
models cost is assumed, not measured (benches/sim_card.py says from what). Virtual time is the same in every run, so
nothing is repeated; the engine's own time is measured, the least of some rounds.

What the lines mean:
    busy       seconds in model.run, of the seconds in which an item was queued that could have run: all but those in
               which nothing was queued, or only part-filled batches that waited for company (engine.max_delay_ms).
               Moving models, splits, failures and the engine's own time (HOST_SECONDS a batch and an item) count
               against it. For the others: of all seconds.
    swaps      seconds in which models left the card or came back, of all seconds
    admitted   highest of: bytes in use + bytes that the batch is expected to take, with its margin, over the budget
    used       highest that the process held, over the budget
    wait       the longest that an item waited for its batch. bound: how long it may have waited for each item that was
               queued before it, by engine/scheduler.py: the longest batch. needed: the longest batch that would explain
               all waits. Held when needed is no more than bound; without a meaning where models take turns
    lost       items that did not become a point
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benches.report import Cell, Chart, Findings, Ratio, Table
from benches.sim_baselines import DeviceFactory, Result, fixed_batch, four_workers, items_of, sequential_stages
from benches.sim_card import CONTEXT_BYTES, COSTS, FRAGMENTATION, GIB, assumed, assumptions
from benches.sim_engine import HOST_SECONDS, SimulatedRun
from benches.sim_overhead import Overhead, overhead
from benches.sim_workload import Video, archive
from engine.simulated_device import SimulatedClock, SimulatedDevice

TITLE = "the scheduler on simulated cards of 4 to 24 GB, beside what came before, and the engine's own time"
BUDGETS_GB = (4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
FIXED = (4, 8, 32)
LEAST_BUSY = 0.95  # where no turns are taken
MOST_SWAPPING = 0.15


@dataclass(frozen=True)
class Sluice:
    """What the engine made of it."""

    budget_gb: float
    decoders: int
    videos: int
    items: int
    lost: int
    seconds: float
    start_seconds: float
    busy: float
    busy_or_waiting_for_company: float  # … of all seconds in which anything was queued
    swap_share: float
    swaps: int
    oom_events: int
    splits: int
    restarts: int
    admitted: float
    used: float
    alone_tries: int
    batches: dict[str, int]  # the size in which most items of each model went
    mean_batch: dict[str, float]
    longest_wait_seconds: float
    longest_batch_seconds: float
    needed_batch_seconds: float
    highest_host_mb: float
    cpu_seconds: float  # of this process, for the whole simulated run


def card(gb: float) -> DeviceFactory:
    """A card of that size: all of it is the budget."""

    def made(clock: SimulatedClock) -> SimulatedDevice:
        return SimulatedDevice(round(gb * GIB), context_bytes=CONTEXT_BYTES, fragmentation=FRAGMENTATION)

    return made


def sluice(gb: float, videos: list[Video], decoders: int) -> Sluice:
    """One run of the engine on one card."""
    cpu = time.process_time()
    run = SimulatedRun(videos, card(gb), COSTS, decoders=decoders)
    outcome = run.run()
    wanted = Counter[str]()
    for video in videos:
        wanted.update(video.points)
    meter, budget = run.meter, run.runner.budget.total_bytes
    queued = outcome.seconds - outcome.idle_seconds
    lost = (wanted - outcome.points).total() + len([f for f in outcome.failures if f.kind == "speech"])
    return Sluice(
        budget_gb=gb,
        decoders=decoders,
        videos=len(videos) - len(run.torn()),
        items=sum(sum(items_of(video).values()) for video in videos) - lost,
        lost=lost,
        seconds=outcome.seconds,
        start_seconds=outcome.start_seconds,
        busy=meter.run_seconds / (queued - outcome.company_seconds),
        busy_or_waiting_for_company=meter.run_seconds / queued,
        swap_share=meter.swap_seconds / outcome.seconds,
        swaps=outcome.swaps,
        oom_events=meter.oom_events,
        splits=sum(each.batch_splits for each in outcome.counters.values()),
        restarts=outcome.restarts.total(),
        admitted=outcome.highest_share,
        used=outcome.highest_bytes / budget,
        alone_tries=outcome.alone_tries,
        batches={role: meter.sizes[role].most_common(1)[0][0] for role in COSTS},
        mean_batch={role: meter.items[role] / meter.batches[role] for role in COSTS},
        longest_wait_seconds=max(run.waits.longest_seconds.values()),
        longest_batch_seconds=meter.longest_batch_seconds,
        needed_batch_seconds=run.waits.needed_batch_seconds,
        highest_host_mb=outcome.host_bytes / 1e6,
        cpu_seconds=time.process_time() - cpu,
    )


def baselines(gb: float, videos: list[Video], decoders: int) -> list[Result]:
    """What came before, on the same card."""
    results = [fixed_batch(size, videos, card(gb), COSTS, decoders) for size in FIXED]
    return [
        *results,
        sequential_stages(videos, card(gb), COSTS, decoders),
        four_workers(videos, card(gb), COSTS, decoders),
    ]


# --- findings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """All systems on one card."""

    ours: Sluice
    others: list[Result]

    @property
    def name(self) -> str:
        """By its size."""
        return f"{self.ours.budget_gb:g} GB"


def findings(
    cards: Sequence[Card], starved: Sequence[Sluice], measured: Overhead | None, videos: Sequence[Video]
) -> Findings:
    """starved: runs with one decoder; measured: None where it was left out. Pure."""
    runs = [*(card.ours for card in cards), *starved]
    return Findings(
        tables=[assumed(), *compared(cards, len(videos)), alone(runs), *([measured.table()] if measured else [])],
        ratios=[*aims(runs), *(measured.ratios() if measured else [])],
        charts=[throughput(cards)],
        notes=[*assumptions(), *work(videos, runs[0].decoders)],
    )


def aims(runs: Sequence[Sluice]) -> Iterator[Ratio]:
    """The worst of all runs, each beside what was aimed at. Pure."""
    steady = [run.busy for run in runs if not run.swaps]
    yield Ratio("items lost, of all", sum(run.lost for run in runs) / sum(run.items + run.lost for run in runs), 0.0)
    yield Ratio("admitted / budget, at most", max(run.admitted for run in runs), 1.0)
    yield Ratio("used / budget, at most", max(run.used for run in runs), 1.0)
    yield Ratio("time for changing models, at most", max(run.swap_share for run in runs), MOST_SWAPPING)
    if steady:
        yield Ratio("busy where no turns are taken, at least", min(steady), LEAST_BUSY, "higher")


def compared(cards: Sequence[Card], videos: int) -> Iterator[Table]:
    """A row for each system, a column for each card: what it did, and what it died of. Pure."""
    columns = ("", *(card.name for card in cards))
    systems: dict[str, list[Sluice | Result]] = {"Sluice": [card.ours for card in cards]}
    for number, other in enumerate(cards[0].others):
        systems[other.name] = [card.others[number] for card in cards]
    rates = tuple((name, *(rate_text(each, videos) for each in results)) for name, results in systems.items())
    yield Table(f"Items/s; in brackets how many of the {videos} videos were done, where not all were", columns, rates)
    deaths = ((name, *(_told(each) for each in results)) for name, results in systems.items())
    yield Table("What the others died of", columns, tuple(row for row in deaths if any(row[1:])))


def _told(result: Sluice | Result) -> str:
    return result.told() if isinstance(result, Result) else ""


def rate(result: Sluice | Result) -> float:
    """Items a second; those of videos that died do not count. Pure."""
    return result.items / result.seconds if result.seconds else 0.0


def rate_text(result: Sluice | Result, videos: int) -> str:
    """With how many videos were done. Pure."""
    some = f" ({result.videos})" if 0 < result.videos < videos else ""
    return f"{rate(result):.0f}{some}"


def alone(runs: Sequence[Sluice]) -> Table:
    """The engine: a column for each run. Pure."""
    most = max(run.decoders for run in runs)
    names = [f"{run.budget_gb:g} GB{'' if run.decoders == most else ', one decoder'}" for run in runs]
    roles = ("image", "speech", "text", "voice")
    lines: dict[str, Callable[[Sluice], Cell]] = {
        "busy": lambda run: f"{run.busy:.1%}",
        "time for changing models": lambda run: f"{run.swap_share:.1%}",
        "changes": lambda run: run.swaps,
        "admitted, at most": lambda run: f"{run.admitted:.1%}",
        "used, at most": lambda run: f"{run.used:.1%}",
        "out of memory": lambda run: run.oom_events,
        "batches split": lambda run: run.splits,
        "items lost": lambda run: run.lost,
        f"batches: {', '.join(roles)}": lambda run: ", ".join(str(run.batches[role]) for role in roles),
        "longest wait, s": lambda run: run.longest_wait_seconds,
        "longest batch, s": lambda run: run.longest_batch_seconds,
        "bound needed, s": lambda run: "turns" if run.swaps else run.needed_batch_seconds,
    }
    rows = tuple((name, *(tell(run) for run in runs)) for name, tell in lines.items())
    return Table("Sluice alone", ("", *names), rows, digits=2)


def throughput(cards: Sequence[Card]) -> Chart:
    """Items a second over the size of the card. Pure."""
    lines: dict[str, tuple[tuple[float, float], ...]] = {
        "Sluice": tuple((card.ours.budget_gb, rate(card.ours)) for card in cards)
    }
    for number, other in enumerate(cards[0].others):
        lines[other.name] = tuple((card.ours.budget_gb, rate(card.others[number])) for card in cards)
    return Chart("scheduler", "Simulated cards: items/s, those of lost videos left out", "card, GB", "items/s", lines)


def work(videos: Sequence[Video], decoders: int) -> Iterator[str]:
    """What was simulated. Pure."""
    hours = sum(video.frames for video in videos) / 3600
    items = sum(sum(items_of(video).values()) for video in videos)
    yield (
        f"The work: {len(videos)} videos, {hours:.1f} hours, {items:,} items, {decoders} decoders. The engine's own "
        f"time is put at {HOST_SECONDS[0] * 1e3:g} ms a batch and {HOST_SECONDS[1] * 1e6:g} µs an item."
    )


# --- options ----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The work and the cards."""
    parser.add_argument(
        "--videos", type=int, default=24, help="of 5 to 30 minutes, random lengths (default: %(default)s)"
    )
    parser.add_argument(
        "--decoders", type=int, default=8, help="decoder processes (default: %(default)s, so that the card is short)"
    )
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS_GB), metavar="GB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-overhead", action="store_true", help="leave out what is measured on this machine's CPU")


def measure(arguments: argparse.Namespace) -> Findings:
    """Simulate every system on every card; the smallest and the largest with one decoder, too."""
    videos = archive(arguments.videos, (5, 30), arguments.seed)
    budgets, decoders = sorted(set(arguments.budgets)), arguments.decoders
    cards = [Card(sluice(gb, videos, decoders), baselines(gb, videos, decoders)) for gb in budgets]
    ends = sorted({budgets[0], budgets[-1]}) if decoders > 1 else []
    starved = [sluice(gb, videos, 1) for gb in ends]
    return findings(cards, starved, None if arguments.no_overhead else overhead(), videos)
