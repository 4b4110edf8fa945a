"""Sampled frames of a span of a video: the same generator whichever library decodes.

docs/formats.md tells what a sample is, what skipping costs, and what comes of damaged files.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.container

from stages import decord_backend
from stages.damage import Health
from stages.demux import Clock, Job, Opened, Watch, packets, position
from stages.errors import MediaError
from stages.media import open_media
from stages.options import DecodeOptions
from stages.picture import PictureMaker
from stages.sampling import (
    MICROSECONDS,
    FpsSampler,
    Grid,
    KeyframeSampler,
    Picture,
    Sample,
    SampledFrame,
    Span,
)
from transport.messages import FrameFormat, MediaInfo

__all__ = ["SampledFrame", "plan_spans", "read_frames"]


def plan_spans(duration_seconds: float | None, options: DecodeOptions) -> tuple[tuple[float, float | None], ...]:
    """Cut a video into spans [start, end) of about decode.span_seconds, on the sampling grid.

    The last is open-ended, because durations lie; one of unknown or absurd duration is a single span.
    """
    if duration_seconds is None or not 0 < duration_seconds <= options.max_hours * 3600:
        return ((0.0, None),)
    grid = Grid(options.fps)
    cells = max(1, grid.cell_of(round(options.span_seconds * MICROSECONDS)))
    span_us = grid.edge_us(cells)
    count = max(1, math.floor(duration_seconds * MICROSECONDS / span_us + 0.5))  # the last: half to one and a half
    edges = [grid.edge_us(index * cells) / MICROSECONDS for index in range(count)]
    return tuple(zip(edges, [*edges[1:], None], strict=True))


def read_frames(
    path: bytes,
    media: MediaInfo,
    start_seconds: float,
    end_seconds: float | None,
    frame_format: FrameFormat,
    options: DecodeOptions,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Sample]:
    """Sample the span [start, end) of a video, in order; a lazy generator that holds a few frames at a time.

    Args:
        media: what probe told of this file.
        end_seconds: None: to wherever the stream ends.
        frame_format: size of the pixels, and how the upright picture is brought to it.
        progress: called about once a second of medium with how far decoding is, in seconds.

    Yields:
        SampledFrame: pixels uint8 RGB [height, width, 3]; Gap where frames should be and cannot be had.

    Raises:
        MediaError: as open_media; no-streams without a video stream; codec-not-allowed by the decord backend.
    """
    with contextlib.ExitStack() as stack:

        def reopen() -> Opened:
            stack.close()
            container = stack.enter_context(open_media(path, options))
            return container, _stream(container, media)

        job = _job(reopen, media, start_seconds, end_seconds, frame_format, options, progress)
        decode = decord_backend.decode_span if options.backend == "decord" else _decode_span
        yield from decode(job)


def _job(
    reopen: Callable[[], Opened],
    media: MediaInfo,
    start_seconds: float,
    end_seconds: float | None,
    frame_format: FrameFormat,
    options: DecodeOptions,
    progress: Callable[[float], None] | None,
) -> Job:
    container, stream = reopen()
    assert media.video is not None
    clock = Clock(stream.time_base, round(media.start_seconds * MICROSECONDS))
    grid = Grid(options.fps)
    span = _span(stream, clock, media, start_seconds, end_seconds)
    sampler = FpsSampler(span, grid) if options.sampling == "fps" else KeyframeSampler(span, grid)
    make = PictureMaker(frame_format, media.video.sample_aspect_ratio, options.max_pixels)
    return Job(container, stream, reopen, clock, grid, span, sampler, make, options, progress, media.video.average_fps)


def _stream(container: "av.container.InputContainer", media: MediaInfo) -> Any:
    if media.video is None:
        raise MediaError("no-streams", "there is no video stream to sample")
    index = media.video.index
    if index >= len(container.streams) or container.streams[index].type != "video":
        raise MediaError("read-error", "the file has changed since it was probed")
    return container.streams[index]


def _span(
    stream: "av.stream.Stream", clock: Clock, media: MediaInfo, start_seconds: float, end_seconds: float | None
) -> Span:
    """Where the stream should end is known from its own duration; from the container's when it is alone in it."""
    container_us = None if media.duration_seconds is None else round(media.duration_seconds * MICROSECONDS)
    stream_end_us = container_us if media.audio is None else None
    if media.video is not None and media.video.duration_seconds is not None:
        first_us = clock.us(stream.start_time) if stream.start_time is not None else 0
        stream_end_us = first_us + round(media.video.duration_seconds * MICROSECONDS)
    return Span(
        start_us=round(start_seconds * MICROSECONDS),
        end_us=None if end_seconds is None else round(end_seconds * MICROSECONDS),
        stream_end_us=stream_end_us,
        shown_end_us=stream_end_us if stream_end_us is not None else container_us,
    )


