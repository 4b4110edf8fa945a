"""The board: what a video's tasks become of, retries, twins, and that no task is ever lost."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, RunOptions
from engine.ledger_tasks import PlannedTask, TaskSpan
from engine.notes import RETRIED, counted_note
from engine.tasks import STRANGE_DEATHS, Board
from engine.videos import VideoError, VideoJob
from stages.errors import SluiceError
from stages.options import DecodeOptions, ModelOptions
from transport.messages import (
    Abort,
    AudioResume,
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
    assert not board.withdrawn, "nobody has it"


def test_an_older_attempt_that_turns_out_durable_has_a_later_one_withdrawn_that_was_given_out() -> None:
    """Its points would come behind whatever is done with the video when it is finished."""
    board, (message,) = board_with(media(audio=None), Config(decode=DecodeOptions(span_seconds=1000)))
    board.decoder_lost(message.key, "killed", 1.0)
    retry: Any = board.next_message()
    board.durable(result(message.key, points={"frames": 3}), 2.0)
    assert list(board.withdrawn) == [retry.key] == [TaskKey(message.key.task_id, 1)]
    assert only(board).points["frames"] == 3


def test_an_attempt_that_is_durable_withdraws_nothing() -> None:
    board, (message,) = board_with(media(audio=None), Config(decode=DecodeOptions(span_seconds=1000)))
    board.durable(result(message.key, points={"frames": 3}), 2.0)
    assert not board.withdrawn


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


class Book:
    """A task book that remembers tasks by their spans, and may be unavailable."""

    def __init__(self, *rows: PlannedTask) -> None:
        self.rows = {row.span: row for row in rows}
        self.calls: list[tuple[Any, ...]] = []
        self.is_away = False

    def _called(self, *call: Any) -> None:
        if self.is_away:
            raise SluiceError("ledger-unavailable", "locked")
        self.calls.append(call)

    def plan(self, video_id: str, spans: Sequence[TaskSpan], retry_failed: bool) -> list[PlannedTask]:
        self._called("plan", video_id, retry_failed)
        new = {span: PlannedTask(100 + number, span, "open", 0, None, None, None) for number, span in enumerate(spans)}
        return [self.rows.get(span, new[span]) for span in spans]

    def section(self, task_id: int, result: TaskResult) -> bool:
        self._called("section", task_id, result.section)
        return True

    def failed(self, task_id: int, code: str, message: str) -> None:
        self._called("failed", task_id, code)

    def died(self, task_id: int) -> int:
        self._called("died", task_id)
        return 1


AUDIO_SPAN = TaskSpan("audio", 0.0, 150.0)
SPANS = [TaskSpan("frames", float(start), float(min(start + 60, 150))) for start in (0, 60, 120)]
SECOND = AudioResume(section=1, seconds=70.0, state=b"s")


def booked(book: Book, info: MediaInfo | None = None, **more: Any) -> tuple[Board, list[Any]]:
    """A board with that book and one video, probed, and the messages of its tasks."""
    board = Board(Config(**more), FORMAT, book=book, retry_failed=False)
    board.add(b"a.mp4", "a.mp4", 0.0)
    probe: Any = board.next_message()
    board.probed(probed(probe.key, info or media()), 1.0)
    return board, list(iter(board.next_message, None))


def test_what_an_earlier_run_has_done_is_not_done_again() -> None:
    done = result(TaskKey(7, 0), points={"frames": 60})
    heard = result(TaskKey(8, 2), points={"speech": 4}, speech_seconds=9.0, section=1)
    book = Book(
        PlannedTask(7, SPANS[0], "done", 0, None, done, None),
        PlannedTask(8, AUDIO_SPAN, "open", 0, SECOND, heard, None),
    )
    board, messages = booked(book)
    assert [type(message) for message in messages] == [DecodeAudio, DecodeFrames, DecodeFrames]
    assert messages[0].resume == SECOND
    assert messages[0].key == TaskKey(8, 0)
    assert board.jobs[b"a.mp4"].done_seconds == 60.0
    board.durable(result(messages[0].key, points={"speech": 1}, speech_seconds=1.0, section=1), 2.0)
    for message in messages[1:]:
        board.durable(result(message.key, points={"frames": 60}), 2.0)
    job = only(board)
    assert (job.status, job.points, job.sums["speech_seconds"]) == ("indexed", {"frames": 180, "speech": 5}, 10.0)


def test_what_was_given_up_stays_so_with_its_reason_and_the_rest_goes_on() -> None:
    book = Book(PlannedTask(7, SPANS[1], "failed", 3, None, None, ("decoder-died", "gave up")))
    board, messages = booked(book, media(audio=None))
    assert len(messages) == 2
    for message in messages:
        board.durable(result(message.key, points={"frames": 60}), 2.0)
    job = only(board)
    assert job.status == "partial"
    assert [(gap.start_seconds, gap.end_seconds) for gap in job.gaps] == [(60.0, 120.0)]
    assert job.error == VideoError("decoder-died", "gave up")


def test_a_video_of_which_nothing_is_left_to_do_is_finished_at_once() -> None:
    rows = [PlannedTask(n, span, "done", 0, None, result(TaskKey(n, 0), points={"frames": 1}), None)
            for n, span in enumerate(SPANS)]  # fmt: skip
    board, messages = booked(Book(*rows), media(audio=None))
    assert messages == []
    assert only(board).points == {"frames": 3}


def test_the_sections_of_a_sound_track_count_once_each_whatever_attempt_brings_them() -> None:
    board, (audio,) = booked(Book(), media(video=None))
    first = result(audio.key, points={"speech": 2}, resume=SECOND)
    assert board.durable(first, 2.0)
    assert not board.durable(first, 3.0)
    board.decoder_lost(audio.key, "crashed", 4.0)
    again: Any = board.next_message()
    assert (again.key.attempt, again.resume) == (1, SECOND)
    assert not board.durable(result(again.key, points={"speech": 2}, resume=SECOND), 5.0), "of the attempt before it"
    assert board.durable(result(again.key, points={"speech": 3}, section=1), 6.0)
    assert only(board).points == {"speech": 5}


def test_languages_and_counted_notes_of_all_sections_add_up() -> None:
    board, (audio,) = booked(Book(), media(video=None))
    notes = (counted_note(RETRIED, 2), "one more thing")
    board.durable(result(audio.key, languages=(("de", 3.0), ("en", 1.0)), notes=notes, resume=SECOND), 2.0)
    board.durable(result(audio.key, languages=(("en", 2.5),), notes=notes, section=1), 3.0)
    job = only(board)
    assert job.languages == {"de": 3.0, "en": 3.5}
    assert job.notes == [counted_note(RETRIED, 4), "no video stream: no frames", "one more thing"]


def test_a_section_that_is_durable_clears_its_task_of_the_deaths_before() -> None:
    config = {"run": RunOptions(attempts=2)}
    board, (audio,) = booked(Book(), media(video=None), **config)
    board.decoder_lost(audio.key, "crashed", 2.0)
    again: Any = board.next_message()
    board.durable(result(again.key, resume=SECOND), 3.0)
    board.decoder_lost(again.key, "crashed", 4.0)
    assert board.queued_tasks == 1
    assert not board.finished


def test_deaths_by_a_foreign_hand_accuse_a_task_less() -> None:
    board, (message, *_) = booked(Book(), media(audio=None), run=RunOptions(attempts=1))
    for attempt in range(STRANGE_DEATHS - 1):
        board.decoder_lost(TaskKey(message.key.task_id, attempt), "killed", 2.0, strange=True)
        assert not board.jobs[b"a.mp4"].gaps
        board.next_message()
    board.decoder_lost(TaskKey(message.key.task_id, STRANGE_DEATHS - 1), "killed", 2.0, strange=True)
    assert len(board.jobs[b"a.mp4"].gaps) == 1


def test_the_book_is_told_of_deaths_and_of_what_is_given_up_but_not_of_what_passes() -> None:
    book = Book()
    board, messages = booked(book, media(audio=None), run=RunOptions(attempts=2))
    keys = [message.key for message in messages]
    board.decoder_lost(keys[0], "crashed", 2.0)
    board.decoder_lost(TaskKey(keys[0].task_id, 1), "crashed", 2.0)
    board.failed(keys[1], "not-found", "it was moved", 2.0)
    board.failed(keys[2], "drained", "stopped", 2.0)
    task_id = keys[0].task_id
    assert book.calls[1:] == [("died", task_id), ("died", task_id), ("failed", task_id, "decoder-died")]
    assert only(board).status == "failed"


def test_a_span_in_which_the_file_was_out_of_reach_is_not_called_done() -> None:
    book = Book()
    board, messages = booked(book, media(audio=None))
    gap = Gap(start_seconds=3.0, end_seconds=60.0, reason="not-found: no such file")
    broken = Gap(start_seconds=61.0, end_seconds=62.0, reason="corrupt: bad data")
    for message, gaps in zip(messages, [(gap,), (broken,), ()], strict=True):
        board.durable(result(message.key, points={"frames": 3}, gaps=gaps), 2.0)
    assert [call[1] for call in book.calls if call[0] == "section"] == [message.key.task_id for message in messages[1:]]
    job = only(board)
    assert (job.status, job.is_passing) == ("partial", True)


def test_while_the_book_is_away_nothing_changes_and_the_same_call_can_be_made_again() -> None:
    book = Book()
    board = Board(Config(run=RunOptions(attempts=1)), FORMAT, book=book)
    board.add(b"a.mp4", "a.mp4", 0.0)
    probe: Any = board.next_message()
    calls: list[Any] = [lambda: board.probed(probed(probe.key, media(audio=None)), 1.0)]

    def again(call: Any) -> None:
        book.is_away = True
        before = (board.queued_tasks, len(board.jobs), list(board.finished))
        with pytest.raises(SluiceError):
            call()
        assert (board.queued_tasks, len(board.jobs), list(board.finished)) == before
        book.is_away = False
        call()

    again(calls[0])
    first, second, third = (message.key for message in iter(board.next_message, None))  # type: ignore[attr-defined]
    again(lambda: board.durable(result(first, points={"frames": 1}), 2.0))
    again(lambda: board.failed(second, "bad-span", "no", 2.0))
    again(lambda: board.decoder_lost(third, "crashed", 2.0))
    job = only(board)
    assert (job.points, len(job.gaps)) == ({"frames": 1}, 2)


def test_what_a_run_before_this_one_left_with_the_consumer_goes_into_the_book() -> None:
    book = Book()
    board = Board(Config(), FORMAT, book=book)
    assert not board.durable(result(TaskKey(77, 0), section=3), 1.0)
    assert book.calls == [("section", 77, 3)]


def test_files_of_a_higher_priority_go_first() -> None:
    board = Board(Config(), FORMAT)
    for path, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        board.add(path.encode(), path, 0.0, priority)
    assert board.top_priority == 5
    assert [message.path for message in iter(board.next_message, None)] == [b"b", b"d", b"a", b"c"]  # type: ignore[attr-defined]
    assert board.top_priority is None


def test_the_time_to_the_first_searchable_point_counts_from_the_complete_file() -> None:
    board = Board(Config(), FORMAT)
    board.add(b"a.mp4", "a.mp4", 10.0, 0, 4.0)
    probe: Any = board.next_message()
    board.probed(probed(probe.key, media(audio=None)), 11.0)
    message: Any = board.next_message()
    job = board.jobs[b"a.mp4"]
    assert job.searchable_seconds is None
    board.searchable(message.key, 12.0)
    board.searchable(message.key, 13.0)
    assert job.searchable_seconds == 8.0


def test_a_task_that_is_alone_when_engines_die_again_and_again_is_given_up() -> None:
    config = Config(run=RunOptions(attempts=2), decode=DecodeOptions(span_seconds=1000))
    board, _ = board_with(media(audio=None), config)
    assert not board.engine_lost("segfault", 2.0, accuse=True)
    board.next_message()
    assert not board.engine_lost("segfault", 2.0), "nobody is accused of a first death"
    board.next_message()
    assert board.engine_lost("segfault", 3.0, accuse=True)
    job = only(board)
    assert job.error is not None
    assert (job.error.code, "segfault" in job.error.message) == ("engine-died", True)


def test_of_several_tasks_none_is_accused_of_the_engines_death() -> None:
    board, messages = board_with(media(), Config(run=RunOptions(attempts=1)))
    assert not board.engine_lost("segfault", 2.0, accuse=True)
    assert board.queued_tasks == len(messages)


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
