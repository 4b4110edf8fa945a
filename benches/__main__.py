"""`python -m benches NAME [options]`: measure, print, keep JSON. `list` names them."""

import argparse
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benches import registry
from benches.machine import machine
from benches.report import Report, save
from benches.show import show

RESULTS = Path("bench-results")


def main(argv: list[str]) -> int:
    """Run what is named. Returns the exit code: 2 for a name that there is not."""
    name = argv[0] if argv else "list"
    if name == "list":
        for each in registry.BENCHES:
            print(f"{each:12} {registry.load(each).TITLE}")
        return 0
    if name not in registry.BENCHES:
        print(f"no bench is called {name}; there are: {', '.join(registry.BENCHES)}", file=sys.stderr)
        return 2
    run(name, argv[1:])
    return 0


def run(name: str, argv: list[str]) -> Report:
    """Measure, write the report below --results, and print it."""
    bench = registry.load(name)
    parser = argparse.ArgumentParser(prog=f"python -m benches {name}", description=bench.TITLE)
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for NAME.json (default: %(default)s)")
    bench.add_arguments(parser)
    arguments = parser.parse_args(argv)
    before, started, clock = machine(), datetime.now(UTC), time.perf_counter()
    findings = bench.measure(arguments)
    report = Report(
        bench=name,
        command=shlex.join(["python", "-m", "benches", name, *argv]),
        machine=before,
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
