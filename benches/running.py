"""One bench, from its options to its report."""

import argparse
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benches import registry
from benches.machine import machine
from benches.report import Report, save
from benches.show import show

RESULTS = Path("bench-results")


def parser_for(name: str) -> argparse.ArgumentParser:
    """The options of a bench, with those that all of them have. Raises KeyError where there is none of this name."""
    bench = registry.load(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m benches {name}", description=bench.TITLE, allow_abbrev=False, epilog=bench.__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for NAME.json (default: %(default)s)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when an aim is missed")
    bench.add_arguments(parser)
    return parser


def takes_models(name: str) -> bool:
    """Whether it has the option --models of `benches.options`: one with a default of its own means other models."""
    return vars(parser_for(name).parse_args([])).get("models", "") is None


def run(name: str, argv: list[str]) -> Report:
    """Measure, write the report below --results, and print it."""
    return _run(name, argv, parser_for(name).parse_args(argv))


def main(name: str, argv: list[str]) -> int:
    """As `run`. Returns the exit code: 1 when it is to be strict, and an aim was missed."""
    arguments = parser_for(name).parse_args(argv)
    report = _run(name, argv, arguments)
    missed = [ratio.name for ratio in report.ratios if ratio.is_met is False]
    if not (arguments.strict and missed):
        return 0
    print(f"{name} misses: {'; '.join(missed)}", file=sys.stderr)
    return 1


def _run(name: str, argv: list[str], arguments: argparse.Namespace) -> Report:
    before, started, clock = machine(), datetime.now(UTC), time.perf_counter()
    findings = registry.load(name).measure(arguments)
    report = Report(
        bench=name,
        command=shlex.join(["python", "-m", "benches", name, *argv]),
        machine=before if findings.device is None else msgspec.structs.replace(before, device=findings.device),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 1),
        tables=tuple(findings.tables),
        ratios=tuple(findings.ratios),
        charts=tuple(findings.charts),
        notes=tuple(findings.notes),
    )
    save(report, arguments.results / f"{name}.json")
    show(report, sys.stdout)
    return report
