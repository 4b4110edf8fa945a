"""`python -m benches all`: every bench in a process of its own, so that memory and caches are its own.

One that fails does not stop the others. Its former report is removed first, so that nobody takes it for today's.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches import registry, running
from benches.show import grid
from stages.errors import SluiceError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one bench went."""

    name: str
    seconds: float
    exit_code: int


def main(argv: list[str]) -> int:
    """Returns the exit code: 1 when one failed, 2 for a name that there is not."""
    arguments = _parser().parse_args(argv)
    unknown = sorted(set(arguments.names) - set(registry.BENCHES))
    if unknown:
        print(f"no bench is called {unknown[0]}; there are: {', '.join(registry.BENCHES)}", file=sys.stderr)
        return 2
    outcomes = [
        one(name, arguments.results, arguments.models or arguments.results / "models")
        for name in arguments.names or default_names()
    ]
    print("\n".join(summary(outcomes)), file=sys.stderr)
    return 1 if any(outcome.exit_code for outcome in outcomes) else 0


def default_names() -> list[str]:
    """Those that any machine can run."""
    return [name for name in registry.BENCHES if name not in registry.APART]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benches all", description=(__doc__ or "").partition("\n")[0])
    apart = ", ".join(sorted(registry.APART))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all but {apart}")
    parser.add_argument("--results", type=Path, default=running.RESULTS, help="directory (default: %(default)s)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="small models (default: models/ in --results)")
    return parser


def one(name: str, results: Path, models: Path) -> Outcome:
    """Run it in a process of its own, and say how long it took."""
    print(f"--- {name}", file=sys.stderr, flush=True)
    (results / f"{name}.json").unlink(missing_ok=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "benches.suite", name, str(results), str(models)]
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    outcome = Outcome(name, time.monotonic() - started, done.returncode)
    print(f"--- {name}: {verdict(outcome)}, {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    return outcome


def verdict(outcome: Outcome) -> str:
    """In a word or two. Pure."""
    return "done" if outcome.exit_code == 0 else f"failed, exit code {outcome.exit_code}"


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What took how long. Pure."""
    rows = [(outcome.name, f"{outcome.seconds:.0f}", verdict(outcome)) for outcome in outcomes]
    total = sum(outcome.seconds for outcome in outcomes)
    yield from grid(("bench", "s", ""), [*rows, ("together", f"{total:.0f}", "")])


def options_for(results: str, models: str, *, takes_models: bool) -> list[str]:
    """What a bench is told. Pure."""
    return ["--results", results, *(["--models", models] if takes_models else [])]


def child(name: str, results: str, models: str) -> int:
    """Runs in the bench's own process. Returns the exit code."""
    try:
        running.run(name, options_for(results, models, takes_models=running.takes_models(name)))
    except SluiceError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(child(*sys.argv[1:]))
