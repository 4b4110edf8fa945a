"""The control groups that this process is in, from /proc and /sys (the kernel's cgroup-v1 and cgroup-v2 documents)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


class Group(NamedTuple):
    """One that binds this process: its own, or one above it."""

    version: int  # 1 | 2: they name their files differently
    directory: Path


def groups(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[Group]:
    """Those of a controller ("memory", "cpu"), the innermost first; nothing where the system has none.

    In a container the path may be the host's, while the mount begins at the container's own group: so directories that
    are not there come, too, and the mount itself does.
    """
    own = proc / "self" / "cgroup"
    for line in own.read_text("utf-8").splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from (Group(2, each) for each in _upwards(cgroups, path))
        elif controller in controllers.split(","):
            yield from (Group(1, each) for each in _upwards(cgroups / controller, path))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    own = mount / path.lstrip("/")
    for directory in (own, *own.parents):
        yield directory
        if directory == mount:
            return
