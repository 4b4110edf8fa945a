"""Plain readers of sampled frames, each in one loop, to compare our decoding with: no spans, no checks of anything.

They take what is good for granted, and would go wrong on damaged files, on turned pictures, or where a key frame is no
place to begin (docs/formats.md). Each gives (seconds, uint8 RGB [SIDE, SIDE, 3]) of every sample of a file: the first
frame in each cell of 1 / fps seconds, or every key frame.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Discard
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from stages.picture import INTERPOLATION

SIDE = 224
DECORD_BATCH = 64  # frames for each get_batch: 17 MB of them

Sampled = list[tuple[float, NDArray[np.uint8]]]
Reader = Callable[[Path, float], Sampled]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """A container, its video stream, and a decoder on one thread."""
    with av.open(str(path), buffer_size=1 << 20) as container:
        stream = container.streams.video[0]
        for other in container.streams:
            other.discard = other.discard if other is stream else Discard.all
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        yield container, stream, stream.codec_context


class _Pixels:
    """Scales a frame so that it covers SIDE x SIDE, and cuts out the middle: as stages/picture.py does."""

    def __init__(self, packed: bool = False) -> None:
        self._scaler = VideoReformatter()
        self._packed = packed

    def __call__(self, frame: "av.VideoFrame") -> NDArray[np.uint8]:
        factor = max(SIDE / frame.width, SIDE / frame.height)
        width, height = max(SIDE, round(frame.width * factor)), max(SIDE, round(frame.height * factor))
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        target = "rgb24" if self._packed else "gbrp"
        hd = frame.height >= 720 or frame.width >= 1280
        unsaid = Colorspace.ITU709 if hd else Colorspace.ITU601
        matrix = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601}.get(frame.colorspace, unsaid)
        scaled = self._scaler.reformat(
            frame, width, height, target, src_colorspace=matrix, interpolation=INTERPOLATION, threads=1
        )
        if self._packed:
            return np.ascontiguousarray(scaled.to_ndarray()[top : top + SIDE, left : left + SIDE])
        pixels = np.empty((SIDE, SIDE, 3), np.uint8)
        for channel, plane in zip((1, 2, 0), scaled.planes, strict=True):  # green, blue, red
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
            pixels[..., channel] = rows[top : top + SIDE, left : left + SIDE]
        return pixels


def every_frame(path: Path, fps: float) -> Sampled:
    """As most people write it: decode everything, keep the first frame of each cell."""
    samples, last, pixels = Sampled(), -1, _Pixels(packed=True)
    with _opened(path) as (container, stream, _):
        for frame in container.decode(stream):
            cell = _cell(frame.time, fps)
            if cell > last:
                last = cell
                samples.append((frame.time, pixels(frame)))
    return samples


def without_nonref(path: Path, fps: float) -> Sampled:
    """Frames that no other needs are not decoded, but for those that may be samples."""
    samples, pixels, first = Sampled(), _Pixels(), dict[int, float]()
    with _opened(path) as (container, stream, context):
        for packet in container.demux(stream):
            if packet.size:
                context.skip_frame = "DEFAULT" if _may_be_first(packet, fps, first) else "NONREF"
            _take(context.decode(packet), stream, fps, pixels, samples)
    return samples


def without_rests(path: Path, fps: float) -> Sampled:
    """Nor what follows the last sample of a GOP. The fastest that we know of."""
    samples, pixels, first, held = Sampled(), _Pixels(), dict[int, float](), list[Any]()
    fresh = False
    with _opened(path) as (container, stream, context):
        for packet in container.demux(stream):
            if packet.is_keyframe and held:
                held, fresh = [], True
            if not packet.size or not _may_be_first(packet, fps, first):
                held.append(packet)
                continue
            if fresh:
                _take(context.decode(None), stream, fps, pixels, samples)
                context.flush_buffers()
                fresh = False
            context.skip_frame = "NONREF"
            for earlier in held:
                _take(context.decode(earlier), stream, fps, pixels, samples)
            context.skip_frame = "DEFAULT"
            _take(context.decode(packet), stream, fps, pixels, samples)
            held = []
        _take(context.decode(None), stream, fps, pixels, samples)
    return samples


def key_frames(path: Path, fps: float) -> Sampled:
    """Only key frames reach the decoder. The fastest that we know of."""
    del fps
    samples, pixels = Sampled(), _Pixels()
    with _opened(path) as (container, stream, context):
        each = context.name == "hevc"  # otherwise its decoder drops what was not shown when the next sequence starts
        for packet in container.demux(stream):
            if packet.is_keyframe or not packet.size:
                samples += [
                    (_seconds(frame, stream), pixels(frame))
                    for frame in context.decode(packet if packet.size else None)
                ]
                if each and packet.size:
                    samples += [(_seconds(frame, stream), pixels(frame)) for frame in context.decode(None)]
                    context.flush_buffers()
    return samples


def decord_batches(path: Path, fps: float) -> Sampled:
    """decord's get_batch, a number of samples at a time. It scales in its own way."""
    reader, times, wanted = _decord(path, fps)
    samples = Sampled()
    for begin in range(0, len(wanted), DECORD_BATCH):
        numbers = wanted[begin : begin + DECORD_BATCH]
        pictures = reader.get_batch(numbers).asnumpy()
        samples += [(times[number], _middle(picture)) for number, picture in zip(numbers, pictures, strict=True)]
    return samples


def decord_steps(path: Path, fps: float) -> Sampled:
    """decord's skip_frames and next."""
    reader, times, wanted = _decord(path, fps)
    samples, position = Sampled(), 0
    for number in wanted:
        if number > position:
            reader.skip_frames(number - position)
        samples.append((times[number], _middle(reader.next().asnumpy())))
        position = number + 1
    return samples


def _decord(path: Path, fps: float) -> tuple[Any, list[float], list[int]]:
    decord = importlib.import_module("decord")
    decord.logging.set_level(decord.logging.QUIET)
    height, width, _ = decord.VideoReader(str(path), num_threads=1)[0].shape
    factor = max(SIDE / width, SIDE / height)
    reader = decord.VideoReader(str(path), width=round(width * factor), height=round(height * factor), num_threads=1)
    times = [float(begin) for begin, _ in reader.get_frame_timestamp(range(len(reader)))]
    wanted, last = list[int](), -1
    for number, seconds in enumerate(times):
        if _cell(seconds, fps) > last:
            last = _cell(seconds, fps)
            wanted.append(number)
    return reader, times, wanted


def _middle(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (picture.shape[0] - SIDE) // 2, (picture.shape[1] - SIDE) // 2
    return np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE])


def _cell(seconds: float, fps: float) -> int:
    return int(seconds * fps + 1e-4)


def _may_be_first(packet: Any, fps: float, first: dict[int, float]) -> bool:
    """Whether its time is before that of all packets of the cell so far."""
    seconds = float(packet.pts * packet.time_base)
    cell = _cell(seconds, fps)
    if seconds >= first.get(cell, seconds + 1):
        return False
    first[cell] = seconds
    return True


def _take(frames: list[Any], stream: Any, fps: float, pixels: _Pixels, samples: Sampled) -> None:
    for frame in frames:
        seconds = _seconds(frame, stream)
        if not samples or _cell(seconds, fps) > _cell(samples[-1][0], fps):
            samples.append((seconds, pixels(frame)))


def _seconds(frame: Any, stream: Any) -> float:
    """frame.time is not known of frames that a decoder gives last."""
    return float(frame.pts * stream.time_base)
