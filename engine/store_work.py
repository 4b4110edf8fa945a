"""What the consumer asks of the store: writes, operations, searches; and when it may ask again after a failure."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

from engine.failpoints import AFTER_UPSERT, BEFORE_UPSERT, reach
from stages.errors import StoreError, StoreUnavailable
from stages.store import (
    COLLECTIONS,
    FRAMES,
    SPEAKERS,
    SPEECH,
    VIDEOS,
    VOICES,
    CollectionSpec,
    Filter,
    Store,
    StoredPoint,
    StoredVideo,
    frames_spec,
    speakers_spec,
    speech_spec,
    video_point,
    videos_spec,
    voices_spec,
)
from transport.codec import WireError, as_array
from transport.messages import (
    FetchedPoints,
    FetchPoints,
    FoundPoint,
    Points,
    RecordVideo,
    Remove,
    Repath,
    SearchStore,
    StoreHits,
    TaskResult,
)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0

Operation = Repath | Remove | RecordVideo
_SPEC_OF = {
    FRAMES: ("image", frames_spec),
    SPEECH: ("text", speech_spec),
    VOICES: ("voice", voices_spec),
    SPEAKERS: ("voice", speakers_spec),
}


def collection_specs(dimensions: Mapping[str, int]) -> list[CollectionSpec]:
    """What the store must hold, from the dimensions of the models that are loaded, by role."""
    return [make(dimensions[role]) for role, make in _SPEC_OF.values() if role in dimensions] + [videos_spec()]


class Retry:
    """When something that failed may be tried again: after delays that double, with jitter. Pure."""

    def __init__(self, chance: Callable[[float, float], float] = random.uniform) -> None:
        self._chance = chance
        self.failures = 0  # in a row
        self._since_seconds = 0.0
        self.next_seconds = -math.inf

    def may_try(self, now_seconds: float) -> bool:
        """Whether its time has come, or nothing has failed."""
        return now_seconds >= self.next_seconds

    def failed(self, now_seconds: float) -> None:
        """It was tried again, and failed."""
        if not self.failures:
            self._since_seconds = now_seconds
        delay = min(FIRST_DELAY_SECONDS * 2 ** min(self.failures, 10), LONGEST_DELAY_SECONDS)
        self.next_seconds = now_seconds + self._chance(delay / 2, delay)  # many writers must not come back as one
        self.failures += 1

    def worked(self) -> None:
        """It is well again."""
        self.failures = 0
        self.next_seconds = -math.inf

    def failing_seconds(self, now_seconds: float) -> float:
        """How long it has been failing; 0 when it is well."""
        return now_seconds - self._since_seconds if self.failures else 0.0


class StoreAccess:
    """The store: opened, and its collections made, as soon as it lets us; asked again when it was away.

    patience_seconds: how long it may be away; math.inf: for ever.
    Raises StoreError as the opener does; StoreUnavailable is taken for a store that is away.
    """

    def __init__(
        self,
        opener: Callable[[], Store],
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._opener = opener
        self.patience_seconds = patience_seconds
        self._clock = clock
        self._retry = Retry(chance)
        self._store: Store | None = None
        self._specs: Sequence[CollectionSpec] | None = None
        self.is_made = False  # all collections are there
        self.away: StoreUnavailable | None = None  # why it cannot be written to now
        self.retries = 0
        self._attempt(self._opened)

    @property
    def is_prepared(self) -> bool:
        """Whether it is known which collections there must be."""
        return self._specs is not None

    @property
    def has_failed_twice(self) -> bool:
        """Away, and not for a moment only."""
        return self._retry.failures > 1

    def prepare(self, specs: Sequence[CollectionSpec]) -> None:
        """These collections must be there before anything is written."""
        self._specs = specs
        self.is_made = False

    def may_try(self) -> bool:
        """Whether the store may be asked now."""
        return self._retry.may_try(self._clock())

    def wait_seconds(self) -> float:
        """Until it may be asked again."""
        return max(0.0, self._retry.next_seconds - self._clock())

    def away_seconds(self) -> float:
        """For how long it has been away."""
        return self._retry.failing_seconds(self._clock())

    def attempt(self, action: Callable[[Store], None]) -> bool:
        """Do something with the store, all collections made. False: it is away; try again when `may_try`.

        Raises:
            StoreError: it refuses for good, or has been away for longer than patience_seconds.
        """
        return self._attempt(lambda: action(self._made()))

    def search(self, request: SearchStore) -> StoreHits:
        """The points nearest to a vector. What goes wrong, or that the store is away, is told in the answer."""
        try:
            return StoreHits(request=request.request, hits=find(self._readable(), request))
        except StoreError as error:
            return StoreHits(request=request.request, hits=(), error=f"{error.code}: {error.message}")

    def fetch(self, request: FetchPoints) -> FetchedPoints:
        """A page of points. What goes wrong, or that the store is away, is told in the answer."""
        try:
            return page_of(self._readable(), request)
        except StoreError as error:
            return FetchedPoints(request=request.request, points=(), error=f"{error.code}: {error.message}")

    def _readable(self) -> Store:
        """Raises StoreError while it is away; a full disk can be read."""
        if self.away is not None and self.away.code != "store-full":
            raise self.away
        return self._opened()

    def close(self) -> None:
        """Give back the room of deleted points, unless the store is away, and close it."""
        if self._store is not None:
            if self.away is None:
                with contextlib.suppress(StoreUnavailable):  # housekeeping can wait
                    self._store.optimize()
            self._store.close()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._opener()
        return self._store

    def _made(self) -> Store:
        store = self._opened()
        if not self.is_made:
            store.ensure(self._specs or ())
            self.is_made = True
        return store

    def _attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except StoreUnavailable as unavailable:
            failure = unavailable
        else:
            self.away = None
            self._retry.worked()
            return True
        self._failed(failure)
        return False

    def _failed(self, failure: StoreUnavailable) -> None:
        self.retries += 1
        self.away = failure
        self._retry.failed(self._clock())
        if self.away_seconds() <= self.patience_seconds:
            return
        if not self.is_made:
            raise failure  # it was never there
        raise StoreError(
            "store-lost",
            f"the store has been away for {self.away_seconds():.0f} s ({failure}); start it and run again, or raise "
            "store.retry_seconds",
        ) from failure


def stored_points(message: Points, payload: bytes | memoryview | None) -> list[StoredPoint]:
    """The points of a message, with their rows of the array.

    Raises:
        WireError: the array does not hold one row for each id.
    """
    rows = as_array(message.array, payload if payload is not None else b"")
    if not len(rows) == len(message.ids) == len(message.payloads):
        raise WireError(f"{len(rows)} rows for {len(message.ids)} ids and {len(message.payloads)} payloads")
    rows = rows.astype(np.float32)  # all at once, as the stores take them: a sixth of the cost of one by one
    return [
        StoredPoint(id=id_, collection=message.collection, payload=facts, vectors={message.vector: row})
        for id_, facts, row in zip(message.ids, message.payloads, rows, strict=True)
    ]


def write(store: Store, points: Sequence[StoredPoint], batch_points: int) -> None:
    """Put the points into the store, by collection; `Store.flush` makes them durable.

    Raises StoreError; some may be written then, writing again mends it.
    """
    by_collection: dict[str, list[StoredPoint]] = {}
    for point in points:
        by_collection.setdefault(point.collection, []).append(point)
    for collection, those in by_collection.items():
        for first in range(0, len(those), batch_points):
            reach(BEFORE_UPSERT)
            store.put(collection, those[first : first + batch_points])
            reach(AFTER_UPSERT)


def drop_replaced(store: Store, results: Iterable[TaskResult]) -> None:
    """Remove what earlier attempts at the same sound heard, and these did not: sampled text is another each time.

    Only where something was transcribed; one look at the stretch for each result. Raises StoreError.
    """
    for each in (result.transcribed for result in results):
        if each is None:
            continue
        stretch = Filter(
            video_id=each.video_id, model=each.model, from_seconds=each.start_seconds, until_seconds=each.end_seconds
        )
        written = set(each.ids)
        stale = tuple(
            point.id
            for point in store.scroll(SPEECH, False, stretch)
            if point.id not in written and point.payload.get("text_by") == each.text_by
        )
        if stale:
            store.delete(SPEECH, Filter(ids=stale))


def perform(store: Store, operation: Operation) -> None:
    """Do an operation; durable when it returns, and doing it again changes nothing. Raises StoreError."""
    match operation:
        case Repath(video_id=video_id, shown_path=shown_path):
            for collection in COLLECTIONS:
                store.set_payload(collection, Filter(video_id=video_id), {"path": shown_path})
        case Remove(video_id=video_id):
            for collection in reversed(COLLECTIONS):  # first the record: it must not vouch for points that are gone
                store.delete(collection, Filter(video_id=video_id))
        case RecordVideo():
            video = StoredVideo(operation.video_id, operation.fingerprint, operation.shown_path, operation.report)
            store.upsert(VIDEOS, [video_point(video)])


def find(store: Store, request: SearchStore) -> tuple[FoundPoint, ...]:
    """The hits of a search, best first. Raises StoreError."""
    hits = store.search(
        request.collection,
        request.vector_name,
        request.vector,
        request.limit,
        Filter(model=request.model, speaker=request.speaker),
        text=request.words,
    )
    return tuple(FoundPoint(score=hit.score, id=hit.id, payload=hit.payload) for hit in hits)


def page_of(store: Store, request: FetchPoints) -> FetchedPoints:
    """A page, and where the next one begins. Raises StoreError."""
    filter = Filter(video_id=request.video_id)
    points = store.scroll(request.collection, False, filter, page=request.limit + 1, start=request.start)
    found = [FoundPoint(score=0.0, id=each.id, payload=each.payload) for each in islice(points, request.limit + 1)]
    following = found[request.limit].id if len(found) > request.limit else None
    return FetchedPoints(request=request.request, points=tuple(found[: request.limit]), following=following)
