"""What the parts of the GPU bench found, as tables, ratios, plots and notes. Pure."""

from collections.abc import Iterator

from benches.gpu_alone import Alone, Stage
from benches.gpu_card import Card
from benches.gpu_fed import Run
from benches.gpu_notes import notes
from benches.gpu_plots import batches_chart, counted, memory_charts, roof_for, roofline_chart, use_charts
from benches.gpu_results import GIB, WORDS, Results, Series, alone_rate, hour_seconds, slowest_alone
from benches.gpu_work import SAMPLINGS, Facts
from benches.report import Cell, Findings, Ratio, Table
from benches.roofline import Work
from stages.base import ROLES

WHOLE_CARD_AIM = 500.0  # hours/hour with key frames, on an H200
SMALL_AIM, SMALL_GB = 50.0, 16.0  # hours/hour within so much memory
SHARE_AIM = 0.95  # of the slowest stage alone


def findings(results: Results) -> Findings:
    """The report's contents, of whatever parts there are."""
    found = Findings(device=results.card.label)
    found.tables.append(card_table(results.card))
    if results.alone is not None and results.facts is not None:
        found.tables += [alone_table(results.alone), hour_table(results.alone, results.facts)]
        found.tables.append(roofline_table(results.alone, results.card))
        found.charts += [roofline_chart(results.alone, results.card), batches_chart(results.alone)]
    if results.series:
        found.tables += [engine_table(results), memory_table(results)]
        found.tables += [pace_table(results, results.alone)] if results.alone is not None else []
        found.charts += [*memory_charts(results.runs()), *use_charts(results.runs())]
    if results.facts is not None:
        found.tables.append(feeding_table(results, results.facts))
    found.ratios += list(ratios(results))
    found.notes += list(notes(results))
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def card_table(card: Card) -> Table:
    """What it reached by itself."""
    rows: list[tuple[Cell, ...]] = [
        (f"matrix product, {name}", flops / 1e12, "TFLOP/s") for name, flops in card.flops_per_second.items()
    ]
    rows.append(("copy within its memory, read and written", card.bytes_per_second / 1e9, "GB/s"))
    rows += [(f"copy to it from {name} memory", speed / 1e9, "GB/s") for name, speed in card.to_device.items()]
    return Table(f"{card.label}, {card.total_bytes / GIB:.1f} GiB", ("peak, measured", "", ""), tuple(rows))


def alone_table(alone: Alone) -> Table:
    """Each model at its best batch."""
    rows = [
        (
            stage.name,
            stage.model,
            stage.precision,
            stage.batch,
            stage.batch / stage.seconds,
            1000 * stage.seconds,
            f"{1000 * stage.low_seconds:.1f} to {1000 * stage.high_seconds:.1f}",
            _peak_mb(stage),
            stage.use,
        )
        for stage in alone.stages
    ]
    columns = (
        "alone",
        "model",
        "precision",
        "best batch",
        "items/s",
        "ms a batch",
        "spread",
        "MB a batch",
        "card in use",
    )
    return Table("Models alone, items from memory", columns, tuple(rows))


def _peak_mb(stage: Stage) -> float | None:
    peaks = [trial.peak_bytes for trial in stage.trials if trial.batch == stage.batch]
    return peaks[0] / 1e6 if peaks and peaks[0] is not None else None


def hour_table(alone: Alone, facts: Facts) -> Table:
    """What an hour of media costs the device at least."""
    rows: list[tuple[Cell, ...]] = []
    for role in ROLES:
        costs = {sampling: hour_seconds(alone, facts, sampling).get(role) for sampling in SAMPLINGS}
        if any(cost is not None for cost in costs.values()):
            rows.append((role, *costs.values()))
    rows.append(("all models", *(sum(hour_seconds(alone, facts, sampling).values()) for sampling in SAMPLINGS)))
    rows.append(("hours/hour at most", *(alone_rate(alone, facts, sampling) for sampling in SAMPLINGS)))
    columns = ("device seconds for an hour of media", *(WORDS[sampling] for sampling in SAMPLINGS))
    return Table("Model-only: every model at its best batch", columns, tuple(rows))


def roofline_table(alone: Alone, card: Card) -> Table:
    """What was reached, and what could be."""
    rows = [(stage.name, stage.batch, *_reached(stage, work, card)) for stage, work in counted(alone)]
    columns = (
        "stage", "batch", "GFLOP a batch", "GB a batch", "TFLOP/s", "of the peak", "whose", "GB/s", "of the memory's",
        "limit", "of the roof",
    )  # fmt: skip
    return Table("Against the card's own peaks, at the best batch", columns, tuple(rows))


