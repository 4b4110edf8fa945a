"""Small sound files and caption tracks, made with PyAV."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from stages.media import probe
from stages.options import DecodeOptions
from transport.messages import MediaInfo

Samples = npt.NDArray[np.float32]


def tone(seconds: float, rate: int = 16_000, hertz: float = 440.0, level: float = 0.5) -> Samples:
    """A sine, float32 [n]."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_sound(
    path: Path,
    channels: Sequence[Samples],
    rate: int = 16_000,
    layout: str = "mono",
    codec: str = "pcm_s16le",
    holes: Iterable[tuple[float, float]] = (),
    shift_seconds: float = 0.0,
    broken: Iterable[int] = (),
    frame_samples: int = 1024,
) -> Path:
    """Encode channels. Packets that begin inside `holes` are left out; those numbered in `broken` become 0xFF."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frames = _frames(stream, np.stack(channels), rate, layout, frame_samples)
        packets = [packet for frame in frames for packet in stream.encode(frame)] + stream.encode(None)
        for number, packet in enumerate(packets):
            begin = float(packet.pts * packet.time_base)
            if any(start <= begin < end for start, end in holes):
                continue
            if number in set(broken):
                packet.update(b"\xff" * packet.size)
            packet.pts += round(shift_seconds / packet.time_base)
            packet.dts = packet.pts
            container.mux(packet)
    return path


def _frames(
    stream: "av.AudioStream", samples: Samples, rate: int, layout: str, frame_samples: int
) -> Iterable["av.AudioFrame"]:
    name = stream.codec_context.format.name
    size = stream.codec_context.frame_size or frame_samples
    for begin in range(0, samples.shape[1], size):
        piece = samples[:, begin : begin + size]
        if name.startswith("s16"):
            piece = np.rint(piece * 32767).astype(np.int16)
        if not name.endswith("p"):
            piece = piece.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format=name, layout=layout)
        frame.sample_rate = rate
        frame.pts = begin
        yield frame


def info(path: Path) -> MediaInfo:
    return probe(os.fsencode(path), DecodeOptions())
