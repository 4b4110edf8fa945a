"""The compressed frames of one span of one stream: seek, read on, stop where nothing of the span can follow."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.container
from av.stream import Discard

from stages.damage import Continuity
from stages.errors import MediaError
from stages.key_index import pts_lag
from stages.options import DecodeOptions
from stages.picture import PictureMaker
from stages.sampling import MICROSECONDS, Grid, Sample, Sampler, Span

# How far before the start of a span to seek, in turn, until a key frame at or before the start is met. Containers
# disagree about what a seek promises: MPEG-TS lands anywhere near, MP4 looks at dts where we mean pts.
_BACK_SECONDS = (0, 2, 10, 60)
_BEAT_PACKETS = 32  # a sign of life about once a second of medium
_CONSTANT_RATE = ("mpegts", "mpeg", "avi")  # their frames follow each other without pause, so a pause is a loss


class Clock:
    """Turns the time stamps of a stream into microseconds of the medium, and back. In whole numbers: fractions would
    take longer than decoding does.
    """

    def __init__(self, time_base: Fraction, start_us: int) -> None:
        self._tick_us = time_base * MICROSECONDS
        self._above, self._below = self._tick_us.numerator, self._tick_us.denominator
        self._start_us = start_us
        self._ticks: int | None = None
        self._ticks_us = 0

    def us(self, stamp: int) -> int:
        """The time of a stamp, rounded; halves to the even one."""
        if self._below == 1:  # as in Matroska; every packet is asked for its time
            return stamp * self._above - self._start_us
        return self._rounded(stamp) - self._start_us

    def length_us(self, ticks: int | None) -> int:
        """How long so many ticks last; 0 for what is not known or negative."""
        if ticks != self._ticks:  # packets mostly are as long as the last one
            self._ticks, self._ticks_us = ticks, self._rounded(ticks) if ticks and ticks > 0 else 0
        return self._ticks_us

    def stamp(self, time_us: int) -> int:
        """The last stamp that is not behind a time."""
        return (time_us + self._start_us) * self._below // self._above

    def _rounded(self, ticks: int) -> int:
        whole, rest = divmod(ticks * self._above, self._below)
        return whole + (2 * rest > self._below or (2 * rest == self._below and whole % 2))


Opened = tuple["av.container.InputContainer", Any]  # a container, and the stream in it that is read


@dataclass
class Job:
    """One span being read, and what both backends need for it."""

    container: "av.container.InputContainer"
    stream: Any  # av.video.stream.VideoStream
    reopen: Callable[[], Opened]
    clock: Clock
    grid: Grid
    span: Span
    sampler: Sampler
    make: PictureMaker
    options: DecodeOptions
    progress: Callable[[float], None] | None
    average_fps: float | None
    end_of_file: bool = False  # found out by packets(), as are these two
    next_key_us: int | None = None  # of the first key frame behind the span; only looked for in keyframes mode
    read_end_us: int = 0  # end of the last good packet
    keys_only: bool = False  # source gives key frames only, for the index tells that all of the stream is there
    primer: "av.packet.Packet | None" = None  # to be decoded before those of the span
    beats: "itertools.count[int]" = field(default_factory=itertools.count)

    def finish(self) -> Iterator[Sample]:
        """Close the sampler when all packets have been decoded."""
        ends = [end for end in (self.span.stream_end_us, self.read_end_us) if end is not None]
        last_end_us = self.next_key_us if self.next_key_us is not None else min(ends)
        return self.sampler.finish(end_of_file=self.end_of_file, last_end_us=last_end_us)

    def beat(self, time_us: int) -> None:
        """Tell the watchdog now and then that reading goes on."""
        if self.progress is not None and next(self.beats) % _BEAT_PACKETS == 0:
            self.progress(max(0.0, time_us / MICROSECONDS))


class Read(NamedTuple):
    """A packet, and its time; by dts where the container does not tell pts; the span's start without either."""

    packet: "av.packet.Packet"
    time_us: int
    duration_us: int


class Seen(NamedTuple):
    """What is noticed at a packet before it is decoded."""

    damage: tuple[int, str] | None  # since when, and the reason for a gap
    breaks: bool  # what follows refers to what is damaged or lost


_NOTHING = Seen(None, False)


