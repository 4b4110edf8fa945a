"""What runs of Sluice and of the baselines come to, as tables. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from benches.baseline_runs import Run
from benches.measuring import median
from benches.report import Cell, Chart, Table
from stages.store import FRAMES, SPEECH, VOICES

MB = 1e6
STEPS = ("decode", "image", "sound", "speech", "text", "voice", "upsert")


def corpus_table(runs: Mapping[str, Sequence[Run]], seconds: float) -> Table:
    """Medians of all rounds."""
    columns = (
        "system",
        "hours/hour",
        "wall s",
        "wall s without start-up",
        "CPU s",
        "CPU s without start-up",
        "peak MB, shared pages once",
        "peak MB, sum of RSS",
    )
    rows = tuple((system, *_figures(some, seconds)) for system, some in runs.items())
    return Table(f"{seconds / 60:.1f} minutes of media", columns, rows)


def _figures(some: Sequence[Run], seconds: float) -> Iterable[Cell]:
    wall = median([run.wall_seconds for run in some])
    yield seconds / wall
    yield wall
    yield median([run.work_seconds for run in some])
    yield median([run.cpu_seconds for run in some])
    yield median([run.work_cpu_seconds for run in some])
    yield median([run.peak_pss_bytes / MB for run in some])
    yield median([run.peak_rss_bytes / MB for run in some])


def points_table(runs: Mapping[str, Sequence[Run]]) -> Table:
    """Of the last round; every round stores the same."""
    kinds = (FRAMES, SPEECH, VOICES)
    rows = tuple((system, *(some[-1].points.get(kind) for kind in kinds)) for system, some in runs.items())
    return Table("points stored", ("system", *kinds), rows)


def steps_table(some: Sequence[Run]) -> Table:
    """Where one by one spends its time: wall seconds of each step, of all videos together."""
    rows = tuple((step, median([step_seconds(run, step) for run in some])) for step in STEPS)
    return Table("steps of one by one", ("step", "wall s"), rows)


def step_seconds(run: Run, step: str) -> float:
    """Of all videos of a run."""
    return sum(done.steps.get(step, 0.0) for done in run.done)


def peaks_table(runs: Mapping[str, Run]) -> Table:
    """Peak of each process; of several of one kind, the highest."""
    rows = tuple((system, role, peak / MB) for system, run in runs.items() for role, peak in sorted(run.peaks.items()))
    return Table("peak of each process", ("system", "process", "RSS, MB"), rows)


def system_bars(runs: Mapping[str, Sequence[Run]], seconds: float) -> Chart:
    """Throughput of all systems."""
    bars = {system: seconds / median([run.wall_seconds for run in some]) for system, some in runs.items()}
    return Chart("baselines", "whole runs", "", "hours of media an hour", bars=bars, kind="bars")


def memory_chart(runs: Mapping[str, Run]) -> Chart:
    """Memory over time."""
    lines = {system: tuple((at, used / MB) for at, used in run.memory) for system, run in runs.items()}
    return Chart("film-memory", "memory of all processes", "seconds", "MB", lines=lines, log_y=True)


def notes(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """What a reader has to know."""
    frames = {some[-1].points.get(FRAMES) for some in runs.values()}
    return [
        "the models are small and untrained: what is compared is the work around them. Wall times hold start-up, which "
        "is imports and loading models, mostly; without it, they count from when all models are loaded to the end",
        f"{'all systems store the same number of frames' if len(frames) == 1 else 'the numbers of frames DIFFER'}; of "
        "speech they need not: faster-whisper joins stretches of speech to 30 s without the silence between, Sluice's "
        "windows are the sound as it is, so untrained Whisper says other things. Sluice also finds out who speaks "
        "when, keeps a ledger and hashes the files, which the baselines do not",
    ]
