"""What was said in a video and by whom, from its stored points; and as JSON and RTTM. Pure.

    points of `speech` ──► segments ┐
    points of `speakers` ──► speakers, turns ┴──► Transcript ──► json, rttm; srt and vtt: stages/subtitles.py

Times are seconds of the medium. What points say that cannot be (a time below zero, an end before the start) is put
right here, once for all formats.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from stages.languages import same_language

Payload = Mapping[str, Any]

REPEATED_SHARE = 0.5  # of its time: a segment that others cover to this much says what they say
_UNNAMED = re.compile(r"speaker (\d+) of [0-9a-f]{8}")  # the label of a voice that no enrolled person has
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # those that are no white space


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word, when it was said, and who said it."""

    start_seconds: float
    end_seconds: float
    text: str
    speaker: str | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A phrase of a transcript, or a caption. Its words lie within it, in order; captions have none."""

    start_seconds: float
    end_seconds: float
    text: str  # one line
    language: str | None
    source: str  # asr | captions
    speaker: str | None  # who has most of it
    speaker_score: float | None
    words: tuple[SpokenWord, ...] = ()


@dataclass(frozen=True, slots=True)
class Speaker:
    """One voice of the video."""

    speaker: str
    cluster: int
    seconds: float
    match_score: float | None  # cosine to the enrolled person; None: nobody matched


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """A stretch in which somebody speaks. Two turns of one speaker never touch."""

    start_seconds: float  # in whole milliseconds, as the end
    end_seconds: float
    speaker: str
    overlap: bool  # somebody else speaks during some of it


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that is known of the speech of a video."""

    video_id: str
    path: str
    duration_seconds: float | None
    segments: tuple[Segment, ...]  # by start
    speakers: tuple[Speaker, ...]  # by cluster
    turns: tuple[SpeakerTurn, ...]  # by start

    @property
    def languages(self) -> list[str]:
        """What is spoken, the language that is spoken longest first."""
        return sorted({segment.language for segment in self.segments if segment.language}, key=self._rank)

    def _rank(self, language: str) -> tuple[float, str]:
        return -_seconds(each for each in self.segments if each.language == language), language


def clean(text: str) -> str:
    """One line, single spaces, no control characters."""
    return " ".join(_CONTROLS.sub("", text).split())


def shown_speaker(label: str | None) -> str | None:
    """How a speaker is called: by name, or by number where the voice has none."""
    name = clean(label or "")
    unnamed = _UNNAMED.fullmatch(name)
    return f"Speaker {unnamed[1]}" if unnamed else name or None


# --- from points ------------------------------------------------------------------------------------------------------


def names_of(speech: Sequence[Payload], clusters: Sequence[Payload]) -> dict[int, str]:
    """What each cluster of a video is called: in its segments, and for those that lead in none, in its own point."""
    names = {point["cluster"]: _cluster_name(point) for point in clusters}
    for point in speech:
        name = shown_speaker(point.get("speaker"))
        if point.get("cluster") is not None and name is not None:
            names[point["cluster"]] = name
    return names


def segment_of(point: Payload, names: Mapping[int, str], duration_seconds: float | None) -> Segment | None:
    """A segment from its point; None when it has no text. names: from `names_of`; empty: who speaks is left out."""
    text = clean(point["text"])
    if not text:
        return None
    start, end = _span(point, duration_seconds)
    return Segment(
        start_seconds=start,
        end_seconds=end,
        text=text,
        language=point.get("language"),
        source=point.get("source", "asr"),
        speaker=names.get(point["cluster"]) if point.get("cluster") is not None else None,
        speaker_score=point.get("speaker_score") if names else None,
        words=tuple(_words(point, names, start, end)),
    )


def speakers_of(clusters: Sequence[Payload]) -> tuple[Speaker, ...]:
    """The voices of a video, from its points of kind "cluster"."""
    found = [
        Speaker(_cluster_name(point), point["cluster"], point.get("seconds", 0.0), point.get("match_score"))
        for point in clusters
    ]
    return tuple(sorted(found, key=lambda speaker: speaker.cluster))


