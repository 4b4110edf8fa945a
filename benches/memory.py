"""Peak memory of the decoder processes in whole runs: `python -m benches.memory [MEDIUM] [--hours 0.1667 2]`.

Joins copies of MEDIUM (generated footage where none is named) to the lengths asked for by stream copy, and indexes each
in a whole run: supervisor, engine, consumer and decoders as processes, tiny models, one frame a second, an embedded
store in a temporary directory. With each backend once as it is; and on the longest file once more with the engine
stopped (SIGSTOP) for --stop-engine seconds, after which the same points must be stored. It is stopped once the file
is open, while the decoders still have all their credit: what they send then stays in their own memory.

How memory is read. Of each decoder, VmHWM (the peak of its resident memory) and RssAnon (the part that is no file) from
/proc/PID/status, about five times a second. "Imports" is VmRSS of a process that the same parent starts in the same way
(spawn, mallopt) and that only imports what such a decoder imports: engine.producer, torch and torchaudio; onnxruntime
where there is sound; decord with that backend. "Above imports" is the one less the other. So the voice detector's
weights, resampling filters, file indices and all pages of libraries that only work touches count as above. MB are
millions of bytes.

Prints JSON to standard output and a table to standard error; exit code 1 when a limit is exceeded: LIMIT_MB above
imports, SPREAD between the peaks of all lengths, stored points that differ when the engine was stopped.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benches.corpus import SEED, footage, import_all, lengthened, libraries_for, machine
from engine.config import Config, load_config
from engine.files import find_files
from engine.report import Peaks
from engine.supervisor import Supervisor
from engine.tasks import Board
from engine.worker import keep_heap_whole
from stages.media import probe
from stages.options import DecodeOptions
from stages.qdrant import open_store
from stages.store import FRAMES, SPEECH, VOICES
from stages.tiny import build_tiny

LIMIT_MB = 250.0  # above imports
SPREAD = 0.05  # of the largest peak to the smallest, over lengths


@dataclass
class Use:
    """Memory of one decoder, the largest seen, in MB."""

    peak_mb: float = 0.0
    anonymous_mb: float = 0.0
    above_imports_mb: float = 0.0


@dataclass
class Watcher:
    """An observer of a run that reads its decoders' memory at each tick, and may stop the engine for some time."""

    stop_seconds: float = 0.0
    uses: dict[int, Use] = field(default_factory=dict)  # by process id
    supervisor: Supervisor | None = None
    stopped_at: float | None = None
    stopped_seconds: float = 0.0

    def phase(self, text: str) -> None:
        """Not of interest."""

    def note(self, text: str) -> None:
        """Not of interest."""

    def finished(self, row: dict[str, Any]) -> None:
        """The report has it."""

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        fleet = self.supervisor.fleet if self.supervisor is not None else None
        if fleet is None:
            return
        for decoder in fleet.decoders:
            if decoder.process.pid is not None:
                self._look(decoder.process.pid)
        if self.stop_seconds and board is not None and any(job.media is not None for job in board.jobs.values()):
            assert fleet.engine.process.pid is not None
            self._stop_or_continue(fleet.engine.process.pid)

    def _look(self, pid: int) -> None:
        status = status_mb(pid)
        use = self.uses.setdefault(pid, Use())
        use.peak_mb = max(use.peak_mb, status.get("VmHWM", 0.0))
        use.anonymous_mb = max(use.anonymous_mb, status.get("RssAnon", 0.0))

    def _stop_or_continue(self, engine: int) -> None:
        now = time.monotonic()
        if self.stopped_at is None:
            self.stopped_at = now
            os.kill(engine, signal.SIGSTOP)
        elif self.stopped_at is not None and not self.stopped_seconds and now - self.stopped_at >= self.stop_seconds:
            os.kill(engine, signal.SIGCONT)
            self.stopped_seconds = now - self.stopped_at


