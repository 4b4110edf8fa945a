"""The daemon as a process: files come, move, change and go; it is asked, reloaded, killed, and started twice."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_config
from engine.ledger import ledger_path
from tests.daemons import Daemon, daemon, watching
from tests.media_factory import make_video
from tests.runs import run_cli, settings_for, stored_points


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "watched"
    directory.mkdir()
    return directory


@pytest.fixture
def settings(tiny_models: Any, tmp_path: Path, root: Path) -> list[str]:
    return settings_for(tiny_models, tmp_path, *watching(root, "models.speech=off", "models.voice=off"))


@pytest.fixture
def running(settings: list[str], tmp_path: Path) -> Iterator[Daemon]:
    with daemon(settings, tmp_path / "log") as process:
        yield process


def paths_found(process: Daemon) -> set[str]:
    return {hit["path"] for hit in process.search("anything")}


def test_what_becomes_of_files_becomes_of_their_points(running: Daemon, root: Path) -> None:
    first = root / "a.mp4"
    make_video(first, seconds=4)
    running.until_finished(1)
    assert paths_found(running) == {str(first)}
    assert running.status()["totals"]["time_to_searchable"]["last_seconds"] > 0

    moved = root / "deep" / "b.mp4"
    moved.parent.mkdir()
    first.rename(moved)
    running.until(lambda: paths_found(running) == {str(moved)})
    copy = root / "copy.mp4"
    shutil.copy(moved, copy)
    running.until(lambda: running.status()["totals"]["videos"]["unchanged"] == 2)
    assert running.status()["totals"]["videos"]["indexed"] == 1, "neither the move nor the copy was indexed again"

    moved.unlink()
    running.until(lambda: paths_found(running) == {str(copy)})
    shutil.move(make_video(root.parent / "other.mp4", seconds=6), copy)
    running.until_finished(2)
    running.until(lambda: len(running.search("anything")) == 6)
    assert paths_found(running) == {str(copy)}
    assert running.drain() == 0
    points = stored_points(running.settings)
    assert len({point["payload"]["video_id"] for point in points.values()}) == 1, "the old content's points are gone"


def test_points_of_deleted_files_are_removed_where_that_is_wanted_but_not_with_their_root(
    settings: list[str], root: Path, tmp_path: Path
) -> None:
    for name, seconds in (("a.mp4", 3), ("b.mp4", 4)):
        make_video(root / name, seconds=seconds)
    with daemon([*settings, "watch.on_delete=remove", "watch.scan_seconds=1"], tmp_path / "log") as process:
        process.until_finished(2)
        (root / "a.mp4").unlink()
        process.until(lambda: paths_found(process) == {str(root / "b.mp4")})
        root.rename(tmp_path / "away")
        root.mkdir()
        process.until(lambda: process.status()["roots"][0]["state"].startswith("waiting: lost"))
        root.rmdir()
        (tmp_path / "away").rename(root)
        make_video(root / "c.mp4", seconds=5)  # so that it has looked when this one is found
        process.until(lambda: str(root / "c.mp4") in paths_found(process))
        assert paths_found(process) == {str(root / "b.mp4"), str(root / "c.mp4")}
        assert process.drain() == 0


def test_a_daemon_that_is_killed_goes_on_where_it_was(settings: list[str], root: Path, tmp_path: Path) -> None:
    film = root / "film.mp4"
    make_video(film, seconds=600)
    settings = [*settings, "decode.span_seconds=2", "engine.image_batch=2", "engine.host_mb=16"]
    with daemon(settings, tmp_path / "log") as process:
        process.until(lambda: ledger_path(process.config).exists())
        until = time.monotonic() + 120
        while _tasks_done(settings) <= 2:  # without a pause: it is quick
            assert time.monotonic() < until, process.said()
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.wait()
    done = _tasks_done(settings)
    with daemon(settings, tmp_path / "log") as process:
        process.until_finished(1)
        items = process.status()["stages"]["image"]["items"]
        assert process.drain() == 0
    assert 2 < done < 300
    assert items <= 600 - 2 * done, "what was done before is not done again"
    points = stored_points(settings)
    assert len(points) == 600
    assert "status=indexed" in (tmp_path / "log").read_text()


def _tasks_done(settings: list[str]) -> int:
    with contextlib.closing(sqlite3.connect(ledger_path(load_config(settings=settings)))) as connection:
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tasks'").fetchone()
        return int(connection.execute("SELECT count(*) FROM tasks WHERE state = 'done'").fetchone()[0]) if made else 0


def test_failed_files_are_named_and_tried_again_when_asked_to(running: Daemon, root: Path) -> None:
    broken = root / "broken.mp4"
    broken.write_bytes(b"no film" * 1000)
    running.until_finished(1, "failed")
    (failure,) = running.status()["failures"]
    assert failure["path"] == str(broken)
    running.retry(broken)
    running.until_finished(2, "failed")
    make_video(broken, seconds=3)
    running.until_finished(1)


def test_a_forgotten_video_loses_its_points_and_stays_forgotten(running: Daemon, root: Path) -> None:
    film = root / "a.mp4"
    make_video(film, seconds=3)
    running.until_finished(1)
    body = running.forget(film)
    assert body is not None
    assert [video["path"] for video in body["forgotten"]] == [str(film)]
    running.until(lambda: not running.search("anything"))
    assert film.exists()


def test_a_second_daemon_says_who_has_the_store(running: Daemon, settings: list[str]) -> None:
    running.until(running.status)
    second = run_cli(["daemon"], settings)
    assert second.returncode == 4
    assert str(running.process.pid) in second.stderr
    (line,) = second.stderr.splitlines()
    assert line.startswith("sluice: already-running: ")


def test_a_daemon_without_directories_says_so(tiny_models: Any, tmp_path: Path) -> None:
    done = run_cli(["daemon"], settings_for(tiny_models, tmp_path))
    assert done.returncode == 2
    assert "watch.roots" in done.stderr


def test_a_reload_takes_over_another_directory(tiny_models: Any, tmp_path: Path, root: Path) -> None:
    late = tmp_path / "late"
    late.mkdir()
    make_video(late / "a.mp4", seconds=3)
    file = tmp_path / "daemon.toml"
    file.write_text(f"[watch]\nroots = ['{root}']\n")
    settings = [*settings_for(tiny_models, tmp_path, "models.speech=off", "models.voice=off"), *watching(root)[1:]]
    with daemon(settings, tmp_path / "log", file) as process:
        process.until(process.is_idle)
        file.write_text(f"[watch]\nroots = ['{root}', '{late}']\n[decode]\nfps = 2\n")
        process.process.send_signal(signal.SIGHUP)
        process.until_finished(1)
        assert "took over watch.roots" in process.said()
        assert "only a restart takes over decode.fps" in process.said()
        file.write_text("[watch]\nroots = 7\n")
        process.process.send_signal(signal.SIGHUP)
        process.until(lambda: "nothing was changed" in process.said())
        assert process.drain() == 0


def test_metrics_tell_what_status_tells(settings: list[str], root: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make_video(root / "a.mp4", seconds=3)
    settings = [*settings, f"daemon.metrics_port={port}"]
    with daemon(settings, tmp_path / "log") as process:
        process.until_finished(1)

        def page() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())

        process.until(lambda: 'sluice_videos_total{status="indexed"} 1.0' in page())
        process.until(lambda: "sluice_points_total 3.0" in page())  # the consumer counts them once a second
        assert 'sluice_state{state="idle"} 1.0' in page()


def test_a_lost_ledger_is_rebuilt_from_the_store(settings: list[str], root: Path, tmp_path: Path) -> None:
    make_video(root / "a.mp4", seconds=3)
    with daemon(settings, tmp_path / "log") as process:
        process.until_finished(1)
        assert process.drain() == 0
    ledger = ledger_path(load_config(settings=settings))
    ledger.write_bytes(b"this is no database, however long it is" * 100)
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    with daemon(settings, tmp_path / "log") as process:
        process.until_finished(1, "unchanged")
        assert process.status()["totals"]["videos"]["indexed"] == 0, "nothing was indexed again"
        assert process.drain() == 0
    assert "1 finished videos were entered from the store" in (tmp_path / "log").read_text()
    assert len(stored_points(settings)) == 3
