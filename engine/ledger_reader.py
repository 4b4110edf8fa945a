"""The ledger for those who only look: the watcher's thread, and `status` while no daemon runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.ledger import VideoList
from engine.ledger_files import FileList, FileState
from engine.ledger_schema import Database
from engine.ledger_tasks import OperationList


class Mark(NamedTuple):
    """What the ledger knows a file by, and what became of it."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    state: FileState


class LedgerReader:
    """A connection of its own, that cannot write. For one thread at a time, whichever."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at `path`, whoever else has it.

        Raises:
            StartError: there is none, or it is of another version. LedgerUnavailable, LedgerDamaged.
        """
        self._database = Database(path, read_only=True)
        self.files = FileList(self._database)
        self.videos = VideoList(self._database)
        self.operations = OperationList(self._database)

    def mark(self, path: bytes) -> Mark | None:
        """What a file was when it was last looked at; None: it never was. Compare it with its stat."""
        row = self.files.find(path)
        if row is None:
            return None
        marks = row.marks
        return Mark(marks.size_bytes, marks.mtime_ns, marks.inode, marks.device, row.state)

    def paths_below(self, root: bytes) -> Iterator[tuple[bytes, int]]:
        """Path and device of every file below a directory that is not gone, in order of path."""
        for row in self.files.below(root):
            yield row.path, row.marks.device

    def task_counts(self) -> dict[str, int]:
        """Tasks by state."""
        return self._database.counts("SELECT state, count(*) FROM tasks GROUP BY state")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()
