"""How many cores may be kept busy: of a machine, of a container."""

import os
from pathlib import Path

import pytest

from stages.control_groups import Group, groups
from stages.cores import usable_cores


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may run on eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def in_groups(tmp_path: Path, line: str, **files: str) -> tuple[Path, Path]:
    """/proc and /sys/fs/cgroup of a process in the groups of `line`. files: path with dots for slashes → content."""
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(f"{line}\n")
    for name, content in files.items():
        file = mount / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return proc, mount


def test_without_groups_all_cores_that_it_may_run_on(tmp_path: Path, eight: None) -> None:
    assert usable_cores(tmp_path, tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_a_quota_bounds_them(tmp_path: Path, eight: None, quota: str, cores: int) -> None:
    assert usable_cores(*in_groups(tmp_path, "0::/docker/abc", docker__abc__cpu_max=quota)) == cores


def test_the_strictest_group_counts_wherever_it_is(tmp_path: Path, eight: None) -> None:
    files = {"a__b__cpu_max": "600000 100000", "a__cpu_max": "300000 100000", "cpu_max": "max 100000"}
    assert usable_cores(*in_groups(tmp_path, "0::/a/b", **files)) == 3


def test_in_a_container_the_mount_is_the_group_itself(tmp_path: Path, eight: None) -> None:
    assert usable_cores(*in_groups(tmp_path, "0::/of/the/host", cpu_max="400000 100000")) == 4


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 3)])
def test_groups_of_version_1(tmp_path: Path, eight: None, quota: str, cores: int) -> None:
    files = {"cpu__x__cpu_cfs_quota_us": quota, "cpu__x__cpu_cfs_period_us": "100000"}
    assert usable_cores(*in_groups(tmp_path, "4:cpu,cpuacct:/x", **files)) == cores


def test_groups_come_from_the_innermost_to_the_mount(tmp_path: Path) -> None:
    proc, mount = in_groups(tmp_path, "7:memory:/a/b\n5:cpu:/c\n0::/d")
    assert list(groups("memory", proc, mount)) == [
        Group(1, mount / "memory" / "a" / "b"),
        Group(1, mount / "memory" / "a"),
        Group(1, mount / "memory"),
        Group(2, mount / "d"),
        Group(2, mount),
    ]
