"""What all benches share: turns, ratios, tables, the command line, and all of them after each other."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches import __main__ as benches_main
from benches import registry, running, suite
from benches.corpus import media_seconds
from benches.measuring import cost_of, cpu_seconds, in_turn, ratio_of, rounds
from benches.options import add_models, medium_in, tiny_models
from benches.report import Chart, Findings, Machine, Ratio, Report, Table, read, save
from benches.show import cell_text, grid, markdown, plain, ratio_row, ratio_text
from stages.errors import SluiceError
from tests.conftest import TinyModels

MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "3.11", {"torch": "2"})
positive = st.floats(1e-6, 1e9)


# --- turns and ratios -------------------------------------------------------------------------------------------------


@given(st.lists(st.text(), unique=True), st.integers(0, 9))
def test_everybody_has_a_turn_in_every_round_and_nobody_always_follows_the_same(names: list[str], number: int) -> None:
    assert sorted(in_turn(names, number)) == sorted(names)
    assert in_turn(names, number) == list(reversed(in_turn(names, number + 1)))


@given(st.lists(st.tuples(positive, positive, positive), min_size=1))
def test_a_round_that_was_slow_for_both_changes_no_ratio(measured: list[tuple[float, float, float]]) -> None:
    above, below = [a for a, _, _ in measured], [b for _, b, _ in measured]
    plainly = ratio_of("r", above, below)
    slowed = ratio_of("r", [a * s for a, _, s in measured], [b * s for _, b, s in measured])
    assert slowed.value == pytest.approx(plainly.value)
    assert plainly.low is not None
    assert plainly.high is not None
    assert plainly.low <= plainly.value <= plainly.high


def test_rounds_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_of("r", [1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [(1.0, "lower", True), (1.1, "lower", False), (1.1, "higher", True), (0.9, "higher", False)],
)
def test_an_aim_is_a_bound_from_above_or_below(value: float, better: str, met: bool) -> None:
    assert ratio_of("r", [value], [1.0], 1.0, better).is_met is met
    assert ratio_of("r", [value], [1.0], None, better).is_met is None


def test_candidates_take_turns_after_a_warm_up_that_is_not_counted() -> None:
    ran: list[str] = []

    def candidate(name: str) -> dict[str, float]:
        ran.append(name)
        return {"number": float(len(ran))}

    costs = rounds({"a": lambda: candidate("a"), "b": lambda: candidate("b")}, 3)
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab"
    assert [cost.values["number"] for cost in costs["a"]] == [3, 6, 7]
    assert all(cost.wall_seconds > 0 for cost in costs["b"])


def test_processor_time_is_that_of_this_process_and_of_its_children() -> None:
    script = "import time; sum(range(3_000_000)); print(time.process_time())"
    told: list[float] = []

    def child() -> None:
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        told.append(float(done.stdout))

    own, cpu = time.process_time(), cpu_seconds()
    spent = cost_of(child).cpu_seconds
    assert spent >= told[0] > 0
    assert cpu_seconds() - cpu >= told[0] + (time.process_time() - own) * 0.99


# --- text -------------------------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15), st.integers(1, 9))
def test_a_number_is_shown_without_an_exponent_and_near_what_it_is(value: float, digits: int) -> None:
    text = cell_text(value, digits)
    assert set(text) <= set("0123456789.,-")
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits) + 1e-12)


@given(st.integers())
def test_whole_numbers_keep_all_their_digits(value: int) -> None:
    assert int(cell_text(value, 2).replace(",", "")) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5678, "1,230"), (0.5, "0.500"), (99.96, "100"), (0.0000123456, "0.0000123"), (0.0, "0"), (-2.345, "-2.35")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert cell_text(value, 3) == text


def test_what_is_not_known_is_a_dash_and_words_are_themselves() -> None:
    assert cell_text(None, 3) == "-"
    assert cell_text("PyAV", 3) == "PyAV"
    assert cell_text(float("inf"), 3) == "inf"


@pytest.mark.parametrize(("aim", "text"), [(20000.0, "20,000"), (0.9999, "0.9999"), (1.0, "1"), (0.00001, "0.00001")])
def test_an_aim_is_shown_as_it_was_set(aim: float, text: str) -> None:
    assert plain(aim) == text


def test_a_ratio_that_misses_its_aim_narrowly_does_not_look_met() -> None:
    assert ratio_text(Ratio("cosine", 0.99985, 0.9999, "higher")) == "0.99985"
    assert ratio_text(Ratio("cpu", 1.0800001, 1.08)) == "1.0800001"
    assert ratio_text(Ratio("cpu", 1.08, 1.08)) == "1.080"
    assert ratio_row(Ratio("points/s", 21234.6, 20000.0, "higher", 20000.1, 25000.0)) == (
        "points/s", "21,230", "20,000 to 25,000", "≥ 20,000", "met"
    )  # fmt: skip


cells = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=8)
sizes = st.integers(1, 4)


@given(sizes.flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=5)))
def test_a_grid_is_a_rectangle_with_every_cell_in_its_column(table: list[list[str]]) -> None:
    lines = list(grid(table[0], table[1:]))
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == len(table) + 1
    for row, line in zip(table, [lines[0], *lines[2:]], strict=True):
        shown = line.replace("\\|", "\0").split("|")[1:-1]
        assert [cell.replace("\0", "|").strip() for cell in shown] == [cell.strip() for cell in row]


def test_a_report_is_read_as_it_was_written_and_shown_whole(tmp_path: Path) -> None:
    report = a_report(tables=(Table("Readers", ("reader", "frames/s"), (("PyAV", 12.5), ("decord", None))),))
    save(report, tmp_path / "new" / "fake.json")
    assert read(tmp_path / "new" / "fake.json") == report
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fake.json"]
    text = "\n".join(markdown(report))
    assert "a processor, 2 cores, 8 GB, cpu" in text
    assert "| PyAV   |     12.5 |" in text
    assert "- decord reads less" in text


def a_report(bench: str = "fake", tables: Sequence[Table] = (), charts: Sequence[Chart] = ()) -> Report:
    return Report(
        bench=bench,
        command=f"python -m benches {bench}",
        machine=MACHINE,
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        tables=tuple(tables),
        ratios=(Ratio("ours / theirs", 1.5, 1.0), Ratio("size", 2.0)),
        charts=tuple(charts),
        notes=("decord reads less",),
    )


# --- command line -----------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    parser.add_argument("--value", type=float, default=1.0)


def measure(arguments: argparse.Namespace) -> Findings:
    if arguments.value < 0:
        raise SluiceError("bench-test", "nothing is less than nothing: set --value to 0 or more")
    return Findings(ratios=[Ratio("value", arguments.value, 1.0)])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench called fake."""
    module = ModuleType("tests.fake_bench", "What it does.")
    vars(module).update(TITLE="a fake", add_arguments=add_arguments, measure=measure)
    monkeypatch.setitem(sys.modules, "tests.fake_bench", module)
    monkeypatch.setattr(registry, "BENCHES", {"fake": "tests.fake_bench"})


