"""Byte credits: what is out never exceeds the share, and nothing waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.credit import CreditAccount, CreditBook

SHARE = 1000


@given(st.lists(st.integers(1, 400), max_size=80), st.randoms(use_true_random=False))
def test_bytes_out_never_exceed_the_share_and_everything_gets_through(costs: list[int], random: object) -> None:
    book, account = CreditBook(SHARE), CreditAccount()
    book.join(b"a")
    account.grant(book.take_owed()[b"a"])
    held: list[int] = []
    for cost in costs:
        while not account.can_send(cost):
            book.release(b"a", held.pop(random.randrange(len(held))))  # type: ignore[attr-defined]
            account.grant(book.take_owed()[b"a"])
        account.spend(cost)
        book.receive(b"a", cost)
        held.append(cost)
        assert book.held_bytes == sum(held) <= SHARE
        assert account.available_bytes == SHARE - sum(held)


def test_a_message_larger_than_the_share_goes_alone() -> None:
    account = CreditAccount()
    account.grant(SHARE)
    assert account.can_send(5 * SHARE)
    account.spend(5 * SHARE)
    assert not account.can_send(1)
    account.grant(5 * SHARE)
    account.spend(1)
    assert not account.can_send(5 * SHARE)


def test_nothing_goes_before_the_first_grant() -> None:
    assert not CreditAccount().can_send(0)


def test_joining_twice_gives_one_share() -> None:
    book = CreditBook(SHARE)
    book.join(b"a")
    assert book.take_owed() == {b"a": SHARE}
    book.join(b"a")
    assert book.take_owed() == {}


def test_a_sender_that_left_is_owed_nothing_for_what_it_left_behind() -> None:
    book = CreditBook(SHARE)
    book.join(b"a")
    book.take_owed()
    book.receive(b"a", 10)
    book.leave(b"a")
    book.release(b"a", 10)
    assert book.take_owed() == {}
    assert book.held_bytes == 0


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        CreditBook(0)
