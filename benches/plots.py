"""Charts of reports as SVG and PNG, by matplotlib without a display. The same report gives the same file, byte by byte.

Colours are those of Okabe and Ito, which people who see few colours can tell apart too (jfly.uni-koeln.de/color); lines
differ in their markers besides. Legends stand beside the data, never on it.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from benches.report import Chart
from benches.show import cell_text, plain

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LIMIT_COLOUR = "#555555"
LIMIT_STYLES = ("--", ":", "-.")
GRID_COLOUR = "#dddddd"
INCHES = (8.0, 4.2)
BAR_INCHES = 0.36  # height of a bar with its gap
DOTS_PER_INCH = 150
MOST_STEPS = 10  # ticks of an axis of powers
MOST_MARKERS = 40  # more than these in a line hide it
WORDS_IN_LEGEND = 34  # letters

SETTINGS = {
    "svg.hashsalt": "sluice",  # ids in the file are drawn from it, not from chance
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def draw(chart: Chart, stem: Path, *, png: bool = False) -> list[Path]:
    """Write STEM.svg, and STEM.png where that is wanted; returns what was written. Raises OSError."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        figure = figure_of(chart)
        written = [stem.with_name(stem.name + ".svg")]
        figure.savefig(written[0], metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        if png:
            written.append(stem.with_name(stem.name + ".png"))
            figure.savefig(written[1], metadata={"Software": None}, dpi=DOTS_PER_INCH, bbox_inches="tight")
    return written


def figure_of(chart: Chart) -> Any:
    """A matplotlib Figure. No state of pyplot is touched, so nothing has to be closed."""
    from matplotlib.figure import Figure

    is_bars = chart.kind == "bars"
    height = 1.3 + BAR_INCHES * len(chart.bars) if is_bars else INCHES[1]
    figure = Figure(figsize=(INCHES[0], height))
    axes = figure.add_subplot()
    axes.set_title(chart.title, pad=12)
    if is_bars:
        _bars(axes, chart)
    else:
        _lines(axes, chart)
    return figure


# --- lines ------------------------------------------------------------------------------------------------------------


def _lines(axes: Any, chart: Chart) -> None:
    for name, points, style in _styled(chart):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, label=wrapped(name), **style)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.grid(color=GRID_COLOUR, linewidth=0.8)
    _scale(axes, chart)
    if len(chart.lines) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)


def _styled(chart: Chart) -> Iterator[tuple[str, tuple[tuple[float, float], ...], dict[str, Any]]]:
    """Each line with how it is drawn: limits last and without markers, others each in its own colour and marker."""
    number = 0
    for name, points in chart.lines.items():
        if name not in chart.limits:
            yield name, points, _style(number, len(points), chart.kind)
            number += 1
    for number, name in enumerate(name for name in chart.limits if name in chart.lines):
        style = LIMIT_STYLES[number % len(LIMIT_STYLES)]
        yield name, chart.lines[name], {"color": LIMIT_COLOUR, "linestyle": style, "linewidth": 1.4, "zorder": 1.5}


def _style(number: int, count: int, kind: str) -> dict[str, Any]:
    """Of a line by its number. Beyond seven the colours come again, dashed."""
    style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.8}
    if number >= len(COLOURS):
        style["linestyle"] = "--"
    if kind == "steps":
        style["drawstyle"] = "steps-post"
    elif kind == "points" or count <= MOST_MARKERS:
        style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 5.5}
    if kind == "points":
        style["linestyle"] = "none"
    return style


def _scale(axes: Any, chart: Chart) -> None:
    """Axes of numbers begin at zero, so that twice as high is twice as much; those of powers have plain figures."""
    from matplotlib.ticker import FixedLocator

    for is_log, axis, set_log, set_limit, values in (
        (chart.log_x, axes.xaxis, axes.set_xscale, axes.set_xlim, _values(chart, 0)),
        (chart.log_y, axes.yaxis, axes.set_yscale, axes.set_ylim, _values(chart, 1)),
    ):
        if is_log:
            set_log("log")
            _plain_powers(axis, values)
        elif values and min(values) >= 0:
            set_limit(0, None)
        axis.set_major_formatter(_figures)
    if chart.log_x and (steps := _steps(_values(chart, 0))):
        axes.xaxis.set_major_locator(FixedLocator(steps))
        axes.xaxis.set_minor_locator(FixedLocator([]))


def _values(chart: Chart, place: int) -> list[float]:
    return [point[place] for points in chart.lines.values() for point in points]


def _steps(values: list[float]) -> list[float]:
    """Where there are few and they lie apart, as batch sizes do: the values themselves, to be the axis's ticks."""
    distinct = sorted(set(values))
    lie_apart = all(later >= 1.4 * earlier for earlier, later in pairwise(distinct))
    return distinct if len(distinct) <= MOST_STEPS and lie_apart else []


def _plain_powers(axis: Any, values: list[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_minor_formatter(NullFormatter())
    if values and max(values) < 50 * min(values):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


def _figures(value: float, _position: int | None = None) -> str:
    return plain(float(f"{value:.6g}"))


# --- bars -------------------------------------------------------------------------------------------------------------


def _bars(axes: Any, chart: Chart) -> None:
    """Lying, so that long names can be read; the first on top, each with its figure."""
    names, values = [wrapped(name) for name in chart.bars], list(chart.bars.values())
    drawn = axes.barh(range(len(names)), values, height=0.66, color=COLOURS[0])
    axes.bar_label(drawn, labels=[cell_text(float(value), 3) for value in values], padding=4)
    axes.set_yticks(range(len(names)), labels=names)
    axes.invert_yaxis()
    axes.set_xlabel(chart.y)
    axes.set_ylabel(chart.x)
    axes.grid(axis="x", color=GRID_COLOUR, linewidth=0.8)
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    if chart.log_y:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_figures)


def wrapped(text: str, letters: int = WORDS_IN_LEGEND) -> str:
    """On several lines where it is long. Pure."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return "\n".join(lines)
