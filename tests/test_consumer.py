"""The consumer as a process: a server that fails, kills at every place, drains; and whole runs against such a one."""

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import failpoints
from engine.config import Config, EngineOptions, RunOptions
from engine.errors import ExitCode
from engine.spool import spool_directory
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import StoredPoint, point_id, stored_videos
from tests.consumer_harness import Harness
from tests.qdrant_loopback import LoopbackQdrant, fast_disk
from tests.runs import Meddler, run_supervisor, settings_for
from tests.runs import stored_points as points_of
from tests.store_samples import normalised
from tests.writer_rig import result_message
from transport.codec import spec_of
from transport.messages import Points, RecordVideo, Remove, Repath, SearchStore, TaskKey

DIMENSION = 64
RESULTS_MB = 1


@pytest.fixture
def directory() -> Iterator[Path]:
    """On a disk in memory: the embedded store syncs a lot."""
    with tempfile.TemporaryDirectory(dir=fast_disk()) as name:
        yield Path(name)


@pytest.fixture
def harness(directory: Path) -> Iterator[Callable[..., Harness]]:
    """Makes harnesses around one store; each is closed after the test."""
    made: list[Harness] = []

    def make(restarts: bool = False, environment: dict[str, str] | None = None, **store: Any) -> Harness:
        options = StoreOptions(**{"path": str(directory / "store"), "timeout_seconds": 1.0, **store})
        config = Config(
            store=options, run=RunOptions(state=str(directory / "state")), engine=EngineOptions(results_mb=RESULTS_MB)
        )
        place = directory / f"run-{len(made)}"
        place.mkdir()
        made.append(Harness(place, config, {"image": DIMENSION}, restarts, environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


def batch(task: int, number: int, size: int = 32) -> tuple[Points, np.ndarray[Any, np.dtype[np.float16]]]:
    """Points of a task; each task is a video."""
    rng = np.random.default_rng((task, number))
    array = rng.standard_normal((size, DIMENSION)).astype(np.float16)
    video = f"video-{task}"
    message = Points(
        key=TaskKey(task, 0),
        collection="frames",
        vector="image",
        ids=tuple(point_id(video, "image", "m", number * size + row) for row in range(size)),
        payloads=tuple(
            {"video_id": video, "path": "old", "model": "m", "start_seconds": float(number * size + row)}
            for row in range(size)
        ),
        array=spec_of(array),
    )
    return message, array


def send_task(harness: Harness, task: int, batches: int) -> dict[str, Any]:
    """A whole task; returns the vectors that must be stored, by id."""
    expected: dict[str, Any] = {}
    for number in range(batches):
        message, array = batch(task, number)
        harness.send(message, array)
        expected |= dict(zip(message.ids, array, strict=True))
    harness.send(result_message(TaskKey(task, 0)))
    return expected


def stored(options: StoreOptions) -> dict[str, StoredPoint]:
    store = open_store(options, None)
    try:
        return {point.id: point for point in store.scroll("frames", with_vectors=True)}
    finally:
        store.close()


def assert_stored(harness: Harness, expected: dict[str, Any]) -> None:
    found = stored(harness.config.store)
    assert found.keys() == expected.keys()
    for id_, row in expected.items():
        np.testing.assert_allclose(found[id_].vectors["image"], normalised(row), atol=2e-3)


def spool_files(harness: Harness) -> list[str]:
    place = spool_directory(Path(harness.config.run.state), harness.config.store)
    return sorted(path.name for path in place.glob("*.spool"))


# --- a server that fails --------------------------------------------------------------------------------------------


def test_a_server_that_is_away_for_a_while_costs_nothing(harness: Callable[..., Harness]) -> None:
    """503, then no answer, then dropped connections; more comes than the credit, so much lies on the disk meanwhile."""
    with LoopbackQdrant() as server:
        consumer = harness(url=server.url)
        consumer.until(lambda: consumer.is_ready)
        expected = send_task(consumer, 0, 4)
        consumer.until(lambda: consumer.all_acknowledged)
        server.fail(503, times=5)  # over three seconds of pauses: its state is told each second
        server.timeout(times=1, seconds=1.5)
        server.drop(times=1, applied=True)
        server.drop(times=1, applied=False)
        for task in range(1, 9):
            expected |= send_task(consumer, task, 40)
        sizes: list[int] = []

        def is_done() -> bool:
            sizes.append(consumer.stats.spool_bytes if consumer.stats else 0)
            return consumer.all_acknowledged and len(consumer.ledger) == 9

        consumer.until(is_done)
        assert max(sizes) > RESULTS_MB << 20, "more than the credit lay on the disk"
        assert consumer.most_bytes_out <= RESULTS_MB << 20
        assert any(state.startswith("waiting: ") and "503" in state for state in consumer.states)
        assert consumer.drain() == ExitCode.OK
        assert consumer.stats is not None
        assert (consumer.stats.state, consumer.stats.spool_bytes) == ("drained", 0)
        assert consumer.stats.rss_bytes > 0
        assert sorted(set(consumer.ledger)) == [(TaskKey(task, 0), 0) for task in range(9)]
        assert sorted(consumer.searchable) == [TaskKey(task, 0) for task in range(9)]
        assert_stored(consumer, expected)
        assert spool_files(consumer) == []


def test_without_a_spool_the_credit_is_all_that_is_held(harness: Callable[..., Harness]) -> None:
    with LoopbackQdrant() as server:
        consumer = harness(url=server.url, spool_mb=0)
        consumer.until(lambda: consumer.is_ready)
        server.fail(503, times=4)
        expected = send_task(consumer, 0, 60)
        held: list[int] = []

        def is_done() -> bool:
            if consumer.stats is not None:
                held.append(consumer.stats.queued_bytes)
                assert consumer.stats.spool_bytes == 0
            return consumer.all_acknowledged

        consumer.until(is_done)
        assert 0 < max(held) <= RESULTS_MB << 20
        assert consumer.drain() == ExitCode.OK
        assert_stored(consumer, expected)


def test_a_store_that_is_away_from_the_start_is_waited_for(harness: Callable[..., Harness]) -> None:
    """With patience without end it is ready at once; what it spools it writes when the store comes."""
    with LoopbackQdrant() as server:
        server.fail(503, times=5)
        consumer = harness(url=server.url, retry_seconds=float("inf"))
        consumer.until(lambda: consumer.is_ready)
        assert server.requests["PUT points"] == 0
        expected = send_task(consumer, 0, 40)
        consumer.until(lambda: consumer.all_acknowledged and len(consumer.ledger) == 1)
        assert consumer.drain() == ExitCode.OK
        assert_stored(consumer, expected)


def test_a_drain_leaves_the_spool_to_the_next_run(harness: Callable[..., Harness]) -> None:
    with LoopbackQdrant() as server:
        options = {"url": server.url, "retry_seconds": float("inf")}
        consumer = harness(**options)
        consumer.until(lambda: consumer.is_ready)
        server.fail(503, times=1000)
        expected = send_task(consumer, 0, 10)
        consumer.until(lambda: consumer.all_acknowledged)
        assert consumer.drain() == ExitCode.OK
        assert consumer.stats is not None
        assert consumer.stats.state == f"drained, {consumer.stats.spool_bytes / 1e6:.1f} MB spooled"
        assert consumer.stats.spool_bytes > 0
        assert consumer.ledger == []
        server.clear()
        successor = harness(**options)
        successor.until(lambda: successor.ledger == [(TaskKey(0, 0), 0)])
        assert successor.drain() == ExitCode.OK
        assert spool_files(successor) == []
        assert_stored(successor, expected)


def test_a_server_that_stays_away_is_given_up(harness: Callable[..., Harness]) -> None:
    with LoopbackQdrant() as server:
        consumer = harness(url=server.url, retry_seconds=1.0)
        consumer.until(lambda: consumer.is_ready)
        server.fail(503, times=1000)
        send_task(consumer, 0, 10)
        consumer.until(lambda: consumer.process.poll() is not None)
        assert consumer.process.returncode == ExitCode.STORE_LOST
        assert consumer.words().startswith("store-lost: the store has been away for ")
        assert spool_files(consumer) != []


def test_a_spool_that_cannot_be_made_is_said_and_waited_for(harness: Callable[..., Harness], directory: Path) -> None:
    """The state directory stands on a file: no spool can be made there, until it is one."""
    with LoopbackQdrant() as server:
        (directory / "state").write_text("no directory")
        consumer = harness(url=server.url)
        consumer.until(lambda: consumer.is_ready)
        server.fail(503, times=6)
        expected = send_task(consumer, 0, 60)
        consumer.until(lambda: consumer.all_acknowledged)
        assert any("the spool cannot be written: Not a directory" in state for state in consumer.states)
        assert consumer.drain() == ExitCode.OK
        assert_stored(consumer, expected)


# --- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["embedded", "server"])
@pytest.mark.parametrize("place", [failpoints.BEFORE_UPSERT, failpoints.AFTER_UPSERT])
def test_a_kill_around_a_write_costs_nothing(
    harness: Callable[..., Harness], directory: Path, place: str, where: str
) -> None:
    with LoopbackQdrant() as server:
        killer = {failpoints.VARIABLE: f"{place}:5:{directory / 'killed'}"}
        consumer = harness(True, killer, url=server.url if where == "server" else None)
        consumer.until(lambda: consumer.is_ready)
        assert_survives(consumer)


@pytest.mark.parametrize(
    ("place", "count"),
    [
        (failpoints.BEFORE_UPSERT, 4),
        (failpoints.AFTER_UPSERT, 3),
        (failpoints.DURING_SPOOL_FLUSH, 1),
        (failpoints.DURING_SPOOL_FLUSH, 2),
        (failpoints.DURING_REPLAY, 1),
        (failpoints.DURING_REPLAY, 4),
    ],
)
def test_a_kill_while_the_store_is_away_costs_nothing(
    harness: Callable[..., Harness], directory: Path, place: str, count: int
) -> None:
    with LoopbackQdrant() as server:
        killer = {failpoints.VARIABLE: f"{place}:{count}:{directory / 'killed'}"}
        consumer = harness(True, killer, url=server.url)
        consumer.until(lambda: consumer.is_ready)
        server.fail(503, times=5)
        assert_survives(consumer, is_away=True)


def assert_survives(consumer: Harness, is_away: bool = False) -> None:
    """A consumer that is killed once, somewhere in between, ends as if it had not been."""
    expected = send_task(consumer, 0, 20) | send_task(consumer, 1, 20)
    if is_away:
        consumer.until(lambda: consumer.deaths > 0 or (consumer.stats is not None and consumer.stats.spool_bytes > 0))
    expected |= send_task(consumer, 2, 20) | send_task(consumer, 3, 20)
    consumer.until(lambda: consumer.all_acknowledged and len(set(consumer.ledger)) == 4)
    assert consumer.drain() == ExitCode.OK
    assert consumer.deaths == 1
    assert_stored(consumer, expected)
    assert spool_files(consumer) == []


# --- operations and searches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["embedded", "server"])
def test_operations_and_searches_go_between_the_points(harness: Callable[..., Harness], where: str) -> None:
    with LoopbackQdrant() as server:
        consumer = harness(url=server.url if where == "server" else None)
        consumer.until(lambda: consumer.is_ready)
        one, two = send_task(consumer, 1, 2), send_task(consumer, 2, 2)
        consumer.until(lambda: len(consumer.ledger) == 2)
        for request in (
            Repath(request=1, video_id="video-1", shown_path="new"),
            RecordVideo(request=2, video_id="video-1", fingerprint="f", shown_path="old", report="{}"),
            RecordVideo(request=3, video_id="video-2", fingerprint="f", shown_path="old", report="{}"),
            Repath(request=4, video_id="video-1", shown_path="newer"),
            Remove(request=5, video_id="video-2"),
        ):
            consumer.tell(request)
        consumer.until(lambda: len(consumer.operations) == 5)
        assert [consumer.operations[request].error for request in range(1, 6)] == [None] * 5
        id_, row = next(iter(one.items()))
        question = SearchStore(
            request=9,
            collection="frames",
            vector_name="image",
            vector=tuple(float(value) for value in row),
            limit=3,
            model="m",
        )
        consumer.tell(question)
        consumer.until(lambda: 9 in consumer.hits)
        assert consumer.hits[9].error is None
        assert consumer.hits[9].hits[0].id == id_
        assert {hit.payload["path"] for hit in consumer.hits[9].hits} == {"newer"}
        assert consumer.drain() == ExitCode.OK
        assert_stored(consumer, one)
        assert not two.keys() & stored(consumer.config.store).keys()
        store = open_store(consumer.config.store, None)
        assert [(video.video_id, video.path) for video in stored_videos(store)] == [("video-1", "newer")]
        store.close()


def test_points_that_were_sent_before_an_operation_are_written_before_it(harness: Callable[..., Harness]) -> None:
    """Its word comes by another socket, and may be read first."""
    consumer = harness()
    consumer.until(lambda: consumer.is_ready)
    send_task(consumer, 1, 1)
    consumer.until(lambda: consumer.all_acknowledged)
    consumer.process.send_signal(signal.SIGSTOP)
    send_task(consumer, 2, 4)
    consumer.until(lambda: not consumer._unsent)
    consumer.tell(Remove(request=1, video_id="video-2"))
    consumer.process.send_signal(signal.SIGCONT)
    consumer.until(lambda: 1 in consumer.operations and consumer.all_acknowledged)
    assert consumer.drain() == ExitCode.OK
    assert {point.payload["video_id"] for point in stored(consumer.config.store).values()} == {"video-1"}


def test_a_search_while_the_store_is_away_is_answered_at_once(harness: Callable[..., Harness]) -> None:
    with LoopbackQdrant() as server:
        consumer = harness(url=server.url)
        consumer.until(lambda: consumer.is_ready)
        server.fail(503, times=1000)
        send_task(consumer, 1, 2)
        consumer.until(lambda: any(state.startswith("waiting") for state in consumer.states))
        before = sum(server.requests.values())
        vector = (1.0,) * DIMENSION
        for request in range(20):
            consumer.tell(
                SearchStore(
                    request=request, collection="frames", vector_name="image", vector=vector, limit=3, model="m"
                )
            )
        consumer.until(lambda: len(consumer.hits) == 20)
        assert all("store-unavailable: " in (consumer.hits[request].error or "") for request in range(20))
        assert server.requests["POST points/query"] == 0
        assert sum(server.requests.values()) >= before
        server.clear()
        consumer.until(lambda: consumer.all_acknowledged)
        assert consumer.drain() == ExitCode.OK


# --- whole runs -----------------------------------------------------------------------------------------------------


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
