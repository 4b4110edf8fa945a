"""The board: what a video's tasks become of, retries, twins, and that no task is ever lost."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, RunOptions
from engine.tasks import Board
from engine.videos import VideoError, VideoJob
from stages.options import DecodeOptions, ModelOptions
from transport.messages import (
    Abort,
    AudioStream,
    CaptionTrack,
    DecodeAudio,
    DecodeFrames,
    FrameFormat,
    Gap,
    ItemFailure,
    MediaInfo,
    Probe,
    Probed,
    TaskKey,
    TaskResult,
    VideoStream,
)

FORMAT = FrameFormat(width=32, height=32, fit="crop")
VIDEO = VideoStream(
    index=0, codec="h264", width=64, height=48, sample_aspect_ratio=1.0, average_fps=25.0, duration_seconds=150.0
)
AUDIO = AudioStream(index=1, codec="aac", sample_rate=48_000, channels=2, language=None, duration_seconds=150.0)


def media(video: VideoStream | None = VIDEO, audio: AudioStream | None = AUDIO, captions: Any = ()) -> MediaInfo:
    return MediaInfo(
        container="mp4", duration_seconds=150.0, start_seconds=0.0, video=video, audio=audio, captions=captions
    )


def probed(key: TaskKey, info: MediaInfo, video_id: str = "v") -> Probed:
    return Probed(key=key, video_id=video_id, size_bytes=1, mtime_ns=1, media=info)


def result(key: TaskKey, **values: Any) -> TaskResult:
    facts: dict[str, Any] = {
        "points": {}, "gaps": (), "failures": (), "notes": (), "speech_seconds": 0.0, "text_seconds": 0.0,
        "voiced_seconds": 0.0, "voice_seconds": 0.0, "oom_events": 0, "batch_splits": 0,
    }  # fmt: skip
    return TaskResult(key=key, **{**facts, **values})


def board_with(
    info: MediaInfo, config: Config | None = None, frame_format: FrameFormat | None = FORMAT
) -> tuple[Board, list[Any]]:
    """A board with one video, probed, and the messages of its tasks."""
    board = Board(config or Config(), frame_format)
    board.add(b"a.mp4", "a.mp4", 0.0)
    probe = board.next_message()
    assert isinstance(probe, Probe)
    board.probed(probed(probe.key, info), 1.0)
    return board, list(iter(board.next_message, None))


def only(board: Board) -> VideoJob:
    (job,) = board.finished
    return job


def test_a_video_becomes_spans_and_one_audio_task() -> None:
    _, messages = board_with(media())
    assert [type(message) for message in messages] == [DecodeAudio, DecodeFrames, DecodeFrames, DecodeFrames]
    spans = [(message.start_seconds, message.end_seconds) for message in messages[1:]]
    assert spans == [(0.0, 60.0), (60.0, 120.0), (120.0, None)]


def test_it_is_indexed_when_every_task_is_durable() -> None:
    board, messages = board_with(media())
    for message in messages[:-1]:
        board.durable(result(message.key, points={"frames": 2}), 5.0)
        assert not board.finished
    board.durable(result(messages[-1].key, points={"frames": 1}), 9.0)
    job = only(board)
    assert (job.status, job.points["frames"], job.finished_seconds) == ("indexed", 7, 9.0)
    assert board.is_done


def test_captions_are_read_unless_ignored() -> None:
    track = CaptionTrack(format="subrip", language="en", stream_index=2)
    _, (audio, *_rest) = board_with(media(captions=(track,)))
    assert (audio.captions, audio.transcribe, audio.voices) == (track, True, True)
    from engine.config import load_config

    ignoring = load_config(settings=["speech.captions=ignore"])
    _, (audio, *_rest) = board_with(media(captions=(track,)), ignoring)
    assert (audio.captions, audio.transcribe) == (None, True)


def test_what_is_absent_or_off_is_said() -> None:
    board, messages = board_with(media(audio=None), Config(models=ModelOptions(image="off")), None)
    assert messages == []
    job = only(board)
    assert job.status == "indexed"
    assert any("no audio stream" in note for note in job.notes)
    assert any("models.image" in note for note in job.notes)


def test_a_file_that_cannot_be_opened_fails_with_its_reason() -> None:
    board = Board(Config(), FORMAT)
    board.add(b"a.mp4", "a.mp4", 0.0)
    probe = board.next_message()
    assert isinstance(probe, Probe)
    board.failed(probe.key, "empty-file", "the file is empty", 1.0)
    job = only(board)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "empty-file"


def test_a_gap_makes_it_partial_without_an_error() -> None:
    board, messages = board_with(media(audio=None, video=VIDEO), Config(decode=DecodeOptions(span_seconds=1000)))
    gap = Gap(start_seconds=100.0, end_seconds=150.0, reason="truncated: the file ends early")
    board.durable(result(messages[0].key, points={"frames": 100}, gaps=(gap,)), 2.0)
    job = only(board)
    assert (job.status, job.error) == ("partial", None)


@pytest.mark.parametrize("code", ["not-found", "no-permission", "read-error", "file-changed"])
def test_a_file_that_got_out_of_reach_is_an_error_of_the_video(code: str) -> None:
    """Unlike damage, which stays: such a video is to be tried again."""
    board, messages = board_with(media())
    gap = Gap(start_seconds=100.0, end_seconds=150.0, reason=f"{code}: it was there: before")
    for message in messages:
        board.durable(result(message.key, points={"frames": 5}, gaps=(gap,)), 1.0)
    job = only(board)
    assert job.status == "partial"
    assert job.error == VideoError(code, "it was there: before")


def test_nothing_but_gaps_is_a_failure() -> None:
    board, messages = board_with(media(audio=None), Config(decode=DecodeOptions(span_seconds=1000)))
    gap = Gap(start_seconds=0.0, end_seconds=150.0, reason="read-error: the disk is gone")
    board.durable(result(messages[0].key, gaps=(gap,)), 2.0)
    job = only(board)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("read-error", "the disk is gone")


def test_failed_items_are_an_error_of_the_video() -> None:
    board, messages = board_with(media(audio=None), Config(decode=DecodeOptions(span_seconds=1000)))
    failure = ItemFailure(kind="image", start_seconds=1, end_seconds=2, code="out-of-memory", message="no room")
    board.durable(result(messages[0].key, points={"frames": 9}, failures=(failure,)), 2.0)
    job = only(board)
    assert job.status == "indexed" or job.status == "partial"
    assert job.error is not None
    assert job.error.code == "out-of-memory"


def test_a_task_whose_decoder_dies_is_tried_again_and_then_given_up() -> None:
    config = Config(run=RunOptions(attempts=3), decode=DecodeOptions(span_seconds=1000))
    board, (message,) = board_with(media(audio=None), config)
    for attempt in range(2):
        assert board.decoder_lost(TaskKey(message.key.task_id, attempt), "killed", 1.0) == Abort(
            key=TaskKey(message.key.task_id, attempt)
        )
        retry = board.next_message()
        assert isinstance(retry, DecodeFrames)
        assert retry.key == TaskKey(message.key.task_id, attempt + 1)
    board.decoder_lost(TaskKey(message.key.task_id, 2), "killed by SIGSEGV", 2.0)
    job = only(board)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "decoder-died"
    assert "SIGSEGV" in job.error.message
    assert "run.attempts" in job.error.message
    assert job.gaps[0].end_seconds == 150.0


def test_when_the_engine_dies_all_that_it_may_have_had_is_done_again_and_that_is_no_attempt() -> None:
    config = Config(run=RunOptions(attempts=2))
    board, messages = board_with(media(), config)
    board.durable(result(messages[1].key, points={"frames": 60}), 1.0)
    board.add(b"b.mp4", "b.mp4", 2.0)
    for attempt in range(1, 6):
        board.engine_lost()
        again: list[Any] = list(iter(board.next_message, None))
        keys = [TaskKey(message.key.task_id, attempt) for message in (messages[0], messages[2], messages[3])]
        assert [message.key for message in again[:3]] == keys, "in their order, before what nobody had yet"
        assert isinstance(again[3], Probe)
    board.decoder_lost(again[1].key, "killed", 3.0)
    assert board.queued_tasks == 1, "the first death of a decoder, of two that are borne"
    assert not board.finished


def test_what_is_queued_when_the_engine_dies_stays_as_it_is() -> None:
    board = Board(Config(), FORMAT)
    board.add(b"a.mp4", "a.mp4", 0.0)
    board.engine_lost()
    probe = board.next_message()
    assert isinstance(probe, Probe)
    assert probe.key.attempt == 0
    assert board.next_message() is None


def test_an_attempt_that_an_engine_had_finished_before_it_died_counts() -> None:
    board, (message,) = board_with(media(audio=None), Config(decode=DecodeOptions(span_seconds=1000)))
    board.engine_lost()
    assert board.durable(result(message.key, points={"frames": 3}), 2.0)
    assert not board.durable(result(TaskKey(message.key.task_id, 1), points={"frames": 3}), 3.0)
    assert board.next_message() is None
    assert only(board).points["frames"] == 3


def test_an_older_attempt_that_turns_out_durable_withdraws_the_retry() -> None:
    board, (message,) = board_with(media(audio=None), Config(decode=DecodeOptions(span_seconds=1000)))
    board.decoder_lost(message.key, "killed", 1.0)
    board.durable(result(message.key, points={"frames": 3}), 2.0)
    assert board.next_message() is None
    assert only(board).points["frames"] == 3


def test_the_same_content_under_two_paths_is_indexed_once() -> None:
    board = Board(Config(decode=DecodeOptions(span_seconds=1000)), FORMAT)
    for path in ("a.mp4", "b.mp4"):
        board.add(path.encode(), path, 0.0)
    first, second = board.next_message(), board.next_message()
    assert isinstance(first, Probe)
    assert isinstance(second, Probe)
    board.probed(probed(first.key, media(audio=None)), 1.0)
    board.probed(probed(second.key, media(audio=None)), 1.0)
    (message,) = list(iter(board.next_message, None))
    board.durable(result(message.key, points={"frames": 5}), 2.0)  # type: ignore[attr-defined]
    assert [(job.shown_path, job.status) for job in board.finished] == [("a.mp4", "indexed"), ("b.mp4", "unchanged")]
    assert board.is_done


def test_known_content_is_unchanged() -> None:
    board = Board(Config(), FORMAT, is_known=lambda video_id: {"points": 7})
    board.add(b"a.mp4", "a.mp4", 0.0)
    probe = board.next_message()
    assert isinstance(probe, Probe)
    board.probed(probed(probe.key, media()), 1.0)
    assert only(board).status == "unchanged"
    assert board.next_message() is None


def test_stopping_gives_up_what_no_decoder_has() -> None:
    board, messages = board_with(media())
    board.add(b"b.mp4", "b.mp4", 2.0)
    board.stop(3.0)
    assert [job.shown_path for job in board.finished] == ["b.mp4"]
    assert board.finished[0].error is not None
    assert board.finished[0].error.code == "interrupted"
    for message in messages:
        board.durable(result(message.key, points={"frames": 1}), 4.0)
    assert board.is_done


def test_stopping_all_gives_up_what_decoders_have_too() -> None:
    board, messages = board_with(media())
    board.durable(result(messages[1].key, points={"frames": 60}), 1.0)
    board.add(b"b.mp4", "b.mp4", 2.0)
    board.stop_all(3.0)
    assert board.is_done
    assert {job.shown_path: job.status for job in board.finished} == {"a.mp4": "partial", "b.mp4": "failed"}
    assert all(job.error is not None and job.error.code == "interrupted" for job in board.finished)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_every_video_ends_and_every_second_is_settled(data: st.DataObject) -> None:
    board = Board(Config(decode=DecodeOptions(span_seconds=50)), FORMAT)
    paths = [f"{number}.mp4".encode() for number in range(data.draw(st.integers(1, 4)))]
    for path in paths:
        board.add(path, path.decode(), 0.0)
    running: list[Any] = []
    for step in range(10_000):
        message = board.next_message()
        if message is not None:
            running.append(message)
        if not running:
            break
        current = running.pop(data.draw(st.integers(0, len(running) - 1)))
        fate = data.draw(st.sampled_from(["done", "done", "failed", "lost", "engine lost"]))
        if fate == "engine lost" and step < 200:
            running.clear()
            board.engine_lost()
        elif fate == "lost":
            board.decoder_lost(current.key, "killed", float(step))
        elif fate == "failed":
            board.failed(current.key, "read-error", "bad", float(step))
        elif isinstance(current, Probe):
            board.probed(probed(current.key, media(), current.path.decode()), float(step))
        else:
            board.durable(result(current.key, points={"frames": 1}), float(step))
    assert board.is_done
    assert sorted(job.path for job in board.finished) == sorted(paths)
    for job in board.finished:
        assert job.status in ("indexed", "partial", "failed")
        assert job.done_seconds == pytest.approx(job.total_seconds)
        assert (job.error is None) or job.gaps or job.status == "failed"
