"""Which frames of a stream become samples, and which stretches of it are missing. Pure: times in, samples and gaps out.

Time is counted in whole microseconds, so that spans and cells meet without a crack. Cell k of a sampling rate is
[edge(k), edge(k + 1)); the first frame in a cell is its sample. Cell and span of a frame follow from its own time
alone, so that spans partition the frames: decoded apart or together, they give the same samples.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from transport.messages import Gap

MICROSECONDS = 1_000_000
SLIVER_CELLS = 1.5  # a shorter piece missing at the end is rounding in a header, not damage


class BadPictureError(Exception):
    """A frame turned out to be unreadable when its pixels were asked for. Its text is the reason of a gap."""


Render = Callable[[], NDArray[np.uint8]]  # pixels of a frame, made only when it is a sample; raises BadPictureError


@dataclass(frozen=True)
class SampledFrame:
    """One sample of a video."""

    start_seconds: float
    end_seconds: float
    pixels: NDArray[np.uint8]  # RGB [height, width, 3], C-contiguous


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet converted."""

    time_us: int
    duration_us: int
    key: bool
    render: Render


@dataclass(frozen=True)
class Span:
    """The stretch [start, end) to be sampled, and where the stream should end as far as is known."""

    start_us: int
    end_us: int | None
    stream_end_us: int | None  # by the header
    shown_end_us: int | None  # nothing is said to last beyond it

    def holds(self, time_us: int) -> bool:
        """Frames before time 0 belong to the first span."""
        after_start = time_us >= self.start_us or self.start_us == 0
        return after_start and (self.end_us is None or time_us < self.end_us)

    def is_over(self, time_us: int) -> bool:
        """Whether a time is behind the span."""
        return self.end_us is not None and time_us >= self.end_us

    @property
    def expected_end_us(self) -> int | None:
        """Where frames should end: the span's end or the stream's, whichever is earlier."""
        known = [end for end in (self.end_us, self.stream_end_us) if end is not None]
        return min(known, default=None)

    def clip(self, end_us: int, start_us: int) -> int:
        """An end that is not beyond the medium's; but after start, which beats a header."""
        if self.shown_end_us is None or self.shown_end_us <= start_us:
            return end_us
        return min(end_us, self.shown_end_us)


Sample = SampledFrame | Gap


class Sampler(Protocol):
    """Takes what a decoder meets, in order, and gives samples and gaps as soon as they are certain."""

    def packet(self, time_us: int, duration_us: int, key: bool) -> None:
        """A compressed frame of this time is in the file, whether or not it can be decoded."""

    def damage(self, time_us: int, reason: str) -> Iterator[Sample]:
        """From about this time on something is unreadable, until the next picture."""

    def picture(self, picture: Picture) -> Iterator[Sample]:
        """A good picture, in order of time."""

    def finish(self, *, end_of_file: bool, last_end_us: int) -> Iterator[Sample]:
        """No more pictures: the file ended, or the span. last_end_us: how long the last key frame stands."""


class Grid:
    """The cells of a sampling rate, in exact arithmetic: cell_of(edge_us(k)) == k for every k."""

    def __init__(self, fps: float) -> None:
        self._cell_us = MICROSECONDS / Fraction(str(fps))  # by way of its digits: 0.1 is meant to be a tenth
        self._twice = 2 * self._cell_us.numerator  # whole numbers, for every packet is asked: 10 times as fast

    def edge_us(self, cell: int) -> int:
        """Start of a cell, rounded to the microsecond."""
        return math.ceil(cell * self._cell_us - Fraction(1, 2))

    def cell_of(self, time_us: int) -> int:
        """The cell that holds a time: floor((time + 1/2) / cell)."""
        return (2 * time_us + 1) * self._cell_us.denominator // self._twice

    def sliver_us(self) -> int:
        """What may be missing at the end without being worth a word."""
        return int(self._cell_us * Fraction(SLIVER_CELLS))


