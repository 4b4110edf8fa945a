"""The budget on a real card: all four models within 4, 6, 8, 12 and 16 GB, one after the other.

    python -m benches.real_size models/real --image vit-b-32 --speech small --text bert-base --voice ecapa
    python -m benches.gpu_budget models/real --image vit-b-32 --speech small --text bert-base --voice ecapa

Each budget runs in a process of its own. Another process holds a ballast, so that no more than the budget is free on
the card: CTranslate2, which torch's limit does not bind, feels it too. The work is the same each time: noise from seed
0, fed to the engine as decoders feed it, with byte credits. What it finds means nothing; memory, time and losses do.

`--device cpu` and `--device simulated` run the same script where there is no card, without ballast.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.budget import GIB
from engine.config import Config, load_config
from engine.core import Engine
from engine.loading import Loader
from engine.outbox import Outgoing
from engine.pressure import Pressure
from stages.base import ROLES
from stages.errors import SluiceError
from transport.codec import cost_of, encode, spec_of
from transport.messages import Caption, Frame, Message, Speech, TaskEnd, TaskKey, TaskResult, TaskStart, ToConsumer

SAMPLE_RATE = 16_000
WINDOW_SECONDS = 30
FRAMES_PER_WINDOW = 30  # one frame a second
CAPTIONS_PER_WINDOW = 4
SLACK_BYTES = 64 * 1024**2  # the ballast leaves so much more than the budget, for the driver rounds
KEY = TaskKey(1, 0)


@dataclass(frozen=True, slots=True)
class Row:
    """What one budget gave."""

    budget_gb: float
    state: str  # done, or why it did not start
    peak_gb: float = 0.0  # most that the process held on the device
    least_free_gb: float = 0.0  # least that the driver had left
    items: int = 0
    lost_items: int = 0
    oom_events: int = 0
    batch_splits: int = 0
    alone: int = 0
    changes: int = 0
    change_seconds: float = 0.0
    releases: int = 0
    halvings: int = 0
    stops: int = 0
    wall_seconds: float = 0.0
    busy_fraction: float = 0.0
    media_hours_per_hour: float = 0.0
    items_per_busy_second: dict[str, float] | None = None
    batches: dict[str, int] | None = None
    parked_seconds: dict[str, dict[str, float]] | None = None
    resident_at_start: tuple[str, ...] = ()


def messages(seconds: int, size: tuple[int, int], seed: int = 0) -> Iterator[tuple[Message, Any]]:
    """What decoders send of a medium of so many seconds, all of it speech: frames, windows of sound, captions."""
    random = np.random.default_rng(seed)
    yield TaskStart(key=KEY, video_id="0" * 64, shown_path="noise.mkv"), None
    count = 0
    for start in range(0, seconds, WINDOW_SECONDS):
        for message, array in _window(start, size, random):
            yield message, array
            count += 1
    yield TaskEnd(key=KEY, items=count, gaps=()), None


def _window(start: int, size: tuple[int, int], random: np.random.Generator) -> Iterator[tuple[Message, Any]]:
    for second in range(start, start + FRAMES_PER_WINDOW):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        yield Frame(key=KEY, start_seconds=second, end_seconds=second + 1, array=spec_of(pixels)), pixels
    pcm = random.normal(0, 3000, WINDOW_SECONDS * SAMPLE_RATE).astype(np.int16)
    end = start + WINDOW_SECONDS
    yield (
        Speech(
            key=KEY,
            start_seconds=start,
            end_seconds=end,
            speech=((start, end),),
            captioned_seconds=0.0,
            transcribe=True,
            voices=True,
            array=spec_of(pcm),
        ),
        pcm,
    )
    for number in range(CAPTIONS_PER_WINDOW):
        words = " ".join(f"word{value}" for value in random.integers(0, 5000, random.integers(3, 40)))
        yield (
            Caption(key=KEY, start_seconds=start + number, end_seconds=start + number + 1, text=words, language="en"),
            None,
        )


class Feeder:
    """Feeds the engine as one decoder would: within its credit."""

    def __init__(self, engine: Engine, work: Iterator[tuple[Message, Any]], credit_bytes: int) -> None:
        self._engine = engine
        self._work = work
        self._credit_bytes = credit_bytes
        self._next = next(work, None)

    @property
    def is_done(self) -> bool:
        """Whether everything was sent."""
        return self._next is None

    def feed(self) -> None:
        """Send what credit allows."""
        self._credit_bytes += sum(cost for _, cost in self._engine.released)
        self._engine.released.clear()
        while self._next is not None and self._engine.is_accepting:
            message, array = self._next
            cost_bytes = cost_of(encode(message), array)
            if cost_bytes > self._credit_bytes:
                return
            self._credit_bytes -= cost_bytes
            payload = memoryview(array).cast("B") if array is not None else None
            self._engine.receive(b"decoder", message, payload, cost_bytes, time.monotonic())
            self._next = next(self._work, None)


def run_one(config: Config, budget_gb: float, seconds: int) -> Row:
    """Load within the budget, do the work, and say what happened."""
    loaded = Loader(config).load()
    runner, device = loaded.runner, loaded.runner.device
    pressure = Pressure(runner.budget.total_bytes)
    resident = tuple(sorted(runner.turns.residency.resident))
    credit_bytes = config.engine.host_mb * 1024**2
    engine = Engine(runner, config.engine, config.voice, pressure=pressure, share_bytes=credit_bytes)
    assert loaded.frame_format is not None
    feeder = Feeder(engine, messages(seconds, (loaded.frame_format.height, loaded.frame_format.width)), credit_bytes)
    least_free_bytes, results = device.read().free_bytes, Results()
    started = time.monotonic()
    while not (feeder.is_done and engine.is_idle()):
        feeder.feed()
        if not engine.step(time.monotonic()):
            time.sleep(0.001)
        while (outgoing := engine.outbox.take()) is not None:
            results.take(outgoing)
        least_free_bytes = min(least_free_bytes, device.read().free_bytes)
    wall_seconds = time.monotonic() - started
    counters = runner.counters
    busy_seconds = sum(counter.busy_seconds for counter in counters.values())
    return Row(
        budget_gb=budget_gb,
        state="done",
        peak_gb=round(runner.peak_bytes / GIB, 3),
        least_free_gb=round(least_free_bytes / GIB, 3),
        items=sum(counter.items for counter in counters.values()),
        lost_items=results.failures,
        oom_events=sum(counter.oom_events for counter in counters.values()),
        batch_splits=sum(counter.batch_splits for counter in counters.values()),
        alone=sum(counter.alone for counter in counters.values()),
        changes=runner.turns.residency.changes,
        change_seconds=round(runner.turns.residency.change_seconds, 2),
        releases=pressure.counters.releases,
        halvings=pressure.counters.halvings,
        stops=pressure.counters.stops,
        wall_seconds=round(wall_seconds, 2),
        busy_fraction=round(busy_seconds / wall_seconds, 3),
        media_hours_per_hour=round(seconds / wall_seconds, 1),
        items_per_busy_second={role: round(c.items / c.busy_seconds, 1) for role, c in counters.items() if c.items},
        batches={role: runner.tuners[role].size for role in counters},
        parked_seconds=runner.turns.park_seconds,
        resident_at_start=resident,
    )


class Results:
    """What comes out: counted, and dropped."""

    def __init__(self) -> None:
        self.failures = 0

    def take(self, outgoing: Outgoing) -> None:
        """Count the failures of a task's result."""
        message: Any = msgspec.msgpack.decode(outgoing.header, type=ToConsumer)
        if isinstance(message, TaskResult):
            self.failures += sum(self._items(failure) for failure in message.failures)

    @staticmethod
    def _items(failure: Any) -> int:
        """Failures that follow each other for the same reason are one entry; frames lie a second apart."""
        return max(1, round(failure.end_seconds - failure.start_seconds)) if failure.kind == "image" else 1


