"""The ledger's file: an old one brought up, groups of writes, and what happens while it cannot be written."""

import contextlib
import json
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.ledger import Ledger
from engine.ledger_schema import MIGRATIONS, VERSION, Database, LedgerDamaged, LedgerUnavailable
from engine.ledger_tasks import TaskSpan

# As the first version made it: never change this.
SCHEMA_1 = """
CREATE TABLE videos (
    video_id TEXT NOT NULL, fingerprint TEXT NOT NULL, path BLOB NOT NULL, report TEXT NOT NULL,
    finished_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (video_id, fingerprint)
) WITHOUT ROWID;
CREATE TABLE files (
    path BLOB PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, video_id TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
REPORT: dict[str, Any] = {"status": "partial", "error": None, "notes": ["é"]}


def first_version(path: Path, stat: Any) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(SCHEMA_1)
    insert = "INSERT INTO videos VALUES (?, ?, ?, ?, '2026-02-03 04:05:06')"
    connection.execute(insert, ("v", "f", b"/a\xff.mp4", json.dumps(REPORT)))
    connection.execute(insert, ("w", "old settings", b"/w", json.dumps({"status": "indexed"})))
    connection.execute(insert, ("x", "f", b"/x", "not JSON"))
    marks = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", (b"/a\xff.mp4", *marks, "v"))
    connection.commit()
    connection.close()


def test_a_ledger_of_the_first_version_comes_through_with_its_content(tmp_path: Path) -> None:
    stat = tmp_path.stat()
    first_version(tmp_path / "l.sqlite", stat)
    for _ in range(2):
        ledger = Ledger(tmp_path / "l.sqlite", "f")
        assert ledger.rescued is None
        assert ledger.videos.known_video("v") == REPORT
        assert ledger.videos.known_video("x") is None  # could not be read: it is indexed again
        (row,) = ledger.videos.listing(5, "partial")
        assert (row.path, row.shown_path, row.finished_at) == (b"/a\xff.mp4", "/a\\xff.mp4", 1770091506.0)
        assert [row.fingerprint for row in ledger.videos.listing(5, "indexed")] == ["old settings"]
        assert ledger.files.known_file(b"/a\xff.mp4", stat) == "v"
        assert ledger.files.counts() == {"present": 1}
        ledger.close()


def test_a_migration_that_finds_no_room_changes_nothing_and_works_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.sqlite"
    first_version(path, tmp_path.stat())
    monkeypatch.setattr(
        "engine.ledger_schema.MIGRATIONS", (MIGRATIONS[0], ("PRAGMA max_page_count = 1", *MIGRATIONS[1]))
    )
    with pytest.raises(LedgerUnavailable, match="full; make room there"):
        Ledger(path, "f")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM videos").fetchone() == (3,)
    monkeypatch.undo()
    ledger = Ledger(path, "f")
    assert ledger.videos.known_video("v") == REPORT
    ledger.close()


def test_what_the_second_version_had_yet_to_tell_the_store_is_still_told_and_no_id_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.sqlite"
    with monkeypatch.context() as second_version:
        second_version.setattr("engine.ledger_schema.MIGRATIONS", MIGRATIONS[:2])
        second_version.setattr("engine.ledger_schema.VERSION", 2)
        Database(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        insert = "INSERT INTO operations (kind, video_id, payload, at) VALUES (?, ?, '{}', 1.0)"
        connection.executemany(insert, [("repath", "v"), ("remove", "w"), ("remove", "x")])
        connection.execute("DELETE FROM operations WHERE video_id = 'x'")  # done: its number was 3
        connection.commit()
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    ledger = Ledger(path, "f")
    assert ledger.operations.add("label", "v", {"model": "m"}) == 4
    told = [(each.operation_id, each.kind, each.video_id) for each in ledger.operations.pending(9)]
    assert told == [(1, "repath", "v"), (2, "remove", "w"), (4, "label", "v")]
    assert ledger.operations.is_removing("w")
    ledger.close()


def test_a_new_ledger_is_durable_at_every_commit(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.sqlite")
    pragmas = {name: database.row(f"PRAGMA {name}") for name in ("journal_mode", "synchronous", "user_version")}
    assert pragmas == {"journal_mode": ("wal",), "synchronous": (2,), "user_version": (VERSION,)}
    database.close()


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    yield ledger
    ledger.close()


def test_a_group_of_writes_is_made_whole_or_not_at_all(ledger: Ledger, tmp_path: Path) -> None:
    def write() -> None:
        ledger.files.record_file(b"/a", tmp_path.stat(), "v")
        ledger.videos.record_video("v", b"/a", REPORT)

    def write_and_fail() -> None:
        with ledger.transaction():
            write()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert ledger.files.counts() == ledger.videos.counts() == {}
    with ledger.transaction():
        write()
    assert ledger.files.counts() == {"present": 1}
    assert ledger.videos.counts() == {"partial": 1}


def test_a_group_with_a_part_that_failed_is_not_written_even_if_nobody_minds(ledger: Ledger) -> None:
    def write_and_go_on() -> None:
        with ledger.transaction():
            ledger.operations.add("remove", "v", {})
            with contextlib.suppress(ZeroDivisionError), ledger.transaction():
                raise ZeroDivisionError

    with pytest.raises(RuntimeError, match="nothing of it is written"):
        write_and_go_on()
    assert ledger.operations.count() == 0
    ledger.operations.add("remove", "v", {})
    assert ledger.operations.count() == 1


def test_a_mistake_in_a_statement_is_no_excuse(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction():
        ledger._database.write("INSERT INTO operations (kind) VALUES ('nonsense')")
    assert ledger.operations.count() == 0


# --- while it cannot be written ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def full(ledger: Ledger) -> Iterator[None]:
    (pages,) = ledger._database.row("PRAGMA page_count") or (0,)
    (limit,) = ledger._database.row("PRAGMA max_page_count") or (0,)
    ledger._database.row(f"PRAGMA max_page_count = {pages}")
    yield
    ledger._database.row(f"PRAGMA max_page_count = {limit}")


@contextlib.contextmanager
def locked(ledger: Ledger) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def no_file_may_grow(ledger: Ledger) -> Iterator[None]:
    """As a quota does: the system refuses to write beyond where the log ends now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = ledger.path.with_name(ledger.path.name + "-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BIG = {"text": "x" * 1_000_000}


def plan(ledger: Ledger) -> None:
    ledger.tasks.plan("big", [TaskSpan("frames", float(n), n + 1.0) for n in range(5000)], False)


def put_file(ledger: Ledger) -> None:
    ledger.files.record_file(b"/" + b"x" * 100_000, ledger.path.parent.stat(), "big")


WRITES: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.record_video("big", b"/big", BIG),
    lambda ledger: ledger.operations.add("record", "big", BIG),
    plan,
    put_file,
]


