"""Decoding by decord, one GOP at a time.

decord decodes ahead without a bound, and cannot be stopped in the middle of a file; so it never sees one. PyAV demuxes;
the packets of a GOP are put into a small file in memory; decord reads that. Times are those of our packets. A
picture that decord cannot decode costs the rest of its GOP.
"""

import contextlib
import copy
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from stages.demux import Job, Watch, needs_primer, packets, position
from stages.errors import MediaError
from stages.picture import Orientation, centre_crop
from stages.sampling import BadPictureError, Picture, Render, Sample
from transport.messages import FrameFormat

# What decord 0.6's FFmpeg of 2018 reads: tests/test_video.py tries each.
DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"})

# decord holds every scaled picture of a GOP (270 kB at 398x224) and its packets twice. 600 frames are 24 s at 25 per
# second, twice the longest GOP that encoders make unasked (x264: 250 frames; VP9: 128).
MAX_GOP_FRAMES = 600
MAX_GOP_BYTES = 32 << 20
_NOT_IN_MOV = ("vp8", "vp9")  # AVI takes them; it could not take streams with B-frames, which these never have
_SKIPPABLE = ("h264", "hevc", "vp8", "vp9")  # with B-frames of the others, decord's skip_frames lands elsewhere
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)
_USE_PYAV = 'set decode.backend = "pyav"'


@dataclass(frozen=True)
class Held:
    """A packet that waits for the rest of its GOP."""

    data: bytes
    key: bool
    time_us: int
    duration_us: int


@dataclass(frozen=True)
class Gop:
    """A key frame with all that follows it until the next; then that one and its leading pictures, if it has any.

    Leading pictures (of an open GOP) are shown before the key frame that they follow, and refer to both GOPs.
    """

    packets: tuple[Held, ...]  # in decoding order
    end_us: int | None  # time of the next key frame; pictures from there on are not of this GOP

    def stamps(self) -> list[tuple[int, int]]:
        """pts and dts of the packets, in steps of one picture; dts rises by one and is never after pts."""
        order = sorted(range(len(self.packets)), key=lambda index: self.packets[index].time_us)
        pts = [0] * len(order)
        for number, index in enumerate(order):
            pts[index] = number
        delay = max(index - number for index, number in enumerate(pts))
        return [(number, index - delay) for index, number in enumerate(pts)]

    def shown(self) -> list[tuple[int, Held]]:
        """Pictures of this GOP with their number in the order of time, which is decord's."""
        ordered = sorted(self.packets, key=lambda held: held.time_us)
        first_us = self.packets[0].time_us
        mine = [(number, held) for number, held in enumerate(ordered) if held.time_us >= first_us]
        return [(number, held) for number, held in mine if self.end_us is None or held.time_us < self.end_us]


def decode_span(job: Job) -> Iterator[Sample]:
    """Samples and gaps of a job, as the PyAV decoder gives them.

    Raises:
        MediaError: codec-not-allowed, gop-too-large; read-error.
    """
    source = position(job)
    codec = str(job.stream.codec_context.codec.canonical_name)
    if codec not in DECORD_CODECS:
        raise MediaError("codec-not-allowed", f"decord does not read {codec}: {_USE_PYAV}")
    if needs_primer(job.stream.codec_context):
        raise MediaError("codec-not-allowed", f"decord does not read 4:4:4 H.264 GOP by GOP: {_USE_PYAV}")
    yield from _decode_gops(job, source)
    yield from job.finish()


def _decode_gops(job: Job, source: Iterator["av.packet.Packet"]) -> Iterator[Sample]:
    builder, watch = GopBuilder(), Watch(job)
    damages: list[tuple[int, str]] = []  # the sampler hears of each behind the GOP in which it is
    for read in packets(job, source):
        packet, seen = read.packet, watch.look(read)
        if seen.damage is not None:
            damages.append(seen.damage)
        gops = list(builder.finish()) if seen.breaks else []
        if not packet.is_corrupt and (job.options.sampling == "fps" or packet.is_keyframe):
            gops += builder.add(Held(bytes(packet), bool(packet.is_keyframe), read.time_us, read.duration_us))
        for gop in gops:
            yield from _samples(job, gop)
            yield from _tell(job, damages, gop.end_us)
    for gop in builder.finish():
        yield from _samples(job, gop)
        yield from _tell(job, damages, gop.end_us)
    yield from _tell(job, damages, None)


