"""Measure, print, keep as JSON, draw:

python -m benches list                   every bench, and what it measures
python -m benches NAME [options]         one of them; NAME --help tells its options
python -m benches all [NAME...]          every one, or those named, each in a process of its own
python -m benches render [DIR]           the reports in DIR as one page with plots
python -m benches corpus DIR [options]   long and varied videos to measure with
"""

import difflib
import sys

from benches import mixed, registry, render, running, suite
from benches.running import run
from stages.errors import SluiceError

__all__ = ["main", "run"]


def main(argv: list[str]) -> int:
    """Do what is asked. Returns the exit code: 2 for a name that there is not, 1 when something went wrong."""
    name, rest = (argv[0], argv[1:]) if argv else ("list", [])
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        return _do(name, rest)
    except SluiceError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return 1


def _do(name: str, rest: list[str]) -> int:
    match name:
        case "list":
            return listed()
        case "all":
            return suite.main(rest)
        case "render":
            return render.main(rest)
        case "corpus":
            return mixed.main(rest)
        case _ if name in registry.BENCHES:
            return running.main(name, rest)
        case _:
            print(unknown(name), file=sys.stderr)
            return 2


def listed() -> int:
    """Print the names, with a line each."""
    width = max(map(len, registry.BENCHES), default=0) + 2
    for name in registry.BENCHES:
        print(f"{name:{width}}{registry.load(name).TITLE}")
    return 0


def unknown(name: str) -> str:
    """The line for a name that there is not. Pure."""
    known = ["list", "all", "render", "corpus", *registry.BENCHES]
    near = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"no bench is called {name}; {meant}there are: {', '.join(registry.BENCHES)} (and list, all, render, corpus)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
