"""The ledger's file: its tables, how an older one is brought up, grouped writes, and what an error of SQLite means."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.errors import StartError
from engine.failpoints import AFTER_COMMIT, BEFORE_COMMIT, reach
from engine.files import shown
from stages.errors import SluiceError

BUSY_SECONDS = 0.2  # for a backup or a shell that looks in; whoever holds it longer is said
SUSPECT = ".suspect"  # beside the file: damage was met at work, so the next start looks at all of it
LOG_BYTES = 64 << 20  # of the write-ahead log after a checkpoint: what a large migration made it, it need not stay

# By version: what brings a ledger to it from the one before. Never change one that was released; append.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE videos (video_id TEXT NOT NULL, fingerprint TEXT NOT NULL, path BLOB NOT NULL,"
        " report TEXT NOT NULL, finished_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,"
        " PRIMARY KEY (video_id, fingerprint)) WITHOUT ROWID",
        "CREATE TABLE files (path BLOB PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL,"
        " size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, video_id TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        # --- videos: a report may be long, and long rows are better kept out of the tree of a WITHOUT ROWID table
        "ALTER TABLE videos RENAME TO videos_1",
        "CREATE TABLE videos (video_id TEXT NOT NULL, fingerprint TEXT NOT NULL,"
        " state TEXT NOT NULL CHECK (state IN ('working', 'indexed', 'partial', 'failed')),"
        " path BLOB NOT NULL, shown_path TEXT NOT NULL, report TEXT, error_code TEXT, error_message TEXT,"
        " started_at REAL NOT NULL, finished_at REAL, PRIMARY KEY (video_id, fingerprint))",
        "INSERT INTO videos SELECT video_id, fingerprint,"
        " CASE json_extract(report, '$.status') WHEN 'partial' THEN 'partial' ELSE 'indexed' END,"
        " path, shown(path), report, NULL, NULL, strftime('%s', finished_at), strftime('%s', finished_at)"
        " FROM videos_1 WHERE json_valid(report)",  # what cannot be read is indexed again, at no cost but time
        "DROP TABLE videos_1",
        "CREATE INDEX videos_by_state ON videos (state)",
        "CREATE INDEX videos_by_path ON videos (path)",
        # --- files
        "ALTER TABLE files RENAME TO files_1",
        "CREATE TABLE files (path BLOB PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL,"
        " size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, video_id TEXT,"
        " state TEXT NOT NULL CHECK (state IN ('present', 'gone', 'failed')), error_code TEXT, error_message TEXT,"
        " attempts INTEGER NOT NULL DEFAULT 0, first_seen REAL NOT NULL, last_seen REAL NOT NULL, gone_at REAL"
        ") WITHOUT ROWID",
        "INSERT INTO files SELECT path, device, inode, size_bytes, mtime_ns, video_id, 'present', NULL, NULL, 0,"
        " strftime('%s', 'now'), strftime('%s', 'now'), NULL FROM files_1",
        "DROP TABLE files_1",
        "CREATE INDEX files_by_identity ON files (inode, device, size_bytes, mtime_ns)",
        "CREATE INDEX files_by_video ON files (video_id)",
        "CREATE INDEX files_by_state ON files (state)",
        # --- tasks
        "CREATE TABLE tasks (id INTEGER PRIMARY KEY AUTOINCREMENT, video_id TEXT NOT NULL, fingerprint TEXT NOT NULL,"
        " kind TEXT NOT NULL CHECK (kind IN ('frames', 'audio')), start_seconds REAL NOT NULL, end_seconds REAL,"
        " state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),"
        " deaths INTEGER NOT NULL DEFAULT 0, section INTEGER NOT NULL DEFAULT 0,"
        " resume_seconds REAL, resume_state BLOB, result TEXT, error_code TEXT, error_message TEXT)",
        "CREATE INDEX tasks_by_video ON tasks (video_id, fingerprint)",
        "CREATE INDEX tasks_by_state ON tasks (state)",
        # Ids begin at a place of this file's own, above 2^40: what a consumer has kept from a ledger that is no more
        # must not be taken for a task of this one. Numbers below are free for tasks that no ledger keeps.
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('tasks', 1099511627776 + abs(random() % 2251799813685248))",
        # --- history and the outbox
        "CREATE TABLE history (id INTEGER PRIMARY KEY AUTOINCREMENT, video_id TEXT, path BLOB NOT NULL,"
        " event TEXT NOT NULL CHECK (event IN"
        " ('seen', 'moved', 'copied', 'changed', 'gone', 'returned', 'forgotten')), at REAL NOT NULL)",
        "CREATE INDEX history_by_video ON history (video_id, id)",
        "CREATE TABLE operations (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " kind TEXT NOT NULL CHECK (kind IN ('repath', 'remove', 'record')), video_id TEXT NOT NULL,"
        " payload TEXT NOT NULL, refused TEXT, at REAL NOT NULL)",
        "CREATE INDEX operations_by_refused ON operations (refused, id)",
        "CREATE INDEX operations_by_video ON operations (video_id)",
    ),
    (
        "ALTER TABLE tasks ADD COLUMN resume_languages TEXT",  # JSON, as in AudioResume
        # --- the outbox: one more kind
        "DROP INDEX operations_by_refused",
        "DROP INDEX operations_by_video",
        "ALTER TABLE operations RENAME TO operations_2",
        "CREATE TABLE operations (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " kind TEXT NOT NULL CHECK (kind IN ('repath', 'remove', 'record', 'label')), video_id TEXT NOT NULL,"
        " payload TEXT NOT NULL, refused TEXT, at REAL NOT NULL)",
        "INSERT INTO operations SELECT * FROM operations_2",
        # An id is never used again, not even one whose operation is done: the consumer may still answer it.
        "UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'operations_2')"
        " WHERE name = 'operations'",
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'operations', seq FROM sqlite_sequence"
        " WHERE name = 'operations_2' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'operations')",
        "DROP TABLE operations_2",
        "CREATE INDEX operations_by_refused ON operations (refused, id)",
        "CREATE INDEX operations_by_video ON operations (video_id)",
    ),
)  # fmt: skip
VERSION = len(MIGRATIONS)

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
CURES = {
    sqlite3.SQLITE_BUSY: "close what has it open, a backup or a shell",
    sqlite3.SQLITE_LOCKED: "close what has it open, a backup or a shell",
    sqlite3.SQLITE_FULL: "make room there",
    sqlite3.SQLITE_IOERR: "make room there, or look to the disk",
    sqlite3.SQLITE_CANTOPEN: "make it readable and writable, with its directory",
    sqlite3.SQLITE_READONLY: "make it writable, with its directory",
    sqlite3.SQLITE_PERM: "make it readable and writable, with its directory",
    sqlite3.SQLITE_NOMEM: "free some memory",
    sqlite3.SQLITE_PROTOCOL: "keep it on a local disk",
}


class LedgerUnavailable(SluiceError):
    """The ledger cannot be read or written for now; nothing was half written, and the same call may succeed later."""


class LedgerDamaged(SluiceError):
    """The ledger's file is damaged: a restart sets it aside and begins a new one."""


