"""The whole of Sluice on one budget: `run.py ingest --profile` over files, with decoders, sockets and an embedded
store, watched from outside.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.gpu_card import Sample, meter
from benches.gpu_fed import Points, Run, thinned
from benches.watching import Watched
from benches.whole_run import Ingest, Seen
from stages.base import ROLES

SOME_FAILED = 3  # an exit code that still comes with a report


def run_ingest(
    files: Sequence[Path], settings: Sequence[str], directory: Path, uuid: str | None, decoders: int, sampling: str
) -> Run:
    """Index the files into a fresh store below `directory`. Raises RunFailedError when it ends without a report.

    The settings come last, too, so that run.state is theirs: what the fed engine learned of its models is known.
    """
    own = (f"decode.sampling={sampling}", f"decode.processes={decoders}", *settings)
    options = ("--profile", *(part for setting in own for part in ("--set", setting)))
    ingest = Ingest(settings, directory, options, allowed_codes=(0, SOME_FAILED))
    with meter(uuid) as card:
        seen = ingest.run(files)
    memory = thinned(_held(card.samples) or _resident(seen.processes))
    return run_of(seen, sampling, decoders, tuple(card.samples), memory)


def _held(samples: Sequence[Sample]) -> Points:
    """What the card holds more than before, by whoever: nothing else shall run on it."""
    return [(sample.seconds, float(sample.used_bytes - samples[0].used_bytes)) for sample in samples]


def _resident(processes: Sequence[Watched]) -> Points:
    """The engine's own, where the device is the CPU."""
    return max((each.series for each in processes if each.role == "engine"), key=len, default=[])


def run_of(
    seen: Seen,
    sampling: str,
    decoders: int = 0,
    card: tuple[Sample, ...] = (),
    memory: tuple[tuple[float, float], ...] = (),
) -> Run:
    """What a run and its report say, from the moment on when the models were loaded until the last file was done."""
    totals, profile = seen.report["totals"], seen.report["profile"]
    stages = {row["stage"]: row for row in profile["stages"] if row["stage"] in ROLES}
    return Run(
        sampling=sampling,
        media_seconds=totals["media_seconds"],
        wall_seconds=seen.work_wall_seconds,
        start_seconds=seen.ready.wall_seconds,
        budget_bytes=totals["device_budget_bytes"],
        peak_bytes=totals["peak_device_bytes"] or totals["peak_rss_bytes"]["engine"],
        busy_fraction=totals["device_busy_fraction"],
        items={role: round(row["rate"] * profile["seconds"]) for role, row in stages.items()},
        busy_seconds={role: row["share"] * profile["seconds"] for role, row in stages.items()},
        failures=sum(len(row["failures"]) for row in seen.report["videos"]),
        oom_events=totals["oom_events"],
        batch_splits=sum(row["batch_splits"] for row in seen.report["videos"]),
        changes=totals["model_changes"],
        change_seconds=totals["model_change_seconds"],
        **totals["pressure"],
        memory=memory,
        card=card,
        decoders=decoders,
        notes=(where(profile),),
    )


def where(profile: dict[str, Any]) -> str:
    """Where the time went, from the moment on when the models were loaded. Pure."""
    decoders, engine, cores = profile["decoders"], profile["engine"], profile["cores_used"]
    store = next(row["share"] for row in profile["stages"] if row["stage"] == "store")
    used = ", ".join(f"{role} {count:.1f}" for role, count in cores.items())
    return (
        f"decoders {decoders['decode']:.0%} decoding and {decoders['credit']:.0%} waiting for credit, engine "
        f"{engine['running']:.0%} running models and {engine['waiting']:.0%} waiting for items, store {store:.0%} "
        f"writing; cores used: {used}"
    )
