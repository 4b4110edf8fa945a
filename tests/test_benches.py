"""The benches of whole runs and of the wire: the long files they make, and that they give what they promise."""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from benches import transport
from benches.corpus import concatenate, lengthened, libraries_for, media_seconds
from benches.running import parser_for
from stages.media import probe
from stages.options import DecodeOptions
from tests.media_factory import frame_number, make_video

SECONDS = 2


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, with a tone."""
    return make_video(tmp_path_factory.mktemp("short") / "short.mp4", seconds=SECONDS, audio=True)


# --- long files -------------------------------------------------------------------------------------------------------


def numbers_and_times(path: Path) -> tuple[list[int], list[float]]:
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)]
    return [frame_number(picture[:, 8:56]) for picture, _ in frames], [float(time) for _, time in frames]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_copies_follow_each_other(tmp_path: Path, ending: str) -> None:
    source = make_video(tmp_path / f"one.{ending}", seconds=SECONDS, b_frames=2, audio=True)
    joined = concatenate(source, tmp_path / f"three.{ending}", 3)
    numbers, times = numbers_and_times(joined)
    one, _ = numbers_and_times(source)
    assert numbers == 3 * one
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert min(steps) == pytest.approx(0.04, abs=0.002)
    assert max(steps) < 0.15  # the sound of a copy is a little longer than its pictures
    assert media_seconds(joined) == pytest.approx(3 * media_seconds(source), abs=0.1)


def test_sound_stays_with_the_picture(short: Path, tmp_path: Path) -> None:
    with av.open(str(concatenate(short, tmp_path / "joined.mp4", 3))) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    assert all(earlier.dts < later.dts for earlier, later in pairwise(packets))
    heard = sum(float(packet.duration * packet.time_base) for packet in packets)
    assert heard == pytest.approx(3 * SECONDS, abs=0.1)


def test_nothing_is_encoded_again(short: Path, tmp_path: Path) -> None:
    def pictures(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    assert pictures(concatenate(short, tmp_path / "joined.mp4", 2)) == 2 * pictures(short)


def test_length_is_made_of_whole_copies(short: Path, tmp_path: Path) -> None:
    assert media_seconds(lengthened(short, tmp_path, 6.9 / 3600)) == pytest.approx(3 * SECONDS, abs=0.2)
    assert media_seconds(lengthened(short, tmp_path, 0.0)) == pytest.approx(SECONDS, abs=0.1)


def test_libraries_are_those_that_the_medium_needs(short: Path, tmp_path: Path) -> None:
    silent = make_video(tmp_path / "silent.mp4", seconds=1)
    of_short, of_silent = (probe(str(path).encode(), DecodeOptions()) for path in (short, silent))
    assert libraries_for(of_short, "pyav") == ("torchaudio", "onnxruntime")
    assert libraries_for(of_silent, "decord") == ("torchaudio", "decord")


# --- transport --------------------------------------------------------------------------------------------------------


def options(bench: str, *given: str) -> argparse.Namespace:
    return parser_for(bench).parse_args(given)


def test_figures_of_the_wire(short: Path) -> None:
    found = transport.measure(options("transport", str(short), "--repeat", "1", "--megabytes", "3"))
    (table,) = found.tables
    loads = {str(row[0]): dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}
    assert tuple(loads) == transport.LOADS
    assert [loads[load]["messages"] for load in ("frames", "speech")] == [20, 3]
    assert int(str(loads["medium"]["messages"])) >= SECONDS
    for figures in loads.values():
        assert float(str(figures["GB/s"])) > 0
        assert float(str(figures["CPU s"])) > 0
    assert [ratio.aim for ratio in found.ratios] == [transport.AIM, transport.AIM]
    assert all(ratio.value > 0 for ratio in found.ratios)
    assert set(found.charts[0].bars) == {"frames", "speech"}


def test_cost_back_to_back_is_that_of_the_bytes() -> None:
    decoded = {"frames": 10, "window_samples": [500_000_000, 500_000_000]}
    cost = {"frames": {"sender_cpu_seconds_per_gb": 0.5}, "speech": {"sender_cpu_seconds_per_gb": 0.25}}
    seconds = transport.back_to_back_seconds({"decode": decoded, **cost})
    assert seconds == pytest.approx(10 * 150_528 / 1e9 * 0.5 + 2.0 * 0.25)


def a_round(cpu_seconds: float, decoding_seconds: float) -> dict[str, dict[str, Any]]:
    load = {
        "messages": 2,
        "gb_per_second": 1 / cpu_seconds,
        "messages_per_second": 9.0,
        "sender_cpu_seconds": cpu_seconds,
        "sender_cpu_seconds_per_gb": cpu_seconds,
        "back_to_back_cpu_seconds": cpu_seconds / 2,
    }
    return {"decode": {"cpu_seconds": decoding_seconds}, **dict.fromkeys(transport.LOADS, load)}


def test_the_share_of_the_wire_is_that_of_each_round() -> None:
    """A round in which everything took three times as long is no outlier."""
    found = transport.findings([a_round(1.0, 50.0), a_round(3.0, 150.0), a_round(1.1, 50.0)], "a film")
    paced, back_to_back = found.ratios
    assert (paced.value, paced.low, paced.high) == pytest.approx((0.02, 0.02, 0.022))
    assert back_to_back.value == pytest.approx(0.01)
    assert paced.is_met
    load, messages, rate, spread = found.tables[0].rows[0][:4]
    assert (load, messages, spread) == ("frames", 2, "0.333 to 1.00")
    assert rate == pytest.approx(1 / 1.1)


def test_a_worker_that_fails_is_noticed() -> None:
    with pytest.raises(EOFError):
        transport.in_process(transport.decode, Path("/nonexistent.mp4"))
