"""What stands in configs/ to run the daemon as a service: its parts agree with each other, and with the program."""

import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.cli import _parser
from engine.config import Config, load_config
from engine.errors import ExitCode
from tests.pins import constraints

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "configs" / "sluice.service"
COMPOSE = ROOT / "configs" / "compose.yaml"


def unit() -> dict[str, dict[str, list[str]]]:
    """Sections of the unit: every value of every key."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), defaultdict(list))
        elif line and not line.startswith("#"):
            key, separator, value = line.partition("=")
            assert separator, line
            section[key].append(value)
    return sections


def service(key: str) -> str:
    """The one value of a key of [Service]."""
    (value,) = unit()["Service"][key]
    return value


@pytest.fixture
def config() -> Config:
    """The example configuration."""
    return load_config(ROOT / "configs" / "daemon.toml")


# --- the unit ---------------------------------------------------------------------------------------------------------


def test_the_unit_starts_the_daemon_with_the_example_configuration() -> None:
    python, program, *arguments = shlex.split(service("ExecStart"))
    assert Path(python).name == "python"
    assert (ROOT / Path(program).name).exists()
    options = _parser().parse_args(arguments)
    assert options.command.__name__ == "_daemon"
    assert options.config == Path("/etc/sluice/daemon.toml")


def test_the_daemon_writes_only_where_the_unit_lets_it(config: Config) -> None:
    assert service("ProtectSystem") == "strict"
    run, state = Path("/run") / service("RuntimeDirectory"), Path("/var/lib") / service("StateDirectory")
    assert Path(service("WorkingDirectory")) == state
    assert config.run.directory == str(run)
    written = [config.run.state, config.models.directory, Config().store.path, Config().run.state]
    assert all(state in (state / path).parents for path in written)


def test_the_videos_are_only_read(config: Config) -> None:
    assert [f"-{root}" for root in config.watch.roots] == unit()["Service"]["ReadOnlyPaths"]


def test_decoders_may_do_what_confines_them() -> None:
    """Namespaces of users and of the network, and the system call that makes them."""
    assert service("RestrictNamespaces").split() == ["user", "net"]
    assert service("SystemCallFilter") == "@system-service"  # with @process, which holds unshare: systemd.exec(5)
    assert service("NoNewPrivileges") == "yes"
    assert "PrivateUsers" not in unit()["Service"]
    assert "ProcSubset" not in unit()["Service"]  # NVML and the driver's version are read from /proc/driver


def test_only_the_supervisor_is_told_to_stop_and_has_time_to_drain(config: Config) -> None:
    assert service("KillMode") == "mixed"
    assert minutes("TimeoutStopSec") * 60 > 2 * config.decode.span_seconds + config.run.stall_seconds
    assert minutes("TimeoutStartSec") * 60 > config.run.start_timeout_seconds
    assert minutes("WatchdogSec") * 60 > config.store.timeout_seconds
    assert service("ExecReload") == "/bin/kill -HUP $MAINPID"


def minutes(key: str) -> int:
    value = service(key)
    assert value.endswith("min")
    return int(value.removesuffix("min"))


def test_exit_codes_mean_to_systemd_what_they_mean_to_us() -> None:
    assert int(service("RestartPreventExitStatus")) == ExitCode.USAGE
    assert int(service("SuccessExitStatus")) == ExitCode.INTERRUPTED
    assert service("Restart") == "on-failure"


def test_every_hardening_that_is_left_out_is_explained() -> None:
    text = UNIT.read_text("utf-8")
    assert "MemoryDenyWriteExecute" not in unit()["Service"]
    assert "# Not MemoryDenyWriteExecute: " in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """It says so of every key that it does not know and of every value that it does not understand."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8").replace("/opt/sluice/.venv/bin/python", sys.executable)
    copy.write_text(text.replace("/opt/sluice", str(ROOT)), "utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


# --- the example configuration ----------------------------------------------------------------------------------------


def test_the_example_has_the_models_and_batches_of_its_card(config: Config) -> None:
    profile = load_config(ROOT / "configs" / "gpu-24gb.toml")
    for role in ("image", "speech", "text", "voice", "image_dtype", "speech_dtype", "text_dtype"):
        assert getattr(config.models, role) == getattr(profile.models, role)
    assert config.device == profile.device
    assert config.engine == profile.engine


def test_the_example_watches_something_and_logs_for_machines(config: Config) -> None:
    assert config.watch.roots
    assert config.daemon.log_format == "json"
    assert config.daemon.metrics_port == Config().daemon.metrics_port


# --- Qdrant -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def qdrant() -> dict[str, Any]:
    """The one service of the compose file."""
    content = yaml.safe_load(COMPOSE.read_text("utf-8"))
    assert set(content) == {"name", "services", "volumes"}
    assert set(content["services"]) == {"qdrant"}
    assert set(content["volumes"]) == {"qdrant"}
    return dict(content["services"]["qdrant"])


def test_qdrant_is_of_the_version_of_its_client(qdrant: dict[str, Any]) -> None:
    """Client and server may be one minor version apart at most."""
    name, _, tag = qdrant["image"].partition(":v")
    assert name == "qdrant/qdrant"
    assert tag.split(".")[:2] == constraints()["qdrant-client"].split(".")[:2]


def test_qdrant_listens_where_the_daemon_asks_and_nowhere_else(qdrant: dict[str, Any], config: Config) -> None:
    (published,) = qdrant["ports"]
    address, outside, inside = published.split(":")
    assert (address, inside) == ("127.0.0.1", "6333")
    assert config.store.url == f"http://{address}:{outside}"


def test_qdrant_keeps_its_points_in_a_volume_and_asks_for_the_same_key(qdrant: dict[str, Any], config: Config) -> None:
    assert qdrant["volumes"] == ["qdrant:/qdrant/storage"]
    assert qdrant["restart"] == "unless-stopped"
    key = qdrant["environment"]["QDRANT__SERVICE__API_KEY"]
    assert key.startswith(f"${{{config.store.api_key_env}:?")
    assert service("EnvironmentFile") == "-/etc/sluice/environment"
    assert "--env-file /etc/sluice/environment" in COMPOSE.read_text("utf-8")
