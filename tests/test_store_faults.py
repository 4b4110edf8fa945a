"""What happens to writes when the writer is killed, or the server fails."""

import logging
import signal
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import Filter, Store
from tests.qdrant_loopback import LoopbackQdrant, fast_disk
from tests.store_samples import SPECS, code_of, frames, normalised, vectors

ROOT = Path(__file__).parents[1]


@pytest.fixture
def directory() -> Iterator[Path]:
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


@pytest.fixture
def store(server: LoopbackQdrant) -> Iterator[Store]:
    """A store on the server, with its collections made and one point in it; it waits a second for an answer."""
    opened = open_store(StoreOptions(url=server.url, prefix=f"f{uuid.uuid4().hex[:8]}", timeout_seconds=1), None)
    opened.ensure(SPECS)
    opened.upsert("frames", frames(1))
    server.requests.clear()
    yield opened
    opened.close()


# --- a writer that is killed ----------------------------------------------------------------------------------------

WRITER = """
import sys
from stages.options import StoreOptions
from stages.qdrant import open_store
from tests.store_samples import SPECS, frames
store = open_store(StoreOptions(**eval(sys.argv[1])), None)
store.ensure(SPECS)
for round in range(1000):
    points = frames(64, video=f"{sys.argv[2]}-{round}", seed=round)
    for first in range(0, 64, 16):
        store.put("frames", points[first : first + 16])
    store.flush()
    print(round, flush=True)
"""


def kill_a_writer(options: dict[str, Any], name: str, acknowledged: int) -> int:
    """Start a writer, SIGKILL it when it has acknowledged so many batches; how many it had acknowledged."""
    command = [sys.executable, "-c", WRITER, repr(options), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) + 1 == acknowledged:
                break
        writer.send_signal(signal.SIGKILL)
        return acknowledged + len(writer.stdout.readlines())


@pytest.mark.parametrize("where", ["embedded", "loopback"])
def test_what_was_acknowledged_survives_sigkill(where: str, directory: Path, server: LoopbackQdrant) -> None:
    options: dict[str, Any] = (
        {"path": str(directory / "store")} if where == "embedded" else {"url": server.url, "prefix": "killed"}
    )
    counts = {name: kill_a_writer(options, name, acknowledged) for name, acknowledged in (("a", 1), ("b", 4))}
    store = open_store(StoreOptions(**options), None)
    store.ensure(SPECS)
    for name, batches in counts.items():
        for batch in range(batches):
            found = store.scroll("frames", with_vectors=True, filter=Filter(video_id=f"{name}-{batch}"))
            by_id = {point.id: point.vectors["image"] for point in found}
            for point in frames(64, video=f"{name}-{batch}", seed=batch):
                np.testing.assert_allclose(by_id[point.id], normalised(point.vectors["image"]), atol=1e-3)
    store.close()


# --- a server that fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "store-unavailable"), (503, "store-unavailable"), (408, "store-unavailable"), (429, "store-busy")],
)
def test_a_failing_server_is_reported_once_and_not_asked_again(
    store: Store, server: LoopbackQdrant, status: int, code: str
) -> None:
    server.fail(status)
    with pytest.raises(StoreUnavailable) as error:
        store.upsert("frames", frames(5))
    assert code_of(error) == code
    assert server.url in error.value.message
    assert server.requests["PUT points"] == 1
    store.upsert("frames", frames(5))  # it has mended
    assert store.count("frames") == 5


def test_reading_from_a_failing_server_is_not_an_empty_result(store: Store, server: LoopbackQdrant) -> None:
    server.fail(503, times=3)
    with pytest.raises(StoreUnavailable):
        store.count("frames")
    with pytest.raises(StoreUnavailable):
        list(store.scroll("frames", with_vectors=False))
    with pytest.raises(StoreUnavailable):
        store.search("frames", "image", vectors(1)[0], 3)
    assert store.count("frames") == 1


def test_a_server_that_does_not_answer_in_time(store: Store, server: LoopbackQdrant) -> None:
    server.timeout(seconds=1.5)
    with pytest.raises(StoreUnavailable, match=r"store\.timeout_seconds") as error:
        store.upsert("frames", frames(5))
    assert code_of(error) == "store-timeout"
    assert store.count("frames") == 1


