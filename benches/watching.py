"""Watches a tree of processes from outside: processor time and memory of each, over time.

The processor time of a process that ends between two looks is lost but for what its parent has waited for; so the total
is taken as the tree's own plus what its root gathered from dead children.
"""

import threading
import time
from dataclasses import dataclass, field

import psutil

INTERVAL_SECONDS = 0.1


@dataclass(slots=True)
class Watched:
    """One process of the tree."""

    name: str  # "supervisor", "decoder", "engine", "consumer", or what the system calls it
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    series: list[tuple[float, float]] = field(default_factory=list)  # (seconds since the start, resident bytes)


class TreeWatch:
    """A thread that looks at a process and all below it until it is stopped.

    with TreeWatch(process.pid) as watch: process.wait()
    """

    def __init__(self, pid: int, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._root = psutil.Process(pid)
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tree-watch", daemon=True)
        self._started = time.monotonic()
        self.processes: dict[int, Watched] = {}
        self.peak_bytes = 0  # of all together, at one time

    def __enter__(self) -> "TreeWatch":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self.look()

    def look(self) -> None:
        """Once. Processes that end meanwhile are left as they were last seen."""
        now, together = time.monotonic() - self._started, 0
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            together += self._see(process, now)
        self.peak_bytes = max(self.peak_bytes, together)

    def _see(self, process: psutil.Process, now_seconds: float) -> int:
        try:
            with process.oneshot():
                times, resident, name = process.cpu_times(), process.memory_info().rss, process.name()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return 0
        watched = self.processes.setdefault(process.pid, Watched(name))
        watched.name = name
        watched.cpu_seconds = float(times.user + times.system)
        watched.peak_rss_bytes = max(watched.peak_rss_bytes, resident)
        watched.series.append((now_seconds, float(resident)))
        return int(resident)
