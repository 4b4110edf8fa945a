"""The consumer's labelling: a little in each turn, commands first, and nothing is left half done."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.labelling import Labelling
from engine.store_work import StoreAccess
from stages.base import Vector
from stages.diarization import Diarizer
from stages.errors import StoreError, StoreUnavailable
from stages.options import VoiceOptions
from stages.qdrant_local import LocalStore
from stages.store import (
    SPEAKERS,
    SPEECH,
    VOICES,
    Filter,
    StoredPoint,
    point_id,
    speakers_spec,
    speech_spec,
    voices_spec,
)
from tests.qdrant_loopback import fast_disk
from transport.messages import Label, Message, OperationDone, SpeakersDone, SpeakersTask, VoiceSample

MODEL = "ecapa@1"
DIMENSION = 32
WINDOWS = 40
SPECS = [voices_spec(DIMENSION), speech_spec(4), speakers_spec(DIMENSION)]
RNG = np.random.default_rng(7)
ADA, BEN = np.eye(DIMENSION, dtype=np.float32)[:2]


def voice(person: Vector) -> Vector:
    row: Vector = person + RNG.normal(0.0, 0.05, DIMENSION).astype(np.float32)
    row /= np.linalg.norm(row)
    return row


def voices(video: str, people: list[Vector], first: int = 0) -> list[StoredPoint]:
    """Windows of 3 s, of one after the other, with a second of silence between."""
    points = []
    for index, person in enumerate(people, start=first):
        start = 4.0 * index
        payload = {"video_id": video, "path": "/f", "model": MODEL, "start_seconds": start, "end_seconds": start + 3.0}
        points.append(StoredPoint(point_id(video, "voice", MODEL, index), VOICES, payload, {"voice": voice(person)}))
    return points


def talk(video: str) -> list[StoredPoint]:
    """Ada for half of the time, then Ben."""
    return voices(video, [ADA] * (WINDOWS // 2) + [BEN] * (WINDOWS // 2))


def sentence(video: str, start: float) -> StoredPoint:
    words = [{"start_seconds": start, "end_seconds": start + 2.0, "text": "hello"}]
    payload: dict[str, Any] = {"video_id": video, "path": "/f", "model": "text@1", "text": "hello", "source": "asr"}
    payload |= {"start_seconds": start, "end_seconds": start + 2.0, "words": words}
    return StoredPoint(point_id(video, "text", "t", str(start)), SPEECH, payload, {"text": np.ones(4, np.float32) / 2})


class Rig:
    """A labelling over an embedded store, and what it said."""

    def __init__(self, directory: str) -> None:
        self.now = 0.0
        self.store = LocalStore(Path(directory) / "store", "t")
        self.said: list[Message] = []
        self.access = StoreAccess(lambda: self.store, 1e9, clock=lambda: self.now)
        self.access.prepare(SPECS)
        assert self.access.attempt(lambda store: None)
        self.labelling = Labelling(self.access, VoiceOptions(), self.said.append, clock=lambda: self.now)

    def put(self, *points: StoredPoint) -> None:
        for collection in (VOICES, SPEECH):
            those = [point for point in points if point.collection == collection]
            if those:
                self.store.upsert(collection, those)

    def until(self, condition: Callable[[], bool]) -> None:
        """Steps, as in the consumer's loop."""
        deadline = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline, "what was waited for never came"
            self.now += 1.0
            self.labelling.step()
            time.sleep(0.001)

    def answers(self, count: int) -> list[Any]:
        self.until(lambda: len(self.said) >= count)
        return self.said

    def speakers(self, collection: str, video: str) -> list[str | None]:
        """In the order of time."""
        found = self.store.scroll(collection, False, Filter(video_id=video))
        payloads = sorted((point.payload for point in found), key=lambda each: each["start_seconds"])
        return [payload.get("speaker") for payload in payloads]

    def enroll(self, request: int, name: str, person: Vector) -> None:
        rows = tuple(tuple(voice(person).tolist()) for _ in range(8))
        sample = VoiceSample(content=name, shown_path=f"{name}.wav", seconds=24.0, vectors=rows)
        self.labelling.add(
            SpeakersTask(request=request, action="enroll", model=MODEL, name=name, samples=(sample,), now=1.0)
        )


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir=fast_disk()) as directory:
        rig = Rig(directory)
        yield rig
        rig.store.close()


def label(request: int, video: str) -> Label:
    return Label(request=request, video_id=video, model=MODEL)


