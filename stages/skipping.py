"""Which packets of a span have to be decoded so that the samples are exactly those of decoding them all. Pure but for
the packets.

Two things are left out. Frames to which no other refers, unless they may be samples: the decoder passes over them
(skip_frame). And what follows the last sample of a GOP, or a whole GOP without one: its packets are held back until the
next GOP begins, and then dropped. docs/formats.md says what that saves.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stages.sampling import Grid, Span

# Held packets of a GOP: 6 seconds of 20 Mbit/s. More is decoded as it comes.
MAX_HELD_BYTES, MAX_HELD_PACKETS = 16 << 20, 1000

# Codecs whose key frames are known to be places where decoding can begin, because the packet itself says so, or because
# the format knows no others. H.264 in a stream that refreshes itself piece by piece marks frames as key that are not.
_RESTARTABLE = {"av1", "flv1", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9"}
_H264_SLICES, _H264_IDR = range(1, 6), 5  # nal_unit_type, ITU-T H.264 table 7-1
_HEVC_SLICES, _HEVC_IRAP = range(32), range(16, 22)  # ITU-T H.265 table 7-1
_START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
_LOOKED_AT_BYTES = 1 << 16  # of a packet for its first slice: parameter sets and messages lie before it


class Step(NamedTuple):
    """A packet to be decoded."""

    packet: Any  # av.packet.Packet
    time_us: int
    wanted: bool  # its frame may be a sample; otherwise it only matters if others refer to it
    fresh: bool = False  # packets were dropped before it: the decoder has to give what it holds, and to forget
    alone: bool = False  # the same behind it


class Restarts:
    """Tells packets from which on decoding can begin, whatever was before."""

    def __init__(self, codec: str, intra_only: bool, extradata: bytes | None) -> None:
        self._codec = codec
        self._always = intra_only or codec in _RESTARTABLE
        self._length_bytes = _length_bytes(codec, extradata or b"")

    def holds(self, packet: Any) -> bool:
        """Whether this packet is one."""
        if not packet.is_keyframe or packet.pts is None:
            return False
        if self._always:
            return True
        if self._codec not in ("h264", "hevc"):
            return False
        nal = first_slice(bytes(packet)[:_LOOKED_AT_BYTES], self._codec, self._length_bytes)
        return nal == _H264_IDR if self._codec == "h264" else nal in _HEVC_IRAP


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Of the lengths before each NAL unit (ISO/IEC 14496-15); 0: units follow start codes instead (Annex B)."""
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None or len(extradata) <= at or extradata[0] != 1:
        return 0
    return (extradata[at] & 3) + 1


def first_slice(data: bytes, codec: str, length_bytes: int) -> int | None:
    """Type of the first NAL unit of a packet that holds a picture; None where there is none, or nonsense."""
    slices = _H264_SLICES if codec == "h264" else _HEVC_SLICES
    for header in _headers(data, length_bytes):
        kind = header & 31 if codec == "h264" else header >> 1 & 63
        if kind in slices:
            return kind
    return None


def _headers(data: bytes, length_bytes: int) -> Iterator[int]:
    """First byte of each NAL unit."""
    if length_bytes == 0:
        yield from (match[1][0] for match in _START_CODE.finditer(data))
        return
    at = 0
    while at + length_bytes < len(data):
        yield data[at + length_bytes]
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")


class Everything:
    """Decodes every packet: to compare with."""

    def push(self, packet: Any, time_us: int) -> Sequence[Step]:
        """Take a packet; what is to be decoded now."""
        return (Step(packet, time_us, wanted=True),)

    def release(self) -> Sequence[Step]:
        """What is held back, wanted or not: here nothing ever is."""
        return ()

    def finish(self) -> Sequence[Step]:
        """No packet follows: what is still wanted."""
        return ()

    def lost(self) -> None:
        """Something could not be decoded."""

    def found(self) -> None:
        """A sample came out."""

    def absent(self, time_us: int) -> None:
        """A wanted packet holds no frame that is shown."""


