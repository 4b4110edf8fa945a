"""Each model alone on the device: over batch sizes, then at its best batch against what the device can do.

Items are those that decoders made of the medium, and the phrases that the speech model made of them. The rate at the
best batch says what an hour of media costs the device at least, model by model: together that is the least time of all
models, which no engine that runs one batch at a time can beat.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benches.floor_models import voice_cuts
from benches.floor_work import Work as Recorded
from benches.gpu_card import CardMeter, NoMeter, durations, meter
from benches.gpu_halves import measure_halves
from benches.gpu_work import recorded
from benches.measuring import median
from benches.roofline import Work, work_of
from engine.config import Config
from engine.device import Device
from engine.faults import is_out_of_memory
from engine.real_devices import open_device
from stages import registry
from stages.base import Model, Role, SpeechInput, Transcript

GAIN = 1.02  # items a second that a larger batch must bring to be better
PATIENCE = 2  # larger sizes without gain before the search ends
TEXT_GROUPS = 4  # by length: the engine seeks like lengths for a batch
METER_LEAST_SECONDS = 1.5  # NVML's figure is of up to a second
SAMPLER_ROUNDS = 3


class Trial(msgspec.Struct, frozen=True):
    """One batch size."""

    batch: int
    seconds: float  # of a batch, median
    peak_bytes: int | None  # that it took beside the weights


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One model, or half of one, at its best batch."""

    name: str  # role, or "speech: encoder", "speech: decoder"
    model: str
    precision: str
    batch: int
    seconds: float  # of a batch, median
    low_seconds: float
    high_seconds: float
    flops: float | None = None  # of a batch; None: not counted
    bytes: float | None = None
    trials: tuple[Trial, ...] = ()
    use: float | None = None  # share of the time in which the card ran a kernel, as NVML has it
    items: dict[str, int] = {}  # in the whole medium, by sampling
    medium_seconds: dict[str, float] = {}  # of device time for all of them, by sampling


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of all models."""

    stages: tuple[Stage, ...]
    tokens: tuple[int, ...] = ()  # that each window of the best batch said
    token_seconds: float = 0.0  # of sound in those windows
    sampler_ratio: float | None = None  # time of speech batches with the memory watched, to that without
    failures: tuple[str, ...] = ()  # what could not be measured, and why


Groups = list[list[Any]]  # items that may share batches


def measure_alone(config: Config, device: str, work: Path, uuid: str | None, seconds: float) -> Iterator[Alone]:
    """All models of a configuration, one after the other: what is known after each. device: torch's name. seconds:
    about, for each model.
    """
    opened, found = open_device(device), _Found(config, device, uuid, seconds)
    works = {sampling: recorded(work, sampling) for sampling in ("keyframes", "fps")}
    for role, _ in registry.configured(config.models):
        try:
            found.model(role, works, opened)
        except (RuntimeError, MemoryError) as error:
            found.failures.append(f"{role}: {' '.join(str(error).split())}")
        opened.release()
        yield found.result()


class _Found:
    """Gathers what is measured."""

    def __init__(self, config: Config, device: str, uuid: str | None, seconds: float) -> None:
        self.failures: list[str] = []
        self._config = config
        self._device = device
        self._uuid = uuid
        self._seconds = seconds
        self._stages: list[Stage] = []
        self._texts: list[str] = []
        self._halves: dict[str, Any] = {}

    def result(self) -> Alone:
        return Alone(stages=tuple(self._stages), failures=tuple(self.failures), **self._halves)

    def model(self, role: Role, works: dict[str, Recorded], opened: Device) -> None:
        """Load it, measure it, unload it; with the speech model, its halves and the cost of watching its memory."""
        config = self._config
        model = registry.load(role, config.models, config.speech, self._device, config.voice)
        try:
            groups = self._groups(role, works["fps"])
            items = {sampling: self._count(role, work) for sampling, work in works.items()}
            trials = tuple(self._search(model, max(groups, key=len), opened))
            best = min(trials, key=lambda trial: trial.seconds / trial.batch)
            self._stages.append(self._at_best(role, model, groups, best.batch, trials, items))
            if role == "speech":
                self._note_speech(model, groups[0], best.batch, opened)
        finally:
            model.unload()
        if role == "speech":
            opened.release()
            self._split(model, works["fps"], best.batch)

    def _groups(self, role: Role, work: Recorded) -> Groups:
        match role:
            case "image":
                return [list(work.frames)]
            case "speech":
                return [[SpeechInput(work.pcm(window), None) for window in work.index.windows]]
            case "text":
                return list(_parts(sorted(self._texts, key=len), TEXT_GROUPS))
            case "voice":
                return voice_cuts(work, self._config.voice)

    def _count(self, role: Role, work: Recorded) -> int:
        return sum(map(len, self._groups(role, work)))

    def _search(self, model: Model, items: Sequence[Any], opened: Device) -> Iterator[Trial]:
        """Larger batches as long as they bring something and fit."""
        best, failed, batch = 0.0, 0, 1
        while batch <= model.max_batch and failed < PATIENCE:
            trial = self._try(model, _tiled(items, batch), opened)
            if trial is None:
                return
            yield trial
            rate = batch / trial.seconds
            failed = 0 if rate > GAIN * best else failed + 1
            best = max(best, rate)
            if trial.seconds > self._seconds:
                return
            batch *= 2

    def _try(self, model: Model, items: list[Any], opened: Device) -> Trial | None:
        """None when memory ran out."""
        failed = False
        try:
            with opened.measure(model.outside_torch) as peak:
                model.run(items)
            taken = durations(lambda: model.run(items), self._device, self._seconds / 8, least=2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if failed:
            opened.release()
            return None
        return Trial(len(items), median(taken), peak.extra_bytes)

    def _at_best(
        self, role: Role, model: Model, groups: Groups, batch: int, trials: tuple[Trial, ...], items: dict[str, int]
    ) -> Stage:
        """Every group at this batch; the figures of the stage are those of the largest group."""
        largest = max(groups, key=len)
        whole = 0.0  # seconds for all items of the medium
        with meter(self._uuid) as watch:
            taken = durations(lambda: model.run(_tiled(largest, batch)), self._device, self._seconds / 2)
        for group in groups:
            run = _running(model, _tiled(group, batch))
            each = taken if group is largest else durations(run, self._device, self._seconds / 8, least=2)
            whole += median(each) * len(group) / batch
        counted = None if model.outside_torch else work_of(_running(model, _tiled(largest, batch)))
        total = sum(map(len, groups))
        return Stage(
            name=role,
            model=model.info.label,
            precision=model.precision,
            batch=batch,
            seconds=median(taken),
            low_seconds=min(taken),
            high_seconds=max(taken),
            flops=counted.flops if counted else None,
            bytes=counted.bytes if counted else None,
            trials=trials,
            use=_use(watch, sum(taken)),
            items=items,
            medium_seconds={sampling: whole * count / total for sampling, count in items.items()},
        )

    def _note_speech(self, model: Model, items: list[Any], batch: int, opened: Device) -> None:
        """What was said becomes the text model's work; and what it costs to watch memory that torch does not know."""
        heard: list[Transcript] = []
        for first in range(0, len(items), batch):
            heard += model.run(items[first : first + batch])
        self._texts = [text for each in heard for segment in each.segments if (text := segment.text.strip())]
        self._halves["sampler_ratio"] = _sampler_ratio(model, _tiled(items, batch), opened, self._device)

    def _split(self, model: Model, work: Recorded, batch: int) -> None:
        """Encoder and decoder by themselves."""
        path = registry.resolve("speech", self._config.models.speech, Path(self._config.models.directory))
        windows = [work.pcm(window) for window in _tiled(work.index.windows, batch)]
        halves = measure_halves(path, self._device, model.precision, windows, self._seconds / 4)
        self._halves |= {
            "tokens": tuple(halves.tokens),
            "token_seconds": sum(map(len, windows)) / registry.SAMPLE_RATE,
        }
        for name, taken, each in (
            ("encoder", halves.encoder_seconds, halves.encoder),
            ("decoder", halves.decoder_seconds, halves.decoder),
        ):
            self._stages.append(_half(f"speech: {name}", model, batch, taken, each))


