"""Memory of this process and of the machine, from /proc and the control groups (proc(5), the kernel's cgroup-v1 and
cgroup-v2 documents). Linux only, like the rest of the engine.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from stages.control_groups import CGROUPS, PROC, groups

RESTART_HIGH_WATER = b"5"  # proc(5), /proc/pid/clear_refs: VmHWM becomes the present size

LIMIT_FILES = {  # by version of the control groups: the limit, what is held, and a line of memory.stat
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}

_earlier_peak_bytes = 0  # largest VmHWM before the restarts of it: the kernel keeps one mark for the process


def peak_rss_bytes() -> int:
    """Largest resident size of this process in its whole life, whatever `restart_peak` did in between."""
    return max(_earlier_peak_bytes, high_water_bytes())


def high_water_bytes(proc: Path = PROC) -> int:
    """Largest resident size since the start, or since `restart_peak`. (getrusage's figure survives exec.)"""
    return _kilobytes(f"{proc}/self/status", b"VmHWM:")


def rss_bytes(proc: Path = PROC) -> int:
    """Resident size of this process now."""
    return int(_content(f"{proc}/self/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def restart_peak(proc: Path = PROC) -> int | None:
    """Let the high-water mark begin again. Returns the resident size it begins from, or None where that is not allowed
    (a container may hide or deny /proc/self/clear_refs).
    """
    global _earlier_peak_bytes
    before_bytes = high_water_bytes(proc)
    try:
        file = os.open(f"{proc}/self/clear_refs", os.O_WRONLY)
        try:
            os.write(file, RESTART_HIGH_WATER)
        finally:
            os.close(file)
    except OSError:
        return None
    _earlier_peak_bytes = max(_earlier_peak_bytes, before_bytes)
    return rss_bytes(proc)


def physical_bytes(proc: Path = PROC) -> int:
    """Memory of the machine."""
    return _kilobytes(f"{proc}/meminfo", b"MemTotal:")


def available_bytes(proc: Path = PROC) -> int:
    """What the machine could give to programs without swapping."""
    return _kilobytes(f"{proc}/meminfo", b"MemAvailable:")


def processor_name(proc: Path = PROC) -> str | None:
    """The processor's model, as the kernel names it; None where it does not (ARM)."""
    for line in (proc / "cpuinfo").read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A control group that bounds this process's memory."""

    limit_bytes: int
    current: Path  # the file that says how much the group holds
    stat: Path
    cache_key: str  # line of `stat`: file pages that the kernel takes back first

    def free_bytes(self) -> int:
        """What the group may still take. Its file cache counts as free: reading videos fills it up to any limit."""
        current_bytes = int(self.current.read_bytes())
        return max(0, self.limit_bytes - current_bytes + self._cache_bytes())

    def _cache_bytes(self) -> int:
        for line in self.stat.read_text("ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == self.cache_key:
                return int(value)
        return 0


def memory_limits(proc: Path = PROC, cgroups: Path = CGROUPS) -> tuple[MemoryLimit, ...]:
    """Every limit on this process's memory: of its own group and of those above, which bind it too."""
    found: list[MemoryLimit] = []
    for version, directory in groups("memory", proc, cgroups):
        limit, current, cache_key = LIMIT_FILES[version]
        file = directory / limit
        if file.exists() and (value := file.read_text("ascii").strip()) != "max":
            found.append(MemoryLimit(int(value), directory / current, directory / "memory.stat", cache_key))
    return tuple(found)


def _kilobytes(file: str, key: bytes) -> int:
    """The figure of a line such as b"VmHWM:     1234 kB", in bytes."""
    text = _content(file)
    start = text.index(key) + len(key)
    return int(text[start : text.index(b"kB", start)]) * 1024


def _content(file: str) -> bytes:
    """All of a small file of /proc; bare system calls, for every batch asks."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)
