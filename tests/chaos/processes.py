"""The processes of a subject, as /proc shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.sandbox import PROCESS_NAMES

KIND_OF = {name: kind for kind, name in PROCESS_NAMES.items()}  # by the name that each process gives itself


@dataclass(frozen=True, order=True)
class Process:
    """A living process."""

    pid: int
    kind: str  # one of schedule.KINDS; "" for a child that has not named itself, and for helpers of the interpreter


def in_session(session: int) -> list[Process]:
    """Everything that lives in a session, orphans too, in the order of ids. Zombies are dead."""
    return sorted(_living(session))


def _living(session: int) -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        name, state, group = _parsed(stat)
        if group == session and state not in "ZX":
            yield Process(int(entry.name), KIND_OF.get(name, ""))


def _parsed(stat: str) -> tuple[str, str, int]:
    """Name, state and session; see proc_pid_stat(5). A name may hold anything, parentheses too."""
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    return head.partition("(")[2], fields[0], int(fields[3])


def figures(pid: int) -> dict[str, float]:
    """Resident memory in MB (10^6 bytes), file descriptors, threads; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return {}
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    if "VmRSS" not in status:
        return {}  # it is ending
    return {
        "rss_mb": int(status["VmRSS"][0]) * 1024 / 1e6,
        "anonymous_mb": int(status["RssAnon"][0]) * 1024 / 1e6,
        "descriptors": float(descriptors),
        "threads": float(status["Threads"][0]),
    }


def shared_memory(pid: int) -> set[Path]:
    """Files of /dev/shm that a process has open or mapped; those that were deleted, too."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines()
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return set()
    names = [*(line[line.find("/") :] for line in maps if "/" in line), *(str(_target(link)) for link in links)]
    return {Path(name) for name in names if name.startswith("/dev/shm/")}


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except (FileNotFoundError, ProcessLookupError):
        return None  # closed meanwhile
