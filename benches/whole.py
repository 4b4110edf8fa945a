"""The whole engine beside its floor, on the same media and models, in the same minutes.

Each round has three parts in turn: `run.py ingest` on the media; the same on one clip of some seconds, which tells what
a run costs whatever is in it (imports, models, the first of everything, the end); and the floor: decoding alone, models
alone (docs/floor.md). What the clip took is taken off the whole, and both halves of the floor are warm before their
clocks start, so the ratios compare work with work. Decoding begins before the models are loaded: what was decoded by
then is not left to do, and counts for nobody in the wall time from there on.
"""

import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.corpus import SEED, media_seconds
from benches.corpus_sources import MEDIA
from benches.floor import Floor, best_wall_seconds, bounds, left_over, started_bounds, what_binds
from benches.floor_runs import Halves, Measured
from benches.floor_work import Time
from benches.measuring import in_turn, median, ratio_of
from benches.mixed import mixed_corpus
from benches.options import add_models, tiny_models
from benches.report import Findings, Ratio, Table
from benches.sample_video import make_sample
from benches.whole_charts import charts, largest_batches
from benches.whole_run import ROLE_NAMES, Ingest, Seen, tiny_settings

TITLE = "the whole engine beside its floor: processor seconds, and wall time of the best possible schedule"

CPU_AIM = 1.08  # of the whole to decode-only and model-only together
WALL_AIM = 1.10  # … to the best possible schedule
CLIP_SECONDS = 6.0  # a sentence or two: every library that a run needs is needed for it


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("media", type=Path, nargs="*", metavar="MEDIUM", help="files (default: a corpus of --minutes)")
    parser.add_argument("--minutes", type=float, default=4.0, help="of the corpus (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the corpus")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting of all that is run"
    )
    add_models(parser)


@dataclass
class Rounds:
    """What all rounds gave, one entry a round."""

    cores: int
    whole: list[Seen] = field(default_factory=list)
    clip: list[Seen] = field(default_factory=list)
    floors: list[Measured] = field(default_factory=list)

    def floor(self, number: int) -> Floor:
        return self.floors[number].floor(self.cores)

    @property
    def pairs(self) -> list[tuple[Seen, Seen]]:
        """The run on the media, and that on the clip."""
        return list(zip(self.whole, self.clip, strict=True))

    def whole_cpu(self) -> list[float]:
        """Processor seconds of the media, above those of the clip."""
        return [whole.total.cpu_seconds - clip.total.cpu_seconds for whole, clip in self.pairs]

    def whole_wall(self) -> list[float]:
        """Wall seconds of the media from when the models are loaded, above those of the clip."""
        return [whole.work_wall_seconds - clip.work_wall_seconds for whole, clip in self.pairs]

    def decoded_at_start(self) -> list[float]:
        """Processor seconds of decoding that were done when the models were loaded, above those of the clip."""
        return [
            max(0.0, whole.ready.cpu_seconds["decoder"] - clip.ready.cpu_seconds["decoder"])
            for whole, clip in self.pairs
        ]

    def floor_cpu(self) -> list[float]:
        return [self.floor(number).cpu_seconds for number in range(len(self.floors))]

    def all_cores_cpu(self) -> list[float]:
        return [each.all_cores_cpu_seconds for each in self.floors]

    def left(self, number: int) -> Floor:
        """What is left to do when the models are loaded."""
        return left_over(self.floor(number), self.decoded_at_start()[number])

    def best_wall(self) -> list[float]:
        """Of what is left to do when the models are loaded."""
        return [best_wall_seconds(self.left(number)) for number in range(len(self.floors))]

    def best_wall_from_start(self) -> list[float]:
        """Of all of it; the start costs what it costs the clip."""
        return [
            max(started_bounds(self.floor(number), clip.done.total_cpu_seconds, clip.ready.wall_seconds).values())
            for number, clip in enumerate(self.clip)
        ]


