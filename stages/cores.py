"""How many cores this process may keep busy."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from stages.control_groups import CGROUPS, PROC, Group, groups


def usable_cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Those it may run on, and no more than its control groups give it time of (`docker run --cpus`); at least 1."""
    quotas = (quota for group in groups("cpu", proc, cgroups) for quota in _quota(group))
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *quotas])))


def _quota(group: Group) -> Iterator[float]:
    """Cores' worth of time that a group may use, where it is bounded."""
    if group.version == 2:
        file = group.directory / "cpu.max"  # "max 100000", or microseconds in each so many
        allowed, period = file.read_text("ascii").split() if file.exists() else ("max", "1")
    else:
        files = [group.directory / f"cpu.cfs_{name}_us" for name in ("quota", "period")]  # -1: no bound
        allowed, period = (file.read_text("ascii").strip() if file.exists() else "-1" for file in files)
    if allowed not in ("max", "-1"):
        yield int(allowed) / int(period)
