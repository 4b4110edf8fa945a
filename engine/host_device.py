"""The CPU as a device: the models' memory is that of this process."""

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.device import Peak, Reading
from engine.host_memory import (
    available_bytes,
    high_water_bytes,
    memory_limits,
    physical_bytes,
    processor_name,
    restart_peak,
    rss_bytes,
)
from stages.control_groups import CGROUPS, PROC


class HostDevice:
    """`engine.device.Device` on host memory, within the limits of the control groups."""

    name = "cpu"

    def __init__(self, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._proc = proc
        machine_bytes = physical_bytes(proc)
        self._limits = [limit for limit in memory_limits(proc, cgroups) if limit.limit_bytes < machine_bytes]
        self.label = processor_name(proc) or platform.machine()
        self.total_bytes = min([machine_bytes, *(limit.limit_bytes for limit in self._limits)])
        libc = ctypes.CDLL(None)
        self._trim = libc.malloc_trim if hasattr(libc, "malloc_trim") else None  # glibc's
        measures = restart_peak(proc) is not None
        self.notes: tuple[str, ...] = (
            ()
            if measures
            else ("/proc/self/clear_refs cannot be written: what a batch takes is not measured on the CPU",)
        )

    def read(self) -> Reading:
        """Resident memory of this process; free is what the machine and the control groups would still give."""
        free_bytes = min([available_bytes(self._proc), *(limit.free_bytes() for limit in self._limits)])
        return Reading(used_bytes=rss_bytes(self._proc), cached_bytes=0, free_bytes=free_bytes)

    @contextmanager
    def measure(self, outside_torch: bool) -> Iterator[Peak]:
        """The highest resident size while a batch runs, above that at its start, of all threads and libraries.

        What a batch takes out of the heap's free blocks is not seen, for it was resident before.
        """
        peak = Peak()
        start_bytes = restart_peak(self._proc)
        try:
            yield peak
        finally:
            if start_bytes is not None:
                peak.extra_bytes = max(0, high_water_bytes(self._proc) - start_bytes)

    def limit(self, budget_bytes: int) -> None:
        """Does nothing: no allocator of the CPU's libraries takes a limit, and one on the address space (RLIMIT_AS)
        would count what is only reserved.
        """

    def release(self) -> None:
        """Collect what is unreachable, and give the heap's free pages back to the system (malloc_trim(3))."""
        gc.collect(1)  # what a failed batch left is young; a whole collection takes as long as many batches
        if self._trim is not None:
            self._trim(0)
