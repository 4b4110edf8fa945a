"""Sluice beside what it replaces, on the same videos, models, precision, sampling and store, each in its own process.

one by one   the way of the systems before it: a video at a time; all its frames decoded into a list at full size, then
             embedded in batches of 32; its whole sound track loaded; faster-whisper's own batched pipeline on it; then
             the texts' vectors, then the voices', then all points written in batches of 256
workers      the same in --workers processes, each with its own models

docs/baselines.md says how they were tuned, and what still differs. `python -m benches film` has what becomes of a film
of two hours, `python -m benches libraries` the libraries' own tools for single steps.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from benches.baseline_runs import ONE_BY_ONE, SLUICE, SYSTEMS, Run, Setup, run_system
from benches.baseline_steps import Reader
from benches.baseline_tables import corpus_table, notes, points_table, steps_table, system_bars
from benches.corpus import SEED, media_seconds
from benches.corpus_sources import MEDIA
from benches.measuring import in_turn, ratio_of
from benches.mixed import mixed_corpus
from benches.options import add_models, tiny_models
from benches.report import Cell, Findings, Ratio, Table

TITLE = "Sluice against the way of the systems before it, one video at a time, and against worker processes"

AIM_THROUGHPUT = 1.5
PAIR = (SLUICE, ONE_BY_ONE)
LONG_SECONDS = 60.0  # of a file that is compared by itself
Runs = Mapping[str, Sequence[Run]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=12.0, help="of media, of all files (default: %(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, metavar="DIR", help="videos to make them of")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--rounds", type=int, default=2, help="in which the systems take turns (default: %(default)s)")
    parser.add_argument("--per-file", action="store_true", help="each file of over a minute by itself, too")
    add_setup(parser)
    add_models(parser)


def add_setup(parser: argparse.ArgumentParser) -> None:
    """How the baselines work."""
    parser.add_argument("--reader", choices=get_args(Reader), default="pyav", help="(default: %(default)s)")
    parser.add_argument("--speech-batch", type=int, default=8, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="(default: %(default)s)")


def setup_of(arguments: argparse.Namespace, limit_bytes: int | None = None) -> Setup:
    """What the arguments ask for."""
    return Setup(
        tiny_models(arguments), arguments.reader, arguments.speech_batch, arguments.workers, limit_bytes=limit_bytes
    )


def measure(arguments: argparse.Namespace) -> Findings:
    """All rounds over one corpus."""
    with tempfile.TemporaryDirectory(prefix="sluice-baselines-") as name:
        directory = Path(name)
        media = mixed_corpus(directory / "media", arguments.minutes, arguments.seed, arguments.media)
        setup = setup_of(arguments)
        warm_up(media, directory, setup)
        runs = all_rounds(SYSTEMS, media, directory, setup, arguments.rounds)
        findings = found(runs, sum(map(media_seconds, media)))
        if arguments.per_file:
            add_files(findings, media, directory, setup, arguments.rounds)
    return findings


def warm_up(media: Sequence[Path], directory: Path, setup: Setup) -> None:
    """So that libraries and models are in the page cache for all of them."""
    shortest = min(media, key=media_seconds)
    for system in PAIR:
        run_system(system, [shortest], directory / "warm-up" / system, setup)


def all_rounds(
    systems: Sequence[str], media: Sequence[Path], directory: Path, setup: Setup, rounds: int
) -> dict[str, list[Run]]:
    """Each system over all the media, `rounds` times, in turn."""
    runs: dict[str, list[Run]] = {system: [] for system in systems}
    for number in range(rounds):
        for system in in_turn(systems, number):
            place = directory / f"{media[0].stem}-{len(media)}-{number}" / system
            runs[system].append(run_system(system, media, place, setup))
            print(f"{system}: {runs[system][-1].wall_seconds:.1f} s", file=sys.stderr, flush=True)
    return runs


def found(runs: Runs, seconds: float) -> Findings:
    """Of a whole corpus of so many seconds. Pure."""
    tables = [corpus_table(runs, seconds), points_table(runs), steps_table(runs[ONE_BY_ONE])]
    return Findings(tables, throughput_ratios(runs), [system_bars(runs, seconds)], notes(runs))


def throughput_ratios(runs: Runs) -> list[Ratio]:
    """Wall seconds of a baseline to those of Sluice are Sluice's throughput to the baseline's. Pure."""
    ours = runs[SLUICE]
    ratios: list[Ratio] = []
    for system in (system for system in runs if system != SLUICE):
        aim = AIM_THROUGHPUT if system == ONE_BY_ONE else None
        theirs = runs[system]
        name = f"throughput, Sluice to {system}"
        whole = [run.wall_seconds for run in theirs], [run.wall_seconds for run in ours]
        work = [run.work_seconds for run in theirs], [run.work_seconds for run in ours]
        ratios.append(ratio_of(name, *whole, aim=aim, better="higher"))
        ratios.append(ratio_of(f"{name}, without start-up", *work, better="higher"))
        cpu = [run.cpu_seconds for run in ours], [run.cpu_seconds for run in theirs]
        ratios.append(ratio_of(f"CPU s, Sluice to {system}", *cpu))
        peak = [float(run.peak_pss_bytes) for run in ours], [float(run.peak_pss_bytes) for run in theirs]
        ratios.append(ratio_of(f"peak memory, Sluice to {system}", *peak))
    return ratios


def add_files(findings: Findings, media: Sequence[Path], directory: Path, setup: Setup, rounds: int) -> None:
    """Each long file by itself, against the first baseline: workers are of no use to one file."""
    long = [path for path in media if media_seconds(path) > LONG_SECONDS]
    per_file = {path.name: all_rounds(PAIR, [path], directory / "files", setup, rounds) for path in long}
    findings.tables.append(files_table(per_file))
    for name, runs in per_file.items():
        whole, work, *_ = throughput_ratios(runs)
        findings.ratios.append(Ratio(f"{whole.name}: {name}", whole.value, 1.0, "higher", whole.low, whole.high))
        findings.ratios.append(Ratio(f"{work.name}: {name}", work.value, None, "higher", work.low, work.high))


def files_table(per_file: Mapping[str, Runs]) -> Table:
    """Best times of both for each file. Pure."""
    columns = ("file", "Sluice, s", "one by one, s", "Sluice without start-up, s", "one by one without start-up, s")
    rows: tuple[tuple[Cell, ...], ...] = tuple((name, *best_seconds(runs)) for name, runs in per_file.items())
    return Table("files of over a minute, each by itself", columns, rows)


def best_seconds(runs: Runs) -> Iterator[float]:
    """Of both: whole, then without start-up. Pure."""
    yield from (min(run.wall_seconds for run in runs[system]) for system in PAIR)
    yield from (min(run.work_seconds for run in runs[system]) for system in PAIR)
