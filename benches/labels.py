"""What people wrote down of media: who speaks when, what is said, what is seen.

Labels of DIRECTORY/film.mp4 are DIRECTORY/labels/film.rttm (who) and film.srt (what: SubRip, each cue `[SPEAKER]
words`); either may be absent. DIRECTORY/manifest.json, if there is one, tells the language and the shots:
{"files": [{"name": "film.mp4", "content": {"speech": {"language": "en"}, "shots": [{"start": 0, "end": 5, "seen":
"a deer"}]}}]}, or "seen" instead of "shots" for the whole of it. Whatever the labels leave out is unknown, not silent:
only what they cover can be scored.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Interval = tuple[float, float]  # [start, end) in seconds

UNLABELLED = "unlabelled"  # in the name of a speaker: somebody speaks there, but who was not written down
LABELS = "labels"  # the directory's name
MANIFEST = "manifest.json"  # beside the media
DEFAULT_LANGUAGE = "en"
JOIN_SECONDS = 1.0  # utterances that follow each other so closely are scored as one: words may lie on either side
MARGIN_SECONDS = 0.5  # by which a model's word may lie outside the utterance that it belongs to

_TIME = r"(\d+):(\d{2}):(\d{2})[,.](\d{3})"
_CUE_TIMES = re.compile(rf"{_TIME}\s*-->\s*{_TIME}")
_SPEAKER = re.compile(r"\[([^\]]+)\]\s*")


class LabelsError(Exception):
    """A label file cannot be understood; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Somebody speaks, without a break that was worth writing down."""

    start_seconds: float
    end_seconds: float
    speaker: str

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds <= self.end_seconds:
            raise ValueError(f"a turn from {self.start_seconds} to {self.end_seconds} s")


@dataclass(frozen=True, slots=True)
class Utterance:
    """Words that were said within a time; or, of a shot, words for what is seen in it."""

    start_seconds: float
    end_seconds: float
    speaker: str  # "" when it is not told
    text: str


@dataclass(frozen=True, slots=True)
class ScoredText:
    """Utterances in a row, and the time in which a model's words are compared with theirs."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class Labels:
    """All that is known of one medium. Turns and utterances are in the order of time."""

    medium: Path
    turns: tuple[Turn, ...] = ()
    utterances: tuple[Utterance, ...] = ()
    shots: tuple[Utterance, ...] = ()
    language: str = DEFAULT_LANGUAGE

    @property
    def text_is_partial(self) -> bool:
        """Whether there are turns whose words nobody wrote down."""
        return any(not covered(turn, self.utterances) for turn in self.turns)

    @property
    def named_turns(self) -> tuple[Turn, ...]:
        """Turns of people who can be told apart."""
        return tuple(turn for turn in self.turns if UNLABELLED not in turn.speaker)

    @property
    def scored(self) -> tuple[Interval, ...]:
        """Where who speaks is known: to the end of the last turn, without those of nobody in particular.

        What follows the last turn may be silence, or speech that nobody labelled: the files do not tell.
        """
        end = max((turn.end_seconds for turn in self.turns), default=0.0)
        unknown = [(turn.start_seconds, turn.end_seconds) for turn in self.turns if UNLABELLED in turn.speaker]
        return without([(0.0, end)], unknown)

    def texts(self) -> list[ScoredText]:
        """Utterances joined to stretches, each widened by as much as a model's word may lie outside.

        It stays clear of its neighbours: it reaches no further than to the middle between it and another stretch, and
        not into a turn whose words are unknown.
        """
        groups = _joined(self.utterances, self._wordless())
        spans = [(group[0].start_seconds, max(each.end_seconds for each in group)) for group in groups]
        others = [(turn.start_seconds, turn.end_seconds) for turn in self._wordless()]
        widened = [_widened(span, spans, others) for span in spans]
        return [
            ScoredText(*span, " ".join(each.text for each in group))
            for span, group in zip(widened, groups, strict=True)
        ]

    def _wordless(self) -> list[Turn]:
        return [turn for turn in self.turns if not covered(turn, self.utterances)]


def covered(turn: Turn, utterances: Sequence[Utterance]) -> bool:
    """Whether at least half of a turn lies within an utterance."""
    length = turn.end_seconds - turn.start_seconds
    return any(
        min(turn.end_seconds, each.end_seconds) - max(turn.start_seconds, each.start_seconds) >= length / 2
        for each in utterances
    )


