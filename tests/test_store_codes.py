"""The codes that a search of a large embedded store scans: the same answers, for stores of any age."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from stages.errors import StoreError
from stages.qdrant_local import LocalStore
from stages.qdrant_local_values import to_edge, to_query
from stages.store import FRAMES, SPEECH, Filter, Hit, StoredPoint, frames_spec, point_id, speech_spec
from stages.store_directory import MIB, StoreDirectory
from tests.qdrant_loopback import fast_disk
from tests.store_samples import code_of

ROOT = Path(__file__).parents[1]
DIMENSION = 64
COUNT = 3000


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_disk()) as name:
        yield Path(name) / "store"


@pytest.fixture
def by_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small stores are searched as large ones are."""
    monkeypatch.setattr("stages.qdrant_local.EXACT_POINTS", 0)


def vectors(count: int, seed: int = 0) -> Any:
    """Shots of ten that look alike, about a common mean: float16 [count, DIMENSION]."""
    random = np.random.default_rng(seed)
    shots = np.repeat(random.standard_normal((-(-count // 10), DIMENSION)), 10, axis=0)[:count]
    return (1.0 + shots + 0.3 * random.standard_normal((count, DIMENSION))).astype(np.float16)


def points(count: int, model: str = "m@1", name: str = "image") -> list[StoredPoint]:
    """Of ten videos; every third has a speaker, and some speak of a ferry, at different length."""
    collection = FRAMES if name == "image" else SPEECH
    return [
        StoredPoint(
            point_id(str(number % 10), name, model, number),
            collection,
            {
                "video_id": str(number % 10),
                "model": model,
                "start_seconds": float(number),
                "number": number,
                "text": "a ferry" + " and then" * (number // 48) if number % 48 == 0 else "the harbour",
                **({"speaker": "Ada"} if number % 3 == 0 else {}),
            },
            {name: row},
        )
        for number, row in enumerate(vectors(count))
    ]


def filled(directory: Path, stored: Sequence[StoredPoint], spec: Any = None) -> LocalStore:
    store = LocalStore(directory, "sluice")
    store.ensure([spec or frames_spec(DIMENSION)])
    for first in range(0, len(stored), 500):
        store.put(stored[0].collection, stored[first : first + 500])
    store.flush()
    return store


def numbers(hits: Sequence[Hit]) -> list[int]:
    return [hit.payload["number"] for hit in hits]


QUERIES = [row.astype(np.float32) for row in vectors(COUNT)[::100]]
FILTERS = [
    None,
    Filter(model="m@1"),
    Filter(video_id="3"),
    Filter(model="m@1", video_id="3"),
    Filter(model="m@1", speaker="Ada"),
    Filter(from_seconds=500.0, until_seconds=900.0),
    Filter(model="m@1", from_seconds=2000.0),
]


@pytest.mark.parametrize("filter", FILTERS, ids=[str(each and each.keywords()) for each in FILTERS])
def test_codes_find_what_the_vectors_find(
    directory: Path, monkeypatch: pytest.MonkeyPatch, filter: Filter | None
) -> None:
    store = filled(directory, points(COUNT))
    exact = [store.search("frames", "image", query, 10, filter) for query in QUERIES]
    monkeypatch.setattr("stages.qdrant_local.EXACT_POINTS", 0)
    coded = [store.search("frames", "image", query, 10, filter) for query in QUERIES]
    for one, other in zip(exact, coded, strict=True):
        assert numbers(one) == numbers(other)
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-6)
    store.close()


def test_a_search_for_words_and_sense_is_the_same_by_codes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(directory, points(COUNT, name="text"), speech_spec(DIMENSION))
    wanted = Filter(model="m@1", speaker="Ada")
    exact = [store.search("speech", "text", query, 10, wanted, text="ferry") for query in QUERIES]
    monkeypatch.setattr("stages.qdrant_local.EXACT_POINTS", 0)
    coded = [store.search("speech", "text", query, 10, wanted, text="ferry") for query in QUERIES]
    for one, other in zip(exact, coded, strict=True):
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other])
        assert above_last(one) == above_last(other)
    assert all(hit.payload["speaker"] == "Ada" for hits in coded for hit in hits)
    store.close()


def above_last(hits: Sequence[Hit]) -> set[int]:
    """Scores are ranks: two hits may have the same, and the last place is drawn among them."""
    return {hit.payload["number"] for hit in hits if hit.score > hits[-1].score}


@pytest.mark.usefixtures("by_codes")
def test_points_are_found_by_their_codes_as_soon_as_they_are_put(directory: Path) -> None:
    store = filled(directory, points(200))
    (new,) = points(1, model="m@2")
    store.put("frames", [new])
    (hit,) = store.search("frames", "image", new.vectors["image"], 1, Filter(model="m@2"))
    assert hit.id == new.id
    store.close()


def segments(directory: Path) -> dict[str, bool]:
    """Edge's own, and whether each has codes."""
    paths = (path for path in (directory / "sluice_frames" / "segments").iterdir() if path.is_dir())
    return {path.name: any(path.rglob("quantized.meta.json")) for path in paths}


@pytest.mark.usefixtures("by_codes")
def test_codes_outlive_a_vacuum(directory: Path) -> None:
    store = filled(directory, points(COUNT))
    before = segments(directory)
    for video in ("1", "2", "3"):
        store.delete("frames", Filter(video_id=video))
    store.optimize()
    after = segments(directory)
    assert after != before, "something was rewritten"
    assert all(after.values())
    assert numbers(store.search("frames", "image", QUERIES[4], 1)) == [400]
    store.put("frames", points(20)[11:12])
    store.flush()
    assert numbers(store.search("frames", "image", vectors(20)[11], 1, Filter(video_id="1"))) == [11]
    store.close()


# --- models ---------------------------------------------------------------------------------------------------------


def conditions(store: LocalStore, monkeypatch: pytest.MonkeyPatch, filter: Filter) -> edge.Filter | None:
    """What a search asks Edge for."""
    asked: list[edge.Filter | None] = []

    def note(*arguments: Any) -> edge.QueryRequest:
        asked.append(arguments[4])
        return to_query(*arguments)

    monkeypatch.setattr("stages.qdrant_local.to_query", note)
    store.search("frames", "image", QUERIES[0], 10, filter)
    return asked[0]


def test_a_model_that_made_everything_is_not_looked_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(directory, points(50))
    narrowed = conditions(store, monkeypatch, Filter(model="m@1", speaker="Ada"))
    assert narrowed is not None
    assert len(narrowed.must or ()) == 1
    assert conditions(store, monkeypatch, Filter(model="m@1")) is None, "an empty filter would cost as much"
    assert conditions(store, monkeypatch, Filter(model="m@9")) is not None
    store.close()


@pytest.mark.parametrize("stranger", ["another model", "no model"])
def test_a_model_that_did_not_make_everything_is(directory: Path, stranger: str) -> None:
    (other,) = points(1, model="m@2")
    if stranger == "no model":
        del other.payload["model"]
    store = filled(directory, [*points(50), other])
    hits = store.search("frames", "image", other.vectors["image"], 51, Filter(model="m@1"))
    assert len(hits) == 50
    assert other.id not in {hit.id for hit in hits}
    store.delete("frames", Filter(ids=(other.id,)))
    assert len(store.search("frames", "image", QUERIES[0], 51, Filter(model="m@1"))) == 50
    store.close()


# --- stores of an older version -------------------------------------------------------------------------------------


def made_before_codes(directory: Path, stored: Sequence[StoredPoint]) -> None:
    """A store as it was made before there were codes: with Edge's own log, and vectors only."""
    StoreDirectory(directory, read_only=False).close()
    path = directory / "sluice_frames"
    path.mkdir()
    half = edge.VectorStorageDatatype.Float16
    config = edge.EdgeConfig(
        vectors={"image": edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Cosine, datatype=half)},
        sparse_vectors={},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0),
    )
    shard = edge.EdgeShard.create(str(path), config)
    for field in ("video_id", "model"):
        shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Keyword))
    shard.update(edge.UpdateOperation.create_field_index("start_seconds", edge.PayloadSchemaType.Float))
    shard.update(edge.UpdateOperation.upsert_points([to_edge(point, False) for point in stored]))
    shard.flush()
    shard.close()