class Database:
    """One connection. For one thread at a time."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open, or create, and bring up to the present version.

        Raises:
            LedgerDamaged, LedgerUnavailable; StartError: no ledger, not one of ours, or of a version we do not read.
        """
        self.path = path
        self._read_only = read_only
        self._inside = self._spoilt = False
        with self._said():
            self._connection = _connected(path, read_only)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._check_version()
            if not read_only:
                self._prepare()
            undo.pop_all()

    def row(self, statement: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        return next(iter(self.rows(statement, values)), None)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows: bound them by LIMIT where there may be many. The statement is over when this returns."""
        with self._said():
            return self._connection.execute(statement, values).fetchall()

    def counts(self, statement: str) -> dict[str, int]:
        """Rows of a name and a number."""
        return {row[0]: row[1] for row in self.rows(statement)}

    def write(self, statement: str, values: Sequence[object] = ()) -> int:
        """Change something; returns how many rows. Only inside `transaction`."""
        assert self._inside
        with self._said():
            return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, values: Sequence[object] = ()) -> int:
        """Add one row; returns its id. Only inside `transaction`."""
        assert self._inside
        with self._said():
            return self._connection.execute(statement, values).lastrowid or 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside becomes durable together, or not at all. One inside another is a part of it.

        Raises:
            LedgerUnavailable, LedgerDamaged: nothing of it was written.
        """
        if self._inside:
            with self._part():
                yield
            return
        self.rows("BEGIN IMMEDIATE")
        self._inside, self._spoilt = True, False
        with contextlib.ExitStack() as undo:
            undo.callback(self._end)
            yield
            if self._spoilt:
                raise RuntimeError("a part of this transaction failed, so nothing of it is written")
            reach(BEFORE_COMMIT)
            self.rows("COMMIT")
        reach(AFTER_COMMIT)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # --- inside -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _part(self) -> Iterator[None]:
        with contextlib.ExitStack() as undo:
            undo.callback(self._spoil)
            yield
            undo.pop_all()

    def _spoil(self) -> None:
        self._spoilt = True

    def _end(self) -> None:
        self._inside = False
        if self._connection.in_transaction:  # some errors have rolled it back already
            self.rows("ROLLBACK")

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            expected = meaning(self.path, error)
            if expected is None:
                raise
            if isinstance(expected, LedgerDamaged) and not self._read_only:
                _mark_suspect(self.path, expected)
            raise expected from error

    def _check_version(self) -> None:
        row = self.row("PRAGMA user_version")
        assert row is not None
        version, where = row[0], f"ledger {self.path} is of version {row[0]}"
        if version > VERSION:
            raise StartError("ledger", f"{where}, newer than this program; update Sluice")
        if version < VERSION and self._read_only:
            raise StartError("ledger", f"{where}, older than this program; ingest or the daemon brings it up to date")
        if version == 0 and self.row("SELECT 1 FROM sqlite_master"):
            raise StartError("ledger", f"{self.path} is a database of something else; set run.state or store.path")
        self._version = version

    def _prepare(self) -> None:
        self._check()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY"):
            self.rows(f"PRAGMA {pragma}")
        self.rows(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        for version in range(self._version, VERSION):
            with self.transaction():
                for statement in MIGRATIONS[version]:
                    self.write(statement)
                self.write(f"PRAGMA user_version = {version + 1}")

    def _check(self) -> None:
        """Of every page at a start; of every index too, after damage was met at work."""
        suspect = suspect_mark(self.path)
        pragma = "integrity_check" if suspect.exists() else "quick_check"
        row = self.row(f"PRAGMA {pragma}(1)")
        if row != ("ok",):
            said = " ".join(str(row[0]).split()) if row else "it says nothing of itself"
            raise LedgerDamaged("ledger-damaged", f"ledger {self.path}: {said}; move it away to begin anew")
        suspect.unlink(missing_ok=True)


def meaning(path: Path, error: sqlite3.Error) -> SluiceError | None:
    """What an error of SQLite is for us; None: a mistake in this program."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte: what kind; the rest: more exactly
    if code in DAMAGED:
        return LedgerDamaged(
            "ledger-damaged", f"ledger {path}: {error}; start again: it is set aside and rebuilt from the store"
        )
    cure = CURES.get(code)
    return LedgerUnavailable("ledger-unavailable", f"ledger {path}: {error}; {cure}") if cure else None


def suspect_mark(path: Path) -> Path:
    """The file that says that damage was met at work."""
    return path.with_name(path.name + SUSPECT)


def _mark_suspect(path: Path, error: LedgerDamaged) -> None:
    with contextlib.suppress(OSError):  # without it the next start looks at less, and this error comes again
        suspect_mark(path).write_text(f"{error.message}\n", encoding="utf-8", errors="replace")


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # SQLite will say what is wrong
    return False


def _connected(path: Path, read_only: bool) -> sqlite3.Connection:
    if read_only and _is_missing(path):
        raise StartError(
            "no-ledger", f"there is no ledger {path}: nothing was indexed into this store yet (store.path, store.url)"
        )
    uri = f"file:{quote(os.fsencode(path))}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=not read_only
    )
    connection.create_function("shown", 1, shown, deterministic=True)
    return connection
