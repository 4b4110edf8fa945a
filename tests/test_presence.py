"""How a daemon is found, and that there is one at a time."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from engine.config import Config, load_config
from engine.errors import StartError
from engine.presence import announce, find


def config_for(tmp_path: Path, *more: str) -> Config:
    return load_config(settings=[f"run.state={tmp_path / 'state'}", f"store.path={tmp_path / 'store'}", *more])


def hold(settings: list[str], ready: Connection) -> None:
    """Another process that is a daemon until it is killed."""
    with announce(load_config(settings=settings), "ipc:///nowhere/desk.ipc"):
        ready.send(True)
        signal.pause()


class Other:
    """A process that announces itself."""

    def __init__(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        settings = [f"run.state={tmp_path / 'state'}", f"store.path={tmp_path / 'store'}"]
        self.process = context.Process(target=hold, args=(settings, there), daemon=True)
        self.process.start()
        there.close()
        assert here.poll(60)
        here.recv()
        here.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def test_nobody_is_found_where_nobody_ever_was(tmp_path: Path) -> None:
    assert find(config_for(tmp_path)) is None
    assert not (tmp_path / "state").exists(), "looking makes nothing"


def test_a_daemon_is_found_while_it_lives_and_no_longer(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    with announce(config, "ipc:///run/desk.ipc") as presence:
        assert find(config) == presence
        assert (presence.endpoint, presence.pid) == ("ipc:///run/desk.ipc", os.getpid())
    assert find(config) is None


def test_a_store_is_the_same_by_any_spelling_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with announce(config_for(tmp_path), "ipc:///run/desk.ipc"):
        assert find(config_for(tmp_path, "store.path=../store")) is not None
        assert find(config_for(tmp_path, f"store.path={tmp_path / 'link'}")) is not None
        assert find(config_for(tmp_path, "store.path=store")) is None


def test_a_daemon_of_another_store_is_not_ours(tmp_path: Path) -> None:
    with announce(config_for(tmp_path), "ipc:///run/desk.ipc"):
        assert find(config_for(tmp_path, "store.prefix=other")) is None
        assert find(config_for(tmp_path, "store.url=http://127.0.0.1:6333")) is None
    with announce(config_for(tmp_path, "store.url=http://127.0.0.1:6333/"), "ipc:///run/desk.ipc"):
        assert find(config_for(tmp_path, "store.url=http://127.0.0.1:6333")) is not None


def test_a_second_daemon_is_told_who_holds_the_state(tmp_path: Path) -> None:
    other = Other(tmp_path)
    try:
        with pytest.raises(StartError) as caught, announce(config_for(tmp_path), "ipc:///run/desk.ipc"):
            raise AssertionError("two daemons at once")
        assert caught.value.code == "already-running"
        assert f"process {other.process.pid}" in caught.value.message
        assert "run.state" in caught.value.message
        found = find(config_for(tmp_path))
        assert found is not None
        assert found.pid == other.process.pid, "and the first one is still known"
    finally:
        other.kill()


def test_what_a_killed_daemon_left_is_ignored_and_replaced(tmp_path: Path) -> None:
    other = Other(tmp_path)
    other.kill()
    config = config_for(tmp_path)
    assert (tmp_path / "state" / "daemon.json").exists()
    assert find(config) is None
    with announce(config, "ipc:///run/desk.ipc") as presence:
        assert find(config) == presence


def test_commands_that_look_do_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    import fcntl
    import threading

    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "daemon.lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with announce(config_for(tmp_path), "ipc:///run/desk.ipc") as presence:
            assert find(config_for(tmp_path)) == presence


@pytest.mark.parametrize("left", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_card_means_nobody(tmp_path: Path, left: bytes) -> None:
    config = config_for(tmp_path)
    with announce(config, "ipc:///run/desk.ipc"):
        (tmp_path / "state" / "daemon.json").write_bytes(left)
        assert find(config) is None


def test_a_state_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StartError, match=r"run\.state") as caught, announce(config_for(tmp_path), "ipc:///run/x.ipc"):
        raise AssertionError("announced")
    assert caught.value.code == "run-state"


def test_the_card_is_for_its_owner_alone(tmp_path: Path) -> None:
    with announce(config_for(tmp_path), "ipc:///run/desk.ipc"):
        assert (tmp_path / "state" / "daemon.json").stat().st_mode & 0o077 == 0