@pytest.mark.usefixtures("fake")
def test_what_a_bench_finds_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benches_main.main(["fake", "--value", "2", "--results", str(tmp_path)]) == 0
    kept = read(tmp_path / "fake.json")
    assert kept.command == f"python -m benches fake --value 2 --results {tmp_path}"
    assert kept.ratios == (Ratio("value", 2.0, 1.0),)
    assert kept.machine.cores >= 1
    assert "**missed**" in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_a_missed_aim_is_an_exit_code_for_who_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(tmp_path), "--strict"]
    assert benches_main.main(["fake", "--value", "1", *results]) == 0
    assert benches_main.main(["fake", "--value", "2", *results]) == 1
    assert "fake misses: value" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_an_expected_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benches_main.main(["fake", "--value", "-1", "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "fake: nothing is less than nothing: set --value to 0 or more\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("name", "said"), [("fke", "did you mean fake? there are: fake"), ("zzz", "there are: fake")])
def test_a_name_that_there_is_not_is_told_what_there_is(
    name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benches_main.main([name]) == 2
    assert f"no bench is called {name}; {said}" in capsys.readouterr().err


def test_every_bench_is_listed_and_its_options_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert benches_main.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(registry.BENCHES)
    for name in registry.BENCHES:
        assert running.parser_for(name).parse_args([]).results == running.RESULTS
        assert registry.load(name).TITLE in lines[list(registry.BENCHES).index(name)]


def test_small_models_are_built_below_the_results(tmp_path: Path, tiny_models_built: Path) -> None:
    given = argparse.Namespace(models=None, results=tmp_path)
    assert tiny_models(given, ["ecapa"]) == {"ecapa": tmp_path / "models" / "tiny-ecapa"}
    named = argparse.Namespace(models=tiny_models_built, results=tmp_path)
    assert tiny_models(named, ["ecapa"])["ecapa"].parent == tiny_models_built


@pytest.fixture
def tiny_models_built(tiny_models: TinyModels) -> Path:
    return tiny_models.directory


def test_a_medium_is_taken_from_the_media_at_hand_else_made(sample_video: Path, tmp_path: Path) -> None:
    unnamed = argparse.Namespace(medium=None)
    assert medium_in(tmp_path, argparse.Namespace(medium=sample_video)) == (sample_video, "sample.mp4")
    made, told = medium_in(tmp_path, unnamed, media=tmp_path / "nowhere")
    assert (made.parent, told) == (tmp_path, "a minute of generated footage (seed 0)")
    media = tmp_path / "media"
    media.mkdir()
    (media / "sample.mp4").symlink_to(sample_video)
    manifest = {"files": [{"name": "sample.mp4", "expect": {"verdict": "ok"}}]}
    (media / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    film, told = medium_in(tmp_path, unnamed, media)
    assert told == film.name
    assert media_seconds(film) == pytest.approx(180, abs=1)


# --- all of them ------------------------------------------------------------------------------------------------------

STAND_IN = """#!/bin/bash
echo "$@" >>{calls}
[[ "$*" != *bad* ]]
"""


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, calls, results = tmp_path / "python", tmp_path / "calls", tmp_path / "results"
    python.write_text(STAND_IN.format(calls=calls), "utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(registry, "BENCHES", {"first": "a", "bad": "b", "last": "c", "gpu": "d"})
    save(a_report("bad"), results / "bad.json")
    assert benches_main.main(["all", "--results", str(results)]) == 1
    called = [line.split() for line in calls.read_text("utf-8").splitlines()]
    assert called == [
        ["-m", "benches.suite", name, str(results), f"{results}/models"] for name in ("first", "bad", "last")
    ]
    assert not (results / "bad.json").exists(), "nobody takes a former report for today's"
    said = capsys.readouterr().err
    assert "--- bad: failed, exit code 1" in said
    assert "--- last: done" in said
    assert benches_main.main(["all", "first", "last", "--results", str(results)]) == 0
    assert benches_main.main(["all", "firts"]) == 2
    assert "no bench is called firts" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_a_bench_among_all_gets_the_models_when_it_takes_them(tmp_path: Path) -> None:
    assert suite.child("fake", str(tmp_path), "the-models") == 0
    assert read(tmp_path / "fake.json").command.endswith(f"--results {tmp_path} --models the-models")
    assert suite.options_for("results", "models", takes_models=False) == ["--results", "results"]


@pytest.mark.usefixtures("fake")
def test_an_option_with_a_default_of_its_own_means_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert running.takes_models("fake")

    def real_ones(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--models", default="models/real")

    monkeypatch.setattr(registry.load("fake"), "add_arguments", real_ones)
    assert not running.takes_models("fake")
    monkeypatch.setattr(registry.load("fake"), "add_arguments", lambda parser: None)
    assert not running.takes_models("fake")


def test_a_process_of_its_own_says_how_it_ended(tmp_path: Path) -> None:
    assert suite.one("no-such-bench", tmp_path, tmp_path).exit_code == 1