def _joined(utterances: Sequence[Utterance], wordless: Sequence[Turn]) -> list[list[Utterance]]:
    """Utterances in groups: those close to each other, unless somebody else speaks in between."""
    groups: list[list[Utterance]] = []
    for each in utterances:
        end = max((other.end_seconds for other in groups[-1]), default=0.0) if groups else 0.0
        parted = any(end <= turn.start_seconds and turn.end_seconds <= each.start_seconds for turn in wordless)
        if groups and each.start_seconds - end <= JOIN_SECONDS and not parted:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _widened(span: Interval, spans: Sequence[Interval], others: Sequence[Interval]) -> Interval:
    start, end = span
    before = [(other + start) / 2 for _, other in spans if other <= start] + [
        other for _, other in others if other <= start
    ]
    after = [(end + other) / 2 for other, _ in spans if other >= end] + [other for other, _ in others if other >= end]
    return max([0.0, start - MARGIN_SECONDS, *before]), min([end + MARGIN_SECONDS, *after])


# --- files ------------------------------------------------------------------------------------------------------------


def labelled_media(directory: Path) -> list[Labels]:
    """The labels of every medium of a directory that has some, by name. Raises LabelsError and OSError."""
    contents = _manifest(directory)
    found = []
    for medium in sorted(path for path in directory.iterdir() if path.is_file()):
        rttm, srt = (directory / LABELS / f"{medium.stem}{ending}" for ending in (".rttm", ".srt"))
        content = contents.get(medium.name, {})
        labels = Labels(
            medium=medium,
            turns=read_rttm(rttm) if rttm.exists() else (),
            utterances=read_srt(srt) if srt.exists() else (),
            shots=_shots(content),
            language=_language(content),
        )
        if labels.turns or labels.utterances or labels.shots:
            found.append(labels)
    return found


def read_rttm(path: Path) -> tuple[Turn, ...]:
    """Turns of an RTTM file, by time: fields 4, 5 and 8 of its SPEAKER lines are start, duration and name.

    The format: NIST, Rich Transcription 2009 evaluation plan, appendix A. Raises LabelsError.
    """
    turns = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue  # comments, and other kinds of objects
        try:
            start, seconds, speaker = float(fields[3]), float(fields[4]), fields[7]
            turns.append(Turn(start, start + seconds, speaker))
        except (ValueError, IndexError) as error:
            raise LabelsError(f"{path} line {number}: not a turn: {line[:100]}") from error
    return tuple(sorted(turns, key=lambda turn: (turn.start_seconds, turn.end_seconds)))


def read_srt(path: Path) -> tuple[Utterance, ...]:
    """Utterances of a SubRip file, by time. A name has underscores for spaces, as in RTTM. Raises LabelsError."""
    found = sorted(_cues(path), key=lambda each: (each.start_seconds, each.end_seconds))
    return tuple(each for each in found if each.text)


def _cues(path: Path) -> Iterator[Utterance]:
    for block in re.split(r"\n\s*\n", path.read_text("utf-8-sig").replace("\r\n", "\n").strip()):
        lines = block.strip().splitlines()
        timed = [number for number, line in enumerate(lines[:2]) if _CUE_TIMES.search(line)]
        if not timed:
            raise LabelsError(f"{path}: a cue without times: {' / '.join(lines)[:100]}")
        times = _CUE_TIMES.search(lines[timed[0]])
        assert times is not None  # it was found above
        text = " ".join(lines[timed[0] + 1 :]).strip()
        named = _SPEAKER.match(text)
        yield Utterance(
            start_seconds=_seconds(times.groups()[:4]),
            end_seconds=_seconds(times.groups()[4:]),
            speaker=re.sub(r"\s", "_", named[1]) if named else "",
            text=text[named.end() :] if named else text,
        )


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds, milliseconds = map(int, parts)
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _manifest(directory: Path) -> dict[str, dict[str, Any]]:
    """Name of a medium: its "content"; nothing without a manifest. Raises LabelsError."""
    path = directory / MANIFEST
    if not path.exists():
        return {}
    try:
        return {file["name"]: file.get("content", {}) for file in json.loads(path.read_text("utf-8"))["files"]}
    except (ValueError, KeyError) as error:
        raise LabelsError(
            f'{path}: not JSON of the form {{"files": [{{"name": …, "content": …}}]}} ({error})'
        ) from error


def _language(content: dict[str, Any]) -> str:
    """ "en (presumed)" is "en"."""
    return str(content.get("speech", {}).get("language") or DEFAULT_LANGUAGE).split()[0]


def _shots(content: dict[str, Any]) -> tuple[Utterance, ...]:
    whole = [{"start": 0.0, "end": math.inf, "seen": content["seen"]}] if content.get("seen") else []
    return tuple(Utterance(shot["start"], shot["end"], "", shot["seen"]) for shot in content.get("shots") or whole)


def without(intervals: Sequence[Interval], holes: Sequence[Interval]) -> tuple[Interval, ...]:
    """What is left of intervals when the holes are cut out of them."""
    left = [(start, end) for start, end in intervals if start < end]
    for hole_start, hole_end in holes:
        pieces = [
            piece for start, end in left for piece in ((start, min(end, hole_start)), (max(start, hole_end), end))
        ]
        left = [(start, end) for start, end in pieces if start < end]
    return tuple(left)
