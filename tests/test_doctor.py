"""What doctor says of all that the daemon needs. Of the device it is told in test_real_devices."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import doctor
from engine.config import Config, DaemonOptions, DeviceOptions, RunOptions, WatchOptions, WatchRoot
from engine.doctor import Finding, examine
from engine.ledger import ledger_path
from engine.locks import hold
from engine.presence import announce
from stages.options import DecodeOptions, ModelOptions, StoreOptions
from stages.store_directory import StoreDirectory


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Why decoders cannot be cut off, in a list to change."""
    answer: list[str | None] = [None]
    monkeypatch.setattr(doctor, "network_refusal", lambda: answer[0])
    return answer


@pytest.fixture
def port() -> int:
    """A port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path, port: int) -> Config:
    """Nothing to load, and everything below tmp_path."""
    return Config(
        models=ModelOptions(image="off", speech="off", text="off", voice="off"),
        device=DeviceOptions(name="cpu"),
        store=StoreOptions(path=str(tmp_path / "store")),
        run=RunOptions(directory=str(tmp_path), state=str(tmp_path / "state")),
        daemon=DaemonOptions(metrics_port=port),
    )


def found(config: Config, **sections: Any) -> dict[str, Finding]:
    """The findings by what they are about."""
    findings = examine(msgspec.structs.replace(config, **sections))
    assert len({finding.what for finding in findings}) == len(findings)
    assert all("\n" not in finding.detail for finding in findings)
    return {finding.what: finding for finding in findings}


def test_a_sound_machine(config: Config, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    findings = found(config, watch=WatchOptions(roots=(str(tmp_path / "videos"),)))
    assert findings["decoders' network"] == Finding("decoders' network", "ok", "cut off")
    assert findings["decoders' memory"].state == "ok"
    assert findings[f"watched {tmp_path}/videos"].state == "ok"
    assert findings["inotify"].detail.startswith("1 directories of ")
    assert findings["daemon"] == Finding("daemon", "ok", "none runs here")
    assert findings["metrics"].detail.endswith("is free")
    assert not (tmp_path / "state").exists()  # it looks, and makes nothing


# --- decoders ---------------------------------------------------------------------------------------------------------


def test_decoders_that_keep_the_network_are_told(config: Config, network: list[str | None]) -> None:
    refusal = "decoders keep the network: unshare is not allowed here (Operation not permitted)"
    network[0] = refusal
    assert found(config)["decoders' network"] == Finding("decoders' network", "warning", refusal)
    allowed = found(config, decode=DecodeOptions(network="allow"))["decoders' network"]
    assert (allowed.state, allowed.detail[:24]) == ("warning", 'decode.network = "allow"')


@pytest.mark.parametrize(("memory_gb", "state"), [(16.0, "ok"), (5.0, "ok"), (4.5, "warning"), (None, "warning")])
def test_too_little_memory_for_a_decoder_is_told(config: Config, memory_gb: float | None, state: str) -> None:
    finding = found(config, decode=DecodeOptions(memory_gb=memory_gb))["decoders' memory"]
    assert finding.state == state
    assert state == "ok" or "decode.memory_gb" in finding.detail


# --- watched directories ----------------------------------------------------------------------------------------------


def test_without_roots_nothing_is_looked_for(config: Config) -> None:
    findings = found(config)
    assert findings["watched directories"].state == "ok"
    assert "inotify" not in findings


def test_each_root_is_looked_at(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("local", "mount", "slow", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(doctor, "is_network", lambda path: path.endswith(b"mount"))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("secret") and access(path, mode))
    names = ("local", "mount", "secret", "file", "absent\x1b")
    roots: tuple[str | WatchRoot, ...] = (
        *(str(tmp_path / name) for name in names),
        WatchRoot(str(tmp_path / "slow"), poll="always"),
    )
    findings = found(config, watch=WatchOptions(roots=roots))
    of = {name: findings[f"watched {tmp_path}/{name}"] for name in ("local", "mount", "secret", "file", "slow")}
    assert {name: finding.state for name, finding in of.items()} == {
        "local": "ok", "mount": "ok", "secret": "problem", "file": "problem", "slow": "ok",
    }  # fmt: skip
    assert of["mount"].detail == "on a network mount: scanned every 30 s (watch.poll_seconds)"
    assert of["slow"].detail.startswith('poll = "always"')
    absent = findings[f"watched {tmp_path}/absent\\x1b"]
    assert absent.state == "warning"
    assert "waits for it" in absent.detail
    assert findings["inotify"].detail.startswith("2 directories")  # of those that are not polled: local and secret


def test_roots_that_cannot_be_are_told(config: Config) -> None:
    finding = found(config, watch=WatchOptions(roots=("/video", "/video")))["watched directories"]
    assert finding.state == "problem"
    assert "twice" in finding.detail


@pytest.fixture
def many(tmp_path: Path) -> WatchOptions:
    """Twelve directories."""
    for number in range(10):
        (tmp_path / "many" / "below" / str(number)).mkdir(parents=True)
    return WatchOptions(roots=(str(tmp_path / "many"),))


def test_more_directories_than_the_system_lets_be_watched(
    config: Config, many: WatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "limit"
    monkeypatch.setattr(doctor, "MAX_WATCHES", limit)
    limit.write_text("12\n")
    assert found(config, watch=many)["inotify"] == Finding("inotify", "ok", "12 directories of 12 allowed")
    limit.write_text("11\n")
    finding = found(config, watch=many)["inotify"]
    assert finding.state == "warning"
    assert finding.detail.startswith("more than 11 directories")
    assert "fs.inotify.max_user_watches" in finding.detail


def test_counting_directories_comes_to_an_end(
    config: Config, many: WatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "COUNT_SECONDS", -1.0)
    assert found(config, watch=many)["inotify"].detail.startswith("1 directories counted in ")


# --- what only one can have -------------------------------------------------------------------------------------------


@pytest.fixture
def running(config: Config) -> Iterator[None]:
    """A daemon, which is this process."""
    with announce(config, "ipc:///nowhere"):
        yield


@pytest.mark.usefixtures("running")
def test_a_daemon_that_runs_is_no_problem(config: Config) -> None:
    """It holds its store and its port."""
    store = StoreDirectory(Path(config.store.path), read_only=False)
    try:
        with socket.create_server(("127.0.0.1", config.daemon.metrics_port)):
            findings = found(config)
    finally:
        store.close()
    assert findings["daemon"].detail.startswith(f"runs: process {os.getpid()} (")
    assert findings["store"] == Finding(
        "store", "ok", f"{config.store.path}: open in the daemon, process {os.getpid()}"
    )
    assert findings["metrics"].state == "ok"
    assert "while a daemon runs" in findings["metrics"].detail


def test_a_store_that_another_holds_is_a_problem(config: Config) -> None:
    store = StoreDirectory(Path(config.store.path), read_only=False)
    try:
        finding = found(config)["store"]
    finally:
        store.close()
    assert finding.state == "problem"
    assert str(os.getpid()) in finding.detail


def test_who_holds_the_ledger_is_named(config: Config) -> None:
    path = ledger_path(config)
    path.parent.mkdir()
    with hold(path.with_name(f"{path.name}.lock"), "ledger"):
        finding = found(config)["daemon"]
    assert finding.state == "warning"
    assert f"the ledger is held by process {os.getpid()}" in finding.detail


def test_a_daemon_of_another_store_holds_the_state(config: Config, tmp_path: Path) -> None:
    with announce(config, "ipc:///nowhere"):
        finding = found(config, store=StoreOptions(path=str(tmp_path / "another")))["daemon"]
    assert finding.state == "warning"
    assert f"run.state is held by process {os.getpid()}" in finding.detail


def test_a_port_that_is_taken_is_told(config: Config) -> None:
    with socket.create_server(("127.0.0.1", config.daemon.metrics_port)):
        finding = found(config)["metrics"]
    assert finding.state == "warning"
    assert "daemon.metrics_port" in finding.detail
    assert found(config, daemon=DaemonOptions(metrics_port=0))["metrics"].state == "ok"


def test_disks_without_room_for_the_spool_are_told(config: Config, tmp_path: Path) -> None:
    large = StoreOptions(path=str(tmp_path / "store"), spool_mb=10**9)
    finding = found(config, store=large)["disk for run.state"]
    assert finding.state == "warning"
    assert "store.spool_mb" in finding.detail
    assert "disk for the store" not in found(config, store=StoreOptions(url="http://127.0.0.1:1"))
