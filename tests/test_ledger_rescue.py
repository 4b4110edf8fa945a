"""A damaged ledger is kept and begun anew; a killed writer damages nothing."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import failpoints
from engine.errors import StartError
from engine.ledger import Ledger
from engine.ledger_reader import LedgerReader
from engine.ledger_rescue import GROUP, rebuild, set_aside
from engine.ledger_schema import Database, suspect_mark

ROOT = Path(__file__).parents[1]


def filled(path: Path, count: int = 2000) -> None:
    ledger = Ledger(path, "f")
    with ledger.transaction():
        for number in range(count):
            ledger.record_video(f"{number:064}", b"/%d" % number, {"status": "indexed"})
    ledger.close()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)


def torn(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(random.Random(1).randbytes(4096 * 10))


def header_of_noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(20)
        file.write(b"\xff" * 60)


@pytest.mark.parametrize("damage", [garbage, torn, scribbled, header_of_noise])
def test_a_damaged_ledger_is_kept_aside_and_a_new_one_begun(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "l.sqlite"
    filled(path)
    damage(path)
    before = path.read_bytes()
    ledger = Ledger(path, "f")
    assert ledger.rescued is not None
    assert ledger.rescued.count("\n") == 0
    named = re.search(r"l\.sqlite\.damaged-\d{8}T\d{6}Z", ledger.rescued)
    assert named is not None
    assert (tmp_path / named[0]).read_bytes() == before
    assert ledger.videos.counts() == {}
    ledger.record_video("v", b"/v", {"status": "indexed"})
    ledger.close()
    again = Ledger(path, "f")
    assert again.rescued is None
    assert again.known_video("v") == {"status": "indexed"}
    again.close()


def test_its_log_goes_along(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_text(f"it{suffix}")
    suspect_mark(path).touch()
    aside = set_aside(path)
    assert {file.name for file in tmp_path.iterdir()} == {aside.name, f"{aside.name}-wal", f"{aside.name}-shm"}
    path.touch()
    assert set_aside(path) != aside  # in the same second


def test_a_log_that_a_crash_left_behind_is_not_taken_into_the_new_ledger(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    database = Database(path)
    with database.transaction():
        database.write("INSERT INTO operations (kind, video_id, payload, at) VALUES ('remove', 'v', '{}', 0)")
    log = path.with_name("l.sqlite-wal").read_bytes()
    database.close()
    path.unlink()
    path.with_name("l.sqlite-wal").write_bytes(log)
    assert log
    ledger = Ledger(path, "f")
    assert ledger.operations.count() == 0
    assert ledger._database.row("PRAGMA integrity_check") == ("ok",)
    ledger.close()


def test_a_ledger_that_cannot_be_set_aside_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    garbage(tmp_path / "l.sqlite")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StartError, match=r"cannot be renamed: .*Permission denied; move it away"):
        Ledger(tmp_path / "l.sqlite", "f")


def test_after_damage_at_work_the_next_start_looks_at_every_index_too(tmp_path: Path) -> None:
    """Rows that no index leads to: the check of every start does not see that, the thorough one does."""
    path = tmp_path / "l.sqlite"
    filled(path, 10)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'videos_by_state'").fetchone()
    connection.execute("DELETE FROM sqlite_master WHERE name = 'videos_by_state'")
    connection.commit()
    connection.close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM videos WHERE path = x'2f33'")
    connection.execute("PRAGMA writable_schema = ON")
    root = ("index", "videos_by_state", "videos", _root_of(path), sql)
    connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", root)
    connection.commit()
    connection.close()
    ledger = Ledger(path, "f")
    assert ledger.rescued is None
    ledger.close()
    suspect_mark(path).touch()
    ledger = Ledger(path, "f")
    assert ledger.rescued is not None
    assert not suspect_mark(path).exists()
    ledger.close()


def _root_of(path: Path) -> int:
    """The page that no table or index of the schema uses: where the index was that was taken out of it."""
    connection = sqlite3.connect(path)
    used = {row[0] for row in connection.execute("SELECT rootpage FROM sqlite_master")}
    connection.close()
    return next(page for page in range(2, 100) if page not in used)


def test_a_suspicion_that_is_not_confirmed_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    filled(path, 10)
    suspect_mark(path).touch()
    ledger = Ledger(path, "f")
    assert ledger.rescued is None
    assert not suspect_mark(path).exists()
    ledger.close()


def test_what_the_store_remembers_is_entered_once_and_overwrites_nothing(tmp_path: Path) -> None:
    report = {"status": "indexed", "error": None, "points": 7}
    remembered = [(f"v{n}", "f", f"/v{n}", json.dumps(report)) for n in range(GROUP + 5)]
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    ledger.videos.begin("v0", b"/v0")
    unreadable = [("x", "f", "/x", "{"), ("y", "f", "/y", "[]"), ("z", "f", "/z", '{"status": "failed"}')]
    assert rebuild(ledger, [*unreadable, *remembered]) == GROUP + 4
    assert rebuild(ledger, remembered) == 0
    assert ledger.videos.counts() == {"indexed": GROUP + 4, "working": 1}
    assert ledger.known_video("v1") == report
    (row,) = ledger.videos.find("/v1")
    assert (row.path, row.fingerprint) == (b"/v1", "f")
    ledger.close()


# --- killed at any moment ---------------------------------------------------------------------------------------------

WRITER = """
import sys, os
from pathlib import Path
from engine.ledger import Ledger
from engine.ledger_tasks import TaskSpan
ledger = Ledger(Path(sys.argv[1]), "f")
assert ledger.rescued is None
first = int(sys.argv[2])
stat = Path(sys.argv[1]).parent.stat()
for number in range(first, first + 100_000):
    with ledger.transaction():
        ledger.files.record_file(b"/%d" % number, stat, f"v{number}")
        ledger.videos.record_video(f"v{number}", b"/%d" % number, {"status": "indexed", "text": "x" * (number % 3000)})
        ledger.operations.add("record", f"v{number}", {})
    task = ledger.tasks.plan(f"v{number}", [TaskSpan("frames", 0.0, None)], False)[0]
    os.write(1, b"%d %d\\n" % (number, task.task_id))