def has_codes(directory: Path) -> bool:
    config = json.loads((directory / "sluice_frames" / "edge_config.json").read_bytes())
    return config["vectors"]["image"].get("quantization_config") is not None


@pytest.mark.usefixtures("by_codes")
def test_an_older_store_gets_codes_when_it_is_opened_for_writing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = points(COUNT)
    made_before_codes(directory, stored)
    with caplog.at_level(logging.INFO):
        store = filled(directory, stored[:7])
    assert "making codes for a quick search of 3000 points" in caplog.text
    assert has_codes(directory)
    assert store.count("frames") == COUNT
    found = {point.id: point for point in store.scroll("frames", with_vectors=True)}
    for point in stored:
        assert found[point.id].payload == point.payload
    for query, number in zip(QUERIES, range(0, COUNT, 100), strict=True):
        assert numbers(store.search("frames", "image", query, 1, Filter(model="m@1"))) == [number]
    store.close()
    with caplog.at_level(logging.INFO):
        caplog.clear()
        filled(directory, stored[:7]).close()
    assert caplog.text == "", "once is enough"


def test_an_older_store_that_is_only_read_is_searched_as_it_is(directory: Path) -> None:
    made_before_codes(directory, points(COUNT))
    store = LocalStore(directory, "sluice", read_only=True)
    store.ensure([frames_spec(DIMENSION)])
    assert numbers(store.search("frames", "image", QUERIES[2], 1, Filter(model="m@1"))) == [200]
    store.close()
    assert not has_codes(directory)


