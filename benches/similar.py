"""What leaving out similar frames saves, and what it costs in searches: `python -m benches similar [--media DIR|none]`.

Every video is sampled once a second with decode.skip_similar at each threshold, and once without. All frames are
embedded. A frame that was left out is found when the search with its own vector, among the vectors that were sent,
names its video and a time that it lies in.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benches.corpus_sources import MEDIA, sources
from benches.options import add_models, tiny_models
from benches.report import Cell, Chart, Findings, Table
from stages.base import Identity
from stages.image_model import ImageModel
from stages.media import probe
from stages.options import DecodeOptions
from stages.sampling import SampledFrame
from stages.similar import without_similar
from stages.video import read_frames
from transport.messages import FrameFormat

TITLE = "Similar frames sent once: frames saved, and what searches still find"
THRESHOLDS = (2.0, 4.0, 8.0, 16.0)
BATCH = 32

Vectors = NDArray[np.float32]  # [n, dimension], rows of unit length


@dataclass(frozen=True)
class Video:
    """All sampled frames of a video."""

    name: str
    frames: tuple[SampledFrame, ...]
    vectors: Vectors


@dataclass(frozen=True)
class Effect:
    """What one threshold does to one video."""

    frames: int
    sent: int
    cosines: tuple[float, ...]  # of each frame that was left out with the one that stands for it
    found: int  # of those that were left out


def add_arguments(parser: ArgumentParser) -> None:
    """--media, --minutes, --models."""
    parser.add_argument(
        "--media",
        type=lambda text: None if text == "none" else Path(text),
        default=MEDIA if MEDIA.is_dir() else None,
        help="directory of videos with a manifest; none: drawn ones (default: %(default)s)",
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of each video at most (default: %(default)g)")
    add_models(parser)


def measure(arguments: Namespace) -> Findings:
    """Sample, embed, leave out, search."""
    model = ImageModel.load(
        tiny_models(arguments, ("clip",))["clip"], Identity("tiny-clip", "", True), towers="image", dtype="float32"
    )
    with tempfile.TemporaryDirectory(prefix="sluice-similar-") as directory:
        paths = [source.path for source in sources(arguments.media, Path(directory))]
        videos = [sampled(path, model, arguments.minutes * 60) for path in paths]
    return findings({threshold: effects(videos, threshold) for threshold in THRESHOLDS}, videos)


def sampled(path: Path, model: ImageModel, seconds: float) -> Video:
    """One frame a second, with its vector."""
    frames = tuple(frames_of(path, model.frame_format, seconds))
    batches = [frames[begin : begin + BATCH] for begin in range(0, len(frames), BATCH)]
    rows = [model.embed_pixels(np.stack([frame.pixels for frame in batch])) for batch in batches]
    return Video(path.name, frames, np.concatenate(rows))


def frames_of(path: Path, frame_format: FrameFormat, seconds: float) -> list[SampledFrame]:
    """The frames before `seconds`."""
    options = DecodeOptions()
    media = probe(bytes(path), options)
    samples = read_frames(bytes(path), media, 0.0, seconds, frame_format, options)
    return [sample for sample in samples if isinstance(sample, SampledFrame)]


def effects(videos: Sequence[Video], threshold: float) -> list[Effect]:
    """For each video. The search is among all of them."""
    kept = [_kept(video, threshold) for video in videos]
    starts = [[sample.start_seconds for sample in samples] for samples in kept]
    rows = [
        np.isin([frame.start_seconds for frame in v.frames], begin) for v, begin in zip(videos, starts, strict=True)
    ]
    index = np.concatenate([video.vectors[row] for video, row in zip(videos, rows, strict=True)])
    places = [(number, sample) for number, samples in enumerate(kept) for sample in samples]
    done = []
    for number, (video, row) in enumerate(zip(videos, rows, strict=True)):
        own = np.maximum.accumulate(np.where(row, np.arange(len(row)), 0))  # the frame that stands for each
        left = np.flatnonzero(~row)
        best = (video.vectors[left] @ index.T).argmax(axis=1) if len(left) else np.zeros(0, int)
        found = sum(_covers(places[hit], number, video.frames[frame]) for hit, frame in zip(best, left, strict=True))
        cosines = (video.vectors[left] * video.vectors[own[left]]).sum(axis=1)
        done.append(Effect(len(row), int(row.sum()), tuple(float(cosine) for cosine in cosines), found))
    return done


def _kept(video: Video, threshold: float) -> list[SampledFrame]:
    return [sample for sample in without_similar(video.frames, threshold) if isinstance(sample, SampledFrame)]


def _covers(hit: tuple[int, SampledFrame], number: int, frame: SampledFrame) -> bool:
    video, sample = hit
    return video == number and sample.start_seconds <= frame.start_seconds < sample.end_seconds


def neighbours(videos: Sequence[Video]) -> list[float]:
    """Cosines between frames that follow each other: what any two frames of a video have in common."""
    return [float(cosine) for video in videos for cosine in (video.vectors[1:] * video.vectors[:-1]).sum(axis=1)]


def findings(by_threshold: dict[float, list[Effect]], videos: Sequence[Video]) -> Findings:
    """Put together what was measured. Pure."""
    found = Findings()
    rows: list[tuple[Cell, ...]] = []
    for threshold, each in by_threshold.items():
        cosines = [cosine for effect in each for cosine in effect.cosines]
        frames, sent = sum(effect.frames for effect in each), sum(effect.sent for effect in each)
        hits = sum(effect.found for effect in each)
        rows.append(
            (
                threshold, frames, 1 - sent / frames, hits / len(cosines) if cosines else None,
                min(cosines, default=None), float(np.median(cosines)) if cosines else None,
            )
        )  # fmt: skip
    columns = ("skip_similar", "frames", "share saved", "recall@1 of those left out", "lowest cosine", "median cosine")
    found.tables = [Table("All videos", columns, tuple(rows), digits=5), _by_video(by_threshold, videos)]
    found.charts = [
        Chart(
            "similar-saved", "Frames that are not sent", "decode.skip_similar", "share",
            lines={"saved": tuple((row[0], row[2]) for row in rows)},  # type: ignore[misc]
        )
    ]  # fmt: skip
    beside = np.median(neighbours(videos))
    found.notes = [
        "The model is untrained: its vectors follow colours and shapes, not what is to be seen. What a trained one "
        "makes of two frames that differ by a few levels of grey is likely to be as close, but was not measured.",
        "What is not found is where another frame is as near: a slide that comes back, a black picture.",
        f"Cosine between frames that follow each other, similar or not: {beside:.4f} at the median.",
    ]
    return found


def _by_video(by_threshold: dict[float, list[Effect]], videos: Sequence[Video]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for number, video in enumerate(videos):
        saved = (1 - each[number].sent / each[number].frames for each in by_threshold.values())
        rows.append((video.name, len(video.frames), *saved))
    return Table("Share saved of each", ("video", "frames", *(f"{each:g}" for each in by_threshold)), tuple(rows))
