"""One suite of promises for every store: embedded, a server on the loopback, and a real server when one is named."""

import dataclasses
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from stages.errors import StoreError
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import (
    Filter,
    Store,
    StoredPoint,
    StoredVideo,
    frames_spec,
    point_id,
    speech_spec,
    stored_videos,
    video_point,
)
from tests.qdrant_loopback import LoopbackQdrant, fast_disk
from tests.store_samples import DIMENSION, SPECS, TEXTS, code_of, frames, normalised, speech, vectors

REAL_URL = os.environ.get("SLUICE_TEST_QDRANT_URL")
REAL_KEY = os.environ.get("SLUICE_QDRANT_API_KEY")
Opener = Callable[..., Store]  # keyword arguments replace options


# --- the stores -----------------------------------------------------------------------------------------------------


@pytest.fixture
def directory() -> Iterator[Path]:
    """On a disk in memory: Edge syncs some 60 files to make a store, and no test here cuts the power."""
    with tempfile.TemporaryDirectory(dir=fast_disk()) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def loopback() -> Iterator[LoopbackQdrant]:
    with LoopbackQdrant() as server:
        yield server


@pytest.fixture
def server(loopback: LoopbackQdrant) -> Iterator[LoopbackQdrant]:
    yield loopback
    loopback.clear()


def real_options() -> StoreOptions:
    return StoreOptions(url=REAL_URL, prefix=f"sluice-test-{uuid.uuid4().hex[:8]}")


def remove_real_collections(prefix: str) -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(url=REAL_URL, headers={"api-key": REAL_KEY} if REAL_KEY else None, check_compatibility=False)
    for spec in SPECS:
        client.delete_collection(f"{prefix}_{spec.name}")
    client.close()


@pytest.fixture(params=["embedded", "loopback", *(["real"] if REAL_URL else [])])
def opener(request: pytest.FixtureRequest, directory: Path) -> Iterator[Opener]:
    """Opens the same, at first empty, store again and again."""
    if request.param == "embedded":
        options = StoreOptions(path=str(directory / "store"))
    elif request.param == "loopback":
        url = request.getfixturevalue("server").url
        options = StoreOptions(url=url, prefix=f"t{uuid.uuid4().hex[:8]}")
    else:
        options = real_options()
    opened: list[Store] = []

    def open_again(read_only: bool = False, **changes: Any) -> Store:
        key = REAL_KEY if request.param == "real" else None
        opened.append(open_store(msgspec.structs.replace(options, **changes), key, read_only))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()
    if request.param == "real":
        remove_real_collections(options.prefix)


@pytest.fixture
def store(opener: Opener) -> Store:
    """A fresh store with its collections made."""
    fresh = opener()
    fresh.ensure(SPECS)
    return fresh


# --- promises of every store ----------------------------------------------------------------------------------------


def test_points_come_back_as_they_went_in(store: Store) -> None:
    points = frames(10)
    store.upsert("frames", points)
    found = {point.id: point for point in store.scroll("frames", with_vectors=True)}
    assert found.keys() == {point.id for point in points}
    for point in points:
        assert found[point.id].payload == point.payload
        assert found[point.id].collection == "frames"
        row = found[point.id].vectors["image"]
        assert isinstance(row, np.ndarray)
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, normalised(point.vectors["image"]), atol=1e-3)


def test_what_was_put_is_found_at_once_and_there_after_a_flush(store: Store, opener: Opener) -> None:
    for first in range(0, 30, 5):
        store.put("frames", frames(30)[first : first + 5])
        assert store.count("frames") == first + 5
    store.put("speech", speech(TEXTS))
    store.flush()
    store.flush()
    store.close()
    again = opener()
    assert {point.id for point in again.scroll("frames", False)} == {point.id for point in frames(30)}
    assert again.count("speech") == len(TEXTS)


def test_what_cannot_be_put_is_told_by_the_next_write_or_flush(store: Store) -> None:
    wrong = dataclasses.replace(frames(1)[0], vectors={"image": vectors(1, 5)[0]})

    def write() -> None:
        store.put("frames", [wrong])
        store.flush()

    with pytest.raises(StoreError) as error:
        write()
    assert error.value.code in ("vector-size", "store-refused")
    store.put("frames", frames(2))
    store.flush()
    assert store.count("frames") == 2


