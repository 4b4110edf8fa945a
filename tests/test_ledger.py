"""The ledger: what is known, for which settings, and what is said when it cannot be opened."""

import os
import sqlite3
from pathlib import Path

import pytest

from engine.config import Config, load_config
from engine.errors import StartError
from engine.ledger import Ledger, fingerprint, ledger_path

LABELS = ["image a@1", "text b@1"]


def test_a_video_is_known_for_the_same_settings_only(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "settings-1")
    ledger.record_video("v1", b"/a\xff.mp4", {"points": 3})
    assert ledger.known_video("v1") == {"points": 3}
    assert ledger.known_video("v2") is None
    ledger.close()
    other = Ledger(tmp_path / "l.sqlite", "settings-2")
    assert other.known_video("v1") is None
    other.close()


def test_a_file_is_known_until_it_changes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    ledger.record_file(bytes(file), file.stat(), "v1")
    assert ledger.known_file(bytes(file), file.stat()) == "v1"
    file.write_bytes(b"other")
    assert ledger.known_file(bytes(file), file.stat()) is None
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    assert ledger.known_file(bytes(file), file.stat()) is None
    ledger.close()


def test_what_decides_the_points_is_in_the_fingerprint_and_speed_is_not() -> None:
    base = fingerprint(Config(), LABELS)
    assert fingerprint(Config(), list(reversed(LABELS))) == base
    assert fingerprint(load_config(settings=["decode.processes=7", "decode.span_seconds=9"]), LABELS) == base
    assert fingerprint(load_config(settings=["decode.fps=2"]), LABELS) != base
    assert fingerprint(load_config(settings=["speech.captions=ignore"]), LABELS) != base
    assert fingerprint(Config(), ["image a@2", "text b@1"]) != base


def test_a_server_has_a_ledger_of_its_own() -> None:
    one = ledger_path(load_config(settings=["store.url=http://a:6333"]))
    two = ledger_path(load_config(settings=["store.url=http://b:6333"]))
    embedded = ledger_path(load_config(settings=["store.path=somewhere"]))
    assert len({one, two, embedded}) == 3
    assert embedded == Path("somewhere/ledger.sqlite")


def test_a_damaged_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(StartError, match=r"l\.sqlite.*not a database.*move it away"):
        Ledger(tmp_path / "l.sqlite", "f")


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StartError, match="newer than this program"):
        Ledger(tmp_path / "l.sqlite", "f")


def test_a_ledger_that_cannot_be_written_any_more_is_said_in_one_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "f")
    ledger._connection.execute("PRAGMA max_page_count = 1")
    long = {"text": "x" * 1_000_000}
    with pytest.raises(StartError, match=r"l\.sqlite.*full.*make room"):
        ledger.record_video("v", b"a", long)
    ledger.close()
