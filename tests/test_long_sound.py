"""The bench of long sound tracks: what it measures, and when it says that memory is constant."""

from pathlib import Path
from typing import Any

import pytest

from benches import long_sound
from benches.sample_video import make_sample
from tests.conftest import TinyModels


def test_every_process_of_a_whole_run_is_measured(tmp_path: Path, tiny_models: TinyModels) -> None:
    sample = make_sample(tmp_path / "sample.mp4", 20.0)
    arguments = [str(sample), "--hours", "0.005", "--models", str(tiny_models.directory)]
    result = long_sound.measure(long_sound.parse_arguments(arguments))
    (only,) = result["lengths"]
    assert set(only["memory"]) == set(long_sound.PARTS)
    assert all(use["peak_mb"] >= use["before_mb"] > 10 for use in only["memory"].values())
    assert only["voice_coverage"] == 1.0
    assert only["voice_segments"] >= 3
    assert result["verdict"]["spread_over_lengths"] == dict.fromkeys(long_sound.PARTS, 0.0)
    assert len(long_sound.table(result["lengths"]).splitlines()) == 1 + len(long_sound.PARTS)


def test_a_reader_is_measured_at_each_length(tmp_path: Path) -> None:
    sample = make_sample(tmp_path / "sample.mp4", 20.0)
    arguments = [str(sample), "--hours", "0.012", "0.005", "--read-only"]
    result = long_sound.measure(long_sound.parse_arguments(arguments))
    short, long = result["lengths"]
    assert [round(each["hours"] * 3600) for each in (short, long)] == [20, 60]  # whole copies, the shorter first
    assert long["speech_hours"] == pytest.approx(3 * short["speech_hours"], rel=0.1)
    assert set(short["memory"]) == set(long["memory"]) == {"reader"}
    assert result["verdict"]["spread_over_lengths"]["reader"] < 1


def length(voices: int = 0, **peaks: float) -> dict[str, Any]:
    return {
        "hours": 1.0,
        "memory": {part: {"before_mb": 50.0, "peak_mb": peak, "own_mb": peak - 50} for part, peak in peaks.items()},
        "voice_segments": voices,
        "speech_segments": voices // 4,
    }


@pytest.mark.parametrize(
    ("short", "long", "within"),
    [
        (length(engine=900.0), length(engine=940.0), True),
        (length(engine=900.0), length(engine=950.0), False),
        (length(engine=950.0), length(engine=900.0), False),
        (length(reader=300.0, engine=900.0), length(reader=320.0, engine=900.0), False),
        (length(voices=1_000, consumer=100.0), length(voices=21_000, consumer=130.0), True),  # 1.5 kB for each
        (length(voices=1_000, consumer=100.0), length(voices=21_000, consumer=134.0), False),
    ],
)
def test_memory_is_constant_within_a_twentieth_but_for_what_is_kept_of_points(
    short: dict[str, Any], long: dict[str, Any], within: bool
) -> None:
    assert long_sound.verdict([short, long])["within_limits"] is within
