"""The consumer's writer: retries with back-off, gives up with one line, and whole runs against a server with faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.consumer import Writer, collection_specs, stored_points
from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.store import StoredPoint
from tests.qdrant_loopback import LoopbackQdrant
from tests.runs import Meddler, run_supervisor, settings_for
from tests.runs import stored_points as points_of
from transport.codec import WireError, spec_of
from transport.messages import Points, TaskKey


class FlakyStore:
    """Refuses the first `failures` upserts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.written: list[str] = []

    def upsert(self, collection: str, points: list[StoredPoint]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("store-busy", "503 from the store")
        self.written += [point.id for point in points]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def writer_for(store: Any, **options: Any) -> tuple[Writer, Clock, list[str]]:
    clock, said = Clock(), list[str]()
    upper = lambda low, high: high  # noqa: E731 - chance that always takes the longest delay
    return Writer(store, StoreOptions(**options), said.append, clock, clock.sleep, upper), clock, said


def points(count: int) -> list[StoredPoint]:
    return [StoredPoint(id=str(number), collection="frames", payload={}) for number in range(count)]


def test_points_go_in_batches_in_order() -> None:
    store = FlakyStore(0)
    writer, _, _ = writer_for(store, batch_points=4)
    writer.write("frames", points(10))
    assert store.written == [str(number) for number in range(10)]
    assert writer.points == 10


def test_an_absent_store_is_waited_for_with_growing_delays_and_said() -> None:
    store = FlakyStore(5)
    writer, clock, said = writer_for(store)
    writer.write("frames", points(3))
    assert store.written == ["0", "1", "2"]
    assert clock.slept == sorted(clock.slept)
    assert len(set(clock.slept)) == 5
    assert writer.retries == 5
    assert said == ["503 from the store"] * 5


def test_a_store_that_stays_away_is_given_up_in_one_line() -> None:
    writer, clock, _ = writer_for(FlakyStore(10_000), retry_seconds=60)
    with pytest.raises(StoreError, match=r"away for 60 s \(503 from the store\).*store\.retry_seconds") as caught:
        writer.write("frames", points(1))
    assert caught.value.code == "store-lost"
    assert 60 <= clock.now < 80


def test_a_refusal_is_not_retried() -> None:
    class Refusing:
        def upsert(self, collection: str, points: list[StoredPoint]) -> None:
            raise StoreError("store-not-authorised", "no key")

    writer, clock, _ = writer_for(Refusing())
    with pytest.raises(StoreError, match="no key"):
        writer.write("frames", points(1))
    assert clock.slept == []


def message(rows: int, ids: int) -> tuple[Points, memoryview]:
    array = np.ones((rows, 3), dtype=np.float16)
    made = Points(
        key=TaskKey(1, 0),
        collection="frames",
        vector="image",
        ids=tuple(str(number) for number in range(ids)),
        payloads=tuple({} for _ in range(ids)),
        array=spec_of(array),
    )
    return made, memoryview(array.tobytes())


def test_each_id_gets_its_row() -> None:
    stored = stored_points(*message(2, 2))
    assert [point.id for point in stored] == ["0", "1"]
    assert all(np.asarray(point.vectors["image"]).shape == (3,) for point in stored)


def test_rows_that_do_not_match_the_ids_are_refused() -> None:
    with pytest.raises(WireError, match="3 rows for 2 ids"):
        stored_points(*message(3, 2))


def test_only_collections_of_loaded_models_are_made() -> None:
    assert [spec.name for spec in collection_specs({"image": 4, "voice": 8})] == ["frames", "voices"]


def test_a_run_into_a_server_that_fails_now_and_then_loses_nothing(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    embedded = settings_for(tiny_models, tmp_path)
    run_supervisor([sample_video], embedded, Meddler())
    expected = points_of(embedded)
    with LoopbackQdrant() as server:
        settings = [*embedded, f"store.url={server.url}", "store.prefix=faulty", "store.timeout_seconds=2"]
        faults = [lambda: server.fail(503, times=3), lambda: server.drop(times=1, applied=True)]

        def meddle(supervisor: Any) -> bool:
            if supervisor.board is not None and faults:  # the collections exist: from here on points are written
                faults.pop(0)()
            return not faults

        meddler = Meddler(meddle)
        report = run_supervisor([sample_video], settings, meddler)
        assert meddler.supervisor is not None
        stats = meddler.supervisor.peaks.consumer
        assert stats is not None
        assert stats.retries > 0, "the faults were met"
        assert [row["status"] for row in report["videos"]] == ["indexed"]
        points = points_of(settings)
        assert set(points) == set(expected)
        again = run_supervisor([sample_video], settings, Meddler())
        assert [row["status"] for row in again["videos"]] == ["unchanged"]
