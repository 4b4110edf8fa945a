"""What the audio path costs: `python -m benches sound [MEDIUM]`.

Joins copies of a medium's sound track to the lengths asked for (stream copy, in a temporary directory), and reads each
in three ways: decoding alone, decoding and resampling, and everything with voice detection and windows. Each way has a
process of its own, which has imported all libraries before and reads what it is told, so lengths and ways take turns.
CPU seconds are those of that process. Memory is the most that was resident while a track was read.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av

from benches.measuring import Candidate, Cost, median, ratio_of, rounds, spread
from benches.options import add_medium, medium_in
from benches.report import Cell, Chart, Findings, Table
from benches.show import cell_text
from engine.host_memory import high_water_bytes, restart_peak, rss_bytes
from stages.audio import decoded_blocks, read_audio
from stages.media import open_media, probe
from stages.options import DecodeOptions, SpeechOptions
from stages.torchaudio_shim import import_torchaudio
from stages.vad import VoiceActivityDetector
from stages.windows import read_speech_windows
from transport.messages import MediaInfo

TITLE = "the sound of a video: processor time to decode, resample and find speech, and memory against its length"
LARGEST_GROWTH = 1.05  # of the peak, from the shortest track to the longest: memory must not hang on the length


def join(source: Path, target: Path, hours: float) -> None:
    """Write copies of a sound track one after the other until there are `hours` of it."""
    with av.open(str(target), "w") as output:
        copy, begin_seconds = None, Fraction(0)
        while begin_seconds < hours * 3600:
            with av.open(str(source)) as medium:
                track = medium.streams.best("audio")
                copy = copy or output.add_stream_from_template(track)
                begin, end = round(begin_seconds / track.time_base), 0
                for packet in medium.demux(track):
                    if packet.size and packet.pts is not None and packet.pts >= 0:
                        end = packet.pts + packet.duration
                        packet.pts = packet.dts = packet.pts + begin
                        packet.stream = copy
                        output.mux(packet)
                begin_seconds += end * track.time_base


def decode(path: bytes, media: MediaInfo) -> Iterator[object]:
    with open_media(path, DecodeOptions()) as container:
        yield from decoded_blocks(container, media)


WORK: dict[str, Callable[[bytes, MediaInfo], Iterator[object]]] = {
    "decode": decode,
    "decode, resample": lambda path, media: read_audio(path, media, DecodeOptions()),
    "everything": lambda path, media: read_speech_windows(path, media, DecodeOptions(), SpeechOptions()),
}


# --- the reading process ----------------------------------------------------------------------------------------------


def serve(work: str) -> None:
    """Runs in a process of its own: reads each track that standard input names, and answers with figures."""
    import_torchaudio()
    VoiceActivityDetector()
    imported_bytes = rss_bytes()
    for line in sys.stdin:
        print(json.dumps(read(Path(line.rstrip("\n")), work) | {"imported_bytes": imported_bytes}), flush=True)


def read(path: Path, work: str) -> dict[str, float]:
    """One track, once."""
    media = probe(os.fsencode(path), DecodeOptions())
    is_told = restart_peak() is not None
    cpu, wall = time.process_time(), time.perf_counter()
    items = sum(1 for _ in WORK[work](os.fsencode(path), media))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = {"peak_bytes": float(high_water_bytes())} if is_told else {}  # else it is that of the longest track so far
    return {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "items": items,
        "hours": (media.duration_seconds or 0) / 3600,
    } | peak


class Reader:
    """A process that reads in one way; of one thread, as a decoder's share of a full machine is."""

    def __init__(self, work: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benches.audio_cost", work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()

    def read(self, path: Path) -> dict[str, float]:
        """Its figures. Raises EOFError when the process ended; what went wrong is on its standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # said below
            print(path, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"the process that reads {path} ended")
        figures: dict[str, float] = json.loads(line)
        return figures


# --- findings ---------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The medium, the lengths, how often."""
    add_medium(parser)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.1, 0.3], help="default: 0.1 and 0.3")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")


def measure(arguments: argparse.Namespace) -> Findings:
    """All ways and lengths in turn, after each was read once."""
    hours = sorted(set(arguments.hours))
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        medium, name = medium_in(Path(directory), arguments)
        tracks = {each: Path(directory) / f"joined-{each}.mka" for each in hours}
        for each, track in tracks.items():
            join(medium, track, each)
        readers = {work: stack.enter_context(Reader(work)) for work in WORK}
        candidates: dict[str, Candidate] = {
            key(work, each): partial(readers[work].read, track) for work in WORK for each, track in tracks.items()
        }
        costs = rounds(candidates, arguments.rounds)
    return findings(costs, hours, name)


def key(work: str, hours: float) -> str:
    """A candidate's name."""
    return f"{work}, {hours:g} h"


def findings(costs: Mapping[str, Sequence[Cost]], hours: Sequence[float], medium: str) -> Findings:
    """Pure."""
    short, long, all_of_it = hours[0], hours[-1], list(WORK)[-1]
    above, below = (values(costs[key(all_of_it, each)], "peak_bytes") for each in (long, short))
    found = Findings(
        tables=[Table(f"The sound of {medium}", COLUMNS, tuple(rows(costs, hours)))],
        charts=[
            Chart(
                name="sound",
                title="Processor time for an hour of sound",
                x="",
                y="CPU s",
                bars={work: median(cpu_per_hour(costs[key(work, long)])) for work in WORK},
                kind="bars",
            )
        ],
        notes=["Sound without speech costs less: what is not said is not windowed, let alone sent."],
    )
    if above and short < long:
        name = f"peak memory of everything, {long:g} h / {short:g} h"
        found.ratios.append(ratio_of(name, above, below, LARGEST_GROWTH))
    return found


COLUMNS = ("way", "hours", "CPU s/h", "spread", "wall s/h", "MB after imports", "peak MB above", "items")


def rows(costs: Mapping[str, Sequence[Cost]], hours: Sequence[float]) -> Iterator[tuple[Cell, ...]]:
    """A line for each way and length, medians. Pure."""
    for work in WORK:
        for each in hours:
            of = costs[key(work, each)]
            low, high = (cell_text(rate, 3) for rate in spread(cpu_per_hour(of)))
            wall = median([cost.values["wall_seconds"] / cost.values["hours"] for cost in of])
            imported, peaks = median(values(of, "imported_bytes")), values(of, "peak_bytes")
            above = (median(peaks) - imported) / 1e6 if peaks else None
            items = round(median(values(of, "items")))
            yield work, each, median(cpu_per_hour(of)), f"{low} to {high}", wall, round(imported / 1e6), above, items


def values(costs: Sequence[Cost], name: str) -> list[float]:
    """What the rounds found; empty where the system does not tell. Pure."""
    return [cost.values[name] for cost in costs if name in cost.values]


def cpu_per_hour(costs: Sequence[Cost]) -> list[float]:
    """CPU seconds for an hour of sound, of each round. Pure."""
    return [cost.values["cpu_seconds"] / cost.values["hours"] for cost in costs]


if __name__ == "__main__":
    serve(sys.argv[1])