class FpsSampler:
    """The first frame of every cell."""

    def __init__(self, span: Span, grid: Grid) -> None:
        self._span = span
        self._grid = grid
        self._last = grid.cell_of(span.start_us) - 1  # last cell that is settled
        self._covered_us = span.start_us  # everything before has a sample, a gap, or never had a frame
        self._packets_end_us = 0  # end of the last packet in or before the span
        self._waiting: set[int] = set()  # cells with packets, but no sample yet
        self._reason: str | None = None

    def packet(self, time_us: int, duration_us: int, key: bool) -> None:
        del key
        cell = self._grid.cell_of(max(0, time_us))
        if not self._span.is_over(time_us):
            self._packets_end_us = max(self._packets_end_us, time_us + duration_us)
        if self._span.holds(time_us) and cell > self._last:
            self._waiting.add(cell)

    def damage(self, time_us: int, reason: str) -> Iterator[Sample]:
        del time_us  # the cells without a sample tell where it was
        self._reason = self._reason or reason
        yield from ()

    def picture(self, picture: Picture) -> Iterator[Sample]:
        cell = self._grid.cell_of(max(0, picture.time_us))
        if not self._span.holds(picture.time_us):
            return
        self._covered_us = max(self._covered_us, picture.time_us + picture.duration_us)
        if cell <= self._last:
            return
        try:
            pixels = picture.render()
        except BadPictureError as error:
            self._reason = self._reason or str(error)
            return
        yield from self._gap_before(cell)
        yield self._sample(picture.time_us, cell, pixels)

    def _sample(self, time_us: int, cell: int, pixels: NDArray[np.uint8]) -> SampledFrame:
        self._last, self._reason = cell, None
        self._waiting = {waiting for waiting in self._waiting if waiting > cell}
        end_us = self._span.clip(self._grid.edge_us(cell + 1), time_us)
        self._covered_us = max(self._covered_us, self._grid.edge_us(cell + 1))
        return SampledFrame(max(0, time_us) / MICROSECONDS, max(0, end_us) / MICROSECONDS, pixels)

    def _gap_before(self, cell: int) -> Iterator[Gap]:
        """Cells that were passed over: missing when they had packets or damage; otherwise a picture stood still."""
        if cell > self._last + 1 and (self._reason or min(self._waiting, default=cell) < cell):
            yield gap(self._grid.edge_us(self._last + 1), self._grid.edge_us(cell), self._reason or NO_PICTURE)

    def finish(self, *, end_of_file: bool, last_end_us: int) -> Iterator[Sample]:
        del last_end_us
        missing = bool(self._reason or self._waiting)
        from_us = self._grid.edge_us(self._last + 1) if missing else self._covered_us
        from_us = max(from_us, self._span.start_us)
        expected_us = self._span.expected_end_us
        if end_of_file and expected_us is not None and expected_us - self._packets_end_us > self._grid.sliver_us():
            yield from _tail(from_us, expected_us, truncated(self._packets_end_us), 0)
        elif missing:
            end_us = self._packets_end_us if expected_us is None else expected_us
            yield from _tail(from_us, end_us, self._reason or NO_PICTURE, 0 if self._reason else self._grid.sliver_us())


class KeyframeSampler:
    """Every key frame; each lasts until the next."""

    def __init__(self, span: Span, grid: Grid) -> None:
        self._span = span
        self._grid = grid
        self._pending: tuple[int, NDArray[np.uint8]] | None = None
        self._packets_end_us = 0  # end of the last packet in or before the span
        self._damage: tuple[int, str] | None = None
        self._waiting: set[int] = set()  # times of key frames in the file that have not come out of the decoder yet

    def packet(self, time_us: int, duration_us: int, key: bool) -> None:
        if time_us + duration_us > self._packets_end_us and not self._span.is_over(time_us):
            self._packets_end_us = time_us + duration_us
        if key and self._span.holds(time_us):
            self._waiting.add(time_us)

    def damage(self, time_us: int, reason: str) -> Iterator[Sample]:
        if self._damage is None:
            after_us = 0 if self._pending is None else self._pending[0] + 1
            from_us = max(time_us, after_us, self._span.start_us)
            yield from self._release(from_us)
            self._damage = (from_us, reason)

    def picture(self, picture: Picture) -> Iterator[Sample]:
        if not picture.key or not self._span.holds(picture.time_us):
            return
        try:
            pixels = picture.render()
        except BadPictureError as error:
            yield from self.damage(picture.time_us, str(error))
            return
        yield from self._missed(picture.time_us)
        yield from self._release(picture.time_us)
        yield from self._close_gap(picture.time_us)
        self._pending = (picture.time_us, pixels)

    def finish(self, *, end_of_file: bool, last_end_us: int) -> Iterator[Sample]:
        expected_us = self._span.expected_end_us
        yield from self._missed(None)
        if end_of_file and expected_us is not None and expected_us - self._packets_end_us > self._grid.sliver_us():
            yield from self.damage(self._packets_end_us, "")
            assert self._damage is not None
            self._damage = (self._damage[0], truncated(self._packets_end_us))
        yield from self._release(last_end_us)
        if self._damage is not None:
            yield from self._close_gap(expected_us if expected_us is not None else self._packets_end_us)

    def _missed(self, before_us: int | None) -> Iterator[Sample]:
        """Key frames before a picture that came out, or all, will not come any more: they are damage."""
        missed = [time for time in self._waiting if before_us is None or time < before_us]
        self._waiting = {time for time in self._waiting if before_us is not None and time > before_us}
        if missed:
            yield from self.damage(min(missed), NO_PICTURE)

    def _release(self, end_us: int) -> Iterator[SampledFrame]:
        if self._pending is not None:
            time_us, pixels = self._pending
            end_us = max(self._span.clip(end_us, time_us), time_us + 1)
            yield SampledFrame(max(0, time_us) / MICROSECONDS, end_us / MICROSECONDS, pixels)
            self._pending = None

    def _close_gap(self, end_us: int) -> Iterator[Gap]:
        if self._damage is not None and end_us > self._damage[0]:
            yield gap(self._damage[0], end_us, self._damage[1])
        self._damage = None


NO_PICTURE = "corrupt: the decoder gave no picture here"


def truncated(from_us: int) -> str:
    """Reason of the gap behind the last packet of a file that should be longer; the same in every span of it."""
    return f"truncated: the video ends at {from_us / MICROSECONDS:.3f} s, its header promises more"


def gap(start_us: int, end_us: int, reason: str) -> Gap:
    """A Gap in seconds."""
    return Gap(start_seconds=start_us / MICROSECONDS, end_seconds=end_us / MICROSECONDS, reason=reason)


def _tail(from_us: int, end_us: int, reason: str, sliver_us: int) -> Iterator[Gap]:
    if end_us - from_us > sliver_us:
        yield gap(from_us, end_us, reason)