def measure(arguments: Namespace) -> Findings:
    """As `benches.registry` says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        media = arguments.media or mixed_corpus(directory / "media", arguments.minutes, arguments.seed, MEDIA)
        settings = [*tiny_settings(tiny_models(arguments)), *arguments.settings]
        traced = directory / "trace.json"
        warm = Ingest(settings, directory / "run", options=("--trace", os.fspath(traced))).run(media)
        rounds = run_rounds(settings, media, directory, largest_batches(traced), arguments.rounds)
        return Findings(
            tables=[seconds_table(rounds), start_table(rounds), processes_table(rounds), media_table(warm)],
            ratios=ratios(rounds),
            charts=charts(rounds.whole[-1], traced),
            notes=notes(rounds, media, arguments.settings),
        )


def run_rounds(
    settings: Sequence[str], media: Sequence[Path], directory: Path, batches: dict[str, int], count: int
) -> Rounds:
    """Whole, clip and floor in turn, the order reversed in every other round."""
    clip = make_sample(directory / "clip.mp4", CLIP_SECONDS, SEED, captions=False)
    engine = Ingest(settings, directory / "run")
    halves = Halves(settings, media, directory / "work", warm_up=clip)
    halves.record()
    rounds = Rounds(len(os.sched_getaffinity(0)))
    candidates: dict[str, Callable[[], Any]] = {
        "whole": lambda: rounds.whole.append(engine.run(media)),
        "clip": lambda: rounds.clip.append(engine.run([clip])),
        "floor": lambda: rounds.floors.append(halves.measure(batches, rounds.cores)),
    }
    for number in range(count):
        for name in in_turn(list(candidates), number):
            candidates[name]()
    return rounds


# --- what came of it: pure --------------------------------------------------------------------------------------------


def ratios(rounds: Rounds) -> list[Ratio]:
    """Those that are aimed at, and the same with all that a short run pays once."""
    floor, best = rounds.floor_cpu(), rounds.best_wall()
    from_start = [whole.done.wall_seconds for whole in rounds.whole]
    with_firsts = [whole.work_wall_seconds for whole in rounds.whole]
    with_start = [whole.total.cpu_seconds for whole in rounds.whole]
    start = [clip.total.cpu_seconds for clip in rounds.clip]
    all_floor = [work + once for work, once in zip(floor, start, strict=True)]
    return [
        ratio_of("CPU seconds: whole / (decode-only + model-only)", rounds.whole_cpu(), floor, CPU_AIM),
        ratio_of("wall, models loaded: whole / best possible schedule", rounds.whole_wall(), best, WALL_AIM),
        ratio_of(
            "wall, from the start: whole / best schedule with it", from_start, rounds.best_wall_from_start(), WALL_AIM
        ),
        ratio_of("CPU seconds: whole / floor with all cores busy", rounds.whole_cpu(), rounds.all_cores_cpu()),
        ratio_of("CPU seconds, start and firsts in both", with_start, all_floor),
        ratio_of("wall, models loaded, with all firsts", with_firsts, best),
    ]


def seconds_table(rounds: Rounds) -> Table:
    """The work: medians over the rounds."""
    rows: list[tuple[Any, ...]] = []
    for name in ("frames", "sound"):
        cpu = median([each.decode.passes[0].part_seconds(name) for each in rounds.floors])
        rows.append((f"decode-only: {name}", cpu, None))
    for role in [part.name for part in rounds.floors[0].least.parts]:
        cpu = median([each.least.part_seconds(role) for each in rounds.floors])
        rows.append((f"model-only: {role}", cpu, None))
    middle = len(rounds.floors) // 2
    rows += [(f"bound of all of it: {name}", None, seconds) for name, seconds in bounds(rounds.floor(middle)).items()]
    rows.append(("floor of all of it", median(rounds.floor_cpu()), None))
    rows.append(("floor of all of it, all cores busy", median(rounds.all_cores_cpu()), None))
    rows.append(("whole engine, above a clip's", median(rounds.whole_cpu()), None))
    rows.append(("of decoding, done when the models are loaded", median(rounds.decoded_at_start()), None))
    rows.append((f"floor of what is left ({what_binds(rounds.left(middle))})", None, median(rounds.best_wall())))
    rows.append(("whole engine from there, above a clip's", None, median(rounds.whole_wall())))
    rows.append(("floor from the start", None, median(rounds.best_wall_from_start())))
    rows.append(("whole engine from the start", None, median([run.done.wall_seconds for run in rounds.whole])))
    return Table("The work, start-up left out", ("", "CPU s", "wall s"), tuple(rows))


def start_table(rounds: Rounds) -> Table:
    """What is left out above."""
    ends = [each.total.wall_seconds - each.ready.wall_seconds for each in rounds.clip]
    rows = (
        _median_row("decode-only", [each.decode.start for each in rounds.floors]),
        _median_row("model-only", [each.models.start for each in rounds.floors]),
        (
            "whole engine, until it is ready",
            median([each.ready.total_cpu_seconds for each in rounds.whole]),
            median([each.ready.wall_seconds for each in rounds.whole]),
        ),
        (
            f"a clip of {CLIP_SECONDS:.0f} s, from there to the end of the run",
            median([each.work_cpu_seconds for each in rounds.clip]),
            median(ends),
        ),
    )
    return Table("Paid once a run: imports, models, the first of everything, the end", ("", "CPU s", "wall s"), rows)


def _median_row(name: str, times: Sequence[Time]) -> tuple[str, float, float]:
    return name, median([each.cpu_seconds for each in times]), median([each.wall_seconds for each in times])


def processes_table(rounds: Rounds) -> Table:
    """Where the whole engine's processor time goes."""
    floors = {
        "decoder": median([each.decode.passes[0].time.cpu_seconds for each in rounds.floors]),
        "engine": median([each.least.time.cpu_seconds for each in rounds.floors]),
    }
    rows: list[tuple[Any, ...]] = []
    for role in ROLE_NAMES:
        work = median([each.done.cpu_seconds[role] for each in rounds.whole])
        clip = median([each.done.cpu_seconds[role] for each in rounds.clip])
        peak = median([_peak_mb(each, role) for each in rounds.whole])
        rows.append((role, work, clip, floors.get(role), peak))
    after = [
        median([each.total.cpu_seconds - each.done.total_cpu_seconds for each in runs])
        for runs in (rounds.whole, rounds.clip)
    ]
    rows.append(("all, after the last video", *after, None, None))
    columns = ("process", "CPU s until the last video is done", "of a clip", "floor of the difference", "peak MB")
    return Table("Processes of the whole engine", columns, tuple(rows))


