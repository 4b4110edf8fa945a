"""The outbox towards the store: everything is told, in order, until it is answered; again to another consumer."""

from pathlib import Path
from typing import Any

import pytest

from engine.ledger import Ledger
from engine.operations import IN_FLIGHT, Operations
from transport.messages import Label, Message, OperationDone, RecordVideo, Remove, Repath


class Child:
    """A consumer, as far as operations know one."""

    def __init__(self, name: str) -> None:
        self.identity = name.encode()
        self.ready = True


class Fleet:
    """Takes messages for its consumer."""

    def __init__(self) -> None:
        self.consumer = Child("first")
        self.sent: list[Message] = []
        self.hears = True
        self.is_settled = True

    def send(self, child: Child, message: Message) -> bool:
        if self.hears:
            self.sent.append(message)
        return self.hears

    def take(self) -> list[Any]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def operations(tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path / "ledger.sqlite", "f")
    yield Operations(ledger)
    ledger.close()


def send(operations: Operations, fleet: Fleet) -> list[Any]:
    operations.send(fleet)  # type: ignore[arg-type]
    return fleet.take()


def test_each_kind_is_told_once_in_order_and_is_over_when_it_is_answered(operations: Operations) -> None:
    fleet = Fleet()
    operations.repath("v", "/b")
    operations.record("v", "f", "/b", "{}")
    operations.remove("v")
    operations.label("w", "voice@1")
    assert operations.has_work()
    sent = send(operations, fleet)
    assert [type(message) for message in sent] == [Repath, RecordVideo, Remove, Label]
    assert (sent[3].video_id, sent[3].model) == ("w", "voice@1")
    assert (sent[0].shown_path, sent[1].fingerprint, sent[1].report) == ("/b", "f", "{}")
    assert send(operations, fleet) == []
    for message in sent:
        assert operations.has_work()
        operations.done(OperationDone(request=message.request))
    assert not operations.has_work()


def test_few_are_under_way_at_a_time(operations: Operations) -> None:
    fleet = Fleet()
    for number in range(3 * IN_FLIGHT):
        operations.remove(f"v{number}")
    told: list[Any] = []
    while sent := send(operations, fleet):
        assert len(sent) <= IN_FLIGHT
        told += sent
        for message in sent:
            operations.done(OperationDone(request=message.request))
    assert [message.video_id for message in told] == [f"v{number}" for number in range(3 * IN_FLIGHT)]


def test_another_consumer_is_told_what_the_last_one_did_not_answer(operations: Operations) -> None:
    fleet = Fleet()
    operations.remove("v")
    (first,) = send(operations, fleet)
    fleet.consumer = Child("second")
    assert send(operations, fleet) == [first]


def test_a_consumer_that_is_not_ready_or_cannot_hear_is_told_later(operations: Operations) -> None:
    fleet = Fleet()
    operations.remove("v")
    fleet.consumer.ready = False
    assert send(operations, fleet) == []
    fleet.consumer.ready, fleet.hears = True, False
    assert send(operations, fleet) == []
    fleet.hears = True
    assert len(send(operations, fleet)) == 1


def test_nothing_is_told_while_points_may_come_that_were_made_before(operations: Operations) -> None:
    """Points of a video that come behind its label take the label away; behind its removal they bring it back."""
    fleet = Fleet()
    operations.label("v", "voice@1")
    fleet.is_settled = False
    assert send(operations, fleet) == []
    assert operations.has_work()
    fleet.is_settled = True
    assert [type(message) for message in send(operations, fleet)] == [Label]


def test_what_the_store_refuses_is_kept_and_told_no_more(operations: Operations) -> None:
    fleet = Fleet()
    operations.remove("v")
    (message,) = send(operations, fleet)
    operations.done(OperationDone(request=message.request, error="store-refused: no"))
    assert not operations.has_work()
    assert not operations.is_removing("v")


def test_a_removal_is_known_until_it_is_done(operations: Operations) -> None:
    fleet = Fleet()
    assert not operations.is_removing("v")
    operations.remove("v")
    assert operations.is_removing("v")
    (message,) = send(operations, fleet)
    operations.done(OperationDone(request=message.request))
    assert not operations.is_removing("v")
