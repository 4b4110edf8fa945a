"""Frames that are told apart, and frames that are not; and that no time is lost with those that are left out."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.errors import MediaError
from stages.options import DecodeOptions
from stages.sampling import Sample, SampledFrame
from stages.similar import BLOCK, block_means, difference, without_similar
from tests.media_factory import make_video
from tests.test_video import by_spans, frames, samples
from transport.messages import Gap

SIDE = 32


def frame(second: int, grey: float) -> SampledFrame:
    return SampledFrame(second, second + 1, np.full((SIDE, SIDE, 3), grey, np.uint8))


def gap(second: int) -> Gap:
    return Gap(start_seconds=second, end_seconds=second + 1, reason="corrupt: made so")


def times(out: list[Sample]) -> list[tuple[str, float, float]]:
    return [("gap" if isinstance(it, Gap) else "frame", it.start_seconds, it.end_seconds) for it in out]


def test_a_picture_that_stands_still_is_sent_once_for_all_its_time() -> None:
    out = list(without_similar([frame(second, grey) for second, grey in enumerate((10, 10, 11, 90, 90))], 4.0))
    assert times(out) == [("frame", 0, 3), ("frame", 3, 5)]
    assert [int(it.pixels[0, 0, 0]) for it in out if isinstance(it, SampledFrame)] == [10, 90]


def test_slow_change_is_noticed() -> None:
    """Each is like the one before; but it is compared with the last that was sent."""
    out = list(without_similar((frame(second, 3 * second) for second in range(10)), 8.0))
    assert times(out) == [("frame", 0, 3), ("frame", 3, 6), ("frame", 6, 9), ("frame", 9, 10)]


def test_behind_a_gap_a_frame_is_always_sent() -> None:
    out = list(without_similar([frame(0, 10), frame(1, 10), gap(2), frame(3, 10), gap(4)], 4.0))
    assert times(out) == [("frame", 0, 2), ("gap", 2, 3), ("frame", 3, 4), ("gap", 4, 5)]


def test_at_most_one_frame_is_held() -> None:
    taken: list[int] = []

    def watched() -> Iterator[Sample]:
        for second in range(6):
            taken.append(second)
            yield frame(second, 60 * (second % 2))

    for number, given_out in enumerate(without_similar(watched(), 4.0)):
        assert given_out.start_seconds == number
        assert len(taken) <= number + 2


def test_an_error_comes_after_the_frame_that_was_held() -> None:
    def failing() -> Iterator[Sample]:
        yield from (frame(0, 10), frame(1, 10))
        raise MediaError("read-error", "made so")

    out = without_similar(failing(), 4.0)
    assert times([next(out)]) == [("frame", 0, 2)]
    with pytest.raises(MediaError, match="made so"):
        next(out)


@given(st.lists(st.one_of(st.none(), st.integers(0, 255)), max_size=40), st.floats(0.5, 100))
def test_all_time_stays_covered_in_order(greys: list[int | None], threshold: float) -> None:
    stream = [gap(second) if grey is None else frame(second, grey) for second, grey in enumerate(greys)]
    out = list(without_similar(stream, threshold))
    edges = [0.0, *(it.end_seconds for it in out)]
    assert [it.start_seconds for it in out] == edges[:-1]  # each begins where the one before ends
    assert edges[-1] == len(greys)
    for it in out:
        if isinstance(it, SampledFrame):
            for second in range(int(it.start_seconds), int(it.end_seconds)):
                grey = greys[second]
                assert grey is not None
                assert abs(grey - int(it.pixels[0, 0, 0])) < threshold or second == it.start_seconds


@given(st.integers(0, 2**32 - 1), st.sampled_from([(8, 8), (16, 24), (33, 47), (224, 224)]))
def test_means_are_those_of_blocks(seed: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    means = block_means(pixels)
    assert means.shape == (size[0] // BLOCK, size[1] // BLOCK, 3)
    assert means[-1, -1, 1] == pytest.approx(block(pixels, means.shape[0] - 1, means.shape[1] - 1)[..., 1].mean())


def block(pixels: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    return pixels[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]


def test_difference_is_in_levels_of_grey() -> None:
    black, grey, white = (block_means(frame(0, level).pixels) for level in (0, 7, 255))
    assert difference(black, grey) == pytest.approx(7)
    assert difference(black, white) == pytest.approx(255)
    assert difference(black, block_means(np.zeros((64, 64, 3), np.uint8))) == math.inf
    assert difference(*[block_means(np.zeros((4, 4, 3), np.uint8))] * 2) == math.inf


def test_noise_is_forgiven_and_a_small_thing_that_changes_much_is_not() -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(40, 200, (224, 224, 3), np.uint8)
    noisy = np.clip(still + rng.normal(0, 6, still.shape), 0, 255).astype(np.uint8)
    changed = still.copy()
    changed[100:124, 60:164] = 255  # a line of text: 5 % of the picture
    assert difference(block_means(still), block_means(noisy)) < 2
    assert difference(block_means(still), block_means(changed)) > 8


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_spans_are_independent_of_each_other(tmp_path: Path, backend: str) -> None:
    """Three pictures in nine seconds, read in one piece and in spans of three."""

    def paint(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return np.full((height, width, 3), 40 + 60 * (number // 50), np.uint8)

    path = make_video(tmp_path / "still.mp4", seconds=9, fps=10, paint=paint)
    options = DecodeOptions(skip_similar=4.0, span_seconds=3.0, backend=backend)  # type: ignore[arg-type]
    whole = [(it.start_seconds, it.end_seconds) for it in frames(samples(path, options=options))]
    parts = [(it.start_seconds, it.end_seconds) for it in frames(by_spans(path, options, 9.0))]
    assert whole == [(0, 5), (5, 9)]
    assert parts == [(0, 3), (3, 5), (5, 6), (6, 9)]


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    path = make_video(tmp_path / "still.mp4", seconds=4, paint=lambda *_: np.full((48, 64, 3), 99, np.uint8))
    assert len(samples(path)) == 4
    assert len(samples(path, options=DecodeOptions(skip_similar=1.0))) == 1
