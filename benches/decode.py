"""What decoding costs: `python -m benches decode [--media DIR|none] [--seconds 180] [--rounds 5]`.

One picture track, encoded by five codecs, is sampled to 224 x 224: by our decoders, and by the plain readers of
benches/decode_readers.py, which stop at nothing and check nothing. What they give is compared, times and pixels.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from benches.corpus import repeated
from benches.corpus_sources import MEDIA, Recipe, encoded, sources
from benches.decode_readers import (
    SIDE,
    Sampled,
    decord_batches,
    decord_steps,
    every_frame,
    key_frames,
    without_nonref,
    without_rests,
)
from benches.measuring import Cost, cost_of, median, ratio_of, rounds, spread
from benches.report import Cell, Chart, Findings, Ratio, Table
from stages.media import probe
from stages.options import DecodeOptions
from stages.sampling import MICROSECONDS, Grid, Span
from stages.skipping import Restarts, Skipper
from stages.spans import spans_of
from stages.video import SampledFrame, read_frames
from transport.messages import FrameFormat

TITLE = "Decoding: backends and sampling modes against the fastest readers that give the same frames"
AIM = 1.1  # of the fastest reader
CLIP_SECONDS = 20.0  # is encoded, and then repeated by stream copy
SIZE = (640, 360)
KEY_PASSES = 3  # of key frames in one run: a single one takes some hundredths of a second
RATES = (0.1, 0.5, 1.0, 2.0, 5.0)  # samples a second, of the chart
SHARES = (1.0, 0.1)  # samples a second, at which packets are counted
FORMAT = FrameFormat(width=SIDE, height=SIDE, fit="crop")

# As people's files are made: long GOPs, cut at scenes, B-frames where the codec has them.
RECIPES = (
    Recipe("h264.mp4", "libx264", {"preset": "veryfast"}, SIZE, None),
    Recipe("hevc.mp4", "libx265", {"preset": "superfast", "x265-params": "log-level=error:pools=1"}, SIZE, None),
    Recipe("vp9.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, SIZE, None),
    Recipe("av1.webm", "libsvtav1", {"preset": "10", "svtav1-params": "lp=1"}, SIZE, None),
    Recipe("mpeg4.mp4", "mpeg4", {"b": "1500000", "g": "250"}, SIZE, None),
)
MODES = ("1 fps", "key frames")
COMPARED = tuple(f"{who}, {mode}" for mode in MODES for who in ("ours", "fastest reader"))
OTHER_ROUNDS = 2
Run = Callable[[], Sampled]


def add_arguments(parser: ArgumentParser) -> None:
    """--media, --seconds, --rounds."""
    parser.add_argument(
        "--media",
        type=lambda text: None if text == "none" else Path(text),
        default=MEDIA if MEDIA.is_dir() else None,
        help="directory of videos with a manifest, the longest of which gives the pictures; none: drawn ones "
        "(default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=90.0, help="length of each file (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)d)")


def measure(arguments: Namespace) -> Findings:
    """Make the files, measure, compare."""
    with tempfile.TemporaryDirectory(prefix="sluice-decode-") as directory:
        files = make_files(arguments.media, Path(directory), arguments.seconds)
        runs = {f"{codec}: {name}": run for codec, path in files.items() for name, run in candidates(path).items()}
        pictures = {name: run() for name, run in runs.items()}  # which warms up, too
        costs = _costs(runs, arguments.rounds)
        first, *_ = files.values()
        shares = {codec: {fps: share_decoded(path, fps) for fps in SHARES} for codec, path in files.items()}
        line = tuple((fps, _cost_at(first, fps, arguments.seconds)) for fps in RATES)
    return findings(list(files), costs, pictures, line, shares)


def _costs(runs: Mapping[str, Run], count: int) -> dict[str, list[Cost]]:
    """Those that are compared in ratios run in turn; the others, which take as long together, behind them and less."""
    main = {name: partial(_run, run) for name, run in runs.items() if name.partition(": ")[2] in COMPARED}
    others = {name: partial(_run, run) for name, run in runs.items() if name not in main}
    return rounds(main, count, warm_up=False) | rounds(others, min(count, OTHER_ROUNDS), warm_up=False)


def make_files(media: Path | None, directory: Path, seconds: float) -> dict[str, Path]:
    """The same pictures by every recipe: codec → file."""
    longest = max(sources(media, directory / "drawn", CLIP_SECONDS), key=lambda source: source.seconds)
    clip = repeated(longest.path, directory / f"clip{longest.path.suffix}", min(CLIP_SECONDS, seconds))
    files = {}
    for recipe in RECIPES:
        short = encoded(clip, directory / f"short-{recipe.name}", recipe)
        files[recipe.name.partition(".")[0]] = repeated(short, directory / recipe.name, seconds)
    return files


def candidates(path: Path) -> dict[str, Run]:
    """What is measured of a file. The first has all readers; for others two tell enough."""
    ours, keys = DecodeOptions(), DecodeOptions(sampling="keyframes")
    few: dict[str, Run] = {
        "ours, 1 fps": partial(ours_of, path, ours),
        "fastest reader, 1 fps": partial(without_rests, path, 1.0),
        "ours, key frames": partial(_times, KEY_PASSES, partial(ours_of, path, keys)),
        "fastest reader, key frames": partial(_times, KEY_PASSES, partial(key_frames, path, 1.0)),
    }
    if not path.name.startswith("h264"):
        return few
    return few | {
        "ours, 1 fps, skip = none": partial(ours_of, path, DecodeOptions(skip="none")),
        "ours, 1 fps, decord": partial(ours_of, path, DecodeOptions(backend="decord")),
        "reader that decodes every frame": partial(every_frame, path, 1.0),
        "reader without non-reference frames": partial(without_nonref, path, 1.0),
        "decord, get_batch": partial(decord_batches, path, 1.0),
        "decord, skip_frames and next": partial(decord_steps, path, 1.0),
    }


def ours_of(path: Path, options: DecodeOptions) -> Sampled:
    """All spans of a file, one after the other, in this process."""
    name = bytes(path)
    media = probe(name, options)
    samples = Sampled()
    for start, end in spans_of(media, options):
        for sample in read_frames(name, media, start, end, FORMAT, options):
            if isinstance(sample, SampledFrame):
                samples.append((sample.start_seconds, sample.pixels))
    return samples


def _times(count: int, run: Run) -> Sampled:
    return [run() for _ in range(count)][-1]


def _run(run: Run) -> Mapping[str, float]:
    return {"frames": len(run())}


def _cost_at(path: Path, fps: float, seconds: float) -> float:
    """CPU seconds for an hour of the file."""
    cost = cost_of(partial(_run, partial(ours_of, path, DecodeOptions(fps=fps))))
    return cost.cpu_seconds * 3600 / seconds


def share_decoded(path: Path, fps: float) -> float:
    """Of the packets of a file, how many reach the decoder, which may still pass over those that no other needs."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context: Any = stream.codec_context
        restarts = Restarts(context.codec.canonical_name, context.codec.intra_only, context.extradata)
        skipper = Skipper(Grid(fps), Span(0, None, None, None), restarts)
        count = given = 0
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                steps = skipper.push(packet, round(packet.pts * stream.time_base * MICROSECONDS))
                if any(step.wanted for step in steps):
                    skipper.found()
                count, given = count + 1, given + len(steps)
    return given / count


