"""Who speaks when, in made conversations whose truth is known: `python -m benches.diarization [--hours 0.17 1 8]`.

Makes a conversation (benches/made_voices.py) of each length with each number of speakers, and has each method find the
speakers from the same voice vectors, in a process of its own with one thread:

- sluice: stages.diarization, its windows added in pages of 1024
- sluice, cut midway: the same, but turns change midway between the middles of windows of different speakers
- agglomerative: scikit-learn's AgglomerativeClustering, average linkage, cut at a mean cosine of 0.42; cut midway
- spectral: scikit-learn's SpectralClustering of the 5 % largest cosines of each window, as many speakers as the largest
  gap between eigenvalues says; cut midway
- spectral, told: the same, told the number of speakers

Columns: windows; speakers in them, and speakers found; share of windows with the wrong speaker; diarization error rate
by NIST's definition (benches/scoring.py) with collars of 0.25 s and 0, with speech of two at once counted twice, within
the sound that the windows cover; what of the first is missed, false and confused; seconds in which two speak at once,
seconds where two were found, and those that are both; CPU seconds; peak resident memory in MB (10^6), above that of
imports and data, and of the whole process. A method whose matrices alone exceed --memory-gb is not run; its need is
said instead.

`--talk` takes other conversations. Instead of the table, `--many N` shows how the error of sluice varies over N
conversations of each kind, and `--penalties` tries out what a change and a shared block may cost it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benches.labels import Turn
from benches.made_voices import TALKS, MadeVoices, make_voices, uneven
from benches.plain_clustering import Ints, Spoken, Windows, agglomerative, midway, spectral, spectral_told
from stages import turns as stage_turns
from stages.diarization import Diarizer
from stages.options import VoiceOptions

PAGE = 1024  # windows added at a time, as they come from the store
GB = 1e9


@dataclass(frozen=True)
class Method:
    """A way to find speakers."""

    find: Callable[[Windows], tuple[Ints, Spoken]]  # labels of windows, turns
    matrices: float = 0.0  # of n x n float64 numbers, at the least
    libraries: tuple[str, ...] = ("scipy.sparse.linalg", "sklearn.cluster")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    talk: str
    hours: float
    speakers: int
    method: str
    windows: int
    seed: int
    found: int = 0
    wrong_percent: float = 0.0
    error_percent: float = 0.0  # collar 0.25 s
    missed_percent: float = 0.0
    false_percent: float = 0.0
    confused_percent: float = 0.0
    error_no_collar_percent: float = 0.0
    two_seconds: float = 0.0  # speak at once
    two_found_seconds: float = 0.0
    two_right_seconds: float = 0.0  # found where they are
    cpu_seconds: float = 0.0
    above_mb: float = 0.0
    peak_mb: float = 0.0
    needs_gb: float | None = None  # not run


# --- the methods ------------------------------------------------------------------------------------------------------


def sluice(windows: Windows) -> tuple[Ints, Spoken]:
    """stages.diarization as the consumer uses it."""
    diarizer = Diarizer(windows.vectors.shape[1], VoiceOptions())
    for begin in range(0, len(windows.starts), PAGE):
        page = slice(begin, begin + PAGE)
        diarizer.add(windows.starts[page], windows.ends[page], windows.vectors[page])
    found = diarizer.finish()
    return found.clusters, [(turn.start_seconds, turn.end_seconds, turn.cluster) for turn in found.turns]


def sluice_midway(windows: Windows) -> tuple[Ints, Spoken]:
    """What its clustering is worth without its turns."""
    labels, _ = sluice(windows)
    return labels, midway(windows, labels)


METHODS = {
    "sluice": Method(sluice, libraries=("scipy.cluster.hierarchy",)),
    "sluice, cut midway": Method(sluice_midway, libraries=("scipy.cluster.hierarchy",)),
    "agglomerative": Method(agglomerative, matrices=1.0),  # half a matrix, and a copy of it
    "spectral": Method(spectral, matrices=4.0),  # cosines, what is kept, its mean with the transpose, the Laplacian
    "spectral, told": Method(spectral_told, matrices=4.0),
}

# --- one method in a process of its own -------------------------------------------------------------------------------


def peak_mb() -> float:
    """The process's peak resident memory so far. Not from getrusage, which counts what it was forked from."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6  # type: ignore[index]  # Linux has it


