"""Whole runs for tests: the command line as a subprocess, and a supervisor in this process whose children are real."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.config import Config, load_config
from engine.files import find_files
from engine.report import Peaks
from engine.supervisor import Supervisor
from engine.tasks import Board
from transport.messages import TaskKey

ROOT = Path(__file__).parents[1]


def settings_for(models: Any, tmp_path: Path, *more: str) -> list[str]:
    """Settings of an offline run with tiny models and everything it writes below tmp_path."""
    return [
        f"models.image={models['clip']}",
        f"models.speech={models['whisper']}",
        f"models.voice={models['ecapa']}",
        f"store.path={tmp_path / 'store'}",
        f"run.state={tmp_path / 'state'}",
        "speech.temperatures=[0]",  # untrained, it finds all its text improbable: decoded again, each run had its own
        "decode.processes=1",
        "device.name=cpu",
        *more,
    ]


def command(arguments: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    """The command line of run.py with settings."""
    return [sys.executable, str(ROOT / "run.py"), *arguments, *(f"--set={setting}" for setting in settings)]


def run_cli(arguments: Sequence[str], settings: Sequence[str] = (), **more: Any) -> subprocess.CompletedProcess[str]:
    """Run run.py to its end."""
    return subprocess.run(
        command(arguments, settings), capture_output=True, text=True, timeout=150, cwd=ROOT, check=False, **more
    )


def stored_points(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every point of the store, by id, through `points`."""
    done = run_cli(["points", "--vectors"], settings)
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({point["id"] for point in points}) == len(points)
    return {point["id"]: point for point in points}


class Meddler:
    """An observer that does something to the run once a condition holds, and remembers what it was told."""

    def __init__(self, action: Callable[[Supervisor], bool] = lambda supervisor: True) -> None:
        self.action = action  # called at every tick until it says True
        self.done = False
        self.supervisor: Supervisor | None = None
        self.rows: list[dict[str, Any]] = []
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.host_bytes: list[int] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        if peaks.engine is not None:
            self.host_bytes.append(peaks.engine.host_bytes)
        assert self.supervisor is not None
        if not self.done:
            self.done = self.action(self.supervisor)


def run_supervisor(paths: Sequence[Path], settings: Sequence[str], meddler: Meddler) -> dict[str, Any]:
    """A run in this process; its children are real processes."""
    config: Config = load_config(settings=settings)
    supervisor = Supervisor(config, meddler)
    meddler.supervisor = supervisor
    return supervisor.run(find_files([os.fsencode(path) for path in paths], config.run.extensions))


def is_up(supervisor: Supervisor) -> bool:
    """Whether every child is ready."""
    return supervisor.fleet is not None and all(child.ready for child in supervisor.fleet.children)


def sent_whole(supervisor: Supervisor) -> list[set[TaskKey]]:
    """Tasks that a decoder has sent whole and that are not durable yet, for each decoder."""
    return list(supervisor.guard.decoded.values()) if supervisor.guard is not None else []


def signal_child(supervisor: Supervisor, role: str, number: signal.Signals) -> bool:
    """Send a signal to a child that has work: a task was sent whole and is not durable yet; says whether it was sent.

    A decoder has another task then, which it cannot end before the engine takes what is before it.
    """
    fleet, guard = supervisor.fleet, supervisor.guard
    if fleet is None or guard is None or not any(sent_whole(supervisor)):
        return False
    if guard.is_idle(fleet.decoders[0]) if role == "decoder" else not is_up(supervisor):
        return False
    child = {"decoder": fleet.decoders[0], "engine": fleet.engine, "consumer": fleet.consumer}[role]
    assert child.process.pid is not None
    os.kill(child.process.pid, number)
    return True


def children_of(pid: int) -> list[int]:
    """Living child processes, by /proc."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(part) for part in text.split()]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
