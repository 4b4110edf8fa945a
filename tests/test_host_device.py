"""The CPU as a device: real memory of this process, and control groups made of files."""

import ctypes
import gc
import mmap
import platform
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from engine.device import Device, Peak
from engine.host_device import HostDevice
from engine.host_memory import memory_limits, peak_rss_bytes, rss_bytes

MB = 1_000_000
HAS_TRIM = hasattr(ctypes.CDLL(None), "malloc_trim")


def touch(size: int) -> None:
    """Take memory, use it, and give it back: from the system, for a heap may have as much lying about."""
    with mmap.mmap(-1, size) as block:
        np.frombuffer(block, np.uint8)[:] = 1


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc without clear_refs: 8 GB of memory, 6 GB available, a process of 40 MB."""
    own = tmp_path / "proc" / "self"
    own.mkdir(parents=True)
    own.joinpath("status").write_text("Name:\tpython\nVmHWM:\t   50000 kB\nVmRSS:\t   40000 kB\n")
    own.joinpath("statm").write_text("30000 10000 3000 1 0 9000 0\n")
    own.joinpath("cgroup").write_text("0::/\n")
    own.parent.joinpath("meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 6000000 kB\n")
    own.parent.joinpath("cpuinfo").write_text("processor\t: 0\nmodel name\t: Test CPU @ 3 GHz\n")
    return own.parent


def group(directory: Path, limit: str, current: int, cache: int, version: int = 2) -> None:
    """Write a control group's files."""
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    directory.mkdir(parents=True, exist_ok=True)
    directory.joinpath(names[0]).write_text(f"{limit}\n")
    directory.joinpath(names[1]).write_text(f"{current}\n")
    key = "inactive_file" if version == 2 else "total_inactive_file"
    directory.joinpath("memory.stat").write_text(f"anon 5\n{key} {cache}\n")


def test_it_measures_what_a_batch_takes() -> None:
    device: Device = HostDevice()
    with device.measure(outside_torch=False) as peak:
        touch(100 * MB)
    assert peak.extra_bytes is not None
    assert 90 * MB <= peak.extra_bytes <= 150 * MB


def test_each_measurement_begins_anew() -> None:
    device = HostDevice()
    touch(100 * MB)
    with device.measure(outside_torch=False) as peak:
        touch(20 * MB)
    assert peak.extra_bytes is not None
    assert 15 * MB <= peak.extra_bytes <= 60 * MB


def test_it_measures_other_threads_and_libraries() -> None:
    with HostDevice().measure(outside_torch=True) as peak:
        thread = threading.Thread(target=touch, args=(100 * MB,))
        thread.start()
        thread.join()
    assert peak.extra_bytes is not None
    assert peak.extra_bytes >= 90 * MB


def test_a_batch_that_fails_is_measured_too() -> None:
    device = HostDevice()
    peaks: list[Peak] = []

    def batch() -> None:
        with device.measure(outside_torch=False) as peak:
            peaks.append(peak)
            touch(100 * MB)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        batch()
    assert (peaks[0].extra_bytes or 0) >= 90 * MB


def test_the_peak_of_the_whole_life_outlasts_measuring() -> None:
    device = HostDevice()
    touch(200 * MB)
    before = peak_rss_bytes()
    for _ in range(3):
        with device.measure(outside_torch=False):
            touch(10 * MB)
    assert before >= 200 * MB
    assert peak_rss_bytes() >= before


def test_it_reads_this_process() -> None:
    device: Device = HostDevice()
    before = device.read()
    with mmap.mmap(-1, 100 * MB) as block:  # from the system: the heap may have as much from tests before
        block.write(b"\1" * len(block))
        after = device.read()
    assert after.used_bytes - before.used_bytes == pytest.approx(100 * MB, rel=0.1)
    assert after.cached_bytes == 0
    assert 0 < after.free_bytes < device.total_bytes
    assert (device.name, device.notes) == ("cpu", ())


