"""Searching a large store, with nothing else going on and while points are written.

The store is filled in this process, once, unless `--store DIR` names one that a former run has filled. Recall is the
share of the true ten nearest (exact cosines, by numpy) among the ten that were found. Searches through the consumer are
timed from the question to the answer, over its control socket, as the daemon asks them: alone, while points come at a
pace, and while as many are sent as the consumer takes.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benches.report import Findings, Ratio, Table
from benches.store_player import Player, config_for, median_and_high
from benches.store_points import FILM_SECONDS, MODEL, Nearest, Space, messages, stored
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import FRAMES, Filter, Store, frames_spec

AIM_MS = 20.0  # at a million
AIM_POINTS = 1_000_000
QUERIES = 50
LIMIT = 10
PACED_POINTS = 2_000  # a second: about a hundred hours of video an hour, with two points a second of them
_STREAM_POINTS = 32_768  # sent while searches go on


def add_arguments(parser: ArgumentParser) -> None:
    """Options of the search."""
    parser.add_argument(
        "--points", type=int, default=150_000, help="in the store that is searched (default: %(default)s)"
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=None,
        metavar="DIR",
        help="keep the searched store here, or use the one that is there",
    )


def measure(findings: Findings, arguments: Namespace, disk: Path) -> None:
    """Fill, search in this process, then through the consumer."""
    space = Space(arguments.dimension)
    directory = arguments.store or disk / "searched"
    queries, truth, seconds = filled(space, directory, arguments.points)
    found = in_process(directory / "store", space, queries, truth)
    served = through_consumer(directory / "store", space, queries, arguments.batch, arguments.points)
    columns = ("search", "ms, median", "ms, one in twenty", "CPU ms", "recall at 10")
    title = f"Searching {arguments.points:,} points of {arguments.dimension} for {LIMIT}"
    findings.tables.append(Table(title, columns, (*found, *served)))
    millions = arguments.points / AIM_POINTS
    for label, ms in ((str(row[0]), row[1]) for row in served):
        aim = AIM_MS if millions >= 1 else None
        findings.ratios.append(Ratio(f"ms of a search of {arguments.points:,} points {label}", float(ms or 0), aim))
    findings.notes.append(
        f"A search reads one code for each point: its time grows with their number. The searched store was filled at "
        f"{arguments.points / seconds:,.0f} points/s, with its vectors made on the way."
        if seconds
        else "The searched store was there."
    )


def filled(space: Space, directory: Path, count: int) -> tuple[NDArray[np.float32], list[set[str]], float]:
    """Queries, ids of their true nearest, and how many seconds it took to fill the store; 0: it was there."""
    queries = space.queries(QUERIES)
    known = directory / f"truth-{space.dimension}-{count}.json"
    if known.is_file():
        return queries, [set(ids) for ids in json.loads(known.read_text())], 0.0
    directory.mkdir(parents=True, exist_ok=True)
    started = perf_counter()
    nearest, first = Nearest(queries, LIMIT), 0
    store = open_store(StoreOptions(path=str(directory / "store")), None)
    store.ensure([frames_spec(space.dimension)])
    for rows in space.frames(count):
        nearest.add(rows)
        for start in range(0, len(rows), 256):
            store.put(FRAMES, stored(first + start, rows[start : start + 256]))
        store.flush()
        first += len(rows)
    store.close()
    known.write_text(json.dumps([sorted(ids) for ids in nearest.ids]))
    return queries, nearest.ids, perf_counter() - started


# --- in this process --------------------------------------------------------------------------------------------------

Row = tuple[str, float, float, float | None, float | None]


def in_process(path: Path, space: Space, queries: NDArray[np.float32], truth: list[set[str]]) -> list[Row]:
    """By codes, as it is done; by the vectors themselves; and within one video."""
    store = open_store(StoreOptions(path=str(path)), None, read_only=True)
    common, film = Filter(model=MODEL), Filter(model=MODEL, video_id=f"{3:064x}")
    try:
        rows = [_searched("by codes", lambda query: _ids(store, query, common), queries, truth)]
        with exactly():
            rows.append(_searched("by vectors", lambda query: _ids(store, query, common), queries[:20], truth))
        return [*rows, _searched("within one video", lambda query: _ids(store, query, film), queries, None)]
    finally:
        store.close()


@contextmanager
def exactly() -> Iterator[None]:
    """Searches that use no codes."""
    with patch("stages.qdrant_local.EXACT_POINTS", 1 << 60):
        yield


def _ids(store: Store, query: NDArray[Any], filter: Filter) -> set[str]:
    return {hit.id for hit in store.search(FRAMES, "image", query, LIMIT, filter)}


def _searched(
    label: str,
    search: Callable[[NDArray[Any]], set[str]],
    queries: NDArray[np.float32],
    truth: list[set[str]] | None,
) -> Row:
    search(queries[0])
    times, cpu, hits = [], process_time(), 0
    for number, query in enumerate(queries):
        started = perf_counter()
        found = search(query)
        times.append((perf_counter() - started) * 1000)
        hits += len(found & truth[number]) if truth is not None else 0
    recall = hits / len(queries) / LIMIT if truth is not None else None
    return f"{label}, in this process", *median_and_high(times), (process_time() - cpu) / len(queries) * 1000, recall


# --- through the consumer ---------------------------------------------------------------------------------------------


def through_consumer(path: Path, space: Space, queries: NDArray[np.float32], batch: int, count: int) -> list[Row]:
    """Alone, at a pace, and at full load. What is written then is new at first, and is removed at the end."""
    first = -(-count // FILM_SECONDS) * FILM_SECONDS  # the next film
    outgoing = list(messages(first, np.concatenate(list(space.frames(_STREAM_POINTS, seed=1))), batch))
    with Player(config_for(path), space.dimension) as player:
        player.search_ms(queries[:3])
        rows = [_served("with nothing else going on", player.search_ms(queries, 0.02))]
        rows.append(_served(f"while {PACED_POINTS:,} points/s are written", paced(player, queries, outgoing, batch)))
        loaded: list[float] = []
        while len(loaded) < len(queries):
            if not player.is_writing:
                player.begin(list(outgoing))
            loaded += player.search_ms(queries[len(loaded)][None], 0.05)
        rows.append(_served("while points are written as fast as it can", loaded))
        player.write([])
    remove_films(path, range(first // FILM_SECONDS, (first + _STREAM_POINTS) // FILM_SECONDS + 1))
    return rows


def remove_films(path: Path, films: Iterable[int]) -> None:
    """Leave the store as it was."""
    store = open_store(StoreOptions(path=str(path)), None)
    for film in films:
        store.delete(FRAMES, Filter(video_id=f"{film:064x}"))
    store.close()


def paced(player: Player, queries: NDArray[np.float32], outgoing: list[Any], batch: int) -> list[float]:
    """A tenth of a second's points, then a search, and so on."""
    times: list[float] = []
    each = max(1, PACED_POINTS // batch // 10)
    for number, query in enumerate(queries):
        first = number * each % len(outgoing)
        player.begin(outgoing[first : first + each])
        times += player.search_ms(query[None], 0.03 + 0.07 * (number % 2))
        player.wait(0.07 - 0.07 * (number % 2))
    return times


def _served(label: str, times: list[float]) -> Row:
    return f"{label}, through the consumer", *median_and_high(times), None, None
