"""The benches of decoding and of similar frames: plain readers give what ours give, and findings say what was found."""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benches import decode, similar
from benches.corpus_sources import looked_at
from benches.decode_readers import (
    SIDE,
    Sampled,
    decord_batches,
    decord_steps,
    every_frame,
    key_frames,
    without_nonref,
    without_rests,
)
from benches.measuring import Cost
from benches.report import Findings
from stages.options import DecodeOptions
from stages.sampling import SampledFrame
from tests.conftest import TinyModels
from tests.media_factory import make_video

PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six seconds by codecs with and without B-frames."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "h264": make_video(folder / "h264.mp4", seconds=6, width=320, height=180, gop=40, b_frames=2),
        "hevc": make_video(folder / "hevc.mp4", seconds=6, width=320, height=180, gop=40, codec="libx265"),
        "vp9": make_video(folder / "vp9.webm", seconds=6, width=320, height=180, gop=40, codec="libvpx-vp9"),
    }


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize("reader", [every_frame, without_nonref, without_rests])
@pytest.mark.parametrize("fps", [0.5, 1.0, 5.0])
def test_plain_readers_give_our_frames(
    codec: str, reader: Callable[[Path, float], Sampled], fps: float, files: dict[str, Path]
) -> None:
    ours = decode.ours_of(files[codec], DecodeOptions(fps=fps))
    alike = decode.likeness(ours, reader(files[codec], fps))
    assert alike == decode.Likeness(round(6 * fps), round(6 * fps), round(6 * fps))


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
def test_the_plain_reader_of_key_frames_gives_ours(codec: str, files: dict[str, Path]) -> None:
    ours = decode.ours_of(files[codec], DecodeOptions(sampling="keyframes"))
    assert decode.likeness(ours, key_frames(files[codec], 1.0)) == decode.Likeness(4, 4, 4)


@pytest.mark.parametrize("reader", [decord_batches, decord_steps])
def test_decord_gives_frames_of_the_same_times(
    reader: Callable[[Path, float], Sampled], files: dict[str, Path]
) -> None:
    ours = decode.ours_of(files["h264"], DecodeOptions())
    theirs = reader(files["h264"], 1.0)
    assert decode.likeness(ours, theirs).same_times == 6
    assert max(np.abs(mine[1].astype(int) - other[1]).mean() for mine, other in zip(ours, theirs, strict=True)) < 5


def test_likeness_counts_frames_times_and_pixels() -> None:
    other = PIXELS + 1
    ours: Sampled = [(0.0, PIXELS), (1.0, PIXELS), (2.0, PIXELS)]
    theirs: Sampled = [(0.0, PIXELS), (1.1, PIXELS), (2.0, other), (3.0, PIXELS)]
    assert decode.likeness(ours, theirs) == decode.Likeness(frames=4, same_times=2, same_pixels=2)


def test_packets_that_reach_the_decoder_are_counted(files: dict[str, Path]) -> None:
    """150 frames in GOPs of 40; the samples at one in ten seconds are that of frame 0."""
    assert decode.share_decoded(files["h264"], 0.1) <= 5 / 150
    assert decode.share_decoded(files["vp9"], 25.0) == 1.0


def costs_of(*seconds: float) -> list[Cost]:
    return [Cost(wall_seconds=2 * each, cpu_seconds=each) for each in seconds]


def test_findings_are_ratios_of_rounds() -> None:
    sampled: Sampled = [(0.0, PIXELS)]
    names = [f"h264: {who}, {mode}" for who in ("ours", "fastest reader") for mode in ("1 fps", "key frames")]
    costs = {name: costs_of(1.2, 2.4) if "ours" in name else costs_of(1.0, 2.0) for name in names}
    found = decode.findings(["h264"], costs, dict.fromkeys(names, sampled), ((1.0, 24.0),), {"h264": {1.0: 0.9}})
    assert [ratio.value for ratio in found.ratios[:3]] == pytest.approx([1.2, 1.2, 1.0])
    assert [ratio.is_met for ratio in found.ratios[:3]] == [False, False, True]
    assert [len(table.rows) for table in found.tables] == [4, 2, 1]
    assert found.charts[0].bars == pytest.approx({"ours, 1 fps": 1.8, "fastest reader, 1 fps": 1.5})


def test_a_whole_run_of_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]) -> None:
    monkeypatch.setattr(decode, "sources", lambda *_: [looked_at(files["h264"])])
    monkeypatch.setattr(decode, "RECIPES", decode.RECIPES[:1])
    monkeypatch.setattr(decode, "RATES", (1.0,))
    found = run(decode, ["--seconds", "7", "--rounds", "1", "--media", "none"], tmp_path)
    assert [ratio.value for ratio in found.ratios if ratio.name.endswith("pixels")] == [1.0, 1.0]
    readers, codecs, shares = found.tables
    assert len(readers.rows) == 10
    assert [row[:2] for row in codecs.rows] == [("h264", "1 fps"), ("h264", "key frames")]
    assert [row[0] for row in shares.rows] == ["h264"]
    assert all(row[6] == row[4] for row in readers.rows)  # every reader gives all frames at the same times


def run(bench: object, argv: list[str], folder: Path) -> Findings:
    parser = ArgumentParser()
    parser.add_argument("--results", type=Path, default=folder)
    bench.add_arguments(parser)  # type: ignore[attr-defined]
    found = bench.measure(parser.parse_args(argv))  # type: ignore[attr-defined]
    assert isinstance(found, Findings)
    return found


# --- similar frames ---------------------------------------------------------------------------------------------------


def video(name: str, *greys: int) -> similar.Video:
    """A frame a second, with a vector that turns with its grey."""
    frames = tuple(
        SampledFrame(second, second + 1, np.full((8, 8, 3), grey, np.uint8)) for second, grey in enumerate(greys)
    )
    angles = np.array(greys) / 100
    vectors: NDArray[np.float32] = np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)
    return similar.Video(name, frames, vectors)


def test_effects_count_what_was_left_out_and_what_is_found() -> None:
    still, other = video("still", 10, 11, 10, 90), video("other", 50, 51, 52)
    one, two = similar.effects([still, other], 4.0)
    assert (one.frames, one.sent, one.found) == (4, 2, 2)
    assert one.cosines == pytest.approx([np.cos(0.01), 1.0])
    assert (two.frames, two.sent, two.found) == (3, 1, 2)


def test_a_frame_whose_like_is_elsewhere_counts_as_not_found() -> None:
    (one, _) = similar.effects([video("still", 10, 13), video("other", 13, 90)], 4.0)
    assert (one.sent, one.found) == (1, 0)


def test_a_whole_run_over_similar_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_models: TinyModels
) -> None:
    def paint(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return np.full((height, width, 3), 40 + 60 * (number // 30), np.uint8)

    path = make_video(tmp_path / "still.mp4", seconds=9, fps=10, paint=paint)
    monkeypatch.setattr(similar, "sources", lambda *_: [looked_at(path)])
    found = run(similar, ["--models", str(tiny_models.directory)], tmp_path)
    assert [row[1] for row in found.tables[0].rows] == [9, 9, 9, 9]
    assert [row[2] for row in found.tables[0].rows] == pytest.approx([6 / 9] * 4)
    assert [row[3] for row in found.tables[0].rows] == [1.0] * 4
