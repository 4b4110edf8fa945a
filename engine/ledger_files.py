"""The files that were seen: what content each shows, what failed, what is gone; and the history of all of it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engine.files import shown
from engine.ledger_schema import Database

PAGE = 1000  # paths of a page of `below`
HISTORY_KEPT = 100  # events of one video: a mount that comes and goes must not fill the disk

FileState = Literal["present", "gone", "failed"]
Event = Literal["seen", "moved", "copied", "changed", "gone", "returned", "forgotten"]
COLUMNS = (
    "path, device, inode, size_bytes, mtime_ns, video_id, state, error_code, error_message, attempts, first_seen,"
    " last_seen, gone_at"
)


class Marks(NamedTuple):
    """What tells a file that has not changed: a cache of its content hash."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Marks":
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file as the ledger knows it."""

    path: bytes
    marks: Marks
    video_id: str | None  # None: it could not be hashed or opened
    state: FileState
    error: tuple[str, str] | None  # code and message, when it failed
    attempts: int  # that failed, since it last changed
    first_seen: float  # unix seconds
    last_seen: float
    gone_at: float | None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """Something that happened to a path of a video."""

    path: bytes
    event: Event
    at: float  # unix seconds


class FileList:
    """What can be asked of the files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, path: bytes) -> FileRow | None:
        """What is known of a path."""
        row = self._database.row(f"SELECT {COLUMNS} FROM files WHERE path = ?", (path,))
        return _file(row) if row is not None else None

    def known_file(self, path: bytes, stat: os.stat_result) -> str | None:
        """The content hash of a file that has not changed since it was hashed, gone and failed ones included."""
        row = self.find(path)
        return row.video_id if row is not None and row.marks == Marks.of(stat) else None

    def failure(self, path: bytes, stat: os.stat_result) -> FileRow | None:
        """The row of a file that failed and has not changed since."""
        row = self.find(path)
        return row if row is not None and row.state == "failed" and row.marks == Marks.of(stat) else None

    def by_identity(self, stat: os.stat_result) -> list[FileRow]:
        """Every path that shows this very file, in whatever state: where it came from, or its hard links."""
        marks = Marks.of(stat)
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM files WHERE inode = ? AND device = ? AND size_bytes = ? AND mtime_ns = ?",
            (_signed(marks.inode), _signed(marks.device), marks.size_bytes, _signed(marks.mtime_ns)),
        )
        return [_file(row) for row in rows]

    def paths_of(self, video_id: str) -> list[bytes]:
        """The paths where this content is, as far as we know, in order; those that failed included."""
        rows = self._database.rows(
            "SELECT path FROM files WHERE video_id = ? AND state <> 'gone' ORDER BY path", (video_id,)
        )
        return [row[0] for row in rows]

    def below(self, root: bytes, page: int = PAGE) -> Iterator[FileRow]:
        """The files below a directory that are not gone, in order of path. The ledger may change between two pages."""
        first, end = below_bounds(root)
        while True:
            rows = self._database.rows(
                f"SELECT {COLUMNS} FROM files WHERE path > ? AND path < ? AND state <> 'gone' ORDER BY path LIMIT ?",
                (first, end, page),
            )
            yield from map(_file, rows)
            if len(rows) < page:
                return
            first = rows[-1][0]

    def failed(self, limit: int) -> list[FileRow]:
        """Files that failed, the latest first."""
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM files WHERE state = 'failed' ORDER BY last_seen DESC, path LIMIT ?", (limit,)
        )
        return [_file(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Files by state."""
        return self._database.counts("SELECT state, count(*) FROM files GROUP BY state")

    def history(self, video_id: str) -> list[HistoryRow]:
        """What happened to the paths of a video, the latest last."""
        rows = self._database.rows("SELECT path, event, at FROM history WHERE video_id = ? ORDER BY id", (video_id,))
        return [HistoryRow(*row) for row in rows]


class Files(FileList):
    """The files, and what becomes of them. Every change writes its history in the same transaction."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database)
        self._clock = clock

    def record_file(self, path: bytes, stat: os.stat_result, video_id: str) -> str | None:
        """A file shows this content. Returns the content that it showed before, if that was another.

        Raises:
            LedgerUnavailable, LedgerDamaged: nothing was written.
        """
        with self._database.transaction():
            old = self.find(path)
            self._put(path, stat, video_id, "present", None, 0)
            return self._note_content(path, old, video_id)

    def fail_file(self, path: bytes, stat: os.stat_result, video_id: str | None, code: str, message: str) -> int:
        """A file could not be indexed; returns how often since it last changed. video_id: None without a hash."""
        with self._database.transaction():
            old = self.find(path)
            is_same = old is not None and old.state == "failed" and old.marks == Marks.of(stat)
            attempts = 1 + (old.attempts if old is not None and is_same else 0)
            self._put(path, stat, video_id, "failed", (code, message), attempts)
            if video_id is not None or old is None or old.video_id is not None:
                self._note_content(path, old, video_id)
        return attempts

    def mark_gone(self, path: bytes) -> str | None:
        """A file is no longer there. Returns its content, if that is known; None also when it was gone before."""
        with self._database.transaction():
            row = self.find(path)
            if row is None or row.state == "gone":
                return None
            self._database.write("UPDATE files SET state = 'gone', gone_at = ? WHERE path = ?", (self._clock(), path))
            self._note(row.video_id, path, "gone")
            return row.video_id

    def mark_moved(self, old: bytes, new: bytes) -> str | None:
        """A file has another path now. Returns the content that lay at `new` before, if that was another."""
        with self._database.transaction():
            row, covered = self.find(old), self.find(new)
            if row is None or old == new:
                return None
            self._database.write("DELETE FROM files WHERE path = ?", (new,))
            self._database.write(
                "UPDATE files SET path = ?, last_seen = ?, gone_at = NULL,"
                " state = CASE state WHEN 'gone' THEN 'present' ELSE state END WHERE path = ?",
                (new, self._clock(), old),
            )
            self._database.write(
                "UPDATE videos SET path = ?, shown_path = ? WHERE video_id = ? AND path = ?",
                (new, shown(new), row.video_id, old),
            )
            self._note(row.video_id, new, "moved")
            if covered is None or covered.video_id in (None, row.video_id):
                return None
            return self._note(covered.video_id, new, "changed")

    def clear_failure(self, *, path: bytes | None = None, video_id: str | None = None) -> list[bytes]:
        """Have the failed files of a path or a video tried again: a scan takes them for changed. Returns them."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT path FROM files WHERE state = 'failed' AND (path = ? OR video_id = ?)", (path, video_id)
            )
            self._database.write(
                "UPDATE files SET state = 'present', error_code = NULL, error_message = NULL, attempts = 0,"
                " size_bytes = -1 WHERE state = 'failed' AND (path = ? OR video_id = ?)",
                (path, video_id),
            )
        return [row[0] for row in rows]

    def note_forgotten(self, video_id: str) -> None:
        """Write into the history of every path that shows it that the video was forgotten."""
        with self._database.transaction():
            for path in self.paths_of(video_id):
                self._note(video_id, path, "forgotten")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _put(
        self,
        path: bytes,
        stat: os.stat_result,
        video_id: str | None,
        state: FileState,
        error: tuple[str, str] | None,
        attempts: int,
    ) -> None:
        marks, now = Marks.of(stat), self._clock()
        self._database.write(
            f"INSERT INTO files ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"
            " ON CONFLICT (path) DO UPDATE SET device = excluded.device, inode = excluded.inode,"
            " size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, video_id = excluded.video_id,"
            " state = excluded.state, error_code = excluded.error_code, error_message = excluded.error_message,"
            " attempts = excluded.attempts, last_seen = excluded.last_seen, gone_at = NULL",
            (
                *(path, _signed(marks.device), _signed(marks.inode), marks.size_bytes, _signed(marks.mtime_ns)),
                *(video_id, state, *(error or (None, None)), attempts, now, now),
            ),
        )

    def _note_content(self, path: bytes, old: FileRow | None, video_id: str | None) -> str | None:
        """The history of a file that was looked at; returns the content that it no longer shows."""
        before = old.video_id if old is not None else None
        if old is not None and before == video_id:
            if old.state == "gone":
                self._note(video_id, path, "returned")
            return None
        if before is not None:
            self._note(before, path, "changed")
        self._note(video_id, path, "copied" if self._is_elsewhere(path, video_id) else "seen")
        return before

    def _is_elsewhere(self, path: bytes, video_id: str | None) -> bool:
        statement = "SELECT 1 FROM files WHERE video_id = ? AND state <> 'gone' AND path <> ? LIMIT 1"
        return self._database.row(statement, (video_id, path)) is not None

    def _note(self, video_id: str | None, path: bytes, event: Event) -> str | None:
        self._database.write(
            "INSERT INTO history (video_id, path, event, at) VALUES (?, ?, ?, ?)",
            (video_id, path, event, self._clock()),
        )
        self._database.write(
            "DELETE FROM history WHERE video_id IS ? AND id <="
            " (SELECT id FROM history WHERE video_id IS ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (video_id, video_id, HISTORY_KEPT),
        )
        return video_id


def below_bounds(root: bytes) -> tuple[bytes, bytes]:
    """Between which two paths, both left out, lies all that is below a directory."""
    prefix = root.rstrip(b"/") + b"/"
    return prefix, prefix[:-1] + b"0"  # "0" follows "/"


def _signed(value: int) -> int:
    """A number of 64 bits as SQLite holds it: inodes may use the top bit, and times of change lie beyond 2262."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _unsigned(value: int) -> int:
    return value % (1 << 64)


def _time_ns(value: int) -> int:
    """The time that `_signed` made of it; no file system we know of goes back beyond 1901."""
    return value if value >= -2_200_000_000 * 10**9 else _unsigned(value)


def _file(row: tuple[Any, ...]) -> FileRow:
    path, device, inode, size_bytes, mtime_ns, video_id, state, code, message, attempts, first, last, gone = row
    return FileRow(
        path=path,
        marks=Marks(_unsigned(device), _unsigned(inode), size_bytes, _time_ns(mtime_ns)),
        video_id=video_id,
        state=state,
        error=(code, message) if code is not None else None,
        attempts=attempts,
        first_seen=first,
        last_seen=last,
        gone_at=gone,
    )
