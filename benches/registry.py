"""Every bench that `python -m benches NAME` knows.

A bench is a module with three things:

    TITLE: str                                             one line for people
    def add_arguments(parser: ArgumentParser) -> None      its options, each with a default that suits a small machine
    def measure(arguments: Namespace) -> Findings          what it found; what it writes goes to standard error
"""

import importlib
from argparse import ArgumentParser, Namespace
from typing import Protocol, cast

from benches.report import Findings

# In the order in which `make bench` runs them.
BENCHES: dict[str, str] = {
    "decode": "benches.decode",
    "similar": "benches.similar",
    "sound": "benches.audio_cost",
    "transport": "benches.transport",
    "store": "benches.store",
    "models": "benches.models",
    "lanes": "benches.lanes",
    "scheduler": "benches.scheduler_sim",
    "whole": "benches.whole",
    "scaling": "benches.floor_scaling",
    "vectors": "benches.vectors",
    "searchable": "benches.searchable",
    "memory": "benches.memory",
    "baselines": "benches.baselines",
    "libraries": "benches.baseline_libraries",
    "film": "benches.baseline_film",
    "gpu": "benches.gpu",
}

# Not among all: they need what few machines have, and are run by name.
APART: frozenset[str] = frozenset({"film", "gpu"})


class Bench(Protocol):
    """What a module of a bench offers."""

    TITLE: str

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def measure(self, arguments: Namespace) -> Findings: ...


def load(name: str) -> Bench:
    """Raises KeyError where there is none of this name."""
    return cast(Bench, importlib.import_module(BENCHES[name]))
