"""Parts of a batch side by side, each on cores of its own: how models use more than one core of a CPU.

The libraries' own way is to share out each single step of a batch to all threads, which then wait for each other, some
hundred times a batch. With a part of the batch for each core they wait once. docs/performance.md has what both take. On
a GPU there is one lane, and nothing changes.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TypeVar

from stages.cores import usable_cores

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_thread = threading.local()  # .threads: what torch was told of the thread that asks; .in_turn: as the function below


@contextmanager
def in_turn() -> Iterator[None]:
    """Inside, the caller does all parts itself, one after the other: for tools that watch a single thread."""
    _thread.in_turn = True
    try:
        yield
    finally:
        _thread.in_turn = False


class Lanes:
    """So many threads, of which the caller's is one. One thread calls it."""

    def __init__(self, count: int, cores: int = 0) -> None:
        """count: of lanes. With one, the caller does everything, and torch's threads are left as they are. cores: that
        they share, where these are more.
        """
        if count < 1:
            raise ValueError(f"{count} lanes do nothing")
        self.count = count
        self.cores = max(count, cores)
        self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="lane") if count > 1 else None

    def parts(self, items: Sequence[ItemT]) -> list[Sequence[ItemT]]:
        """One stretch of the items for each lane, as even as can be; fewer for fewer items, for none is empty."""
        count = min(self.count, len(items))
        bounds = [len(items) * number // count for number in range(count + 1)] if count else []
        return [items[first:last] for first, last in pairwise(bounds)]

    def run(self, work: Callable[[ItemT], ResultT], parts: Sequence[ItemT]) -> list[ResultT]:
        """`work` of each part, in a lane of its own; the results in order. Lanes without a part lend theirs its core.

        Raises ValueError for more parts than lanes, and what `work` raises, for the first part that fails; not before
        all have ended, so that what they share can be taken away then.
        """
        if self._pool is None or getattr(_thread, "in_turn", False):
            return [work(part) for part in parts]
        if len(parts) > self.count:
            raise ValueError(f"{len(parts)} parts for {self.count} lanes")
        threads = self.cores // max(1, len(parts))

        def one(part: ItemT) -> ResultT:
            _give_torch(threads)
            return work(part)

        others = [self._pool.submit(one, part) for part in parts[1:]]
        try:
            mine = [one(part) for part in parts[:1]]
        finally:
            wait(others)
        return mine + [other.result() for other in others]

    def map(self, work: Callable[[Sequence[ItemT]], Sequence[ResultT]], items: Sequence[ItemT]) -> list[ResultT]:
        """`work` gives a result for each item of a stretch; all of them, in the order of the items."""
        return [result for results in self.run(work, self.parts(items)) for result in results]


def lanes_of(device: str) -> Lanes:
    """The lanes that all models on a device share. device: torch's name; on the CPU one for each core that this process
    may use, or for each that OMP_NUM_THREADS allows, as torch takes it.
    """
    return _shared(cores_for_models() if device == "cpu" else 1)


def cores_for_models() -> int:
    """At least 1."""
    cores, allowed = usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(allowed)) if allowed.isdecimal() and int(allowed) > 0 else cores


@cache
def _shared(count: int) -> Lanes:
    return Lanes(count)


def _give_torch(threads: int) -> None:
    """Let torch use so many threads for what the calling thread asks of it: it keeps a number for each of them."""
    if getattr(_thread, "threads", None) != threads:
        import torch

        torch.set_num_threads(threads)
        _thread.threads = threads
