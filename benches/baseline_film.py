"""A film of two hours through Sluice and through the way of the systems before it, which keep all of it in memory.

At one frame a second of full size such a film takes 5 GB in 360 lines, and 45 GB in 1080; what takes more than
--limit-gb is killed, as the kernel kills where memory ends. The film is copies of one video, joined by stream copy: of
one of that height, in which perhaps nobody speaks, or with --spoken of one in which people do, first brought to it.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benches.baseline_runs import ONE_BY_ONE, SLUICE, Run, run_system
from benches.baseline_tables import MB, memory_chart, peaks_table
from benches.baselines import add_setup, setup_of
from benches.corpus import media_seconds
from benches.corpus_sources import MEDIA, looked_at
from benches.mixed import long_film, spoken_film
from benches.options import add_models
from benches.report import Cell, Findings, Ratio, Table
from stages.store import FRAMES

TITLE = "a film of two hours: memory over time, against a system that has all frames of a video in a list"

AIM_MEMORY = 0.1
GB = 1_000_000_000
Films = Mapping[int, Mapping[str, Run]]  # by height, by system


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hours", type=float, default=2.0, help="(default: %(default)s)")
    parser.add_argument("--height", type=int, nargs="+", default=[360, 1080], metavar="LINES", help="of the pictures")
    parser.add_argument(
        "--spoken", action="store_true", help="of the longest video with sound, encoded for that height"
    )
    parser.add_argument("--limit-gb", type=float, default=16.0, help="of 10^9 bytes (default: %(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, metavar="DIR", help="videos to make it of")
    add_setup(parser)
    add_models(parser)


def measure(arguments: argparse.Namespace) -> Findings:
    """One run of each system on each film: they take minutes."""
    setup = setup_of(arguments, round(arguments.limit_gb * GB))
    films: dict[int, dict[str, Run]] = {}
    seconds: dict[int, float] = {}
    for wanted in arguments.height:
        with tempfile.TemporaryDirectory(prefix="sluice-film-") as name:
            directory = Path(name)
            make = spoken_film if arguments.spoken else long_film
            film = make(directory / "media", arguments.hours, arguments.media, wanted)
            height = looked_at(film).height
            seconds[height] = media_seconds(film)
            films[height] = {}
            for system in (SLUICE, ONE_BY_ONE):
                films[height][system] = run_system(system, [film], directory / system, setup)
                print(f"{height} lines, {system}: {outcome(films[height][system])}", file=sys.stderr, flush=True)
    return found(films, seconds)


def found(films: Films, seconds: Mapping[int, float]) -> Findings:
    """Of all films, each of so many seconds. Pure."""
    every = {f"{system}, {height} lines": run for height, runs in films.items() for system, run in runs.items()}
    return Findings(
        tables=[film_table(films, seconds), peaks_table(every)],
        ratios=[memory_ratio(height, runs) for height, runs in films.items()],
        charts=[memory_chart(every)],
        notes=[
            "one run each. Memory is the proportional share of all processes together: a page that several of them map "
            "counts once; the table of processes has RSS, in which it counts for each",
            "where a system was killed, its memory is what it had then: it needs more, and the ratio would be lower",
        ],
    )


def film_table(films: Films, seconds: Mapping[int, float]) -> Table:
    """A line for each run. Pure."""
    columns = ("film", "system", "outcome", "hours/hour", "CPU s", "peak MB, shared pages once", "peak MB, sum of RSS")
    rows = tuple(
        (f"{height} lines", system, outcome(run), *figures(run, seconds[height]))
        for height, runs in films.items()
        for system, run in runs.items()
    )
    return Table("a long film", columns, rows)


def figures(run: Run, seconds: float) -> tuple[Cell, ...]:
    """Of one run. Pure."""
    rate = None if run.killed else seconds / run.wall_seconds
    return rate, run.cpu_seconds, run.peak_pss_bytes / MB, run.peak_rss_bytes / MB


def outcome(run: Run) -> str:
    """In words. Pure."""
    if run.killed:
        return f"killed for its memory after {run.wall_seconds:.0f} s, nothing stored"
    return f"{run.points[FRAMES]:,} frames in {run.wall_seconds:.0f} s"


def memory_ratio(height: int, runs: Mapping[str, Run]) -> Ratio:
    """Peaks of all processes together. Where the other was killed it is an upper bound, which can meet the aim and
    cannot miss it. Pure.
    """
    value = runs[SLUICE].peak_pss_bytes / runs[ONE_BY_ONE].peak_pss_bytes
    name = f"peak memory, Sluice to one by one, {height} lines"
    if not runs[ONE_BY_ONE].killed:
        return Ratio(name, value, AIM_MEMORY)
    return Ratio(f"{name}, at most", value, AIM_MEMORY if value <= AIM_MEMORY else None)
