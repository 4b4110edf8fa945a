"""What a corpus is made of: short videos of many kinds, real ones where there are any, else drawn and encoded here."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.codec import UnknownCodecError

from benches.sample_video import make_sample
from stages.errors import MediaError

MEDIA = Path("../shared/media")
WELL = frozenset({"ok", "ok_no_audio", "ok_no_speech"})  # verdicts of its manifest on videos that are as they should be
SHORTEST_SECONDS = 5.0
DRAWN_SECONDS = 30.0
_TICKS = 1_000_000  # of av.container.duration


@dataclass(frozen=True, slots=True)
class Source:
    """A video to be copied over and over."""

    path: Path
    seconds: float
    video: str  # codec, as FFmpeg calls it
    audio: str | None
    height: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How drawn footage is encoded."""

    name: str  # of the file
    encoder: str
    options: dict[str, str]
    size: tuple[int, int]
    sound: str | None  # encoder


RECIPES = (
    Recipe("hevc-720p.mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=error"}, (1280, 720), "ac3"),
    Recipe("vp9-480p.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, (854, 480), "libopus"),
    Recipe("av1-360p.webm", "libsvtav1", {"preset": "10"}, (640, 360), "libopus"),
    Recipe("mpeg4-270p.mkv", "mpeg4", {"b": "800000"}, (480, 270), "libmp3lame"),
    Recipe("h264-1080p-silent.mp4", "libx264", {"preset": "ultrafast"}, (1920, 1080), None),
)


def sources(media: Path | None, directory: Path, drawn_seconds: float = DRAWN_SECONDS) -> list[Source]:
    """Those of a media directory with a manifest, in the order of their names; else drawn ones, made in `directory`.

    Raises MediaError where the directory has a manifest and none of its videos is there.
    """
    if media is None or not (media / "manifest.json").is_file():
        return [looked_at(path) for path in drawn(directory, drawn_seconds)]
    found = [looked_at(path) for path in listed(media)]
    if not found:
        raise MediaError("no-media", f"{media}/manifest.json names no video that is there and as it should be: --media")
    return [source for source in found if source.seconds >= SHORTEST_SECONDS]


def listed(media: Path) -> Iterator[Path]:
    """The videos of a manifest that are as they should be."""
    files: list[dict[str, Any]] = json.loads((media / "manifest.json").read_text("utf-8"))["files"]
    for file in sorted(files, key=lambda file: str(file["name"])):
        if file["expect"]["verdict"] in WELL and (media / file["name"]).is_file():
            yield media / file["name"]


def looked_at(path: Path) -> Source:
    """What the container tells of it. Raises av.error.FFmpegError, IndexError where there is no video stream."""
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.best("audio")
        seconds = float(Fraction(container.duration or 0, _TICKS))
        audio = None if sound is None else sound.codec_context.codec.canonical_name
        return Source(path, seconds, video.codec_context.codec.canonical_name, audio, video.codec_context.height)


def drawn(directory: Path, seconds: float) -> Iterator[Path]:
    """The sample video without captions (benches/sample_video.py), and the same by every encoder that is here."""
    directory.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SVT_LOG", "1")  # errors: the AV1 encoder prints a page of settings otherwise
    first = directory / "h264-360p.mp4"
    yield make_sample(first, seconds, captions=False)
    for recipe in RECIPES:
        if can_encode(recipe.encoder) and (recipe.sound is None or can_encode(recipe.sound)):
            yield encoded(first, directory / recipe.name, recipe)


def can_encode(name: str) -> bool:
    """Whether this build of FFmpeg has the encoder."""
    try:
        return bool(av.Codec(name, "w").is_encoder)
    except UnknownCodecError:
        return False


def encoded(source: Path, target: Path, recipe: Recipe) -> Path:
    """Write it as the recipe says."""
    with av.open(str(source)) as medium, av.open(str(target), "w", options={"fflags": "+bitexact"}) as output:
        video = output.add_stream(recipe.encoder, rate=medium.streams.video[0].average_rate, options=recipe.options)
        video.width, video.height, video.pix_fmt = *recipe.size, "yuv420p"
        sound = output.add_stream(recipe.sound, rate=48000, layout="mono") if recipe.sound is not None else None
        for frame in medium.decode(*([0] if sound is None else [0, 1])):
            if isinstance(frame, av.VideoFrame):
                output.mux(video.encode(frame.reformat(*recipe.size)))
            elif sound is not None:
                output.mux(sound.encode(frame))
        output.mux(video.encode())
        if sound is not None:
            output.mux(sound.encode())
    return target