def _peak_mb(run: Seen, role: str) -> float:
    return max((each.peak_rss_bytes / 1e6 for each in run.processes if each.role == role), default=0.0) or float(
        run.report["totals"]["peak_rss_bytes"][role] / 1e6
    )


def media_table(run: Seen) -> Table:
    """What was indexed."""
    rows = tuple(
        (
            Path(row["path"]).name,
            row["duration_seconds"],
            row["frames"],
            row["speech_segments"],
            row["voice_segments"],
            row["status"],
        )
        for row in run.report["videos"]
    )
    return Table("Media", ("file", "s", "frames", "speech", "voices", "status"), rows)


def notes(rounds: Rounds, media: Sequence[Path], settings: Sequence[str] = ()) -> list[str]:
    """What misleads. settings: given by whoever runs it."""
    minutes = sum(map(media_seconds, media)) / 60
    said = f", but for {', '.join(settings)}" if settings else ""
    return [
        f"{len(media)} files of {minutes:.1f} minutes in all, all transcribed, by small untrained models on the CPU"
        f"{said}. The larger the models, the smaller the share of all else.",
        f"{len(rounds.whole)} rounds; each ratio is the median of the rounds' own. Processor time grows when somebody "
        "else uses the caches of these cores, wall time when somebody else uses the cores.",
        "The store is no part of the floor: what the consumer uses counts against the engine.",
    ]
