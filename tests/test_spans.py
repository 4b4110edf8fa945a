"""Spans that begin at key frames where an index tells of them, and that give what one pass gives."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import pyav_backend
from stages.media import probe
from stages.options import DecodeOptions
from stages.sampling import Grid, Sample, SampledFrame
from stages.skipping import Step
from stages.spans import nominal_edges, plan_spans, spans_of
from stages.video import read_frames
from tests.media_factory import make_audio, make_video
from transport.messages import FrameFormat

SQUARE = FrameFormat(width=96, height=96, fit="crop")
rates = st.sampled_from([0.1, 0.5, 1.0, 3.0, 29.97])


modes = st.sampled_from(["fps", "keyframes"])


@given(st.floats(1, 3000), rates, st.floats(1, 200), st.lists(st.floats(0, 3000), max_size=40), modes)
def test_spans_stay_contiguous_on_the_grid_and_rise(
    duration: float, fps: float, span_seconds: float, keys: list[float], sampling: Any
) -> None:
    options = DecodeOptions(fps=fps, span_seconds=span_seconds, sampling=sampling)
    spans, plain = plan_spans(duration, options, sorted(keys)), plan_spans(duration, options)
    assert len(spans) == len(plain)
    assert spans[0][0] == 0.0
    assert spans[-1][1] is None
    grid = Grid(fps)
    for (start, end), (following, _) in itertools.pairwise(spans):
        assert end == following
        assert end > start
        assert grid.edge_us(grid.cell_of(round(following * 1e6))) == round(following * 1e6)


def test_a_span_begins_behind_the_first_key_frame_of_its_first_half() -> None:
    options = DecodeOptions(span_seconds=10.0)
    assert plan_spans(40.0, options, (10.0, 23.4, 37.0)) == ((0.0, 10.0), (10.0, 24.0), (24.0, 30.0), (30.0, None))
    assert plan_spans(40.0, options, (3.0, 19.0)) == plan_spans(40.0, options)


def test_key_frames_are_spans_of_their_own_as_they_come() -> None:
    options = DecodeOptions(sampling="keyframes", span_seconds=10.0)
    assert plan_spans(90.0, options, (41.0,)) == plan_spans(90.0, options)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "b.webm"])
def test_an_index_tells_of_key_frames(tmp_path: Path, name: str) -> None:
    """Every 1.4 s; spans would begin every 2 s."""
    codec = "libvpx" if name.endswith("webm") else "libx264"
    b_frames = 0 if codec == "libvpx" else 2
    path = make_video(tmp_path / name, seconds=9, gop=35, codec=codec, b_frames=b_frames)
    options = DecodeOptions(fps=5.0, span_seconds=2.0)
    media = probe(bytes(path), options)
    assert media.video is not None
    assert media.video.key_seconds == pytest.approx([2.8, 4.2, 7.0, 8.4], abs=0.002)
    assert [start for start, _ in spans_of(media, options)] == pytest.approx([0.0, 2.8, 4.2, 6.0, 8.4])


def test_where_there_is_no_index_nothing_is_told(tmp_path: Path) -> None:
    for name in ("a.ts", "a.avi", "a.flv"):
        path = make_video(tmp_path / name, seconds=5, gop=35)
        media = probe(bytes(path), DecodeOptions(span_seconds=2.0))
        assert media.video is not None
        assert media.video.key_seconds == ()
        assert len(spans_of(media, DecodeOptions(span_seconds=2.0))) == len(
            nominal_edges(5.0, DecodeOptions(span_seconds=2.0))
        )


def test_a_live_recording_without_cues_can_be_probed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=5, live=True)
    media = probe(bytes(path), DecodeOptions(span_seconds=2.0))
    assert spans_of(media, DecodeOptions(span_seconds=2.0)) == ((0.0, None),)


def test_sound_alone_has_no_spans(tmp_path: Path) -> None:
    media = probe(bytes(make_audio(tmp_path / "a.m4a", seconds=3)), DecodeOptions())
    assert spans_of(media, DecodeOptions()) == ()


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.webm", "libvpx-vp9")])
def test_spans_give_what_one_pass_gives_and_decode_hardly_more(
    tmp_path: Path, name: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    decode = pyav_backend._Decoding._decode

    def counted(decoding: pyav_backend._Decoding, step: Step) -> Iterator[Sample]:
        decoded.append(step)
        return decode(decoding, step)

    monkeypatch.setattr(pyav_backend._Decoding, "_decode", counted)
    path = make_video(tmp_path / name, seconds=12, gop=60, codec=codec)

    def read(spans: Any) -> tuple[list[tuple[float, bytes]], int]:
        decoded.clear()
        samples = [
            sample
            for start, end in spans
            for sample in read_frames(bytes(path), media, start, end, SQUARE, options)
            if isinstance(sample, SampledFrame)
        ]
        return [(sample.start_seconds, sample.pixels.tobytes()) for sample in samples], len(decoded)

    options = DecodeOptions(fps=5.0, span_seconds=3.0)
    media = probe(bytes(path), options)
    whole, once = read([(0.0, None)])
    spans, by_spans = read(spans_of(media, options))
    blind, by_blind_spans = read(plan_spans(12.0, options))
    assert spans == blind == whole
    assert len(spans_of(media, options)) == 4
    assert by_spans <= once + 3 * 8  # some frames of every span, until its first sample is out
    assert by_blind_spans > once + 50
