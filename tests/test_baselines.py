"""The baselines: that they do the work they are said to do, in processes that are watched, and what is made of it."""

import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benches import baseline_film, baseline_libraries, baselines
from benches.baseline_one_by_one import Done, Job, Ready
from benches.baseline_runs import (
    ONE_BY_ONE,
    SLUICE,
    SYSTEMS,
    WORKERS,
    MemoryWatch,
    Run,
    RunFailedError,
    Setup,
    command,
    run_system,
    said_in,
)
from benches.baseline_steps import by_length, read_frames, read_sound
from benches.baseline_tables import corpus_table, notes, points_table, steps_table
from benches.baseline_workers import threads_each
from benches.measuring import Cost
from benches.report import Findings
from stages.store import FRAMES, SPEECH, VOICES
from tests.conftest import TinyModels
from tests.media_factory import make_video

MODELS = {name: Path(f"/models/{name}") for name in ("clip", "whisper", "ecapa")}


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("silent") / "silent.mp4", seconds=4)


@pytest.fixture(scope="module")
def setup(tiny_models: TinyModels) -> Setup:
    return Setup({name: tiny_models[name] for name in ("clip", "whisper", "ecapa")})


# --- whole systems ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(setup: Setup, sample_video: Path, silent: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    directory = tmp_path_factory.mktemp("systems")
    return {system: run_system(system, [sample_video, silent], directory / system, setup) for system in SYSTEMS}


@pytest.mark.timeout(600)
def test_all_systems_store_the_same_frames_and_voices(runs: dict[str, Run]) -> None:
    assert {run.points[FRAMES] for run in runs.values()} == {24}
    assert len({run.points[VOICES] for run in runs.values()}) == 1
    assert all(run.points[SPEECH] > 0 for run in runs.values())
    assert runs[ONE_BY_ONE].points == runs[WORKERS].points


def test_runs_are_watched_to_their_end(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert not run.killed
        assert 0 < run.ready_seconds < run.wall_seconds
        assert 0 < run.ready_cpu_seconds < run.cpu_seconds
        assert 100e6 < run.peak_pss_bytes <= run.peak_rss_bytes * 1.1  # looked at one after the other
        assert run.memory
    assert set(runs[SLUICE].peaks) >= {"supervisor", "decoder", "engine", "consumer"}
    assert set(runs[ONE_BY_ONE].peaks) == {"main"}


def test_baselines_tell_what_each_video_took(runs: dict[str, Run], sample_video: Path, silent: Path) -> None:
    done = {event.path: event for event in runs[ONE_BY_ONE].done}
    assert set(done) == {str(sample_video), str(silent)}
    assert set(done[str(sample_video)].steps) == {"decode", "image", "sound", "speech", "text", "voice", "upsert"}
    assert done[str(silent)].points == {FRAMES: 4, SPEECH: 0, VOICES: 0}
    assert sum(done[str(silent)].steps.values()) <= done[str(silent)].wall_seconds


def test_a_system_that_fails_is_an_error(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"Sluice ended with \d+: .*nothing\.mp4"):
        run_system(SLUICE, [tmp_path / "nothing.mp4"], tmp_path / "run", setup)


def test_what_takes_too_much_memory_is_killed() -> None:
    script = "import time\nkept = bytearray(300_000_000)\nprint('full', flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        with MemoryWatch(process.pid, 200_000_000) as watch:
            assert process.wait(timeout=60) == -9
        assert isinstance(watch, MemoryWatch)
        assert watch.killed
        assert max(used for _, used in watch.memory) > 200e6


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["pyav", "nonref", "decord"])
def test_every_reader_gives_a_frame_a_second_at_full_size(reader: Any, sample_video: Path) -> None:
    frames = read_frames(str(sample_video), reader)
    assert len(frames) == 20
    assert {pixels.shape for _, pixels in frames} == {(360, 640, 3)}
    assert [round(seconds) for seconds, _ in frames] == list(range(20))


def test_sound_is_read_whole_where_there_is_any(sample_video: Path, silent: Path) -> None:
    sound = read_sound(str(sample_video))
    assert sound is not None
    assert len(sound) == pytest.approx(20 * 16_000, rel=0.01)
    assert read_sound(str(silent)) is None


