"""A report as text: for the terminal, and as Markdown for documents."""

from collections.abc import Iterator
from typing import TextIO

from benches.report import Cell, Ratio, Report, Table


def show(report: Report, stream: TextIO) -> None:
    """Print it as Markdown, which reads well as plain text."""
    print("\n".join(markdown(report)), file=stream)


def markdown(report: Report) -> Iterator[str]:
    """Lines: what was run where, ratios with their aims, tables, notes."""
    yield f"## {report.bench}"
    yield ""
    yield f"`{report.command}`, {report.seconds:.0f} s, {report.started[:10]}: {described(report)}"
    if report.ratios:
        yield from ("", *grid(("ratio", "median", "spread", "aim", ""), [ratio_row(each) for each in report.ratios]))
    for table in report.tables:
        yield from ("", table.title + ":", "", *table_lines(table))
    for note in report.notes:
        yield from ("", f"- {note}")
    yield ""


def described(report: Report) -> str:
    """The machine in a few words."""
    where = report.machine
    load = f"; load before: {where.load_before:.2f} a core" if where.load_before > 0.2 else ""
    return f"{where.processor}, {where.cores} cores, {where.memory_gb:.0f} GB, {where.device}{load}"


def table_lines(table: Table) -> Iterator[str]:
    """As Markdown, numbers to the right."""
    return grid(table.columns, [tuple(cell_text(cell, table.digits) for cell in row) for row in table.rows])


def ratio_row(ratio: Ratio) -> tuple[str, ...]:
    """One line of the table of ratios."""
    spread = f"{ratio.low:.3g} to {ratio.high:.3g}" if ratio.low is not None and ratio.high is not None else ""
    sign = "≤" if ratio.better == "lower" else "≥"
    aim = f"{sign} {ratio.aim:.4g}" if ratio.aim is not None else ""
    verdict = {True: "met", False: "**missed**", None: ""}[ratio.is_met]
    return ratio.name, f"{ratio.value:.4g}", spread, aim, verdict


def cell_text(cell: Cell, digits: int) -> str:
    """Numbers with so many significant digits, and never with an exponent."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        rounded = float(f"{cell:.{digits}g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def grid(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """A table in Markdown, its columns aligned in plain text as well."""
    widths = [max(len(column), *(len(row[i]) for row in rows), 3) if rows else 3 for i, column in enumerate(columns)]
    yield "| " + " | ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)) + " |"
    yield "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "| " + " | ".join(cells) + " |"
