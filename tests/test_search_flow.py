"""A search that the daemon answers, step by step, and whatever may come between the steps."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.search_flow import Outgoing, Searches
from stages.errors import SluiceError
from transport.messages import EmbedQuery, FoundPoint, QueryVectors, SearchStore, StoreHits
from transport.requests import SearchRequest

LABELS = {"image": "clip@1", "text": "minilm@2", "speech": "whisper@3"}
VECTORS = {"image": (1.0, 0.0), "text": (0.0, 1.0, 0.0)}


def found(score: float, name: str, **facts: Any) -> FoundPoint:
    payload = {"video_id": name, "path": f"{name}.mp4", "start_seconds": 1.0, "end_seconds": 2.0, **facts}
    return FoundPoint(score=score, id=name, payload=payload)


def vectors_for(question: EmbedQuery) -> QueryVectors:
    return QueryVectors(request=question.request, vectors={role: VECTORS[role] for role in question.roles})


def asked(request: SearchRequest, searches: Searches | None = None) -> tuple[Searches, EmbedQuery]:
    """A search as far as its question to the engine."""
    searches = searches or Searches()
    searches.start(b"client", request, LABELS, 0.0)
    (question,) = searches.take().to_engine
    return searches, question


def looked_up(request: SearchRequest) -> tuple[Searches, list[SearchStore]]:
    """A search as far as its lookups in the store."""
    searches, question = asked(request)
    searches.heard(vectors_for(question))
    return searches, searches.take().to_consumer


def error_in(outgoing: Outgoing) -> SluiceError:
    ((_, result),) = outgoing.answers
    assert isinstance(result, SluiceError)
    return result


def test_a_search_of_everything_asks_both_models_and_shows_frames_first() -> None:
    searches, question = asked(SearchRequest(query="a ball", limit=3, speaker="Anna"))
    assert (question.text, question.roles) == ("a ball", ("image", "text"))
    searches.heard(vectors_for(question))
    frames, speech = searches.take().to_consumer
    assert (frames.collection, frames.vector_name, frames.vector) == ("frames", "image", (1.0, 0.0))
    assert (frames.model, frames.limit, frames.speaker) == ("clip@1", 3, "Anna")
    assert (speech.collection, speech.vector_name, speech.model) == ("speech", "text", "minilm@2")
    searches.heard(StoreHits(request=speech.request, hits=(found(0.9, "b", text="Ein Ball", source="asr"),)))
    assert searches.take() == Outgoing()
    searches.heard(StoreHits(request=frames.request, hits=(found(0.12345678, "a"),)))
    ((client, body),) = searches.take().answers
    assert client == b"client"
    assert body == {
        "query": "a ball",
        "hits": [
            {
                "score": 0.123457, "kind": "frame", "video_id": "a", "path": "a.mp4", "start_seconds": 1.0,
                "end_seconds": 2.0, "text": None, "source": None, "speaker": None,
            },
            {
                "score": 0.9, "kind": "speech", "video_id": "b", "path": "b.mp4", "start_seconds": 1.0,
                "end_seconds": 2.0, "text": "Ein Ball", "source": "asr", "speaker": None,
            },
        ],
    }  # fmt: skip


@pytest.mark.parametrize(("within", "role"), [("frames", "image"), ("speech", "text")])
def test_a_search_of_one_kind_asks_one_model(within: Any, role: str) -> None:
    searches, question = asked(SearchRequest(query="x", within=within))
    assert question.roles == (role,)
    searches.heard(vectors_for(question))
    (lookup,) = searches.take().to_consumer
    searches.heard(StoreHits(request=lookup.request, hits=()))
    assert searches.take().answers == [(b"client", {"query": "x", "hits": []})]


def test_words_are_matched_in_speech_alone() -> None:
    _, lookups = looked_up(SearchRequest(query="a ball", hybrid=True))
    assert [lookup.words for lookup in lookups] == [None, "a ball"]
    _, lookups = looked_up(SearchRequest(query="a ball"))
    assert [lookup.words for lookup in lookups] == [None, None]


def test_a_model_that_is_off_is_left_out_of_everything_and_named_when_asked_for() -> None:
    searches = Searches()
    searches.start(b"1", SearchRequest(query="x"), {"text": "minilm@2"}, 0.0)
    searches.start(b"2", SearchRequest(query="x", within="frames"), {"text": "minilm@2"}, 0.0)
    searches.start(b"3", SearchRequest(query="x"), {"voice": "ecapa@1"}, 0.0)
    outgoing = searches.take()
    assert [question.roles for question in outgoing.to_engine] == [("text",)]
    (_, error), (_, nothing) = outgoing.answers
    assert isinstance(error, ConfigError)
    assert (error.code, "models.image" in error.message) == ("model-off", True)
    assert nothing == {"query": "x", "hits": []}


def test_while_models_are_loading_the_answer_is_to_come_again() -> None:
    searches = Searches()
    searches.start(b"1", SearchRequest(query="x"), None, 0.0)
    assert error_in(searches.take()).code == "daemon-starting"


def test_errors_of_engine_and_store_reach_the_client_with_their_codes() -> None:
    searches, question = asked(SearchRequest(query="x"))
    searches.heard(QueryVectors(request=question.request, vectors={}, error="out-of-memory: no room: for a query"))
    error = error_in(searches.take())
    assert (error.code, error.message) == ("out-of-memory", "no room: for a query")
    searches, (frames, speech) = looked_up(SearchRequest(query="x"))
    searches.heard(StoreHits(request=speech.request, hits=(), error="store-unreachable: no answer"))
    searches.heard(StoreHits(request=frames.request, hits=()))
    assert error_in(searches.take()).code == "store-unreachable"


def test_an_engine_that_makes_no_vector_is_an_error() -> None:
    searches, question = asked(SearchRequest(query="x"))
    searches.heard(QueryVectors(request=question.request, vectors={"image": (1.0,)}))
    assert error_in(searches.take()).code == "no-vector"


def test_who_does_not_answer_is_named_after_a_while() -> None:
    searches, question = asked(SearchRequest(query="x"), Searches(timeout_seconds=30.0))
    searches.expire(29.9)
    assert searches.take() == Outgoing()
    searches.expire(30.0)
    error = error_in(searches.take())
    assert (error.code, "the engine did not answer within 30 s" in error.message) == ("search-timeout", True)
    searches.heard(vectors_for(question))
    assert searches.take() == Outgoing(), "too late"
    searches, _ = looked_up(SearchRequest(query="x"))
    searches.expire(30.0)
    assert "the consumer did not answer" in error_in(searches.take()).message


def test_a_successor_is_asked_again_what_is_open() -> None:
    searches, question = asked(SearchRequest(query="x"))
    searches.consumer_replaced()
    assert searches.take() == Outgoing()
    searches.engine_replaced()
    assert searches.take().to_engine == [question]
    searches.heard(vectors_for(question))
    frames, speech = searches.take().to_consumer
    searches.engine_replaced()
    assert searches.take() == Outgoing()
    searches.heard(StoreHits(request=frames.request, hits=()))
    searches.consumer_replaced()
    assert searches.take().to_consumer == [speech]


Step = tuple[int, str]  # which search, and what happens to it


@given(
    st.lists(st.sampled_from(["frames", "speech", "all"]), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["engine", "store", "fail", "twice"])), max_size=30),
)
def test_every_search_is_answered_exactly_once_whatever_comes_in_any_order(
    within: list[Any], steps: list[Step]
) -> None:
    searches = Searches(timeout_seconds=30.0)
    for number, kind in enumerate(within):
        searches.start(str(number).encode(), SearchRequest(query="x", within=kind), LABELS, 0.0)
    outgoing = searches.take()
    questions, lookups, answers = outgoing.to_engine, outgoing.to_consumer, outgoing.answers
    for place, what in steps:
        match what:
            case "engine":
                searches.heard(vectors_for(questions[place % len(questions)]))
            case "store" if lookups:
                searches.heard(StoreHits(request=lookups[place % len(lookups)].request, hits=(found(0.5, "a"),)))
            case "fail":
                request = questions[place % len(questions)].request
                searches.heard(QueryVectors(request=request, vectors={}, error="x: y"))
            case "twice" if lookups:
                searches.heard(StoreHits(request=lookups[0].request, hits=()))
        outgoing = searches.take()
        lookups += outgoing.to_consumer
        answers += outgoing.answers
    searches.expire(30.0)
    answers += searches.take().answers
    assert sorted(client for client, _ in answers) == sorted(str(number).encode() for number in range(len(within)))
