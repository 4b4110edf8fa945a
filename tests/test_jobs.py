"""Attempts and their sections, without an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.jobs import Attempt, Attempts, InOrder, Job, covered_seconds
from stages.hearing import Note
from transport.messages import AudioResume, Caption, Checkpoint, TaskEnd, TaskKey, TaskStart

KEY = TaskKey(1, 0)


def start(attempts: Attempts, section: int = 0) -> None:
    attempts.start(TaskStart(key=KEY, video_id="video", shown_path="a.mp4", section=section))


def checkpoint(section: int, items: int = 0) -> Checkpoint:
    return Checkpoint(
        key=KEY, items=items, gaps=(), resume=AudioResume(section=section + 1, seconds=float(section), state=b"")
    )


def end(items: int = 0) -> TaskEnd:
    return TaskEnd(key=KEY, items=items, gaps=())


def test_a_section_is_finished_when_all_its_items_came_and_none_is_pending() -> None:
    attempts = Attempts()
    start(attempts)
    section = attempts.current(KEY)
    assert section is not None
    section.received, section.pending = 2, 1
    attempts.close(checkpoint(0, items=2))
    assert attempts.take_finished(KEY) == []
    section.pending = 0
    assert attempts.take_finished(KEY) == [section]
    assert attempts.take_finished(KEY) == []
    assert len(attempts) == 1, "the attempt goes on"


def test_no_item_belongs_to_an_attempt_that_has_ended() -> None:
    attempts = Attempts()
    assert attempts.current(KEY) is None
    start(attempts)
    section = attempts.current(KEY)
    assert section is not None
    section.received = 1
    attempts.close(end(items=2))
    assert attempts.current(KEY) is None
    attempts.close(end(items=1))
    assert attempts.take_finished(KEY) == [], "the first end counts"


def test_more_is_to_come_until_the_last_section_has_ended() -> None:
    attempts = Attempts()
    assert attempts.are_ended
    start(attempts)
    assert not attempts.are_ended
    attempts.close(checkpoint(0))
    assert not attempts.are_ended
    attempts.close(end())
    assert attempts.are_ended
    assert [each.section for each in attempts.take_finished(KEY)] == [0, 1]
    assert len(attempts) == 0


def test_the_checkpoint_says_which_section_it_ends() -> None:
    attempts = Attempts()
    start(attempts)
    attempts.close(checkpoint(4))
    attempts.close(end())
    assert [each.section for each in attempts.take_finished(KEY)] == [4, 5]


def test_an_aborted_attempt_cannot_be_started_any_more() -> None:
    attempts = Attempts()
    attempts.abort(KEY)
    start(attempts)
    assert attempts.current(KEY) is None
    attempts.close(checkpoint(0))
    assert attempts.take_finished(KEY) == []


@given(st.permutations(range(6)))
def test_sections_leave_in_order_whatever_the_order_in_which_they_are_done(order: list[int]) -> None:
    attempts = Attempts()
    start(attempts)
    sections = []
    for number in range(6):
        section = attempts.current(KEY)
        assert section is not None
        section.received = section.pending = 1
        sections.append(section)
        attempts.close(checkpoint(number, items=1) if number < 5 else end(items=1))
    left: list[int] = []
    for number in order:
        sections[number].pending = 0
        left += [each.section for each in attempts.take_finished(KEY)]
        assert left == list(range(len(left)))
    assert len(left) == 6
    assert len(attempts) == 0


def test_overlapping_intervals_are_counted_once() -> None:
    assert covered_seconds([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)]) == pytest.approx(4.0)


# --- windows of a sound track -----------------------------------------------------------------------------------------


def test_windows_pass_at_once_while_none_must_run_alone() -> None:
    line = InOrder()
    jobs = [job(number) for number in range(3)]
    assert [line.add(each, False) for each in jobs] == [[each] for each in jobs]
    assert [line.done() for _ in jobs] == [[], [], []]


def test_a_window_that_runs_alone_waits_for_those_before_it_and_those_behind_wait_for_it() -> None:
    line = InOrder()
    a, b, alone, c, d = (job(number) for number in range(5))
    assert [line.add(each, each is alone) for each in (a, b, alone, c, d)] == [[a], [b], [], [], []]
    assert [line.done(), line.done()] == [[], [alone]]
    assert line.done() == [c, d]


@given(st.lists(st.booleans(), max_size=20), st.data())
def test_every_window_goes_once_in_order_and_those_that_must_alone(alone: list[bool], data: st.DataObject) -> None:
    line, jobs = InOrder(), [job(number) for number in range(len(alone))]
    coming, under_way, gone = list(jobs), list[Job](), list[Job]()
    while coming or under_way:
        if coming and (not under_way or data.draw(st.booleans())):
            going = line.add(coming[0], alone[len(jobs) - len(coming)])
            coming.pop(0)
        else:
            under_way.pop(0)
            going = line.done()
        gone += going
        under_way += going
        numbers = [int(each.start_seconds) for each in under_way]
        assert len(numbers) <= 1 or not any(alone[number] for number in numbers)
    assert gone == jobs


def job(number: int) -> Job:
    source = Caption(key=KEY, start_seconds=0.0, end_seconds=1.0, text="", language=None)
    attempt = Attempt(TaskStart(key=KEY, video_id="video", shown_path="a.mp4"))
    return Job("speech", attempt, None, float(number), number + 1.0, source)


def test_a_section_hands_on_what_was_heard_up_to_its_end() -> None:
    attempts = Attempts()
    attempts.start(TaskStart(key=KEY, video_id="video", shown_path="a.mp4", languages=(("fr", 10.0),)))
    first = attempts.current(KEY)
    assert first is not None
    numbers = [first.log.add()]
    attempts.close(checkpoint(0))
    second = attempts.current(KEY)
    assert second is not None
    numbers.append(second.log.add())
    for number, language in zip(numbers, ("fr", "de"), strict=True):
        second.log.note(number, Note(language, 5.0))
    attempts.close(checkpoint(1))
    attempts.close(end())
    results = [attempt.result() for attempt in attempts.take_finished(KEY)]
    assert [result.resume.languages if result.resume else None for result in results] == [
        (("fr", 15.0),), (("de", 5.0), ("fr", 15.0)), None,
    ]  # fmt: skip