def test_where_the_mark_cannot_be_reset_nothing_is_measured(proc: Path, tmp_path: Path) -> None:
    device = HostDevice(proc, tmp_path)
    with device.measure(outside_torch=False) as peak:
        touch(MB)
    assert peak.extra_bytes is None
    assert device.notes == ("/proc/self/clear_refs cannot be written: what a batch takes is not measured on the CPU",)


def test_the_machine_without_limits(proc: Path, tmp_path: Path) -> None:
    device = HostDevice(proc, tmp_path / "none")
    assert (device.label, device.total_bytes) == ("Test CPU @ 3 GHz", 8_000_000 * 1024)
    assert device.read()[1:] == (0, 6_000_000 * 1024)


def test_a_processor_without_a_model_name(proc: Path, tmp_path: Path) -> None:
    (proc / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert HostDevice(proc, tmp_path).label == platform.machine()


def test_a_kernel_without_control_groups(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").unlink()
    assert memory_limits(proc, tmp_path) == ()


def test_a_group_bounds_total_and_free(proc: Path, tmp_path: Path) -> None:
    """Its file cache is free: the kernel takes it back."""
    (proc / "self" / "cgroup").write_text("0::/system.slice/sluice.service\n")
    own = tmp_path / "cg" / "system.slice" / "sluice.service"
    group(own, str(2000 * MB), current=1500 * MB, cache=300 * MB)
    device = HostDevice(proc, tmp_path / "cg")
    assert device.total_bytes == 2000 * MB
    assert device.read().free_bytes == 800 * MB
    group(own, str(2000 * MB), current=2100 * MB, cache=0)
    assert device.read().free_bytes == 0


def test_a_group_above_bounds_too(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/slice/unit\n")
    group(tmp_path / "cg" / "slice" / "unit", str(3000 * MB), current=100 * MB, cache=0)
    group(tmp_path / "cg" / "slice", str(2000 * MB), current=1900 * MB, cache=0)
    device = HostDevice(proc, tmp_path / "cg")
    assert (device.total_bytes, device.read().free_bytes) == (2000 * MB, 100 * MB)


def test_a_group_without_a_limit(proc: Path, tmp_path: Path) -> None:
    group(tmp_path / "cg", "max", current=1, cache=0)
    assert HostDevice(proc, tmp_path / "cg").total_bytes == 8_000_000 * 1024


def test_version_one_and_a_path_of_the_host(proc: Path, tmp_path: Path) -> None:
    """In a container without a namespace of groups the mount begins at the container's own."""
    (proc / "self" / "cgroup").write_text("9:name=systemd:/docker/abc\n4:cpu,memory:/docker/abc\n0::/docker/abc\n")
    group(tmp_path / "cg" / "memory", str(1000 * MB), current=400 * MB, cache=100 * MB, version=1)
    device = HostDevice(proc, tmp_path / "cg")
    assert (device.total_bytes, device.read().free_bytes) == (1000 * MB, 700 * MB)


def test_version_one_says_no_limit_with_a_huge_number(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("4:memory:/\n")
    group(tmp_path / "cg" / "memory", "9223372036854771712", current=400 * MB, cache=0, version=1)
    device = HostDevice(proc, tmp_path / "cg")
    assert (device.total_bytes, device.read().free_bytes) == (8_000_000 * 1024, 6_000_000 * 1024)


def test_no_limit_is_enforced() -> None:
    device = HostDevice()
    device.limit(1)
    assert np.ones(10 * MB, np.uint8).nbytes == 10 * MB


def test_release_collects_cycles() -> None:
    class Node:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        gone = weakref.ref(Node())
        assert gone() is not None
        HostDevice().release()
    finally:
        gc.enable()
    assert gone() is None


@pytest.mark.skipif(not HAS_TRIM, reason="glibc's malloc_trim")
def test_release_gives_the_heap_back() -> None:
    blocks = [bytes([1]) * 20_000 for _ in range(10_000)]
    full = rss_bytes()
    del blocks[:-1]  # the last holds the heap's end, so that freeing alone gives nothing back
    held = rss_bytes()
    HostDevice().release()
    assert full - held < 100 * MB
    assert held - rss_bytes() > 100 * MB
