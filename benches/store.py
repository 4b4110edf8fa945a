"""The store: `python -m benches store`.

Writing, from nothing, in a store on the disk and in one in memory (/dev/shm), by ways that take turns:

    each        LocalStore.put and flush of every 256 points, in this process: each batch durable before the next; of a
                quarter of the points, for it is slow
    group       the same, with one flush for 4,096 points
    unflushed   the same, with no flush at all: what Edge and the conversion of the points take
    consumer    a consumer process, with this one for engine and supervisor: messages of a model's batch over ZeroMQ,
                with byte credit, and a result behind each task of 60 frames. Time ends when all credit is back: every
                point is on the disk, and every result is committed. What is measured is what a run does.

Searching: benches/store_search.py. Vectors are made (benches/store_points.py).
"""

import os
import shutil
import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benches import store_search
from benches.measuring import Candidate, Cost, median, rounds, spread
from benches.report import Cell, Findings, Ratio, Table
from benches.store_player import Player, config_for
from benches.store_points import Space, Vectors, messages, stored
from engine.group_commit import COMMIT_POINTS
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import FRAMES, frames_spec

TITLE = "the store: durable points/s through the consumer, and searches of a large one while it is written to"
AIM_POINTS = 20_000.0  # a second
MEMORY = Path("/dev/shm")
DIMENSIONS = (128, 384, 768)  # beside --dimension: of voices, texts, and larger image models
_SYNCED_BYTES = 4 << 20
_SYNCS = 12

Write = Callable[[Path], dict[str, float]]  # what it found: see `found`


