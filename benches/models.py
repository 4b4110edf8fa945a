"""Each model alone over batch sizes, through the code that the engine loads and runs it with.

Small untrained models where none are named: their speed is that of our own code and of the libraries around them. Items
are made from seed 0: frames of noise, sentences, windows of a made voice. All candidates take turns; each runs its
batch over and over for a while. The speech model decodes as far as its text goes, untrained ones to the longest there
is, so its windows a second hang on the sound, too.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
from scipy.signal import resample_poly

from benches.corpus import SEED
from benches.measuring import Candidate, Cost, median, ratio_of, rounds, spread
from benches.options import add_models, tiny_models
from benches.report import Cell, Chart, Findings, Ratio, Table
from benches.roofline import ROOF, Roof, Work, roof_now, roofline, work_of
from benches.sample_video import sound_track
from benches.sample_voice import SAMPLE_RATE as MADE_RATE
from benches.show import cell_text
from engine.host_memory import high_water_bytes, restart_peak
from stages import registry
from stages.base import ROLES, Model, Pcm, Pixels, Role, SpeechInput
from stages.image_model import ImageModel
from stages.lanes import Lanes
from stages.options import ModelOptions, SpeechOptions, VoiceOptions
from stages.registry import SAMPLE_RATE

TITLE = (
    "each model alone: items/s, processor time and memory by batch size, and how near it comes to the machine's roof"
)

BATCHES = (1, 4, 8, 16, 32, 64)
SPEECH_BATCHES = (1, 2, 4, 8)
SPEECH_SECONDS = 30  # a window
FAMILIES: dict[Role, str] = {"image": "clip", "speech": "whisper", "voice": "ecapa"}
WORDS = (
    "the",
    "a",
    "man",
    "woman",
    "dog",
    "speaks",
    "runs",
    "city",
    "water",
    "coffee",
    "light",
    "under",
    "with",
    "then",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A loaded model with items for it."""

    role: Role
    model: Model
    items: Sequence[Any]

    @property
    def label(self) -> str:
        """What it is called in tables and plots."""
        return f"{self.role}: {self.model.info.name}{', untrained' if self.model.info.untrained else ''}"

    def batch(self, size: int) -> list[Any]:
        """So many items, over and over where there are fewer."""
        return list(itertools.islice(itertools.cycle(self.items), size))


@dataclass(frozen=True, slots=True)
class Trial:
    """One batch size of one model."""

    subject: Subject
    size: int
    repeats: int  # batches in a round
    peak_bytes: int | None  # resident, above the loaded model; None where the system does not tell

    @property
    def name(self) -> str:
        """Unique among the candidates."""
        return f"{self.subject.role} {self.size}"

    def run(self) -> Mapping[str, float]:
        """One round."""
        batch = self.subject.batch(self.size)
        for _ in range(self.repeats):
            self.subject.model.run(batch)
        return {"items": float(self.size * self.repeats)}


# --- items ------------------------------------------------------------------------------------------------------------


def frames(model: Model, count: int) -> list[Pixels]:
    """Noise, uint8 [height, width, 3], of the model's own size."""
    assert isinstance(model, ImageModel)
    shape = (count, model.frame_format.height, model.frame_format.width, 3)
    return list(np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8))


def sentences(count: int) -> list[str]:
    """8 to 24 words each."""
    random = np.random.default_rng(SEED)
    return [" ".join(random.choice(WORDS, size=int(random.integers(8, 25)))) for _ in range(count)]


def windows(seconds: float, count: int) -> list[Pcm]:
    """Of a made voice, int16 [samples], 16 kHz mono, one after the other."""
    sound = resample_poly(sound_track(seconds * count, SEED), SAMPLE_RATE, MADE_RATE)
    pcm = np.clip(sound * 32768, -32768, 32767).astype(np.int16)
    return list(pcm[: count * round(seconds * SAMPLE_RATE)].reshape(count, -1))


def items_for(role: Role, model: Model) -> Sequence[Any]:
    """Some, to be taken over and over."""
    match role:
        case "image":
            return frames(model, 64)
        case "text":
            return sentences(64)
        case "voice":
            return windows(VoiceOptions().window_seconds, 16)
        case "speech":
            return [SpeechInput(pcm, None) for pcm in windows(SPEECH_SECONDS, 2)]


