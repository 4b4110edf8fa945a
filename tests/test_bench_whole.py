"""The benches of whole runs: what they make of a trace, of watched processes, and of their rounds."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches import floor_scaling, searchable, whole
from benches.floor import best_wall_seconds
from benches.floor_runs import Halves, Measured
from benches.floor_work import Answer, Part, Pass, Time
from benches.report import Ratio
from benches.watching import Watched
from benches.whole import Rounds
from benches.whole_charts import batches, busy_shares, charts, device_chart, largest_batches, rates, throughput_chart
from benches.whole_run import ROLE_NAMES, Ingest, Moment, RunFailedError, Seen, tiny_settings
from tests.conftest import TinyModels

ROW = {
    "path": "/media/a.mp4",
    "duration_seconds": 60.0,
    "frames": 60,
    "speech_segments": 3,
    "voice_segments": 9,
    "status": "indexed",
}
TOTALS = {"peak_rss_bytes": dict.fromkeys(ROLE_NAMES, 100_000_000)}


def seen(ready_seconds: float, done_seconds: float, decoded: float, cpu: float, wall: float = 10.0) -> Seen:
    """A run; CPU seconds of the engine when ready and when done, decoded when ready, and of all at the end of all."""

    def moment(wall_seconds: float, cpu_seconds: float, decoder: float = 0.0) -> Moment:
        return Moment(wall_seconds, {**dict.fromkeys(ROLE_NAMES, 0.0), "engine": cpu_seconds, "decoder": decoder})

    return Seen(
        total=Time(wall + 3.0, cpu, 0.0),
        ready=moment(2.0, ready_seconds, decoded),
        done=moment(2.0 + wall, done_seconds),
        report={"videos": [ROW], "totals": TOTALS},
        processes=(Watched("sluice-engine", 1.0, 50_000_000, [(0.0, 1e6), (1.0, 2e6)]),),
        cpu=dict.fromkeys(ROLE_NAMES, ((0.0, 0.0), (1.0, 0.5), (2.0, 1.5))),
        peak_bytes=0,
    )


def measured(decode: float, narrow: float, wide: float) -> Measured:
    """Decoding, and models with one thread and with two, in seconds of processor time."""
    tasks = (Part("frames", Time(decode, decode, 0.0), 60), Part("sound", Time(0.0, 0.0, 0.0), 3))
    start = Time(1.0, 1.0, 0.0)

    def one(threads: int, cpu: float) -> Pass:
        return Pass(Time(cpu / threads, cpu, 0.0), (Part("image", Time(cpu / threads, cpu, 0.0), 60, 2),), threads)

    return Measured(
        Answer(start, (Pass(Time(decode, decode, 0.0), tasks),), 0),
        Answer(start, (one(1, narrow), one(2, wide)), 0),
        tuple(Answer(start, (Pass(Time(cpu, cpu, 0.0), ()),), 0) for cpu in (decode, decode + 0.5)),
    )


# --- whole ------------------------------------------------------------------------------------------------------------


def test_what_a_clip_takes_is_taken_off_and_the_floor_is_the_least() -> None:
    rounds = Rounds(cores=2)
    rounds.whole.append(seen(5.0, 16.0, decoded=2.5, cpu=17.0, wall=8.0))
    rounds.clip.append(seen(5.0, 5.5, decoded=0.5, cpu=6.0, wall=1.0))
    rounds.floors.append(measured(decode=6.0, narrow=4.0, wide=5.0))
    cpu, wall, from_start, busy_cpu, all_cpu, all_wall = whole.ratios(rounds)
    assert cpu == Ratio("CPU seconds: whole / (decode-only + model-only)", 1.1, 1.08, "lower", 1.1, 1.1)
    assert wall.value == pytest.approx(7.0 / 4.0)  # of 6 s of decoding 2 were done: 8 s of work for two cores
    assert from_start.value == pytest.approx(10.0 / ((5.5 + 6.0 + 4.0) / 2))
    assert busy_cpu.value == pytest.approx(11.0 / (6.25 + 5.0))  # decoding on both cores, models in two lanes
    assert all_cpu.value == pytest.approx(17.0 / 16.0)
    assert all_wall.value == pytest.approx(8.0 / 4.0)
    assert (from_start.aim, all_wall.aim, all_cpu.aim, busy_cpu.aim) == (1.1, None, None, None)
    assert [table.title for table in (whole.seconds_table(rounds), whole.start_table(rounds))]
    rows = {str(row[0]): row[1:] for row in whole.processes_table(rounds).rows}
    assert rows["engine"] == (16.0, 5.5, 4.0, 50.0)
    assert rows["consumer"][3] == 100.0  # as it said itself, for nobody saw it


def trace_file(path: Path, events: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
    return path


def a_batch(name: str, begin_seconds: float, seconds: float, items: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "ts": begin_seconds * 1e6,
        "dur": seconds * 1e6,
        "pid": 1,
        "args": {"items": items},
    }


def test_notes_name_what_whoever_runs_it_has_set(sample_video: Path) -> None:
    assert "models on the CPU. The larger" in whole.notes(Rounds(2), [sample_video])[0]
    assert (
        "but for models.speech=x, run.y=1." in whole.notes(Rounds(2), [sample_video], ["models.speech=x", "run.y=1"])[0]
    )


def test_a_trace_tells_the_batches_and_when_the_device_was_busy(tmp_path: Path) -> None:
    others = [{"ph": "M", "name": "process_name", "ts": 0, "args": {"name": "engine"}}, a_batch("write", 0.0, 9.0, 1)]
    runs = [a_batch("image", 10.0, 1.0, 32), a_batch("image", 12.0, 2.0, 8), a_batch("voice", 11.0, 0.5, 4)]
    trace = trace_file(tmp_path / "trace.json", [*others, *runs])
    assert largest_batches(trace) == {"image": 32, "voice": 4}
    shares = device_chart(batches(trace), bins=4).lines
    assert [share for _, share in shares["image"]] == pytest.approx([1.0, 0.0, 1.0, 1.0])
    assert [share for _, share in shares["all"]] == pytest.approx([1.0, 0.5, 1.0, 1.0])
    items = throughput_chart(batches(trace), bins=4).lines
    assert [rate for _, rate in items["image"]] == pytest.approx([0.0, 32.0, 0.0, 8.0])


def test_a_trace_without_batches_gives_empty_charts(tmp_path: Path) -> None:
    trace = trace_file(tmp_path / "trace.json", [])
    assert largest_batches(trace) == {}
    assert device_chart(batches(trace)).lines["image"] == ()


@given(st.lists(st.floats(0.001, 5.0), max_size=20), st.integers(1, 30))
def test_busy_shares_add_up_to_the_time_that_was_busy(lengths: list[float], bins: int) -> None:
    spans, at = [], 0.0
    for length in lengths:
        spans.append((at, at + length))
        at += 2 * length
    shares = busy_shares(spans, 0.0, at, bins)
    assert all(-1e-9 <= share <= 1 + 1e-9 for _, share in shares)
    if at:
        assert sum(share for _, share in shares) * at / bins == pytest.approx(sum(lengths))


def test_a_counter_becomes_its_growth_a_second() -> None:
    assert rates([(0.0, 0.0), (0.5, 0.1), (1.0, 1.0), (2.0, 1.0)], total_seconds=10.0, bins=10) == (
        (0.0, 1.0),
        (1.0, 0.0),
    )


# --- decoders ---------------------------------------------------------------------------------------------------------


def test_decoders_are_compared_by_the_rounds_own_ratios() -> None:
    one, two = [seen(1.0, 2.0, 0.0, 3.0, wall) for wall in (22.0, 46.0)], [seen(1.0, 2.0, 0.0, 3.0, 10.0)] * 2
    found = floor_scaling.findings({"1": one, "2": two}, "film.mp4")
    [ratio] = found.ratios
    assert (ratio.value, ratio.low, ratio.high, ratio.is_met) == (3.0, 2.0, 4.0, True)
    assert found.charts[0].bars == {"1 decoders": 60 / 36, "2 decoders": 5.0}


# --- searchable -------------------------------------------------------------------------------------------------------


def test_times_to_searchable_are_compared_with_those_of_an_idle_daemon() -> None:
    times = {searchable.COMMAND: [5.0], searchable.IDLE: [2.0, 1.0, 4.0], searchable.BUSY: [3.0, 6.0]}
    [ratio] = searchable.ratios(times)
    assert (ratio.value, ratio.low, ratio.high) == (2.25, 1.5, 3.0)
    assert searchable.table(times).rows[1] == (searchable.IDLE, 3, 2.0, 1.0, 4.0)
    assert searchable.chart(times).bars[searchable.COMMAND] == 5.0


# --- real runs --------------------------------------------------------------------------------------------------------


def models_of(tiny_models: TinyModels) -> dict[str, Path]:
    return {family: tiny_models[family] for family in ("clip", "whisper", "ecapa")}


def test_both_halves_of_the_floor_do_the_work_of_the_medium(
    sample_video: Path, tiny_models: TinyModels, tmp_path: Path
) -> None:
    halves = Halves(tiny_settings(models_of(tiny_models)), [sample_video], tmp_path)
    halves.record()
    found = Measured(halves.decode(), halves.models({"image": 8}, [1]), halves.decode_on_each(2))
    assert [each.passes[0].parts[0].items for each in found.decodes] == [20, 20]
    assert found.all_cores_cpu_seconds > found.least.time.cpu_seconds
    assert [(part.name, part.items) for part in found.decode.passes[0].parts[:1]] == [("frames", 20)]
    models = {part.name: part for part in found.least.parts}
    assert (models["image"].items, models["image"].batches) == (20, 3)
    windows = found.decode.passes[0].parts[1]
    assert (windows.name, windows.items) == ("sound", models["speech"].items)
    assert models["voice"].items > models["speech"].items > 0
    floor = found.floor(cores=1)
    assert best_wall_seconds(floor) >= floor.cpu_seconds > 0


def test_a_whole_run_is_seen_from_outside(sample_video: Path, tiny_models: TinyModels, tmp_path: Path) -> None:
    traced = tmp_path / "trace.json"
    options = ("--trace", str(traced))
    settings = [*tiny_settings(models_of(tiny_models)), "decode.fps=12"]  # work enough to be met in the midst of it
    run = Ingest(settings, tmp_path / "run", options).run([sample_video])
    assert run.report["videos"][0]["frames"] == 240
    assert run.total.wall_seconds > run.done.wall_seconds > run.ready.wall_seconds > 0
    assert run.total.cpu_seconds > run.done.total_cpu_seconds > run.ready.total_cpu_seconds > 0
    assert run.work_cpu_by_role()["engine"] > 0
    assert sum(batch.args["items"] for batch in batches(traced) if batch.name == "image") == 240
    drawn = {chart.name: chart for chart in charts(run, traced)}
    assert set(drawn) == {"whole-memory", "whole-cpu", "whole-device", "whole-throughput"}
    assert set(drawn["whole-memory"].lines) - {f"decoder {number}" for number in range(2, 99)} == set(ROLE_NAMES)


def test_a_run_that_fails_is_an_error_with_its_last_words(tmp_path: Path, tiny_models: TinyModels) -> None:
    models = {"clip": tmp_path / "nowhere", "whisper": tiny_models["whisper"], "ecapa": tiny_models["ecapa"]}
    with pytest.raises(RunFailedError, match="nowhere"):
        Ingest(tiny_settings(models), tmp_path / "run").run([tmp_path / "a.mp4"])
