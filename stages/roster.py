"""The enrolled people as the store keeps them, and the archive's own scores, from which the threshold is made."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from stages.profiles import Event, Profile, Roster, Threshold, calibrate
from stages.store import SPEAKERS, Filter, Store, StoredPoint

CLUSTER, PROFILE = "cluster", "profile"  # kinds of points in `speakers`
PAGE = 32  # points of voices at once: each has its turns, thousands in a video of hours
SAMPLED_VOICES = 2000  # whose score with themselves is looked at
SAMPLED_VIDEOS = 200  # whose voices are compared with each other: a query each
VOICES_OF_A_VIDEO = 20  # that are compared, those that speak longest: 190 scores


def read_roster(store: Store, model: str) -> Roster:
    """Everybody who is enrolled with a voice model, and the threshold. Raises StoreError.

    While nobody is, nothing else is read: there is nothing to match.
    """
    profiles = read_profiles(store, model)
    return Roster(profiles, archive_threshold(store, model, len(profiles)) if profiles else None)


def read_profiles(store: Store, model: str) -> list[Profile]:
    """Everybody who is enrolled with a voice model. Raises StoreError."""
    points = store.scroll(SPEAKERS, with_vectors=True, filter=Filter(kind=PROFILE, model=model))
    return [_profile_of(point) for point in points]


def names_by_model(store: Store) -> dict[str, list[str]]:
    """Who is enrolled with which voice model: vectors of two models cannot be compared. Raises StoreError."""
    names: dict[str, list[str]] = {}
    for point in store.scroll(SPEAKERS, with_vectors=False, filter=Filter(kind=PROFILE)):
        names.setdefault(point.payload["model"], []).append(point.payload["name"])
    return {model: sorted(each) for model, each in sorted(names.items())}


def write_profile(store: Store, profile: Profile, model: str) -> None:
    """Store a profile, in place of the one with its id. Raises StoreError."""
    payload = {
        "kind": PROFILE,
        "name": profile.name,
        "profile_id": profile.profile_id,
        "model": model,
        "windows": profile.windows,
        "seconds": profile.seconds,
        "clips": list(profile.clips),
        "history": [event._asdict() for event in profile.history],
    }
    store.upsert(SPEAKERS, [StoredPoint(profile.profile_id, SPEAKERS, payload, {"voice": profile.vector})])


def _profile_of(point: StoredPoint) -> Profile:
    facts = point.payload
    return Profile(
        profile_id=facts["profile_id"],
        name=facts["name"],
        vector=np.asarray(point.vectors["voice"], np.float32),
        windows=facts["windows"],
        seconds=facts["seconds"],
        clips=tuple(facts["clips"]),
        history=tuple(Event(**event) for event in facts["history"]),
    )


def archive_threshold(store: Store, model: str, profiles: int) -> Threshold:
    """The threshold for so many profiles, from the archive's own scores. Raises StoreError.

    Ids of points are hashes, so the first of them are a fair sample of the archive, and the same one every time.
    """
    voices = islice(store.scroll(SPEAKERS, False, _clusters(model), page=PAGE), SAMPLED_VOICES)
    genuine: list[float] = []
    videos: dict[str, None] = {}  # in the order of their first voice
    for point in voices:
        videos.setdefault(point.payload["video_id"])
        if (score := point.payload.get("self_score")) is not None:
            genuine.append(score)
    impostor = [score for video in islice(videos, SAMPLED_VIDEOS) for score in _different(store, model, video)]
    return calibrate(genuine, impostor, profiles)


def _different(store: Store, model: str, video_id: str) -> Iterator[float]:
    """Cosines between the voices of one video: different people, whatever else they share. Tiny voices left out."""
    points = [
        (point.payload["seconds"], point.vectors["voice"])
        for point in store.scroll(SPEAKERS, True, _clusters(model, video_id), page=PAGE)
        if point.payload.get("self_score") is not None
    ]
    longest = sorted(points, key=lambda each: -each[0])[:VOICES_OF_A_VIDEO]
    if len(longest) < 2:
        return
    vectors = np.stack([np.asarray(vector, np.float32) for _, vector in longest])
    yield from (float(score) for score in (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])


def _clusters(model: str, video_id: str | None = None) -> Filter:
    return Filter(kind=CLUSTER, model=model, video_id=video_id)
