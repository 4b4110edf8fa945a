"""Subtitles from a transcript: segments cut into cues that can be read, as SubRip (srt) and WebVTT (vtt). Pure.

    segment ─► runs of one speaker ─► atoms, which no break may divide ─► cues of two lines ─► times without overlap

No two cues show at once, in neither format: where people speak at once, players put cues over each other, swap them, or
drop one. docs/export.md says what is done instead.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, zip_longest

from stages.line_breaks import LINE_COLUMNS, columns, pieces, shortened
from stages.phrases import CLAUSE_END, SENTENCE_END
from stages.transcript import Segment

CUE_SECONDS = 7.0  # the usual limit, as are two lines
READ_COLUMNS = 17  # a second: what subtitles ask of their readers
MIN_CUE_MS = 500  # a shorter cue stays until then, where nothing follows: nobody reads faster
NAME_COLUMNS = 30  # of a speaker before the text: the rest of the line is for words

# What a cue costs, for the cheapest way to cut a text: few cues, about equally full, that end with sentences.
_CUE_COST = 1.0
_OPEN_END_COST = 0.5  # in the midst of a clause
_CLAUSE_END_COST = 0.1
_EMPTINESS_COST = 0.2  # times the square of the empty share of its room

_CLOSING_QUOTES = "\"'”’»)]"
_BRACES = str.maketrans("{}", "()")
_TAG = re.compile(r"<([^<>]*)>")


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown at a time. The name of the speaker stands in `lines` only where `cues_of` was asked for that."""

    start_ms: int
    end_ms: int  # > start_ms, and <= start_ms of the next one
    speaker: str | None
    lines: tuple[str, ...]  # one or two, none empty


@dataclass(frozen=True, slots=True)
class _Span:
    """A part of a segment's text of which it is known when it was said: a word, or all of it."""

    text: str
    start_seconds: float
    end_seconds: float
    speaker: str | None


@dataclass(frozen=True, slots=True)
class _Atom:
    """A part of a text within which no line and no cue may end."""

    text: str
    is_spaced: bool  # a space stands before it
    start_seconds: float
    end_seconds: float


def cues_of(segments: Sequence[Segment], with_names: bool) -> list[Cue]:
    """The cues of a transcript, in order, no two at the same time.

    with_names: the text begins with the speaker's name, as SubRip has no other place for it.
    """
    cues: list[Cue] = []
    for segment in segments:
        spans = _spans(segment)
        for speaker, run in groupby(spans, key=lambda span: span.speaker):
            cues += _cues(list(run), speaker, with_names, is_timed=len(spans) > 1)
    return _in_turn(cues)


# --- what is shown together -------------------------------------------------------------------------------------------


def _spans(segment: Segment) -> list[_Span]:
    """The segment's text in parts with times. Words that are not those of the text are of no use for that."""
    text, words = segment.text, segment.words
    if not words or _ink("".join(word.text for word in words)) != _ink(text):
        return [_Span(text, segment.start_seconds, segment.end_seconds, segment.speaker)]
    spans, begin = [], 0
    for word in words:
        end, missing = begin, len(_ink(word.text))
        while missing:
            missing -= not text[end].isspace()
            end += 1
        spans.append(_Span(text[begin:end], word.start_seconds, word.end_seconds, word.speaker or segment.speaker))
        begin = end
    return spans


def _cues(run: Sequence[_Span], speaker: str | None, with_names: bool, is_timed: bool) -> Iterator[Cue]:
    """The cues of what one speaker says in a segment; their times may still overlap those of others."""
    name = f"{shortened(speaker, NAME_COLUMNS)}:" if with_names and speaker else ""
    sheet = _Sheet(_atoms(run), name)
    count = len(sheet.atoms)
    is_line = (
        not is_timed and sheet.width(0, count) <= LINE_COLUMNS
    )  # one line is not divided by times that are guessed
    for begin, end in [(0, count)] if is_line else _parts(sheet):
        start_seconds = sheet.atoms[begin].start_seconds
        end_seconds = min(sheet.atoms[end - 1].end_seconds, start_seconds + CUE_SECONDS)
        start_ms = round(start_seconds * 1000)
        yield Cue(start_ms, max(round(end_seconds * 1000), start_ms + 1), speaker, sheet.lines(begin, end))


