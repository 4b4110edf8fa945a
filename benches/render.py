"""`python -m benches render [DIR]`: the reports in a directory as one page of tables, with a plot for each chart.

Ratios and whether their aims were met come first, then each bench's tables and plots. The page and the plots depend on
the reports alone: the same reports give the same files.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benches import registry
from benches.report import Chart, Ratio, Report, read
from benches.running import RESULTS
from benches.show import grid, markdown, ratio_row
from stages.errors import SluiceError

PAGE = "results.md"
COLUMNS = ("bench", "ratio", "median", "spread", "aim", "")


class NoReports(SluiceError):
    """There is nothing to render."""


def main(argv: list[str]) -> int:
    """Write the page and the plots, and print their paths. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches render", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, nargs="?", default=RESULTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"for {PAGE} and the plots (default: where they are)")
    parser.add_argument("--png", action="store_true", help="write plots as PNG, too")
    arguments = parser.parse_args(argv)
    for path in render(reports_in(arguments.directory), arguments.out or arguments.directory, png=arguments.png):
        print(path)
    return 0


def reports_in(directory: Path) -> list[Report]:
    """In the order of the registry, then by name. Other JSON there is named on standard error and left alone.

    Raises NoReports when there are none, or when the file of a bench is not its report.
    """
    found = [report for path in sorted(directory.glob("*.json")) if (report := _report(path)) is not None]
    if not found:
        raise NoReports("bench-no-reports", f"{directory} holds no reports: `python -m benches all` writes some")
    order = list(registry.BENCHES)
    return sorted(found, key=lambda each: order.index(each.bench) if each.bench in order else len(order))


def _report(path: Path) -> Report | None:
    try:
        return read(path)
    except msgspec.DecodeError as error:
        if path.stem in registry.BENCHES:
            raise NoReports("bench-bad-report", f"{path} is damaged ({error}): remove it, or measure again") from error
        print(f"{path} is left out: it is not a report", file=sys.stderr)
        return None


def render(reports: Sequence[Report], out: Path, *, png: bool = False) -> list[Path]:
    """Write everything; returns the page and the plots. Raises OSError."""
    from benches.plots import draw  # its library is needed here alone

    out.mkdir(parents=True, exist_ok=True)
    written = [out / PAGE]
    written[0].write_text("\n".join(page(reports)), "utf-8")
    for report in reports:
        for chart in report.charts:
            written += draw(chart, out / stem(report, chart), png=png)
    return written


def stem(report: Report, chart: Chart) -> str:
    """Name of a plot's file without its ending: the bench and the chart. Pure."""
    is_named = chart.name == report.bench or chart.name.startswith(f"{report.bench}-")
    return chart.name if is_named else f"{report.bench}-{chart.name}"


def page(reports: Sequence[Report]) -> Iterator[str]:
    """Lines of Markdown. Pure."""
    yield from ("# What the benches found", "")
    aimed = [(report, ratio) for report in reports for ratio in report.ratios if ratio.aim is not None]
    if aimed:
        yield from ("## Ratios against their aims", "", verdict([ratio for _, ratio in aimed]), "")
        yield from grid(COLUMNS, [(report.bench, *ratio_row(ratio)) for report, ratio in aimed])
        yield ""
    for report in reports:
        yield from markdown(report)
        for chart in report.charts:
            yield from (f"![{chart.title}]({stem(report, chart)}.svg)", "")


def verdict(ratios: Sequence[Ratio]) -> str:
    """How many hold. Pure."""
    met = sum(ratio.is_met is True for ratio in ratios)
    return f"{met} of {len(ratios)} aims are met."
