"""Cells, spans, samples and gaps, without any file."""

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.demux import Clock
from stages.options import DecodeOptions
from stages.sampling import BadPictureError, FpsSampler, Grid, KeyframeSampler, Picture, Sample, SampledFrame, Span
from stages.video import plan_spans
from transport.messages import Gap

PIXELS = np.zeros((1, 1, 3), np.uint8)
FRAME_US = 40_000
rates = st.sampled_from([0.001, 0.1, 1 / 3, 0.5, 1.0, 1.5, 2.0, 3.0, 7.0, 24.0, 29.97, 60.0, 240.0])


def picture(time_us: int, key: bool = False) -> Picture:
    return Picture(time_us, FRAME_US, key, lambda: PIXELS)


def unreadable(time_us: int) -> Picture:
    def render() -> NDArray[np.uint8]:
        raise BadPictureError("corrupt: made so")

    return Picture(time_us, FRAME_US, True, render)


def span(start_us: int = 0, end_us: int | None = None, stream_end_us: int | None = None) -> Span:
    return Span(start_us, end_us, stream_end_us, stream_end_us)


def times(samples: Iterable[Sample]) -> list[tuple[str, float, float]]:
    """(kind, start, end) of each."""
    return [("gap" if isinstance(it, Gap) else "frame", it.start_seconds, it.end_seconds) for it in samples]


@given(rates, st.integers(0, 10**7))
def test_every_edge_begins_its_cell(fps: float, cell: int) -> None:
    grid = Grid(fps)
    assert grid.cell_of(grid.edge_us(cell)) == cell
    assert cell == 0 or grid.cell_of(grid.edge_us(cell) - 1) == cell - 1


@given(rates, st.integers(-(10**9), 10**13))
def test_cells_are_those_of_exact_fractions(fps: float, time_us: int) -> None:
    cell_us = 1_000_000 / Fraction(str(fps))
    assert Grid(fps).cell_of(time_us) == math.floor((time_us + Fraction(1, 2)) / cell_us)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_times_are_those_of_exact_fractions(above: int, below: int, start_us: int, stamp: int) -> None:
    base = Fraction(above, below)
    clock = Clock(base, start_us)
    assert clock.us(stamp) == round(stamp * base * 1_000_000) - start_us
    assert clock.length_us(stamp) == round(max(0, stamp) * base * 1_000_000)
    assert clock.length_us(None) == 0
    assert clock.stamp(stamp) == math.floor(Fraction(stamp + start_us, 1_000_000) / base)


@given(st.none() | st.floats(-10, 1e9, allow_nan=False), rates, st.floats(1, 600))
def test_spans_are_contiguous_on_the_grid_and_open_at_the_end(
    duration: float | None, fps: float, span_seconds: float
) -> None:
    options = DecodeOptions(fps=fps, span_seconds=span_seconds)
    if duration is not None and duration / max(span_seconds, 1 / fps) > 10_000:
        duration = None
    spans = plan_spans(duration, options)
    assert spans[0][0] == 0.0
    assert spans[-1][1] is None
    grid = Grid(fps)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end == start
        assert grid.edge_us(grid.cell_of(round(start * 1e6))) == round(start * 1e6)
    if len(spans) > 1:
        assert duration is not None
        assert spans[-1][0] < duration


@pytest.mark.parametrize("duration", [None, 0.0, -1.0, 49 * 3600.0, float("inf"), float("nan")])
def test_an_unknown_or_absurd_duration_is_one_span(duration: float | None) -> None:
    assert plan_spans(duration, DecodeOptions()) == ((0.0, None),)


def test_a_short_rest_joins_the_last_span() -> None:
    assert plan_spans(130.0, DecodeOptions()) == ((0.0, 60.0), (60.0, None))
    assert plan_spans(151.0, DecodeOptions()) == ((0.0, 60.0), (60.0, 120.0), (120.0, None))


def test_long_videos_have_fewer_spans_and_key_frames_still_fewer() -> None:
    """A span costs opening the file, which costs more for a long one; beside it, decoding key frames costs little."""

    def longest(hours: float, sampling: Literal["fps", "keyframes"] = "fps") -> float:
        spans = plan_spans(hours * 3600, DecodeOptions(sampling=sampling))
        return max(end - start for start, end in spans if end is not None)

    assert longest(1 / 6) == 60.0
    assert longest(1 / 4) == 90.0
    assert longest(0.5) == longest(20.0) == 180.0
    assert longest(1 / 6, "keyframes") == 240.0
    assert longest(2.0, "keyframes") == 720.0