def _reached(stage: Stage, work: Work, card: Card) -> tuple[Cell, ...]:
    roof, whose = roof_for(stage, card)
    flops, moved = work.flops / stage.seconds, work.bytes / stage.seconds
    return (
        work.flops / 1e9,
        work.bytes / 1e9,
        flops / 1e12,
        flops / roof.flops_per_second,
        whose,
        moved / 1e9,
        moved / roof.bytes_per_second,
        "compute" if work.intensity >= roof.ridge else "memory",
        flops / roof.at(work.intensity),
    )


def engine_table(results: Results) -> Table:
    """Every run of the whole engine."""
    columns = (
        "run", "hours/hour", "of model-only", "busy", "card in use", "hours of media", "s", "start, s", "failures",
    )  # fmt: skip
    return Table("The whole engine", columns, tuple(_engine_row(results, *each) for each in results.runs()))


def _engine_row(results: Results, name: str, series: Series, run: Run) -> tuple[Cell, ...]:
    best = alone_rate(results.alone, results.facts, run.sampling)
    return (
        name,
        run.hours_per_hour,
        run.hours_per_hour / best if best else None,
        run.busy_fraction,
        mean([sample.use for sample in run.card if sample.use is not None]),
        run.media_seconds / 3600,
        run.wall_seconds,
        run.start_seconds,
        run.failures,
    )


def mean(values: list[float]) -> float | None:
    """None of nothing."""
    return sum(values) / len(values) if values else None


def pace_table(results: Results, alone: Alone) -> Table:
    """How fast each model is inside the engine, while it has the device, as a share of its rate alone."""
    rates = {stage.name: stage.batch / stage.seconds for stage in alone.stages}
    rows = [(name, *(_pace(run, role, rates) for role in ROLES)) for name, _, run in results.runs()]
    return Table("Rate of each model while it runs, in parts of its best alone", ("run", *ROLES), tuple(rows))


def _pace(run: Run, role: str, rates: dict[str, float]) -> float | None:
    busy, alone = run.busy_seconds.get(role), rates.get(role)
    return run.items[role] / busy / alone if busy and alone else None


def memory_table(results: Results) -> Table:
    """Memory and what it led to, in every run."""
    columns = (
        "run", "budget, GiB", "peak, GiB", "out of memory", "splits", "alone", "changes", "time in changes",
        "releases, halvings, stops", "batches found",
    )  # fmt: skip
    return Table("Device memory", columns, tuple(_memory_row(name, run) for name, _, run in results.runs()))


def _memory_row(name: str, run: Run) -> tuple[Cell, ...]:
    return (
        name,
        run.budget_bytes / GIB,
        run.peak_bytes / GIB,
        run.oom_events,
        run.batch_splits,
        run.alone,
        run.changes,
        run.change_seconds / run.wall_seconds if run.wall_seconds else None,
        f"{run.releases}, {run.halvings}, {run.stops}",
        " ".join(f"{role} {size}" for role, size in run.batches.items()) or None,
    )


def feeding_table(results: Results, facts: Facts) -> Table:
    """Decoders that the card can keep busy."""
    rows: list[tuple[Cell, ...]] = []
    for sampling in SAMPLINGS:
        cost = facts.cpu_seconds_an_hour(sampling)
        fed = results.run("fed", None, sampling)
        rate = fed.hours_per_hour if fed is not None else alone_rate(results.alone, facts, sampling)
        frames = facts.frames[sampling] * 3600 / facts.media_seconds
        rows.append((WORDS[sampling], frames, cost, 3600 / cost, rate, rate * cost / 3600 if rate else None))
    columns = (
        "sampling", "frames an hour", "decoding, CPU s an hour", "hours/hour of one core", "hours/hour of the device",
        "cores to keep it busy",
    )  # fmt: skip
    return Table(f"Decoding {facts.medium}, {facts.media_seconds:.0f} s", columns, tuple(rows))


# --- ratios -----------------------------------------------------------------------------------------------------------


def ratios(results: Results) -> Iterator[Ratio]:
    """With aims only on a card: they are of a card."""
    aims = results.card.is_cuda
    for name, series, run in results.runs():
        yield Ratio(f"hours/hour: {name}", run.hours_per_hour, _rate_aim(series, run) if aims else None, "higher")
        slowest = slowest_alone(results, series, run)
        if slowest:
            share = run.hours_per_hour / slowest
            yield Ratio(f"of the slowest stage alone: {name}", share, SHARE_AIM if aims else None, "higher")
        if run.budget_bytes:
            yield Ratio(f"peak / budget: {name}", run.peak_bytes / run.budget_bytes, 1.0 if aims else None)


def _rate_aim(series: Series, run: Run) -> float | None:
    if run.sampling != "keyframes":
        return None
    return {None: WHOLE_CARD_AIM, SMALL_GB: SMALL_AIM}.get(series.budget_gb)
