"""Profiles of enrolled people: clips that are fit for one, the threshold of a match, and whose voice a voice is. Pure.

Every vector has length 1, so that a dot product is a cosine. A profile is the mean of its windows' vectors: that is how
speaker verification enrolls from several utterances (GE2E, https://arxiv.org/abs/1710.10467).
"""

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.errors import SluiceError
from transport.messages import VoiceSample

Vector = NDArray[np.float32]  # [dimension], length 1

# speechbrain verifies one claimed identity at this cosine, of two single utterances (SpeakerRecognition.verify_batch).
SAME_PERSON_SCORE = 0.25

# While an archive has too few scores of its own. Different people's voices have a cosine of 0.1 ± 0.1 with ECAPA
# trained on VoxCeleb; one comparison in a thousand lies more than three deviations above the mean. speechbrain's 0.25
# asks less, for it is told who it should be; here any voice of an archive may be taken for any profile.
DEFAULT_THRESHOLD = 0.4
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = SAME_PERSON_SCORE, 0.75  # a threshold out of this range tells of bad scores
WRONG_NAMES = 0.001  # share of the voices of people who are not enrolled that may get somebody's name
ENOUGH_SCORES = 30  # of each kind: a deviation from 30 values is right to 13 %
SMALLEST_DEVIATION = 0.02  # scores that are all the same tell nothing of the next one
MARGIN = 0.05  # between the best profile and the second: closer is a toss-up, and a wrong name is worse than none

MAX_NAME_CHARACTERS = 200
HISTORY_EVENTS = 100  # of a profile; of more, the first and the latest are kept
TAKEN_NAMES = re.compile(r"speaker \d+( of .*)?", re.IGNORECASE)  # what voices without a profile are called


class SpeakerError(SluiceError):
    """What was asked for cannot be done: a clip is not fit for a profile ("clip-…"), or a name is wrong ("name-…")."""


class Event(NamedTuple):
    """Something that happened to a profile."""

    at: str  # ISO 8601, UTC
    event: str  # enrolled | clips added | renamed | merged | relabelled
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """An enrolled person."""

    profile_id: str
    name: str
    vector: Vector
    windows: int  # how many vectors the mean is of: its weight in a merge
    seconds: float  # of speech in its clips
    clips: tuple[dict[str, Any], ...]  # {content, path, seconds, added}
    history: tuple[Event, ...]

    @property
    def contents(self) -> frozenset[str]:
        """The clips it is made of, by their content."""
        return frozenset(clip["content"] for clip in self.clips)

    def noting(self, now: float, event: str, detail: str) -> "Profile":
        """With one more event in its history."""
        history = (*self.history, Event(timestamp(now), event, detail))
        return replace(self, history=history[:1] + history[max(1, len(history) - HISTORY_EVENTS + 1) :])


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which cosine on a voice is taken for a profile's."""

    value: float
    source: Literal["archive", "default"]  # default: the archive has too few scores of different voices
    genuine: int = 0  # scores of one voice with itself that it was made from
    impostor: int = 0  # … of different voices

    def as_dict(self) -> dict[str, Any]:
        """For an answer in JSON."""
        scores = self.genuine + self.impostor
        return {"value": round(self.value, 3), "source": self.source, "scores": scores, "impostor": self.impostor}


class Match(NamedTuple):
    """The profile that a voice is taken for."""

    profile: Profile
    score: float  # cosine


class Roster:
    """Everybody who is enrolled, and how sure one must be."""

    def __init__(self, profiles: Sequence[Profile] = (), threshold: Threshold | None = None) -> None:
        self.profiles = tuple(sorted(profiles, key=lambda profile: (profile.name, profile.profile_id)))
        self.threshold = threshold or Threshold(DEFAULT_THRESHOLD, "default")
        self._vectors = np.stack([each.vector for each in self.profiles]) if self.profiles else None

    def match(self, voice: Vector) -> Match | None:
        """The best profile for a voice, if it reaches the threshold and is better than the second by MARGIN."""
        if self._vectors is None:
            return None
        scores = self._vectors @ voice
        best = int(np.argmax(scores))
        others = np.delete(scores, best)
        is_clear = others.size == 0 or float(scores[best]) - float(others.max()) >= MARGIN
        if float(scores[best]) < self.threshold.value or not is_clear:
            return None
        return Match(self.profiles[best], float(scores[best]))

    def alike(self, profile: Profile) -> list[tuple[str, float]]:
        """Names of the other profiles that could be the same person, with the cosine."""
        scores = [(other.name, float(other.vector @ profile.vector)) for other in self.profiles]
        others = [each for each in scores if each[0] != profile.name and each[1] >= self.threshold.value]
        return sorted(others, key=lambda each: -each[1])


