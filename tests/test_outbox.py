"""What the engine keeps for the consumer: in order, within the credit, until it is durable."""

from collections import deque

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.outbox import Delivery, Outbox, Outgoing
from transport.messages import Grant

SHARE = 1000


def message(number: int, payload_bytes: int = 0) -> Outgoing:
    return Outgoing(Grant(credit_bytes=number), np.zeros(payload_bytes // 2, np.float16) if payload_bytes else None)


def all_of(delivery: Delivery) -> list[Outgoing]:
    return list(iter(delivery.take, None))


def test_an_outbox_counts_what_waits() -> None:
    outbox = Outbox(limit_bytes=100)
    outbox.put(Grant(credit_bytes=1), np.zeros(50, np.float16))
    assert outbox.is_full
    outgoing = outbox.take()
    assert outgoing is not None
    assert outgoing.cost_bytes == len(outgoing.header) + 100
    assert outbox.held_bytes == 0
    assert outbox.take() is None


def test_nothing_is_sent_before_the_share_came() -> None:
    delivery = Delivery()
    delivery.put(message(1))
    assert delivery.take() is None
    delivery.grant(SHARE)
    assert delivery.take() is not None


def test_a_message_is_kept_until_its_credit_is_back() -> None:
    delivery, sent = Delivery(), message(1, 100)
    delivery.put(sent)
    delivery.grant(SHARE)
    assert all_of(delivery) == [sent]
    assert not delivery.is_empty
    delivery.grant(sent.cost_bytes - 1)
    assert not delivery.is_empty
    delivery.grant(1)
    assert delivery.is_empty


def test_another_consumer_gets_first_what_is_not_acknowledged_and_then_the_rest() -> None:
    delivery, messages = Delivery(), [message(number, 300) for number in range(6)]
    for each in messages:
        delivery.put(each)
    delivery.grant(SHARE)
    assert all_of(delivery) == messages[:3]
    delivery.grant(messages[0].cost_bytes)
    assert all_of(delivery) == messages[3:4]
    delivery.start_over()
    assert all_of(delivery) == [], "there is no credit of the new one yet"
    delivery.grant(10 * SHARE)
    assert all_of(delivery) == messages[1:]
    for each in messages[1:]:
        delivery.grant(each.cost_bytes)
    assert delivery.is_empty
    assert delivery.unsent_bytes == 0


def test_a_fence_is_passed_when_all_that_was_put_before_it_is_durable() -> None:
    delivery, messages = Delivery(), [message(number, 100) for number in range(5)]
    cost = messages[0].cost_bytes
    delivery.fence(1, coming=0)
    assert delivery.take_passed() == 1, "there is nothing before it"
    assert delivery.take_passed() is None
    for each in messages[:3]:
        delivery.put(each)
    delivery.fence(2, coming=0)
    delivery.fence(3, coming=1)
    delivery.fence(4, coming=1)
    delivery.grant(2 * cost)
    assert all_of(delivery) == messages[:2]
    delivery.grant(cost)
    delivery.start_over()  # to the next consumer all but the first come again
    delivery.grant(10 * SHARE)
    for each in messages[3:]:
        delivery.put(each)
    assert all_of(delivery) == messages[1:]
    delivery.grant(cost)
    assert delivery.take_passed() is None
    delivery.grant(cost)
    assert delivery.take_passed() == 2
    delivery.grant(cost)
    assert delivery.take_passed() == 4, "which says it of 3, too"
    assert not delivery.is_empty


def test_a_message_larger_than_the_share_is_sent_again_too() -> None:
    delivery, large = Delivery(), message(1, 5 * SHARE)
    delivery.put(large)
    for _ in range(3):
        delivery.grant(SHARE)
        assert all_of(delivery) == [large]
        delivery.start_over()
    assert delivery.unsent_bytes == large.cost_bytes


class Receiver:
    """A consumer that takes what comes and acknowledges it in order, several at once now and then."""

    def __init__(self, delivery: Delivery, durable: list[Outgoing]) -> None:
        self.delivery, self.durable = delivery, durable
        self.held: deque[Outgoing] = deque()
        delivery.grant(SHARE)

    def receive(self) -> None:
        outgoing = self.delivery.take()
        if outgoing is not None:
            self.held.append(outgoing)
            assert sum(each.cost_bytes for each in self.held) <= SHARE

    def acknowledge(self, count: int) -> None:
        done = [self.held.popleft() for _ in range(min(count, len(self.held)))]
        self.durable += done
        self.delivery.grant(sum(each.cost_bytes for each in done))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 600)),
            st.tuples(st.just("receive"), st.integers(1, 3)),
            st.tuples(st.just("acknowledge"), st.integers(1, 3)),
            st.tuples(st.just("die"), st.integers(0, 3)),  # so many are durable whose credit never came back
        ),
        max_size=80,
    )
)
def test_whoever_dies_when_everything_becomes_durable_in_order(steps: list[tuple[str, int]]) -> None:
    delivery = Delivery()
    durable: list[Outgoing] = []
    receiver = Receiver(delivery, durable)
    put: list[Outgoing] = []
    unheard = 0
    for step, number in [*steps, ("die", 0)]:
        match step:
            case "put":
                put.append(message(len(put), number // 2 * 2))
                delivery.put(put[-1])
            case "receive":
                for _ in range(number):
                    receiver.receive()
            case "acknowledge":
                receiver.acknowledge(number)
            case "die":
                durable += list(receiver.held)[:number]
                unheard += len(list(receiver.held)[:number])
                delivery.start_over()
                receiver = Receiver(delivery, durable)
    while not delivery.is_empty:
        receiver.receive()
        receiver.acknowledge(1)
    first_time = list(dict.fromkeys(map(id, durable)))
    assert first_time == [id(each) for each in put], "in order, none left out"
    assert len(durable) == len(put) + unheard, "and none twice, but those whose credit was lost"