def _tell(job: Job, damages: list[tuple[int, str]], before_us: int | None) -> Iterator[Sample]:
    while damages and (before_us is None or damages[0][0] < before_us):
        yield from job.sampler.damage(*damages.pop(0))


class GopBuilder:
    """Cuts a stream of packets into GOPs. Pure but for its limit."""

    def __init__(self) -> None:
        self._gop: list[Held] = []
        self._next: list[Held] = []  # the next key frame and its leading pictures
        self._bytes = 0

    def add(self, held: Held) -> Iterator[Gop]:
        """Take a packet; give the GOP that it shows to be complete.

        Raises:
            MediaError: gop-too-large.
        """
        if self._next and (held.key or held.time_us >= self._next[0].time_us):
            yield self._close()
        self._bytes += len(held.data)
        if self._next or (held.key and self._gop):
            self._next.append(held)
        elif held.key or (self._gop and held.time_us >= self._gop[0].time_us):
            self._gop.append(held)  # but for leading pictures of the first key frame: the GOP before them is not here
        self._check()

    def finish(self) -> Iterator[Gop]:
        """What is in hand. Packets that follow are left out until the next key frame."""
        if self._next:
            yield self._close()
        if self._gop:
            yield Gop(tuple(self._gop), None)
        self._gop, self._bytes = [], 0

    def _close(self) -> Gop:
        leading = self._next if len(self._next) > 1 else []
        gop = Gop((*self._gop, *leading), self._next[0].time_us)
        self._gop, self._next = self._next[:1], []
        self._bytes = len(self._gop[0].data)
        return gop

    def _check(self) -> None:
        count = len(self._gop) + len(self._next)
        if count > MAX_GOP_FRAMES or self._bytes > MAX_GOP_BYTES:
            limits = f"{MAX_GOP_FRAMES} frames or {MAX_GOP_BYTES >> 20} MiB"
            raise MediaError(
                "gop-too-large", f"more than {limits} without a key frame is too much for decord: {_USE_PYAV}"
            )


def _samples(job: Job, gop: Gop) -> Iterator[Sample]:
    """The samples of one GOP. decord is only asked when there are any."""
    wanted = _wanted(job, gop)
    pictures = _read(job, gop, wanted) if wanted else {}
    for _, held in gop.shown():
        yield from job.sampler.picture(_picture(held, functools.partial(_pick, pictures, held.time_us)))


def _picture(held: Held, render: Render) -> Picture:
    return Picture(held.time_us, held.duration_us, held.key, render)


def _pick(pictures: dict[int, NDArray[np.uint8]], time_us: int) -> NDArray[np.uint8]:
    if time_us not in pictures:
        raise BadPictureError("corrupt: decord could not decode the GOP")
    return pictures[time_us]


def _wanted(job: Job, gop: Gop) -> set[int]:
    """Times of the pictures that the sampler will ask for: tried on a copy of it."""
    sampler, wanted = copy.copy(job.sampler), set[int]()

    def note(time_us: int) -> NDArray[np.uint8]:
        wanted.add(time_us)
        return _NO_PIXELS

    for _, held in gop.shown():
        for _ in sampler.picture(_picture(held, functools.partial(note, held.time_us))):
            pass
    frame_bytes = 3 * job.make.frame_format.width * job.make.frame_format.height
    if len(wanted) * frame_bytes > MAX_GOP_BYTES:
        raise MediaError("gop-too-large", f"{len(wanted)} samples in a GOP are too many for decord: {_USE_PYAV}")
    return wanted


