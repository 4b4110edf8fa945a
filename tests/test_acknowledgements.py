"""Credit goes back in the order in which messages came, whatever order they are settled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.acknowledgements import Acknowledgements

SENDERS = (b"engine-0.1", b"engine-0.2")
COSTS = st.lists(st.tuples(st.sampled_from(SENDERS), st.integers(0, 1000)), max_size=30)


@given(COSTS, st.randoms(use_true_random=False))
def test_each_sender_gets_its_bytes_back_in_its_own_order(messages: list[tuple[bytes, int]], random: object) -> None:
    """Releases are a prefix of what came, and never hold a message that is not settled."""
    acks = Acknowledgements()
    tickets = [acks.receive(*message) for message in messages]
    came = {sender: [ticket for ticket in tickets if messages[ticket][0] == sender] for sender in SENDERS}
    returned: dict[bytes, list[int]] = {sender: [] for sender in SENDERS}
    order = tickets.copy()
    random.shuffle(order)  # type: ignore[attr-defined]
    settled: set[int] = set()
    for ticket in order:
        acks.settle(ticket)
        settled.add(ticket)
        for sender, cost_bytes in acks.take_released():
            returned[sender].append(cost_bytes)
        for sender in SENDERS:
            done = came[sender][: len(returned[sender])]
            assert [messages[each][1] for each in done] == returned[sender]
            assert set(done) <= settled
            following = came[sender][len(done) : len(done) + 1]
            assert not set(following) & settled, "nothing that may go back is held back"
        left = [each for sender in SENDERS for each in came[sender][len(returned[sender]) :]]
        assert acks.oldest == min(left, default=acks.next_ticket)
    assert all(len(returned[sender]) == len(came[sender]) for sender in SENDERS)


def test_what_is_released_is_given_once() -> None:
    acks = Acknowledgements()
    acks.settle(acks.receive(b"engine", 7))
    assert acks.take_released() == [(b"engine", 7)]
    assert acks.take_released() == []


def test_one_sender_does_not_hold_up_another() -> None:
    acks = Acknowledgements()
    held = acks.receive(b"dead", 5)
    acks.settle(acks.receive(b"engine", 7))
    assert acks.take_released() == [(b"engine", 7)]
    assert acks.oldest == held


def test_a_ticket_is_settled_once() -> None:
    acks = Acknowledgements()
    ticket = acks.receive(b"engine", 1)
    acks.settle(ticket)
    with pytest.raises(KeyError):
        acks.settle(ticket)
