"""Asking the store: when again after a failure, what operations do in every store, and searches as answers."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store_work import (
    LONGEST_DELAY_SECONDS,
    Retry,
    StoreAccess,
    collection_specs,
    drop_replaced,
    find,
    perform,
    stored_points,
    write,
)
from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import COLLECTIONS, Filter, Store, StoredPoint, point_id, stored_videos
from tests.qdrant_loopback import LoopbackQdrant, fast_disk
from tests.store_samples import DIMENSION, SPECS, TEXTS, frames, speech, vectors
from tests.writer_rig import FakeStore, points_message
from transport.codec import WireError, spec_of
from transport.messages import (
    FetchPoints,
    Points,
    RecordVideo,
    Remove,
    Repath,
    SearchStore,
    StoreHits,
    TaskKey,
    TaskResult,
    Transcribed,
)

# --- when again -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_delays_double_within_their_jitter_up_to_the_longest(chances: list[float]) -> None:
    draws = iter(chances)
    retry = Retry(lambda low, high: low + next(draws) * (high - low))
    assert retry.may_try(-1e9)
    now, longest = 5.0, 0.2
    for count in range(len(chances)):
        retry.failed(now)
        assert not retry.may_try(now)
        delay = retry.next_seconds - now
        assert longest / 2 <= delay + 1e-9
        assert delay <= longest + 1e-9
        now = retry.next_seconds
        assert retry.may_try(now)
        assert retry.failures == count + 1
        longest = min(2 * longest, LONGEST_DELAY_SECONDS)
    assert retry.failing_seconds(now) == pytest.approx(now - 5.0)
    retry.worked()
    assert (retry.failures, retry.failing_seconds(now)) == (0, 0.0)
    assert retry.may_try(now)


def test_a_store_that_cannot_be_opened_yet_is_opened_later() -> None:
    """As with a new store on a full disk."""
    now, store = [0.0], FakeStore()
    store.go_away()

    def opener() -> Any:
        if store.failure is not None:
            raise store.failure
        return store

    access = StoreAccess(opener, math.inf, lambda: now[0], lambda low, high: high)
    access.prepare(collection_specs({"image": 3}))
    assert access.away is not None
    assert not access.may_try()
    store.failure = None
    now[0] += access.wait_seconds()
    assert access.may_try()
    assert access.attempt(lambda each: None)
    assert access.is_made
    assert set(store.collections) == {"frames", "videos"}
    access.close()
    assert store.is_closed


def test_a_store_that_refuses_to_be_opened_is_an_error_at_once() -> None:
    def opener() -> Any:
        raise StoreError("store-locked", "in use")

    with pytest.raises(StoreError, match="in use"):
        StoreAccess(opener, math.inf)


def test_only_collections_of_loaded_models_are_made_and_the_records() -> None:
    specs = collection_specs({"image": 4, "voice": 8})
    assert [spec.name for spec in specs] == ["frames", "voices", "speakers", "videos"]


# --- points ---------------------------------------------------------------------------------------------------------


def test_each_id_gets_its_row() -> None:
    stored = stored_points(*points_message("v", [1, 2], TaskKey(1, 0)))
    assert [point.id for point in stored] == ["v/1", "v/2"]
    assert all(np.asarray(point.vectors["image"]).shape == (3,) for point in stored)


def test_rows_that_do_not_match_the_ids_are_refused() -> None:
    array = np.ones((3, 3), dtype=np.float16)
    message = Points(
        key=TaskKey(1, 0), collection="frames", vector="image", ids=("a", "b"), payloads=({}, {}), array=spec_of(array)
    )
    with pytest.raises(WireError, match="3 rows for 2 ids"):
        stored_points(message, memoryview(array.tobytes()))


def test_points_go_in_batches_by_collection() -> None:
    store: Any = FakeStore()
    store.ensure(SPECS)
    write(store, [*frames(5), *speech(TEXTS), *frames(5, video="v2")], 4)
    assert store.upserts == [4, 4, 2, 3]


# --- in every store -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with tempfile.TemporaryDirectory(dir=fast_disk()) as name, LoopbackQdrant() as server:
        url = server.url if request.param == "server" else None
        opened = open_store(StoreOptions(path=str(Path(name) / "store"), url=url), None)
        opened.ensure(SPECS)
        opened.upsert("frames", [*frames(4, "v1"), *frames(4, "v2")])
        opened.upsert("speech", speech(TEXTS))
        for video in ("v1", "v2"):
            perform(
                opened, RecordVideo(request=1, video_id=video, fingerprint="f", shown_path=f"/{video}", report="{}")
            )
        yield opened
        opened.close()


def paths(store: Store, collection: str, video: str) -> set[str | None]:
    points = store.scroll(collection, with_vectors=False, filter=Filter(video_id=video))
    return {point.payload.get("path") for point in points}


def test_a_moved_video_has_its_new_path_everywhere(store: Store) -> None:
    perform(store, Repath(request=1, video_id="v1", shown_path="/new"))
    assert [paths(store, name, "v1") for name in ("frames", "speech", "videos")] == [{"/new"}] * 3
    assert paths(store, "frames", "v2") == {"/films/v2 ü.mp4"}
    assert paths(store, "videos", "v2") == {"/v2"}


def test_points_are_fetched_page_by_page(store: Store) -> None:
    access = StoreAccess(lambda: store, 1.0)
    found: list[str] = []
    start: str | None = None
    for request in range(10):
        page = access.fetch(FetchPoints(request=request, collection="frames", video_id="v1", start=start, limit=3))
        assert (page.request, page.error) == (request, None)
        assert len(page.points) <= 3
        found += [point.id for point in page.points]
        start = page.following
        if start is None:
            break
    assert found == [point.id for point in store.scroll("frames", False, Filter(video_id="v1"))]
    assert len(found) == 4


def spoken(store: Store, *starts: float, video: str = "v9", **more: Any) -> list[str]:
    """Stores a sentence at each of these times; returns their ids."""
    facts = {"video_id": video, "model": "text@1", "text_by": "whisper@1", "text": "so it is"} | more
    points = [
        StoredPoint(
            point_id(video, "text", str(sorted(more.items())), str(start)),
            "speech",
            facts | {"start_seconds": start, "end_seconds": start + 1.0},
            {"text": np.ones(DIMENSION)},
        )
        for start in starts
    ]
    store.upsert("speech", points)
    return [point.id for point in points]


def test_what_an_earlier_attempt_heard_and_this_one_did_not_is_removed_and_nothing_else(store: Store) -> None:
    before, first, stale, second, after = spoken(store, 9.9, 10.0, 12.0, 15.0, 20.0)
    kept = [
        *spoken(store, 12.0, text_by="captions"),
        *spoken(store, 12.0, text_by="whisper@1 (translation)"),
        *spoken(store, 12.0, model="other text@1"),
        *spoken(store, 12.0, video="v8"),
    ]
    said = Transcribed(
        video_id="v9", model="text@1", text_by="whisper@1", start_seconds=10.0, end_seconds=20.0, ids=(first, second)
    )
    for _ in range(2):
        drop_replaced(store, [result_of(None), result_of(said)])
        found = {point.id for video in ("v8", "v9") for point in store.scroll("speech", False, Filter(video_id=video))}
        assert found == {before, first, second, after, *kept}
        assert stale not in found


def result_of(transcribed: Transcribed | None) -> TaskResult:
    return TaskResult(
        key=TaskKey(1, 0),
        points={},
        gaps=(),
        failures=(),
        notes=(),
        speech_seconds=0.0,
        text_seconds=0.0,
        voiced_seconds=0.0,
        voice_seconds=0.0,
        oom_events=0,
        batch_splits=0,
        transcribed=transcribed,
    )


def test_a_removed_video_is_gone_everywhere(store: Store) -> None:
    for _ in range(2):
        perform(store, Remove(request=1, video_id="v1"))
        assert [store.count(name, Filter(video_id="v1")) for name in COLLECTIONS] == [0] * len(COLLECTIONS)
    assert store.count("frames") == 4
    assert [video.video_id for video in stored_videos(store)] == ["v2"]


def test_a_record_is_written_once_for_each_fingerprint(store: Store) -> None:
    for fingerprint, report in (("f", '{"a": 1}'), ("f", '{"a": 2}'), ("g", '{"a": 3}')):
        perform(
            store,
            RecordVideo(request=1, video_id="v1", fingerprint=fingerprint, shown_path="/v1", report=report),
        )
    found = {(video.fingerprint, video.report) for video in stored_videos(store) if video.video_id == "v1"}
    assert found == {("f", '{"a": 2}'), ("g", '{"a": 3}')}


def question(**changes: Any) -> SearchStore:
    asked: dict[str, Any] = {
        "request": 5,
        "collection": "frames",
        "vector_name": "image",
        "vector": tuple(float(value) for value in vectors(1)[0]),
        "limit": 3,
        "model": "m",
    }
    return SearchStore(**{**asked, **changes})


def test_a_search_finds_what_its_model_made_and_nothing_else(store: Store) -> None:
    store.set_payload("frames", Filter(video_id="v1"), {"model": "m", "speaker": "Ada"})
    store.set_payload("frames", Filter(video_id="v2"), {"model": "m"})
    hits = find(store, question(limit=10))
    assert len(hits) == 8
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].payload["start_seconds"] == 0.0
    assert find(store, question(model="another")) == ()
    assert {hit.payload["video_id"] for hit in find(store, question(limit=10, speaker="Ada"))} == {"v1"}


def test_words_are_found_too(store: Store) -> None:
    store.set_payload("speech", Filter(video_id="v1"), {"model": "m"})
    far = tuple(-float(value) for value in vectors(3, seed=2)[1])
    hits = find(store, question(collection="speech", vector_name="text", vector=far, words="zanzibar"))
    assert hits[0].payload["text"] == TEXTS[1]


def test_what_is_wrong_with_a_search_is_told_in_the_answer(store: Store) -> None:
    access = StoreAccess(lambda: store, math.inf)
    answer = access.search(question(vector=(1.0, 2.0)))
    assert answer.hits == ()
    assert (answer.error or "").startswith("vector-size: ")
    assert access.search(question(collection="nothing")) == StoreHits(request=5, hits=())


def test_a_store_that_is_away_is_not_asked(store: Store) -> None:
    access = StoreAccess(lambda: store, math.inf)
    away: Any = FakeStore()
    away.go_away()
    assert not access.attempt(lambda _: away.upsert("frames", []))
    assert access.search(question()) == StoreHits(request=5, hits=(), error="store-busy: 503 from the store")


def test_a_store_on_a_full_disk_is_searched_all_the_same(store: Store) -> None:
    access = StoreAccess(lambda: store, math.inf)
    away: Any = FakeStore()
    away.failure = StoreUnavailable("store-full", "no room")
    assert not access.attempt(lambda _: away.upsert("frames", []))
    store.set_payload("frames", Filter(video_id="v1"), {"model": "m"})
    assert len(access.search(question()).hits) == 3
