"""Packs segments of speech into windows, and tells how much of them captions cover. Pure: positions in and out."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from stages.timeline import SAMPLE_RATE
from stages.vad import Segment

INNER_SILENCE = 2 * SAMPLE_RATE  # a longer silence closes the window: the device should not work on it
CUT_RANGE = 5 * SAMPLE_RATE  # the last part of a full window, in which a moment to cut is looked for


@dataclass(frozen=True)
class Window:
    """Neighbouring stretches of speech that go to the device together."""

    speech: tuple[Segment, ...]

    @property
    def span(self) -> Segment:
        return self.speech[0][0], self.speech[-1][1]


class PackerState(msgspec.Struct, frozen=True, array_like=True):
    """Where a packer stands."""

    speech: tuple[Segment, ...]  # of the window that is being filled
    cut: int | None


class WindowPacker:
    """Fills windows of at most `limit` samples.

    Segments that fit together, with silences of up to 2 s between them, share a window. A segment that does not fit
    into what is left of a window begins the next one. A segment longer than a window is cut where `quietest(earliest,
    latest)` says, in the last 5 s of each window. Nothing is dropped and nothing is in two windows.
    """

    def __init__(self, limit: int, quietest: Callable[[int, int], int]) -> None:
        self._limit = limit
        self._quietest = quietest
        self._speech: list[Segment] = []  # of the window that is being filled
        self._cut: int | None = None  # the open segment is packed up to here

    @property
    def state(self) -> PackerState:
        return PackerState(tuple(self._speech), self._cut)

    def restore(self, state: PackerState) -> None:
        """Go on from there."""
        self._speech, self._cut = list(state.speech), state.cut

    def needed(self, settled: int) -> int:
        """No window to come begins before this sample, when no segment to come begins before `settled`."""
        if self._cut is not None:  # of the open segment, whose begin is long gone
            return self._cut
        return self._speech[0][0] if self._speech else settled

    def update(self, segments: list[Segment], open_segment: Segment | None, settled: int) -> list[Window]:
        """Windows that are full.

        `segments` are final; `open_segment` will end where it does now or later; none to come begins before `settled`.
        """
        done: list[Window] = []
        for segment in segments:
            rest = self._pack_long(segment, done)
            self._speech.append(rest)
            self._cut = None
        if open_segment is not None:
            self._pack_long(open_segment, done)
        elif self._speech and settled - self._speech[-1][1] > INNER_SILENCE:
            self._close(done)
        return done

    def finish(self, segments: list[Segment]) -> list[Window]:
        """The last windows."""
        done = self.update(segments, None, 0)
        self._close(done)
        return done

    def _pack_long(self, segment: Segment, done: list[Window]) -> Segment:
        """Make room for a segment, cut off full windows, and return what is left of it."""
        start, end = segment[0] if self._cut is None else self._cut, segment[1]
        if self._speech and not self._fits(start, end):
            self._close(done)
        while end - start > self._limit:
            latest = start + self._limit
            self._cut = self._quietest(latest - min(CUT_RANGE, self._limit // 2), latest)
            done.append(Window(((start, self._cut),)))
            start = self._cut
        return start, end

    def _fits(self, start: int, end: int) -> bool:
        return start - self._speech[-1][1] <= INNER_SILENCE and end - self._speech[0][0] <= self._limit

    def _close(self, done: list[Window]) -> None:
        if self._speech:
            done.append(Window(tuple(self._speech)))
            self._speech = []


# --- covered by captions ----------------------------------------------------------------------------------------------


def merged_spans(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Their union, as disjoint intervals in order."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def overlap_seconds(speech: tuple[tuple[float, float], ...], cues: list[tuple[float, float]]) -> float:
    """How much of the speech the (disjoint, ordered) cues cover, in seconds."""
    total = 0.0
    for start, end in speech:
        first = max(0, bisect_left(cues, (start, start)) - 1)
        for cue_start, cue_end in cues[first : bisect_left(cues, (end, end))]:
            total += max(0.0, min(end, cue_end) - max(start, cue_start))
    return total
