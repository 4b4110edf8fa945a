"""The store: what is kept, and the small protocol behind which the embedded and the remote Qdrant stand.

No Qdrant library is imported here. docs/store.md describes the schema and the guarantees.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.errors import StoreError

Vector = Sequence[float] | NDArray[np.floating[Any]]  # [dimension], finite; stored with length 1, as float16

FRAMES = "frames"
SPEECH = "speech"
VOICES = "voices"
SPEAKERS = "speakers"  # the voices of each video (kind "cluster"), and enrolled people (kind "profile")
VIDEOS = "videos"  # one record for each indexed video: not searched, and no result of any model
COLLECTIONS = (FRAMES, SPEECH, VOICES, SPEAKERS, VIDEOS)
SPARSE_VECTOR = "bm25"
KEYWORD_FIELDS = ("video_id", "model", "speaker", "language")  # payload fields with a keyword index
FLOAT_FIELDS = ("start_seconds",)  # payload fields with a float index
_ROLES = {"image": "models.image", "text": "models.text", "voice": "models.voice"}  # vector name: the setting behind it

# Never change: every id in every store is made from it.
_NAMESPACE = uuid.UUID("5b0a3c52-6f0e-5d0b-9b5e-1f7f5c1b5e0a")


def point_id(video_id: str, kind: str, model: str, position: str | int) -> str:
    """UUIDv5 of a point: the same content, kind, model and position give the same id on every machine.

    kind: collection or kind of item; model: ModelInfo.label; position: place in the medium, unique within the other
    three (an int and its decimal text are the same position).
    """
    return str(uuid.uuid5(_NAMESPACE, "\0".join((video_id, kind, model, str(position)))))


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection holds. All vectors are compared by cosine."""

    name: str  # without the prefix: frames | speech | voices | videos
    vectors: Mapping[str, int]  # vector name → dimension
    sparse: bool = False  # also a sparse BM25 vector, made from payload["text"]
    keywords: tuple[str, ...] = KEYWORD_FIELDS  # indexed payload fields; each costs about 1 ms an embedded flush
    floats: tuple[str, ...] = FLOAT_FIELDS


def frames_spec(dimension: int) -> CollectionSpec:
    """Frame vectors. No speaker and no language, so no index for them."""
    return CollectionSpec(FRAMES, {"image": dimension}, keywords=("video_id", "model"))


def speech_spec(dimension: int) -> CollectionSpec:
    """Speech segments and captions: text vectors, and BM25 for exact words."""
    return CollectionSpec(SPEECH, {"text": dimension}, sparse=True)


def voices_spec(dimension: int) -> CollectionSpec:
    """Voice windows."""
    return CollectionSpec(VOICES, {"voice": dimension}, keywords=("video_id", "model", "speaker"))


def speakers_spec(dimension: int) -> CollectionSpec:
    """The mean voice of each cluster of each video, and of each enrolled person. Times are in the payload."""
    return CollectionSpec(SPEAKERS, {"voice": dimension}, keywords=("kind", "video_id", "model", "speaker"), floats=())


