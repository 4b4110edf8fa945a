"""Which language a window of sound is in. Pure.

The model gives each window a probability for every language. The likeliest is the window's language where it is likely
enough, so a film may change its language. A window that is less sure (short, noisy, a name) takes the language that
most of its sound track was heard in so far; the first ones, which have nothing before them, take their likeliest.

Only what lies before a window decides, and only windows that were sure and did not fail: so the same track gives the
same languages, however its windows are put into batches, and wherever it was resumed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

Ranked = Sequence[tuple[str, float]]  # languages and their probabilities, the likeliest first
Votes = tuple[tuple[str, float], ...]  # languages and the seconds of speech that were surely heard in them


class Note(NamedTuple):
    """What was surely heard in one window."""

    language: str
    seconds: float  # of speech


class LanguageLog:
    """What one sound track was heard in, window by window, in the order of time.

    Windows are numbered as they come. What is settled is kept as sums, so that memory does not grow with the track.
    """

    def __init__(self, votes: Iterable[tuple[str, float]] = ()) -> None:
        """votes: what was heard before the first window, where a track is resumed."""
        self.count = 0  # windows so far
        self._settled = dict(votes)
        self._notes: dict[int, Note] = {}  # by number of the window, not settled yet

    def add(self) -> int:
        """The number of the next window."""
        self.count += 1
        return self.count - 1

    def note(self, number: int, note: Note) -> None:
        """A window was surely heard in a language. To say it again changes nothing."""
        self._notes[number] = note

    def before(self, number: int, also: Mapping[int, Note] | None = None) -> dict[str, float]:
        """Seconds by language, of all windows before this one. also: notes that are not entered yet.

        Always added up in the order of windows: the sums are the same to the last bit, whatever was settled when.
        """
        votes = dict(self._settled)
        for each, (language, seconds) in sorted({**self._notes, **(also or {})}.items()):
            if each < number:
                votes[language] = votes.get(language, 0.0) + seconds
        return votes

    def settle(self, number: int) -> Votes:
        """All windows before this one are done: what they come to, with what was before them, by language."""
        self._settled = self.before(number)
        self._notes = {each: note for each, note in self._notes.items() if each >= number}
        return tuple(sorted(self._settled.items()))


class Place(NamedTuple):
    """Where a window lies in its sound track."""

    log: LanguageLog
    number: int
    seconds: float  # of speech in it


class Decision(NamedTuple):
    """The language of a window."""

    language: str
    probability: float  # of this language in this window
    is_sure: bool  # by itself: it counts for the windows behind it


def decide(batch: Sequence[tuple[Place | None, Ranked]], threshold: float) -> list[Decision]:
    """The language of each window of a batch, of any number of tracks, in any order. Notes nothing: see `note_all`."""
    decisions: dict[int, Decision] = {}
    notes: dict[int, dict[int, Note]] = {}  # by track: of the windows of this batch
    for index in sorted(range(len(batch)), key=lambda index: _number(batch[index][0])):
        place, ranked = batch[index]
        ours = notes.setdefault(id(place.log), {}) if place is not None else {}
        so_far = place.log.before(place.number, ours) if place is not None else {}
        decisions[index] = choose(ranked, so_far, threshold)
        if place is not None and decisions[index].is_sure:
            ours[place.number] = Note(decisions[index].language, place.seconds)
    return [decisions[index] for index in range(len(batch))]


def choose(ranked: Ranked, so_far: Mapping[str, float], threshold: float) -> Decision:
    """The language of one window. so_far: seconds by language of the windows before it."""
    language, probability = ranked[0]
    if probability >= threshold:
        return Decision(language, probability, True)
    if so_far:
        language = min(so_far, key=lambda code: (-so_far[code], code))
    return Decision(language, dict(ranked).get(language, 0.0), False)


def note_all(places: Sequence[Place | None], decisions: Sequence[Decision]) -> None:
    """Enter what was surely heard: once the whole batch is done, for windows that fail must not count."""
    for place, decision in zip(places, decisions, strict=True):
        if place is not None and decision.is_sure:
            place.log.note(place.number, Note(decision.language, place.seconds))


def known(ranked: Ranked, languages: Collection[str]) -> Ranked:
    """Ranks of tokens such as "<|en|>" as ranks of language codes, of those languages alone that have a tokenizer.

    Fine-tuned models have languages of their own making. Never empty: English, improbable, where none is known.
    """
    codes = [(token.strip("<|>"), probability) for token, probability in ranked]
    fallback = "en" if "en" in languages else next(iter(languages))
    return [(code, probability) for code, probability in codes if code in languages] or [(fallback, 0.0)]


def _number(place: Place | None) -> int:
    return place.number if place is not None else 0
