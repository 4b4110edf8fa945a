"""Everything on a card, as far as one is there: run it with nothing else on the card. docs/gpu.md goes through it.

python -m benches gpu                                   models of real size, untrained, built offline; 9 minutes
python -m benches gpu --device cpu --budgets all        the same script without a card
python -m benches gpu --from-parts bench-results/gpu/parts.json   tables of what an earlier run left
"""

import json
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benches.gpu_alone import Alone
from benches.gpu_card import SIMULATED, Card
from benches.gpu_fed import Amount, Run
from benches.gpu_parts import Name, Outcome, Runner, Task, budget_name, in_own_process
from benches.gpu_results import GIB, Results, Series, alone_rate
from benches.gpu_tables import findings
from benches.gpu_work import SAMPLINGS, Facts, medium_of
from benches.real_size import SIZES
from benches.report import Findings
from engine.config import load_config
from stages.base import ROLES, Role
from stages.errors import SluiceError

TITLE = "a CUDA card: peaks, models alone under its roofline, the whole engine at 4 GB, 16 GB and all of it"

DEFAULT: dict[Role, str] = {"image": "vit-b-32", "speech": "small", "text": "minilm", "voice": "ecapa"}
LARGE: dict[Role, str] = {"image": "vit-l-14", "speech": "large-v3-turbo", "text": "bert-base", "voice": "ecapa"}
PARTS_FILE = Path("gpu", "parts.json")  # below --results
PARTS: tuple[Name, ...] = ("alone", "fed", "ingest")
SPANS = 40  # that the minutes are divided by, for the length of each measured span: the rest is loading
SIMULATED_GB = 16.0  # of the card where no budget says how large it is
MAX_FEED = 2.0  # times the span: no longer is fed, should the engine be slower than the models alone
UNKNOWN_RATE = 1e6  # hours/hour that no card reaches
OVERTIME = 4.0  # times what a part should take, after which it is stopped


