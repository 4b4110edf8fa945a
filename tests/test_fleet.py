"""How the children work together, as far as the fleet sees to it. The children are played; the socket is real."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.config import Config
from engine.fleet import Fleet
from engine.rundir import endpoints_in
from tests.test_guard import STRANGE, Child
from transport.messages import Abort, ConsumerReplaced, Fence, Hello, Message, Passed, Prepare, TaskKey

KEY = TaskKey(1, 0)


class Played(Fleet):
    """Starts nobody, and notes what each child was told."""

    def __init__(self, *arguments: Any) -> None:
        self.told: list[tuple[str, Message]] = []
        self.deaf: set[str] = set()
        super().__init__(*arguments)

    def _start(self, role: str, index: int, suspects: Any = (), condemned: Any = ()) -> Any:
        self._generation += 1
        return Child(role, index, self._generation)

    def send(self, child: Any, message: Message) -> bool:
        if child.name in self.deaf:
            return False
        self.told.append((child.name, message))
        return True


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setattr(Child, "close", lambda child: None, raising=False)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield Played(Config(), context, endpoints_in(tmp_path))
    context.destroy(linger=0)


def test_it_is_settled_when_the_engine_has_passed_the_last_fence(fleet: Played) -> None:
    assert fleet.is_settled
    fleet.consumer_took_over()
    fleet.abort(KEY)
    assert fleet.told == [
        ("engine", ConsumerReplaced()),
        ("engine", Fence(number=1)),
        ("engine", Abort(key=KEY)),
        ("engine", Fence(number=2)),
    ]
    assert not fleet.is_settled
    fleet.heard(fleet.engine, Passed(number=1))
    assert not fleet.is_settled
    fleet.heard(fleet.engine, Passed(number=2))
    assert fleet.is_settled


def test_an_engine_that_is_gone_gives_nothing_more(fleet: Played) -> None:
    fleet.abort(KEY)
    fleet.end(*fleet.decoders, fleet.consumer)
    assert not fleet.is_settled
    fleet.end(fleet.engine)
    assert fleet.is_settled
    fleet.heard(fleet.engine, Passed(number=0))  # it had lain in our socket
    assert fleet.is_settled


def test_an_engine_that_is_dead_is_told_nothing(fleet: Played) -> None:
    fleet.engine.process.exitcode = STRANGE  # type: ignore[misc]
    fleet.abort(KEY)
    assert fleet.told == []
    assert fleet.is_settled


def test_an_engine_that_does_not_hear_is_not_waited_for(fleet: Played) -> None:
    fleet.deaf.add("engine")
    fleet.consumer_took_over()
    assert fleet.is_settled


def test_a_consumer_is_told_what_to_prepare_as_soon_as_it_is_there_and_that_is_known(fleet: Played) -> None:
    hello = Hello(role="consumer", index=0, pid=1)
    fleet.heard(fleet.consumer, hello)
    assert fleet.told == []
    fleet._prepare = Prepare(dimensions={"image": 3})
    fleet.heard(fleet.engine, hello)
    assert fleet.told == []
    fleet.heard(fleet.consumer, hello)
    assert fleet.told == [("consumer", Prepare(dimensions={"image": 3}))]
