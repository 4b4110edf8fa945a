"""A tree of processes watched from outside."""

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import psutil
import pytest

from benches.watching import TreeWatch, Watched

BYTES = 80_000_000
CHILD = f"import sys; held = bytearray({BYTES}); print(sum(range(10**6)), flush=True); sys.stdin.read()"
PARENT = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {CHILD!r}]).returncode)"


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_every_process_of_the_tree_is_seen_with_its_memory_and_time() -> None:
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True) as parent,
        TreeWatch(parent.pid, interval_seconds=0.02) as watch,
    ):
        assert parent.stdout is not None
        parent.stdout.readline()
        until(lambda: any(seen.peak_rss_bytes > BYTES and len(seen.series) > 3 for seen in children(watch, parent)))
        parent.communicate()
    (child,) = children(watch, parent)
    assert len(watch.processes) == 2
    assert watch.peak_bytes > child.peak_rss_bytes
    assert child.cpu_seconds > 0
    assert max(size for _, size in child.series) == child.peak_rss_bytes
    times = [seconds for seconds, _ in child.series]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert times[0] >= 0


def children(watch: TreeWatch, parent: "subprocess.Popen[str]") -> list[Watched]:
    return [seen for pid, seen in watch.processes.items() if pid != parent.pid]


def test_a_process_that_ends_early_is_no_error() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process,
        TreeWatch(process.pid, interval_seconds=0.01) as watch,
    ):
        process.communicate("\n")
        watch.look()
    assert list(watch.processes) == [process.pid]


def test_a_process_that_there_is_not_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(psutil.NoSuchProcess):
        TreeWatch(process.pid)


def test_our_processes_are_called_by_their_roles() -> None:
    assert Watched("sluice-superv").role == "supervisor"
    assert Watched("python3").role == "python3"