def turns_of(clusters: Sequence[Payload]) -> tuple[SpeakerTurn, ...]:
    """Who speaks when, in whole milliseconds. Turns of one name that overlap or touch are one turn."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for point in clusters:
        spans.setdefault(_cluster_name(point), []).extend(
            (max(0, round(start * 1000)), round(end * 1000)) for start, end in point.get("turns", ())
        )
    turns = sorted((*span, name) for name, own in spans.items() for span in _union(own))
    overlapped = _overlapped(turns)
    return tuple(
        SpeakerTurn(start / 1000, end / 1000, name, index in overlapped)
        for index, (start, end, name) in enumerate(turns)
    )


def _cluster_name(point: Payload) -> str:
    return shown_speaker(point.get("speaker")) or f"Speaker {point['cluster']}"


def _span(point: Payload, duration_seconds: float | None) -> tuple[float, float]:
    """When it was said. An end behind the end of the medium is cut; what begins behind it stays as it is."""
    start = max(0.0, point["start_seconds"])
    end = max(start, point["end_seconds"])
    if duration_seconds is not None and start < duration_seconds:
        end = min(end, duration_seconds)
    return start, end


def _words(point: Payload, names: Mapping[int, str], start: float, end: float) -> Iterator[SpokenWord]:
    """The words, one behind the other, within the segment's span."""
    at = start
    for word in point.get("words") or ():
        text = clean(word["text"])
        at = min(max(at, word["start_seconds"]), end)
        until = min(max(at, word["end_seconds"]), end)
        cluster = word.get("cluster")
        if text:
            yield SpokenWord(at, until, text, names.get(cluster) if cluster is not None else None)


def _union(spans: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The same time as disjoint spans in order; those without length are left out."""
    union: list[tuple[Any, Any]] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        elif start < end:
            union.append((start, end))
    return union


def _overlapped(turns: Sequence[tuple[int, int, str]]) -> set[int]:
    """Which turns share time with one of somebody else. turns: by start; no two of one name overlap."""
    found: set[int] = set()
    open_turns: list[int] = []
    for index, (start, _, _) in enumerate(turns):
        open_turns = [other for other in open_turns if turns[other][1] > start]
        found.update([*open_turns, index] if open_turns else ())
        open_turns.append(index)
    return found


# --- captions and transcripts beside each other -----------------------------------------------------------------------


def layers_of(segments: Sequence[Segment], captions_first: bool, caption_language: str | None) -> list[list[Segment]]:
    """Segments by who wrote them, the ones to be believed first: captions of each language, and the transcript.

    caption_language: the one that is wanted; else the one with most captions goes first.
    """
    captions: dict[str | None, list[Segment]] = {}
    for segment in segments:
        if segment.source == "captions":
            captions.setdefault(segment.language, []).append(segment)

    def rank(language: str | None) -> tuple[bool, float, str]:
        return not same_language(language, caption_language), -_seconds(captions[language]), language or ""

    written = [captions[language] for language in sorted(captions, key=rank)]
    heard = [segment for segment in segments if segment.source != "captions"]
    return [*written, heard] if captions_first else [heard, *written]


def without_repeats(layers: Sequence[Sequence[Segment]]) -> tuple[Segment, ...]:
    """All of the first layer, and of each further one what those before it leave unsaid, by start.

    Where a video has captions, what they leave out is transcribed, so both belong together; where it was indexed once
    with captions and once without, all is there twice.
    """
    kept: list[Segment] = []
    for layer in layers:
        said = _union([(segment.start_seconds, segment.end_seconds) for segment in kept])
        kept += [segment for segment in layer if not _is_said(segment, said)]
    unique = {(each.start_seconds, each.end_seconds, each.text): each for each in kept}
    return tuple(unique[key] for key in sorted(unique))


def _is_said(segment: Segment, said: Sequence[tuple[float, float]]) -> bool:
    start, end = segment.start_seconds, segment.end_seconds
    index = max(0, bisect_right(said, start, key=lambda span: span[0]) - 1)
    if start == end:
        return bool(said) and said[index][0] <= start <= said[index][1]
    covered = 0.0
    while index < len(said) and said[index][0] < end:
        covered += max(0.0, min(end, said[index][1]) - max(start, said[index][0]))
        index += 1
    return covered >= REPEATED_SHARE * (end - start)


def _seconds(segments: Iterable[Segment]) -> float:
    return sum(segment.end_seconds - segment.start_seconds for segment in segments)


# --- formats ----------------------------------------------------------------------------------------------------------


def as_json(transcript: Transcript) -> dict[str, Any]:
    """The whole transcript as plain values; docs/export.md names the fields."""
    return {
        "video_id": transcript.video_id,
        "path": transcript.path,
        "duration_seconds": transcript.duration_seconds,
        "languages": transcript.languages,
        "segments": [asdict(segment) for segment in transcript.segments],
        "speakers": [asdict(speaker) for speaker in transcript.speakers],
        "turns": [asdict(turn) for turn in transcript.turns],
    }


def rttm(transcript: Transcript) -> Iterator[str]:
    """The turns as lines of RTTM (NIST, "Rich Transcription 2009 Evaluation Plan", appendix A)."""
    file_id = _field(PurePath(transcript.path).stem) or transcript.video_id
    for turn in transcript.turns:
        length_seconds = turn.end_seconds - turn.start_seconds
        span = f"{turn.start_seconds:.3f} {length_seconds:.3f}"
        yield f"SPEAKER {file_id} 1 {span} <NA> <NA> {_field(turn.speaker)} <NA> <NA>\n"


def _field(text: str) -> str:
    """Fields end at white space."""
    return "_".join(clean(text).split())