@pytest.mark.parametrize("cause", ["no room", "too large"])
def test_an_older_store_without_room_or_time_for_codes_works_without(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    made_before_codes(directory, points(COUNT))
    if cause == "too large":
        monkeypatch.setattr("stages.qdrant_local_shard._LARGEST_RECODED_BYTES", 1000)
    disk = os.statvfs(directory)
    free_bytes = disk.f_bavail * disk.f_frsize
    store = LocalStore(directory, "sluice", reserve_bytes=free_bytes - MIB if cause == "no room" else 1)
    store.ensure([frames_spec(DIMENSION)])
    assert "no codes for a quick search" in caplog.text
    assert ("full" in caplog.text) == (cause == "no room")
    assert not has_codes(directory)
    assert numbers(store.search("frames", "image", QUERIES[2], 1)) == [200]
    store.close()


RECODER = """
import pathlib, sys
from stages.qdrant_local import LocalStore
from stages.store import frames_spec
print("begins", flush=True)
LocalStore(pathlib.Path(sys.argv[1]), "sluice").ensure([frames_spec(int(sys.argv[2]))])
"""


@pytest.mark.parametrize("delay_seconds", [0.02, 0.1, 0.25])
def test_a_kill_while_codes_are_made_loses_nothing(directory: Path, delay_seconds: float) -> None:
    made_before_codes(directory, points(COUNT))
    command = [sys.executable, "-c", RECODER, str(directory), str(DIMENSION)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as recoder:
        assert recoder.stdout is not None
        assert recoder.stdout.readline() == b"begins\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            recoder.wait(delay_seconds)
        recoder.send_signal(signal.SIGKILL)
    store = filled(directory, points(5))
    assert has_codes(directory)
    assert store.count("frames") == COUNT
    assert len(list(store.scroll("frames", with_vectors=True))) == COUNT
    store.close()


def test_an_older_store_in_use_by_another_program_with_edge_in_it_is_locked(directory: Path) -> None:
    """A store of today has our own lock only."""
    made_before_codes(directory, points(5))
    other = edge.EdgeShard.load(str(directory / "sluice_frames"))
    store = LocalStore(directory, "sluice")
    with pytest.raises(StoreError) as error:
        store.count("frames")
    assert code_of(error) == "store-locked"
    store.close()
    other.close()