class KeyFrames(Everything):
    """Decodes key frames only, each on its own."""

    def push(self, packet: Any, time_us: int) -> Sequence[Step]:
        """Take a packet; what is to be decoded now. What a decoder holds back for reordering has to be asked for: that
        of HEVC drops it when the next sequence starts, and a seek does, too.
        """
        return (Step(packet, time_us, wanted=True, alone=True),) if packet.is_keyframe else ()


class Skipper(Everything):
    """Takes the packets of a span in order of decoding; gives those that are to be decoded, maybe later, in this order.

    A packet is wanted when it may be the first of its cell: when its time is before that of all wanted packets of the
    cell so far. It is decoded with all that came before it since the last restart. Restarts come with leading pictures:
    packets behind them with earlier times, which refer to what was before; until they are over nothing is dropped.
    """

    def __init__(self, grid: Grid, span: Span, restarts: Restarts) -> None:
        self._grid = grid
        self._span = span
        self._restarts = restarts
        self._first: dict[int, int] = {}  # cell: earliest wanted time in it; of the last few cells
        self._held: list[Step] = []  # not wanted so far
        self._next: list[Step] = []  # a restart, and leading pictures that are not wanted
        self._held_bytes = 0
        self._dropped = False
        self._wary = True  # no sample has come out yet, or not since the last damage: then nothing is held

    def push(self, packet: Any, time_us: int) -> Sequence[Step]:
        """Take a packet; what is to be decoded now."""
        step = Step(packet, time_us, self._wants(packet, time_us))
        if self._next and time_us < self._next[0].time_us and not packet.is_keyframe:
            self._next.append(step)
            done: Sequence[Step] = self.release() if step.wanted else ()
        else:
            done = self._settle()
            (self._next if self._restarts.holds(packet) else self._held).append(step)
        self._held_bytes += packet.size
        return (*done, *self.release()) if self._is_due() else done

    def release(self) -> Sequence[Step]:
        """What is held back, wanted or not."""
        steps = [*self._held, *self._next]
        self._held, self._next, self._held_bytes = [], [], 0
        if steps and self._dropped:
            self._dropped, steps[0] = False, steps[0]._replace(fresh=True)
        return steps

    def finish(self) -> Sequence[Step]:
        """No packet follows."""
        return self._settle()

    def lost(self) -> None:
        """Something could not be decoded: until a sample comes, every packet of the span may hold one."""
        self._wary = True
        self._first.clear()

    def found(self) -> None:
        """A sample came out."""
        self._wary = False

    def absent(self, time_us: int) -> None:
        """A wanted packet holds no frame that is shown: another one of its cell may be the first."""
        self._first.pop(self._grid.cell_of(time_us), None)

    def _is_due(self) -> bool:
        too_much = self._held_bytes > MAX_HELD_BYTES or len(self._held) + len(self._next) > MAX_HELD_PACKETS
        return too_much or (bool(self._held) and self._held[-1].wanted)

    def _settle(self) -> Sequence[Step]:
        """The leading pictures are over, none of them was wanted: what was held before the restart is dropped."""
        if not self._next:
            return ()
        restart, *_ = self._next
        self._dropped = self._dropped or bool(self._held)
        self._held, self._next, self._held_bytes = [restart], [], restart.packet.size
        return self.release() if restart.wanted else ()

    def _wants(self, packet: Any, time_us: int) -> bool:
        if packet.pts is None:
            return True
        first = self._is_first(time_us)
        return (first or self._wary) and self._span.holds(time_us)

    def _is_first(self, time_us: int) -> bool:
        cell = self._grid.cell_of(time_us)
        if time_us >= self._first.get(cell, time_us + 1):
            return False
        self._first[cell] = time_us
        if len(self._first) > 64:  # reordering never spans more cells than it spans frames, and those are at most 16
            del self._first[min(self._first)]
        return True