def test_windows_of_one_length_go_together() -> None:
    windows = [(0.0, 3.0), (1.5, 4.5), (9.0, 10.0), (20.0, 23.0)]
    assert [(length, len(some)) for length, some in by_length(windows)] == [(16_000, 1), (48_000, 3)]


@pytest.mark.parametrize(("cores", "workers", "threads"), [(2, 2, 1), (16, 4, 4), (2, 4, 1)])
def test_workers_share_the_cores(cores: int, workers: int, threads: int) -> None:
    assert threads_each(cores, workers) == threads


# --- commands and words -----------------------------------------------------------------------------------------------


def test_sluice_is_given_the_same_work(tmp_path: Path) -> None:
    words = command(SLUICE, [Path("a.mp4")], tmp_path, Setup(MODELS))
    settings = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    assert words[1:4] == ["run.py", "ingest", "a.mp4"]
    assert {"speech.captions=ignore", "speech.temperatures=[0.0]", "device.name=cpu"} <= set(settings)
    assert f"models.image={MODELS['clip']}" in settings


@pytest.mark.parametrize("system", [ONE_BY_ONE, WORKERS])
def test_a_baseline_gets_its_job_as_json(system: str, tmp_path: Path) -> None:
    words = command(system, [Path("a.mp4")], tmp_path, Setup(MODELS, speech_batch=16))
    job = msgspec.json.decode(words[-1], type=Job)
    assert (job.media, job.speech_batch, job.reader) == (("a.mp4",), 16, "pyav")
    assert job.store == str(tmp_path / "store")


def test_words_are_told_from_events() -> None:
    done = Done("a.mp4", 2.0, {FRAMES: 3}, {"decode": 1.0})
    assert said_in(msgspec.json.encode(done).decode() + "\n") == done
    assert said_in(msgspec.json.encode(Ready()).decode()) == Ready()
    assert said_in("indexing on cpu, 1 decoder") == Ready()
    assert said_in("Traceback (most recent call last):") is None


# --- what is made of it -----------------------------------------------------------------------------------------------


def a_run(wall_seconds: float = 10.0, **more: Any) -> Run:
    figures: dict[str, Any] = {
        "cpu_seconds": 12.0,
        "ready_seconds": 4.0,
        "ready_cpu_seconds": 5.0,
        "peak_rss_bytes": 2_000_000_000,
        "peak_pss_bytes": 1_000_000_000,
        "peaks": {"engine": 800_000_000},
        "memory": ((0.0, 1e9),),
        "points": {FRAMES: 60, SPEECH: 5, VOICES: 9},
        "done": (Done("a.mp4", 3.0, {}, {"decode": 1.0}), Done("b.mp4", 2.0, {}, {"decode": 2.0, "image": 1.0})),
        "killed": False,
    }
    return Run(wall_seconds, **{**figures, **more})


def test_throughput_is_compared_round_by_round() -> None:
    theirs = [a_run(30.0), a_run(20.0)]
    ratios = {
        ratio.name: ratio
        for ratio in baselines.throughput_ratios({SLUICE: [a_run(10.0), a_run(20.0)], ONE_BY_ONE: theirs})
    }
    whole = ratios["throughput, Sluice to one by one"]
    assert (whole.value, whole.low, whole.high, whole.is_met) == (2.0, 1.0, 3.0, True)
    assert ratios["throughput, Sluice to one by one, without start-up"].value == pytest.approx((26 / 6 + 1) / 2)
    assert ratios["CPU s, Sluice to one by one"].is_met is None


def test_tables_of_a_corpus() -> None:
    runs = {SLUICE: [a_run(10.0), a_run(14.0)], ONE_BY_ONE: [a_run(30.0), a_run(20.0)]}
    (first, *_), second = corpus_table(runs, 120.0).rows
    assert first == SLUICE
    assert corpus_table(runs, 120.0).rows[0][1:4] == (10.0, 12.0, 8.0)
    assert second[0] == ONE_BY_ONE
    assert points_table(runs).rows[0] == (SLUICE, 60, 5, 9)
    assert steps_table(runs[ONE_BY_ONE]).rows[:2] == (("decode", 3.0), ("image", 1.0))