def videos_spec() -> CollectionSpec:
    """Records of videos. They have no vector; Edge makes no collection without any, so a sparse one stays empty."""
    return CollectionSpec(VIDEOS, {}, sparse=True, keywords=("video_id",), floats=())


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A sparse vector: indices are unique, values[i] belongs to indices[i]."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as it goes in and comes out. Out: vectors are float32 [dimension] of length 1."""

    id: str  # UUID
    collection: str  # without the prefix
    payload: dict[str, Any]
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    sparse: SparseVector | None = None  # None going in: the store makes it from payload["text"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. score: cosine, or the fused rank score (RRF) of a hybrid search; higher is better."""

    score: float
    id: str
    collection: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Points that match every given condition. Nothing given matches every point."""

    video_id: str | None = None
    model: str | None = None  # label of the model that made the vector
    speaker: str | None = None
    language: str | None = None
    from_seconds: float | None = None  # start_seconds >= from_seconds
    until_seconds: float | None = None  # start_seconds < until_seconds
    ids: tuple[str, ...] | None = None  # an empty tuple matches no point
    kind: str | None = None  # of a point in `speakers`: cluster | profile
    cluster: int | None = None  # one voice of one video: give video_id and model, too; it has no index of its own

    def keywords(self) -> dict[str, str | int]:
        """Payload field → the value that it must equal."""
        values = {
            "video_id": self.video_id,
            "model": self.model,
            "speaker": self.speaker,
            "language": self.language,
            "kind": self.kind,
            "cluster": self.cluster,
        }
        return {name: value for name, value in values.items() if value is not None}

    def has_range(self) -> bool:
        return self.from_seconds is not None or self.until_seconds is not None

    def is_empty(self) -> bool:
        return not self.keywords() and not self.has_range() and self.ids is None


class Store(Protocol):
    """A vector store. Every method raises StoreError (a retry would not help) or StoreUnavailable (it may).

    Collections are named without the prefix. Reading a collection that does not exist finds nothing.
    """

    def ensure(self, specs: Sequence[CollectionSpec]) -> None:
        """Create what is missing, verify what is there. StoreError "vector-size", "store-schema"."""

    def upsert(self, collection: str, points: Sequence[StoredPoint]) -> None:
        """Write points. They are durable when this returns; writing them again changes nothing."""

    def put(self, collection: str, points: Sequence[StoredPoint]) -> None:
        """Write points that are found at once, and durable when `flush` returns: one flush serves many writes."""

    def flush(self) -> None:
        """Make durable what was put. When it raises, put all of that again."""

    def search(
        self,
        collection: str,
        vector_name: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        text: str | None = None,
    ) -> list[Hit]:
        """Nearest points, best first. With text, and where there is BM25: dense and BM25 ranks fused by RRF."""

    def scroll(
        self,
        collection: str,
        with_vectors: bool,
        filter: Filter | None = None,
        page: int = 256,
        start: str | None = None,
    ) -> Iterator[StoredPoint]:
        """Every matching point, in the order of ids, from the id `start` on; at most `page` points are in memory."""

    def count(self, collection: str, filter: Filter | None = None) -> int:
        """Exact number of matching points."""

    def set_payload(self, collection: str, filter: Filter, payload: Mapping[str, Any]) -> None:
        """Set these payload fields on every matching point, and leave the others. Durable when it returns."""

    def set_payloads(self, collection: str, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of single points, by id, and leave their other fields. Durable when it returns.

        Ids that the collection does not have are passed over.
        """

    def delete(self, collection: str, filter: Filter) -> None:
        """Delete every matching point. ValueError when the filter is empty. Durable when it returns."""

    def optimize(self) -> None:
        """Give back the room of deleted points. May take seconds and block every thread: call it when idle."""

    def close(self) -> None:
        """Release everything; the store is of no use afterwards. Closing twice is harmless."""


class StoredVideo(NamedTuple):
    """What the store notes of an indexed video, so that a lost ledger can be rebuilt from it."""

    video_id: str
    fingerprint: str  # of the models and settings it was indexed with
    path: str  # as it was shown last
    report: str  # its row of the report, as JSON; the path in it is the one it was indexed from


def video_point(video: StoredVideo) -> StoredPoint:
    """The record as a point of the collection `videos`. The same video and fingerprint give the same id."""
    return StoredPoint(point_id(video.video_id, "video", video.fingerprint, 0), VIDEOS, video._asdict())


def stored_videos(store: Store) -> Iterator[StoredVideo]:
    """Every record of an indexed video; none from a store that an older version made. Raises StoreError."""
    for point in store.scroll(VIDEOS, with_vectors=False):
        yield StoredVideo(**{name: point.payload[name] for name in StoredVideo._fields})


def check_vectors(collection: str, points: Sequence[StoredPoint]) -> None:
    """Refuse NaN and infinity before they are written: such a point is found by no search, or by every one.

    Raises StoreError "vector-not-finite".
    """
    rows = [np.asarray(row, dtype=np.float32) for point in points for row in point.vectors.values()]
    if rows and not np.isfinite(np.concatenate(rows)).all():
        bad = next(point.id for point in points for row in point.vectors.values() if not np.isfinite(row).all())
        raise StoreError("vector-not-finite", f"point {bad} for {collection} has NaN or infinity in its vector")


def as_floats(vector: Vector) -> list[float]:
    """As the libraries take them; a list is faster than an array."""
    return vector.tolist() if isinstance(vector, np.ndarray) else list(vector)


def check_spec(spec: CollectionSpec, full_name: str, where: str, found: Mapping[str, int], found_sparse: bool) -> None:
    """Compare a spec with what a collection has. Raises StoreError "vector-size" or "store-schema"."""
    for name, needed in spec.vectors.items():
        if name not in found or spec.sparse > found_sparse:
            raise StoreError(
                "store-schema",
                f"collection {full_name} in {where} was not made by this version of Sluice: it lacks the vector "
                f"{name if name not in found else SPARSE_VECTOR}; choose another store.prefix",
            )
        if found[name] != needed:
            raise StoreError(
                "vector-size",
                f"collection {full_name} in {where} holds vectors of size {found[name]}, the model makes {needed}: "
                f"choose another store.path or store.prefix, or the old {_ROLES.get(name, 'model')}",
            )


def check_filter_for_delete(filter: Filter) -> None:
    """An empty filter would delete a whole collection: surely a mistake of the caller."""
    if filter.is_empty():
        raise ValueError("refusing to delete by an empty filter, which matches every point")