# --- the ballast ------------------------------------------------------------------------------------------------------


def hold_ballast(budget_bytes: int) -> None:
    """Child process: take all of the card but the budget, say so, and hold it until standard input closes."""
    import torch

    free_bytes, _ = torch.cuda.mem_get_info(0)
    taken = torch.empty(max(0, free_bytes - budget_bytes - SLACK_BYTES), dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    print(f"{taken.numel()} {torch.cuda.mem_get_info(0)[0]}", flush=True)
    sys.stdin.read()


@contextmanager
def ballast(device: str, budget_gb: float) -> Iterator[None]:
    """While it lasts, no more than the budget is free on the card."""
    if not device.startswith("cuda"):
        yield
        return
    command = [sys.executable, "-m", "benches.gpu_budget", ".", "--ballast", str(budget_gb)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the ballast for {budget_gb} GB could not be taken: is the card in use?")
        try:
            yield
        finally:
            process.stdin.close()


# --- command line -----------------------------------------------------------------------------------------------------


def config_for(arguments: argparse.Namespace) -> Config:
    """The configuration of one budget."""
    sources = {role: arguments.models / f"{role}-{getattr(arguments, role)}" for role in ROLES}
    lines = [f"models.{role}={json.dumps(str(source.resolve()))}" for role, source in sources.items()]
    lines += [f"device.name={arguments.device}", f"device.memory_gb={arguments.one}"]
    lines += [f"run.state={json.dumps(str(arguments.state / f'{arguments.one:g}gb'))}"]
    return load_config(settings=[*lines, *arguments.set])


def one_row(arguments: argparse.Namespace) -> Row:
    """What one budget gave, or why it did not start."""
    try:
        return run_one(config_for(arguments), arguments.one, arguments.seconds)
    except SluiceError as error:
        return Row(budget_gb=arguments.one, state=f"{error.code}: {error.message}")


def in_own_process(arguments: argparse.Namespace, budget_gb: float) -> Row:
    """One budget in a fresh process, so that nothing of the one before is left on the card."""
    command = [sys.executable, "-m", "benches.gpu_budget", str(arguments.models), "--one", str(budget_gb)]
    command += ["--device", arguments.device, "--seconds", str(arguments.seconds), "--state", str(arguments.state)]
    command += [part for role in ROLES for part in (f"--{role}", getattr(arguments, role))]
    command += [part for setting in arguments.set for part in ("--set", setting)]
    with ballast(arguments.device, budget_gb):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Row(budget_gb=budget_gb, state=f"exit code {done.returncode}: {last}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def show(rows: list[Row]) -> None:
    """One line a budget."""
    print("budget  peak   least free  items  lost  OOM  splits  alone  changes  busy   hours/h  batches")
    for row in rows:
        if row.state != "done":
            print(f"{row.budget_gb:5g}  {row.state}")
            continue
        sizes = " ".join(f"{role} {size}" for role, size in (row.batches or {}).items())
        changes = f"{row.changes} ({row.change_seconds / row.wall_seconds:.0%})"
        print(
            f"{row.budget_gb:5g} {row.peak_gb:6.2f} {row.least_free_gb:11.2f} {row.items:6d} {row.lost_items:5d} "
            f"{row.oom_events:4d} {row.batch_splits:7d} {row.alone:6d} {changes:>8} {row.busy_fraction:6.1%} "
            f"{row.media_hours_per_hour:8.1f}  {sizes}"
        )
        rates = ", ".join(f"{role} {rate}/s" for role, rate in (row.items_per_busy_second or {}).items())
        print(f"       while busy: {rates}; on the device at the start: {', '.join(row.resident_at_start)}")


def main() -> None:
    """Run all budgets, or be one of the child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="directory that benches.real_size has filled")
    for role, name in zip(ROLES, ("vit-b-32", "small", "bert-base", "ecapa"), strict=True):
        parser.add_argument(f"--{role}", default=name, metavar="NAME", help=f"as built by benches.real_size ({name})")
    parser.add_argument("--budgets", default="4,6,8,12,16", help="GB, separated by commas")
    parser.add_argument("--seconds", type=int, default=1800, help="length of the medium")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, cpu or simulated")
    parser.add_argument("--state", type=Path, default=Path("sluice-state"), help="where calibrations are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of configs/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--ballast", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ballast is not None:
        hold_ballast(round(arguments.ballast * GIB))
    elif arguments.one is not None:
        print(json.dumps(asdict(one_row(arguments))))
    else:
        rows = [in_own_process(arguments, float(budget)) for budget in arguments.budgets.split(",")]
        show(rows)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), "utf-8")


if __name__ == "__main__":
    main()
