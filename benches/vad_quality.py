"""How well speech is found: `python -m benches.vad_quality [DIRECTORY]`.

Reads every medium of a directory (default: ../shared/media) that has sound, as an audio task does, and compares the
speech that was found with `labels/<name>.rttm` where there is one. One line a file, in seconds: length; speech found;
labelled; missed (labelled, not found); unheard (labelled, and outside all windows: no model gets it); false (found, not
labelled); number of windows; CPU seconds, to which the first file adds the import of torch.

Then, as numbers: windows that were cut because they were full, while speech went on; those of the cuts that lie inside
a labelled turn; and those of them that were avoidable: the labels know of a silence (between two turns) of 0.15 s and
more in the 5 s before the window was full, and the cut is not in one. `--window-seconds` makes windows shorter, and
`--min-silence-ms` segments longer: both make for more cuts to look at.

Labels are whole utterances with their pauses, and about 0.3 s of silence at both ends, so much of "missed" is silence.
`--collar` leaves that much time on both sides of each label's ends out of the count.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benches.labels import LABELS, Interval, LabelsError, Turn, read_rttm
from stages.errors import MediaError
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.packing import CUT_RANGE, merged_spans
from stages.timeline import SAMPLE_RATE
from stages.windows import SpeechWindow, read_speech_windows
from transport.messages import Gap, MediaInfo

Intervals = Sequence[Interval]
FRAME_SECONDS = 0.01
SILENCE_SECONDS = 0.15  # between two turns: enough to cut in
SHARED = Path(__file__).parents[2] / "shared" / "media"
COLUMNS = ("length", "found", "labelled", "missed", "unheard", "false", "windows", "cuts", "in turn", "avoid", "cpu")


@dataclass(frozen=True)
class Found:
    """What an audio task finds in one file."""

    windows: Sequence[SpeechWindow]
    gaps: Sequence[Gap]
    cpu_seconds: float

    @property
    def speech(self) -> Intervals:
        return [interval for window in self.windows for interval in window.speech]

    @property
    def spans(self) -> Intervals:
        return [(window.start_seconds, window.end_seconds) for window in self.windows]


@dataclass(frozen=True, slots=True)
class Scores:
    """Found against labelled: seconds, and numbers of cuts."""

    labelled_seconds: float
    missed_seconds: float
    unheard_seconds: float
    false_seconds: float
    cuts: int
    cuts_in_turns: int
    avoidable_cuts: int


def find_speech(path: bytes, media: MediaInfo, options: SpeechOptions) -> Found:
    """Run the audio path over one file."""
    begin = time.process_time()
    items = list(read_speech_windows(path, media, DecodeOptions(), options))
    return Found(
        windows=[item for item in items if isinstance(item, SpeechWindow)],
        gaps=[item for item in items if isinstance(item, Gap)],
        cpu_seconds=time.process_time() - begin,
    )


def score(found: Found, turns: Sequence[Turn], seconds: float, collar: float, window_seconds: float) -> Scores:
    """All figures of one file of that length."""
    labels = [(turn.start_seconds, turn.end_seconds) for turn in turns]
    labelled, missed, false = compare(labels, found.speech, seconds, collar)
    cuts = forced_cuts(found.windows, window_seconds)
    unheard = compare(labels, found.spans, seconds, collar)[1]
    return Scores(labelled, missed, unheard, false, *judge_cuts(cuts, labels, window_seconds))


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


# --- cuts -------------------------------------------------------------------------------------------------------------


def cut_range_seconds(window_seconds: float) -> float:
    """The last part of a full window, in which a moment to cut it is looked for."""
    return min(CUT_RANGE / SAMPLE_RATE, window_seconds / 2)


def forced_cuts(windows: Sequence[SpeechWindow], window_seconds: float) -> list[tuple[float, float]]:
    """(cut, begin of the window that it ends) of windows that were full while speech went on.

    Such a window holds one stretch of speech, is as long as can be but for the range in which it may be cut, and the
    next one begins where it ends.
    """
    shortest = window_seconds - cut_range_seconds(window_seconds)
    return [
        (one.end_seconds, one.start_seconds)
        for one, other in pairwise(windows)
        if one.end_seconds == other.start_seconds
        and len(one.speech) == 1
        and one.end_seconds - one.start_seconds >= shortest
    ]


def judge_cuts(cuts: Sequence[tuple[float, float]], labelled: Intervals, window_seconds: float) -> tuple[int, int, int]:
    """Number of cuts, of those inside a labelled turn, and of those for which a labelled silence was at hand."""
    turns = merged_spans(list(labelled))
    silences = [(one[1], other[0]) for one, other in pairwise(turns) if other[0] - one[1] >= SILENCE_SECONDS]
    inside = [(cut, begin) for cut, begin in cuts if any(start < cut < end for start, end in turns)]
    avoidable = 0
    for _, begin in inside:
        latest = begin + window_seconds
        earliest = latest - cut_range_seconds(window_seconds)
        avoidable += any(earliest <= start and end <= latest for start, end in silences)
    return len(cuts), len(inside), avoidable


# --- the table --------------------------------------------------------------------------------------------------------


def row(path: Path, options: SpeechOptions, collar: float) -> tuple[str, Scores | None]:
    """The table's line for one file, and its scores where it has labels."""
    name = path.name[:44]
    try:
        media = probe(os.fsencode(path), DecodeOptions())
    except MediaError as error:
        return f"{name:44} rejected: {error.message[:70]}", None
    if media.audio is None:
        return f"{name:44} no sound track", None
    found = find_speech(os.fsencode(path), media, options)
    seconds = max([media.duration_seconds or 0.0, *(end for _, end in found.speech)])
    speech = sum(end - start for start, end in found.speech)
    rttm = path.parent / LABELS / f"{path.stem}.rttm"
    scores = score(found, read_rttm(rttm), seconds, collar, options.window_seconds) if rttm.exists() else None
    cuts = str(len(forced_cuts(found.windows, options.window_seconds)))
    times, counts = shown(scores) if scores is not None else ([""] * 4, [cuts, "", ""])
    cells = [f"{seconds:.1f}", f"{speech:.2f}", *times, str(len(found.windows)), *counts, f"{found.cpu_seconds:.2f}"]
    gaps = "".join(f"  gap {gap.start_seconds:.2f}-{gap.end_seconds:.2f} {gap.reason[:40]}" for gap in found.gaps)
    return f"{name:44}" + "".join(f"{cell:>9}" for cell in cells) + gaps, scores