NAMES = ["speaker 1 of v"] * (WINDOWS // 2) + ["speaker 2 of v"] * (WINDOWS // 2)


def test_a_video_gets_its_speakers_and_its_words_theirs(rig: Rig) -> None:
    rig.put(*talk("v"), sentence("v", 4.2), sentence("v", 4.0 * (WINDOWS - 1)))
    rig.labelling.add(label(5, "v"))
    assert rig.answers(1) == [OperationDone(request=5)]
    assert rig.speakers(VOICES, "v") == NAMES
    assert rig.speakers(SPEECH, "v") == ["speaker 1 of v", "speaker 2 of v"]
    assert rig.store.count(SPEAKERS, Filter(kind="cluster", video_id="v")) == 2
    assert not rig.labelling.can_go_on


def test_labelling_again_changes_nothing(rig: Rig) -> None:
    rig.put(*talk("v"), sentence("v", 4.2))

    def everything() -> list[Any]:
        return [
            (each.id, each.payload) for name in (VOICES, SPEECH, SPEAKERS) for each in rig.store.scroll(name, False)
        ]

    rig.labelling.add(label(1, "v"))
    rig.answers(1)
    first = everything()
    rig.labelling.add(label(2, "v"))
    rig.answers(2)
    assert everything() == first


def test_a_video_without_voices_is_done_and_loses_what_it_had(rig: Rig) -> None:
    rig.put(*talk("v"), sentence("v", 4.2))
    rig.labelling.add(label(1, "v"))
    rig.answers(1)
    rig.store.delete(VOICES, Filter(video_id="v"))
    rig.labelling.add(label(2, "v"))
    assert rig.answers(2)[1] == OperationDone(request=2)
    assert rig.store.count(SPEAKERS) == 0
    assert rig.speakers(SPEECH, "v") == [None]


def test_a_command_goes_before_the_videos_that_wait(rig: Rig) -> None:
    for number in range(3):
        rig.put(*talk(f"v{number}"))
        rig.labelling.add(label(number, f"v{number}"))
    rig.enroll(9, "Ada", ADA)
    answers = rig.answers(4)
    assert isinstance(answers[0], SpeakersDone)
    assert (answers[0].request, answers[0].error) == (9, None)
    assert [each.request for each in answers[1:]] == [0, 1, 2]
    assert rig.speakers(VOICES, "v0")[0] == "Ada"


def test_who_is_enrolled_while_a_video_is_being_labelled_gets_the_name_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put(*talk("v"))
    rig.labelling.add(label(1, "v"))
    rig.until(lambda: rig.labelling._work is not None and rig.labelling._work.writing is not None)
    rig.enroll(2, "Ben", BEN)
    answers = rig.answers(2)
    assert [type(each) for each in answers] == [OperationDone, SpeakersDone]
    assert set(rig.speakers(VOICES, "v")[WINDOWS // 2 :]) == {"Ben"}


def test_a_clip_that_is_refused_is_told_and_the_next_command_works(rig: Rig) -> None:
    rig.labelling.add(SpeakersTask(request=1, action="show", model=MODEL, name="Eve"))
    rig.enroll(2, "Ada", ADA)
    refused, enrolled = rig.answers(2)
    assert refused.body is None
    assert "Eve" in refused.error
    assert enrolled.error is None


def test_points_that_were_removed_are_labelled_by_nobody(rig: Rig) -> None:
    rig.put(*talk("v"), *talk("w"))
    for request, video in enumerate(("v", "w", "v")):
        rig.labelling.add(label(request, video))
    rig.until(lambda: rig.labelling._work is not None and rig.labelling._work.thread is not None)
    for collection in (VOICES, SPEAKERS):
        rig.store.delete(collection, Filter(video_id="v"))
    rig.labelling.forget("v")
    assert sorted(each.request for each in rig.answers(3)) == [0, 1, 2]  # each is done: there is nothing left of it
    assert rig.store.count(SPEAKERS, Filter(video_id="v")) == 0
    assert rig.store.count(SPEAKERS, Filter(video_id="w")) == 2


def test_voices_that_come_meanwhile_are_labelled_too(rig: Rig) -> None:
    rig.put(*talk("v"))
    rig.labelling.add(label(1, "v"))
    rig.until(lambda: rig.labelling._work is not None and rig.labelling._work.thread is not None)
    rig.put(*voices("v", [BEN] * 4, first=WINDOWS))
    assert rig.answers(1) == [OperationDone(request=1)]
    assert rig.speakers(VOICES, "v") == [*NAMES, *["speaker 2 of v"] * 4]


def test_a_store_that_goes_away_makes_a_labelling_begin_anew_and_a_command_fail(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put(*talk("v"))
    away = [True]
    really = rig.store.set_payloads

    def set_payloads(collection: str, payloads: Any) -> None:
        if away[0]:
            raise StoreUnavailable("store-full", "no room")
        really(collection, payloads)

    monkeypatch.setattr(rig.store, "set_payloads", set_payloads)
    rig.labelling.add(label(1, "v"))
    rig.until(lambda: rig.access.away is not None)
    away[0] = False
    assert rig.answers(1) == [OperationDone(request=1)]
    assert rig.speakers(VOICES, "v") == NAMES
    away[0] = True
    rig.labelling.add(SpeakersTask(request=2, action="list", model=MODEL))
    monkeypatch.setattr(rig.store, "scroll", lambda *arguments, **options: set_payloads(VOICES, {}))
    answer = rig.answers(2)[1]
    assert answer.body is None
    assert "no room" in answer.error


def test_a_store_that_refuses_for_good_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put(*talk("v"))

    def refuse(collection: str, points: Any) -> None:
        raise StoreError("store-refused", "no")

    monkeypatch.setattr(rig.store, "upsert", refuse)
    rig.labelling.add(label(1, "v"))
    assert rig.answers(1) == [OperationDone(request=1, error="store-refused: no")]


def test_a_fault_in_the_clustering_is_not_hidden(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Diarizer, "finish", fail)
    rig.put(*talk("v"))
    rig.labelling.add(label(1, "v"))
    with pytest.raises(ZeroDivisionError):
        rig.answers(1)
