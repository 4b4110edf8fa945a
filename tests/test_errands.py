"""What commands ask of the store through the daemon: who is asked what, and who gets which answer."""

from typing import Any

import pytest

from engine.errands import Errands
from stages.errors import SluiceError
from transport.messages import FetchedPoints, FetchPoints, FoundPoint, SpeakersDone, SpeakersTask, VoiceSample
from transport.requests import PointsRequest, SpeakersRequest

PAGE = PointsRequest(collection="speech", video_id="v", start="b", limit=7)


def asked(errands: Errands) -> Any:
    (message,), answers = errands.take()
    assert answers == []
    return message


def test_a_page_of_points_is_asked_for_and_answered_as_the_command_wants_it() -> None:
    errands = Errands()
    errands.start(b"me", PAGE, 0.0)
    message = asked(errands)
    assert message == FetchPoints(request=message.request, collection="speech", video_id="v", start="b", limit=7)
    point = FoundPoint(score=0.0, id="b", payload={"text": "hello"})
    errands.heard(FetchedPoints(request=message.request, points=(point,), following="c"))
    body = {"points": [{"id": "b", "payload": {"text": "hello"}}], "following": "c"}
    assert errands.take() == ([], [(b"me", body)])


def test_all_that_an_enrolment_says_reaches_the_consumer() -> None:
    sample = VoiceSample(content="c", shown_path="clip.wav", seconds=9.0, vectors=((1.0, 0.0),))
    request = SpeakersRequest(action="enroll", model="m", name="Ada", into="x", samples=(sample,), now=5.0)
    errands = Errands()
    errands.start(b"me", request, 0.0)
    message = asked(errands)
    expected = SpeakersTask(
        request=message.request, action="enroll", model="m", name="Ada", into="x", samples=(sample,), now=5.0
    )
    assert message == expected
    errands.heard(SpeakersDone(request=message.request, body={"name": "Ada"}))
    assert errands.take() == ([], [(b"me", {"name": "Ada"})])


def test_each_command_gets_its_own_answer_once() -> None:
    errands = Errands()
    errands.start(b"one", PAGE, 0.0)
    errands.start(b"two", SpeakersRequest(action="list", model="m"), 0.0)
    (first, second), _ = errands.take()
    errands.heard(SpeakersDone(request=second.request, body=None, error="no-speaker: there is no Eve"))
    errands.heard(FetchedPoints(request=first.request, points=()))
    errands.heard(FetchedPoints(request=first.request, points=()))
    errands.heard(FetchedPoints(request=99, points=()))
    _, answers = errands.take()
    assert [client for client, _ in answers] == [b"two", b"one"]
    error = answers[0][1]
    assert isinstance(error, SluiceError)
    assert (error.code, error.message) == ("no-speaker", "there is no Eve")


def test_a_new_consumer_is_asked_what_the_last_one_did_not_answer() -> None:
    errands = Errands()
    errands.start(b"one", PAGE, 0.0)
    errands.start(b"two", PAGE, 0.0)
    (first, second), _ = errands.take()
    errands.heard(FetchedPoints(request=first.request, points=()))
    errands.consumer_replaced()
    assert errands.take()[0] == [second]


@pytest.mark.parametrize(("now_seconds", "given_up"), [(9.9, False), (10.0, True)])
def test_who_waits_for_too_long_is_told(now_seconds: float, given_up: bool) -> None:
    errands = Errands(timeout_seconds=10.0)
    errands.start(b"me", PAGE, 0.0)
    request = asked(errands).request
    errands.expire(now_seconds)
    _, answers = errands.take()
    assert bool(answers) is given_up
    errands.heard(FetchedPoints(request=request, points=()))
    assert bool(errands.take()[1]) is not given_up
