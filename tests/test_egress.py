"""Results on their way to consumers that die, over real sockets."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import zmq

from engine.egress import Egress
from engine.outbox import Outgoing
from transport.codec import as_array, spec_of
from transport.credit import CreditBook
from transport.messages import Grant, Join, Points, TaskKey, TaskResult, ToConsumer
from transport.sockets import Channel, Received

SHARE = 64 * 1024
ENOUGH_MS = 30_000  # for what must come; only a failure takes so long
QUIET_MS = 200  # in which nothing must come


def points(number: int, rows: int = 1) -> Outgoing:
    vectors = np.full((rows, 8), number, dtype=np.float16)
    message = Points(
        key=TaskKey(1, 0),
        collection="frames",
        vector="image",
        ids=tuple(f"{number}-{row}" for row in range(rows)),
        payloads=({},) * rows,
        array=spec_of(vectors),
    )
    return Outgoing(message, vectors)


class FakeConsumer:
    """Takes what comes, and acknowledges when told to."""

    def __init__(self, endpoint: str, share_bytes: int = SHARE) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()  # its own, as in a process of its own
        self._channel: Channel[Join | Points | TaskResult] = Channel.bind(self._context, endpoint, ToConsumer)
        self._book = CreditBook(share_bytes)
        self.senders: list[bytes] = []
        self.held: list[Received[Join | Points | TaskResult]] = []

    def take(self, timeout_ms: int = ENOUGH_MS) -> int | None:
        """The number of the next points, -1 for a result; None when nothing comes."""
        while (received := self._channel.receive(timeout_ms)) is not None:
            if isinstance(received.message, Join):
                self.senders.append(received.sender)
                self._book.join(received.sender)
                self._grant()
                continue
            assert received.sender == self.senders[-1], "whoever did not join has no credit"
            self._book.receive(received.sender, received.cost_bytes)
            self.held.append(received)
            if isinstance(received.message, TaskResult):
                return -1
            assert received.payload is not None
            return int(as_array(received.message.array, received.payload)[0, 0])
        return None

    def acknowledge(self, count: int) -> None:
        for received in self.held[:count]:
            self._book.release(received.sender, received.cost_bytes)
        del self.held[:count]
        self._grant()

    def _grant(self) -> None:
        for sender, credit_bytes in self._book.take_owed().items():
            with suppress(zmq.ZMQError):  # EHOSTUNREACH: it has another name by now
                self._channel.send(Grant(credit_bytes=credit_bytes), to=sender)

    def die(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/points"


@pytest.fixture
def consumer_at(endpoint: str) -> Iterator[Callable[..., FakeConsumer]]:
    made: list[FakeConsumer] = []

    def make(share_bytes: int = SHARE) -> FakeConsumer:
        made.append(FakeConsumer(endpoint, share_bytes))
        return made[-1]

    yield make
    for consumer in made:
        consumer.die()


@contextmanager
def started(endpoint: str) -> Iterator[Egress]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    egress = Egress(context, endpoint, b"engine-0.1")
    egress.start()
    yield egress
    egress.close()
    context.destroy(linger=0)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(ENOUGH_MS // 10):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def test_everything_arrives_in_order_and_is_kept_until_acknowledged(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    consumer = consumer_at()
    with started(endpoint) as egress:
        assert egress.is_empty
        for number in range(20):
            egress.put(points(number))
        assert [consumer.take() for _ in range(20)] == list(range(20))
        consumer.acknowledge(19)
        assert not egress.is_empty
        consumer.acknowledge(1)
        wait_until(lambda: egress.is_empty)


def test_a_successor_gets_everything_that_is_not_acknowledged_and_nothing_else(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    first = consumer_at()
    with started(endpoint) as egress:
        for number in range(10):
            egress.put(points(number))
        assert [first.take() for _ in range(7)] == list(range(7))
        first.acknowledge(4)
        wait_until(lambda: len(egress._delivery._sent) == 6)  # the credit has arrived
        first.die()
        second = consumer_at()
        egress.consumer_replaced()
        assert [second.take() for _ in range(6)] == [4, 5, 6, 7, 8, 9]
        for number in range(10, 13):
            egress.put(points(number))
        assert [second.take() for _ in range(3)] == [10, 11, 12]
        assert second.take(QUIET_MS) is None
        assert (first.senders, len(second.senders)) == ([b"engine-0.1"], 1)
        assert second.senders[0].startswith(b"engine-0.1-")
        second.acknowledge(9)
        wait_until(lambda: egress.is_empty)


def test_a_fence_is_passed_when_a_successor_has_what_the_one_before_it_had_been_sent(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    first = consumer_at()
    with started(endpoint) as egress:
        for number in range(2):
            egress.put(points(number))
        assert [first.take() for _ in range(2)] == [0, 1]
        first.die()
        second = consumer_at()
        egress.consumer_replaced()
        egress.fence(1, coming=0)
        assert [second.take() for _ in range(2)] == [0, 1]
        egress.put(points(2))
        assert second.take() == 2
        second.acknowledge(1)
        wait_until(lambda: len(egress._delivery._sent) == 2)
        assert egress.take_passed() is None
        second.acknowledge(1)
        wait_until(lambda: len(egress._delivery._sent) == 1)
        assert egress.take_passed() == 1


def test_nothing_goes_to_a_successor_under_the_old_name(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    first = consumer_at()
    with started(endpoint) as egress:
        egress.put(points(0))
        assert first.take() == 0
        first.die()
        second = consumer_at()
        egress.put(points(1))
        assert second.take(5 * QUIET_MS) is None, "it would acknowledge 1, and 0 would be taken for durable"
        egress.consumer_replaced()
        assert [second.take(), second.take()] == [0, 1]


def test_while_the_consumer_is_gone_no_more_is_handed_over_than_has_room(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    first = consumer_at()
    with started(endpoint) as egress:
        egress.put(points(0))
        assert first.take() == 0
        first.die()
        count = 1
        while egress.has_room:
            egress.put(points(count, rows=2000))
            count += 1
        assert 10 < count < 200
        second = consumer_at(share_bytes=200_000)
        egress.consumer_replaced()
        for number in range(count):
            assert second.take() == number
            second.acknowledge(1)
        wait_until(lambda: egress.is_empty)
        assert egress.has_room


def test_a_consumer_may_come_later_than_the_engine(endpoint: str, consumer_at: Callable[..., FakeConsumer]) -> None:
    with started(endpoint) as egress:
        egress.put(points(0))
        wait_until(lambda: egress._connections > 1)
        assert consumer_at().take() == 0


def test_a_replacement_that_was_noticed_already_costs_only_repetition(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    consumer = consumer_at()
    with started(endpoint) as egress:
        egress.put(points(0))
        egress.put(points(1))
        assert [consumer.take(), consumer.take()] == [0, 1]
        egress.consumer_replaced()
        assert [consumer.take(), consumer.take()] == [0, 1]
        consumer.acknowledge(2)  # of the old name: nobody hears it
        consumer.acknowledge(2)
        wait_until(lambda: egress.is_empty)


def test_a_consumer_that_never_acknowledges_does_not_keep_the_thread_alive(
    endpoint: str, consumer_at: Callable[..., FakeConsumer]
) -> None:
    consumer = consumer_at()
    with started(endpoint) as egress:
        egress.put(points(0))
        assert consumer.take() == 0
    assert not egress.is_alive()
