"""The bench of memory: what it says of runs, and a real run with the engine stopped on the way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benches import memory
from benches.memory import cases, findings
from benches.memory_child import Result, status_mb
from benches.memory_runs import NeverStoppedError, Run, run
from benches.report import Ratio
from benches.running import parser_for
from benches.whole_run import ROLE_NAMES
from tests.conftest import TinyModels

A_RUN = Run(
    backend="pyav",
    minutes=10.0,
    stopped_seconds=0.0,
    imports_mb=100.0,
    peaks_mb={"supervisor": 60.0, "decoder": 200.0, "engine": 900.0, "consumer": 150.0},
    anonymous_mb=80.0,
    status="indexed",
    gaps=0,
    points={"frames": 600, "speech": 10, "voices": 20},
    ids="a",
    hours_per_hour=30.0,
)


def a_run(decoder_mb: float = 200.0, **more: Any) -> Run:
    return replace(A_RUN, peaks_mb={**A_RUN.peaks_mb, "decoder": decoder_mb}, **more)


def verdicts(*runs: Run) -> dict[str, bool | None]:
    """By the first word or two of each ratio that is aimed at."""
    return {ratio.name.split(",")[0]: ratio.is_met for ratio in findings(runs).ratios if ratio.aim is not None}


ABOVE, GROWTH, SAME = (
    "decoder: most above its imports",
    "decoder: peak at any length / with the engine stopped",
    "share of runs with the engine stopped that store the same",
)
STOPPED = a_run(stopped_seconds=30.0, decoder_mb=270.0)


@pytest.mark.parametrize(
    ("more", "missed"),
    [
        ([STOPPED, a_run(minutes=120.0, decoder_mb=283.0)], set()),
        ([STOPPED, a_run(minutes=120.0, decoder_mb=284.0)], {GROWTH}),
        ([STOPPED, a_run(minutes=120.0, decoder_mb=351.0)], {GROWTH, ABOVE}),
        ([STOPPED, a_run(backend="decord", decoder_mb=300.0)], set()),
        ([a_run(stopped_seconds=30.0, ids="b")], {SAME}),
        ([a_run(stopped_seconds=30.0, status="partial")], {SAME}),
    ],
)
def test_every_limit_is_known(more: list[Run], missed: set[str]) -> None:
    assert {name for name, is_met in verdicts(A_RUN, *more).items() if not is_met} == missed


def test_nothing_is_said_of_runs_that_were_not_made() -> None:
    assert set(verdicts(A_RUN)) == {ABOVE}
    assert findings([A_RUN]).charts == []


def test_peaks_are_drawn_over_lengths_for_every_process() -> None:
    [chart] = findings([A_RUN, a_run(minutes=30.0), a_run(stopped_seconds=5.0)]).charts
    assert set(chart.lines) == set(ROLE_NAMES)
    assert chart.lines["decoder"] == ((10.0, 200.0), (30.0, 200.0))


def test_the_engine_is_stopped_on_the_file_of_middle_length() -> None:
    media = [Path("a"), Path("b"), Path("c")]
    assert list(cases(media, 5.0)) == [(Path("a"), 0.0), (Path("b"), 0.0), (Path("c"), 0.0), (Path("b"), 5.0)]
    assert list(cases(media[:1], 0.0)) == [(Path("a"), 0.0)]


def test_memory_of_whole_runs(sample_video: Path, tiny_models: TinyModels, tmp_path: Path) -> None:
    options = ["--minutes", "0.05", "--stop-engine", "0.5"]
    options += ["--models", str(tiny_models.directory), "--results", str(tmp_path)]
    found = memory.measure(parser_for("memory").parse_args([str(sample_video), *options]))
    plain, stopped = (dict(zip(found.tables[0].columns, row, strict=True)) for row in found.tables[0].rows)
    assert plain["engine stopped s"] == 0.0
    assert isinstance(stopped["engine stopped s"], float)
    assert stopped["engine stopped s"] >= 0.5
    assert plain["frames, speech, voices"] == stopped["frames, speech, voices"]
    for row in (plain, stopped):
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        assert numbers["decoder MB"] > numbers["decoder's imports MB"] > 20
        assert numbers["above MB"] == pytest.approx(numbers["decoder MB"] - numbers["decoder's imports MB"])
        assert numbers["engine MB"] > numbers["consumer MB"] > numbers["supervisor MB"] > 10
    assert [ratio for ratio in found.ratios if ratio.name == SAME] == [Ratio(SAME, 1.0, 1.0, "higher")]


def test_an_engine_that_could_not_be_stopped_so_long_is_an_error(
    sample_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_short = Result(report={}, decoder_mb=0.0, decoder_anonymous_mb=0.0, imports_mb=0.0, stopped_seconds=0.5)
    monkeypatch.setattr("benches.memory_runs._result_of", lambda _: too_short)
    monkeypatch.setattr("benches.memory_runs.stored", lambda _: ({}, ""))
    models = dict.fromkeys(("clip", "whisper", "ecapa"), tmp_path)
    with pytest.raises(NeverStoppedError, match="was over before"):
        run(sample_video, "pyav", models, stop_seconds=1.0)


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert status_mb(2**22 + 1) == {}  # beyond the kernel's largest process id