# --- the threshold --------------------------------------------------------------------------------------------------


def calibrate(genuine: Sequence[float], impostor: Sequence[float], profiles: int = 1) -> Threshold:
    """The threshold from an archive's own scores: of a thousand voices of strangers one gets the name of a profile.

    genuine: cosines of a voice with itself, from two halves of its windows. impostor: cosines between the voices of
    one video, who are different people. Both are taken for normal; median and quartiles stand for mean and deviation,
    so that a tenth of wrong scores (one voice that was found twice, two that were found as one) hardly matters.
    profiles: how many a voice is compared with; each may be wrong, so each must be the surer.

    Where the two lie so close that this would shut out a voice's own scores, it is the point of equal error instead.
    """
    if len(impostor) < ENOUGH_SCORES:
        return Threshold(DEFAULT_THRESHOLD, "default", len(genuine), len(impostor))
    middle, deviation = spread(impostor)
    value = NormalDist(middle, deviation).inv_cdf(1 - WRONG_NAMES / max(1, profiles))
    if len(genuine) >= ENOUGH_SCORES:
        value = min(value, equal_error(spread(genuine), (middle, deviation)))
    value = min(max(value, LOWEST_THRESHOLD), HIGHEST_THRESHOLD)
    return Threshold(value, "archive", len(genuine), len(impostor))