def run_method(name: str, source: Path, target: Path) -> None:
    """Read windows, run a method, write what it found and what it took."""
    for library in METHODS[name].libraries:
        import_module(library)  # what is measured should not include it
    with np.load(source) as loaded:
        windows = Windows(loaded["starts"], loaded["ends"], loaded["vectors"], int(loaded["speakers"]))
    before, cpu = peak_mb(), time.process_time()
    labels, spoken = METHODS[name].find(windows)
    cpu, after = time.process_time() - cpu, peak_mb()
    result = {"labels": labels.tolist(), "spoken": spoken, "cpu": cpu, "above": after - before, "peak": after}
    target.write_text(json.dumps(result), "utf-8")


def in_process(name: str, made: MadeVoices, directory: Path) -> dict[str, Any]:
    """What `run_method` wrote, run with one thread."""
    source, target = directory / "windows.npz", directory / "found.json"
    speakers = len(np.unique(made.speakers))
    np.savez(source, starts=made.starts, ends=made.ends, vectors=made.vectors, speakers=speakers)
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-m", "benches.diarization", "--run", name, str(source), str(target)]
    subprocess.run(command, env=os.environ | one_thread, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(target.read_text("utf-8"))
    return found


# --- scores -----------------------------------------------------------------------------------------------------------


def scores(made: MadeVoices, spoken: Spoken) -> dict[str, Any]:
    """Of turns that were found: the fields of a Row that judge them."""
    from benches.scoring import (
        diarization_errors,
        stretches,
    )  # with its libraries, which no method should be charged for

    truth, found = as_turns(made.turns), as_turns(spoken)
    errors = diarization_errors(truth, found, made.covered)
    parts = np.array([errors.missed_seconds, errors.false_seconds, errors.confused_seconds]) / errors.speech_seconds
    without = diarization_errors(truth, found, made.covered, collar_seconds=0.0)
    pieces = list(stretches(truth, found, made.covered))
    two = [piece for piece in pieces if len(piece.labelled) > 1]
    two_found = [piece for piece in pieces if len(piece.found) > 1]
    return {
        "error_percent": 100 * (errors.rate or 0.0),
        "missed_percent": 100 * float(parts[0]),
        "false_percent": 100 * float(parts[1]),
        "confused_percent": 100 * float(parts[2]),
        "error_no_collar_percent": 100 * (without.rate or 0.0),
        "two_seconds": sum(piece.seconds for piece in two),
        "two_found_seconds": sum(piece.seconds for piece in two_found),
        "two_right_seconds": sum(piece.seconds for piece in two if len(piece.found) > 1),
    }


def as_turns(spoken: Sequence[tuple[float, float, int]]) -> list[Turn]:
    """For the scorer, which knows people by name."""
    return [Turn(start, end, str(speaker)) for start, end, speaker in spoken]


def wrong_share(speakers: Ints, labels: Ints) -> float:
    """Share of windows whose label is not the one that stands for their speaker: each label for one speaker at most."""
    from scipy.optimize import linear_sum_assignment

    together = np.zeros((int(speakers.max()) + 1, int(labels.max()) + 1))
    np.add.at(together, (speakers, labels), 1.0)
    return 1.0 - float(together[linear_sum_assignment(together, maximize=True)].sum()) / len(labels)


def measure(blank: Row, made: MadeVoices, directory: Path, memory_gb: float) -> Row:
    """The line of one method on one conversation."""
    needs = METHODS[blank.method].matrices * len(made.starts) ** 2 * 8 / GB
    if needs > memory_gb:
        return replace(blank, needs_gb=round(needs, 1))
    found = in_process(blank.method, made, directory)
    labels = np.array(found["labels"], np.int32)
    took = {"cpu_seconds": found["cpu"], "above_mb": found["above"], "peak_mb": found["peak"]}
    wrong = 100 * wrong_share(made.speakers, labels)
    judged = scores(made, [(start, end, speaker) for start, end, speaker in found["spoken"]])
    return replace(blank, found=len(np.unique(labels)), wrong_percent=wrong, **judged, **took)


# --- the tables -------------------------------------------------------------------------------------------------------

HEADER = (
    "| talk | hours | windows | speakers | method | found | windows wrong % | DER % | missed | false | confused | "
    "DER %, no collar | two at once s | found | right | CPU s | MB above | MB |"
)


def line(row: Row) -> str:
    """One line of Markdown."""
    begin = f"| {row.talk} | {row.hours:g} | {row.windows} | {row.speakers} | {row.method} |"
    if row.needs_gb is not None:
        return f"{begin} not run: needs {row.needs_gb:g} GB |" + 12 * " |"
    numbers = (
        f"{row.found}", f"{row.wrong_percent:.2f}", f"{row.error_percent:.2f}", f"{row.missed_percent:.2f}",
        f"{row.false_percent:.2f}", f"{row.confused_percent:.2f}", f"{row.error_no_collar_percent:.2f}",
        f"{row.two_seconds:.0f}", f"{row.two_found_seconds:.0f}", f"{row.two_right_seconds:.0f}",
        f"{row.cpu_seconds:.2f}", f"{row.above_mb:.0f}", f"{row.peak_mb:.0f}",
    )  # fmt: skip
    return f"{begin} " + " | ".join(numbers) + " |"


def compare(arguments: argparse.Namespace) -> list[Row]:
    """All methods on all conversations."""
    rows = []
    print(HEADER, "|" + HEADER.count(" |") * "---|", sep="\n")
    with tempfile.TemporaryDirectory() as directory:
        for talk, hours, speakers in product(arguments.talk, arguments.hours, arguments.speakers):
            made = make_voices(hours * 3600, uneven(speakers), arguments.seed, TALKS[talk])
            for method in arguments.methods:
                blank = Row(talk, hours, len(np.unique(made.speakers)), method, len(made.starts), arguments.seed)
                rows.append(measure(blank, made, Path(directory), arguments.memory_gb))
                print(line(rows[-1]), flush=True)
    return rows


def vary(arguments: argparse.Namespace) -> None:
    """Mean and largest error over many conversations of each kind, and how many had all speakers found."""
    header = "| talk | hours | speakers | drawn | DER %, mean | largest | no collar, mean | largest | counted right |"
    print(header, "|" + 9 * "---|", sep="\n")
    for talk, hours, speakers in product(arguments.talk, arguments.hours, arguments.speakers):
        errors, bare, right = [], [], 0
        for number in range(arguments.many):
            made = make_voices(hours * 3600, uneven(speakers), arguments.seed + number, TALKS[talk])
            labels, spoken = sluice(Windows(made.starts, made.ends, made.vectors, 0))
            judged = scores(made, spoken)
            errors.append(judged["error_percent"])
            bare.append(judged["error_no_collar_percent"])
            right += len(np.unique(labels)) == len(np.unique(made.speakers))
        figures = " | ".join(f"{np.mean(each):.2f} | {max(each):.2f}" for each in (errors, bare))
        print(f"| {talk} | {hours:g} | {speakers} | {arguments.many} | {figures} | {right} |", flush=True)


def try_penalties(arguments: argparse.Namespace) -> None:
    """Mean error over the conversations for some penalties around those that are set, and the time of two at once."""
    header = "| change | shared block | DER % | DER %, no collar | two at once s | found | right |"
    print(header, "|" + 7 * "---|", sep="\n")
    made = [
        make_voices(hours * 3600, uneven(speakers), arguments.seed + number, TALKS[talk])
        for talk, hours, speakers in product(arguments.talk, arguments.hours, arguments.speakers)
        for number in range(5)
    ]
    for change, shared in product((0.03, 0.05, 0.08), (0.02, 0.03, 0.04)):
        stage_turns.CHANGE_PENALTY, stage_turns.OVERLAP_PENALTY = change, shared
        stage_turns.change_penalties.cache_clear()
        judged = [scores(each, sluice(Windows(each.starts, each.ends, each.vectors, 0))[1]) for each in made]
        means = {key: float(np.mean([one[key] for one in judged])) for key in judged[0]}
        errors = f"{means['error_percent']:.2f} | {means['error_no_collar_percent']:.2f}"
        two = " | ".join(f"{means[key]:.0f}" for key in ("two_seconds", "two_found_seconds", "two_right_seconds"))
        print(f"| {change} | {shared} | {errors} | {two} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.17, 1.0, 8.0])
    parser.add_argument("--speakers", type=int, nargs="+", default=[2, 5, 20])
    parser.add_argument("--talk", nargs="+", choices=TALKS, default=["usual"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--memory-gb", type=float, default=1.0, help="what the matrices of a method may take")
    parser.add_argument("--json", type=Path, help="where to write the table's figures, too")
    parser.add_argument("--many", type=int, metavar="N", help="how the error varies over N conversations of each kind")
    parser.add_argument("--penalties", action="store_true", help="what other penalties for changes would do")
    parser.add_argument("--run", nargs=3, metavar=("METHOD", "WINDOWS", "FOUND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_method(arguments.run[0], Path(arguments.run[1]), Path(arguments.run[2]))
    elif arguments.penalties:
        try_penalties(arguments)
    elif arguments.many:
        vary(arguments)
    else:
        rows = compare(arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
