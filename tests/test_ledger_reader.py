"""Looking into the ledger from another thread or process, while it is written and when nobody has it."""

import sqlite3
import threading
from pathlib import Path

import pytest

from engine.errors import StartError
from engine.ledger import Ledger
from engine.ledger_reader import LedgerReader, Mark
from engine.ledger_schema import LedgerUnavailable
from engine.ledger_tasks import TaskSpan


def test_a_reader_sees_what_is_written_beside_it_and_nothing_unfinished(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    reader = LedgerReader(tmp_path / "l.sqlite")
    stat = tmp_path.stat()
    with ledger.transaction():
        ledger.files.record_file(b"/r/a", stat, "v")
        assert reader.mark(b"/r/a") is None
    marks = (stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev)
    assert reader.mark(b"/r/a") == Mark(*marks, "present")
    assert list(reader.paths_below(b"/r")) == [(b"/r/a", stat.st_dev)]
    ledger.files.fail_file(b"/r/a", stat, "v", "a", "b")
    assert reader.mark(b"/r/a") == Mark(*marks, "failed")
    ledger.close()
    assert reader.mark(b"/r/a") == Mark(*marks, "failed")
    reader.close()


def test_a_reader_may_be_used_by_another_thread(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    ledger.files.record_file(b"/r/a", tmp_path.stat(), "v")
    reader = LedgerReader(tmp_path / "l.sqlite")
    seen: list[tuple[bytes, int]] = []
    thread = threading.Thread(target=lambda: seen.extend(reader.paths_below(b"/r")))
    thread.start()
    thread.join()
    assert [path for path, _ in seen] == [b"/r/a"]
    reader.close()
    ledger.close()


def test_a_page_that_is_read_while_files_come_and_go_gives_none_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    reader = LedgerReader(tmp_path / "l.sqlite")
    with ledger.transaction():
        for number in range(10, 50):
            ledger.files.record_file(b"/r/%d" % number, tmp_path.stat(), "v")
    seen = []
    for row in reader.files.below(b"/r", page=7):
        seen.append(row.path)
        ledger.files.mark_moved(row.path, b"/r/0" + row.path[3:])
    assert seen == [b"/r/%d" % number for number in range(10, 50)]
    reader.close()
    ledger.close()


def test_what_status_shows_is_there_when_no_daemon_runs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    ledger.videos.begin("v", b"/v")
    ledger.tasks.plan("v", [TaskSpan("audio", 0.0, 1.0), TaskSpan("frames", 0.0, None)], False)
    ledger.files.fail_file(b"/w", tmp_path.stat(), None, "empty-file", "it is empty")
    ledger.operations.add("remove", "x", {})
    ledger.close()
    reader = LedgerReader(tmp_path / "l.sqlite")
    assert reader.videos.counts() == {"working": 1}
    assert reader.task_counts() == {"open": 2}
    assert reader.files.counts() == {"failed": 1}
    assert [row.error for row in reader.files.failed(5)] == [("empty-file", "it is empty")]
    assert reader.operations.count() == 1
    reader.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Ledger(tmp_path / "l.sqlite", "f").close()
    reader = LedgerReader(tmp_path / "l.sqlite")
    with pytest.raises(LedgerUnavailable, match="readonly"):
        reader._database.rows("DELETE FROM files")
    reader.close()


def test_a_ledger_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"there is no ledger .*l\.sqlite: nothing was indexed"):
        LedgerReader(tmp_path / "l.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_a_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=str(tmp_path)):
        LedgerReader(tmp_path)


@pytest.mark.parametrize(("version", "said"), [(1, "older than this program"), (99, "newer than this program")])
def test_a_reader_says_that_a_ledger_is_of_another_version(tmp_path: Path, version: int, said: str) -> None:
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(StartError, match=said):
        LedgerReader(tmp_path / "l.sqlite")