def _half(name: str, model: Model, batch: int, taken: list[float], work: Work) -> Stage:
    return Stage(
        name=name,
        model=model.info.label,
        precision=model.precision,
        batch=batch,
        seconds=median(taken),
        low_seconds=min(taken),
        high_seconds=max(taken),
        flops=work.flops,
        bytes=work.bytes,
    )


def _sampler_ratio(model: Model, items: list[Any], opened: Device, device: str) -> float | None:
    """Rounds with the memory watched and without, in turn; None where nobody watches (the CPU)."""
    if device == "cpu":
        return None
    ratios = []
    for _ in range(SAMPLER_ROUNDS):
        [plain] = durations(lambda: model.run(items), device, 0.0, least=1)
        with opened.measure(outside_torch=True):
            [watched] = durations(lambda: model.run(items), device, 0.0, least=1)
        ratios.append(watched / plain)
    return median(ratios)


def _use(watch: CardMeter | NoMeter, seconds: float) -> float | None:
    """The mean of what NVML said; nothing where it had no time to say it."""
    said = [sample.use for sample in watch.samples if sample.use is not None]
    return sum(said) / len(said) if said and seconds >= METER_LEAST_SECONDS else None


def _running(model: Model, items: list[Any]) -> Callable[[], object]:
    return lambda: model.run(items)


def _tiled(items: Sequence[Any], count: int) -> list[Any]:
    """So many, over and over where there are fewer."""
    return list(itertools.islice(itertools.cycle(items), count))


def _parts(items: list[Any], count: int) -> Iterator[list[Any]]:
    """Up to `count` neighbouring parts of about equal length. Raises ValueError when there is nothing to part."""
    if not items:
        raise RuntimeError("the speech model made no phrases of this medium: the text model has no work")
    size = -(-len(items) // count)
    for first in range(0, len(items), size):
        yield items[first : first + size]
