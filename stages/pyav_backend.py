"""Decodes a span with PyAV: one packet after the other, those that matter."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from stages.damage import Health
from stages.demux import Job, Watch, packets, position
from stages.sampling import BadPictureError, Picture, Sample, SampledFrame
from stages.skipping import Everything, KeyFrames, Restarts, Skipper, Step


def decode_span(job: Job) -> Iterator[Sample]:
    """The samples of a span, in order, and what is missing.

    Raises:
        MediaError: read-error.
    """
    source = position(job)
    decoding = _Decoding(job)
    watch = Watch(job)
    for read in packets(job, source):
        seen = watch.look(read)
        if seen.damage is not None:
            yield from decoding.damaged(*seen.damage)
        if seen.breaks:
            decoding.health.fail(read.time_us - 1)  # a key frame of this very time heals
        if steps := decoding.skip.push(read.packet, read.time_us):
            yield from decoding.run(steps)
    yield from decoding.run(decoding.skip.finish())
    yield from decoding.drain()
    yield from job.finish()


class _Decoding:
    """The decoder of a span."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._context: Any = job.stream.codec_context
        self._context.thread_type = "NONE" if job.options.threads == 1 else "AUTO"
        self._context.thread_count = job.options.threads
        self._context.options = {"max_pixels": str(job.options.max_pixels)}
        if job.primer is not None:
            self._prime(job.primer)
        self.health = Health()
        self.skip = _skip(job, self._context)
        # dav1d takes the setting only when it opens.
        self._may_skip = job.options.skip == "auto" and self._context.name != "libdav1d"
        self._is_fed = False  # since the last drain

    def run(self, steps: Iterable[Step]) -> Iterator[Sample]:
        """Decode these."""
        for step in steps:
            if step.fresh:
                yield from self.drain()
            if self._may_skip:
                self._context.skip_frame = "DEFAULT" if step.wanted else "NONREF"
            self._job.beat(step.time_us)
            yield from self._decode(step)
            if step.alone:
                yield from self.drain()

    def drain(self) -> Iterator[Sample]:
        """Get what the decoder holds back for reordering, and let it forget what it knows."""
        if not self._is_fed:
            return
        self._is_fed = False
        with contextlib.suppress(av.FFmpegError, ValueError):
            for frame in self._context.decode(None):
                yield from self._show(frame)
        self._context.flush_buffers()

    def damaged(self, time_us: int, reason: str) -> Iterator[Sample]:
        """From about this time on the file itself is damaged."""
        yield from self.run(self.skip.release())
        self.skip.lost()
        yield from self._job.sampler.damage(time_us, reason)

    def _prime(self, packet: "av.packet.Packet") -> None:
        with contextlib.suppress(av.FFmpegError):  # a damaged first packet has nothing to tell
            self._context.decode(packet)
        self._context.flush_buffers()

    def _decode(self, step: Step) -> Iterator[Sample]:
        self._is_fed = True
        try:
            frames = self._context.decode(step.packet)
        except (av.FFmpegError, ValueError) as error:
            self.health.fail(step.time_us)
            self.skip.lost()
            reason = f"corrupt: {getattr(error, 'strerror', None) or error}"
            yield from self._job.sampler.damage(step.time_us, reason)
            return
        if step.wanted and not frames and self._context.reorder_depth == 0:
            self.skip.absent(step.time_us)
        for frame in frames:
            yield from self._show(frame)

    def _show(self, frame: "av.VideoFrame") -> Iterator[Sample]:
        """Pass a decoded picture on, if it shows what was filmed."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            return  # its cell stays without a picture, which the sampler reports
        job = self._job
        time_us = job.clock.us(stamp)
        key = frame.key_frame or job.options.sampling == "keyframes"  # some decoders do not tell; the container did
        if self.health.admits(time_us, key, frame.is_corrupt):
            duration_us = job.clock.length_us(frame.duration)
            for sample in job.sampler.picture(Picture(time_us, duration_us, key, lambda: self._render(frame))):
                if isinstance(sample, SampledFrame):
                    self.skip.found()
                yield sample
            return
        self.skip.lost()
        if frame.is_corrupt:
            yield from job.sampler.damage(time_us, "corrupt: the decoder marks a damaged picture")

    def _render(self, frame: "av.VideoFrame") -> NDArray[np.uint8]:
        try:
            return self._job.make(frame)
        except BadPictureError:
            self.skip.lost()
            raise


def _skip(job: Job, context: Any) -> Everything:
    if job.options.sampling == "keyframes":
        return KeyFrames()
    if job.options.skip == "none":
        return Everything()
    restarts = Restarts(context.codec.canonical_name, context.codec.intra_only, context.extradata)
    return Skipper(job.grid, job.span, restarts)
