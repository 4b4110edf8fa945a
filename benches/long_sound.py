"""Memory for long sound tracks: `python -m benches.long_sound MEDIUM [--hours 2 8] [--models DIR] [--read-only]`.

Joins copies of MEDIUM's sound track to the lengths asked for by stream copy, without pictures, and measures for each

- the reader: a process of its own that imports what a decoder imports, and then cuts the track into speech windows;
- unless --read-only, every process of a whole run: one decoder, the engine with tiny models (untrained, so each window
  is decoded once, at temperature 0), the consumer with an embedded store, which labels the speakers at the end, and the
  supervisor.

Memory is VmHWM from /proc/PID/status, the peak of what is resident, in millions of bytes. "Before" is VmRSS of the
reader when it has imported, and of a child of the run when the medium has been opened, models loaded. "Own" is the peak
of RssAnon, which is no file: of the consumer that is what counts, for an embedded store maps its files into memory. A
run is looked at about five times a second, the reader at each window.

The engine widens its batches for as long as that makes it faster, which takes it about an hour of sound; so the lengths
to be compared are longer.

Prints JSON to standard output and a table to standard error; exit code 1 when a process's peaks differ by more than
SPREAD between the lengths. The consumer may take more for each further point: 1 kB of a voice window until the end of
the video, and what an embedded store holds (docs/store.md).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.audio_cost import join
from benches.corpus import import_all, libraries_for, machine
from benches.memory_child import status_mb
from benches.transport import in_process
from engine.config import Config, load_config
from engine.files import find_files
from engine.heap import keep_heap_whole
from engine.report import Peaks
from engine.supervisor import Supervisor
from engine.tasks import Board
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.tiny import build_tiny
from stages.windows import SpeechWindow, read_speech_windows

SPREAD = 0.05  # of the largest peak to the smallest, over lengths
CONSUMER_MB_A_VOICE = 0.001  # what may be kept of each voice window until its video ends
CONSUMER_MB_A_POINT = 0.0004  # ids and indexes of an embedded store: docs/store.md
PARTS = ("reader", "decoder", "engine", "consumer", "supervisor")


# --- the reader alone -------------------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """Runs in a process of its own: as a decoder starts, and then all windows of the track."""
    keep_heap_whole()
    media = probe(os.fsencode(path), DecodeOptions())
    import_all(["engine.producer", *libraries_for(media, "pyav")])
    memory, begin = first_use(status_mb(os.getpid())), time.process_time()
    windows, speech_seconds = 0, 0.0
    for item in read_speech_windows(os.fsencode(path), media, DecodeOptions(), SpeechOptions()):
        if isinstance(item, SpeechWindow):
            look(memory, os.getpid())
            windows += 1
            speech_seconds += sum(end - start for start, end in item.speech)
    return {
        "memory": {"reader": memory},
        "hours": (media.duration_seconds or 0.0) / 3600,
        "speech_hours": speech_seconds / 3600,
        "windows": windows,
        "cpu_seconds": time.process_time() - begin,
    }


def first_use(status: dict[str, float]) -> dict[str, float]:
    """Of a process that has not worked yet."""
    return {"before_mb": status["VmRSS"], "peak_mb": status["VmHWM"], "own_mb": status["RssAnon"]}


def look(use: dict[str, float], pid: int) -> None:
    """Bring the peaks up to date; a process that is gone has none."""
    status = status_mb(pid)
    use["peak_mb"] = max(use["peak_mb"], status.get("VmHWM", 0.0))
    use["own_mb"] = max(use["own_mb"], status.get("RssAnon", 0.0))


# --- whole runs -------------------------------------------------------------------------------------------------------


class RoleWatcher:
    """An observer of a run that reads the memory of every process at each tick."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.memory: dict[str, dict[str, float]] = {}  # by role

    def phase(self, text: str) -> None:
        """Not of interest."""

    def note(self, text: str) -> None:
        """Not of interest."""

    def finished(self, row: dict[str, Any]) -> None:
        """The report has it."""

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        if board is None or not any(job.media is not None for job in board.jobs.values()):
            return
        for role, pid in self._processes().items():
            status = status_mb(pid)
            if role not in self.memory and status:
                self.memory[role] = first_use(status)
            elif status:
                look(self.memory[role], pid)

    def _processes(self) -> dict[str, int]:
        fleet = self.supervisor.fleet if self.supervisor is not None else None
        if fleet is None:
            return {}
        children = {"decoder": fleet.decoders[0], "engine": fleet.engine, "consumer": fleet.consumer}
        pids = {role: child.process.pid for role, child in children.items()}
        return {"supervisor": os.getpid(), **{role: pid for role, pid in pids.items() if pid is not None}}


