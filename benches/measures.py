"""What the quality bench measures: labels against what is stored. Pure: rows of plain values."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benches.labelled_index import Payload, Stored, of_medium
from benches.labels import Interval, Labels, Turn, Utterance
from benches.scoring import (
    NOBODY,
    DiarizationErrors,
    Naming,
    Place,
    WordErrors,
    diarization_errors,
    naming,
    normalised,
    rank,
    recall,
    word_errors,
)

ALL = "all"  # the row of the sums
RANKS = (1, 5, 10)
EXCERPT_WORDS = 8  # a text of fewer has no middle to ask for
CLIP_SECONDS = 20.0  # of labelled speech, to enroll somebody from: some 15 s without the pauses
LEAST_CLIP_SECONDS = 8.0  # some 6 s without the pauses; voice.enroll_min_seconds is 5

Row = dict[str, Any]

# --- words ------------------------------------------------------------------------------------------------------------


def measure_words(labels: Sequence[Labels], stored: Stored) -> list[Row]:
    """Word errors of each file whose words are known, wholly or in part; and of all files of each language."""
    rows: list[Row] = []
    sums: dict[str, WordErrors] = {}
    for each in labels:
        if each.utterances:
            errors, elsewhere = words_of(each, of_medium(stored.speech, each.medium.name))
            sums[each.language] = sums.get(each.language, WordErrors()) + errors
            facts = {"labels": "partial" if each.text_is_partial else "whole", "elsewhere": elsewhere}
            rows.append(_words_row(each.medium.name, each.language, errors) | facts)
    return rows + [_words_row(ALL, language, errors) for language, errors in sorted(sums.items())]


def words_of(labels: Labels, payloads: Iterable[Payload]) -> tuple[WordErrors, int]:
    """Errors among the words whose middle lies in a stretch of known words, and how many words lie elsewhere."""
    words = sorted(
        ((word["start_seconds"] + word["end_seconds"]) / 2, word["text"])
        for payload in payloads
        for word in payload.get("words", ())
    )
    texts = labels.texts()
    found = [[word for at, word in words if text.start_seconds <= at < text.end_seconds] for text in texts]
    errors = word_errors([text.text for text in texts], [" ".join(each) for each in found], labels.language)
    return errors, len(words) - sum(map(len, found))


def _words_row(name: str, language: str, errors: WordErrors) -> Row:
    return {"name": name, "language": language, **asdict(errors), "rate": errors.rate}


# --- turns ------------------------------------------------------------------------------------------------------------


def measure_turns(labels: Sequence[Labels], stored: Stored, collar_seconds: float) -> list[Row]:
    """Diarization errors of each file with labelled turns, counted in three ways, and of all of them."""
    rows: list[Row] = []
    sums = [DiarizationErrors()] * 3
    for each in labels:
        if each.named_turns:
            voices = of_medium(stored.voices, each.medium.name)
            found = [turn for voice in voices for turn in turns_of(voice, str(voice["cluster"]))]
            ways = _in_three_ways(each, found, collar_seconds)
            sums = [one + other for one, other in zip(sums, ways, strict=True)]
            counts = {"people": len({turn.speaker for turn in each.named_turns}), "voices": len(voices)}
            rows.append({"name": each.medium.name, **counts, **_turns_cells(ways)})
    return [*rows, {"name": ALL, **_turns_cells(sums)}] if rows else []


def turns_of(voice: Payload, name: str) -> list[Turn]:
    """When a stored voice speaks."""
    return [Turn(start, end, name) for start, end in voice["turns"]]


def _in_three_ways(labels: Labels, found: Sequence[Turn], collar_seconds: float) -> list[DiarizationErrors]:
    """With the collar; without overlapping speech, too; and without the collar."""
    return [
        diarization_errors(labels.turns, found, labels.scored, collar, with_overlap)
        for collar, with_overlap in ((collar_seconds, True), (collar_seconds, False), (0.0, True))
    ]


def _turns_cells(ways: Sequence[DiarizationErrors]) -> Row:
    usual, alone, strict = ways
    return {**asdict(usual), "rate": usual.rate, "rate_without_overlap": alone.rate, "rate_without_collar": strict.rate}


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who is to be enrolled, and from what."""

    speaker: str
    medium: Path
    intervals: tuple[Interval, ...]  # the first of their turns, in which nobody else speaks

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.intervals)


def enrolments(labels: Sequence[Labels]) -> list[Enrolment]:
    """One for everybody who says enough: from the file in which they say most, at most half of all they say.

    Those with a single turn, or so little to say, are strangers: their speech should get nobody's name.
    """
    speakers = sorted({turn.speaker for each in labels for turn in each.named_turns})
    planned = [_enrolment(speaker, labels) for speaker in speakers]
    return [each for each in planned if each is not None and each.seconds >= LEAST_CLIP_SECONDS]


