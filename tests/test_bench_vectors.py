"""The bench of vectors: what is compared with what, and that the whole engine gives what the libraries give."""

from pathlib import Path

import numpy as np
import pytest

from benches import vectors
from benches.floor_work import FrameIndex, Index, WindowIndex, Work
from benches.running import parser_for
from benches.vectors import VectorsMissingError, cosines, frames_of, sounds_of
from benches.whole_run import StoredPoint
from tests.conftest import TinyModels


def work() -> Work:
    """Two frames of a video, and a second of sound that begins at 10 s."""
    index = Index(
        [FrameIndex("/media/a.mp4", 0.0), FrameIndex("/media/a.mp4", 1.0)],
        [WindowIndex("/media/a.mp4", 0, 16_000, 10.0, 11.0, ((10.0, 11.0),))],
    )
    frames = np.stack([np.full((2, 2, 3), value, np.uint8) for value in (0, 1)])
    return Work(frames, np.arange(16_000, dtype=np.int16), index)


def point(collection: str, start_seconds: float, end_seconds: float, path: str = "a.mp4") -> StoredPoint:
    payload = {"path": path, "start_seconds": start_seconds, "end_seconds": end_seconds}
    return StoredPoint(collection, payload, {})


def test_a_frame_is_found_by_file_and_time() -> None:
    later, earlier = frames_of(work(), [point("frames", 1.0, 2.0), point("frames", 0.0, 1.0)])
    assert (later.max(), earlier.max()) == (1, 0)


@pytest.mark.parametrize("times", [(0.0,), (0.0, 1.0, 2.0), (0.0, 0.5), (0.0, 0.0)])
def test_a_frame_too_few_or_too_many_is_an_error(times: tuple[float, ...]) -> None:
    with pytest.raises(VectorsMissingError, match="2 frames were decoded"):
        frames_of(work(), [point("frames", time, time + 1) for time in times])


def test_a_voice_is_cut_out_of_its_window() -> None:
    [sound] = sounds_of(work(), [point("voices", 10.25, 10.5)])
    assert sound.tolist() == list(range(4000, 8000))


@pytest.mark.parametrize("other", [point("voices", 9.9, 10.5), point("voices", 10.0, 11.0, "b.mp4")])
def test_a_voice_of_no_window_is_an_error(other: StoredPoint) -> None:
    with pytest.raises(VectorsMissingError, match="no window of sound"):
        sounds_of(work(), [other])


def test_cosines_are_of_pairs_whatever_their_lengths() -> None:
    ours = np.array([[2.0, 0.0], [1.0, 1.0]])
    theirs = np.array([[5.0, 0.0], [1.0, -1.0]])
    np.testing.assert_allclose(cosines(ours, theirs), [1.0, 0.0], atol=1e-15)


def test_vectors_through_the_whole_engine_are_those_of_the_plain_libraries(
    tiny_models: TinyModels, sample_video: Path, tmp_path: Path
) -> None:
    options = ["--precision", "float32", "--models", str(tiny_models.directory), "--results", str(tmp_path)]
    found = vectors.measure(parser_for("vectors").parse_args([str(sample_video), *options]))
    assert {ratio.name.split()[3].rstrip(",") for ratio in found.ratios} == {"frames", "speech", "voices"}
    assert all(ratio.is_met for ratio in found.ratios)
    counts = {str(row[0]): row[2] for row in found.tables[0].rows}
    assert counts["frames"] == 20
    for row in found.tables[0].rows:  # a neighbour's vector would be told from its own
        assert float(str(row[5])) > 100 * float(str(row[4]))
