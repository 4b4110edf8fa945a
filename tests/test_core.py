"""The engine in-process, without sockets: messages in, points and results out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineOptions
from engine.jobs import ItemId
from engine.runner import Failure
from stages.base import Pcm
from stages.hearing import Votes
from tests.fakes import DIMENSION, FakeModel, fake_models
from tests.runners import engine_for, runner_for
from transport.codec import as_array, encode, spec_of
from transport.messages import (
    AudioResume,
    Caption,
    Checkpoint,
    Frame,
    Gap,
    Message,
    Points,
    Speech,
    TaskEnd,
    TaskKey,
    TaskResult,
    TaskStart,
    ToConsumer,
)

KEY = TaskKey(1, 0)


class Harness:
    """An engine, and what a decoder and a consumer would do with it."""

    def __init__(
        self,
        options: EngineOptions | None = None,
        suspects: Collection[ItemId] = (),
        condemned: Mapping[ItemId, Failure] | None = None,
        speech_model: FakeModel | None = None,
        **faults: Any,
    ) -> None:
        models = fake_models(**faults)
        if speech_model is not None:
            models["speech"] = speech_model
        self.models: dict[str, FakeModel] = models
        self.engine = engine_for(runner_for(models), options, suspects, condemned=condemned)
        self.sent_bytes = 0
        self.now = 0.0
        self.items: dict[TaskKey, int] = {}
        self.frame_shape = (2, 2, 3)
        self.log: list[Points | TaskResult] = []  # what the consumer would have received, in order

    def send(self, message: Message, array: Any = None) -> None:
        payload = memoryview(array.tobytes()) if array is not None else None
        cost = len(encode(message)) + (len(payload) if payload is not None else 0)
        self.sent_bytes += cost
        self.engine.receive(b"decoder", message, payload, cost, self.now)

    def start(self, key: TaskKey = KEY, section: int = 0, languages: Votes = ()) -> None:
        self.items[key] = 0
        video_id = f"video-{key.task_id}"
        self.send(TaskStart(key=key, video_id=video_id, shown_path="a.mp4", section=section, languages=languages))

    def frame(self, at: float, key: TaskKey = KEY) -> None:
        pixels = np.full(self.frame_shape, int(at) % 256, dtype=np.uint8)
        self.items[key] += 1
        self.send(Frame(key=key, start_seconds=at, end_seconds=at + 1, array=spec_of(pixels)), pixels)

    def speech(
        self,
        start: float,
        end: float,
        speech: tuple[tuple[float, float], ...],
        captioned: float = 0.0,
        key: TaskKey = KEY,
        pcm: Pcm | None = None,
    ) -> None:
        pcm = np.zeros(round((end - start) * 16_000), dtype=np.int16) if pcm is None else pcm
        self.items[key] += 1
        message = Speech(
            key=key,
            start_seconds=start,
            end_seconds=end,
            speech=speech,
            captioned_seconds=captioned,
            transcribe=captioned == 0.0,
            voices=True,
            array=spec_of(pcm),
        )
        self.send(message, pcm)

    def caption(self, start: float, end: float, text: str) -> None:
        self.items[KEY] += 1
        self.send(Caption(key=KEY, start_seconds=start, end_seconds=end, text=text, language="en"))

    def checkpoint(self, section: int, seconds: float, key: TaskKey = KEY, **more: Any) -> None:
        """The section of this number ends here."""
        resume = AudioResume(section=section + 1, seconds=seconds, state=b"state")
        self.send(Checkpoint(key=key, items=self.items[key], gaps=more.get("gaps", ()), resume=resume))
        self.items[key] = 0

    def end(self, key: TaskKey = KEY) -> None:
        self.send(TaskEnd(key=key, items=self.items[key], gaps=()))

    def run(self) -> tuple[list[tuple[Points, Any]], list[TaskResult]]:
        """Step until nothing is left; returns what the consumer would have received."""
        import msgspec

        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToConsumer)
        points: list[tuple[Points, Any]] = []
        results: list[TaskResult] = []
        while True:
            while (outgoing := self.engine.outbox.take()) is not None:
                message = decoder.decode(outgoing.header)
                self.log.append(message)
                if isinstance(message, Points):
                    points.append((message, as_array(message.array, outgoing.array.tobytes())))  # type: ignore[union-attr]
                else:
                    results.append(message)
            self.now += 0.3
            if not self.engine.step(self.now):
                return points, results


def ids_of(points: list[tuple[Points, Any]], collection: str) -> list[str]:
    return [id_ for message, _ in points if message.collection == collection for id_ in message.ids]


def payloads_of(points: list[tuple[Points, Any]], collection: str) -> list[dict[str, Any]]:
    return [payload for message, _ in points if message.collection == collection for payload in message.payloads]


def test_frames_become_points_and_then_a_result() -> None:
    harness = Harness()
    harness.start()
    for at in range(40):
        harness.frame(float(at))
    harness.end()
    points, (result,) = harness.run()
    assert len(set(ids_of(points, "frames"))) == 40
    assert result.points == {"frames": 40}
    assert not result.failures
    payload = payloads_of(points, "frames")[7]
    assert payload["start_seconds"] == 7.0
    assert payload["path"] == "a.mp4"
    assert payload["model"] == "fake-image@0 (untrained)"
    message, vectors = points[0]
    assert vectors.shape == (len(message.ids), DIMENSION)
    assert vectors.dtype == np.float16
    expected = harness.models["image"].result_of(np.full((2, 2, 3), 0, dtype=np.uint8))
    np.testing.assert_allclose(vectors[0], expected, atol=1e-3)
    assert harness.engine.is_idle()


def test_all_credit_returns_when_the_work_is_done() -> None:
    harness = Harness()
    harness.start()
    harness.frame(0.0)
    harness.speech(0.0, 10.0, ((0.5, 4.5), (5.0, 9.0)))
    harness.end()
    harness.run()
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_a_window_of_sound_becomes_texts_and_voices() -> None:
    harness = Harness()
    harness.start()
    harness.speech(100.0, 110.0, ((100.5, 104.5), (105.0, 109.0)))
    harness.end()
    points, (result,) = harness.run()
    speech = payloads_of(points, "speech")
    assert [payload["text"] for payload in speech] == [f"phrase {at}" for at in range(10)]
    assert speech[3]["start_seconds"] == 103.0
    assert speech[3]["words"][0] == {"start_seconds": 103.0, "end_seconds": 103.5, "text": "phrase"}
    assert speech[3]["source"] == "asr"
    assert speech[3]["text_by"] == "fake-speech@0 (untrained)"
    assert speech[3]["language"] == "en"
    voices = payloads_of(points, "voices")
    assert min(payload["start_seconds"] for payload in voices) == 100.5
    assert max(payload["end_seconds"] for payload in voices) == 109.0
    assert result.speech_seconds == pytest.approx(8.0)
    assert result.text_seconds == pytest.approx(8.0)
    assert result.voiced_seconds == pytest.approx(8.0)
    assert result.voice_seconds == pytest.approx(8.0)


def test_windows_of_several_videos_share_a_batch() -> None:
    harness = Harness()
    for number in range(4):
        key = TaskKey(number, 0)
        harness.start(key)
        harness.frame(1.0, key)
        harness.end(key)
    _, results = harness.run()
    assert harness.models["image"].batches == [4]
    assert len(results) == 4


def test_captions_become_texts_that_say_so() -> None:
    harness = Harness()
    harness.start()
    harness.caption(1.0, 3.0, "Hello there")
    harness.speech(0.0, 4.0, ((1.0, 3.0),), captioned=2.0)
    harness.end()
    points, (result,) = harness.run()
    (payload,) = payloads_of(points, "speech")
    assert payload["text"] == "Hello there"
    assert payload["source"] == "captions"
    assert payload["text_by"] == "captions"
    assert payload["model"] == "fake-text@0 (untrained)"
    assert harness.models["speech"].batches == []
    assert result.text_seconds == pytest.approx(2.0)


def test_a_result_says_which_points_its_transcripts_are_and_in_which_stretch() -> None:
    """So that what an earlier attempt heard there, and this one did not, can be told from it."""
    harness = Harness()
    harness.start()
    harness.caption(0.0, 1.0, "people's words")
    harness.speech(2.0, 6.0, ((2.0, 6.0),))
    harness.speech(9.0, 12.0, ((9.0, 12.0),))
    harness.speech(20.0, 30.0, ((20.0, 30.0),), captioned=5.0)  # not transcribed
    harness.end()
    points, (result,) = harness.run()
    said = result.transcribed
    assert said is not None
    assert (said.video_id, said.start_seconds, said.end_seconds) == ("video-1", 2.0, 12.0)
    heard = [
        (id_, payload)
        for message, _ in points
        for id_, payload in zip(message.ids, message.payloads, strict=True)
        if payload.get("source") == "asr"
    ]
    assert len(heard) >= 2
    assert sorted(said.ids) == sorted(id_ for id_, _ in heard)
    assert {(payload["model"], payload["text_by"]) for _, payload in heard} == {(said.model, said.text_by)}


def test_a_result_of_frames_says_nothing_of_transcripts() -> None:
    harness = Harness()
    harness.start()
    harness.frame(0.0)
    harness.end()
    _, (result,) = harness.run()
    assert result.transcribed is None


def test_speech_without_words_is_a_named_gap_and_no_coverage() -> None:
    harness = Harness()
    harness.start()
    harness.speech(0.0, 0.9, ((0.0, 0.9),))  # too short for a phrase of the fake model
    harness.end()
    _, (result,) = harness.run()
    assert result.text_seconds == 0.0
    assert [gap.reason.split(":")[0] for gap in result.gaps] == ["no-words"]


class SaysOf(FakeModel):
    """A speech model whose transcripts are all of one kind."""

    def __init__(self, **facts: Any) -> None:
        super().__init__("speech")
        self.facts = facts

    def result_of(self, item: Any) -> Any:
        return replace(super().result_of(item), **self.facts)


def heard(*kinds: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str], TaskResult]:
    """A window of 3 s with 2 s of speech for each kind of transcript: payloads and ids of its texts, and the result."""
    model = SaysOf()
    harness = Harness(speech_model=model)
    harness.start()
    for number, facts in enumerate(kinds):
        model.facts = facts
        harness.speech(10.0 * number, 10.0 * number + 3.0, ((10.0 * number, 10.0 * number + 2.0),))
        harness.now += 10.0
        while harness.engine.step(harness.now):
            pass
    harness.end()
    points, (result,) = harness.run()
    return payloads_of(points, "speech"), ids_of(points, "speech"), result


def test_a_translation_says_so_and_does_not_take_the_place_of_the_transcript() -> None:
    (transcript, *_), transcript_ids, _ = heard({"language": "fr"})
    (translation, *_), translation_ids, result = heard({"language": "en", "translated_from": "fr"})
    assert (transcript["language"], transcript["text_by"]) == ("fr", "fake-speech@0 (untrained)")
    assert "spoken_language" not in transcript
    assert (translation["language"], translation["spoken_language"]) == ("en", "fr")
    assert translation["text_by"] == "fake-speech@0 (untrained) (translation)"
    assert translation["model"] == transcript["model"]
    assert not set(transcript_ids) & set(translation_ids)
    assert result.languages == (("fr", 2.0),), "what was spoken"


def test_english_that_was_put_into_english_is_a_translation_all_the_same() -> None:
    (payload, *_), _, _ = heard({"language": "en", "translated_from": "en"})
    assert (payload["language"], payload["spoken_language"]) == ("en", "en")
    assert payload["text_by"].endswith("(translation)")


def test_doubtful_text_is_stored_and_marked() -> None:
    payloads, _, result = heard({}, {"doubts": ("repetitive", "improbable"), "retries": 5}, {"retries": 2})
    doubts = ["repetitive", "improbable"]
    assert [payload.get("doubts") for payload in payloads] == [None] * 3 + [doubts] * 3 + [None] * 3
    assert result.notes == (
        "windows of speech that were decoded again at a higher temperature: 2",
        "windows of speech whose text is kept although it is repetitive or improbable (`doubts`): 1",
    )
    assert (result.text_seconds, result.speech_seconds, result.gaps) == (6.0, 6.0, ())


def test_what_the_model_takes_for_no_speech_is_a_named_gap_and_no_coverage() -> None:
    payloads, _, result = heard({"is_silence": True, "segments": ()}, {})
    assert len(payloads) == 3
    (gap,) = result.gaps
    assert (gap.start_seconds, gap.end_seconds) == (0.0, 3.0)
    assert gap.reason.startswith("no-speech: the speech model takes detected speech for something else")
    assert (result.text_seconds, result.speech_seconds) == (2.0, 4.0)
    assert result.languages == (("en", 2.0),)


def poison(value: int) -> Any:
    def fault(batch: Sequence[Any]) -> None:
        if any(np.asarray(item).flat[0] == value for item in batch):
            raise ValueError("poisonous")

    return fault


def test_a_poisonous_frame_fails_alone_and_is_named() -> None:
    harness = Harness(image=poison(5))
    harness.start()
    for at in range(10):
        harness.frame(float(at))
    harness.end()
    points, (result,) = harness.run()
    assert len(ids_of(points, "frames")) == 9
    (failure,) = result.failures
    assert (failure.start_seconds, failure.code) == (5.0, "model-error")
    assert result.batch_splits > 0


def test_a_failed_text_takes_its_window_out_of_the_coverage() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if "phrase 1" in batch:
            raise ValueError("cannot embed")

    harness = Harness(text=fault)
    harness.start()
    harness.speech(0.0, 3.0, ((0.0, 3.0),))
    harness.speech(10.0, 11.0, ((10.0, 11.0),))
    harness.end()
    _, (result,) = harness.run()
    assert result.speech_seconds == pytest.approx(4.0)
    assert result.text_seconds == pytest.approx(1.0)


def test_a_payload_that_is_not_what_its_header_says_fails_its_item() -> None:
    harness = Harness()
    harness.start()
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    harness.items[KEY] += 1
    harness.send(Frame(key=KEY, start_seconds=0.0, end_seconds=1.0, array=spec_of(pixels)), pixels[:1])
    harness.frame(1.0)
    harness.end()
    points, (result,) = harness.run()
    assert len(ids_of(points, "frames")) == 1
    assert [failure.code for failure in result.failures] == ["bad-message"]


def test_an_aborted_attempt_gives_no_result_and_its_late_items_are_dropped() -> None:
    harness = Harness()
    harness.start()
    harness.frame(0.0)
    harness.engine.abort(KEY)
    harness.frame(1.0)
    harness.end()
    _, results = harness.run()
    assert results == []
    assert harness.engine.is_idle()
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_what_is_queued_of_an_aborted_attempt_gives_no_points() -> None:
    """They would come behind those of the next attempt, and take away what was noted at these since."""
    harness = Harness()
    harness.start()
    harness.frame(0.0)
    harness.caption(0.0, 1.0, "Hello")
    for number in range(3):
        harness.speech(10.0 * number, 10.0 * number + 4.0, ((10.0 * number, 10.0 * number + 4.0),))
    harness.engine.abort(KEY)
    assert harness.run() == ([], [])
    assert all(counter.items == 0 for counter in harness.engine.runner.counters.values()), "nor work"
    assert harness.engine.is_idle()
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_an_abort_between_a_transcript_and_its_vector_gives_no_points() -> None:
    harness = Harness()
    harness.start()
    harness.speech(0.0, 4.0, ((0.0, 4.0),))
    harness.end()
    while not harness.engine.scheduler.queued_items("text"):
        harness.now += 0.3
        assert harness.engine.step(harness.now), "speech comes before text"
    harness.engine.abort(KEY)
    points, results = harness.run()
    assert ids_of(points, "speech") == []
    assert results == []
    assert harness.engine.is_idle()


def test_an_abort_that_overtakes_the_start_of_its_attempt_holds() -> None:
    harness = Harness()
    harness.engine.abort(KEY)
    harness.start()
    harness.frame(0.0)
    _, results = harness.run()
    assert results == []
    assert harness.engine.is_idle()


def test_a_retry_makes_the_same_ids() -> None:
    ids = []
    for attempt in range(2):
        harness = Harness()
        key = TaskKey(1, attempt)
        harness.start(key)
        harness.frame(3.0, key)
        harness.end(key)
        points, _ = harness.run()
        ids.append(ids_of(points, "frames"))
    assert ids[0] == ids[1]


def test_a_full_outbox_stops_the_models() -> None:
    harness = Harness(EngineOptions(results_mb=1))
    harness.engine.outbox.held_bytes = 2 * 1024 * 1024
    harness.start()
    harness.frame(0.0)
    harness.end()
    assert not harness.engine.step(100.0)
    harness.engine.outbox.held_bytes = 0
    assert harness.engine.step(100.0)


# --- sections ---------------------------------------------------------------------------------------------------------


def sections_of(results: list[TaskResult]) -> list[tuple[int, float | None]]:
    return [(result.section, result.resume.seconds if result.resume else None) for result in results]


def test_each_section_of_a_sound_track_has_a_result_of_its_own_things_alone() -> None:
    harness = Harness()
    harness.start()
    harness.speech(0.0, 4.0, ((0.0, 4.0),))
    harness.checkpoint(0, 5.0, gaps=(Gap(start_seconds=4.0, end_seconds=5.0, reason="damaged: test"),))
    harness.speech(10.0, 13.0, ((10.0, 12.0),))
    harness.checkpoint(1, 15.0)
    harness.end()
    points, results = harness.run()
    assert sections_of(results) == [(0, 5.0), (1, 15.0), (2, None)]
    assert [result.points.get("speech", 0) for result in results] == [4, 3, 0]
    assert [result.speech_seconds for result in results] == [4.0, 2.0, 0.0]
    assert [result.text_seconds for result in results] == [4.0, 2.0, 0.0]
    assert [len(result.gaps) for result in results] == [1, 0, 0]
    assert len(set(ids_of(points, "speech"))) == 7
    assert harness.engine.is_idle()
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_a_section_that_is_done_first_waits_for_the_one_before_it() -> None:
    harness = Harness()
    harness.start()
    harness.speech(0.0, 4.0, ((0.0, 4.0),))
    harness.checkpoint(0, 5.0)
    harness.checkpoint(1, 6.0)
    harness.end()
    assert len(harness.engine.outbox) == 0, "sections 1 and 2 are empty, and section 0 is not done"
    _, results = harness.run()
    assert sections_of(results) == [(0, 5.0), (1, 6.0), (2, None)]


def test_the_result_of_a_section_leaves_before_the_attempt_has_ended() -> None:
    harness = Harness()
    harness.start()
    harness.speech(0.0, 4.0, ((0.0, 4.0),))
    harness.checkpoint(0, 5.0)
    _, results = harness.run()
    assert sections_of(results) == [(0, 5.0)]
    assert not harness.engine.is_idle()


def test_an_attempt_that_goes_on_in_the_middle_counts_its_sections_from_there() -> None:
    harness = Harness()
    harness.start(section=3)
    harness.speech(40.0, 41.0, ((40.0, 41.0),))
    harness.checkpoint(3, 42.0)
    harness.end()
    other = TaskKey(2, 1)
    harness.start(other, section=7)
    harness.end(other)
    _, results = harness.run()
    assert {key: sections_of([r for r in results if r.key == key]) for key in (KEY, other)} == {
        KEY: [(3, 42.0), (4, None)],
        other: [(7, None)],
    }


def test_a_failure_is_told_by_the_section_it_happened_in_alone() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if any(len(item.pcm) == 2 * 16_000 for item in batch):
            raise ValueError("cannot transcribe")

    harness = Harness(speech=fault)
    harness.start()
    for number, seconds in enumerate((3.0, 2.0, 4.0)):
        harness.speech(10.0 * number, 10.0 * number + seconds, ((10.0 * number, 10.0 * number + seconds),))
        harness.checkpoint(number, 10.0 * (number + 1))
    harness.end()
    _, results = harness.run()
    assert [len(result.failures) for result in results] == [0, 1, 0, 0]
    assert [result.text_seconds for result in results] == [3.0, 0.0, 4.0, 0.0]


def test_an_abort_drops_every_open_section() -> None:
    harness = Harness()
    harness.start()
    harness.speech(0.0, 4.0, ((0.0, 4.0),))
    harness.checkpoint(0, 5.0)
    harness.speech(10.0, 13.0, ((10.0, 12.0),))
    harness.engine.abort(KEY)
    harness.checkpoint(1, 15.0)
    harness.end()
    _, results = harness.run()
    assert results == []
    assert harness.engine.is_idle()
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_cues_are_numbered_through_all_sections() -> None:
    ids: list[list[str]] = []
    for cuts in ((), (1,), (0, 1, 2)):
        harness = Harness()
        harness.start()
        section = 0
        for number in range(4):
            harness.caption(float(number), number + 1.0, "Hello")
            if number in cuts:
                harness.checkpoint(section, number + 1.0)
                section += 1
        harness.end()
        points, _ = harness.run()
        ids.append(sorted(ids_of(points, "speech")))
    assert len(set(ids[0])) == 4
    assert ids[0] == ids[1] == ids[2]


def test_a_cue_that_fails_lowers_the_coverage_of_the_section_whose_speech_it_covers() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if "unspeakable" in batch:
            raise ValueError("cannot embed")

    harness = Harness(text=fault)
    harness.start()
    harness.caption(1.0, 2.0, "fine")
    harness.caption(21.0, 23.0, "unspeakable")
    harness.checkpoint(0, 0.0)
    harness.speech(20.0, 24.0, ((20.0, 24.0),), captioned=3.0)
    harness.end()
    _, results = harness.run()
    assert [result.text_seconds for result in results] == [0.0, 1.0]
    assert [len(result.failures) for result in results] == [1, 0]


def assert_points_come_first(log: list[Points | TaskResult], key: TaskKey) -> None:
    """Before the result of a section at least its points and those of all before it have come."""
    came = promised = 0
    for message in log:
        if message.key != key:
            continue
        if isinstance(message, Points):
            came += len(message.ids)
        else:
            promised += sum(message.points.values())
            assert came >= promised


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5)), max_size=4), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_results_of_sections_come_in_order_behind_their_points(
    sections: list[list[tuple[int, int]]], memory: int, first: int
) -> None:
    """Two sound tracks, interleaved, on models that can hold few items, so that windows finish out of order."""

    def fault(batch: Sequence[Any]) -> None:
        if len(batch) > memory:
            raise RuntimeError("CUDA failed with error out of memory")

    harness = Harness(EngineOptions(speech_batch=2, text_batch=2), speech=fault, text=fault, voice=fault)
    keys = [TaskKey(0, 0), TaskKey(1, 0)]
    for key in keys:
        harness.start(key, section=first)
    at = 0.0
    for number, windows in enumerate(sections):
        for video, seconds in windows:
            harness.speech(at, at + seconds, ((at, at + seconds),), key=keys[video])
            at += 10.0
        for key in keys:
            harness.checkpoint(first + number, at, key)
    for key in keys:
        harness.end(key)
    points, results = harness.run()
    for key, video in zip(keys, (0, 1), strict=True):
        mine = [result for result in results if result.key == key]
        assert [result.section for result in mine] == list(range(first, first + len(sections) + 1))
        assert [result.resume is None for result in mine] == [False] * len(sections) + [True]
        wanted = [sum(seconds for each, seconds in windows if each == video) for windows in sections]
        assert [result.points.get("speech", 0) for result in mine] == [*wanted, 0]
        assert_points_come_first(harness.log, key)
    assert len(ids_of(points, "speech")) == sum(seconds for windows in sections for _, seconds in windows)
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


# --- whatever goes wrong ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 200)), min_size=1, max_size=60, unique=True),
    st.sets(st.integers(0, 200)),
    st.integers(1, 8),
)
def test_every_frame_comes_out_once_as_a_point_or_a_failure(
    frames: list[tuple[int, int]], poisonous: set[int], memory: int
) -> None:
    def fault(batch: Sequence[Any]) -> None:
        if len(batch) > memory:
            raise RuntimeError("CUDA failed with error out of memory")
        if any(int(np.asarray(item).flat[0]) in poisonous for item in batch):
            raise ValueError("poisonous")

    harness = Harness(image=fault)
    keys = [TaskKey(number, 0) for number in range(3)]
    for key in keys:
        harness.start(key)
    for video, at in frames:
        harness.frame(float(at), keys[video])
    for key in keys:
        harness.end(key)
    points, results = harness.run()
    wanted = {(video, at) for video, at in frames if at not in poisonous}
    got = [(payload["video_id"], payload["start_seconds"]) for payload in payloads_of(points, "frames")]
    assert sorted(got) == sorted((f"video-{video}", float(at)) for video, at in wanted)
    assert len(results) == 3
    failed = {(r.key.task_id, f.start_seconds) for r in results for f in r.failures}
    assert all(at in poisonous for _, at in failed)
    assert bool(failed) == (len(wanted) < len(frames))
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes
