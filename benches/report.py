"""What a bench found, as data: JSON to keep and compare, from which `benches.render` makes tables and plots.

A `Report` is small and flat on purpose: tables for people, ratios for judgement, charts for the eye, and the machine
it was measured on, without which no figure means anything.
"""

from pathlib import Path
from typing import Literal

import msgspec

Cell = str | int | float | None


class Table(msgspec.Struct, frozen=True):
    """Rows for people. A column's name holds its unit: "CPU s", "peak MB"."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    digits: int = 3  # significant ones, of numbers that are not whole


class Ratio(msgspec.Struct, frozen=True):
    """A figure that holds on other machines, too, beside what was aimed at."""

    name: str
    value: float
    aim: float | None = None
    better: Literal["lower", "higher"] = "lower"
    low: float | None = None  # of the repeated runs
    high: float | None = None

    @property
    def is_met(self) -> bool | None:
        """None where nothing was aimed at."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.better == "lower" else self.value >= self.aim


class Chart(msgspec.Struct, frozen=True):
    """Lines or points over a number, or bars over words. `name` becomes the file's name."""

    name: str
    title: str
    x: str  # label of the axis, with its unit
    y: str
    lines: dict[str, tuple[tuple[float, float], ...]] = {}
    bars: dict[str, float] = {}
    kind: Literal["line", "points", "steps", "bars"] = "line"
    log_x: bool = False
    log_y: bool = False
    limits: tuple[str, ...] = ()  # those of the lines that are a floor, a roof or an aim: drawn apart from the others


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]
    device: str = "cpu"
    load_before: float = 0.0  # of one minute, a core: above 0.2 somebody else was at work


class Report(msgspec.Struct, frozen=True):
    """All of one run of a bench."""

    bench: str
    command: str  # that gives it again
    machine: Machine
    started: str  # UTC, ISO 8601
    seconds: float  # that the whole bench took
    tables: tuple[Table, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader has to know to not be misled


class Findings(msgspec.Struct):
    """What a bench returns: `benches.__main__` adds when, where and how."""

    tables: list[Table] = []
    ratios: list[Ratio] = []
    charts: list[Chart] = []
    notes: list[str] = []
    device: str | None = None  # what it was measured on, where that is not the processor


def save(report: Report, path: Path) -> None:
    """Write it as indented JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    partial.replace(path)


def read(path: Path) -> Report:
    """Raises msgspec.ValidationError where it is not a report, OSError where it cannot be read."""
    return msgspec.json.decode(path.read_bytes(), type=Report)