class _Sheet:
    """Atoms side by side: how wide what lies between two breaks is, and how it goes onto two lines."""

    def __init__(self, atoms: Sequence[_Atom], name: str) -> None:
        """name: stands at the beginning of each cue; or empty."""
        self.atoms = atoms
        self._name = name
        self._name_columns = columns(name) + 1 if name else 0
        widths = [columns(atom.text) for atom in atoms]
        self._right = list(accumulate(width + atom.is_spaced for width, atom in zip(widths, atoms, strict=True)))
        self._left = [right - width for right, width in zip(self._right, widths, strict=True)]

    def width(self, begin: int, end: int) -> int:
        """Columns of atoms [begin:end] in one line."""
        return self._right[end - 1] - self._left[begin] if begin < end else 0

    def fits(self, begin: int, end: int) -> bool:
        """Whether these atoms make one cue. A single one always does: no atom is wider than a line."""
        if end - begin == 1:
            return True
        if self.atoms[end - 1].end_seconds - self.atoms[begin].start_seconds > CUE_SECONDS:
            return False
        first_line = bisect_right(self._right, self._left[begin] + LINE_COLUMNS - self._name_columns)
        return self.width(max(first_line, begin), end) <= LINE_COLUMNS

    def cost(self, begin: int, end: int) -> float:
        """Of these atoms as a cue."""
        empty_share = 1 - (self._name_columns + self.width(begin, end)) / (2 * LINE_COLUMNS)
        return _CUE_COST + _EMPTINESS_COST * empty_share**2 + self._end_cost(end)

    def lines(self, begin: int, end: int) -> tuple[str, ...]:
        """The text of a cue that fits: one line, or two of about equal width, the first to a clause's end if it can."""
        if self._name_columns + self.width(begin, end) <= LINE_COLUMNS:
            return (self._line(begin, end, self._name),)
        ways = [at for at in range(begin if self._name else begin + 1, end) if self._divides(begin, at, end)]
        middle = min(ways, key=lambda at: self._unevenness(begin, at, end))
        return self._line(begin, middle, self._name), self._line(middle, end, "")

    def _divides(self, begin: int, middle: int, end: int) -> bool:
        """Whether both lines are short enough."""
        return max(self._name_columns + self.width(begin, middle), self.width(middle, end)) <= LINE_COLUMNS

    def _unevenness(self, begin: int, middle: int, end: int) -> float:
        """How bad a way it is to break a cue into lines; a name alone in its line is worst."""
        difference = abs(self._name_columns + self.width(begin, middle) - self.width(middle, end))
        return difference / LINE_COLUMNS + (self._end_cost(middle) if middle > begin else _CUE_COST)

    def _end_cost(self, end: int) -> float:
        """Of a break behind the atoms before `end`."""
        text = self.atoms[end - 1].text.rstrip(_CLOSING_QUOTES)
        if end == len(self.atoms) or text.endswith(SENTENCE_END):
            return 0.0
        return _CLAUSE_END_COST if text.endswith(CLAUSE_END) else _OPEN_END_COST

    def _line(self, begin: int, end: int, name: str) -> str:
        text = "".join(" " * atom.is_spaced + atom.text for atom in self.atoms[begin:end]).strip()
        return f"{name} {text}".strip()