def status_mb(pid: int) -> dict[str, float]:
    """The sizes in /proc/PID/status, in MB; empty when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines if line.endswith(" kB")}


# --- imports ----------------------------------------------------------------------------------------------------------


def imports_mb(backend: str, medium: Path) -> dict[str, float]:
    """What a decoder for such a medium weighs before it works: MB resident, and MB of it that are no file."""
    names = libraries_for(probe(os.fsencode(medium), DecodeOptions()), backend)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=only_import, args=(names, theirs))
    process.start()
    theirs.close()
    figures: dict[str, float] = ours.recv()
    process.join()
    return figures


def only_import(names: Sequence[str], result: Connection) -> None:
    """Runs in a process of its own: as a decoder starts, and no further."""
    keep_heap_whole()
    import_all(["engine.producer", *names])
    status = status_mb(os.getpid())
    result.send({"resident_mb": status["VmRSS"], "anonymous_mb": status["RssAnon"]})


# --- runs -------------------------------------------------------------------------------------------------------------


def run(medium: Path, backend: str, models: Path, stop_seconds: float, decoders: int) -> dict[str, Any]:
    """Index a medium in a whole run; returns the figures of its decoders, and what was stored."""
    with tempfile.TemporaryDirectory() as directory:
        config = settings(backend, models, directory, decoders)
        watcher = Watcher(stop_seconds)
        watcher.supervisor = Supervisor(config, watcher)
        report = watcher.supervisor.run(find_files([os.fsencode(medium)], config.run.extensions))
        counts, digest = stored(config)
    if watcher.stopped_seconds < stop_seconds:
        raise RuntimeError(f"the run on {medium.name} ended before the engine had been stopped for {stop_seconds} s")
    baseline = imports_mb(backend, medium)
    for use in watcher.uses.values():
        use.above_imports_mb = use.peak_mb - baseline["resident_mb"]
    row, totals = report["videos"][0], report["totals"]
    return {
        "backend": backend,
        "hours": row["duration_seconds"] / 3600,
        "engine_stopped_seconds": round(watcher.stopped_seconds, 1),
        "imports": baseline,
        "decoders": [asdict(use) for use in watcher.uses.values()],
        "peak_mb": max(use.peak_mb for use in watcher.uses.values()),
        "above_imports_mb": max(use.above_imports_mb for use in watcher.uses.values()),
        "other_peaks_mb": {role: size / 1e6 for role, size in totals["peak_rss_bytes"].items() if role != "decoder"},
        "status": row["status"],
        "gaps": len(row["gaps"]),
        "points": counts,
        "ids": digest,
        "hours_per_hour": totals["hours_per_hour"],
    }


def settings(backend: str, models: Path, directory: str, decoders: int) -> Config:
    """Everything that the run writes lies in `directory`."""
    tiny = build_tiny(models)
    return load_config(
        settings=[
            f"models.image={tiny['clip']}",
            f"models.speech={tiny['whisper']}",
            f"models.voice={tiny['ecapa']}",
            f"store.path={directory}/store",
            f"run.state={directory}/state",
            f"decode.backend={backend}",
            f"decode.processes={decoders}",
            "decode.fps=1",
            "speech.temperatures=[0]",  # untrained, so no window would ever pass
            "device.name=cpu",
        ]
    )


def stored(config: Config) -> tuple[dict[str, int], str]:
    """How many points each collection has, and a digest of their ids."""
    digest, counts = hashlib.sha256(), {}
    store = open_store(config.store, None, read_only=True)
    for collection in (FRAMES, SPEECH, VOICES):
        ids = [point.id for point in store.scroll(collection, with_vectors=False)]
        digest.update("\n".join([collection, *sorted(ids)]).encode())
        counts[collection] = len(ids)
    store.close()
    return counts, digest.hexdigest()


# --- verdict ----------------------------------------------------------------------------------------------------------


def verdict(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs say about the limits. Pure."""
    spreads = {}
    for backend in dict.fromkeys(run["backend"] for run in runs):
        peaks = [run["peak_mb"] for run in runs if run["backend"] == backend and not run["engine_stopped_seconds"]]
        spreads[backend] = max(peaks) / min(peaks) - 1
    whole = {(run["backend"], run["hours"]): run for run in runs if not run["engine_stopped_seconds"]}
    stopped = [run for run in runs if run["engine_stopped_seconds"]]
    # Not "indexed": where copies are joined, the sound of an MP4 may step back by a frame, which is told as a gap.
    same = [
        all(run[key] == whole[run["backend"], run["hours"]][key] for key in ("ids", "status", "gaps"))
        for run in stopped
    ]
    highest = max(run["above_imports_mb"] for run in runs)
    return {
        "highest_above_imports_mb": highest,
        "spread_over_lengths": spreads,
        "same_points_when_stopped": all(same) if same else None,
        "within_limits": highest <= LIMIT_MB and max(spreads.values()) <= SPREAD and all(same),
    }


def table(runs: Sequence[dict[str, Any]]) -> str:
    """One line a run. Pure."""
    lines = [f"{'backend':8}{'hours':>7}{'stopped s':>11}{'imports MB':>12}{'peak MB':>9}{'above MB':>10}{'h/h':>7}  "]
    lines[0] += "points (frames, speech, voices)"
    for each in runs:
        points = ", ".join(str(count) for count in each["points"].values())
        lines.append(
            f"{each['backend']:8}{each['hours']:7.2f}{each['engine_stopped_seconds']:11.1f}"
            f"{each['imports']['resident_mb']:12.1f}{each['peak_mb']:9.1f}{each['above_imports_mb']:10.1f}"
            f"{each['hours_per_hour']:7.1f}  {points}"
        )
    return "\n".join(lines)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All runs that the arguments ask for."""
    runs = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        models = given.models or directory / "models"
        source = footage(given.medium, directory)
        media = [lengthened(source, directory, hours, given.ending) for hours in sorted(given.hours)]
        for backend in given.backend:
            cases = [(medium, 0.0) for medium in media]
            if given.stop_engine:
                cases.append((media[-1], given.stop_engine))
            for medium, stop_seconds in cases:
                runs.append(run(medium, backend, models, stop_seconds, given.decoders))
                print(table(runs).splitlines()[-1], file=sys.stderr, flush=True)
    return {
        "machine": machine(),
        "medium": given.medium.name if given.medium else f"generated footage, seed {SEED}",
        "decoders": given.decoders,
        "runs": runs,
        "verdict": verdict(runs),
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medium", type=Path, nargs="?", metavar="MEDIUM")
    parser.add_argument("--hours", type=float, nargs="+", default=[1 / 6, 2.0])
    parser.add_argument("--backend", nargs="+", choices=["pyav", "decord"], default=["pyav", "decord"])
    parser.add_argument("--stop-engine", type=float, default=30.0, metavar="SECONDS", help="0: leave these runs out")
    parser.add_argument("--decoders", type=int, default=1, help="processes; a lone one may hold the most in flight")
    parser.add_argument("--ending", metavar=".EXT", help="container of the long files; MEDIUM's own if left out")
    parser.add_argument("--models", type=Path, metavar="DIR", help="where tiny models are, or shall be built")
    return parser.parse_args(arguments)


def main() -> int:
    result = measure(parse_arguments())
    print(json.dumps(result, indent=2), flush=True)
    print(table(result["runs"]), file=sys.stderr)
    return 0 if result["verdict"]["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
