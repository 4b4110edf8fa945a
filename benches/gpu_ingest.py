"""The whole of Sluice on one budget: `run.py ingest --profile` over files, with decoders, sockets and an embedded
store, watched from outside.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.gpu_card import Sample, meter
from benches.gpu_fed import Points, Run, thinned
from benches.watching import TreeWatch, Watched
from stages.base import ROLES

RUN = Path(__file__).parents[1] / "run.py"


def run_ingest(
    files: Sequence[Path], settings: Sequence[str], directory: Path, uuid: str | None, decoders: int, sampling: str
) -> Run:
    """Index the files into a fresh store below `directory`. Raises RuntimeError with the command's last line."""
    directory.mkdir(parents=True, exist_ok=True)
    report, log = directory / "report.json", directory / "ingest.log"
    own = [f"store.path={json.dumps(str(directory / 'store'))}", f"decode.sampling={sampling}"]
    command = [sys.executable, str(RUN), "ingest", *map(str, files), "--profile", "--report", str(report)]
    command += [part for setting in (*settings, *own, f"decode.processes={decoders}") for part in ("--set", setting)]
    with log.open("wb") as output, meter(uuid) as card:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        with TreeWatch(process.pid) as tree:
            process.wait()
    if not report.exists():
        raise RuntimeError(last_line(log))
    memory = _held(card.samples) or _resident(list(tree.processes.values()))
    return run_of(json.loads(report.read_text("utf-8")), sampling, decoders, tuple(card.samples), thinned(memory))


def last_line(log: Path) -> str:
    """Of what a process said before it ended."""
    return (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]


def _held(samples: Sequence[Sample]) -> Points:
    """What the card holds more than before, by whoever: nothing else shall run on it."""
    return [(sample.seconds, float(sample.used_bytes - samples[0].used_bytes)) for sample in samples]


def _resident(processes: Sequence[Watched]) -> Points:
    """The engine's own, where the device is the CPU."""
    engines = [each.series for each in processes if each.name.endswith("engine")]
    return max(engines, key=len, default=[])


def run_of(
    report: dict[str, Any],
    sampling: str,
    decoders: int = 0,
    card: tuple[Sample, ...] = (),
    memory: tuple[tuple[float, float], ...] = (),
) -> Run:
    """What a report with its profile says, from the moment on when the models were loaded. Pure."""
    totals, profile = report["totals"], report["profile"]
    stages = {row["stage"]: row for row in profile["stages"] if row["stage"] in ROLES}
    seconds = profile["seconds"]
    return Run(
        sampling=sampling,
        media_seconds=totals["media_seconds"],
        wall_seconds=seconds,
        start_seconds=profile["start_seconds"],
        budget_bytes=totals["device_budget_bytes"],
        peak_bytes=totals["peak_device_bytes"] or totals["peak_rss_bytes"]["engine"],
        busy_fraction=totals["device_busy_fraction"],
        items={role: round(row["rate"] * seconds) for role, row in stages.items()},
        busy_seconds={role: row["share"] * seconds for role, row in stages.items()},
        failures=sum(len(row["failures"]) for row in report["videos"]),
        oom_events=totals["oom_events"],
        batch_splits=sum(row["batch_splits"] for row in report["videos"]),
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
