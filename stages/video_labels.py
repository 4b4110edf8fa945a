"""Who speaks when in one video: what the diarization of its voices found, written to its stored points."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stages.errors import StoreError
from stages.labels import ScoredWindow, Timeline
from stages.profiles import Match, Roster, unmatched
from stages.roster import CLUSTER, PAGE
from stages.store import SPEAKERS, SPEECH, VOICES, Filter, Store, StoredPoint, point_id

if TYPE_CHECKING:
    from stages.diarization import Diarization  # which imports scipy; only the consumer needs that

CHUNK_POINTS = 256  # looked at, and changed in one write: the caller may do other things between two


def labelled(
    store: Store, video_id: str, model: str, diarization: "Diarization | None", roster: Roster
) -> Iterator[int]:
    """Write who speaks when to a video's voices and speech, and each of its voices as a point of `speakers`.

    diarization: of the video's windows, in the order in which the store scrolls them; None when it has none, and then
    whatever an earlier labelling left is taken back. After each durable chunk comes the number of points that it
    changed. Doing it again changes nothing; breaking off does no harm if it is done again.

    Raises:
        StoreError: the store's; "voices-changed" when these are not the windows that were diarized.
    """
    count = 0
    windows: list[ScoredWindow] = []
    names: list[dict[str, Any]] = []
    if diarization is not None:
        voices = _Voices(video_id, model, diarization, roster)
        yield from rewritten(store, VOICES, Filter(video_id=video_id, model=model), voices.fields)
        points = voices.points()
        for first in range(0, len(points), PAGE):
            store.upsert(SPEAKERS, points[first : first + PAGE])
            yield len(points[first : first + PAGE])
        count, windows, names = len(points), voices.windows, voices.names
    yield _drop_stale(store, video_id, model, count)
    timeline = Timeline(diarization.turns if diarization is not None else (), windows)
    yield from rewritten(store, SPEECH, Filter(video_id=video_id), lambda point: speech_fields(point, timeline, names))


def name_fields(video_id: str, cluster: int, match: Match | None) -> dict[str, Any]:
    """Whose voice a cluster is, as its point says it. A store drops a field that is set to None."""
    return {
        "speaker": match.profile.name if match is not None else unmatched(video_id, cluster),
        "profile_id": match.profile.profile_id if match is not None else None,
        "match_score": round(match.score, 4) if match is not None else None,
    }


class _Voices:
    """The windows of a video, met again one by one in the order in which they were diarized."""

    def __init__(self, video_id: str, model: str, diarization: "Diarization", roster: Roster) -> None:
        self._video_id = video_id
        self._model = model
        self._found = diarization
        self.names = [name_fields(video_id, n, roster.match(mean)) for n, mean in enumerate(diarization.means, start=1)]
        self.windows: list[ScoredWindow] = []
        self._path = ""

    def fields(self, point: StoredPoint) -> dict[str, Any]:
        """What the next window is to say."""
        place = len(self.windows)
        if place == len(self._found.clusters):
            raise self._changed()
        cluster, score = int(self._found.clusters[place]), round(float(self._found.scores[place]), 4)
        self._path = point.payload["path"]
        self.windows.append(ScoredWindow(point.payload["start_seconds"], point.payload["end_seconds"], cluster, score))
        return {
            "cluster": cluster,
            "speaker": self.names[cluster - 1]["speaker"],
            "speaker_score": score,
            "overlap": int(self._found.overlaps[place]) or None,
        }

    def points(self) -> list[StoredPoint]:
        """One for each voice, once all windows were met. Raises StoreError "voices-changed"."""
        if len(self.windows) != len(self._found.clusters):
            raise self._changed()
        turns: list[list[list[float]]] = [[] for _ in self.names]
        for turn in self._found.turns:
            turns[turn.cluster - 1].append([round(turn.start_seconds, 2), round(turn.end_seconds, 2)])
        each = zip(self._found.seconds, self._found.windows, self._found.self_scores, turns, strict=True)
        return [self._point(n, float(a), int(b), float(c), d) for n, (a, b, c, d) in enumerate(each, start=1)]

    def _point(
        self, number: int, seconds: float, windows: int, self_score: float, turns: list[list[float]]
    ) -> StoredPoint:
        payload = {
            "kind": CLUSTER,
            "video_id": self._video_id,
            "path": self._path,
            "model": self._model,
            "cluster": number,
            "seconds": round(seconds, 2),
            "windows": windows,
            "self_score": round(self_score, 4) if math.isfinite(self_score) else None,
            "turns": turns,
            **self.names[number - 1],
        }
        id_ = point_id(self._video_id, CLUSTER, self._model, number)
        payload = {name: value for name, value in payload.items() if value is not None}  # as `set_payload` leaves them
        return StoredPoint(id_, SPEAKERS, payload, {"voice": self._found.means[number - 1]})

    def _changed(self) -> StoreError:
        message = f"the voices of {self._path or self._video_id} changed while it was found out whose they are"
        return StoreError("voices-changed", message)


def speech_fields(point: StoredPoint, timeline: Timeline, names: list[dict[str, Any]]) -> dict[str, Any]:
    """What a segment of speech is to say of who speaks."""
    words = point.payload.get("words") or []
    spans = [(word["start_seconds"], word["end_seconds"]) for word in words]
    found = timeline.label(point.payload["start_seconds"], point.payload["end_seconds"], spans)
    fields: dict[str, Any] = {
        "cluster": found.cluster,
        "speaker": names[found.cluster - 1]["speaker"] if found.cluster is not None else None,
        "speaker_score": round(found.score, 4) if found.score is not None else None,
        "overlap": found.overlap,
    }
    if [word.get("cluster") for word in words] != list(found.words):
        fields["words"] = [{**word, "cluster": cluster} for word, cluster in zip(words, found.words, strict=True)]
    return fields


def rewritten(
    store: Store, collection: str, filter: Filter, fields_of: Callable[[StoredPoint], Mapping[str, Any]]
) -> Iterator[int]:
    """Set fields of every matching point, where they differ from what it has; gives the number of changes by chunks.

    None takes a field away, and is not written where there is none.
    """
    changes: dict[str, Mapping[str, Any]] = {}
    for seen, point in enumerate(store.scroll(collection, False, filter, page=CHUNK_POINTS), start=1):
        differing = {name: value for name, value in fields_of(point).items() if point.payload.get(name) != value}
        if differing:
            changes[point.id] = differing
        if seen % CHUNK_POINTS == 0:
            store.set_payloads(collection, changes)
            yield len(changes)
            changes = {}
    store.set_payloads(collection, changes)
    yield len(changes)


def _drop_stale(store: Store, video_id: str, model: str, count: int) -> int:
    """Delete the points of voices that an earlier labelling found beyond `count`."""
    found = store.scroll(SPEAKERS, False, Filter(kind=CLUSTER, video_id=video_id, model=model), page=PAGE)
    stale = tuple(point.id for point in found if point.payload["cluster"] > count)
    if stale:
        store.delete(SPEAKERS, Filter(ids=stale))
    return len(stale)
