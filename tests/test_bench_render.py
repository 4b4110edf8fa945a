"""Reports as a page and as plots."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benches import __main__ as benches_main
from benches import registry
from benches.plots import draw, figure_of, wrapped
from benches.render import page, stem
from benches.report import Chart, Ratio, save
from tests.test_bench_framework import a_report

LINES: dict[str, tuple[tuple[float, float], ...]] = {
    "image": ((1.0, 10.0), (8.0, 60.0)),
    "text, a model with a name that needs two lines": ((1.0, 5.0), (8.0, 20.0)),
}
CHARTS = [
    Chart("line", "Items a second", "batch size", "items/s", LINES, log_x=True, log_y=True),
    Chart("steps", "Device in use", "s", "share", {"image": ((0.0, 0.5), (1.0, 0.7))}, kind="steps"),
    Chart(
        "points",
        "Files",
        "minutes",
        "times",
        {**LINES, "aim": ((0.0, 1.0), (9.0, 1.0))},
        kind="points",
        limits=("aim",),
    ),
    Chart("bars", "Readers", "", "frames/s", bars={"PyAV": 1234.0, "decord": 10.5}, kind="bars"),
    Chart("spread", "Readers", "", "frames/s", bars={"PyAV": 1234.0, "decord": 10.5}, kind="bars", log_y=True),
    Chart("empty", "Nothing yet", "s", "MB"),
]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_the_same_chart_is_the_same_file(chart: Chart, tmp_path: Path) -> None:
    (first,), (second,) = draw(chart, tmp_path / "first"), draw(chart, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    assert ElementTree.parse(first).getroot().tag.endswith("svg")


def test_a_picture_is_drawn_where_it_is_wanted(tmp_path: Path) -> None:
    svg, png = draw(CHARTS[0], tmp_path / "both", png=True)
    assert svg.name == "both.svg"
    assert png.read_bytes().startswith(b"\x89PNG")


def test_lines_have_their_names_beside_the_data() -> None:
    figure = figure_of(CHARTS[0])
    (axes,) = figure.axes
    figure.canvas.draw()
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [wrapped(name) for name in LINES]
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "8"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("batch size", "items/s")


def test_limits_are_drawn_apart_and_other_lines_differ_without_colour() -> None:
    (axes,) = figure_of(CHARTS[2]).axes
    image, text, aim = axes.get_lines()
    assert image.get_marker() != text.get_marker()
    assert (aim.get_marker(), aim.get_linestyle()) == ("None", "--")
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0


def test_bars_carry_their_figures_and_the_first_is_on_top() -> None:
    (axes,) = figure_of(CHARTS[3]).axes
    assert [text.get_text() for text in axes.texts] == ["1,230", "10.5"]
    assert axes.yaxis_inverted()


def test_long_names_are_wrapped_between_words() -> None:
    assert wrapped("one two three", 7) == "one two\nthree"
    assert wrapped("incomprehensibilities", 7) == "incomprehensibilities"


# --- pages ------------------------------------------------------------------------------------------------------------


def test_aims_come_first_then_each_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "BENCHES", {"second": "b", "first": "a"})
    chart = CHARTS[3]
    for name in ("first", "unknown", "second"):
        save(a_report(name, charts=[chart]), tmp_path / f"{name}.json")
    assert benches_main.main(["render", str(tmp_path), "--out", str(tmp_path / "out"), "--png"]) == 0
    text = (tmp_path / "out" / "results.md").read_text("utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Ratios against their aims", "## second", "## first", "## unknown"]
    assert "0 of 3 aims are met." in text
    assert text.index("| second ") < text.index("## second")
    assert "![Readers](first-bars.svg)" in text
    written = sorted(path.name for path in (tmp_path / "out").iterdir() if path.stem.startswith("first"))
    assert written == ["first-bars.png", "first-bars.svg"]


def test_ratios_without_an_aim_are_told_with_their_bench_alone() -> None:
    lines = list(page([a_report()]))
    assert sum("ours / theirs" in line for line in lines) == 2
    assert sum("size" in line for line in lines) == 1
    assert a_report().ratios[1] == Ratio("size", 2.0)


def test_a_plot_is_named_for_its_bench_once() -> None:
    named = [stem(a_report("models"), Chart(name, "", "", "")) for name in ("models", "models-memory", "roofline")]
    assert named == ["models", "models-memory", "models-roofline"]


def test_other_files_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(a_report(), tmp_path / "fake.json")
    (tmp_path / "trace.json").write_text('{"traceEvents": []}', "utf-8")
    assert benches_main.main(["render", str(tmp_path)]) == 0
    assert f"{tmp_path}/trace.json is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"), [("transport.json", "transport.json is damaged"), ("x.txt", "holds no reports")]
)
def test_what_cannot_be_rendered_is_one_line(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("{", "utf-8")
    assert benches_main.main(["render", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