class Watch:
    """Looks at every packet of a job, in order: tells the sampler that it is there, and notices what is not."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._constant_rate = job.container.format.name in _CONSTANT_RATE
        listed = job.container.format.name.startswith("mov")  # every packet is in its index: none can go unnoticed
        self._continuity = None if listed else Continuity(job.average_fps, self._constant_rate)

    def look(self, read: Read) -> Seen:
        """Take the next packet."""
        packet, time_us, duration_us = read
        self._job.sampler.packet(time_us, duration_us, bool(packet.is_keyframe))
        lost_us = self._continuity.pause(time_us, duration_us) if self._continuity is not None else None
        if packet.is_corrupt:
            return Seen((time_us, "corrupt: the container marks a damaged packet"), True)
        if lost_us is not None:
            reason = f"missing: no frames from {lost_us / MICROSECONDS:.3f} to {time_us / MICROSECONDS:.3f} s"
            return Seen((lost_us, reason), self._constant_rate)
        return _NOTHING


def position(job: Job) -> Iterator["av.packet.Packet"]:
    """Go to a key frame at or before the span, as far as there is one, and read from it.

    Raises:
        MediaError: read-error.
    """
    _discard_others(job)
    if job.span.start_us > 0 and needs_primer(job.stream.codec_context):
        job.primer = next(_demux(job), None)
    if job.options.sampling == "keyframes" and _is_known_complete(job):
        job.keys_only = True
        return _key_packets(job)
    if job.span.start_us == 0:
        return _demux(job)
    for back_seconds in _BACK_SECONDS:
        target_us = job.span.start_us - back_seconds * MICROSECONDS
        if target_us <= 0:
            break
        try:
            job.container.seek(job.clock.stamp(target_us), stream=job.stream)
            found = _demux(job)
            lead = _key_frame_before_start(job, found)
        except av.FFmpegError:  # no index, or nothing readable there: read from the beginning
            break
        if lead is not None:
            return itertools.chain([lead], found)
    job.container, job.stream = job.reopen()
    job.primer = None
    _discard_others(job)
    return _demux(job)


def needs_primer(context: Any) -> bool:
    """x264 before build 151 coded 4:4:4 wrongly, and decoders imitate it when they know the build, which stands in the
    first packet of the file only: without that, everything behind a seek is noise (libavcodec/h264_cabac.c).
    """
    return context.name == "h264" and "444" in (context.pix_fmt or "")


def _discard_others(job: Job) -> None:
    for other in job.container.streams:
        if other is not job.stream:
            other.discard = Discard.all


def _demux(job: Job) -> Iterator["av.packet.Packet"]:
    return iter(job.container.demux(job.stream))


def _is_known_complete(job: Job) -> bool:
    """Whether it is sure, without reading them, that all packets of the stream are there: the index of MP4 and
    QuickTime lists them up to the promised end, and the file is long enough.
    """
    end_us = job.span.stream_end_us
    if not job.container.format.name.startswith("mov") or end_us is None or not len(job.stream.index_entries):
        return False
    last = job.stream.index_entries[-1]
    listed_us = job.clock.us(last.timestamp) + job.grid.sliver_us()
    return bool(listed_us >= end_us and last.pos + last.size <= job.container.size)


def _key_packets(job: Job) -> Iterator["av.packet.Packet"]:
    """The key frames of the index, from the last before the span on; nothing else is read from the disk."""
    entries, lag = job.stream.index_entries, pts_lag(job.stream)
    at = max(0, entries.search_timestamp(job.clock.stamp(job.span.start_us) - lag, backward=True))
    while at >= 0:
        stamp = entries[at].timestamp
        job.container.seek(stamp + lag, stream=job.stream)
        packet = next(_demux(job), None)
        if packet is None or packet.dts != stamp:
            yield from _all_from(job, stamp)
            return
        yield packet
        at = entries.search_timestamp(stamp + 1, backward=False)


def _all_from(job: Job, stamp: int) -> Iterator["av.packet.Packet"]:
    """Seeking by the index leads astray, where pts are not as far from dts as usual: read everything."""
    job.keys_only = False
    job.container.seek(job.stream.index_entries[0].timestamp, stream=job.stream)
    yield from (packet for packet in _demux(job) if packet.dts is None or packet.dts >= stamp)


def _count_the_rest(job: Job) -> None:
    """Tell the sampler that packets follow up to the end of the stream."""
    end_us = job.span.stream_end_us
    if end_us is not None:
        job.read_end_us = end_us
        job.sampler.packet(end_us if job.span.end_us is None else min(end_us, job.span.end_us - 1), 0, False)


def packets(job: Job, source: Iterator["av.packet.Packet"]) -> Iterator[Read]:
    """Packets of source up to the last that can hold a frame of the span, and one behind it.

    Sets job.end_of_file, and job.next_key_us where it meets that key frame; looks for it in keyframes mode only.

    Raises:
        MediaError: read-error.
    """
    over, end_us = False, job.span.end_us
    try:
        for packet in source:
            if packet.dts is None and packet.size == 0:  # PyAV's signal to flush
                break
            read = _timed(job, packet)
            _, time_us, duration_us = read
            job.beat(time_us)
            if time_us + duration_us > job.read_end_us and not packet.is_corrupt:
                job.read_end_us = time_us + duration_us
            behind = end_us is not None and time_us >= end_us  # job.span.is_over, without a call for each packet
            if behind and packet.is_keyframe and job.next_key_us is None:
                job.next_key_us = time_us
            if not over:
                over = behind and _beyond(job, packet)
                yield read
            if over and (job.options.sampling == "fps" or job.next_key_us is not None):
                return
        job.end_of_file = True
        if job.keys_only:
            _count_the_rest(job)
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, av.InvalidDataError | av.EOFError):  # the demuxer gives up on a damaged rest
            job.end_of_file = True
            return
        raise MediaError("read-error", f"reading failed: {error.strerror}") from error


def _timed(job: Job, packet: "av.packet.Packet") -> Read:
    stamp = packet.pts if packet.pts is not None else packet.dts
    time_us = job.span.start_us if stamp is None else job.clock.us(stamp)
    return Read(packet, time_us, job.clock.length_us(packet.duration))


def _beyond(job: Job, packet: "av.packet.Packet") -> bool:
    """No frame of the span can follow: dts never falls, and pts is never before dts."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    return stamp is not None and job.span.is_over(job.clock.us(stamp))


def _key_frame_before_start(job: Job, found: Iterator["av.packet.Packet"]) -> "av.packet.Packet | None":
    for packet in found:
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or job.clock.us(stamp) > job.span.start_us:
            return None
        if packet.is_keyframe:
            return packet if _timed(job, packet).time_us <= job.span.start_us else None
    return None
