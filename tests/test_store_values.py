"""Ids and words: the pure part of the store."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.qdrant_text import document_vector, query_vector
from stages.store import SparseVector, StoredPoint, point_id


def test_ids_are_the_same_for_ever() -> None:
    assert point_id("0" * 64, "frames", "clip@1", 0) == "f24380ff-7572-5211-bdf3-ece7d51cb853"
    assert point_id("0" * 64, "speech", "whisper@2", "12.5-14.0") == "01f88269-8979-5ac8-b45f-01719a5bd8ab"
    assert point_id("v", "frames", "m", 7) == point_id("v", "frames", "m", "7")


@given(st.lists(st.text("ab-_", max_size=3), min_size=4, max_size=4), st.lists(st.text("ab-_"), min_size=4, max_size=4))
def test_ids_differ_when_anything_differs(one: list[str], other: list[str]) -> None:
    assert (point_id(*one) == point_id(*other)) == (one == other)
    assert uuid.UUID(point_id(*one)).version == 5


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("ZANZIBAR", "to Zanzibar."),
        ("cafe", "im Café"),
        ("北京", "我明天去北京"),
        ("мир", "Привет, мир!"),
        ("the", "the who"),
    ],
)
def test_words_of_any_language_meet(query: str, text: str) -> None:
    asked = query_vector(query)
    held = document_vector(StoredPoint("", "speech", {"text": text}))
    assert asked is not None
    assert held is not None
    assert set(asked.indices) <= set(held.indices)


def test_no_words_make_no_sparse_vector() -> None:
    assert query_vector(" … ") is None
    assert document_vector(StoredPoint("", "speech", {"text": ""})) is None
    assert document_vector(StoredPoint("", "speech", {})) is None
    given_one = SparseVector([3], [1.0])
    assert document_vector(StoredPoint("", "speech", {"text": "fox"}, sparse=given_one)) == given_one
