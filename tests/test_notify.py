"""What the service manager is told, read from a real socket."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import notify

CALLS: dict[str, Callable[[], bool]] = {
    "READY=1": notify.ready,
    "RELOADING=1\nMONOTONIC_USEC=1234": lambda: notify.reloading(lambda: 1_234_999),
    "STOPPING=1": notify.stopping,
    "STATUS=idle, 3 videos indexed": lambda: notify.status("idle,\n3 videos\tindexed"),
    "WATCHDOG=1": notify.watchdog,
}


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if request.param == "path":
            listener.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            listener.bind(f"\0sluice-test-{os.getpid()}")
            monkeypatch.setenv("NOTIFY_SOCKET", f"@sluice-test-{os.getpid()}")
        listener.settimeout(10.0)
        yield listener


@pytest.mark.parametrize("message", CALLS)
def test_the_manager_is_told(manager: socket.socket, message: str) -> None:
    assert CALLS[message]()
    assert manager.recv(4096).decode() == message


def test_the_time_of_a_reload_is_that_of_the_system(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    notify.reloading()
    _, line = manager.recv(4096).decode().split("\n")
    assert before <= int(line.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("message", CALLS)
def test_without_a_manager_nothing_is_done(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *arguments: pytest.fail("a socket was made"))
    assert not CALLS[message]()


def test_a_manager_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify.ready()


def test_a_manager_that_does_not_read_stops_nothing(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is finite: what does not fit after a moment is lost."""
    monkeypatch.setattr(notify, "PATIENCE_SECONDS", 0.1)
    sent = 0
    while notify.watchdog():
        sent += 1
        assert sent < 100_000
    assert sent > 0


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], seconds: float | None
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(os.getpid()) if value == "me" else value)
    assert notify.watchdog_seconds() == seconds