@pytest.mark.parametrize("applied", [True, False])
def test_a_dropped_connection_can_be_mended_by_writing_again(
    store: Store, server: LoopbackQdrant, applied: bool
) -> None:
    server.drop(applied=applied)
    with pytest.raises(StoreUnavailable) as error:
        store.upsert("frames", frames(5))
    assert code_of(error) == "store-unreachable"
    assert store.count("frames") == (5 if applied else 1)
    store.upsert("frames", frames(5))
    assert store.count("frames") == 5


def test_a_slow_server_is_waited_for(store: Store, server: LoopbackQdrant) -> None:
    server.slow(0.2)
    store.upsert("frames", frames(5))
    server.slow(0)
    assert store.count("frames") == 5


def test_a_server_that_is_not_there() -> None:
    with LoopbackQdrant() as gone:
        url = gone.url
    store = open_store(StoreOptions(url=url), None)
    with pytest.raises(StoreUnavailable, match=r"store\.url") as error:
        store.ensure(SPECS)
    assert code_of(error) == "store-unreachable"
    store.close()


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_missing_or_wrong_key(server: LoopbackQdrant, key: str | None) -> None:
    server.require_key("right")
    store = open_store(StoreOptions(url=server.url, api_key_env="MY_KEY"), key)
    with pytest.raises(StoreError, match="MY_KEY") as error:
        store.ensure(SPECS)
    assert code_of(error) == "store-not-authorised"
    assert not isinstance(error.value, StoreUnavailable)
    assert "right" not in error.value.message
    store.close()


def test_the_key_is_sent_and_nothing_warns(server: LoopbackQdrant, caplog: pytest.LogCaptureFixture) -> None:
    server.require_key("right")
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        store = open_store(StoreOptions(url=server.url, prefix="keyed"), "right")
        store.ensure(SPECS)
        assert store.count("frames") == 0
        store.close()
    assert caplog.text == ""  # on the loopback nobody listens


def test_a_key_sent_in_the_clear_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    open_store(StoreOptions(url="http://example.invalid:6333"), "secret").close()
    assert caplog.text.count("unencrypted") == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["localhost:6333", "ftp://host", "http://", "qdrant"])
def test_an_impossible_url(url: str) -> None:
    with pytest.raises(StoreError, match=r"store\.url") as error:
        open_store(StoreOptions(url=url), None)
    assert code_of(error) == "store-url"


def test_a_server_that_is_not_qdrant(server: LoopbackQdrant) -> None:
    store = open_store(StoreOptions(url=server.url + "/elsewhere"), None)
    with pytest.raises(StoreError, match=r"is store\.url right") as error:
        store.count("frames")
    assert code_of(error) == "store-refused"
    store.close()


def test_opening_does_not_connect(server: LoopbackQdrant) -> None:
    server.requests.clear()
    open_store(StoreOptions(url=server.url), None).close()
    assert not server.requests


def test_ensure_goes_on_wherever_it_was_cut_short(server: LoopbackQdrant) -> None:
    """As after a crash between a collection and its indexes."""
    fresh = open_store(StoreOptions(url=server.url, prefix=f"c{uuid.uuid4().hex[:8]}"), None)
    failures = 0
    while failures < 40:
        server.clear()
        server.fail(503, after=failures)
        try:
            fresh.ensure(SPECS)
            break
        except StoreUnavailable:
            failures += 1
    assert 5 < failures < 40
    server.clear()
    fresh.upsert("frames", frames(3))
    server.requests.clear()
    fresh.ensure(SPECS)
    assert server.requests["GET"] > 0
    assert server.requests["PUT"] == server.requests["PUT index"] == 0  # nothing was left to make
    fresh.close()


# --- the server as a process ----------------------------------------------------------------------------------------


def test_the_loopback_server_runs_as_a_process_and_keeps_its_points(directory: Path) -> None:
    import httpx

    for already in (0, 4):
        command = [sys.executable, "-m", "tests.qdrant_loopback", "--directory", str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            store = open_store(StoreOptions(url=url), None)
            store.ensure(SPECS)
            assert store.count("frames") == already
            httpx.post(f"{url}/_control", json={"fail": {"status": 503, "times": 1}}, trust_env=False)
            with pytest.raises(StoreUnavailable):
                store.upsert("frames", frames(4))
            store.upsert("frames", frames(4))
            counted = httpx.get(f"{url}/_control", trust_env=False).json()["requests"]
            assert counted["PUT points"] == 2
            store.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