def _decode_span(job: Job) -> Iterator[Sample]:
    source = position(job)
    context = _configure(job)
    if job.primer is not None:
        _prime(context, job.primer)
    health = Health()
    watch = Watch(job)
    skip = _Skip(job, context.name)
    for packet in packets(job, source):
        seen = watch.look(packet)
        if seen.damage is not None:
            yield from job.sampler.damage(*seen.damage)
        if seen.breaks:
            health.fail(seen.time_us - 1)  # a key frame of this very time heals
        if skip.wants(packet, seen.time_us, context):
            yield from _decode(job, context, packet, seen.time_us, health)
            if job.options.sampling == "keyframes":
                yield from _drain(job, context, health)
    yield from _drain(job, context, health)
    yield from job.finish()


def _prime(context: Any, packet: "av.packet.Packet") -> None:
    with contextlib.suppress(av.FFmpegError):  # a damaged first packet has nothing to tell
        context.decode(packet)
    context.flush_buffers()


def _drain(job: Job, context: Any, health: Health) -> Iterator[Sample]:
    """Get what the decoder holds back for reordering. Key frames need it each: an HEVC decoder drops pictures that were
    not shown when the next sequence starts.
    """
    yield from _decode(job, context, None, 0, health)
    context.flush_buffers()


def _configure(job: Job) -> Any:
    context = job.stream.codec_context
    context.thread_type = "NONE" if job.options.threads == 1 else "AUTO"
    context.thread_count = job.options.threads
    context.options = {"max_pixels": str(job.options.max_pixels)}
    return context


class _Skip:
    """Which packets need not be decoded, so that the samples stay exactly the same.

    keyframes: all but key frames. fps: frames that no other refers to, unless they may be the first of their cell:
    those whose time is before that of all packets of the cell so far. dav1d takes the setting only when it opens.
    """

    def __init__(self, job: Job, decoder: str) -> None:
        self._job = job
        self._auto = job.options.skip == "auto" and decoder != "libdav1d"
        self._first: dict[int, int] = {}  # cell: earliest time in it so far; of the last few cells

    def wants(self, packet: "av.packet.Packet", time_us: int, context: Any) -> bool:
        """False: leave the packet out. Otherwise the context is set for it."""
        if self._job.options.sampling == "keyframes":
            return bool(packet.is_keyframe)
        if not self._auto:
            return True
        context.skip_frame = "DEFAULT" if packet.pts is None or self._may_be_first(time_us) else "NONREF"
        return True

    def _may_be_first(self, time_us: int) -> bool:
        cell = self._job.grid.cell_of(time_us)
        if time_us >= self._first.get(cell, time_us + 1):
            return False
        self._first[cell] = time_us
        if len(self._first) > 64:  # reordering never spans more cells than it spans frames, and those are at most 16
            del self._first[min(self._first)]
        return self._job.span.holds(time_us)


def _decode(
    job: Job, context: Any, packet: "av.packet.Packet | None", time_us: int, health: Health
) -> Iterator[Sample]:
    """Decode one packet, or what the decoder still holds (None), and pass on the good pictures."""
    try:
        frames = context.decode(packet)
    except (av.FFmpegError, ValueError) as error:
        if packet is None:
            return
        health.fail(time_us)
        yield from job.sampler.damage(time_us, f"corrupt: {getattr(error, 'strerror', None) or error}")
        return
    for frame in frames:
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            continue  # its cell stays without a picture, which the sampler reports
        frame_us = job.clock.us(stamp)
        key = frame.key_frame or job.options.sampling == "keyframes"  # some decoders do not tell; the container did
        if health.admits(frame_us, key, frame.is_corrupt):
            render = functools.partial(job.make, frame)
            yield from job.sampler.picture(Picture(frame_us, job.clock.length_us(frame.duration), key, render))
        elif frame.is_corrupt:
            yield from job.sampler.damage(frame_us, "corrupt: the decoder marks a damaged picture")
