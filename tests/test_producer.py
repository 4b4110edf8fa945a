"""A decoder's sending, towards an engine that has stopped reading."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from engine.config import Config
from engine.producer import MAX_IN_FLIGHT_BYTES, Decoder
from engine.rundir import endpoints_in, run_directory
from engine.worker import WorkerSpec
from transport.codec import spec_of
from transport.messages import Caption, Frame, Grant, Join, Message, TaskKey, ToEngine, ToSupervisor
from transport.sockets import HIGH_WATER_MARK, Channel

KEY = TaskKey(1, 1)
PIXELS = np.zeros((224, 224, 3), np.uint8)
FRAME = Frame(key=KEY, start_seconds=0.0, end_seconds=1.0, array=spec_of(PIXELS))


class WaitingError(Exception):
    """The decoder waits instead of sending."""


class Engine:
    """The engine's end of the items' socket, in the hands of a test."""

    def __init__(self, items: Channel[Any]) -> None:
        self._items = items
        received = items.receive(timeout_ms=10_000)
        assert received is not None
        assert isinstance(received.message, Join)
        self._decoder = received.sender

    def grant(self, credit_bytes: int) -> None:
        self._items.send(Grant(credit_bytes=credit_bytes), to=self._decoder)

    def read(self) -> int:
        """Take a message; returns its cost."""
        received = self._items.receive(timeout_ms=10_000)
        assert received is not None
        return received.cost_bytes


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Decoder, Engine]]:
    """A decoder that raises WaitingError where it would wait, and the engine's end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with run_directory(str(tmp_path)) as directory:
        endpoints = endpoints_in(directory)
        control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
        items: Channel[Any] = Channel.bind(context, endpoints.items, ToEngine)
        spec = WorkerSpec(role="decoder", index=0, generation=1, endpoints=endpoints, config=Config())
        decoder = Decoder(spec, context)
        decoder._items.send(Join())
        engine = Engine(items)
        engine.grant(1024 * MAX_IN_FLIGHT_BYTES)
        while not decoder._credit.limit_bytes:
            decoder._take_grants(timeout_ms=100)

        def wait() -> None:
            raise WaitingError

        monkeypatch.setattr(decoder, "_beat", wait)
        yield decoder, engine
        for channel in (decoder._items, decoder._control, items, control):
            channel.socket.close(linger=0)
    context.term()


def send_until_it_waits(decoder: Decoder, message: Message, array: Any = None, most: int = 10_000) -> int:
    """How many messages go before the decoder waits."""
    for sent in range(most):
        try:
            decoder._send_item(message, array)
        except WaitingError:
            return sent
    raise AssertionError(f"it sent {most} messages and did not wait")


def test_bytes_in_flight_are_bounded_whatever_the_credit(ends: tuple[Decoder, Engine]) -> None:
    decoder, engine = ends
    sent = send_until_it_waits(decoder, FRAME, PIXELS)
    cost_bytes = engine.read()
    assert sent == MAX_IN_FLIGHT_BYTES // cost_bytes
    assert send_until_it_waits(decoder, FRAME, PIXELS) == 0  # reading alone returns no credit
    engine.grant(cost_bytes)
    while decoder._credit.limit_bytes - decoder._credit.available_bytes == sent * cost_bytes:
        decoder._take_grants(timeout_ms=100)
    assert send_until_it_waits(decoder, FRAME, PIXELS) == 1


def test_a_message_above_the_bound_goes_alone(ends: tuple[Decoder, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.producer.MAX_IN_FLIGHT_BYTES", 1000)
    assert send_until_it_waits(ends[0], FRAME, PIXELS) == 1


def test_many_small_messages_wait_and_do_not_block(ends: tuple[Decoder, Engine]) -> None:
    cue = Caption(key=KEY, start_seconds=0.0, end_seconds=1.0, text="x" * 10_000, language=None)
    sent = send_until_it_waits(ends[0], cue)
    # ZeroMQ counts what was read in steps of half its mark, so the first message, read long ago, may still count.
    assert HIGH_WATER_MARK // 2 <= sent < MAX_IN_FLIGHT_BYTES // 10_000