def _parts(sheet: _Sheet) -> list[tuple[int, int]]:
    """The cheapest way to cut the atoms into cues, as bounds: the shortest path from break to break."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the atoms so far: what they cost, and where their last cue begins
    for end in range(1, len(sheet.atoms) + 1):
        ways = []
        for begin in range(end - 1, -1, -1):
            if not sheet.fits(begin, end):  # nor does what begins before
                break
            ways.append((best[begin][0] + sheet.cost(begin, end), begin))
        best.append(min(ways))
    parts = []
    end = len(sheet.atoms)
    while end:
        parts.append((best[end][1], end))
        end = best[end][1]
    return parts[::-1]


# --- times ------------------------------------------------------------------------------------------------------------


def _atoms(run: Sequence[_Span]) -> list[_Atom]:
    said_at = _clock(run)
    atoms, begin = [], 0
    for piece, is_spaced in pieces("".join(span.text for span in run)):
        end = begin + len(_ink(piece))
        atoms.append(_Atom(piece, is_spaced, *said_at(begin, end)))
        begin = end
    return atoms


def _clock(run: Sequence[_Span]) -> Callable[[int, int], tuple[float, float]]:
    """When the characters [begin:end] were said, white space not counted: within a span, in proportion."""
    ends = list(accumulate(len(_ink(span.text)) for span in run))

    def at(index: int, position: int) -> float:
        span, begin = run[index], ends[index - 1] if index else 0
        share = (position - begin) / (ends[index] - begin)
        return span.start_seconds + share * (span.end_seconds - span.start_seconds)

    return lambda begin, end: (at(bisect_right(ends, begin), begin), at(bisect_left(ends, end), end))


def _ink(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


def _in_turn(cues: Sequence[Cue]) -> list[Cue]:
    """The same cues by start, each ending before the next begins, none too short to be read where there is room."""
    shown: list[Cue] = []
    for cue in sorted(cues, key=lambda cue: (cue.start_ms, cue.end_ms)):
        if shown and cue.start_ms < shown[-1].end_ms:
            start_ms = _handover_ms(shown[-1], cue)
            shown[-1] = replace(shown[-1], end_ms=start_ms)
            cue = replace(cue, start_ms=start_ms, end_ms=max(cue.end_ms, start_ms + 1))
        shown.append(cue)
    following = [cue.start_ms for cue in shown[1:]]
    return [_readable(cue, next_ms) for cue, next_ms in zip_longest(shown, following)]


def _handover_ms(last: Cue, cue: Cue) -> int:
    """When a cue gives way to one that begins before its end.

    As soon as that begins; or when there was time to read it, but not behind its end or the middle of the later one.
    """
    read_ms = last.start_ms + round(sum(map(columns, last.lines)) / READ_COLUMNS * 1000)
    latest_ms = min(last.end_ms, (cue.start_ms + cue.end_ms) // 2)
    return max(cue.start_ms, min(read_ms, latest_ms), last.start_ms + 1)


def _readable(cue: Cue, next_ms: int | None) -> Cue:
    wanted_ms = cue.start_ms + MIN_CUE_MS
    return replace(cue, end_ms=max(cue.end_ms, wanted_ms if next_ms is None else min(wanted_ms, next_ms)))


# --- formats ----------------------------------------------------------------------------------------------------------


def srt(cues: Sequence[Cue]) -> Iterator[str]:
    """SubRip. It knows no escapes: what players take for markup is exchanged for what looks like it."""
    for number, cue in enumerate(cues, 1):
        text = _plain("\n".join(cue.lines))
        yield f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{text}\n\n"


def vtt(cues: Sequence[Cue]) -> Iterator[str]:
    """WebVTT (https://www.w3.org/TR/webvtt1/), speakers as voice tags."""
    yield "WEBVTT\n\n"
    for cue in cues:
        voice = f"<v {_escaped(cue.speaker)}>" if cue.speaker else ""
        text = voice + _escaped("\n".join(cue.lines))
        yield f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{text}\n\n"


def _time(milliseconds: int, point: str) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{fraction:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    """Tags lose their brackets, ASS codes their braces and backslashes their force; `-->` becomes an arrow."""
    text = re.sub("--+>", "→", text).translate(_BRACES).replace("\\", "\\\u2060")  # a word joiner, as FFmpeg does
    while (plain := _TAG.sub(r"‹\1›", text)) != text:
        text = plain
    return text