@pytest.mark.parametrize("trouble", [full, locked, no_file_may_grow])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_cannot_be_made_now_leaves_nothing_and_succeeds_later(
    ledger: Ledger, write: Callable[[Ledger], object], trouble: Callable[[Ledger], Any]
) -> None:
    ledger.operations.add("remove", "before", {})

    def counts() -> list[int]:
        tables = ("videos", "files", "tasks", "history", "operations")
        return [(ledger._database.row(f"SELECT count(*) FROM {table}") or (0,))[0] for table in tables]

    before = counts()
    with trouble(ledger):
        for _ in range(3):
            with pytest.raises(LedgerUnavailable, match=rf"^ledger {ledger.path}: .*; (make room|close)") as caught:
                write(ledger)
            assert (caught.value.code, caught.value.message.count("\n")) == ("ledger-unavailable", 0)
            assert counts() == before
    write(ledger)
    assert counts() > before
    assert ledger._database.row("PRAGMA integrity_check") == ("ok",)


def test_a_group_that_finds_no_room_midway_is_undone(ledger: Ledger, tmp_path: Path) -> None:
    def write() -> None:
        with ledger.transaction():
            ledger.videos.begin("small", b"/small")
            ledger.videos.record_video("big", b"/big", BIG)

    with full(ledger):
        with pytest.raises(LedgerUnavailable):
            write()
        assert ledger.videos.counts() == {}
    ledger.videos.begin("small", b"/small")
    assert ledger.videos.counts() == {"working": 1}


def test_a_ledger_that_is_locked_at_the_start_is_said_and_opened_later(tmp_path: Path) -> None:
    Ledger(tmp_path / "l.sqlite", "f").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerUnavailable, match="database is locked; close what has it open"):
            Ledger(tmp_path / "l.sqlite", "f")
    Ledger(tmp_path / "l.sqlite", "f").close()


def test_damage_that_is_met_at_work_is_said_once_and_for_all(ledger: Ledger) -> None:
    with ledger.transaction():
        for number in range(2000):
            ledger.operations.add("remove", f"{number:064}", {"n": number})
    ledger._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    again = Ledger(ledger.path, "f")
    again._database.rows("PRAGMA shrink_memory")  # the check of the start has read all pages
    content = bytearray(ledger.path.read_bytes())
    content[8 * 4096 :] = b"\xa5" * (len(content) - 8 * 4096)
    ledger.path.write_bytes(content)
    with pytest.raises(LedgerDamaged, match=r"malformed; start again: it is set aside and rebuilt") as caught:
        again.operations.pending(5000)
    assert caught.value.code == "ledger-damaged"
    again.close()
    new = Ledger(ledger.path, "f")
    assert new.rescued is not None
    assert new.operations.pending(5000) == []
    new.close()