def shown(scores: Scores) -> tuple[list[str], list[str]]:
    """The cells of the seconds, and those of the numbers."""
    each = astuple(scores)
    return [f"{value:.2f}" for value in each[:4]], [str(value) for value in each[4:]]


def summary(scores: Sequence[Scores]) -> str:
    """The last line: all labelled files together."""
    labelled, missed, unheard, false, cuts, inside, avoidable = (
        sum(each) for each in zip(*map(astuple, scores), strict=True)
    )
    return (
        f"labelled {labelled:.1f} s: missed {missed / labelled:.1%}, false {false / labelled:.1%}, together "
        f"{(missed + false) / labelled:.1%}; unheard {unheard / labelled:.1%}. "
        f"Of {cuts} cuts {inside} inside turns, {avoidable} avoidable"
    )


def main() -> None:
    defaults = SpeechOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=SHARED)
    parser.add_argument("--collar", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--threshold", type=float, default=defaults.vad_threshold)
    parser.add_argument("--window-seconds", type=float, default=defaults.window_seconds)
    parser.add_argument("--min-silence-ms", type=int, default=defaults.min_silence_ms)
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.exit(2, f"vad_quality: {arguments.directory} is not a directory: name one that holds media\n")
    options = SpeechOptions(
        vad_threshold=arguments.threshold,
        window_seconds=arguments.window_seconds,
        min_silence_ms=arguments.min_silence_ms,
    )
    print(f"{'file':44}" + "".join(f"{column:>9}" for column in COLUMNS))
    all_scores: list[Scores] = []
    for path in sorted(path for path in arguments.directory.iterdir() if path.is_file() and path.suffix != ".json"):
        try:
            line, scores = row(path, options, arguments.collar)
        except LabelsError as error:
            parser.exit(2, f"vad_quality: {error}\n")
        print(line, flush=True)
        all_scores += [scores] if scores is not None else []
    if any(scores.labelled_seconds for scores in all_scores):
        print(summary(all_scores))


if __name__ == "__main__":
    main()
