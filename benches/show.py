"""A report as text: for the terminal, and as Markdown for documents."""

import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TextIO

from benches.report import Cell, Ratio, Report, Table

LOADED = 0.2  # load of one minute, a core: above it somebody else was at work
RATIO_DIGITS = 4
MOST_DIGITS = 9  # of a ratio that lies near its aim


def show(report: Report, stream: TextIO) -> None:
    """Print it as Markdown, which reads well as plain text."""
    print("\n".join(markdown(report)), file=stream)


def markdown(report: Report, level: int = 2) -> Iterator[str]:
    """Lines: what was run where, ratios with their aims, tables, notes. level: of the heading."""
    yield f"{'#' * level} {report.bench}"
    yield ""
    yield f"`{report.command}`, {report.seconds:.0f} s, {report.started[:10]}: {described(report)}"
    if report.ratios:
        yield from ("", *ratio_lines(report.ratios))
    for table in report.tables:
        yield from ("", table.title + ":", "", *table_lines(table))
    if report.notes:
        yield from ("", *(f"- {note}" for note in report.notes))
    yield ""


def described(report: Report) -> str:
    """The machine in a few words."""
    where = report.machine
    load = f"; load before: {where.load_before:.2f} a core" if where.load_before > LOADED else ""
    return f"{where.processor}, {where.cores} cores, {where.memory_gb:.0f} GB, {where.device}{load}"


def table_lines(table: Table) -> Iterator[str]:
    """As Markdown, numbers to the right."""
    return grid(table.columns, [tuple(cell_text(cell, table.digits) for cell in row) for row in table.rows])


def ratio_lines(ratios: Iterable[Ratio]) -> Iterator[str]:
    """A table with a line for each."""
    return grid(("ratio", "median", "spread", "aim", ""), [ratio_row(each) for each in ratios])


def ratio_row(ratio: Ratio) -> tuple[str, ...]:
    """One line of the table of ratios."""
    spread = ""
    if ratio.low is not None and ratio.high is not None:
        spread = f"{cell_text(float(ratio.low), 3)} to {cell_text(float(ratio.high), 3)}"
    sign = "≤" if ratio.better == "lower" else "≥"
    aim = f"{sign} {plain(ratio.aim)}" if ratio.aim is not None else ""
    verdict = {True: "met", False: "**missed**", None: ""}[ratio.is_met]
    return ratio.name, ratio_text(ratio), spread, aim, verdict


def ratio_text(ratio: Ratio) -> str:
    """Its value, with digits enough to tell it from the aim."""
    value = float(ratio.value)
    for digits in range(RATIO_DIGITS, MOST_DIGITS):
        text = cell_text(value, digits)
        if ratio.aim is None or value == ratio.aim or rounded(value, digits) != ratio.aim:
            return text
    return cell_text(value, MOST_DIGITS)


def cell_text(cell: Cell, digits: int) -> str:
    """Numbers with so many significant digits, and never with an exponent; whole ones with all of theirs."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return _float_text(cell, digits)
    return f"{cell:,}" if isinstance(cell, int) else cell


def _float_text(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return str(value)
    near = rounded(value, digits)
    before_point = math.floor(math.log10(abs(near))) + 1 if near else 1
    return f"{near:,.{max(0, digits - before_point)}f}" if near else "0"


def rounded(value: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


def plain(value: float) -> str:
    """A number that somebody chose, with the digits that were chosen."""
    return f"{Decimal(repr(float(value))).normalize():,f}"


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown, its columns aligned in plain text as well; all but the first to the right."""
    lines = [[_escaped(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(columns))]
    yield _line([cell.ljust(width) for cell, width in zip(lines[0], widths, strict=True)])
    yield "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    for first, *others in lines[1:]:
        yield _line([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