def index(path: Path, models: Path) -> dict[str, Any]:
    """Runs in a process of its own, the supervisor: a whole run on one track."""
    with tempfile.TemporaryDirectory() as directory:
        config = run_settings(models, directory)
        watcher = RoleWatcher()
        watcher.supervisor = Supervisor(config, watcher)
        report = watcher.supervisor.run(find_files([os.fsencode(path)], config.run.extensions))
    (row,) = report["videos"]
    keys = ("status", "gaps", "text_coverage", "voice_coverage", "speech_segments", "voice_segments", "wall_seconds")
    return {"memory": watcher.memory, **{key: row[key] for key in keys}}


def run_settings(models: Path, directory: str) -> Config:
    """Everything that the run writes lies in `directory`."""
    tiny = build_tiny(models)
    return load_config(
        settings=[
            "models.image=off",
            f"models.speech={tiny['whisper']}",
            f"models.voice={tiny['ecapa']}",
            f"store.path={directory}/store",
            f"run.state={directory}/state",
            "speech.temperatures=[0]",
            "decode.processes=1",
            "device.name=cpu",
        ]
    )


# --- verdict ----------------------------------------------------------------------------------------------------------


def verdict(lengths: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the peaks of all lengths say. Pure."""
    spreads = {part: spread(lengths, part) for part in PARTS if all(part in each["memory"] for each in lengths)}
    return {"spread_over_lengths": spreads, "within_limits": max(spreads.values()) <= SPREAD}


def spread(lengths: Sequence[dict[str, Any]], part: str) -> float:
    """By how much the largest peak exceeds the smallest, as a share of that."""
    peaks = [bounded_mb(each, part) for each in lengths]
    return float(max(peaks) / min(peaks) - 1)


def bounded_mb(length: dict[str, Any], part: str) -> float:
    """The peak that must not depend on the length."""
    use = length["memory"][part]
    if part != "consumer":
        return float(use["peak_mb"])
    voices, points = length["voice_segments"], length["voice_segments"] + length["speech_segments"]
    return float(use["own_mb"] - CONSUMER_MB_A_VOICE * voices - CONSUMER_MB_A_POINT * points)


def table(lengths: Sequence[dict[str, Any]]) -> str:
    """One line for each length and process. Pure."""
    lines = [f"{'hours':>7}  {'process':12}{'before MB':>10}{'peak MB':>9}{'above MB':>10}{'own MB':>9}"]
    for each in lengths:
        for part in (part for part in PARTS if part in each["memory"]):
            before, peak, own = (each["memory"][part][key] for key in ("before_mb", "peak_mb", "own_mb"))
            lines.append(f"{each['hours']:7.2f}  {part:12}{before:10.1f}{peak:9.1f}{peak - before:10.1f}{own:9.1f}")
    return "\n".join(lines)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All that the arguments ask for."""
    lengths = []
    with tempfile.TemporaryDirectory() as name:
        models = None if given.read_only else given.models or Path(name) / "models"
        if models is not None:
            build_tiny(models)  # here, for it takes memory
        for hours in sorted(given.hours):
            path = Path(name) / f"{hours}-hours.mka"
            join(given.medium, path, hours)
            lengths.append(one_length(path, models))
            print(table(lengths[-1:]), file=sys.stderr, flush=True)
            path.unlink()
    return {"machine": machine(), "medium": given.medium.name, "lengths": lengths, "verdict": verdict(lengths)}


def one_length(path: Path, models: Path | None) -> dict[str, Any]:
    """The reader, and a whole run where there are models."""
    figures: dict[str, Any] = in_process(read, path)
    if models is None:
        return figures
    run = in_process(index, path, models)
    return {**figures, **run, "memory": {**figures["memory"], **run["memory"]}}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medium", type=Path, metavar="MEDIUM")
    parser.add_argument("--hours", type=float, nargs="+", default=[2.0, 8.0])
    parser.add_argument("--models", type=Path, metavar="DIR", help="where tiny models are, or shall be built")
    parser.add_argument("--read-only", action="store_true", help="no whole runs: minutes instead of an hour")
    return parser.parse_args(arguments)


def main() -> int:
    result = measure(parse_arguments())
    print(json.dumps(result, indent=2), flush=True)
    print(table(result["lengths"]), file=sys.stderr)
    return 0 if result["verdict"]["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
