"""What the tests of the watched directories share: a ledger of dictionaries, and clocks that are set by hand."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from engine.settling import Mark


@dataclass(frozen=True)
class Record:
    """A row of the ledger."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    state: Literal["present", "gone", "failed"] = "present"

    @classmethod
    def of(cls, path: bytes, state: Literal["present", "gone", "failed"] = "present") -> "Record":
        """As the file is now."""
        found = os.stat(path)  # noqa: PTH116 - bytes
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev, state)


@dataclass
class Ledger:
    """What is known of files; any number of readers may be made of it."""

    rows: dict[bytes, Record] = field(default_factory=dict)
    closed: int = 0

    def mark(self, path: bytes) -> Record | None:
        return self.rows.get(path)

    def paths_below(self, root: bytes) -> Iterator[tuple[bytes, int]]:
        for path, row in sorted(self.rows.copy().items()):  # the watcher's thread reads while a test writes
            if path.startswith(root + b"/") and row.state != "gone":
                yield path, row.device

    def close(self) -> None:
        self.closed += 1

    def record(self, *paths: bytes, state: Literal["present", "gone", "failed"] = "present") -> None:
        """Remember files as they are."""
        for path in paths:
            self.rows[path] = Record.of(path, state)

    def gone(self, path: bytes) -> None:
        """Remember that a file is not there."""
        self.rows[path] = replace(self.rows[path], state="gone")

    def move_to_device(self, device: int) -> None:
        """As if all files had been recorded on another one."""
        self.rows = {path: replace(row, device=device) for path, row in self.rows.copy().items()}


@dataclass
class Clocks:
    """Both clocks, at some moment of 2030 when files of today are old."""

    seconds: float = 1000.0
    wall_seconds: float = 1_900_000_000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.wall_seconds

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass on both."""
        self.seconds += seconds
        self.wall_seconds += seconds


def made(path: Path, content: bytes = b"film") -> bytes:
    """A file with all directories above it; its path as bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return bytes(path)


def mark(size_bytes: int = 1, mtime_ns: int = 1, inode: int = 1, device: int = 1) -> Mark:
    return Mark(size_bytes, mtime_ns, inode, device)
