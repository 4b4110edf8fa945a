"""A decoder's sending: towards an engine that has stopped reading, and of sound tracks in sections."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from benches.sample_video import make_sample
from engine.config import Config
from engine.producer import MAX_IN_FLIGHT_BYTES, Decoder
from engine.rundir import endpoints_in, run_directory
from engine.worker import WorkerSpec
from stages import windows
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from tests.media_factory import make_video
from transport.codec import spec_of
from transport.messages import (
    AudioResume,
    Caption,
    CaptionTrack,
    Checkpoint,
    DecodeAudio,
    Decoded,
    DecoderStats,
    Frame,
    Grant,
    Join,
    MediaInfo,
    Message,
    Progress,
    Speech,
    TaskEnd,
    TaskFailed,
    TaskKey,
    TaskStart,
    ToEngine,
    ToSupervisor,
)
from transport.sockets import HIGH_WATER_MARK, Channel

KEY = TaskKey(1, 1)
PIXELS = np.zeros((224, 224, 3), np.uint8)
FRAME = Frame(key=KEY, start_seconds=0.0, end_seconds=1.0, array=spec_of(PIXELS))


class WaitingError(Exception):
    """The decoder waits instead of sending."""


class Engine:
    """The other ends of a decoder's sockets, in the hands of a test."""

    def __init__(self, items: Channel[Any], control: Channel[Any]) -> None:
        self._items = items
        self._control = control
        received = items.receive(timeout_ms=10_000)
        assert received is not None
        assert isinstance(received.message, Join)
        self._decoder = received.sender

    def grant(self, credit_bytes: int) -> None:
        self._items.send(Grant(credit_bytes=credit_bytes), to=self._decoder)

    def read(self) -> int:
        """Take a message; returns its cost."""
        received = self._items.receive(timeout_ms=10_000)
        assert received is not None
        return received.cost_bytes

    def read_task(self) -> list[tuple[Any, bytes]]:
        """The messages of a task with their arrays, up to its end."""
        messages: list[tuple[Any, bytes]] = []
        while not messages or not isinstance(messages[-1][0], TaskEnd):
            received = self._items.receive(timeout_ms=10_000)
            assert received is not None
            messages.append((received.message, bytes(received.payload or b"")))
        return messages

    def told(self) -> list[Any]:
        """What the supervisor was told."""
        messages = []
        while (received := self._control.receive(timeout_ms=200)) is not None:
            messages.append(received.message)
        return messages


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[tuple[Decoder, Engine]]:
    """A decoder with all the credit it can want, and the other ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    with run_directory(str(tmp_path)) as directory:
        endpoints = endpoints_in(directory)
        control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
        items: Channel[Any] = Channel.bind(context, endpoints.items, ToEngine)
        spec = WorkerSpec(role="decoder", index=0, generation=1, endpoints=endpoints, config=Config())
        decoder = Decoder(spec, context)
        decoder._items.send(Join())
        engine = Engine(items, control)
        engine.grant(1024 * MAX_IN_FLIGHT_BYTES)
        while not decoder._credit.limit_bytes:
            decoder._take_grants(timeout_ms=100)
        yield decoder, engine
        for channel in (decoder._items, decoder._control, items, control):
            channel.socket.close(linger=0)
    context.term()
    resource.setrlimit(resource.RLIMIT_CPU, limits)  # a task has set one, for the whole process


@pytest.fixture
def ends(connected: tuple[Decoder, Engine], monkeypatch: pytest.MonkeyPatch) -> tuple[Decoder, Engine]:
    """A decoder that raises WaitingError where it would wait, and the engine's end."""

    def wait() -> None:
        raise WaitingError

    monkeypatch.setattr(connected[0], "_beat", wait)
    return connected


def send_until_it_waits(decoder: Decoder, message: Message, array: Any = None, most: int = 10_000) -> int:
    """How many messages go before the decoder waits."""
    for sent in range(most):
        try:
            decoder._send_item(message, array)
        except WaitingError:
            return sent
    raise AssertionError(f"it sent {most} messages and did not wait")


def test_bytes_in_flight_are_bounded_whatever_the_credit(ends: tuple[Decoder, Engine]) -> None:
    decoder, engine = ends
    sent = send_until_it_waits(decoder, FRAME, PIXELS)
    cost_bytes = engine.read()
    assert sent == MAX_IN_FLIGHT_BYTES // cost_bytes
    assert send_until_it_waits(decoder, FRAME, PIXELS) == 0  # reading alone returns no credit
    engine.grant(cost_bytes)
    while decoder._credit.limit_bytes - decoder._credit.available_bytes == sent * cost_bytes:
        decoder._take_grants(timeout_ms=100)
    assert send_until_it_waits(decoder, FRAME, PIXELS) == 1


