"""How long a daemon is without a process that was killed: `python -m benches.replacement --models DIR [--rounds N]`.

Starts a daemon on an empty directory, kills each kind of child in turn by SIGKILL, and measures, by asking for the
status, how long it takes until a successor is ready. DIR: small models as `models tiny DIR` builds them; real ones load
for longer. The daemon's back-off begins with the second death in a row, so it is set to nothing here.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.corpus import machine
from engine.client import ask
from engine.config import Config, load_config
from stages.errors import SluiceError
from transport.requests import StatusRequest

ROLES = ("decoder", "consumer", "engine")
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 300.0


def status(config: Config) -> dict[str, Any]:
    """The daemon's status; empty while it cannot be asked."""
    try:
        return ask(config, StatusRequest()) or {}
    except SluiceError:
        return {}


def ready(config: Config, role: str, other_than: int | None) -> int | None:
    """The process of the first child of that role, if it is ready and not that one."""
    for process in status(config).get("processes", []):
        if process["role"] == role:
            is_new = process["state"] == "ready" and process["pid"] != other_than
            return int(process["pid"]) if is_new else None
    return None


def wait(config: Config, role: str, other_than: int | None) -> int:
    """Wait for such a process. Raises TimeoutError."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if (pid := ready(config, role, other_than)) is not None:
            return pid
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"no {role} is ready after {PATIENCE_SECONDS:.0f} s")


def settings_in(directory: Path, models: Path) -> list[str]:
    """Of a daemon on an empty directory."""
    (directory / "watched").mkdir()
    return [
        f"models.image={models / 'tiny-clip'}", f"models.speech={models / 'tiny-whisper'}",
        f"models.voice={models / 'tiny-ecapa'}", f"store.path={directory / 'store'}",
        f"run.state={directory / 'state'}",
        f"watch.roots=['{directory / 'watched'}']", "daemon.metrics_port=0", "decode.processes=1", "device.name=cpu",
        "run.backoff_seconds=0.001", "run.backoff_max_seconds=0.001", "speech.temperatures=[0]",
    ]  # fmt: skip


def measure(config: Config, rounds: int) -> dict[str, list[float]]:
    """Seconds from the kill to a successor that is ready, for each role."""
    seconds: dict[str, list[float]] = {role: [] for role in ROLES}
    for role in ROLES * rounds:
        for other in ROLES:
            wait(config, other, None)
        pid = wait(config, role, None)
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait(config, role, pid)
        seconds[role].append(round(time.monotonic() - begin, 2))
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replacement-") as name:
        settings = settings_in(Path(name), options.models.resolve())
        command = [sys.executable, "run.py", "daemon", *(f"--set={setting}" for setting in settings)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
            try:
                seconds = measure(load_config(settings=settings), options.rounds)
            finally:
                daemon.kill()
    medians = {role: statistics.median(values) for role, values in seconds.items()}
    print(json.dumps({"machine": machine(), "seconds": seconds, "median_seconds": medians}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
