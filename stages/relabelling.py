"""Giving the voices of a whole archive their names again, from what is stored: nothing is decoded."""

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.profiles import Profile, Roster, count
from stages.roster import CLUSTER, PAGE
from stages.store import SPEAKERS, SPEECH, VOICES, Filter, Store, StoredPoint
from stages.video_labels import name_fields

SAME_SCORE = 0.005  # float16 rounds: a difference this small is none


@dataclass(slots=True)
class Voices:
    """How many voices, how long they speak, and in which videos: of each the hash of its id is kept, 100 bytes."""

    voices: int = 0
    seconds: float = 0.0
    videos: set[int] = field(default_factory=set)

    def add(self, facts: dict[str, Any]) -> None:
        """One more voice, by the payload of its point."""
        self.voices += 1
        self.seconds += facts["seconds"]
        self.videos.add(hash(facts["video_id"]))

    def as_dict(self) -> dict[str, Any]:
        """For an answer in JSON."""
        return {"voices": self.voices, "videos": len(self.videos), "seconds": round(self.seconds, 2)}

    def text(self) -> str:
        """12 voices in 9 videos."""
        return f"{count(self.voices, 'voice')} in {count(len(self.videos), 'video')}"


@dataclass(slots=True)
class Relabelled:
    """What a relabelling found, and what it changed."""

    all: Voices = field(default_factory=Voices)
    changed: Voices = field(default_factory=Voices)
    now: dict[str, Voices] = field(default_factory=dict)  # by profile id: who is called so
    gained: Counter[str | None] = field(default_factory=Counter)  # by profile id: voices that are called so now
    lost: Counter[str | None] = field(default_factory=Counter)  # … and that were before

    def see(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """One voice, as it was and as it is now."""
        old, new = before.get("profile_id"), after["profile_id"]
        self.all.add(before)
        if new is not None:
            self.now.setdefault(new, Voices()).add(before)
        if before["speaker"] != after["speaker"]:
            self.changed.add(before)
        if old != new:
            self.gained[new] += 1
            self.lost[old] += 1

    def of(self, profile: Profile) -> Voices:
        """The voices that are called by a profile's name now."""
        return self.now.get(profile.profile_id, Voices())


def relabelled(store: Store, model: str, roster: Roster, now: float) -> Generator[int, None, Relabelled]:
    """Match every voice of the archive again; where its name changes, its windows, its speech and its point say so.

    Gives 1 after each voice that was renamed, and 0 after each page that was looked at. The point is written last:
    broken off and done again, nothing is left out. now: unix seconds, for the histories. Raises StoreError.
    """
    found = Relabelled()
    points = store.scroll(SPEAKERS, with_vectors=True, filter=Filter(kind=CLUSTER, model=model), page=PAGE)
    for seen, point in enumerate(points, start=1):
        match = roster.match(np.asarray(point.vectors["voice"], np.float32))
        after = name_fields(point.payload["video_id"], point.payload["cluster"], match)
        found.see(point.payload, after)
        _write(store, model, point, after)
        renamed = int(point.payload["speaker"] != after["speaker"])
        if renamed or seen % PAGE == 0:
            yield renamed
    for profile in roster.profiles:
        _note(store, profile, found, now)
    return found


def _write(store: Store, model: str, point: StoredPoint, after: dict[str, Any]) -> None:
    before = point.payload
    if before["speaker"] != after["speaker"]:
        video_id, cluster, name = before["video_id"], before["cluster"], {"speaker": after["speaker"]}
        store.set_payload(VOICES, Filter(video_id=video_id, model=model, cluster=cluster), name)
        store.set_payload(SPEECH, Filter(video_id=video_id, cluster=cluster), name)
    if (
        before["speaker"] != after["speaker"]
        or before.get("profile_id") != after["profile_id"]
        or _moved(before, after)
    ):
        store.set_payload(SPEAKERS, Filter(ids=(point.id,)), after)


def _moved(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the same profile matches better or worse than it did."""
    old, new = before.get("match_score"), after["match_score"]
    return old is not None and new is not None and abs(old - new) >= SAME_SCORE


def _note(store: Store, profile: Profile, found: Relabelled, now: float) -> None:
    """Put it into a profile's history that voices came to it, or were taken from it."""
    gained, lost = found.gained[profile.profile_id], found.lost[profile.profile_id]
    if gained or lost:
        detail = f"{found.of(profile).text()} now: {gained} new, {lost} taken back"
        history = profile.noting(now, "relabelled", detail).history
        store.set_payload(
            SPEAKERS, Filter(ids=(profile.profile_id,)), {"history": [event._asdict() for event in history]}
        )