def test_a_message_above_the_bound_goes_alone(ends: tuple[Decoder, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.producer.MAX_IN_FLIGHT_BYTES", 1000)
    assert send_until_it_waits(ends[0], FRAME, PIXELS) == 1


def test_many_small_messages_wait_and_do_not_block(ends: tuple[Decoder, Engine]) -> None:
    cue = Caption(key=KEY, start_seconds=0.0, end_seconds=1.0, text="x" * 10_000, language=None)
    sent = send_until_it_waits(ends[0], cue)
    # ZeroMQ counts what was read in steps of half its mark, so the first message, read long ago, may still count.
    assert HIGH_WATER_MARK // 2 <= sent < MAX_IN_FLIGHT_BYTES // 10_000


# --- sections -------------------------------------------------------------------------------------------------------

SECTION_SECONDS = 10


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences and their captions."""
    return make_sample(tmp_path_factory.mktemp("sample") / "sample.mp4", 40.0)


@pytest.fixture
def talking(connected: tuple[Decoder, Engine], monkeypatch: pytest.MonkeyPatch) -> tuple[Decoder, Engine]:
    """A decoder with short windows and sections."""
    monkeypatch.setattr(windows, "SECTION_SAMPLES", SECTION_SECONDS * 16_000)
    config = msgspec.structs.replace(connected[0]._config, speech=SpeechOptions(window_seconds=5.0))
    monkeypatch.setattr(connected[0], "_config", config)
    return connected


def audio_task(
    path: Path,
    *,
    captions: bool = False,
    track: CaptionTrack | None = None,
    resume: AudioResume | None = None,
    **changes: Any,
) -> DecodeAudio:
    media = probe(os.fsencode(path), DecodeOptions())
    task = DecodeAudio(
        key=KEY,
        path=os.fsencode(path),
        shown_path=str(path),
        video_id="v",
        media=media,
        captions=media.captions[0] if captions else track,
        transcribe=True,
        voices=True,
        resume=resume,
    )
    return msgspec.structs.replace(task, **changes)


def run_task(ends: tuple[Decoder, Engine], task: DecodeAudio) -> list[tuple[Any, bytes]]:
    ends[0]._handle(task)
    return ends[1].read_task()


def without_state(messages: list[tuple[Any, bytes]]) -> list[tuple[Any, bytes]]:
    """States name anchors, of which there are several for one place."""
    return [
        (msgspec.structs.replace(message, resume=msgspec.structs.replace(message.resume, state=b"")), array)
        if isinstance(message, Checkpoint)
        else (message, array)
        for message, array in messages
    ]


def sections_of(messages: list[tuple[Any, bytes]]) -> list[list[Any]]:
    """Each with the message that ends it."""
    sections: list[list[Any]] = [[]]
    for message, _ in messages[1:]:
        sections[-1].append(message)
        if isinstance(message, Checkpoint):
            sections.append([])
    return sections


@pytest.mark.parametrize("captions", [False, True])
def test_a_sound_track_is_sent_in_sections_that_count_their_own_items(
    talking: tuple[Decoder, Engine], sample: Path, captions: bool
) -> None:
    messages = run_task(talking, audio_task(sample, captions=captions))
    assert messages[0][0] == TaskStart(key=KEY, video_id="v", shown_path=str(sample), section=0)
    sections = sections_of(messages)
    assert len(sections) >= 3
    for number, section in enumerate(sections):
        *items, end = section
        assert end.items == len(items)
        assert all(isinstance(item, Speech | Caption) for item in items)
        if isinstance(end, Checkpoint):
            assert end.resume.section == number + 1
            assert all(item.end_seconds <= end.resume.seconds for item in items if isinstance(item, Speech))
    cues = [[item for item in section if isinstance(item, Caption)] for section in sections]
    assert bool(cues[0]) == captions
    assert not any(cues[1:])


@pytest.mark.parametrize("captions", [False, True])
def test_a_resumed_task_sends_just_what_was_still_to_come(
    talking: tuple[Decoder, Engine], sample: Path, captions: bool
) -> None:
    whole = run_task(talking, audio_task(sample, captions=captions))
    places = [number for number, (message, _) in enumerate(whole) if isinstance(message, Checkpoint)]
    for number in places:
        resume = whole[number][0].resume
        resume = msgspec.structs.replace(resume, languages=(("de", 1.5), ("en", 2.0)))
        rest = run_task(talking, audio_task(sample, captions=captions, resume=resume))
        assert rest[0][0] == TaskStart(
            key=KEY, video_id="v", shown_path=str(sample), section=resume.section, languages=resume.languages
        )
        assert without_state(rest[1:]) == without_state(whole[number + 1 :])
    covered = [message.captioned_seconds for message, _ in whole if isinstance(message, Speech)]
    assert (max(covered) > 1.0) == captions


def test_what_is_to_be_said_of_captions_is_said_in_the_first_section_only(
    talking: tuple[Decoder, Engine], sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.srt").write_text("")
    track = CaptionTrack(format="subrip", language=None, sidecar=os.fsencode(tmp_path / "empty.srt"))
    whole = run_task(talking, audio_task(sample, track=track))
    first, *others = [end for *_, end in sections_of(whole)]
    assert len(first.notes) == 1
    assert first.notes[0].startswith("captions not used")
    assert not any(end.notes or end.gaps for end in others)
    resumed = run_task(talking, audio_task(sample, resume=first.resume, track=track))
    assert not any(end.notes or end.gaps for *_, end in sections_of(resumed))
    broken = run_task(talking, audio_task(sample, resume=first.resume, transcribe=False, track=track))
    assert not any(end.notes or end.gaps for *_, end in sections_of(broken))


def test_a_gap_belongs_to_the_section_in_which_it_became_known(talking: tuple[Decoder, Engine], tmp_path: Path) -> None:
    """The sound ends 20 s before the file says: that is told at the end, and once."""
    path = make_video(tmp_path / "a.mp4", seconds=35.0, fps=1, audio=True)
    media = probe(os.fsencode(path), DecodeOptions())
    assert media.audio is not None
    longer = msgspec.structs.replace(media.audio, duration_seconds=55.0)
    task = audio_task(path, media=msgspec.structs.replace(media, audio=longer))
    *checkpoints, end = [end for *_, end in sections_of(run_task(talking, task))]
    assert [gap.reason.partition(":")[0] for gap in end.gaps] == ["sound-truncated"]
    assert not any(checkpoint.gaps for checkpoint in checkpoints)
    resumed = run_task(talking, msgspec.structs.replace(task, resume=checkpoints[-1].resume))
    assert resumed[-1][0] == end


def test_a_place_in_a_track_that_is_not_there_ends_the_task_with_nothing(
    talking: tuple[Decoder, Engine], sample: Path
) -> None:
    silent = MediaInfo(container="x", duration_seconds=9.0, start_seconds=0.0, video=None, audio=None)
    resume = AudioResume(section=3, seconds=5.0, state=b"x")
    messages = run_task(talking, audio_task(sample, captions=True, resume=resume, media=silent))
    assert [type(message) for message, _ in messages] == [TaskStart, TaskEnd]
    assert messages[-1][0] == TaskEnd(key=KEY, items=0, gaps=(), notes=())
    garbage = AudioResume(section=3, seconds=500.0, state=os.urandom(99))
    messages = run_task(talking, audio_task(sample, resume=garbage))
    assert [type(message) for message, _ in messages] == [TaskStart, TaskEnd]


def test_progress_is_in_seconds_of_the_medium_and_memory_is_told_on_the_way(
    talking: tuple[Decoder, Engine], sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.producer.BEAT_SECONDS", 0.0)
    monkeypatch.setattr("engine.producer.STATS_SECONDS", 0.0)
    told: list[Any] = []
    monkeypatch.setattr(talking[0]._control, "send", told.append)
    whole = run_task(talking, audio_task(sample))
    told.clear()
    checkpoint = next(message for message, _ in reversed(whole) if isinstance(message, Checkpoint))
    run_task(talking, audio_task(sample, resume=checkpoint.resume))
    done = [message.done_seconds for message in told if isinstance(message, Progress)]
    assert done == sorted(done)
    assert checkpoint.resume.seconds <= done[0] <= done[-1] <= 40.1
    at_end = [number for number, message in enumerate(told) if isinstance(message, Decoded)]
    stats = [number for number, message in enumerate(told) if isinstance(message, DecoderStats)]
    assert stats[0] < at_end[0] < stats[-1]
    assert all(0 < told[number].rss_bytes <= told[number].peak_rss_bytes for number in stats)


def test_a_sound_track_is_given_up_when_it_is_time_to_stop(
    talking: tuple[Decoder, Engine], sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, engine = talking
    monkeypatch.setattr(decoder, "_draining", True)
    decoder._handle(audio_task(sample))
    assert [message.code for message in engine.told() if isinstance(message, TaskFailed)] == ["drained"]
