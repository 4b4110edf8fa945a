"""Whole runs with one decoder and with two, on one long film, where decoding is all there is to do.

Speech and voices are off, the image model is the small one, a frame is wanted in five seconds only, and the film is one
of moving pictures in 1080p: slides give a decoder little to do. What the engine uses of the processor stands beside it,
for on two cores that is lacking to the decoders. Time counts from the start of the run: decoders do not wait for the
models.
"""

import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from benches.corpus_sources import MEDIA
from benches.measuring import in_turn, median, ratio_of
from benches.mixed import spoken_film
from benches.options import add_models, tiny_models
from benches.report import Chart, Findings, Table
from benches.whole_run import Ingest, Seen, tiny_settings

TITLE = "two decoders beside one on a long film, when decoding is the bottleneck"

AIM = 1.8
HEIGHT = 1080
ENCODED_SECONDS = 120.0  # of the film, and then repeated: encoding takes a fifth of it
FRAMES_ONLY = ("models.speech=off", "models.voice=off", "models.text=off", "decode.fps=0.2")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("medium", type=Path, nargs="?", metavar="MEDIUM", help="(default: a film of --minutes, 1080p)")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="of the film (default: %(default)g; 120: two hours)"
    )
    parser.add_argument("--decoders", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    add_models(parser)


def measure(arguments: Namespace) -> Findings:
    """As `benches.registry` says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        film = arguments.medium or spoken_film(
            directory / "film", arguments.minutes / 60, MEDIA, HEIGHT, ENCODED_SECONDS
        )
        settings = [*tiny_settings(tiny_models(arguments, ("clip", "whisper", "ecapa"))), *FRAMES_ONLY]
        engines = {
            str(count): Ingest([*settings, f"decode.processes={count}"], directory / "run")
            for count in arguments.decoders
        }
        seen: dict[str, list[Seen]] = {count: [] for count in engines}
        for number in range(arguments.rounds):
            for count in in_turn(list(engines), number):
                seen[count].append(engines[count].run([film]))
    return findings(seen, film.name)


def findings(seen: Mapping[str, Sequence[Seen]], film: str) -> Findings:
    """By number of decoders, the fewest first. Pure."""
    fewest, most = min(seen, key=int), max(seen, key=int)
    below, above = ([each.done.wall_seconds for each in seen[count]] for count in (most, fewest))
    rows = []
    for count, runs in seen.items():
        wall = median([each.done.wall_seconds for each in runs])
        used = {role: median([each.done.cpu_seconds[role] for each in runs]) for role in ("decoder", "engine")}
        rows.append((int(count), wall, used["decoder"], used["engine"], sum(used.values()) / wall))
    columns = ("decoders", "wall s", "decoders' CPU s", "engine's CPU s, loading included", "cores used")
    rates = {f"{count} decoders": _hours_per_hour(runs) for count, runs in seen.items()}
    return Findings(
        tables=[Table(f"Frames of {film}", columns, tuple(rows))],
        ratios=[ratio_of(f"wall: {fewest} decoder / {most} decoders", above, below, AIM, "higher")],
        charts=[Chart("scaling", "Decoders on one film", "", "hours/hour", bars=rates, kind="bars")],
        notes=[
            f"{len(os.sched_getaffinity(0))} cores for decoders, engine and all else together: where there are no more "
            "cores than decoders, what the engine uses is lacking to them.",
        ],
    )


def _hours_per_hour(runs: Sequence[Seen]) -> float:
    media_seconds = float(runs[0].report["videos"][0]["duration_seconds"])
    return media_seconds / median([each.done.wall_seconds for each in runs])