def add_arguments(parser: ArgumentParser) -> None:
    """Options of the bench."""
    parser.add_argument("--written", type=int, default=16_384, help="points of each writing run (default: %(default)s)")
    parser.add_argument("--dimension", type=int, default=512, help="of frames' vectors (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="points a message (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each writing run (default: %(default)s)")
    parser.add_argument(
        "--directory", type=Path, default=None, help="on the disk to be measured (default: below --results)"
    )
    store_search.add_arguments(parser)


def measure(arguments: Namespace) -> Findings:
    """Write, then search."""
    findings = Findings()
    arguments.results.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undo:
        disk = Path(undo.enter_context(new_directory(arguments.directory or arguments.results)))
        places = {"disk": disk}
        if MEMORY.is_dir():
            places["memory"] = undo.enter_context(new_directory(MEMORY))
        measure_writing(findings, arguments, places)
        store_search.measure(findings, arguments, disk)
    return findings


@contextmanager
def new_directory(parent: Path) -> Iterator[Path]:
    """One that is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="store-bench-") as name:
        yield Path(name)


# --- writing ----------------------------------------------------------------------------------------------------------


def measure_writing(findings: Findings, arguments: Namespace, places: Mapping[str, Path]) -> None:
    """Every way in every place, in turn; then the consumer alone with other dimensions."""
    rows = vectors(arguments.dimension, arguments.written)
    costs = rounds(runs_of(rows, arguments.batch, places), arguments.rounds, warm_up=False)
    findings.tables.append(_table(f"Writing {len(rows):,} points of {arguments.dimension}", costs))
    for place in places:
        rates = [rate(run) for run in costs[f"consumer, {place}"]]
        name = f"points/s through the consumer, durable and acknowledged, {place}"
        findings.ratios.append(Ratio(name, median(rates), AIM_POINTS, "higher", *spread(rates)))
    _compare_with_disk(findings, places["disk"], costs["consumer, disk"])
    quick = "memory" if "memory" in places else "disk"
    others = {
        f"consumer, {dimension}": in_new_store(partial(send_made, dimension, arguments), places[quick])
        for dimension in DIMENSIONS
    }
    findings.tables.append(_table(f"Other dimensions, {quick}", rounds(others, 1, warm_up=False)))
    findings.notes.append(
        "`each`, `group` and `unflushed` are one process; the consumer's processor time is its own: the part of engine "
        "and supervisor, which the bench plays, comes on top. It has two threads at work: with a core for each, its "
        "busiest one sets the pace."
    )


def runs_of(rows: Vectors, batch: int, places: Mapping[str, Path]) -> dict[str, Candidate]:
    """Every way in every place, after a warm-up of each with a few points."""
    warm = ways_to_write(rows[: 4 * batch], batch)
    for place in places.values():
        for write in warm.values():
            in_new_store(write, place)()
    ways = ways_to_write(rows, batch)
    return {
        f"{way}, {place}": in_new_store(write, directory)
        for place, directory in places.items()
        for way, write in ways.items()
    }


def vectors(dimension: int, count: int) -> Vectors:
    """Made frames, float16 [count, dimension]."""
    return np.concatenate(list(Space(dimension).frames(count)))


def in_new_store(write: Write, directory: Path) -> Callable[[], dict[str, float]]:
    """A run that begins with nothing and leaves nothing."""

    def run() -> dict[str, float]:
        try:
            return write(directory / "store")
        finally:
            for path in (directory / "store", directory / "store-state"):
                shutil.rmtree(path, ignore_errors=True)

    return run


def ways_to_write(rows: Vectors, batch: int) -> dict[str, Write]:
    """By name."""
    return {
        "each": lambda path: put_all(path, rows[: -(-len(rows) // 4)], 256),
        "group": lambda path: put_all(path, rows, COMMIT_POINTS),
        "unflushed": lambda path: put_all(path, rows, None),
        "consumer": lambda path: send_all(path, rows, batch),
    }


def put_all(path: Path, rows: Vectors, flushed: int | None, batch: int = 256) -> dict[str, float]:
    """Into a store of this process, with a flush behind so many points, or none."""
    store = open_store(StoreOptions(path=str(path)), None)
    store.ensure([frames_spec(rows.shape[1])])
    batches = [stored(first, rows[first : first + batch]) for first in range(0, len(rows), batch)]
    wall, cpu = time.perf_counter(), time.process_time()
    for number, points in enumerate(batches, 1):
        store.put(FRAMES, points)
        if flushed is not None and (number * batch % flushed == 0 or number == len(batches)):
            store.flush()
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    store.close()
    return found(path, len(rows), *seconds)


def found(path: Path, points: int, wall_seconds: float, own_seconds: float) -> dict[str, float]:
    """Of the writing alone; with the bytes that the store takes on the disk then."""
    files = (file for file in path.rglob("*") if file.is_file())
    size = float(sum(file.stat().st_blocks * 512 for file in files))
    return {"points": points, "wall_seconds": wall_seconds, "own_seconds": own_seconds, "bytes": size}


def send_all(path: Path, rows: Vectors, batch: int) -> dict[str, float]:
    """Through a consumer process."""
    outgoing = list(messages(0, rows, batch))
    with Player(config_for(path), rows.shape[1]) as player:
        wall, before = time.perf_counter(), player.thread_seconds()
        player.write(outgoing)
        wall_seconds = time.perf_counter() - wall
        threads = [seconds - before.get(number, 0.0) for number, seconds in player.thread_seconds().items()]
    return found(path, len(rows), wall_seconds, sum(threads)) | {"thread_seconds": max(threads)}


def send_made(dimension: int, arguments: Namespace, path: Path) -> dict[str, float]:
    """Vectors of another dimension."""
    return send_all(path, vectors(dimension, arguments.written), arguments.batch)


def rate(run: Cost) -> float:
    """Points a second."""
    return run.values["points"] / run.values["wall_seconds"]


def _table(title: str, costs: Mapping[str, list[Cost]]) -> Table:
    columns = ("way", "points/s", "slowest", "fastest", "CPU µs a point", "of its busiest thread", "kB a point on disk")
    return Table(title, columns, tuple(_row(name, runs) for name, runs in costs.items()))


def _row(name: str, runs: list[Cost]) -> tuple[Cell, ...]:
    rates, points = [rate(run) for run in runs], runs[-1].values["points"]
    own = statistics.median(run.values["own_seconds"] for run in runs) / points * 1e6
    busiest = statistics.median(run.values.get("thread_seconds", 0.0) for run in runs) / points * 1e6
    return name, median(rates), *spread(rates), own, busiest or None, runs[-1].values["bytes"] / points / 1e3


def _compare_with_disk(findings: Findings, directory: Path, runs: list[Cost]) -> None:
    """What the disk gives to somebody who only writes one file, in pieces of 4 MiB, and syncs each."""
    before = synced_bytes_per_second(directory)
    used = [run.values["bytes"] / run.values["wall_seconds"] / before for run in runs]
    name = "bytes/s of the store on the disk, over those of one synced file"
    findings.ratios.append(Ratio(name, median(used), None, "higher", *spread(used)))
    findings.notes.append(f"One file written in pieces of 4 MiB, each synced: {before / 1e6:.0f} MB/s on this disk.")


def synced_bytes_per_second(directory: Path) -> float:
    """Median of some pieces."""
    piece = os.urandom(_SYNCED_BYTES)
    seconds = []
    with (directory / "synced").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(piece)
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - started)
    (directory / "synced").unlink()
    return _SYNCED_BYTES / statistics.median(seconds)
