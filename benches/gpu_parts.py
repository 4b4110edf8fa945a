"""The parts of the GPU bench, each in a process of its own: `python -m benches.gpu_parts TASK.json RESULT.json`.

A process of its own, so that nothing of the part before is left on the card, and one that crashes takes nothing with
it. A part writes its result as soon as it has some, so that what it found before it failed is kept.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from benches.gpu_ballast import ballast
from benches.gpu_card import SIMULATED, look
from benches.gpu_fed import Amount, Run, run_fed
from benches.gpu_ingest import run_ingest
from benches.gpu_work import Facts, corpus, record
from engine.config import load_config
from engine.errors import ExitCode
from engine.heap import keep_heap_whole
from stages.base import Role
from stages.errors import SluiceError

PEAK_SECONDS = 0.4  # of each peak of the card

Name = Literal["card", "models", "work", "alone", "fed", "ingest"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one part is told. Not all of it is for every part."""

    part: Name
    directory: str  # of all parts
    device: str  # as asked for, and once the card is known, resolved
    uuid: str | None = None
    settings: tuple[str, ...] = ()  # KEY=VALUE
    seconds: float = 1.0  # of what is measured
    medium: str = ""
    models: dict[Role, str] = {}  # sizes to be built, by role
    models_directory: str = ""
    facts: Facts | None = None
    budget_gb: float | None = None  # None: the whole card
    amounts: dict[str, Amount] = {}  # by sampling
    sampling: str = ""
    decoders: int = 1

    @property
    def name(self) -> str:
        """Unique among the parts of a run."""
        budget = "" if self.part not in ("fed", "ingest") else budget_name(self.budget_gb)
        return " ".join(word for word in (self.part, budget, self.sampling) if word)


class Outcome(msgspec.Struct, frozen=True):
    """What became of a part."""

    name: str
    seconds: float
    result: msgspec.Raw | None  # as JSON
    failure: str | None = None  # why it did not come to its end


def budget_name(budget_gb: float | None) -> str:
    return "the whole card" if budget_gb is None else f"{budget_gb:g} GB"


# --- in the child -----------------------------------------------------------------------------------------------------


def results(task: Task) -> Iterator[Any]:
    """What the part finds, more each time. Raises SluiceError, and what the libraries raise."""
    directory = Path(task.directory)
    work = directory / "work"
    match task.part:
        case "card":
            yield look(task.device, PEAK_SECONDS * min(1.0, task.seconds))
        case "models":
            yield dict(_built(task))
        case "work":
            yield record(Path(task.medium), task.settings, work)
        case "alone":
            from benches.gpu_alone import measure_alone

            device = "cpu" if task.device == SIMULATED else task.device
            yield from measure_alone(load_config(settings=task.settings), device, work, task.uuid, task.seconds / 2)
        case "fed":
            assert task.facts is not None
            runs: list[Run] = []
            for run in run_fed(load_config(settings=task.settings), task.facts, work, task.uuid, task.amounts):
                runs.append(run)
                yield runs
        case "ingest":
            yield [_ingested(task, directory)]


def _built(task: Task) -> Iterator[tuple[str, str]]:
    from benches.real_size import build

    for role, size in task.models.items():
        yield role, str(build(Path(task.models_directory), role, size).resolve())


def _ingested(task: Task, directory: Path) -> Run:
    hours = task.amounts[task.sampling].media_seconds / 3600
    files = corpus(Path(task.medium), hours, 2 * task.decoders, directory / "corpus")
    own = directory / task.name.replace(" ", "-")
    return run_ingest(files, task.settings, own, task.uuid, task.decoders, task.sampling)


def main(task_file: Path, result_file: Path) -> int:
    """Returns the exit code."""
    task = msgspec.json.decode(task_file.read_bytes(), type=Task)
    keep_heap_whole()  # as decoders and the engine do
    try:
        for result in results(task):
            partial = result_file.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode(result))
            partial.replace(result_file)
    except SluiceError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr, flush=True)
        return ExitCode.NO_START
    return ExitCode.OK


# --- in the parent ----------------------------------------------------------------------------------------------------


def in_own_process(task: Task, limit_seconds: float) -> Outcome:
    """Run a part to its end, or for so long; whatever happens to it is in the outcome."""
    directory, started = Path(task.directory), time.monotonic()
    stem = task.name.replace(" ", "-")
    task_file, result_file, log = (directory / f"{stem}.{ending}" for ending in ("task.json", "result.json", "log"))
    task_file.write_bytes(msgspec.json.encode(task))
    command = [sys.executable, "-m", "benches.gpu_parts", str(task_file), str(result_file)]
    try:
        with ballast(task.device, task.budget_gb):
            failure = _run(command, log, limit_seconds)
    except RuntimeError as error:
        failure = str(error)
    result = msgspec.Raw(result_file.read_bytes()) if result_file.exists() else None
    return Outcome(task.name, time.monotonic() - started, result, failure)


def _run(command: list[str], log: Path, limit_seconds: float) -> str | None:
    """Why it failed; None when it did not. In a session of its own, so that what it started ends with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            return f"it took longer than {limit_seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return None if code == 0 else last_line(log) if code == ExitCode.NO_START else f"exit code {code}: {last_line(log)}"


def last_line(log: Path) -> str:
    """Of what a process said before it ended."""
    return (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]


Runner = Callable[[Task, float], Outcome]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
