"""The engine's scheduling on simulated cards, beside what came before: `python -m benches.scheduler_sim [--json]`.

Core, gate, scheduler, runner and budget are the real ones; the device, its models and the clock are simulated, so a
card of any size can be had, and hours pass in seconds. The same videos go through every system on every card. What the
models cost is assumed, not measured (benches/sim_card.py says from what); the assumptions are printed with the result.

What the columns mean:
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
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from benches.corpus import machine
from benches.sim_baselines import DeviceFactory, Result, fixed_batch, four_workers, items_of, sequential_stages
from benches.sim_card import CONTEXT_BYTES, COSTS, FRAGMENTATION, GIB, assumptions
from benches.sim_engine import HOST_SECONDS, SimulatedRun
from benches.sim_overhead import overhead
from benches.sim_workload import Video, archive
from engine.simulated_device import SimulatedClock, SimulatedDevice

BUDGETS_GB = (4, 6, 8, 12, 16, 24)
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


def missed(run: Sluice) -> list[str]:
    """The aims that a run missed, a line each."""
    aims = {
        f"{run.lost} items lost": run.lost > 0,
        f"{run.admitted:.1%} of the budget admitted": run.admitted > 1,
        f"{run.used:.1%} of the budget used": run.used > 1,
        f"busy for {run.busy:.1%} of the time, less than {LEAST_BUSY:.0%}": not run.swaps and run.busy < LEAST_BUSY,
        f"{run.swap_share:.1%} of the time for changes, not under {MOST_SWAPPING:.0%}": run.swap_share >= MOST_SWAPPING,
    }
    return [f"{run.budget_gb:g} GB, decoders {run.decoders}: {aim}" for aim, is_missed in aims.items() if is_missed]


# --- for people -------------------------------------------------------------------------------------------------------


def comparison(gb: float, ours: Sluice, others: list[Result]) -> list[str]:
    """One card: a row for each system."""
    rows = [
        f"{'sluice':<30}{ours.videos:>7}{ours.lost:>8}{ours.items / ours.seconds:>9.1f}{ours.busy:>7.1%}"
        f"{ours.oom_events:>6}"
    ]
    for other in others:
        rate = other.items / other.seconds if other.seconds else 0.0
        rows.append(
            f"{other.name:<30}{other.videos:>7}{other.lost:>8}{rate:>9.1f}{other.busy:>7.1%}{other.oom_events:>6}"
            f"  {other.told()}".rstrip()
        )
    return [f"\n{gb:g} GB{'':<26}videos    lost  items/s   busy   OOM  how it died", *rows]


def details(runs: list[Sluice]) -> list[str]:
    """The engine alone: a row for each card."""
    lines = [
        "\nsluice   decoders   busy  swaps  admitted   used   OOM  splits   batches: image speech text voice   "
        "longest wait (bound, needed)"
    ]
    for run in runs:
        sizes = " ".join(f"{run.batches[role]:>6}" for role in ("image", "speech", "text", "voice"))
        bound = f"({run.longest_batch_seconds:.2f}, {run.needed_batch_seconds:.3f})" if not run.swaps else "(turns)"
        lines.append(
            f"{run.budget_gb:>4g} GB{run.decoders:>11}{run.busy:>8.1%}{run.swap_share:>6.1%}{run.admitted:>9.1%}"
            f"{run.used:>8.1%}{run.oom_events:>5}{run.splits:>8}       {sizes}"
            f"{run.longest_wait_seconds:>14.1f} s {bound}"
        )
    return lines


def main() -> int:
    """Run everything; exit code 1 when an aim is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--videos", type=int, default=24, help="of 5 to 30 minutes, random lengths (default: 24)")
    parser.add_argument(
        "--decoders", type=int, default=8, help="decoder processes (default: 8, so that the card is short)"
    )
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS_GB, metavar="GB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-overhead", action="store_true", help="leave out what is measured on this machine's CPU")
    arguments = parser.parse_args()
    videos = archive(arguments.videos, (5, 30), arguments.seed)
    compared = [
        (sluice(gb, videos, arguments.decoders), baselines(gb, videos, arguments.decoders)) for gb in arguments.budgets
    ]
    alone = (arguments.budgets[0], arguments.budgets[-1]) if arguments.decoders > 1 else ()
    starved = [sluice(gb, videos, 1) for gb in alone]
    measured = None if arguments.no_overhead else overhead()
    found: dict[str, Any] = {
        "machine": machine(),
        "seed": arguments.seed,
        "assumptions": assumptions(),
        "sluice": [asdict(ours) for ours, _ in compared] + [asdict(each) for each in starved],
        "before": {f"{ours.budget_gb:g}": [asdict(each) for each in others] for ours, others in compared},
        "overhead": asdict(measured) if measured is not None else None,
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        hours = sum(video.frames for video in videos) / 3600
        print(*assumptions(), sep="\n")
        print(f"Engine: {HOST_SECONDS[0] * 1e3:g} ms a batch and {HOST_SECONDS[1] * 1e6:g} µs an item.")
        count = sum(sum(items_of(video).values()) for video in videos)
        print(f"Work: {len(videos)} videos, {hours:.1f} hours, {count} items, {arguments.decoders} decoders.")
        for ours, others in compared:
            print(*comparison(ours.budget_gb, ours, others), sep="\n")
        print(*details([ours for ours, _ in compared] + starved), sep="\n")
        if measured is not None:
            print(*measured.told(), sep="\n")
    aims = [aim for run in [*(ours for ours, _ in compared), *starved] for aim in missed(run)]
    if aims:
        print("Missed:", *aims, sep="\n  ", file=sys.stderr)
    return 1 if aims else 0


if __name__ == "__main__":
    sys.exit(main())
