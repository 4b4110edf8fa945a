"""What has been indexed, in SQLite: videos by content and settings, and a cache of file identities.

A video counts as known when its content and everything that decides its points (models, sampling, how speech is found)
are the same. (device, inode, size, mtime) is only a cache of the content hash.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Config
from engine.errors import StartError

VERSION = 1
SCHEMA = """
CREATE TABLE videos (
    video_id TEXT NOT NULL, fingerprint TEXT NOT NULL, path BLOB NOT NULL, report TEXT NOT NULL,
    finished_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (video_id, fingerprint)
) WITHOUT ROWID;
CREATE TABLE files (
    path BLOB PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, video_id TEXT NOT NULL
) WITHOUT ROWID;
"""


class Ledger:
    """One SQLite file, written by the supervisor alone."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open or create it.

        Raises:
            StartError: it cannot be opened, is damaged, or is from a newer version.
        """
        self._fingerprint = fingerprint
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._migrate(path)
        except (sqlite3.Error, OSError) as error:
            raise StartError(
                "ledger", f"ledger {path}: {error}; move it away to begin anew (nothing is lost)"
            ) from error

    def _migrate(self, path: Path) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StartError("ledger", f"ledger {path} is of version {version}, newer than this program; update Sluice")
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    def _run(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:  # a full disk, most likely; what was written before stands
            raise StartError("ledger", f"ledger {self._path}: {error}; make room there and run again") from error

    def known_file(self, path: bytes, stat: os.stat_result) -> str | None:
        """The content hash of a file that has not changed since it was hashed."""
        row = self._run(
            "SELECT video_id FROM files "
            "WHERE path = ? AND device = ? AND inode = ? AND size_bytes = ? AND mtime_ns = ?",
            (path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns),
        ).fetchone()
        return str(row[0]) if row else None

    def known_video(self, video_id: str) -> dict[str, Any] | None:
        """Its row of the report from when it was indexed with the present settings."""
        row = self._run(
            "SELECT report FROM videos WHERE video_id = ? AND fingerprint = ?", (video_id, self._fingerprint)
        ).fetchone()
        return dict(json.loads(row[0])) if row else None

    def record_video(self, video_id: str, path: bytes, report: dict[str, Any]) -> None:
        """A video is indexed. Call it only when all its points are durable."""
        self._run(
            "INSERT OR REPLACE INTO videos (video_id, fingerprint, path, report) VALUES (?, ?, ?, ?)",
            (video_id, self._fingerprint, path, json.dumps(report)),
        )

    def record_file(self, path: bytes, stat: os.stat_result, video_id: str) -> None:
        """Remember the hash of a file."""
        self._run(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, video_id),
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def ledger_path(config: Config) -> Path:
    """Beside the points in an embedded store; for a server, a file of its own for each URL and prefix."""
    if config.store.url is None:
        return Path(config.store.path) / "ledger.sqlite"
    name = hashlib.sha256(f"{config.store.url} {config.store.prefix}".encode()).hexdigest()[:16]
    return Path(config.run.state) / f"ledger-{name}.sqlite"


def fingerprint(config: Config, labels: Sequence[str]) -> str:
    """Hash of everything that decides which points a video gets. labels: "role name@revision" of every model."""
    decode = msgspec.to_builtins(config.decode)
    for name in ("processes", "threads", "span_seconds", "max_pixels", "max_streams", "max_hours"):
        decode.pop(name)  # these decide how fast, not what
    parts = {
        "models": sorted(labels),
        "decode": decode,
        "speech": msgspec.to_builtins(config.speech),
        "voice": msgspec.to_builtins(config.voice),
        "prefix": config.store.prefix,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
