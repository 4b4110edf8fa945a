"""Figures of the store: writes that are durable, searches, a scroll, memory; embedded, and the cost of the server path.

    python -m benches.store [--points 51200] [--dimension 512] [--batch 256] [--directory DIR] [--url URL]

JSON on stdout. Without --url only the embedded store is measured, in a new directory below --directory, which is
removed at the end. With --url (key in SLUICE_QDRANT_API_KEY) the same is done on a server, in a collection that is
deleted of its points at the end. Vectors are random, seed 0.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import Filter, Store, StoredPoint, frames_spec, point_id

_QUERIES = 50


def batches(count: int, dimension: int, batch: int) -> Iterator[list[StoredPoint]]:
    """Frames of films of an hour, one a second, float16 as they come from the engine."""
    random = np.random.default_rng(0)
    for first in range(0, count, batch):
        rows = random.standard_normal((batch, dimension), dtype=np.float32).astype(np.float16)
        yield [_frame(first + i, row) for i, row in enumerate(rows)]


def _frame(number: int, row: Any) -> StoredPoint:
    film, second = divmod(number, 3600)
    video_id = f"{film:064x}"
    payload = {
        "video_id": video_id,
        "path": f"/films/{film}.mp4",
        "start_seconds": float(second),
        "end_seconds": second + 1.0,
        "model": "clip@1",
        "source": "frames",
    }
    return StoredPoint(point_id(video_id, "frames", "clip@1", second), "frames", payload, {"image": row})


@contextmanager
def timed(figures: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    figures[name] = figures.get(name, 0.0) + time.perf_counter() - started


def each_ms(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(_QUERIES):
        action()
    return (time.perf_counter() - started) / _QUERIES * 1000


def measure(store: Store, count: int, dimension: int, batch: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    with timed(seconds, "ensure_seconds"):
        store.ensure([frames_spec(dimension)])
    for points in batches(count, dimension, batch):
        with timed(seconds, "upsert_seconds"):
            store.upsert("frames", points)
    query = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    one_film = Filter(video_id=f"{0:064x}")
    written = store.count("frames")
    figures = {
        "points": written,
        "ensure_ms": seconds["ensure_seconds"] * 1000,
        "durable_upserts_per_second": written / seconds["upsert_seconds"],
        "upsert_ms_per_batch": seconds["upsert_seconds"] * 1000 * batch / written,
        "search_ms": each_ms(lambda: store.search("frames", "image", query, 10)),
        "search_one_film_ms": each_ms(lambda: store.search("frames", "image", query, 10, one_film)),
        "count_one_film_ms": each_ms(lambda: store.count("frames", one_film)),
    }
    with timed(seconds, "scroll"):
        scrolled = sum(1 for _ in store.scroll("frames", with_vectors=True))
    return figures | {"scrolled_per_second": scrolled / seconds["scroll"]} | resident_mib()


def resident_mib() -> dict[str, float]:
    """Anonymous memory is the process's own; file memory is the store's files, which the kernel takes back at need."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))}
    return {"anonymous_mib": kib["RssAnon"] / 1024, "file_mib": kib["RssFile"] / 1024}


def measure_embedded(directory: Path | None, count: int, dimension: int, batch: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        store = open_store(StoreOptions(path=f"{name}/store"), None)
        figures = measure(store, count, dimension, batch)
        used = sum(file.stat().st_blocks * 512 for file in Path(name).rglob("*") if file.is_file())
        with_closing: dict[str, float] = {}
        with timed(with_closing, "optimize_seconds"):
            store.optimize()
        store.close()
    return figures | {"bytes_per_point": used / count} | with_closing


def measure_server(url: str, count: int, dimension: int, batch: int) -> dict[str, float]:
    store = open_store(StoreOptions(url=url, prefix="sluice-bench"), os.environ.get("SLUICE_QDRANT_API_KEY"))
    try:
        return measure(store, count, dimension, batch)
    finally:
        store.delete("frames", Filter(from_seconds=0.0))
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=51200)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--url", default=None)
    given = parser.parse_args()
    count = given.points // given.batch * given.batch
    result: dict[str, Any] = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "points": count,
        "dimension": given.dimension,
        "batch": given.batch,
        "embedded": measure_embedded(given.directory, count, given.dimension, given.batch),
    }
    if given.url:
        result["server"] = measure_server(given.url, count, given.dimension, given.batch)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
