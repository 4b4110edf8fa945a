"""What sound costs, read by processes of their own."""

from pathlib import Path

import pytest

from benches import audio_cost
from benches.audio_cost import WORK, Reader, findings, key
from benches.corpus import media_seconds
from benches.measuring import Cost
from benches.running import parser_for

HOURS = (0.1, 0.2)


def test_tracks_of_both_lengths_are_read_in_every_way(sample_video: Path) -> None:
    arguments = [str(sample_video), "--hours", "0.01", "0.02", "--rounds", "1"]
    found = audio_cost.measure(parser_for("sound").parse_args(arguments))
    (table,) = found.tables
    assert [row[:2] for row in table.rows] == [(work, hours) for work in WORK for hours in (0.01, 0.02)]
    assert all(isinstance(row[2], float) and row[2] > 0 for row in table.rows)
    items = {row[:2]: int(str(row[-1])) for row in table.rows}
    assert all(items[work, 0.02] > items[work, 0.01] > 0 for work in WORK)
    assert set(found.charts[0].bars) == set(WORK)
    assert "sample.mp4" in table.title


def test_joined_tracks_are_as_long_as_they_were_asked_for(sample_video: Path, tmp_path: Path) -> None:
    audio_cost.join(sample_video, tmp_path / "joined.mka", 0.02)
    assert media_seconds(tmp_path / "joined.mka") == pytest.approx(80, abs=1)  # whole copies of 20 s


def test_a_reader_that_ends_is_noticed(tmp_path: Path) -> None:
    with Reader("everything") as reader, pytest.raises(EOFError, match=r"nowhere\.mka"):
        reader.read(tmp_path / "nowhere.mka")


def rounds(peak_bytes: float | None) -> list[Cost]:
    figures = {"cpu_seconds": 2.0, "wall_seconds": 3.0, "hours": 0.5, "items": 7.0, "imported_bytes": 100e6}
    peak = {} if peak_bytes is None else {"peak_bytes": peak_bytes}
    return [Cost(9.0, 9.0, figures | peak), Cost(9.0, 9.0, figures | peak)]


def test_memory_is_compared_between_the_lengths() -> None:
    sizes = {0.1: 120e6, 0.2: 150e6}
    found = findings({key(work, hours): rounds(sizes[hours]) for work in WORK for hours in HOURS}, HOURS, "a film")
    (ratio,) = found.ratios
    assert (ratio.value, ratio.is_met) == (1.25, False)
    assert found.tables[0].rows[0] == ("decode", 0.1, 4.0, "4.00 to 4.00", 6.0, 100, 20.0, 7)


def test_memory_that_the_system_does_not_tell_is_left_out() -> None:
    found = findings({key(work, hours): rounds(None) for work in WORK for hours in HOURS}, HOURS, "a film")
    assert found.ratios == []
    assert found.tables[0].rows[0][-2] is None