def test_writing_twice_changes_nothing(store: Store) -> None:
    points = frames(20)
    store.upsert("frames", points)
    once = list(store.scroll("frames", with_vectors=True))
    store.upsert("frames", points[5:])
    store.upsert("frames", points[:9])
    twice = list(store.scroll("frames", with_vectors=True))
    assert [(point.id, point.payload) for point in once] == [(point.id, point.payload) for point in twice]
    for before, after in zip(once, twice, strict=True):
        np.testing.assert_array_equal(before.vectors["image"], after.vectors["image"])
    assert store.count("frames") == 20


def test_writing_nothing_is_allowed(store: Store) -> None:
    store.upsert("frames", [])
    assert store.count("frames") == 0


def test_more_points_than_one_request_holds(store: Store) -> None:
    store.upsert("frames", frames(600))
    assert store.count("frames") == 600


def test_scroll_gives_every_point_once_in_order_of_ids(store: Store) -> None:
    store.upsert("frames", frames(25))
    for page in (1, 7, 25, 256):
        ids = [point.id for point in store.scroll("frames", with_vectors=False, page=page)]
        assert ids == sorted(point.id for point in frames(25))
    assert next(store.scroll("frames", with_vectors=False)).vectors == {}


def test_scroll_goes_on_while_points_are_written(store: Store) -> None:
    store.upsert("frames", frames(20))
    scroll = store.scroll("frames", with_vectors=False, page=5)
    first = [next(scroll).id for _ in range(5)]
    store.upsert("frames", frames(20, video="v2"))
    rest = [point.id for point in scroll]
    assert {point.id for point in frames(20)} <= set(first + rest)
    assert len(first + rest) == len(set(first + rest))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (Filter(video_id="v1"), 10),
        (Filter(video_id="no such"), 0),
        (Filter(video_id="v1", from_seconds=3.0), 7),
        (Filter(from_seconds=3.0, until_seconds=5.0), 4),
        (Filter(until_seconds=1.0), 2),
        (Filter(speaker="Ada"), 0),
        (Filter(ids=(point_id("v1", "frames", "m", 1), point_id("v2", "frames", "m", 2))), 2),
        (Filter(ids=()), 0),
        (Filter(), 20),
        (None, 20),
    ],
)
def test_filters(store: Store, filter: Filter | None, expected: int) -> None:
    store.upsert("frames", [*frames(10, "v1"), *frames(10, "v2")])
    assert store.count("frames", filter) == expected
    assert len(list(store.scroll("frames", with_vectors=False, filter=filter))) == expected
    assert len(store.search("frames", "image", vectors(1)[0], 100, filter)) == expected


def test_search_finds_the_nearest_first(store: Store) -> None:
    points = frames(50)
    store.upsert("frames", points)
    hits = store.search("frames", "image", points[17].vectors["image"], 5)
    assert len(hits) == 5
    assert hits[0].id == points[17].id
    assert hits[0].payload["start_seconds"] == 17.0
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_hybrid_search_finds_the_exact_word(store: Store) -> None:
    store.upsert("speech", speech(TEXTS))
    far_from_it = -normalised(speech(TEXTS)[1].vectors["text"])  # the dense search alone puts it last
    assert store.search("speech", "text", far_from_it, 3)[-1].payload["text"] == TEXTS[1]
    hits = store.search("speech", "text", far_from_it, 3, text="zanzibar")
    assert hits[0].payload["text"] == TEXTS[1]


def test_hybrid_search_keeps_to_the_filter(store: Store) -> None:
    store.upsert("speech", [*speech(TEXTS), *speech(["Zanzibar, Insel der Gewürze"], language="de")])
    hits = store.search("speech", "text", vectors(1)[0], 10, Filter(language="de"), text="Zanzibar")
    assert [hit.payload["language"] for hit in hits] == ["de"]


def test_a_query_without_words_is_a_dense_one(store: Store) -> None:
    store.upsert("speech", speech(TEXTS))
    row = speech(TEXTS)[2].vectors["text"]
    assert store.search("speech", "text", row, 3, text=" ?! ") == store.search("speech", "text", row, 3)


def test_text_makes_no_difference_where_there_is_no_bm25(store: Store) -> None:
    store.upsert("frames", frames(5))
    row = vectors(1)[0]
    assert store.search("frames", "image", row, 3, text="fox") == store.search("frames", "image", row, 3)