def add_arguments(parser: ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--models", type=Path, default=Path("models/real"), metavar="DIR", help="where they are built")
    parser.add_argument("--large", action="store_true", help=f"larger ones: {', '.join(LARGE.values())}")
    for role in ROLES:
        help_text = f"{', '.join(SIZES[role])}; a directory or hub id; off (default: {DEFAULT[role]})"
        parser.add_argument(f"--{role}", metavar="NAME", help=help_text)
    parser.add_argument("--media", type=Path, metavar="FILE", help="some minutes of video (default: generated footage)")
    parser.add_argument("--budgets", nargs="+", type=budget, default=[4.0, 16.0, None], metavar="GB", help="or: all")
    parser.add_argument("--samplings", nargs="+", choices=SAMPLINGS, default=list(SAMPLINGS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="of what is measured")
    parser.add_argument("--device", default="auto", help="auto, cuda:N, cpu or simulated (default: %(default)s)")
    parser.add_argument("--decoders", type=int, help="processes of an ingest (default: one for each core)")
    parser.add_argument("--minutes", type=float, default=9.0, help="what it may take in all (default: %(default)g)")
    parser.add_argument("--seconds", type=float, help=f"of each measured span (default: a {SPANS}th of --minutes)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of configs/")
    parser.add_argument("--from-parts", type=Path, metavar="FILE", help="measure nothing: what an earlier run left")


def budget(text: str) -> float | None:
    """ "16" or "all". Raises ValueError, as argparse wants."""
    return None if text == "all" else float(text)


def measure(arguments: Namespace, runner: Runner = in_own_process) -> Findings:
    """Run every part for which there is time.

    Raises PartFailed when there is no card, or when the models or the work to be measured cannot be had.
    """
    if arguments.from_parts is not None:
        return findings(msgspec.json.decode(arguments.from_parts.read_bytes(), type=Results))
    with tempfile.TemporaryDirectory(prefix="sluice-gpu-") as directory:
        bench = Bench(arguments, Path(directory), runner)
        bench.run()
        return findings(bench.results)


class PartFailed(SluiceError):
    """Nothing can be measured."""


class Bench:
    """The parts in their order, and what they found so far."""

    def __init__(self, arguments: Namespace, directory: Path, runner: Runner) -> None:
        self._arguments = arguments
        self._directory = directory
        self._runner = runner
        self._started = time.monotonic()
        self._seconds: float = arguments.seconds or 60 * arguments.minutes / SPANS
        self._medium = directory
        self.results = Results(self._card())

    def run(self) -> None:
        """All of it."""
        self._build_models()
        self._medium = medium_of(self._arguments.media, self._directory)
        self._record()
        for task in self._tasks():
            if self._time_left() < expected_seconds(task):
                self.results.skipped.append(task.name)
            else:
                self._take(task, self._do(task))
            self._save()

    # --- before anything is measured ----------------------------------------------------------------------------------

    def _card(self) -> Card:
        """Raises PartFailed where there is none."""
        task = Task(part="card", directory=str(self._directory), device=self._arguments.device, seconds=self._seconds)
        outcome = self._runner(task, OVERTIME * expected_seconds(task))
        if outcome.result is None:
            raise PartFailed("bench-part-failed", str(outcome.failure))
        card = msgspec.json.decode(outcome.result, type=Card)
        if card.missing is not None:
            raise PartFailed(
                "no-cuda", f"no card is here, for {card.missing}; --device cpu tries the script without one"
            )
        return card

    def _build_models(self) -> None:
        """Those that are named by a size; the others are there already, or said to be missing when they are loaded."""
        named = models_of(self._arguments)
        sizes = {role: named[role] for role in ROLES if named[role] in SIZES[role]}
        task = self._task("models", models=sizes, models_directory=str(self._arguments.models))
        outcome = self._run(task)
        if outcome.result is None:
            raise PartFailed("bench-part-failed", f"building models: {outcome.failure}")
        self.results.models = named | msgspec.json.decode(outcome.result, type=dict[Role, str])

    def _record(self) -> None:
        outcome = self._run(self._task("work", medium=str(self._medium), settings=self._settings()))
        if outcome.result is None:
            raise PartFailed("bench-part-failed", f"decoding {self._medium.name}: {outcome.failure}")
        self.results.facts = msgspec.json.decode(outcome.result, type=Facts)

    # --- what is measured ---------------------------------------------------------------------------------------------

    def _tasks(self) -> Iterator[Task]:
        """The most telling ones first: what comes last may find no time left."""
        arguments, parts = self._arguments, self._arguments.parts
        budgets = sorted((each for each in arguments.budgets if self._has(each)), key=lambda gb: -(gb or float("inf")))
        if "alone" in parts:
            yield self._task("alone", settings=self._settings())
        if "fed" in parts:
            for gb in budgets:
                amounts = {sampling: self._amount(sampling, gb) for sampling in arguments.samplings}
                yield self._budget_task("fed", gb, amounts)
        if "ingest" in parts:
            for sampling in arguments.samplings:
                for gb in budgets:
                    amounts = {sampling: self._amount(sampling, gb, decoded=True)}
                    yield self._budget_task("ingest", gb, amounts, sampling)

    def _has(self, budget_gb: float | None) -> bool:
        """Whether the card is that large. (The CPU's budget is cut to what there is, which the run notes.)"""
        card = self.results.card
        if budget_gb is None or not card.is_cuda or budget_gb * GIB <= card.total_bytes:
            return True
        self.results.failures.append(f"{budget_gb:g} GB: the card has only {card.total_bytes / GIB:.1f}")
        return False

    def _amount(self, sampling: str, budget_gb: float | None, decoded: bool = False) -> Amount:
        """As much as the models alone would do in the measured span; of an ingest, as much as the engine did when it
        was fed, or the decoders can. Where nobody knows the models' rate, the clock alone ends it.
        """
        facts, fed = self.results.facts, self.results.run("fed", budget_gb, sampling)
        assert facts is not None
        rate = alone_rate(self.results.alone, facts, sampling) or UNKNOWN_RATE
        if decoded:
            decoders = self._decoders() * 3600 / facts.cpu_seconds_an_hour(sampling)
            rate = min(fed.hours_per_hour if fed else rate, decoders)
        feed_seconds = self._seconds * (1.0 if rate == UNKNOWN_RATE else MAX_FEED)
        return Amount(rate * self._seconds, feed_seconds)

    def _budget_task(self, part: Name, budget_gb: float | None, amounts: dict[str, Amount], sampling: str = "") -> Task:
        return self._task(
            part,
            medium=str(self._medium),
            settings=self._settings(budget_gb, part),
            facts=self.results.facts,
            budget_gb=budget_gb,
            amounts=amounts,
            sampling=sampling,
            decoders=self._decoders(),
        )

    def _decoders(self) -> int:
        chosen: int | None = self._arguments.decoders
        return chosen or load_config(settings=self._arguments.set).decoder_processes

    def _take(self, task: Task, outcome: Outcome) -> None:
        """Keep what it found."""
        if outcome.result is None:
            return
        if task.part == "alone":
            self.results.alone = msgspec.json.decode(outcome.result, type=Alone)
        else:
            runs = msgspec.json.decode(outcome.result, type=tuple[Run, ...])
            self.results.series.append(Series(task.part, task.budget_gb, runs))

    # --- all parts ----------------------------------------------------------------------------------------------------

    def _task(self, part: Name, **more: Any) -> Task:
        card = self.results.card
        return Task(
            part=part, directory=str(self._directory), device=card.device, uuid=card.uuid, seconds=self._seconds, **more
        )

    def _settings(self, budget_gb: float | None = None, part: Name = "alone") -> tuple[str, ...]:
        """KEY=VALUE: the models, the device with its budget, and what was asked for, which beats all."""
        device = self.results.card.device
        state = self._directory / f"state-{budget_name(budget_gb).replace(' ', '-')}"
        settings = [f"models.{role}={json.dumps(source)}" for role, source in self.results.models.items()]
        settings += ["speech.temperatures=[0.0]", f"device.name={device}", f"run.state={json.dumps(str(state))}"]
        if budget_gb is not None:
            settings.append(f"device.memory_gb={budget_gb}")
        if device == SIMULATED:
            settings.append(f"device.simulation={json.dumps(str(self._simulation(budget_gb or SIMULATED_GB)))}")
        return (*settings, *self._arguments.set)

    def _simulation(self, total_gb: float) -> Path:
        """A file that describes a card of this size."""
        file = self._directory / f"card-{total_gb:g}gb.toml"
        file.write_text(f"total_gb = {float(total_gb)}\n", "utf-8")
        return file

    def _run(self, task: Task) -> Outcome:
        tell(f"gpu: {task.name} …")
        outcome = self._runner(task, OVERTIME * expected_seconds(task))
        tell(f"gpu: {task.name}: {outcome.failure or 'done'}, {outcome.seconds:.0f} s")
        return outcome

    def _do(self, task: Task) -> Outcome:
        outcome = self._run(task)
        self.results.seconds[task.name] = round(outcome.seconds, 1)
        if outcome.failure is not None:
            self.results.failures.append(f"{task.name}: {outcome.failure}")
        return outcome

    def _time_left(self) -> float:
        return 60 * float(self._arguments.minutes) - (time.monotonic() - self._started)

    def _save(self) -> None:
        """What is known so far, for `--from-parts`, should the rest be cut off."""
        file: Path = self._arguments.results / PARTS_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(self.results))
        partial.replace(file)


def expected_seconds(task: Task) -> float:
    """About as long as a part takes, starting and loading included. Pure."""
    match task.part:
        case "alone":
            return 30 + 8 * task.seconds
        case "fed":
            return 30 + 1.6 * task.seconds * len(task.amounts)
        case "ingest":
            return 30 + 1.3 * task.seconds
        case _:
            return 60.0


def models_of(arguments: Namespace) -> dict[Role, str]:
    """The size, directory or hub id of each role."""
    sizes = LARGE if arguments.large else DEFAULT
    return {role: getattr(arguments, role) or sizes[role] for role in ROLES}


def tell(line: str) -> None:
    """On standard error."""
    print(line, file=sys.stderr, flush=True)