# --- findings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likeness:
    """How far two readers gave the same."""

    frames: int
    same_times: int
    same_pixels: int


def likeness(ours: Sampled, theirs: Sampled) -> Likeness:
    """Frame by frame. Times are the same within a microsecond, in which ours are counted."""
    pairs = list(zip(ours, theirs, strict=False))
    same_times = sum(abs(mine[0] - other[0]) < 2e-6 for mine, other in pairs)
    same_pixels = sum(np.array_equal(mine[1], other[1]) for mine, other in pairs)
    return Likeness(max(len(ours), len(theirs)), same_times, same_pixels)


def findings(
    codecs: list[str],
    costs: Mapping[str, list[Cost]],
    pictures: Mapping[str, Sampled],
    line: tuple[tuple[float, float], ...],
    shares: Mapping[str, Mapping[float, float]],
) -> Findings:
    """Put together what was measured. Pure."""
    found = Findings()
    for codec in codecs:
        for mode in MODES:
            found.ratios += _ratios(codec, mode, costs, pictures)
    found.tables = [_readers(codecs[0], costs, pictures), _codecs(codecs, costs, pictures), _shares(shares)]
    bars = {
        name.removeprefix("h264: "): median([cost.cpu_seconds for cost in runs])
        for name, runs in costs.items()
        if name.startswith(codecs[0] + ": ") and "key frames" not in name
    }
    found.charts = [
        Chart("decode-readers", f"1 frame a second of {codecs[0]}", "", "CPU s", bars=bars, kind="bars"),
        Chart(
            "decode-rates", "Sampling rate and decoding", "frames a second", "CPU s for an hour",
            lines={codecs[0]: line}, log_x=True,
        ),
    ]  # fmt: skip
    found.notes = [
        "The fastest reader is a loop over PyAV that leaves out what we leave out. It opens a file once, looks for no "
        "damage, turns no picture, and believes every mark of a key frame.",
        f"Key frames: {KEY_PASSES} passes over the file in each run.",
        "Ours opens a file once more to probe it, and once for each span; behind the first, it begins at the key frame "
        "before.",
        "decord scales in its own way; its pixels differ, and are not compared.",
    ]
    return found