def test_a_copied_point_keeps_its_sparse_vector(store: Store) -> None:
    store.upsert("speech", speech(TEXTS))
    before = list(store.scroll("speech", with_vectors=True))
    assert all(point.sparse is not None for point in before)
    store.delete("speech", Filter(video_id="v1"))
    store.upsert("speech", before)
    after = list(store.scroll("speech", with_vectors=True))
    assert [sparse_of(point) for point in after] == [sparse_of(point) for point in before]


def sparse_of(point: StoredPoint) -> dict[int, float]:
    assert point.sparse is not None
    return dict(zip(point.sparse.indices, point.sparse.values, strict=True))


def test_set_payloads_changes_single_points_and_passes_over_those_that_are_not_there(store: Store) -> None:
    store.upsert("frames", frames(4))
    first, second = frames(4)[:2]
    gone = point_id("nobody", "frame", "m", 0)
    store.set_payloads("frames", {first.id: {"speaker": "Ada"}, second.id: {"cluster": 2}, gone: {"speaker": "Eve"}})
    store.set_payloads("frames", {})
    store.set_payloads("nowhere", {first.id: {"speaker": "Eve"}})
    found = {point.id: point.payload for point in store.scroll("frames", with_vectors=False)}
    assert found[first.id] == first.payload | {"speaker": "Ada"}
    assert found[second.id] == second.payload | {"cluster": 2}
    assert gone not in found
    assert [point.id for point in store.scroll("frames", False, Filter(cluster=2))] == [second.id]
    assert store.count("frames", Filter(video_id=second.payload["video_id"], cluster=3)) == 0


def test_set_payload_leaves_other_fields_and_other_points(store: Store) -> None:
    store.upsert("frames", [*frames(4, "v1"), *frames(4, "v2")])
    store.set_payload("frames", Filter(video_id="v1", until_seconds=2.0), {"speaker": "Ada", "speaker_score": 0.5})
    assert store.count("frames", Filter(speaker="Ada")) == 2
    changed = next(store.scroll("frames", with_vectors=True, filter=Filter(speaker="Ada", from_seconds=1.0)))
    assert changed.payload == {**frames(2)[1].payload, "speaker": "Ada", "speaker_score": 0.5}
    assert "image" in changed.vectors


def test_delete_takes_what_matches_and_no_more(store: Store) -> None:
    store.upsert("frames", [*frames(4, "v1"), *frames(4, "v2")])
    store.delete("frames", Filter(video_id="v1", from_seconds=1.0))
    assert store.count("frames", Filter(video_id="v1")) == 1
    assert store.count("frames", Filter(video_id="v2")) == 4
    with pytest.raises(ValueError, match="empty filter"):
        store.delete("frames", Filter())
    assert store.count("frames") == 5


def test_optimize_changes_no_answer(store: Store) -> None:
    store.upsert("frames", frames(1500))
    store.delete("frames", Filter(video_id="v1", until_seconds=900.0))  # more than a fifth: worth a vacuum
    row = vectors(1)[0]
    before = store.search("frames", "image", row, 10)
    store.optimize()
    assert [hit.id for hit in store.search("frames", "image", row, 10)] == [hit.id for hit in before]
    assert store.count("frames") == 600


def test_scroll_begins_at_an_id(store: Store) -> None:
    store.upsert("frames", frames(5))
    ids = [point.id for point in store.scroll("frames", with_vectors=False)]
    assert [point.id for point in store.scroll("frames", False, page=2, start=ids[3])] == ids[3:]
    assert [point.id for point in store.scroll("frames", False, Filter(ids=(ids[0],)), start=ids[1])] == []


def test_what_does_not_exist_is_empty(opener: Opener) -> None:
    store = opener()
    assert store.count("frames") == 0
    assert list(store.scroll("frames", with_vectors=True)) == []
    assert store.search("frames", "image", vectors(1)[0], 5) == []
    assert store.search("speech", "text", vectors(1)[0], 5, text="fox") == []
    store.set_payload("frames", Filter(video_id="v1"), {"speaker": "Ada"})
    store.delete("frames", Filter(video_id="v1"))
    store.optimize()
    with pytest.raises(StoreError) as error:
        store.upsert("frames", frames(1))
    assert code_of(error) in {"store-schema", "store-refused"}


