"""What benches share: long media made of copies of one, and what a decoder imports for a medium."""

import importlib
import math
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from benches.sample_video import make_sample
from stages.torchaudio_shim import import_torchaudio
from transport.messages import MediaInfo

SEED = 0  # of the generated footage
FOOTAGE_SECONDS = 60.0
_TICKS = 1_000_000  # of av.container.duration and start_time


def footage(medium: Path | None, directory: Path) -> Path:
    """The medium, or a minute of generated footage (seed 0) in `directory` where there is none."""
    if medium is not None:
        return medium
    return make_sample(directory / "footage.mp4", FOOTAGE_SECONDS, SEED, captions=False)


def media_seconds(path: Path) -> float:
    """Duration as the container tells it; 0.0 where it does not."""
    with av.open(str(path)) as container:
        return float(Fraction(container.duration or 0, _TICKS))


def lengthened(source: Path, directory: Path, hours: float, ending: str | None = None) -> Path:
    """A file of about so many hours: whole copies of `source`, at least one."""
    copies = max(1, round(hours * 3600 / media_seconds(source)))
    return concatenate(source, directory / f"{copies}-times{ending or source.suffix}", copies)


def concatenate(source: Path, target: Path, copies: int) -> Path:
    """Write `copies` of the best video and sound stream of `source` by stream copy; the container is that of the name.

    Each copy begins where the longest stream of the one before ends, so that picture and sound stay together. Sound
    before the beginning (the priming of AAC) is left out: it would overlap.
    """
    return _written(source, target, copies, None)


def repeated(source: Path, target: Path, seconds: float) -> Path:
    """As `concatenate`, for so many seconds: the last copy is cut off there, to within a packet."""
    copies = math.ceil(seconds / media_seconds(source))
    return _written(source, target, copies, Fraction(round(seconds * _TICKS), _TICKS))


def _written(source: Path, target: Path, copies: int, limit: Fraction | None) -> Path:
    with av.open(str(target), "w", options={"fflags": "+bitexact"}) as output:  # or Matroska's ids would be by chance
        joined: dict[int, _Joined] = {}  # by index in the source
        begin = Fraction(0)  # seconds
        for _ in range(copies):
            with av.open(str(source)) as medium:
                streams = [stream for kind in ("video", "audio") if (stream := medium.streams.best(kind)) is not None]
                for stream in streams:
                    if stream.index not in joined:
                        joined[stream.index] = _Joined(output.add_stream_from_template(stream, opaque=True))
                shift = begin - Fraction(medium.start_time or 0, _TICKS)
                packets = medium.demux(streams)
                kept = packets if limit is None else _until(packets, limit - shift)
                begin = _append(kept, joined, shift, begin)
    return target


def _until(packets: Iterable[Any], end_seconds: Fraction) -> Iterator[Any]:
    """Those that begin before the end, in the order of decoding: so nothing that is kept lacks what it needs."""
    ended: set[int] = set()
    for packet in packets:
        if packet.stream.index in ended:
            continue
        time = packet.dts if packet.dts is not None else packet.pts
        if time is not None and time * packet.time_base >= end_seconds:
            ended.add(packet.stream.index)
        else:
            yield packet


@dataclass
class _Joined:
    """A stream of the long file."""

    stream: Any
    last_dts: int | None = None  # in ticks of the source


def _append(packets: Iterable[Any], joined: dict[int, _Joined], shift: Fraction, begin: Fraction) -> Fraction:
    """Write all packets, later by `shift` seconds; returns where they end."""
    end = begin
    for packet in packets:
        if not packet.size or packet.pts is None:
            continue  # the empty packet at the end
        target, tick = joined[packet.stream.index], packet.time_base
        offset = round(shift / tick)
        if packet.stream.type == "audio" and (packet.pts + offset) * tick < begin:
            continue
        packet.pts += offset
        packet.dts = packet.dts + offset if packet.dts is not None else _early_dts(packet, target)
        target.last_dts = packet.dts
        end = max(end, (packet.pts + (packet.duration or 0)) * tick)
        packet.stream = target.stream
        target.stream.container.mux(packet)
    return end


def _early_dts(packet: Any, target: _Joined) -> int:
    """Matroska has no dts, and FFmpeg cannot tell that of the first pictures. What rises, and is early, will do."""
    if target.last_dts is not None:
        return target.last_dts + 1
    return int(packet.pts - round(1 / packet.time_base))


def libraries_for(media: MediaInfo, backend: str) -> tuple[str, ...]:
    """Which large libraries a decoder imports, at its start or while it reads such a medium. Pure."""
    detector = ("onnxruntime",) if media.audio is not None else ()
    second = ("decord",) if backend == "decord" and media.video is not None else ()
    return ("torchaudio", *detector, *second)  # torchaudio brings torch


def import_all(names: Sequence[str]) -> None:
    """Import them as a decoder does."""
    for name in names:
        if name == "torchaudio":
            import_torchaudio()
        else:
            importlib.import_module(name)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