def _ratios(codec: str, mode: str, costs: Mapping[str, list[Cost]], pictures: Mapping[str, Sampled]) -> list[Ratio]:
    ours, theirs = f"{codec}: ours, {mode}", f"{codec}: fastest reader, {mode}"
    alike = likeness(pictures[ours], pictures[theirs])
    share = min(alike.same_times, alike.same_pixels) / max(1, alike.frames)
    return [
        ratio_of(
            f"{codec}, {mode}: CPU seconds, ours / fastest reader",
            [cost.cpu_seconds for cost in costs[ours]],
            [cost.cpu_seconds for cost in costs[theirs]],
            AIM,
        ),
        ratio_of(
            f"{codec}, {mode}: wall seconds, ours / fastest reader",
            [cost.wall_seconds for cost in costs[ours]],
            [cost.wall_seconds for cost in costs[theirs]],
            AIM,
        ),
        Ratio(f"{codec}, {mode}: share of frames with the same time and pixels", share, 1.0, "higher"),
    ]


def _readers(codec: str, costs: Mapping[str, list[Cost]], pictures: Mapping[str, Sampled]) -> Table:
    """All candidates of the first codec; likeness with what ours gives at one frame a second."""
    rows = []
    for name, runs in costs.items():
        if not name.startswith(codec + ": "):
            continue
        mode: Literal["1 fps", "key frames"] = "key frames" if "key frames" in name else "1 fps"
        alike = likeness(pictures[f"{codec}: ours, {mode}"], pictures[name])
        cpu, wall = [cost.cpu_seconds for cost in runs], [cost.wall_seconds for cost in runs]
        low, high = spread(cpu)
        passes = KEY_PASSES if mode == "key frames" else 1
        rows.append(
            (
                name.removeprefix(codec + ": "), median(cpu), f"{low:.3g} to {high:.3g}", median(wall),
                len(pictures[name]), median(cpu) / passes / max(1, len(pictures[name])) * 1000, alike.same_times,
                None if "decord" in name else alike.same_pixels,
            )
        )  # fmt: skip
    columns = ("reader", "CPU s", "spread", "wall s", "frames", "CPU ms a frame", "same times", "same pixels")
    return Table(f"Readers of {codec}, {SIZE[0]}x{SIZE[1]}", columns, tuple(rows))


def _codecs(codecs: list[str], costs: Mapping[str, list[Cost]], pictures: Mapping[str, Sampled]) -> Table:
    rows = []
    for codec in codecs:
        for mode in MODES:
            ours, theirs = f"{codec}: ours, {mode}", f"{codec}: fastest reader, {mode}"
            mine, other = (median([cost.cpu_seconds for cost in costs[name]]) for name in (ours, theirs))
            alike = likeness(pictures[ours], pictures[theirs])
            rows.append((codec, mode, mine, other, alike.frames, alike.same_times, alike.same_pixels))
    columns = ("codec", "sampling", "ours, CPU s", "fastest reader, CPU s", "frames", "same times", "same pixels")
    return Table("Codecs", columns, tuple(rows))


def _shares(shares: Mapping[str, Mapping[float, float]]) -> Table:
    rates = list(next(iter(shares.values())))
    rows: tuple[tuple[Cell, ...], ...] = tuple((codec, *each.values()) for codec, each in shares.items())
    return Table("Share of the packets that reach the decoder", ("codec", *(f"{fps:g} fps" for fps in rates)), rows)
