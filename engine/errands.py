"""What commands ask of the store through the daemon: pages of points, and the enrolled speakers. Pure.

PointsRequest, SpeakersRequest ─► FetchPoints, SpeakersTask ─► consumer ─► FetchedPoints, SpeakersDone ─► answer
"""

from dataclasses import dataclass
from typing import Any

from engine.search_flow import error_of
from stages.errors import SluiceError
from transport.messages import FetchedPoints, FetchPoints, SpeakersDone, SpeakersTask
from transport.requests import PointsRequest, SpeakersRequest

TIMEOUT_SECONDS = 300.0  # to give all voices of a large archive their names takes a while


@dataclass(frozen=True, slots=True)
class _Errand:
    client: bytes
    message: FetchPoints | SpeakersTask
    until_seconds: float


class Errands:
    """All that the consumer was asked and has not answered. Late answers are ignored."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._next_id = 1
        self._errands: dict[int, _Errand] = {}
        self._to_consumer: list[FetchPoints | SpeakersTask] = []
        self._answers: list[tuple[bytes, dict[str, Any] | SluiceError]] = []

    def start(self, client: bytes, request: PointsRequest | SpeakersRequest, now_seconds: float) -> None:
        """Have the consumer asked."""
        message = message_of(request, self._next_id)
        self._next_id += 1
        self._errands[message.request] = _Errand(client, message, now_seconds + self._timeout_seconds)
        self._to_consumer.append(message)

    def heard(self, message: FetchedPoints | SpeakersDone) -> None:
        """The consumer answers."""
        errand = self._errands.pop(message.request, None)
        if errand is not None:
            error = message.error
            self._answers.append((errand.client, error_of(error) if error is not None else body_of(message)))

    def expire(self, now_seconds: float) -> None:
        """Give up what has waited too long. Call it now and then."""
        for number in [number for number, each in self._errands.items() if each.until_seconds <= now_seconds]:
            message = f"the consumer did not answer within {self._timeout_seconds:g} s; `status` may tell why"
            self._answers.append((self._errands.pop(number).client, SluiceError("store-silent", message)))

    def consumer_replaced(self) -> None:
        """Another consumer is ready: ask it what the last one did not answer. Each of these may be done twice."""
        self._to_consumer = [errand.message for errand in self._errands.values()]

    def take(self) -> tuple[list[FetchPoints | SpeakersTask], list[tuple[bytes, dict[str, Any] | SluiceError]]]:
        """What is to be sent to the consumer, and the answers that are ready, since the last call."""
        taken = self._to_consumer, self._answers
        self._to_consumer, self._answers = [], []
        return taken


def message_of(request: PointsRequest | SpeakersRequest, number: int) -> FetchPoints | SpeakersTask:
    """A command's request as the consumer takes it."""
    if isinstance(request, PointsRequest):
        return FetchPoints(
            request=number,
            collection=request.collection,
            video_id=request.video_id,
            start=request.start,
            limit=request.limit,
        )
    return SpeakersTask(
        request=number,
        action=request.action,
        model=request.model,
        name=request.name,
        into=request.into,
        samples=request.samples,
        now=request.now,
    )


def body_of(message: FetchedPoints | SpeakersDone) -> dict[str, Any]:
    """What the command gets."""
    if isinstance(message, FetchedPoints):
        points = [{"id": point.id, "payload": point.payload} for point in message.points]
        return {"points": points, "following": message.following}
    return message.body or {}