def spread(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation of a normal distribution, robustly: the median, and the middle half of the values."""
    low, middle, high = (float(each) for each in np.quantile(np.asarray(scores, np.float64), (0.25, 0.5, 0.75)))
    return middle, max((high - low) / 1.349, SMALLEST_DEVIATION)  # the quartiles of a normal lie 1.349 deviations apart


def equal_error(genuine: tuple[float, float], impostor: tuple[float, float]) -> float:
    """Where as much of one normal (mean, deviation) lies below as of the other lies above."""
    return (genuine[0] * impostor[1] + impostor[0] * genuine[1]) / (genuine[1] + impostor[1])


# --- clips ----------------------------------------------------------------------------------------------------------


def distinct(samples: Iterable[VoiceSample]) -> tuple[list[VoiceSample], list[str]]:
    """Each content once, and a note for each clip that was left out for that."""
    kept: dict[str, VoiceSample] = {}
    notes = []
    for sample in samples:
        first = kept.setdefault(sample.content, sample)
        if first is not sample:
            notes.append(f"{sample.shown_path} has the same content as {first.shown_path}: counted once")
    return list(kept.values()), notes


def voice_dimension(samples: Sequence[VoiceSample]) -> int:
    """Of their vectors, which all have one. Raises SpeakerError "clip-none", "clip-bad"."""
    if not samples:
        raise SpeakerError("clip-none", "no clip was given: name at least one")
    dimension = len(samples[0].vectors[0]) if samples[0].vectors else 0
    for sample in samples:
        if not sample.vectors or not dimension or any(len(row) != dimension for row in sample.vectors):
            raise SpeakerError("clip-bad", f"{sample.shown_path}: its voice is incomplete: enroll it again")
    return dimension


def sample_vector(sample: VoiceSample) -> Vector:
    """The mean voice of a clip. Raises SpeakerError "clip-bad" for numbers that are no voice."""
    total = np.asarray(sample.vectors, np.float32).sum(axis=0)
    if not np.isfinite(total).all() or not total.any():
        raise SpeakerError("clip-bad", f"{sample.shown_path}: no voice could be made of it: take another clip")
    return unit(total)


def check_same_person(samples: Sequence[VoiceSample], profile: Profile | None = None) -> None:
    """Refuse a clip that does not sound like the profile, or like most of the other clips.

    The median of its cosines to the others decides, so that one foreign clip does not make the others look foreign.
    Raises SpeakerError "clip-other-person".
    """
    voices = [sample_vector(sample) for sample in samples]
    if profile is not None:
        for sample, voice in zip(samples, voices, strict=True):
            _refuse_stranger(sample.shown_path, float(voice @ profile.vector), f"{profile.name}, who is enrolled")
    if len(samples) < 2:
        return
    cosines = np.stack(voices) @ np.stack(voices).T
    usual = [float(np.median(np.delete(row, place))) for place, row in enumerate(cosines)]
    worst = int(np.argmin(usual))
    others = samples[1 - worst].shown_path if len(samples) == 2 else "most of the other clips"
    _refuse_stranger(samples[worst].shown_path, usual[worst], others)


def _refuse_stranger(path: str, score: float, others: str) -> None:
    if score < SAME_PERSON_SCORE:
        raise SpeakerError(
            "clip-other-person",
            f"{path} does not sound like {others} (cosine {score:.2f}, one person has {SAME_PERSON_SCORE} and more): "
            "leave it out, or enroll it under a name of its own",
        )


def with_clips(profile: Profile, samples: Sequence[VoiceSample], now: float) -> Profile:
    """The profile with further clips. Their windows weigh as much as those that are in it."""
    vector, windows = profile.vector, profile.windows
    for sample in samples:
        vector = weighted(vector, windows, sample_vector(sample), len(sample.vectors))
        windows += len(sample.vectors)
    clips = tuple(
        {
            "content": sample.content,
            "path": sample.shown_path,
            "seconds": round(sample.seconds, 2),
            "added": timestamp(now),
        }
        for sample in samples
    )
    seconds = round(profile.seconds + sum(sample.seconds for sample in samples), 2)
    return replace(profile, vector=vector, windows=windows, seconds=seconds, clips=profile.clips + clips)


def new_profile(profile_id: str, name: str, samples: Sequence[VoiceSample], now: float) -> Profile:
    """A profile of some clips."""
    nobody = Profile(profile_id, name, np.zeros(len(samples[0].vectors[0]), np.float32), 0, 0.0, (), ())
    return with_clips(nobody, samples, now).noting(now, "enrolled", clips_text(samples))


def merged(one: Profile, into: Profile, now: float) -> Profile:
    """`into`, with the clips and the history of `one`. Done already, it stays what it is."""
    if one.contents <= into.contents:
        return into
    history = tuple(sorted(one.history + into.history))
    joined = replace(
        into,
        vector=weighted(into.vector, into.windows, one.vector, one.windows),
        windows=into.windows + one.windows,
        seconds=round(into.seconds + one.seconds, 2),
        clips=into.clips + tuple(clip for clip in one.clips if clip["content"] not in into.contents),
        history=history,
    )
    return joined.noting(now, "merged", f"{one.name}: {count(len(one.clips), 'clip')}, {one.seconds:.0f} s of speech")


def unit(vector: NDArray[np.floating[Any]]) -> Vector:
    """The same direction with length 1."""
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def weighted(one: Vector, weight: int, other: Vector, other_weight: int) -> Vector:
    """The mean direction of two means."""
    return unit(one * np.float32(weight) + other * np.float32(other_weight))


# --- names and words ------------------------------------------------------------------------------------------------


def find(profiles: Sequence[Profile], name: str | None) -> Profile:
    """The profile of that name. Raises SpeakerError "name-unknown", which names the nearest."""
    wanted = tidy(name)
    by_name = {profile.name: profile for profile in profiles}
    if wanted in by_name:
        return by_name[wanted]
    folded = {known.casefold(): known for known in by_name}
    near = difflib.get_close_matches(wanted.casefold(), folded, n=1)
    hint = f"the nearest name is {folded[near[0]]}" if near else "`speakers list` shows who is"
    raise SpeakerError("name-unknown", f"nobody called {wanted!r} is enrolled: {hint}")


def tidy(name: str | None) -> str:
    """Composed, without spaces around it."""
    return unicodedata.normalize("NFC", name or "").strip()


def clean_name(name: str | None) -> str:
    """A name as it is stored: composed, without spaces around it. Raises SpeakerError "name-bad"."""
    cleaned = tidy(name)
    if not cleaned:
        raise SpeakerError("name-bad", "the name of a speaker is empty: say who it is")
    if not cleaned.isprintable():
        raise SpeakerError("name-bad", f"the name {cleaned!a} holds characters that cannot be printed: leave them out")
    if len(cleaned) > MAX_NAME_CHARACTERS:
        raise SpeakerError("name-bad", f"the name has {len(cleaned)} characters; {MAX_NAME_CHARACTERS} at most")
    if TAKEN_NAMES.fullmatch(cleaned):
        raise SpeakerError("name-bad", f"{cleaned!r} is what a voice without a name is called: choose another name")
    return cleaned


def unmatched(video_id: str, cluster: int) -> str:
    """What a voice is called that is nobody's who is enrolled: unique in the archive."""
    return f"speaker {cluster} of {video_id[:8]}"


def clips_text(samples: Sequence[VoiceSample]) -> str:
    """How much there is of them, in words."""
    return f"{count(len(samples), 'clip')}, {math.fsum(sample.seconds for sample in samples):.0f} s of speech"


def count(number: int, noun: str) -> str:
    """1 voice, 2 voices, 1,204 voices."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def timestamp(now: float) -> str:
    """Unix seconds as ISO 8601, UTC."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
