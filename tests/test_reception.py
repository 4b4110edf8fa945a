"""What the daemon answers: the front desk, the supervisor and the watcher are played; the ledger is real."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import Config, DaemonOptions
from engine.errors import ConfigError
from engine.ledger_schema import LedgerUnavailable
from engine.reception import Reception
from engine.records import Records
from engine.recovery import Recovery
from engine.report import Peaks
from engine.status import ProcessState
from engine.tasks import Board
from engine.watcher import WatchState
from stages.errors import SluiceError
from stages.options import StoreOptions
from tests.runs import Meddler
from tests.test_tasks import FORMAT, media, probed
from transport.messages import EmbedQuery, FoundPoint, Message, ModelInfo, QueryVectors, Ready, SearchStore, StoreHits
from transport.requests import ForgetRequest, Request, RetryRequest, SearchRequest, StatusRequest, Target

VIDEO = "a" * 64
IMAGE = ModelInfo(role="image", name="clip", revision="1", dimension=2, untrained=True)
READY = Ready(role="engine", index=0, models=(IMAGE,), device="cpu", frame_format=FORMAT)
PAYLOAD = {"video_id": VIDEO, "path": "/films/a.mp4", "start_seconds": 1.0, "end_seconds": 2.0}


class Desk:
    """Requests that lie there, and the answers that were given."""

    def __init__(self) -> None:
        self.requests: deque[tuple[bytes, Request]] = deque()
        self.answers: dict[bytes, Any] = {}

    def take(self) -> list[tuple[bytes, Request]]:
        taken = list(self.requests)
        self.requests.clear()
        return taken

    def answer(self, client: bytes, result: Any) -> None:
        assert client not in self.answers, "each is answered once"
        self.answers[client] = result


class Fleet:
    """An engine and a consumer, and what each was asked."""

    def __init__(self) -> None:
        self.engine, self.consumer = SimpleNamespace(name="engine"), SimpleNamespace(name="consumer")
        self.sent: list[tuple[str, Message]] = []

    def send(self, child: Any, message: Message) -> bool:
        self.sent.append((child.name, message))
        return True

    def asked(self) -> list[tuple[str, Any]]:
        sent, self.sent = self.sent, []
        return sent


class Watcher:
    """One root."""

    waiting_files = 2

    def __init__(self) -> None:
        self.scans = 0
        self.polled = False

    def scan_soon(self) -> None:
        self.scans += 1

    def states(self) -> list[WatchState]:
        return [
            WatchState(
                path="/films", priority=0, state="watching", polled=self.polled, files=7, ignored=1, settling=3,
                queued=2, scan_seconds=0.1, scanned_seconds_ago=5.0, unreadable=(),
            )
        ]  # fmt: skip


class Place:
    """A reception and all around it."""

    def __init__(self, directory: Path, **daemon: Any) -> None:
        self.config = Config(store=StoreOptions(path=str(directory / "store")), daemon=DaemonOptions(**daemon))
        self.desk, self.watcher, self.fleet = Desk(), Watcher(), Fleet()
        self.records = Records(self.config, Meddler(), ["image clip@1"], keep_rows=False)
        self.supervisor: Any = SimpleNamespace(
            board=None,
            fleet=self.fleet,
            guard=None,
            interrupted=False,
            peaks=Peaks(),
            records=self.records,
            recovery=Recovery(self.config),
        )
        self.reception = Reception(self.desk, self.supervisor, self.watcher, self.config)  # type: ignore[arg-type]

    def start(self) -> Board:
        """The engine is ready."""
        self.supervisor.recovery.welcome(READY)
        self.supervisor.board = Board(self.config, FORMAT, self.records.ledger.known_video, self.records.ledger.tasks)
        return self.supervisor.board  # type: ignore[no-any-return]

    def ask(self, request: Request, client: bytes = b"client") -> Any:
        """The answer, if there is one at once."""
        self.desk.requests.append((client, request))
        return self.turn(client)

    def turn(self, client: bytes = b"client") -> Any:
        self.reception.turn()
        return self.desk.answers.pop(client, None)

    def hears(self, message: QueryVectors | StoreHits) -> Any:
        self.reception.searches.heard(message)
        return self.turn()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.records.ledger.close()


def failed_file(place: Place, path: Path) -> bytes:
    path.write_bytes(b"no film")
    name = os.fsencode(path)
    place.records.ledger.files.fail_file(name, path.stat(), None, "not-media", "it is no film")
    return name


def in_work(place: Place, path: bytes = b"/films/a.mp4") -> None:
    board = place.start()
    board.add(path, path.decode(), 0.0)
    probe: Any = board.next_message()
    place.records.begun(VIDEO, path)
    board.probed(probed(probe.key, media(), VIDEO), 0.0)


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_can_be_asked_for_while_the_models_are_loading(place: Place) -> None:
    document = place.ask(StatusRequest())
    assert (document["state"], document["videos"], document["device"]) == ("starting", [], None)
    assert document["queue"] == {"files": 2, "tasks": 0, "videos": 0}
    assert [process["name"] for process in document["processes"]] == ["supervisor"]
    assert document["processes"][0]["pid"] == os.getpid()
    assert document["store"]["at"].endswith("/store")


def test_status_shows_videos_children_and_roots(place: Place) -> None:
    in_work(place)
    place.watcher.polled = True
    child = ProcessState(role="decoder", name="decoder 0", pid=7, state="ready", restarts=2)
    place.supervisor.guard = SimpleNamespace(states=lambda: [child])
    document = place.ask(StatusRequest())
    assert document["state"] == "indexing"
    assert [video["path"] for video in document["videos"]] == ["/films/a.mp4"]
    assert document["queue"]["tasks"] == 4
    assert [(each["name"], each["restarts"]) for each in document["processes"]][1:] == [("decoder 0", 2)]
    assert document["totals"]["restarts"]["decoder"] == 2
    (root,) = document["roots"]
    assert (root["path"], root["state"], root["files"], root["settling"]) == ("/films", "polling", 7, 3)


def test_status_says_that_the_ledger_is_away_and_that_the_run_ends(place: Place) -> None:
    place.start()
    place.records.waits("the disk is full")
    document = place.ask(StatusRequest())
    assert (document["state"], document["reason"]) == ("waiting", "ledger: the disk is full")
    assert document["ledger"] == "the disk is full"
    place.supervisor.interrupted = True
    assert place.ask(StatusRequest())["state"] == "draining"


# --- searches ---------------------------------------------------------------------------------------------------------


def test_searches_that_are_off_name_the_setting(tmp_path: Path) -> None:
    place = Place(tmp_path, search=False)
    place.start()
    answer = place.ask(SearchRequest(query="a boat"))
    assert isinstance(answer, ConfigError)
    assert answer.code == "search-off"
    assert "daemon.search" in answer.message
    assert place.fleet.asked() == []
    place.records.ledger.close()


def test_a_search_before_the_models_are_loaded_says_so(place: Place) -> None:
    answer = place.ask(SearchRequest(query="a boat"))
    assert isinstance(answer, SluiceError)
    assert answer.code == "daemon-starting"


def search(place: Place) -> SearchStore:
    """A search that has got as far as the consumer."""
    assert place.ask(SearchRequest(query="a boat", limit=5)) is None
    ((name, question),) = place.fleet.asked()
    assert (name, question.text, question.roles) == ("engine", "a boat", ("image",))
    assert place.hears(QueryVectors(request=question.request, vectors={"image": (1.0, 0.0)})) is None
    ((name, lookup),) = place.fleet.asked()
    assert (name, lookup.collection, lookup.limit, lookup.model) == ("consumer", "frames", 5, IMAGE.label)
    assert isinstance(lookup, SearchStore)
    return lookup


def test_a_search_goes_by_way_of_the_engine_and_the_consumer(place: Place) -> None:
    place.start()
    lookup = search(place)
    hits = (FoundPoint(score=0.5, id="p", payload=PAYLOAD),)
    answer = place.hears(StoreHits(request=lookup.request, hits=hits))
    assert [(hit["path"], hit["score"]) for hit in answer["hits"]] == [("/films/a.mp4", 0.5)]
    assert place.hears(StoreHits(request=lookup.request, hits=hits)) is None, "a second answer is nobody's"


def test_a_store_that_is_away_is_the_answer(place: Place) -> None:
    place.start()
    lookup = search(place)
    answer = place.hears(StoreHits(request=lookup.request, hits=(), error="store-unreachable: refused"))
    assert (answer.code, answer.message) == ("store-unreachable", "refused")


def test_successors_are_asked_what_the_dead_did_not_answer(place: Place) -> None:
    place.start()
    assert place.ask(SearchRequest(query="a boat")) is None
    first = place.fleet.asked()
    place.reception.ready("engine")
    place.turn()
    assert place.fleet.asked() == first
    place.reception.ready("consumer")
    place.reception.ready("decoder")
    place.turn()
    assert place.fleet.asked() == []
    question: Any = first[0][1]
    assert isinstance(question, EmbedQuery)
    place.hears(QueryVectors(request=question.request, vectors={"image": (1.0, 0.0)}))
    lookups = place.fleet.asked()
    place.reception.ready("consumer")
    place.turn()
    assert place.fleet.asked() == lookups


# --- retry and forget -------------------------------------------------------------------------------------------------


def test_what_is_tried_again_is_looked_for_at_once(place: Place, tmp_path: Path) -> None:
    name = failed_file(place, tmp_path / "a.mp4")
    body = place.ask(RetryRequest(targets=(Target(path=name),)))
    assert [video["path"] for video in body["retried"]] == [str(tmp_path / "a.mp4")]
    assert place.watcher.scans == 1
    row = place.records.ledger.files.find(name)
    assert row is not None
    assert row.marks.size_bytes != (tmp_path / "a.mp4").stat().st_size, "a scan takes it for changed"


def test_a_video_in_work_is_not_tried_again_and_not_forgotten(place: Place) -> None:
    in_work(place)
    target = Target(video_id=VIDEO)
    body = place.ask(RetryRequest(targets=(target,)))
    assert [video["video_id"] for video in body["in_work"]] == [VIDEO]
    answer = place.ask(ForgetRequest(targets=(target,)))
    assert isinstance(answer, SluiceError)
    assert answer.code == "video-in-work"
    assert place.records.ledger.operations.pending(10) == []
    assert place.records.ledger.videos.path_of(VIDEO) is not None


def test_a_finished_video_is_forgotten(place: Place) -> None:
    place.start()
    place.records.ledger.record_video(VIDEO, b"/films/a.mp4", {"status": "indexed"})
    body = place.ask(ForgetRequest(targets=(Target(video_id=VIDEO),)))
    assert body == {"forgotten": [{"path": "/films/a.mp4", "video_id": VIDEO}]}
    assert [each.kind for each in place.records.ledger.operations.pending(10)] == ["remove"]
    assert place.watcher.scans == 0


def test_what_is_unknown_is_an_answer_and_no_error_of_the_daemon(place: Place) -> None:
    for request in (RetryRequest(targets=(Target(path=b"/x"),)), ForgetRequest(targets=(Target(path=b"/x"),))):
        answer = place.ask(request)
        assert isinstance(answer, ConfigError)
        assert answer.code == "no-such-video"


def test_while_the_ledger_is_away_commands_are_told_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: Any) -> Any:
        raise LedgerUnavailable("ledger-unavailable", "the disk is full")

    monkeypatch.setattr(place.records.ledger.files, "find", away)
    answer = place.ask(RetryRequest(targets=(Target(path=b"/x"),)))
    assert (answer.code, answer.message) == ("ledger-unavailable", "the disk is full")
    assert place.watcher.scans == 0
    assert place.ask(StatusRequest())["state"] == "starting", "the next one is answered all the same"