"""


def start_writer(path: Path, first: int, **variables: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), str(first)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, **variables})


def reported(output: bytes) -> dict[int, int]:
    """Number and task id of every line that is whole."""
    return {int(line.split()[0]): int(line.split()[1]) for line in output.splitlines(True) if line.endswith(b"\n")}


def test_whatever_was_reported_as_written_is_there_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    done: dict[int, int] = {}
    dice = random.Random(20)
    for turn in range(20):
        with start_writer(path, turn * 100_000) as writer:
            assert writer.stdout is not None
            head = writer.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.08))
            writer.send_signal(signal.SIGKILL)
            done |= reported(head + writer.stdout.read())
    reader = LedgerReader(path)  # reads what the last one left, without a writer
    assert reader.videos.counts()["indexed"] >= len(done) >= 20
    reader.close()
    database = Database(path)
    assert database.row("PRAGMA integrity_check") == ("ok",)
    ids = database.counts("SELECT video_id, id FROM tasks")
    assert {f"v{number}": task_id for number, task_id in done.items()}.items() <= ids.items()
    together = [
        database.rows(f"SELECT video_id FROM {table} ORDER BY 1") for table in ("files", "videos", "operations")
    ]
    assert together[0] == together[1] == together[2]
    assert {(f"v{number}",) for number in done} <= set(together[0])
    database.close()


@pytest.mark.parametrize(("place", "is_there"), [(failpoints.BEFORE_COMMIT, False), (failpoints.AFTER_COMMIT, True)])
def test_a_commit_counts_from_the_moment_that_it_is_made(tmp_path: Path, place: str, is_there: bool) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path, "f").close()
    with start_writer(path, 0, **{failpoints.VARIABLE: f"{place}:3:{tmp_path / 'done'}"}) as writer:
        assert writer.wait() == -signal.SIGKILL
    ledger = Ledger(path, "f")
    assert (ledger.videos.find("/1") != []) == is_there  # the first made two transactions
    ledger.close()


def test_the_names_of_the_damaged_do_not_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.ledger_rescue.time.strftime", lambda *_: "20260101T000000Z")
    names = []
    for _ in range(3):
        (tmp_path / "l.sqlite").touch()
        names.append(set_aside(tmp_path / "l.sqlite").name)
    assert names == [f"l.sqlite.damaged-20260101T000000Z{suffix}" for suffix in ("", "-1", "-2")]