def test_at_the_end_of_a_long_video_spans_are_short_so_that_no_decoder_is_waited_for() -> None:
    spans = plan_spans(7200.0, DecodeOptions())
    assert [end - start for start, end in spans if end is not None] == [180.0] * 35 + [60.0] * 14
    assert spans[-1] == (7140.0, None)


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=60, unique=True), rates, st.floats(1, 9))
def test_spans_partition_the_samples(frames: list[int], fps: float, span_seconds: float) -> None:
    frames = sorted(frames)
    grid = Grid(fps)
    plan = plan_spans(20.0, DecodeOptions(fps=fps, span_seconds=span_seconds))

    def run(start: float, end: float | None) -> list[float]:
        sampler = FpsSampler(span(round(start * 1e6), None if end is None else round(end * 1e6)), grid)
        out = [sample for time in frames for sample in sampler.picture(picture(time))]
        return [sample.start_seconds for sample in out]

    whole = run(0.0, None)
    assert [time for part in plan for time in run(*part)] == whole
    assert whole == [min(cell) / 1e6 for _, cell in _by_cell(frames, grid)]


def _by_cell(frames: list[int], grid: Grid) -> list[tuple[int, list[int]]]:
    return [(cell, list(group)) for cell, group in itertools.groupby(frames, grid.cell_of)]


def feed(sampler: FpsSampler | KeyframeSampler, *events: Picture | tuple[int, str]) -> list[Sample]:
    """Pictures with their packets, and damages as (time, reason)."""
    out: list[Sample] = []
    for event in events:
        if isinstance(event, Picture):
            sampler.packet(event.time_us, event.duration_us, event.key)
            out += sampler.picture(event)
        else:
            out += sampler.damage(*event)
    return out


def test_the_first_frame_of_a_cell_is_its_sample_and_lasts_to_the_end_of_the_cell() -> None:
    out = feed(FpsSampler(span(), Grid(1.0)), *(picture(time) for time in (120_000, 160_000, 900_000, 1_010_000)))
    assert times(out) == [("frame", 0.12, 1.0), ("frame", 1.01, 2.0)]


def test_a_picture_that_stands_still_is_no_gap() -> None:
    sampler = FpsSampler(span(end_us=10_000_000), Grid(1.0))
    out = feed(sampler, picture(0), picture(7_500_000))
    assert times(out) == [("frame", 0.0, 1.0), ("frame", 7.5, 8.0)]
    assert list(sampler.finish(end_of_file=False, last_end_us=0)) == []


def test_damage_makes_one_gap_of_the_cells_without_a_sample() -> None:
    sampler = FpsSampler(span(), Grid(1.0))
    out = feed(sampler, picture(0), (1_500_000, "corrupt: a"), (2_500_000, "corrupt: b"), picture(4_200_000))
    assert times(out) == [("frame", 0.0, 1.0), ("gap", 1.0, 4.0), ("frame", 4.2, 5.0)]
    assert isinstance(out[1], Gap)
    assert out[1].reason == "corrupt: a"


def test_damage_within_a_sampled_cell_is_no_gap() -> None:
    out = feed(FpsSampler(span(), Grid(1.0)), picture(0), (500_000, "corrupt: a"), picture(1_000_000))
    assert times(out) == [("frame", 0.0, 1.0), ("frame", 1.0, 2.0)]


def test_packets_without_pictures_are_a_gap() -> None:
    sampler = FpsSampler(span(stream_end_us=3_000_000), Grid(1.0))
    for time_us in range(0, 3_000_000, FRAME_US):
        sampler.packet(time_us, FRAME_US, False)
    assert times(sampler.finish(end_of_file=True, last_end_us=0)) == [("gap", 0.0, 3.0)]


def test_a_picture_that_cannot_be_rendered_gives_way_to_the_next_of_its_cell() -> None:
    out = feed(FpsSampler(span(), Grid(1.0)), unreadable(0), picture(40_000), unreadable(1_000_000), picture(2_000_000))
    assert times(out) == [("frame", 0.04, 1.0), ("gap", 1.0, 2.0), ("frame", 2.0, 3.0)]


