"""Commands ask, the front desk carries; whatever a client does, the daemon's loop goes on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from engine.client import ask
from engine.config import Config, load_config
from engine.errors import ConfigError
from engine.frontdesk import FrontDesk
from engine.presence import announce
from stages.errors import SluiceError
from transport.codec import encode
from transport.requests import MAX_REQUEST_BYTES, Answer, ForgetRequest, Request, SearchRequest, StatusRequest, Target

Client = Callable[[], "zmq.Socket[bytes]"]


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/desk.ipc"


@pytest.fixture
def desk(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> FrontDesk:
    return FrontDesk(context, endpoint, max_open=2)


@pytest.fixture
def client(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, desk: FrontDesk) -> Iterator[Client]:
    made: list[zmq.Socket[bytes]] = []

    def connect() -> "zmq.Socket[bytes]":
        made.append(context.socket(zmq.DEALER))
        made[-1].connect(endpoint)
        return made[-1]

    yield connect
    for socket in made:
        socket.close(linger=0)


def taken(desk: FrontDesk) -> list[tuple[bytes, Request]]:
    """What the desk takes once something has come."""
    assert desk.socket.poll(10_000)
    return desk.take()


def received(socket: "zmq.Socket[bytes]") -> Answer:
    assert socket.poll(10_000)
    return msgspec.msgpack.decode(socket.recv(), type=Answer)


def test_a_request_is_taken_and_its_answer_comes_back(desk: FrontDesk, client: Client) -> None:
    first, second = client(), client()
    first.send(encode(StatusRequest()))
    ((name, request),) = taken(desk)
    assert request == StatusRequest()
    second.send(encode(SearchRequest(query="a ball")))
    ((other, search),) = taken(desk)
    assert search == SearchRequest(query="a ball")
    desk.answer(other, {"hits": []})
    desk.answer(name, {"state": "idle"})
    assert received(first) == Answer(body={"state": "idle"})
    assert received(second) == Answer(body={"hits": []})
    assert desk.open_requests == 0


def test_an_error_keeps_its_code(desk: FrontDesk, client: Client) -> None:
    socket = client()
    socket.send(encode(SearchRequest(query="a ball")))
    ((name, _),) = taken(desk)
    desk.answer(name, SluiceError("model-off", "models.image is off"))
    assert received(socket) == Answer(body=None, code="model-off", message="models.image is off")


def test_nothing_to_take_does_not_wait(desk: FrontDesk) -> None:
    assert desk.take() == []


@pytest.mark.parametrize(
    "frames", [[b""], [b"garbage"], [encode(Answer(body={}))], [b"\x81\xa4type"], [b"a", b"b", b"c"]]
)
def test_what_cannot_be_read_is_answered_with_an_error(desk: FrontDesk, client: Client, frames: list[bytes]) -> None:
    socket = client()
    socket.send_multipart(frames)
    assert taken(desk) == []
    answer = received(socket)
    assert (answer.body, answer.code) == (None, "bad-request")
    assert desk.open_requests == 0


def test_more_than_the_desk_holds_is_told_to_come_again(desk: FrontDesk, client: Client) -> None:
    sockets = [client() for _ in range(3)]
    names = []
    for socket in sockets[:2]:
        socket.send(encode(StatusRequest()))
        names += [name for name, _ in taken(desk)]
    sockets[2].send(encode(StatusRequest()))
    assert taken(desk) == []
    assert received(sockets[2]).code == "busy"
    desk.answer(names[0], {})
    sockets[2].send(encode(StatusRequest()))
    assert len(taken(desk)) == 1


def test_a_client_asks_one_thing_at_a_time(desk: FrontDesk, client: Client) -> None:
    socket = client()
    socket.send(encode(StatusRequest()))
    assert len(taken(desk)) == 1
    socket.send(encode(StatusRequest()))
    assert taken(desk) == []
    assert received(socket).message == "one request at a time"
    assert desk.open_requests == 1


def test_a_client_that_is_gone_costs_nothing(desk: FrontDesk, client: Client) -> None:
    socket = client()
    socket.send(encode(StatusRequest()))
    ((name, _),) = taken(desk)
    socket.close(linger=0)
    for _ in range(100):  # whether the desk knows of its end already, or not yet
        desk.answer(name, {"state": "idle"})
    assert desk.open_requests == 0


def test_a_client_that_never_reads_does_not_stop_the_desk(desk: FrontDesk, client: Client) -> None:
    socket = client()
    socket.setsockopt(zmq.RCVHWM, 1)
    socket.send(encode(StatusRequest()))
    ((name, _),) = taken(desk)
    for _ in range(200):  # far more than any pipe and socket buffer between us holds
        desk.answer(name, {"filling": "x" * 100_000})
    other = client()
    other.send(encode(StatusRequest()))
    ((name, _),) = taken(desk)
    desk.answer(name, {"state": "idle"})
    assert received(other).body == {"state": "idle"}


def test_an_oversized_message_is_not_even_received(desk: FrontDesk, client: Client) -> None:
    rude, other = client(), client()
    rude.send(b"x" * (MAX_REQUEST_BYTES + 1))
    other.send(encode(StatusRequest()))
    ((name, request),) = taken(desk)
    assert request == StatusRequest()
    desk.answer(name, {})
    assert received(other).body == {}
    assert desk.take() == []


def test_who_waits_when_the_daemon_stops_is_told(desk: FrontDesk, client: Client) -> None:
    socket = client()
    socket.send(encode(StatusRequest()))
    assert len(taken(desk)) == 1
    desk.close()
    assert received(socket).code == "daemon-stopping"


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(settings=[f"run.state={tmp_path / 'state'}", f"store.path={tmp_path / 'store'}"])


class Asking(threading.Thread):
    """A command that asks, in a thread of its own: its answer, or the error that it met."""

    def __init__(self, config: Config, request: Request, timeout_seconds: float = 60.0) -> None:
        super().__init__(daemon=True)
        self._arguments = (config, request, timeout_seconds)
        self.result: dict[str, Any] | SluiceError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = ask(*self._arguments)
        except SluiceError as error:
            self.result = error

    def ended(self) -> dict[str, Any] | SluiceError | None:
        self.join(60)
        assert not self.is_alive()
        return self.result


def test_without_a_daemon_a_command_is_on_its_own(config: Config) -> None:
    assert ask(config, StatusRequest()) is None


def test_a_command_gets_the_body_or_the_error(config: Config, desk: FrontDesk, endpoint: str) -> None:
    with announce(config, endpoint):
        asking = Asking(config, StatusRequest())
        ((name, _),) = taken(desk)
        desk.answer(name, {"state": "idle"})
        assert asking.ended() == {"state": "idle"}
        asking = Asking(config, SearchRequest(query="x"))
        ((name, _),) = taken(desk)
        desk.answer(name, SluiceError("model-off", "models.image is off"))
        error = asking.ended()
        assert isinstance(error, SluiceError)
        assert (error.code, error.message) == ("model-off", "models.image is off")
        assert not isinstance(error, ConfigError)
        asking = Asking(config, StatusRequest())
        ((name, _),) = taken(desk)
        desk.answer(name, ConfigError("bad-query", "the query is empty"))
        assert isinstance(asking.ended(), ConfigError), "wrong use stays wrong use on its way through the daemon"


def test_a_daemon_that_ends_before_it_answers_is_noticed(config: Config, desk: FrontDesk, endpoint: str) -> None:
    with announce(config, endpoint):
        asking = Asking(config, StatusRequest())
        assert len(taken(desk)) == 1
    error = asking.ended()
    assert isinstance(error, SluiceError)
    assert error.code == "daemon-gone"


def test_a_daemon_that_says_nothing_is_not_waited_for_for_ever(config: Config, desk: FrontDesk, endpoint: str) -> None:
    with announce(config, endpoint), pytest.raises(SluiceError, match=r"did not answer within 0\.2 s"):
        ask(config, StatusRequest(), timeout_seconds=0.2)


def test_a_request_that_the_daemon_would_cut_off_is_not_sent(config: Config, endpoint: str) -> None:
    target = Target(path=b"/films/" + b"x" * MAX_REQUEST_BYTES)
    with announce(config, endpoint), pytest.raises(ConfigError, match="name fewer videos"):
        ask(config, ForgetRequest(targets=(target,)))
