"""What the audio path costs: `python -m benches.audio_cost MEDIUM [--hours 0.5 2]`.

Joins copies of a medium's sound track to the lengths asked for (stream copy, in a temporary directory), and reads each
three times, in a process of its own: decoding alone, decoding and resampling, and everything with voice detection and
windows. Prints CPU seconds and wall seconds per hour of sound, and the peak resident memory above that of the imports.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av

from stages.audio import decoded_blocks, read_audio
from stages.media import open_media, probe
from stages.options import DecodeOptions, SpeechOptions
from stages.torchaudio_shim import import_torchaudio
from stages.vad import VoiceActivityDetector
from stages.windows import read_speech_windows
from transport.messages import MediaInfo


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


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(path: Path, work: str) -> str:
    """Runs in the child: reads the track once, in one of three ways."""
    import_torchaudio()
    VoiceActivityDetector()
    media = probe(os.fsencode(path), DecodeOptions())
    before, cpu, wall = peak_bytes(), time.process_time(), time.perf_counter()
    items = sum(1 for _ in WORK[work](os.fsencode(path), media))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    hours = (media.duration_seconds or 0.0) / 3600
    above = (peak_bytes() - before) / 1e6
    return f"{hours:7.2f}{work:>20}{cpu / hours:10.1f}{wall / hours:10.1f}{before / 1e6:10.0f}{above:12.1f}{items:8d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medium", type=Path)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.5, 2.0])
    parser.add_argument("--work", choices=WORK, help="read the medium as it is, in this process, in this way")
    arguments = parser.parse_args()
    if arguments.work:
        print(measure(arguments.medium, arguments.work))
        return
    print(
        f"{'hours':>7}{'':20}{'CPU s/h':>10}{'wall s/h':>10}{'MB before':>10}{'MB above':>12}{'items':>8}", flush=True
    )
    with tempfile.TemporaryDirectory() as directory:
        for hours in arguments.hours:
            joined = Path(directory) / f"joined-{hours}.mka"
            join(arguments.medium, joined, hours)
            for work in WORK:
                command = [sys.executable, "-m", "benches.audio_cost", str(joined), "--work", work]
                subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
