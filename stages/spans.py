"""Cuts a video into spans that are decoded apart. Pure."""

import math
from collections.abc import Sequence
from itertools import pairwise

from stages.options import DecodeOptions
from stages.sampling import MICROSECONDS, Grid
from transport.messages import MediaInfo

# More spans of one video than its decoders can share only cost; but a drain has to wait for the end of one.
MANY_SPANS, LONGEST_STRETCH = 10, 3.0
LONG_PART = 0.875  # of a video; behind it spans are short: all decoders wait for the one that gets the last
KEYFRAMES_STRETCH = 4  # key frames alone take a seventh of the time

Spans = tuple[tuple[float, float | None], ...]


def spans_of(media: MediaInfo, options: DecodeOptions) -> Spans:
    """The spans of a probed medium; none without pictures."""
    if media.video is None:
        return ()
    return plan_spans(media.video.duration_seconds or media.duration_seconds, options, media.video.key_seconds)


def plan_spans(duration_seconds: float | None, options: DecodeOptions, key_seconds: Sequence[float] = ()) -> Spans:
    """Cut a video into spans [start, end) of about decode.span_seconds, on the sampling grid; longer ones where the
    video is long, but for its end, or where only key frames are wanted. A span begins behind the first of `key_seconds`
    that comes in the half of it.

    The last is open-ended, because durations lie; one of unknown or absurd duration is a single span.
    """
    edges = nominal_edges(duration_seconds, options)
    if key_seconds and options.sampling == "fps":
        edges = _moved(edges, key_seconds, Grid(options.fps))
    return tuple(zip(edges, [*edges[1:], None], strict=True))


def nominal_edges(duration_seconds: float | None, options: DecodeOptions) -> list[float]:
    """Where spans begin when nothing is known of key frames."""
    if duration_seconds is None or not 0 < duration_seconds <= options.max_hours * 3600:
        return [0.0]
    grid = Grid(options.fps)

    def cells_of(seconds: float) -> int:
        return max(1, grid.cell_of(round(seconds * MICROSECONDS)))

    # For every span the file is opened anew, which takes the longer the longer it is: an MP4 of 2 hours 27 ms.
    stretch = min(max(1.0, duration_seconds / options.span_seconds / MANY_SPANS), LONGEST_STRETCH)
    shortest = options.span_seconds * (KEYFRAMES_STRETCH if options.sampling == "keyframes" else 1)
    short, long = cells_of(shortest), cells_of(shortest * stretch)
    total_us = duration_seconds * MICROSECONDS
    longs = math.floor(total_us * LONG_PART / grid.edge_us(long)) if stretch > 1 else 0
    rest_us = total_us - grid.edge_us(longs * long)
    shorts = max(1, math.floor(rest_us / grid.edge_us(short) + 0.5))  # the last: half to one and a half
    cells = [*(index * long for index in range(longs)), *(longs * long + index * short for index in range(shorts))]
    return [grid.edge_us(cell) / MICROSECONDS for cell in cells]


def _moved(edges: list[float], key_seconds: Sequence[float], grid: Grid) -> list[float]:
    """Each edge but the first to the first edge of a cell behind a key frame, if one comes before half the span is
    over. Decoding a span begins at the key frame before it: now that is near, and nothing is decoded twice.
    """
    moved = edges[:1]
    for start, end in pairwise([*edges[1:], 2 * edges[-1] - edges[-2] if len(edges) > 1 else 0.0]):
        key = next((seconds for seconds in key_seconds if seconds >= start), end)
        behind = _cell_behind(key, grid)
        moved.append(behind if behind < (start + end) / 2 else start)
    return moved


def _cell_behind(seconds: float, grid: Grid) -> float:
    """The first edge of a cell that is not before a time."""
    time_us = round(seconds * MICROSECONDS)
    cell = grid.cell_of(time_us)
    return grid.edge_us(cell if grid.edge_us(cell) == time_us else cell + 1) / MICROSECONDS
