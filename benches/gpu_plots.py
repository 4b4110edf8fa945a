"""The plots of the GPU bench. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from benches.gpu_alone import Alone, Stage
from benches.gpu_card import Card, Sample
from benches.gpu_fed import Run
from benches.report import Chart
from benches.roofline import Roof, Work

GB = 10**9
TFLOPS = 1e12

Line = tuple[tuple[float, float], ...]


class Named(Protocol):
    """A run with what it is called."""

    @property
    def name(self) -> str: ...

    @property
    def slug(self) -> str: ...

    @property
    def run(self) -> Run: ...


def counted(alone: Alone) -> Iterator[tuple[Stage, Work]]:
    """The stages whose operations were counted."""
    for stage in alone.stages:
        if stage.flops and stage.bytes:
            yield stage, Work(stage.flops, stage.bytes)


def roof_for(stage: Stage, card: Card) -> tuple[Roof, str]:
    """The card's limits for the number format of a stage, and whose peak of arithmetic that is."""
    flops, whose = card.flops_for(stage.precision)
    return Roof(flops, card.bytes_per_second), whose


def roofline_chart(alone: Alone, card: Card) -> Chart:
    """Every stage as a point, under the roof for its number format."""
    points = {stage.name: ((work.intensity, work.flops / stage.seconds / TFLOPS),) for stage, work in counted(alone)}
    places = [x for line in points.values() for x, _ in line] or [1.0]
    roofs = {f"roof, {whose}": roof for roof, whose in (roof_for(stage, card) for stage, _ in counted(alone))}
    edges = [*places, *(roof.ridge for roof in roofs.values())]
    lines = {
        name: tuple((x, roof.at(x) / TFLOPS) for x in sorted({min(edges) / 2, roof.ridge, max(edges) * 2}))
        for name, roof in roofs.items()
    }
    return Chart(
        name="gpu-roofline",
        title=f"Stages alone, under the roof of {card.label}",
        x="FLOP a byte",
        y="TFLOP/s",
        lines=points | lines,
        log_x=True,
        log_y=True,
        limits=tuple(lines),
    )


def batches_chart(alone: Alone) -> Chart:
    """How much of its best rate each model has at each batch size."""
    lines: dict[str, Line] = {}
    for stage in alone.stages:
        rates = [(float(trial.batch), trial.batch / trial.seconds) for trial in stage.trials]
        best = max((rate for _, rate in rates), default=0.0)
        if best:
            lines[stage.name] = tuple((batch, rate / best) for batch, rate in rates)
    return Chart(
        "gpu-batches", "Models alone by batch size", "items a batch", "share of the best rate", lines, log_x=True
    )


def memory_charts(runs: Iterable[Named]) -> Iterator[Chart]:
    """Memory over time against the budget, a plot for each run."""
    for each in runs:
        run = each.run
        if run.memory:
            ends = (run.memory[0][0], run.memory[-1][0])
            yield Chart(
                name=f"gpu-memory-{each.slug}",
                title=f"Device memory: {each.name}",
                x="s",
                y="GB held",
                lines={
                    "held": tuple((at, held / GB) for at, held in run.memory),
                    "budget": tuple((at, run.budget_bytes / GB) for at in ends),
                },
                limits=("budget",),
            )


def use_charts(runs: Iterable[Named]) -> Iterator[Chart]:
    """Use of the device over time: as NVML has it, and as the engine has it."""
    for each in runs:
        lines: dict[str, Line] = {
            "in models (engine)": each.run.busy,
            "in use (NVML)": used(each.run.card),
        }
        drawn = {name: line for name, line in lines.items() if line}
        if drawn:
            yield Chart(f"gpu-use-{each.slug}", f"Use of the device: {each.name}", "s", "share of the time", drawn)


def used(samples: Sequence[Sample]) -> Line:
    """What NVML said of the use, where it said anything."""
    return tuple((sample.seconds, sample.use) for sample in samples if sample.use is not None)
