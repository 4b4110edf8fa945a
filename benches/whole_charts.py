"""Charts of a whole run: memory, processor time and the device over time. Pure, but for reading the trace."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from benches.report import Chart
from benches.whole_run import ROLE_NAMES, Seen

BINS = 40  # of a chart over time
MODEL_ROLES = ("image", "speech", "text", "voice")

Points = tuple[tuple[float, float], ...]


class Event(msgspec.Struct, frozen=True):
    """What interests here of an event in the Trace Event Format; times are microseconds."""

    name: str
    ph: str
    ts: float = 0.0
    dur: float = 0.0
    args: dict[str, Any] = {}


class TraceDocument(msgspec.Struct, frozen=True):
    """The file that `ingest --trace` writes."""

    traceEvents: list[Event]  # noqa: N815 - the format's own name


def batches(trace: Path) -> list[Event]:
    """Every batch of every model, in order of time. Raises OSError, msgspec.DecodeError."""
    events = msgspec.json.decode(trace.read_bytes(), type=TraceDocument).traceEvents
    return sorted((each for each in events if each.ph == "X" and each.name in MODEL_ROLES), key=lambda each: each.ts)


def largest_batches(trace: Path) -> dict[str, int]:
    """By model: the batches that the engine runs when enough waits."""
    sizes: dict[str, int] = {}
    for event in batches(trace):
        sizes[event.name] = max(sizes.get(event.name, 1), int(event.args.get("items", 1)))
    return sizes


def charts(run: Seen, trace: Path) -> list[Chart]:
    """run: one that was measured. trace: of another, for what is traced is slower."""
    return [memory_chart(run), cpu_chart(run), device_chart(batches(trace)), throughput_chart(batches(trace))]


def memory_chart(run: Seen) -> Chart:
    """Resident memory of each process."""
    counts: dict[str, int] = {}
    lines: dict[str, Points] = {}
    for process in run.processes:
        if process.role in ROLE_NAMES:
            counts[process.role] = counts.get(process.role, 0) + 1
            name = process.role if counts[process.role] == 1 else f"{process.role} {counts[process.role]}"
            lines[name] = tuple((seconds, size / 1e6) for seconds, size in process.series if size)  # 0: it has ended
    return Chart("whole-memory", "Memory of each process", "s since the start", "resident MB", lines)


def cpu_chart(run: Seen) -> Chart:
    """Cores that each role uses."""
    lines = {role: rates(points, run.total.wall_seconds) for role, points in run.cpu.items()}
    return Chart("whole-cpu", "Processor use of each process", "s since the start", "cores", lines, kind="steps")


def rates(points: Sequence[tuple[float, float]], total_seconds: float, bins: int = BINS) -> Points:
    """A counter (seconds, value so far) as its growth a second over bins of equal length."""
    width = max(total_seconds / bins, 0.2)
    thinned: list[tuple[float, float]] = []
    for point in points:
        if not thinned or point[0] - thinned[-1][0] >= width:
            thinned.append(point)
    return tuple(
        (earlier[0], max(0.0, later[1] - earlier[1]) / (later[0] - earlier[0])) for earlier, later in pairwise(thinned)
    )


def device_chart(events: Sequence[Event], bins: int = BINS) -> Chart:
    """Share of the time in which each model runs a batch. One runs at a time, so that they add up to 1 at most."""
    lines: dict[str, Points] = {}
    for role in MODEL_ROLES:
        spans = [(each.ts / 1e6, (each.ts + each.dur) / 1e6) for each in events if each.name == role]
        lines[role] = busy_shares(spans, *extent(events), bins)
    lines["all"] = tuple(
        (column[0][0], sum(share for _, share in column)) for column in zip(*lines.values(), strict=True)
    )
    title = "Use of the device: share of the time in which a batch runs"
    return Chart("whole-device", title, "s since the first batch", "busy share", lines, kind="steps")


def throughput_chart(events: Sequence[Event], bins: int = BINS) -> Chart:
    """Items a second of each model."""
    begin, end = extent(events)
    width = max((end - begin) / bins, 1e-9)
    lines: dict[str, Points] = {}
    for role in MODEL_ROLES:
        items = [0.0] * bins
        for each in events:
            if each.name == role:
                place = min(int(((each.ts + each.dur) / 1e6 - begin) / width), bins - 1)
                items[place] += float(each.args.get("items", 0))
        lines[role] = tuple((number * width, count / width) for number, count in enumerate(items))
    return Chart(
        "whole-throughput", "Throughput of each model", "s since the first batch", "items/s", lines, kind="steps"
    )


def extent(events: Sequence[Event]) -> tuple[float, float]:
    """From the first batch to the end of the last, in seconds; (0, 0) without any."""
    return (
        min((each.ts for each in events), default=0.0) / 1e6,
        max((each.ts + each.dur for each in events), default=0.0) / 1e6,
    )


def busy_shares(spans: Iterable[tuple[float, float]], begin: float, end: float, bins: int) -> Points:
    """Of each bin between begin and end, how much of it is covered by spans that do not overlap."""
    width = (end - begin) / bins
    if width <= 0:
        return ()
    covered = [0.0] * bins
    for first, last in spans:
        for number in range(max(0, int((first - begin) / width)), bins):
            left, right = begin + number * width, begin + (number + 1) * width
            if left >= last:
                break
            covered[number] += max(0.0, min(last, right) - max(first, left))
    return tuple((number * width, share / width) for number, share in enumerate(covered))
