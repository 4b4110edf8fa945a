"""Baseline (b): the same as (a) in several worker processes, each with its own models; videos come from a queue.

python -m benches.baseline_workers JOB, as benches/baseline_one_by_one.py. The embedded store takes one process, so the
workers hand their points to the one that started them. The cores are divided among the workers.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from benches.baseline_models import Models
from benches.baseline_one_by_one import Job, Ready, load, stored, tell
from benches.baseline_steps import Indexed, index
from stages.options import StoreOptions
from stages.qdrant import open_store

_worker: tuple[Job, int, Models] | None = None  # of a worker process: its job, threads and models


def start(job: Job, threads: int) -> None:
    """Runs first in each worker."""
    global _worker
    _worker = job, threads, load(job, threads)
    tell(Ready())


def work(path: str) -> tuple[str, Indexed, float]:
    """One video, in a worker; with the seconds that it took."""
    assert _worker is not None
    job, threads, models = _worker
    begin = time.perf_counter()
    found = index(path, models, job.reader, job.speech_batch, threads)
    return path, found, time.perf_counter() - begin


def threads_each(cores: int, workers: int) -> int:
    """So that all workers together have as many threads as there are cores. Pure."""
    return max(1, cores // workers)


def main(job: Job) -> None:
    """All videos, the longest first: whoever fills a queue well begins with what takes longest."""
    threads = threads_each(len(os.sched_getaffinity(0)), job.workers)
    store = open_store(StoreOptions(path=job.store), None)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(job.workers, mp_context=spawn, initializer=start, initargs=(job, threads)) as pool:
        waiting = [pool.submit(work, path) for path in sorted(job.media, key=os.path.getsize, reverse=True)]
        for future in as_completed(waiting):
            path, found, seconds = future.result()
            tell(stored(store, path, found, time.perf_counter() - seconds))
    store.close()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Job))
