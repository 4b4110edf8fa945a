"""How right a result is: errors among words, in who speaks when, among names, and in what a search finds first. Pure.

All times are in seconds. Every figure comes with what it is a share of, so that those of several media can be added up.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import groupby, product
from operator import itemgetter
from typing import Self

import jiwer
import numpy as np
from scipy.optimize import linear_sum_assignment
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from benches.labels import Interval, Turn

COLLAR_SECONDS = 0.25  # NIST's, Rich Transcription 2009 evaluation plan: on both sides of each border of a label
UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my"})  # written without spaces: their "words" are characters
NOBODY = ""  # the name of a found turn whose speaker is not known


class Sums:
    """Figures that are added up field by field."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        pairs = zip(astuple(self), astuple(other), strict=True)  # type: ignore[call-overload]  # dataclasses, all
        return type(self)(*(one + another for one, another in pairs))


# --- words ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WordErrors(Sums):
    """What has to be done to a text to make it the one that was said."""

    words: int = 0  # that were said
    substituted: int = 0
    deleted: int = 0  # said, not found
    inserted: int = 0  # found, not said

    @property
    def rate(self) -> float | None:
        """Word error rate; above 1 when more was invented than said. None where nothing was said."""
        return (self.substituted + self.deleted + self.inserted) / self.words if self.words else None


def word_errors(said: Sequence[str], found: Sequence[str], language: str = "en") -> WordErrors:
    """Errors of each found text against the one that was said, added up; both are normalised first.

    The least number of substitutions, deletions and insertions of words (Levenshtein).
    """
    pairs = [(normalised(one, language), normalised(other, language)) for one, other in zip(said, found, strict=True)]
    invented = sum(len(other.split()) for one, other in pairs if not one)
    worded = [pair for pair in pairs if pair[0]]
    if not worded:
        return WordErrors(inserted=invented)
    result = jiwer.process_words([one for one, _ in worded], [other for _, other in worded])
    words = result.hits + result.substitutions + result.deletions
    return WordErrors(words, result.substitutions, result.deletions, result.insertions + invented)


def normalised(text: str, language: str = "en") -> str:
    """A text without what is no error: case, punctuation, spelling of numbers, British and American, "um".

    Whisper's rules (Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022, appendix C): the
    English ones, or those for all other languages; where no spaces are written, characters are words.
    """
    return " ".join(_normaliser(language)(text).split())


@cache
def _normaliser(language: str) -> Callable[[str], str]:
    if language == "en":
        return EnglishTextNormalizer()  # type: ignore[no-any-return]
    return BasicTextNormalizer(split_letters=language in UNSPACED)  # type: ignore[no-any-return]


# --- who speaks when --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DiarizationErrors(Sums):
    """Seconds of speech, each counted once for everybody who speaks then."""

    speech_seconds: float = 0.0
    missed_seconds: float = 0.0  # fewer speakers found than there are
    false_seconds: float = 0.0  # more speakers found than there are
    confused_seconds: float = 0.0  # as many, but not the right ones

    @property
    def rate(self) -> float | None:
        """Diarization error rate; None where nobody speaks."""
        wrong = self.missed_seconds + self.false_seconds + self.confused_seconds
        return wrong / self.speech_seconds if self.speech_seconds else None