# --- measuring --------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models, how often, how long."""
    add_subjects(parser)
    parser.add_argument("--device", default="cpu", help="torch's name (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), metavar="N")
    parser.add_argument("--speech-batches", type=int, nargs="+", default=list(SPEECH_BATCHES), metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a batch size in a round (default: %(default)s)")


def add_subjects(parser: argparse.ArgumentParser) -> None:
    """Which models, for `subject`."""
    add_models(parser)
    for role in ROLES:
        parser.add_argument(f"--{role}", metavar="MODEL", help=f"as models.{role} (default: a small one)")
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES), help="default: all")


def measure(arguments: argparse.Namespace) -> Findings:
    """Load, warm up, and let all batch sizes of all models take turns."""
    subjects = [subject(role, arguments) for role in arguments.roles]
    trials: list[Trial] = []
    for each in subjects:
        sizes = arguments.speech_batches if each.role == "speech" else arguments.batches
        trials += warmed_up(each, sorted(set(sizes)), arguments.seconds)
    candidates: dict[str, Candidate] = {trial.name: trial.run for trial in trials}
    candidates[ROOF] = lambda: asdict(roof_now(arguments.device))
    costs = rounds(candidates, arguments.rounds, warm_up=False)
    works = {trial.name: _work(trial) for trial in trials if trial.subject.role != "speech"}
    return findings(trials, costs, works, best_roof(costs.pop(ROOF)))


def subject(role: Role, arguments: argparse.Namespace, lanes: Lanes | None = None) -> Subject:
    """Load a model, and make its items. lanes: as `registry.load` takes them. Raises ModelError."""
    named: str | None = getattr(arguments, role)
    if named is None and role in FAMILIES:
        named = str(tiny_models(arguments, [FAMILIES[role]])[FAMILIES[role]])
    options = ModelOptions() if named is None else msgspec.structs.replace(ModelOptions(), **{role: named})
    model = registry.load(role, options, SpeechOptions(temperatures=(0.0,)), arguments.device, lanes=lanes)
    return Subject(role, model, items_for(role, model))


def warmed_up(of: Subject, sizes: Sequence[int], seconds: float) -> list[Trial]:
    """Run each size once or twice, the small ones first, for libraries prepare for each shape; see what memory it takes
    and how often it fits into the time of a round.
    """
    of.model.run(of.batch(sizes[0]))
    loaded_bytes = restart_peak()
    trials = []
    for size in sizes:
        batch = of.batch(size)
        is_told = restart_peak() is not None
        of.model.run(batch)
        peak_bytes = high_water_bytes()
        started = time.perf_counter()
        of.model.run(batch)
        repeats = repeats_for(time.perf_counter() - started, seconds)
        above = max(0, peak_bytes - loaded_bytes) if is_told and loaded_bytes is not None else None
        trials.append(Trial(of, size, repeats, above))
    return trials


def repeats_for(batch_seconds: float, seconds: float) -> int:
    """As many batches as fit into the time, one at least. Pure."""
    return max(1, math.ceil(seconds / max(batch_seconds, 1e-6)))


def best_roof(costs: Sequence[Cost]) -> Roof:
    """Of all rounds: what others took of the machine meanwhile was not its limit. Pure."""
    peak = {name: max(cost.values[name] for cost in costs) for name in costs[0].values}
    return Roof(**peak)


def _work(trial: Trial) -> Work:
    batch = trial.subject.batch(trial.size)
    return work_of(lambda: trial.subject.model.run(batch))


# --- findings ---------------------------------------------------------------------------------------------------------


def findings(
    trials: Sequence[Trial], costs: Mapping[str, Sequence[Cost]], works: Mapping[str, Work], roof: Roof
) -> Findings:
    """Tables, ratios and charts. Pure."""
    by_subject: dict[str, list[Trial]] = {}
    for trial in trials:
        by_subject.setdefault(trial.subject.label, []).append(trial)
    counted = {label: group for label, group in by_subject.items() if group[0].name in works}
    timed = {
        label: [(works[trial.name], batch_seconds(trial, costs[trial.name])) for trial in group]
        for label, group in counted.items()
    }
    return Findings(
        tables=[
            Table("Each model alone", SPEED_COLUMNS, tuple(speed_row(trial, costs[trial.name]) for trial in trials)),
            *([Table("Under the roof", ROOF_COLUMNS, tuple(roof_rows(counted, timed, roof)))] if counted else []),
        ],
        ratios=[gain(label, group, costs) for label, group in by_subject.items() if len(group) > 1],
        charts=[speed_chart(by_subject, costs), *([roofline(timed, roof)] if counted else [])],
        notes=notes(trials, roof),
    )