def _read(job: Job, gop: Gop, wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
    """Wanted pictures of a GOP, by their time: uint8 RGB [height, width, 3]. Those that cannot be decoded are left out.

    When decord fails, somewhere, PyAV tells how far the GOP is good, and decord is given that part.
    """
    import decord  # only here: it brings a second FFmpeg into the process

    failures = (decord.DECORDError, StopIteration, av.FFmpegError, IndexError)
    try:
        return _decode(job, gop, wanted)
    except failures:
        part = _good_part(job, gop)
    try:
        return _decode(job, part, wanted)
    except failures:
        return {}


def _good_part(job: Job, gop: Gop) -> Gop:
    """The packets of a GOP before the first at which PyAV finds damage."""
    context, count = job.stream.codec_context, 0
    with contextlib.suppress(av.FFmpegError):
        for held in gop.packets:
            if any(frame.is_corrupt for frame in context.decode(av.Packet(held.data))):
                break
            count += 1
    context.flush_buffers()
    return Gop(gop.packets[:count], gop.end_us)


def _decode(job: Job, gop: Gop, wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
    """Decode a GOP to its end, for only there it is certain that decord met no damage in it."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    width, height = _upright_size(job, gop)
    file = remux(gop, job.stream)
    reader = decord.VideoReader(file, ctx=decord.cpu(0), width=width, height=height, num_threads=job.options.threads)
    skippable = job.stream.codec_context.codec.canonical_name in _SKIPPABLE
    pictures: dict[int, NDArray[np.uint8]] = {}
    position = 0
    for number, held in gop.shown():
        if held.time_us in wanted:
            _skip(reader, number - position, skippable)
            pictures[held.time_us] = _cropped(reader.next().asnumpy(), job.make.frame_format)
            position = number + 1
    _skip(reader, len(gop.packets) - 1 - position, skippable)
    if position < len(gop.packets):
        reader.next()
    return pictures


def _cropped(picture: NDArray[np.uint8], frame_format: FrameFormat) -> NDArray[np.uint8]:
    """decord tells the channels by the bytes of a row, padding and all: narrow pictures seem to have four."""
    height, width, _ = picture.shape
    rgb = picture.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
    return np.ascontiguousarray(centre_crop(rgb, frame_format.width, frame_format.height))


def _skip(reader: Any, count: int, skippable: bool) -> None:
    if skippable and count > 0:
        reader.skip_frames(count)  # twice as fast as next, for nothing is scaled and copied
        return
    for _ in range(count):
        reader.next()


def _upright_size(job: Job, gop: Gop) -> tuple[int, int]:
    """Width and height of the scaled pictures. Only a decoded one tells how it lies: PyAV decodes the key frame."""
    context = job.stream.codec_context
    frames = [*context.decode(av.Packet(gop.packets[0].data)), *context.decode(None)]
    context.flush_buffers()
    if not frames:
        raise StopIteration("the key frame gives no picture")
    how, (width, height) = job.make.layout(frames[0])
    if how.mirrored or (how != Orientation() and _container(job.stream) == "avi"):
        raise MediaError("codec-not-allowed", f"decord cannot turn or mirror this video: {_USE_PYAV}")
    return (height, width) if how.transpose else (width, height)  # decord turns it, by the matrix in the file


def _container(stream: Any) -> str:
    return "avi" if stream.codec_context.codec.canonical_name in _NOT_IN_MOV else "mov"


def remux(gop: Gop, template: Any) -> io.BytesIO:
    """Put a GOP into a file in memory, of a format that counts its frames: of others, decord refuses short ones.

    Its times are made up: a picture every 40 ms. decord needs them only for the order, and is confused by the true ones
    of some files: equal ones, unknown dts, no duration.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=_container(template)) as output:
        stream = output.add_stream_from_template(template, opaque=True)
        for held, (pts, dts) in zip(gop.packets, gop.stamps(), strict=True):
            packet = av.Packet(held.data)
            packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, 1, Fraction(1, 25)
            packet.is_keyframe = held.key
            packet.stream = stream
            output.mux(packet)
    file.seek(0)
    return file
