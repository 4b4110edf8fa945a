"""What the heap keeps, by the pages that a process has to ask for."""

import subprocess
import sys

from tests.runs import ROOT

BATCH_BYTES = 48 * 1024 * 1024  # more than glibc's own limit, above which each block comes from the system
PICTURE_BYTES = 1024 * 1024
RUNS = 10
SCRIPT = """
import resource
import threading
from engine.heap import keep_freed_memory, keep_heap_whole, share_one_heap
keep_heap_whole()
{first}
import numpy as np
{then}
def run():  # as a batch does, or a picture: takes a block, writes to all of it, and gives it back
    block = np.empty({size}, np.uint8)
    block.fill(1)
def count():
    run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({runs}):
        run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
lane = threading.Thread(target=count)
lane.start()
lane.join()
"""


def page_faults(size: int, first: str = "", then: str = "") -> int:
    """Of RUNS runs, behind a first one."""
    script = SCRIPT.format(first=first, then=then, size=size, runs=RUNS)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


def pages(size: int) -> int:
    return RUNS * size // 4096


def test_a_child_gives_large_blocks_back_at_once() -> None:
    assert page_faults(BATCH_BYTES) >= pages(BATCH_BYTES) / 512  # huge pages count once


def test_a_child_keeps_what_a_picture_takes() -> None:
    assert page_faults(PICTURE_BYTES) < pages(PICTURE_BYTES) / 10


def test_an_engine_on_the_cpu_does_not_ask_the_system_for_the_pages_of_every_batch() -> None:
    found = page_faults(BATCH_BYTES, "share_one_heap()", "keep_freed_memory(lanes=1)")
    assert found < pages(BATCH_BYTES) / 1000