SPEED_COLUMNS = ("model", "batch", "items/s", "spread", "CPU ms/item", "peak MB above loaded")
ROOF_COLUMNS = ("model", "batch", "MFLOP/item", "FLOP/byte", "GFLOP/s", "share of the roof")


def speed_row(trial: Trial, costs: Sequence[Cost]) -> tuple[Cell, ...]:
    """Medians of the rounds. Pure."""
    rates = items_per_second(costs)
    cpu_ms = median([1e3 * cost.cpu_seconds / cost.values["items"] for cost in costs])
    low, high = (cell_text(float(each), 3) for each in spread(rates))
    peak = None if trial.peak_bytes is None else round(trial.peak_bytes / 1e6)
    return trial.subject.label, trial.size, median(rates), f"{low} to {high}", cpu_ms, peak


def items_per_second(costs: Sequence[Cost]) -> list[float]:
    """Of each round. Pure."""
    return [cost.values["items"] / cost.wall_seconds for cost in costs]


def batch_seconds(trial: Trial, costs: Sequence[Cost]) -> float:
    """Of one batch in the best of the rounds, for the roof is the best, too. Pure."""
    return min(cost.wall_seconds for cost in costs) / trial.repeats


def gain(label: str, group: Sequence[Trial], costs: Mapping[str, Sequence[Cost]]) -> Ratio:
    """What batches bring: items/s in the largest over those in the smallest. Pure."""
    small, large = group[0], group[-1]
    above, below = (items_per_second(costs[trial.name]) for trial in (large, small))
    return ratio_of(f"{label}: items/s, batch {large.size} / batch {small.size}", above, below, better="higher")


def roof_rows(
    counted: Mapping[str, Sequence[Trial]], timed: Mapping[str, Sequence[tuple[Work, float]]], roof: Roof
) -> Iterator[tuple[Cell, ...]]:
    """A line for each batch size. Pure."""
    for label, group in counted.items():
        for trial, (work, seconds) in zip(group, timed[label], strict=True):
            reached = work.flops / seconds
            share = reached / roof.at(work.intensity)
            yield label, trial.size, work.flops / trial.size / 1e6, work.intensity, reached / 1e9, share


def speed_chart(by_subject: Mapping[str, Sequence[Trial]], costs: Mapping[str, Sequence[Cost]]) -> Chart:
    """Items a second over the batch size. Pure."""
    return Chart(
        name="models",
        title="Each model alone",
        x="batch size",
        y="items/s",
        lines={
            label: tuple((float(trial.size), median(items_per_second(costs[trial.name]))) for trial in group)
            for label, group in by_subject.items()
        },
        log_x=True,
        log_y=True,
    )


def notes(trials: Sequence[Trial], roof: Roof) -> list[str]:
    """What misleads. Pure."""
    said = [
        f"The roof: {roof.flops_per_second / 1e9:.0f} GFLOP/s in a product of single-precision matrices, "
        f"{roof.bytes_per_second / 1e9:.1f} GB/s in a copy, with torch's threads; the best round, as of the models.",
        "FLOP are those of matrix products, convolutions and attention; bytes as if no cache kept anything between two "
        "operations, so what fits into the cache may lie above the roof.",
        "Peaks are resident memory of this process above that after the first batch: what loading and smaller batches "
        "left free is used again first.",
    ]
    if any(trial.subject.model.info.untrained for trial in trials):
        said.append("Untrained models have the architecture of real ones, but not their size: compare nothing else.")
    if any(trial.subject.role == "speech" for trial in trials):
        said.append(
            f"Speech: an item is a window of {SPEECH_SECONDS} s. Its operations are not counted: CTranslate2 computes "
            "outside torch, on the CPU with whole numbers."
        )
    return said
