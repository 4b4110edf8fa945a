"""Who says what: turns joined to words and segments, by hand-worked cases and against counting second by second."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.labels import NEAR_SECONDS, ScoredWindow, SegmentLabel, Timeline, shared_seconds, union
from stages.turns import Turn


def turn(start: float, end: float, cluster: int) -> Turn:
    return Turn(start, end, cluster, overlap=False)


DIALOGUE = Timeline([turn(0, 10, 1), turn(10, 14, 2), turn(14, 20, 1)])


# --- words ----------------------------------------------------------------------------------------------------------


def test_each_word_is_of_whom_it_overlaps_most() -> None:
    found = DIALOGUE.label(8, 16, [(8, 9), (9.5, 10.4), (9.8, 10.4), (13.9, 14.5)])
    assert found.words == (1, 1, 2, 1)


def test_a_segment_is_of_whom_most_of_its_words_are_by_time() -> None:
    words = [(8.0, 8.2), (8.3, 8.5), (8.6, 8.8), (10.0, 11.5)]
    assert DIALOGUE.label(8, 11.5, words).cluster == 2
    assert DIALOGUE.label(8, 11.5, [*words, (6.0, 8.0)]).cluster == 1


def test_words_count_more_than_the_segments_own_time() -> None:
    assert DIALOGUE.label(0, 12, [(11, 12)]).cluster == 2
    assert DIALOGUE.label(0, 12).cluster == 1


def test_words_without_length_are_counted() -> None:
    assert DIALOGUE.label(8, 14, [(9, 9), (12, 12), (13, 13)]) == SegmentLabel(2, None, None, (1, 2, 2))


def test_a_word_beside_a_turn_is_of_the_nearest() -> None:
    timeline = Timeline([turn(0, 5, 1), turn(6, 9, 2)])
    near = NEAR_SECONDS
    words = [(5.1, 5.2), (5.7, 5.8), (9 + near / 2, 10), (9 + near + 0.1, 12)]
    assert timeline.label(4, 12, words).words == (1, 2, 2, None)


def test_a_word_in_which_two_speak_is_of_who_speaks_more_in_the_segment() -> None:
    timeline = Timeline([turn(0, 10, 1), turn(4, 5, 2)])
    assert timeline.label(0, 10, [(4.2, 4.8)]).words == (1,)
    timeline = Timeline([turn(4, 5, 1), turn(0, 10, 2)])
    assert timeline.label(0, 10, [(4.2, 4.8)]).words == (2,)


def test_nobody_is_named_where_nobody_is_known_to_speak() -> None:
    assert DIALOGUE.label(30, 40, [(31, 32)]) == SegmentLabel(None, None, None, (None,))
    assert Timeline([]).label(0, 1, [(0, 1)]) == SegmentLabel(None, None, None, (None,))


def test_a_segment_of_which_no_word_is_known_is_judged_by_its_time() -> None:
    assert DIALOGUE.label(9, 30, [(25, 26)]) == SegmentLabel(1, None, None, (None,))


# --- segments without words -----------------------------------------------------------------------------------------


def test_a_caption_is_of_who_speaks_longest_in_it() -> None:
    assert DIALOGUE.label(9, 13).cluster == 2
    assert DIALOGUE.label(6, 13).cluster == 1
    assert DIALOGUE.label(9, 13).words == ()


def test_a_caption_beside_all_turns_is_of_the_nearest_one() -> None:
    assert DIALOGUE.label(20.3, 22).cluster == 1
    assert DIALOGUE.label(20.6, 22).cluster is None


def test_of_two_who_speak_as_long_the_first_to_appear_is_named() -> None:
    assert DIALOGUE.label(8, 12).cluster == 1


# --- a second voice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "second"), [(5.0, None), (5.2, 2), (10.0, 2)])
def test_a_second_voice_is_noted_when_it_speaks_at_once_for_most_of_it(end: float, second: int | None) -> None:
    timeline = Timeline([turn(0, 10, 1), turn(0, end, 2)])
    assert timeline.label(0, 10, [(0, 10)]).overlap == second


def test_a_second_voice_that_speaks_after_the_first_is_no_overlap() -> None:
    assert Timeline([turn(0, 5, 1), turn(5, 10, 2)]).label(0, 10).overlap is None


def test_pauses_do_not_count_against_a_second_voice() -> None:
    assert Timeline([turn(0, 2, 1), turn(0, 2, 2)]).label(0, 10).overlap == 2


def test_of_several_at_once_the_one_that_shares_most_is_noted() -> None:
    assert Timeline([turn(0, 10, 1), turn(0, 6, 2), turn(0, 8, 3)]).label(0, 10, [(9, 10)]).overlap == 3


# --- scores ---------------------------------------------------------------------------------------------------------


def test_the_score_is_the_mean_over_the_time_of_the_clusters_windows() -> None:
    windows = [ScoredWindow(0, 3, 1, 0.8), ScoredWindow(1.5, 4.5, 1, 0.6), ScoredWindow(4.5, 6, 2, 0.1)]
    timeline = Timeline([turn(0, 4.5, 1), turn(4.5, 6, 2)], windows)
    assert timeline.label(0, 3).score == pytest.approx((3 * 0.8 + 1.5 * 0.6) / 4.5)
    assert timeline.label(3.5, 5).score == pytest.approx(0.6)
    assert timeline.label(4.6, 5).score == pytest.approx(0.1)


def test_a_segment_beside_all_windows_has_no_score() -> None:
    timeline = Timeline([turn(0, 3, 1)], [ScoredWindow(0, 3, 1, 0.8)])
    assert timeline.label(3.1, 4) == SegmentLabel(1, None, None, ())


# --- against counting -----------------------------------------------------------------------------------------------

Spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda each: (each[0], each[0] + each[1])), max_size=8
)


def seconds_of(spans: list[tuple[int, int]]) -> set[int]:
    return {second for start, end in spans for second in range(start, end)}


@given(Spans, Spans)
def test_time_that_is_shared_is_what_counting_finds(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    assert shared_seconds(union(first), union(second)) == len(seconds_of(first) & seconds_of(second))
    assert {s for start, end in union(first) for s in range(int(start), int(end))} == seconds_of(first)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.integers(1, 4)), max_size=10),
    st.tuples(st.integers(0, 30), st.integers(1, 10)),
)
def test_who_speaks_is_what_counting_finds(turns: list[tuple[int, int, int]], segment: tuple[int, int]) -> None:
    timeline = Timeline(turn(start, start + length, cluster) for start, length, cluster in turns)
    start, end = segment[0], segment[0] + segment[1]
    said = {
        cluster: seconds_of([(a, a + n) for a, n, who in turns if who == cluster]) & set(range(start, end))
        for _, _, cluster in turns
    }
    found = timeline.label(start, end)
    longest = max((len(each) for each in said.values()), default=0)
    if longest:
        assert found.cluster == min(cluster for cluster, each in said.items() if len(each) == longest)
        together = {other: len(said[found.cluster] & each) for other, each in said.items() if other != found.cluster}
        spoken = len(set().union(*said.values()))
        loud = {other: shared for other, shared in together.items() if 2 * shared > spoken}
        assert found.overlap == (min(loud, key=lambda other: (-loud[other], other)) if loud else None)
    else:
        assert found.overlap is None


def test_a_meeting_of_hours_with_many_turns_is_labelled_whole() -> None:
    rng = random.Random(5)
    speakers = [rng.randint(1, 20) for _ in range(5000)]
    turns = [turn(6.0 * n, 6.0 * n + 5.5, speaker) for n, speaker in enumerate(speakers)]
    timeline = Timeline([*turns, turn(0, 30_000, 21)])  # 21 never pauses
    labels = [timeline.label(3.0 * n, 3.0 * n + 3, [(3.0 * n + 2, 3.0 * n + 3)] * 10) for n in range(10_000)]
    assert [label.cluster for label in labels[::2]] == speakers
    assert {label.cluster for label in labels[1::2]} == {21}
    assert [label.overlap for label in labels[1::2]] == speakers