def test_what_is_written_is_there_after_reopening(opener: Opener) -> None:
    first = opener()
    first.ensure(SPECS)
    first.upsert("speech", speech(TEXTS))
    first.close()
    first.close()  # twice is harmless
    second = opener()
    second.ensure(SPECS)
    assert [hit.payload["text"] for hit in second.search("speech", "text", vectors(1)[0], 1, text="zanzibar")]
    assert second.count("speech") == 3


def test_records_of_videos_come_back_and_their_path_can_be_changed(store: Store) -> None:
    one, two = (StoredVideo(name, "fingerprint", f"/films/{name}.mp4", '{"status": "indexed"}') for name in "ab")
    store.upsert("videos", [video_point(one), video_point(two)])
    store.upsert("videos", [video_point(one)])
    store.set_payload("videos", Filter(video_id="a"), {"path": "/moved.mp4"})
    assert sorted(stored_videos(store)) == [one._replace(path="/moved.mp4"), two]
    store.delete("videos", Filter(video_id="b"))
    assert [video.video_id for video in stored_videos(store)] == ["a"]


def test_a_store_of_an_older_version_gets_its_records_later(opener: Opener) -> None:
    store = opener()
    store.ensure(SPECS[:3])
    store.upsert("frames", frames(3))
    assert list(stored_videos(store)) == []
    store.ensure(SPECS)
    store.upsert("videos", [video_point(StoredVideo("a", "f", "/a.mp4", "{}"))])
    assert len(list(stored_videos(store))) == 1
    assert store.count("frames") == 3


def test_another_vector_size_is_refused_and_nothing_is_harmed(opener: Opener) -> None:
    first = opener()
    first.ensure(SPECS)
    first.upsert("frames", frames(3))
    with pytest.raises(StoreError) as error:
        first.ensure([frames_spec(768)])
    assert code_of(error) == "vector-size"
    for part in ("_frames", "16", "768", "store.path", "store.prefix", "models.image"):
        assert part in error.value.message
    first.ensure(SPECS)
    assert first.count("frames") == 3


def test_a_vector_of_the_wrong_size_is_refused(store: Store) -> None:
    wrong = dataclasses.replace(frames(1)[0], vectors={"image": [1.0, 2.0]})
    with pytest.raises(StoreError) as error:
        store.upsert("frames", [wrong])
    assert code_of(error) == "vector-size"
    with pytest.raises(StoreError) as error:
        store.search("frames", "image", [1.0, 2.0], 3)
    assert code_of(error) == "vector-size"


def test_a_collection_of_other_vectors_is_refused(opener: Opener) -> None:
    store = opener()
    store.ensure([dataclasses.replace(speech_spec(DIMENSION), sparse=False)])
    with pytest.raises(StoreError, match="bm25") as error:
        store.ensure(SPECS)
    assert code_of(error) == "store-schema"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(store: Store, bad: float) -> None:
    points = frames(3)
    row = np.asarray(points[1].vectors["image"]).copy()
    row[4] = bad
    points[1] = dataclasses.replace(points[1], vectors={"image": row})
    with pytest.raises(StoreError, match=points[1].id) as error:
        store.upsert("frames", points)
    assert code_of(error) == "vector-not-finite"
    assert store.count("frames") == 0


def test_reading_only_reads_only(opener: Opener) -> None:
    first = opener()
    first.ensure([frames_spec(DIMENSION)])
    first.upsert("frames", frames(3))
    first.close()
    second = opener(read_only=True)
    second.ensure(SPECS)
    assert second.count("frames") == 3
    assert second.count("speech") == 0
    writes: list[Callable[[], None]] = [
        lambda: second.upsert("frames", frames(1)),
        lambda: second.delete("frames", Filter(video_id="v1")),
        lambda: second.set_payload("frames", Filter(video_id="v1"), {"speaker": "Ada"}),
    ]
    for write in writes:
        with pytest.raises(StoreError) as error:
            write()
        assert code_of(error) == "store-read-only"


def test_prefixes_keep_stores_apart(opener: Opener, store: Store) -> None:
    store.upsert("frames", frames(3))
    store.close()
    assert opener(prefix=f"x{uuid.uuid4().hex[:8]}").count("frames") == 0
    with pytest.raises(StoreError) as error:
        opener(prefix="../elsewhere")
    assert code_of(error) == "store-prefix"
