"""Sampled frames of a span of a video: the same generator whichever library decodes.

docs/formats.md tells what a sample is, what skipping costs, and what comes of damaged files.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.container

from stages import decord_backend, pyav_backend
from stages.demux import Clock, Job, Opened
from stages.errors import MediaError
from stages.media import open_media
from stages.options import DecodeOptions
from stages.picture import PictureMaker
from stages.sampling import (
    MICROSECONDS,
    FpsSampler,
    Grid,
    KeyframeSampler,
    Sample,
    SampledFrame,
    Span,
)
from stages.similar import without_similar
from stages.spans import plan_spans
from transport.messages import FrameFormat, MediaInfo

__all__ = ["SampledFrame", "plan_spans", "read_frames"]


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
        backend = decord_backend if options.backend == "decord" else pyav_backend
        samples = backend.decode_span(job)
        yield from without_similar(samples, options.skip_similar) if options.skip_similar else samples


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
