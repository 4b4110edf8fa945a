"""Peak memory of every process in whole runs, by the length of the video.

A film is joined to each length by stream copy, and indexed in a whole run: supervisor, engine, consumer and decoders as
processes, small models, one frame a second, an embedded store. Once more with the engine stopped (SIGSTOP) for some
seconds while the decoders still have all their credit: what they send then stays in their own memory, and the same
points must be stored.

Of each decoder, VmHWM (the peak of its resident memory) and RssAnon (the part that is no file) are read from
/proc/PID/status about five times a second; the others say their VmHWM themselves. "Imports" is VmRSS of a process that
the same parent starts in the same way (spawn, mallopt) and that only imports what such a decoder imports. So the voice
detector's weights, resampling filters, file indices and all pages of libraries that only work touches count as above.
"""

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from benches.corpus import repeated
from benches.corpus_sources import MEDIA
from benches.memory_runs import Run, run
from benches.mixed import long_film
from benches.options import add_models, tiny_models
from benches.report import Cell, Chart, Findings, Ratio, Table
from benches.whole_run import ROLE_NAMES

TITLE = "peak memory of every process, by the length of the video"

LIMIT_MB = 250.0  # of a decoder, above its imports
GROWTH = 1.05  # of a decoder's largest peak to that with the engine stopped, when all its credit is in flight


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("medium", type=Path, nargs="?", metavar="MEDIUM", help="to be repeated (default: a film)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0, 10.0, 30.0], help="lengths")
    parser.add_argument("--hours", type=float, nargs="+", default=[], help="further ones: 2 is the one to promise by")
    parser.add_argument("--backend", nargs="+", choices=["pyav", "decord"], default=["pyav"])
    parser.add_argument(
        "--stop-engine", type=float, default=5.0, metavar="SECONDS", help="on the file of middle length; 0: never"
    )
    parser.add_argument("--decoders", type=int, default=1, help="processes; a lone one may hold the most in flight")
    parser.add_argument("--ending", metavar=".EXT", help="container of the files (default: that of the medium)")
    add_models(parser)


def measure(arguments: Namespace) -> Findings:
    """As `benches.registry` says."""
    models, runs = tiny_models(arguments), list[Run]()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        media = films(arguments, directory)
        for backend in arguments.backend:
            for medium, stop_seconds in cases(media, arguments.stop_engine):
                runs.append(run(medium, backend, models, stop_seconds, arguments.decoders))
                print(f"{medium.name}: {runs[-1].peaks_mb}", file=sys.stderr, flush=True)
    return findings(runs)


def films(arguments: Namespace, directory: Path) -> list[Path]:
    """One for each length, the shortest first."""
    lengths = sorted([*arguments.minutes, *(60 * hours for hours in arguments.hours)])
    source = arguments.medium or long_film(directory / "source", lengths[0] / 60, MEDIA)
    ending = arguments.ending or source.suffix
    return [repeated(source, directory / f"{minutes:g}-minutes{ending}", 60 * minutes) for minutes in lengths]


def cases(media: Sequence[Path], stop_seconds: float) -> Iterator[tuple[Path, float]]:
    """Each file once as it is, and the middle one with the engine stopped."""
    yield from ((medium, 0.0) for medium in media)
    if stop_seconds:
        yield media[len(media) // 2], stop_seconds


# --- what came of it: pure --------------------------------------------------------------------------------------------


def findings(runs: Sequence[Run]) -> Findings:
    """Of all runs, those with the engine stopped too."""
    plain = [each for each in runs if not each.stopped_seconds]
    return Findings(
        tables=[table(runs)],
        ratios=[
            highest(runs),
            *beside_stopped(runs),
            *(over_lengths(plain, role) for role in ROLE_NAMES),
            *same_points(runs),
        ],
        charts=charts(plain),
        notes=[
            "MB are millions of bytes. A decoder holds up to 64 MiB that the engine has not taken yet: as much as the "
            "engine lags behind, whatever the length.",
            "The engine's batches grow for about an hour of sound, while the scheduler finds "
            "how large they are worth it, and its memory with them (docs/sound_input.md); the consumer's grows by what "
            "an embedded store holds of each point (docs/store.md).",
        ],
    )


def highest(runs: Sequence[Run]) -> Ratio:
    """How much a decoder takes at most to work."""
    most = max(each.above_imports_mb for each in runs)
    return Ratio("decoder: most above its imports, MB", most, LIMIT_MB)


def beside_stopped(runs: Sequence[Run]) -> Iterator[Ratio]:
    """Whether length takes more of a decoder than an engine that takes nothing off it: of each backend the worst."""
    growths = []
    for backend in dict.fromkeys(each.backend for each in runs):
        mine = [each for each in runs if each.backend == backend]
        stopped = [each.peaks_mb["decoder"] for each in mine if each.stopped_seconds]
        if stopped:
            growths.append(max(each.peaks_mb["decoder"] for each in mine if not each.stopped_seconds) / max(stopped))
    if growths:
        yield Ratio("decoder: peak at any length / with the engine stopped", max(growths), GROWTH)


def over_lengths(plain: Sequence[Run], role: str) -> Ratio:
    """The largest peak to the smallest, of the backend where that is most."""
    growths = []
    for backend in dict.fromkeys(each.backend for each in plain):
        peaks = [each.peaks_mb[role] for each in plain if each.backend == backend]
        growths.append(max(peaks) / min(peaks))
    return Ratio(f"{role}: largest peak / smallest, over lengths", max(growths))


def same_points(runs: Sequence[Run]) -> Iterator[Ratio]:
    """Of the runs in which the engine was stopped, how many stored what the others did."""
    whole = {(each.backend, each.minutes): each.outcome for each in runs if not each.stopped_seconds}
    stopped = [each for each in runs if each.stopped_seconds]
    if stopped:
        same = sum(each.outcome == whole[each.backend, each.minutes] for each in stopped)
        yield Ratio("share of runs with the engine stopped that store the same", same / len(stopped), 1.0, "higher")


def charts(plain: Sequence[Run]) -> list[Chart]:
    """Peaks over lengths, of the first backend; where there is one length only, nothing."""
    first = [each for each in plain if each.backend == plain[0].backend]
    if len(first) < 2:
        return []
    lines = {role: tuple((each.minutes, each.peaks_mb[role]) for each in first) for role in ROLE_NAMES}
    title = "Peak memory by the length of the video"
    return [Chart("memory", title, "minutes of video", "peak resident MB", lines, log_x=True)]


def table(runs: Sequence[Run]) -> Table:
    """One line a run."""
    columns = (
        "backend", "minutes", "engine stopped s", "decoder's imports MB", "decoder MB", "no file MB", "above MB",
        "engine MB", "consumer MB", "supervisor MB", "hours/hour", "frames, speech, voices",
    )  # fmt: skip
    return Table("Peaks", columns, tuple(tuple(_cells(each)) for each in runs))


def _cells(one: Run) -> Iterator[Cell]:
    yield from (one.backend, one.minutes, one.stopped_seconds, one.imports_mb, one.peaks_mb["decoder"])
    yield from (one.anonymous_mb, one.above_imports_mb)
    yield from (one.peaks_mb[role] for role in ("engine", "consumer", "supervisor"))
    yield one.hours_per_hour
    yield ", ".join(str(count) for count in one.points.values())