def test_different_numbers_of_frames_are_told() -> None:
    other = a_run(points={FRAMES: 59, SPEECH: 5, VOICES: 9})
    assert "DIFFER" not in "".join(notes({SLUICE: [a_run()], ONE_BY_ONE: [a_run()]}))
    assert "DIFFER" in "".join(notes({SLUICE: [a_run()], ONE_BY_ONE: [other]}))


def test_a_long_file_is_compared_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    walls = {SLUICE: iter((10.0, 12.0)), ONE_BY_ONE: iter((9.0, 24.0))}
    monkeypatch.setattr(baselines, "run_system", lambda system, *_: a_run(next(walls[system])))
    monkeypatch.setattr(baselines, "media_seconds", lambda path: 61.0 if path.stem == "long" else 59.0)
    findings = Findings()
    baselines.add_files(findings, [Path("long.mp4"), Path("short.mp4")], tmp_path, Setup(MODELS), 2)
    assert [row for table in findings.tables for row in table.rows] == [("long.mp4", 10.0, 9.0, 6.0, 5.0)]
    assert findings.ratios[0].value == pytest.approx((0.9 + 2.0) / 2)
    assert findings.ratios[0].aim == 1.0


def test_a_film_that_kills_a_system_is_told() -> None:
    killed = a_run(99.0, killed=True, peak_pss_bytes=16_000_000_000, points={}, done=())
    findings = baseline_film.found({1080: {SLUICE: a_run(), ONE_BY_ONE: killed}}, {1080: 7200.0})
    assert findings.tables[0].rows[0][2:4] == ("60 frames in 10 s", 720.0)
    assert findings.tables[0].rows[1][2:4] == ("killed for its memory after 99 s, nothing stored", None)
    (ratio,) = findings.ratios
    assert (ratio.value, ratio.is_met) == (1 / 16, True)
    assert ratio.name.endswith("at most")
    assert set(findings.charts[0].lines) == {"Sluice, 1080 lines", "one by one, 1080 lines"}


def test_a_system_that_was_killed_early_proves_nothing() -> None:
    killed = a_run(99.0, killed=True, peak_pss_bytes=2_000_000_000)
    assert baseline_film.memory_ratio(1080, {SLUICE: a_run(), ONE_BY_ONE: killed}).is_met is None
    whole = a_run(99.0, peak_pss_bytes=2_000_000_000)
    assert baseline_film.memory_ratio(1080, {SLUICE: a_run(), ONE_BY_ONE: whole}).is_met is False


# --- the libraries' own tools -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(sample_video: Path, setup: Setup) -> baseline_libraries.Work:
    return baseline_libraries.prepared(sample_video, dict(setup.models))


def test_tools_get_the_same_work(work: baseline_libraries.Work) -> None:
    assert len(work.frames) == len(work.full) == 20
    assert work.windows
    assert work.texts
    assert work.voices


@pytest.mark.timeout(600)
def test_every_tool_runs(work: baseline_libraries.Work) -> None:
    candidates = baseline_libraries.candidates(work)
    begin = time.monotonic()
    for candidate in candidates.values():
        assert candidate() is None
    assert time.monotonic() > begin
    assert {name.partition(":")[0] for name in candidates} == {"decode", "image", "sound", "speech", "text", "voice"}


def test_tools_are_compared_with_our_stage(work: baseline_libraries.Work) -> None:
    costs = {"text: Sluice": [Cost(1.0, 2.0), Cost(1.0, 3.0)], "text: tool": [Cost(2.0, 4.0), Cost(2.0, 4.0)]}
    found = baseline_libraries.findings(costs, work)
    assert found.tables[0].rows == (("text", "Sluice", 1.0, 1.0, 1.0, 2.5), ("text", "tool", 2.0, 2.0, 2.0, 4.0))
    assert [(ratio.name, ratio.value) for ratio in found.ratios] == [("CPU s, text: Sluice to tool", 0.625)]


def test_options_have_defaults() -> None:
    import argparse

    for bench in (baselines, baseline_libraries, baseline_film):
        parser = argparse.ArgumentParser()
        bench.add_arguments(parser)
        assert isinstance(parser.parse_args([]), Namespace)