@pytest.mark.parametrize(("promised_us", "gaps"), [(2_000_000, 0), (3_400_000, 0), (9_000_000, 1)])
def test_the_end_of_the_file_before_the_promised_end_is_a_gap_unless_a_sliver(promised_us: int, gaps: int) -> None:
    sampler = FpsSampler(span(stream_end_us=promised_us), Grid(1.0))
    feed(sampler, *(picture(time) for time in range(0, 2_000_000, FRAME_US)))
    out = list(sampler.finish(end_of_file=True, last_end_us=0))
    assert times(out) == [("gap", 2.0, promised_us / 1e6)][:gaps]
    assert all(isinstance(it, Gap) and it.reason.startswith("truncated: ") for it in out)


def test_a_span_behind_the_end_of_the_file_is_a_gap() -> None:
    sampler = FpsSampler(span(60_000_000, 120_000_000, 240_000_000), Grid(1.0))
    feed(sampler, picture(30_000_000))
    assert times(sampler.finish(end_of_file=True, last_end_us=0)) == [("gap", 60.0, 120.0)]


def test_a_sample_does_not_outlast_the_stream() -> None:
    assert times(feed(FpsSampler(span(stream_end_us=300_000), Grid(1.0)), picture(0))) == [("frame", 0.0, 0.3)]


def test_a_header_that_promises_too_little_is_not_believed() -> None:
    out = feed(FpsSampler(span(stream_end_us=300_000), Grid(1.0)), picture(0), picture(1_000_000))
    assert times(out) == [("frame", 0.0, 0.3), ("frame", 1.0, 2.0)]


def test_frames_before_time_zero_belong_to_the_first_span() -> None:
    out = feed(FpsSampler(span(), Grid(1.0)), picture(-30_000), picture(10_000))
    assert [start for _, start, _ in times(out)] == [0.0]


def test_a_key_frame_lasts_until_the_next() -> None:
    sampler = KeyframeSampler(span(end_us=5_000_000), Grid(1.0))
    out = feed(sampler, picture(0, True), picture(40_000), picture(1_500_000, True), picture(3_000_000))
    out += sampler.finish(end_of_file=False, last_end_us=6_200_000)
    assert times(out) == [("frame", 0.0, 1.5), ("frame", 1.5, 6.2)]


def test_a_key_frame_lasts_until_the_damage_behind_it() -> None:
    sampler = KeyframeSampler(span(), Grid(1.0))
    out = feed(sampler, picture(0, True), (2_000_000, "corrupt: a"), picture(5_000_000, True))
    out += sampler.finish(end_of_file=True, last_end_us=7_000_000)
    assert times(out) == [("frame", 0.0, 2.0), ("gap", 2.0, 5.0), ("frame", 5.0, 7.0)]


def test_a_key_frame_that_never_comes_out_is_a_gap() -> None:
    sampler = KeyframeSampler(span(stream_end_us=6_000_000), Grid(1.0))
    out = feed(sampler, picture(0, True))
    sampler.packet(2_000_000, FRAME_US, True)
    out += feed(sampler, picture(4_000_000, True), unreadable(5_000_000), picture(5_900_000))
    out += sampler.finish(end_of_file=True, last_end_us=6_000_000)
    assert times(out) == [
        ("frame", 0.0, 2.0),
        ("gap", 2.0, 4.0),
        ("frame", 4.0, 5.0),
        ("gap", 5.0, 6.0),
    ]


def test_key_frames_of_a_truncated_file_end_with_a_gap() -> None:
    sampler = KeyframeSampler(span(stream_end_us=60_000_000), Grid(1.0))
    out = feed(sampler, picture(0, True), picture(2_000_000))
    out += sampler.finish(end_of_file=True, last_end_us=2_040_000)
    assert times(out) == [("frame", 0.0, 2.04), ("gap", 2.04, 60.0)]


def test_samples_hold_what_was_rendered() -> None:
    (sample,) = feed(FpsSampler(span(), Grid(1.0)), picture(0))
    assert isinstance(sample, SampledFrame)
    assert sample.pixels is PIXELS