def _enrolment(speaker: str, labels: Sequence[Labels]) -> Enrolment | None:
    alone = {
        each.medium: [turn for turn in each.named_turns if turn.speaker == speaker and _is_alone(turn, each)]
        for each in labels
    }
    if sum(map(len, alone.values())) < 2:
        return None
    best = max(alone, key=lambda medium: _seconds(alone[medium]))
    return Enrolment(speaker, best, _first(alone[best], min(CLIP_SECONDS, sum(map(_seconds, alone.values())) / 2)))


def _seconds(turns: Iterable[Turn]) -> float:
    return sum(turn.end_seconds - turn.start_seconds for turn in turns)


def _is_alone(turn: Turn, labels: Labels) -> bool:
    return all(
        other.speaker == turn.speaker
        or other.end_seconds <= turn.start_seconds
        or other.start_seconds >= turn.end_seconds
        for other in labels.turns
    )


def _first(turns: Iterable[Turn], seconds: float) -> tuple[Interval, ...]:
    """So many seconds of turns; the last one is cut."""
    taken: list[Interval] = []
    for turn in turns:
        end = min(turn.end_seconds, turn.start_seconds + seconds)
        if end > turn.start_seconds:
            taken.append((turn.start_seconds, end))
            seconds -= end - turn.start_seconds
    return tuple(taken)


def measure_names(labels: Sequence[Labels], stored: Stored, enrolled: Sequence[Enrolment]) -> list[Row]:
    """What names speech was given, in each file; then of the people enrolled from the same file, and from another."""
    names = {each.speaker for each in enrolled}
    rows: list[Row] = []
    sums = [Naming()] * 3
    for each in (each for each in labels if each.named_turns):
        voices = of_medium(stored.voices, each.medium.name)
        found = [turn for voice in voices for turn in turns_of(voice, name_of(voice))]
        from_here = [enrolment for enrolment in enrolled if enrolment.medium == each.medium]
        clips = [interval for enrolment in from_here for interval in enrolment.intervals]
        here = {enrolment.speaker for enrolment in from_here}
        results = [
            naming(each.turns, found, names, each.scored, clips, counted) for counted in (None, here, names - here)
        ]
        sums = [one + other for one, other in zip(sums, results, strict=True)]
        rows.append(_names_row(each.medium.name, results[0]))
    titles = (ALL, "all, enrolled from the same file", "all, enrolled from another file")
    return rows + [_names_row(name, result) for name, result in zip(titles, sums, strict=True)] if rows else []


def name_of(voice: Payload) -> str:
    """The enrolled person whose voice it was found to be, or NOBODY."""
    return str(voice["speaker"]) if voice.get("profile_id") else NOBODY


def _names_row(name: str, result: Naming) -> Row:
    return {"name": name, **asdict(result), "enrolled_seconds": result.enrolled_seconds, "accuracy": result.accuracy}


# --- search -----------------------------------------------------------------------------------------------------------

Find = Callable[[str, int], Sequence[Place]]  # query, limit → places, best first


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for, and where it is."""

    query: str
    answers: tuple[Place, ...]


def questions(
    labels: Sequence[Labels],
    told: Callable[[Labels], Iterable[Utterance]],
    shortened: Callable[[str], str | None] = str,
) -> list[Question]:
    """A question for each of the texts that are told, `shortened` (None: not asked), and none twice.

    The answers are all places whose text holds the query, by Whisper's normaliser: the same is said in several files.
    """
    places = [
        (f" {normalised(text.text, each.language)} ", text.text, Place(each.medium.name, *_span(text)))
        for each in labels
        for text in told(each)
    ]
    asked: dict[str, Question] = {}
    for each in labels:
        for whole in dict.fromkeys(text.text for text in told(each)):
            query = shortened(whole)
            if query is not None and query not in asked:
                key = f" {normalised(query, each.language)} "
                answers = tuple(place for text, origin, place in places if key in text or origin == whole)
                asked[query] = Question(query, answers)
    return list(asked.values())


def _span(text: Utterance) -> Interval:
    return text.start_seconds, text.end_seconds


def excerpt(text: str) -> str | None:
    """A few words from the middle: a quarter of them, at least three; None when the text is short."""
    words = text.split()
    count = max(3, len(words) // 4)
    first = (len(words) - count) // 2
    return " ".join(words[first : first + count]) if len(words) >= EXCERPT_WORDS else None


def measure_search(asked: Sequence[Question], find: Find) -> Row:
    """Share of the questions with an answer among the first hits."""
    ranks = [rank(find(question.query, max(RANKS)), question.answers) for question in asked]
    return {"questions": len(asked), **{f"recall_at_{k}": recall(ranks, k) for k in RANKS}}