def diarization_errors(
    labelled: Sequence[Turn],
    found: Sequence[Turn],
    scored: Sequence[Interval],
    collar_seconds: float = COLLAR_SECONDS,
    with_overlap: bool = True,
) -> DiarizationErrors:
    """NIST's diarization error (Rich Transcription 2009 evaluation plan, section 6.1), within `scored`.

    Each speaker found is taken for at most one of the labelled, so that the time in common is longest. `collar_seconds`
    on both sides of each border of a labelled turn are not counted, as labels are not exact; without overlap, nor is
    the time in which several labelled people speak. What is not counted has no part in the choice of the speakers.
    """
    collars = [
        (edge - collar_seconds, edge + collar_seconds)
        for turn in labelled
        for edge in (turn.start_seconds, turn.end_seconds)
    ]
    counted = [
        stretch
        for stretch in stretches(labelled, found, scored, collars if collar_seconds else [])
        if with_overlap or len(stretch.labelled) < 2
    ]
    pairs = best_pairs(counted)
    return sum((_errors_in(stretch, pairs) for stretch in counted), DiarizationErrors())


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which the same people speak, by the labels and by what was found."""

    seconds: float
    labelled: frozenset[str]
    found: frozenset[str]


def stretches(
    labelled: Iterable[Turn], found: Iterable[Turn], scored: Iterable[Interval], left_out: Iterable[Interval] = ()
) -> Iterator[Stretch]:
    """All stretches within `scored` and outside `left_out`, in the order of time. O(n log n)."""
    spans = [
        *((turn.start_seconds, turn.end_seconds, 0, turn.speaker) for turn in labelled),
        *((turn.start_seconds, turn.end_seconds, 1, turn.speaker) for turn in found),
        *((start, end, 2, "") for start, end in scored),
        *((start, end, 3, "") for start, end in left_out),
    ]
    begins = [(start, layer, name, 1) for start, _, layer, name in spans]
    ends = [(end, layer, name, -1) for _, end, layer, name in spans]
    now: tuple[Counter[str], ...] = (Counter(), Counter(), Counter(), Counter())
    since = 0.0
    for time, group in groupby(sorted(begins + ends, key=itemgetter(0)), key=itemgetter(0)):
        if now[2][""] and not now[3][""] and time > since:
            yield Stretch(time - since, *(frozenset(+layer) for layer in now[:2]))
        for _, layer, name, step in group:
            now[layer][name] += step
        since = time


def best_pairs(counted: Sequence[Stretch]) -> dict[str, str]:
    """Labelled speaker for found ones: the one-to-one choice with the longest time in common (Hungarian method)."""
    together: defaultdict[tuple[str, str], float] = defaultdict(float)
    for stretch in counted:
        for pair in product(stretch.labelled, stretch.found):
            together[pair] += stretch.seconds
    names, voices = (sorted({pair[side] for pair in together}) for side in (0, 1))
    shared = np.array([[together[name, voice] for voice in voices] for name in names]).reshape(len(names), len(voices))
    rows, columns = linear_sum_assignment(shared, maximize=True)
    return {voices[column]: names[row] for row, column in zip(rows, columns, strict=True)}


def _errors_in(stretch: Stretch, pairs: dict[str, str]) -> DiarizationErrors:
    there, heard = len(stretch.labelled), len(stretch.found)
    right = len(stretch.labelled & {pairs[voice] for voice in stretch.found if voice in pairs})
    return DiarizationErrors(
        speech_seconds=stretch.seconds * there,
        missed_seconds=stretch.seconds * max(0, there - heard),
        false_seconds=stretch.seconds * max(0, heard - there),
        confused_seconds=stretch.seconds * (min(there, heard) - right),
    )


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Naming(Sums):
    """What became of labelled speech, in seconds: of people who are enrolled, and of strangers."""

    right_seconds: float = 0.0
    wrong_seconds: float = 0.0  # somebody else's name
    unknown_seconds: float = 0.0  # a voice was found, and nobody's name given to it
    unheard_seconds: float = 0.0  # no voice was found
    stranger_seconds: float = 0.0  # of people who are not enrolled
    misnamed_seconds: float = 0.0  # of these: with the name of somebody who does not speak then

    @property
    def enrolled_seconds(self) -> float:
        return self.right_seconds + self.wrong_seconds + self.unknown_seconds + self.unheard_seconds

    @property
    def accuracy(self) -> float | None:
        """Share of the enrolled people's speech that carries their name; None when none of them speaks."""
        return self.right_seconds / self.enrolled_seconds if self.enrolled_seconds else None


def naming(
    labelled: Sequence[Turn],
    found: Sequence[Turn],
    enrolled: Collection[str],
    scored: Sequence[Interval],
    left_out: Sequence[Interval] = (),
    counted: Collection[str] | None = None,
) -> Naming:
    """Which names speech was given. `found`: turns with the name of an enrolled person, or NOBODY.

    Where several people speak at once each is counted for its own, and a name that belongs to any of them is not wrong.
    `left_out`: what people were enrolled from. `counted`: the people whose speech is looked at; None: everybody.
    """
    return sum(
        (
            _named(speaker, stretch, speaker in enrolled)
            for stretch in stretches(labelled, found, scored, left_out)
            for speaker in stretch.labelled
            if counted is None or speaker in counted
        ),
        Naming(),
    )


def _named(speaker: str, stretch: Stretch, is_enrolled: bool) -> Naming:
    wrong = stretch.found - stretch.labelled - {NOBODY}
    if not is_enrolled:
        return Naming(stranger_seconds=stretch.seconds, misnamed_seconds=stretch.seconds if wrong else 0.0)
    if speaker in stretch.found:
        return Naming(right_seconds=stretch.seconds)
    if wrong:
        return Naming(wrong_seconds=stretch.seconds)
    return Naming(unknown_seconds=stretch.seconds) if stretch.found else Naming(unheard_seconds=stretch.seconds)


# --- search -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a medium."""

    medium: str
    start_seconds: float
    end_seconds: float

    def holds(self, other: "Place") -> bool:
        """Whether they share at least half of the shorter one."""
        shared = min(self.end_seconds, other.end_seconds) - max(self.start_seconds, other.start_seconds)
        shorter = min(self.end_seconds - self.start_seconds, other.end_seconds - other.start_seconds)
        return self.medium == other.medium and shared > 0 and shared >= shorter / 2


def rank(hits: Iterable[Place], answers: Sequence[Place]) -> int | None:
    """Number of the first hit, from 1, that is one of the answers; None when none is."""
    return next((number for number, hit in enumerate(hits, 1) if any(hit.holds(answer) for answer in answers)), None)


def recall(ranks: Sequence[int | None], k: int) -> float | None:
    """Share of the searches whose answer is among the first k hits; None when there were no searches."""
    return sum(each is not None and each <= k for each in ranks) / len(ranks) if ranks else None
