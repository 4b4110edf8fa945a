"""How well speech is found: `python -m benches.vad_quality [DIRECTORY]`.

Reads every medium of a directory (default: ../shared/media) that has sound, as an audio task does, and compares the
speech that was found with `labels/<name>.rttm` where there is one. One line a file, in seconds: length; speech found;
labelled; missed (labelled, not found); unheard (labelled, and outside all windows: no model gets it); false (found, not
labelled); number of windows; CPU seconds, to which the first file adds the import of torch.

Labels are whole utterances with their pauses, and about 0.3 s of silence at both ends, so much of "missed" is silence.
`--collar` leaves that much time on both sides of each label's ends out of the count.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.errors import MediaError
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.windows import SpeechWindow, read_speech_windows
from transport.messages import Gap, MediaInfo

Intervals = Sequence[tuple[float, float]]
FRAME_SECONDS = 0.01
SHARED = Path(__file__).parents[2] / "shared" / "media"


@dataclass(frozen=True)
class Found:
    """What an audio task finds in one file."""

    speech: Intervals
    windows: Intervals
    gaps: tuple[Gap, ...]
    cpu_seconds: float


def find_speech(path: bytes, media: MediaInfo, options: SpeechOptions) -> Found:
    """Run the audio path over one file."""
    begin = time.process_time()
    items = list(read_speech_windows(path, media, DecodeOptions(), options))
    windows = [item for item in items if isinstance(item, SpeechWindow)]
    return Found(
        speech=[interval for window in windows for interval in window.speech],
        windows=[(window.start_seconds, window.end_seconds) for window in windows],
        gaps=tuple(item for item in items if isinstance(item, Gap)),
        cpu_seconds=time.process_time() - begin,
    )


def read_rttm(path: Path) -> list[tuple[float, float]]:
    """Speech intervals of an RTTM file: fields 4 and 5 are start and duration."""
    fields = [line.split() for line in path.read_text().splitlines() if line.startswith("SPEAKER")]
    return [(float(field[3]), float(field[3]) + float(field[4])) for field in fields]


def as_frames(intervals: Intervals, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which hundredths of a second lie inside one of the intervals."""
    frames = np.zeros(round(seconds / FRAME_SECONDS) + 1, np.bool_)
    for start, end in intervals:
        frames[max(0, round(start / FRAME_SECONDS)) : max(0, round(end / FRAME_SECONDS))] = True
    return frames


def compare(labelled: Intervals, found: Intervals, seconds: float, collar: float) -> tuple[float, float, float]:
    """Seconds labelled, missed and falsely found, without `collar` seconds on both sides of each label's ends."""
    edges = [(edge - collar, edge + collar) for interval in labelled for edge in interval] if collar else []
    counted = ~as_frames(edges, seconds)
    truth, guess = as_frames(labelled, seconds) & counted, as_frames(found, seconds) & counted
    counts = truth.sum(), (truth & ~guess).sum(), (guess & ~truth).sum()
    return tuple(float(count) * FRAME_SECONDS for count in counts)  # type: ignore[return-value]  # three of three


def row(path: Path, options: SpeechOptions, collar: float) -> str:
    """The table's line for one file."""
    name = path.name[:44]
    try:
        media = probe(os.fsencode(path), DecodeOptions())
    except MediaError as error:
        return f"{name:44} rejected: {error.message[:70]}"
    if media.audio is None:
        return f"{name:44} no sound track"
    found = find_speech(os.fsencode(path), media, options)
    seconds = max([media.duration_seconds or 0.0, *(end for _, end in found.speech)])
    speech = sum(end - start for start, end in found.speech)
    rttm = path.parent / "labels" / f"{path.stem}.rttm"
    scores = " " * 36
    if rttm.exists():
        labels = read_rttm(rttm)
        labelled, missed, false = compare(labels, found.speech, seconds, collar)
        unheard = compare(labels, found.windows, seconds, collar)[1]
        scores = "".join(f"{value:9.2f}" for value in (labelled, missed, unheard, false))
    gaps = "".join(f"  gap {gap.start_seconds:.2f}-{gap.end_seconds:.2f} {gap.reason[:40]}" for gap in found.gaps)
    return f"{name:44}{seconds:9.1f}{speech:9.2f}{scores}{len(found.windows):9d}{found.cpu_seconds:9.2f}{gaps}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=SHARED)
    parser.add_argument("--collar", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--threshold", type=float, default=SpeechOptions().vad_threshold)
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.exit(2, f"vad_quality: {arguments.directory} is not a directory: name one that holds media\n")
    options = SpeechOptions(vad_threshold=arguments.threshold)
    columns = ("length", "found", "labelled", "missed", "unheard", "false", "windows", "cpu")
    print(f"{'file':44}" + "".join(f"{column:>9}" for column in columns))
    for path in sorted(path for path in arguments.directory.iterdir() if path.is_file() and path.suffix != ".json"):
        print(row(path, options, arguments.collar), flush=True)


if __name__ == "__main__":
    main()
