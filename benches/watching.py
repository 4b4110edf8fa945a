"""Watches a tree of processes from outside: processor time and memory of each, over time.

What a process used after the last look at it is not seen. Where the total of a tree is wanted that has ended, take the
difference of `benches.measuring.cpu_seconds` around it: the kernel adds up who was waited for.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Self

import psutil

from engine.sandbox import PROCESS_NAMES

ROLES = {name: role for role, name in PROCESS_NAMES.items()}
INTERVAL_SECONDS = 0.1


@dataclass(slots=True)
class Watched:
    """One process of the tree."""

    name: str  # what the system calls it: ours have names of their own (engine/sandbox.py)
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    series: list[tuple[float, float]] = field(default_factory=list)  # (seconds since the start, resident bytes)

    @property
    def role(self) -> str:
        """supervisor, decoder, engine or consumer; of other programs their name."""
        return ROLES.get(self.name, self.name)


class TreeWatch:
    """A thread that looks at a process and all below it until it is stopped, for the first time before `with` begins.

    with TreeWatch(process.pid) as watch: process.wait()

    Raises psutil.NoSuchProcess when there is no such process.
    """

    def __init__(self, pid: int, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._root = psutil.Process(pid)
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tree-watch", daemon=True)
        self._started = time.monotonic()
        self.processes: dict[int, Watched] = {}
        self.peak_bytes = 0  # of all together, at one time; what they share counts for each

    def __enter__(self) -> Self:
        self.look()
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
