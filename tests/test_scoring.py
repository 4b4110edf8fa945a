"""Scoring: cases worked by hand, the published words' rules, and the field's own tool where it is installed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches.labels import Interval, Turn
from benches.scoring import (
    NOBODY,
    DiarizationErrors,
    Naming,
    Place,
    Stretch,
    WordErrors,
    diarization_errors,
    naming,
    normalised,
    rank,
    recall,
    stretches,
    word_errors,
)

ALL = [(0.0, 100.0)]

# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found", "errors"),
    [
        ("the cat sat", "the cat sat", WordErrors(3, 0, 0, 0)),
        ("the cat sat", "the dog sat", WordErrors(3, 1, 0, 0)),
        ("the cat sat", "cat sat", WordErrors(3, 0, 1, 0)),
        ("the cat sat", "the black cat sat", WordErrors(3, 0, 0, 1)),
        ("the cat sat", "", WordErrors(3, 0, 3, 0)),
        ("", "thank you for watching", WordErrors(0, 0, 0, 4)),
        ("[coughs]", "", WordErrors(0, 0, 0, 0)),
        ("a b c d", "b x d e f", WordErrors(4, 1, 1, 2)),  # without a; x for c; and e, f
    ],
)
def test_errors_among_words(said: str, found: str, errors: WordErrors) -> None:
    assert word_errors([said], [found]) == errors


def test_rate_is_of_all_words_that_were_said() -> None:
    errors = word_errors(["one day", "a very long time ago there was"], ["some day", "a very long time ago there was"])
    assert errors.rate == pytest.approx(1 / 9)  # and not the mean of 1/2 and 0
    assert errors == word_errors(["one day"], ["some day"]) + WordErrors(words=7)
    assert word_errors(["no"], ["oh no no"]).rate == 2.0
    assert WordErrors(inserted=3).rate is None


def test_texts_are_compared_pair_by_pair() -> None:
    assert word_errors(["left", "right"], ["right", "left"]) == WordErrors(2, 2, 0, 0)
    with pytest.raises(ValueError, match="shorter"):
        word_errors(["one", "two"], ["one"])


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "Mr. Hale's COLOUR -- it won't do!", "mister hale is color it will not do"),
        ("en", "twenty-five dollars, um, in 1961", "$25 in nineteen sixty one"),
        ("en", "[laughs] so (she said) go", "So, go."),
        ("fr", "C’est évident: l'écran tactile.", "c est évident l écran tactile"),
        ("zh", "今天。天气", "今天天气"),
    ],
)
def test_spelling_is_no_error(language: str, one: str, other: str) -> None:
    assert normalised(one, language) == normalised(other, language)
    assert word_errors([one], [other], language).rate == 0.0


def test_characters_are_words_where_no_spaces_are_written() -> None:
    assert word_errors(["今天天气"], ["今天大气"], "zh") == WordErrors(4, 1, 0, 0)
    assert word_errors(["été"], ["ete"], "fr") == WordErrors(1, 1, 0, 0)


# --- who speaks when --------------------------------------------------------------------------------------------------


def turns(*each: tuple[float, float, str]) -> list[Turn]:
    return [Turn(*one) for one in each]


def strict(labelled: list[Turn], found: list[Turn], scored: Sequence[Interval] = ALL) -> DiarizationErrors:
    return diarization_errors(labelled, found, scored, collar_seconds=0.0)


def test_other_names_for_the_same_people_are_no_error() -> None:
    labelled = turns((0, 10, "Ann"), (10, 20, "Bob"), (20, 30, "Ann"))
    found = turns((0, 10, "2"), (10, 20, "1"), (20, 30, "2"))
    assert strict(labelled, found) == DiarizationErrors(speech_seconds=30)
    assert strict(labelled, found).rate == 0.0


def test_missed_false_and_confused_speech() -> None:
    labelled = turns((0, 10, "Ann"), (10, 20, "Bob"))
    found = turns((2, 12, "1"), (12, 24, "2"))
    # 0-2 missed; 10-12 is Bob's, and 1 is Ann; 20-24 nobody speaks
    assert strict(labelled, found) == DiarizationErrors(20, missed_seconds=2, false_seconds=4, confused_seconds=2)
    assert strict(labelled, found).rate == pytest.approx(8 / 20)


def test_a_found_voice_stands_for_one_person_only() -> None:
    labelled = turns((0, 10, "Ann"), (10, 16, "Bob"))
    assert strict(labelled, turns((0, 16, "1"))) == DiarizationErrors(16, confused_seconds=6)
    assert strict(turns((0, 16, "Ann")), turns((0, 10, "1"), (10, 16, "2"))) == DiarizationErrors(
        16, confused_seconds=6
    )


def test_speakers_are_chosen_so_that_the_sum_is_best() -> None:
    """Each voice on its own would be Ann: 1 for 5 s, 2 for 4 s. Together they are right for 4 + 3 s, not for 5 + 0."""
    labelled = turns((0, 5, "Ann"), (5, 8, "Bob"), (8, 12, "Ann"))
    found = turns((0, 8, "1"), (8, 12, "2"))
    assert strict(labelled, found) == DiarizationErrors(12, confused_seconds=5)


def test_overlapping_speech_counts_for_everybody_who_speaks() -> None:
    labelled = turns((0, 10, "Ann"), (6, 14, "Bob"))
    alone = turns((0, 10, "1"), (10, 14, "2"))
    assert strict(labelled, alone) == DiarizationErrors(18, missed_seconds=4)
    both = turns((0, 10, "1"), (6, 14, "2"))
    assert strict(labelled, both) == DiarizationErrors(18)
    three = [*both, Turn(6, 8, "3")]
    assert strict(labelled, three) == DiarizationErrors(18, false_seconds=2)


def test_overlap_can_be_left_out() -> None:
    labelled = turns((0, 10, "Ann"), (6, 14, "Bob"))
    found = turns((0, 10, "1"), (10, 14, "2"))
    errors = diarization_errors(labelled, found, ALL, collar_seconds=0.0, with_overlap=False)
    assert errors == DiarizationErrors(10)


def test_collar_leaves_both_sides_of_each_border_out() -> None:
    labelled = turns((10, 20, "Ann"), (20, 30, "Bob"))
    found = turns((9.75, 20.25, "1"), (20.25, 30.5, "2"))
    assert strict(labelled, found) == DiarizationErrors(20, false_seconds=0.75, confused_seconds=0.25)
    errors = diarization_errors(labelled, found, ALL, collar_seconds=0.25)
    assert errors == DiarizationErrors(19, false_seconds=0.25)


def test_a_turn_shorter_than_two_collars_is_not_scored() -> None:
    errors = diarization_errors(turns((10, 10.4, "Ann")), [], ALL, collar_seconds=0.25)
    assert errors == DiarizationErrors()
    assert errors.rate is None


def test_only_what_is_labelled_is_scored() -> None:
    labelled, found = turns((0, 10, "Ann"), (20, 30, "Bob")), turns((0, 40, "1"))
    assert strict(labelled, found, [(0, 8), (22, 30)]) == DiarizationErrors(16, confused_seconds=8)
    assert strict(labelled, found, []) == DiarizationErrors()


def test_a_speaker_who_is_labelled_twice_at_once_speaks_once() -> None:
    assert strict(turns((0, 10, "Ann"), (4, 12, "Ann")), turns((0, 12, "1"))) == DiarizationErrors(12)


def test_nothing_found_is_all_missed_and_errors_add_up() -> None:
    missed = strict(turns((0, 10, "Ann")), [])
    assert missed == DiarizationErrors(10, missed_seconds=10)
    assert (missed + DiarizationErrors(30)).rate == pytest.approx(0.25)
    assert strict([], turns((0, 10, "1"))) == DiarizationErrors(false_seconds=10)


def test_stretches_cover_the_scored_time_without_what_is_left_out() -> None:
    found = list(stretches(turns((0, 4, "Ann")), turns((2, 6, "1")), [(1, 8)], [(3, 5)]))
    assert [(each.seconds, set(each.labelled), set(each.found)) for each in found] == [
        (1.0, {"Ann"}, set()),
        (1.0, {"Ann"}, {"1"}),
        (1.0, set(), {"1"}),
        (2.0, set(), set()),
    ]


def drawn_turns(names: str) -> st.SearchStrategy[list[Turn]]:
    """Turns at whole seconds, so that their sums are exact."""
    turn = st.builds(
        lambda start, seconds, name: Turn(start, start + seconds, name),
        st.integers(0, 40),
        st.integers(1, 12),
        st.sampled_from(names),
    )
    return st.lists(turn, max_size=8)


def wrong_speakers(stretch: Stretch) -> int:
    """How many are missing, or too many, or other ones, when the found are named as the labelled."""
    return max(len(stretch.labelled - stretch.found), len(stretch.found - stretch.labelled))


@given(drawn_turns("ABC"), drawn_turns("123"), st.sampled_from([0.0, 0.5]), st.booleans())
def test_the_choice_of_speakers_is_the_best_of_all(
    labelled: list[Turn], found: list[Turn], collar: float, with_overlap: bool
) -> None:
    errors = diarization_errors(labelled, found, ALL, collar, with_overlap)
    edges = [edge for turn in labelled for edge in (turn.start_seconds, turn.end_seconds)]
    collars = [(edge - collar, edge + collar) for edge in edges] if collar else []
    wrong = []
    for order in permutations("ABC"):
        named = [replace(turn, speaker=order[int(turn.speaker) - 1]) for turn in found]
        counted = [one for one in stretches(labelled, named, ALL, collars) if with_overlap or len(one.labelled) < 2]
        wrong.append(sum(one.seconds * wrong_speakers(one) for one in counted))
    assert errors.missed_seconds + errors.false_seconds + errors.confused_seconds == pytest.approx(min(wrong))


def test_the_same_as_pyannote_metrics() -> None:
    """The field's tool, which `make quality` installs; its collar is the whole width of the gap, ours is one side."""
    metrics = pytest.importorskip("pyannote.metrics.diarization", reason="`make quality` installs it")
    core = pytest.importorskip("pyannote.core")
    drawn = random.Random(0)
    for collar, with_overlap in ((0.0, True), (0.25, True), (0.25, False)):
        for _ in range(20):
            labelled, found = (list(drawn_turns_of(drawn, names)) for names in ("ABCD", "12345"))
            measure = metrics.DiarizationErrorRate(collar=2 * collar, skip_overlap=not with_overlap)
            scored = core.Timeline([core.Segment(5, 70)])
            theirs = measure(annotated(core, labelled), annotated(core, found), uem=scored, detailed=True)
            ours = diarization_errors(labelled, found, [(5, 70)], collar, with_overlap)
            kinds = ("total", "missed detection", "false alarm", "confusion")
            assert [theirs[kind] for kind in kinds] == pytest.approx(list(astuple(ours)), abs=1e-6)


def drawn_turns_of(drawn: random.Random, names: str) -> Iterator[Turn]:
    """Some turns in 80 s. Those of one speaker follow each other: theirs counts who overlaps himself twice."""
    for name in names:
        end = drawn.uniform(0, 15)
        while end < 80:
            start, end = end, end + drawn.uniform(0.2, 9)
            yield Turn(start, end, name)
            end += drawn.uniform(0.1, 20)


def annotated(core: Any, each: list[Turn]) -> Any:
    annotation = core.Annotation()
    for number, turn in enumerate(each):
        annotation[core.Segment(turn.start_seconds, turn.end_seconds), number] = turn.speaker
    return annotation


# --- names ------------------------------------------------------------------------------------------------------------

PEOPLE = ("Ann", "Bob")


def test_names_are_right_wrong_unknown_or_unheard() -> None:
    labelled = turns((0, 10, "Ann"), (10, 20, "Bob"))
    found = turns((0, 6, "Ann"), (6, 9, NOBODY), (12, 17, "Ann"), (17, 20, "Bob"))
    result = naming(labelled, found, PEOPLE, ALL)
    assert result == Naming(right_seconds=9, wrong_seconds=5, unknown_seconds=3, unheard_seconds=3)
    assert result.accuracy == pytest.approx(9 / 20)


def test_strangers_should_get_no_name() -> None:
    labelled = turns((0, 10, "Cay"), (10, 20, "Ann"))
    found = turns((0, 4, NOBODY), (4, 10, "Bob"), (10, 20, "Ann"))
    result = naming(labelled, found, PEOPLE, ALL)
    assert result == Naming(right_seconds=10, stranger_seconds=10, misnamed_seconds=6)
    assert naming(labelled[:1], found, PEOPLE, ALL).accuracy is None


def test_a_name_among_several_who_speak_is_right_for_its_bearer_and_not_wrong_for_the_others() -> None:
    labelled = turns((0, 10, "Ann"), (0, 10, "Bob"), (0, 10, "Cay"))
    result = naming(labelled, turns((0, 10, "Ann")), PEOPLE, ALL)
    assert result == Naming(right_seconds=10, unknown_seconds=10, stranger_seconds=10)
    assert naming(labelled, turns((0, 10, "Ann")), PEOPLE, ALL, counted={"Bob"}) == Naming(unknown_seconds=10)


def test_what_people_were_enrolled_from_is_not_scored() -> None:
    labelled, found = turns((0, 10, "Ann")), turns((0, 10, "Ann"))
    assert naming(labelled, found, PEOPLE, [(0, 8)], left_out=[(0, 3)]) == Naming(right_seconds=5)


def test_names_given_to_silence_are_no_part_of_it() -> None:
    assert naming(turns((0, 5, "Ann")), turns((5, 9, "Bob")), PEOPLE, ALL) == Naming(unheard_seconds=5)


# --- search -----------------------------------------------------------------------------------------------------------


def test_a_hit_holds_the_answer_when_they_share_half_of_the_shorter() -> None:
    answer = Place("film", 10, 20)
    assert Place("film", 0, 60).holds(answer)
    assert Place("film", 12, 14).holds(answer)
    assert Place("film", 15, 40).holds(answer)
    assert not Place("film", 15.1, 40).holds(answer)
    assert not Place("other", 10, 20).holds(answer)
    assert not Place("film", 20, 20).holds(answer)


def test_rank_and_recall() -> None:
    hits = [Place("film", at, at + 5) for at in (50, 10, 0)]
    first, second = Place("film", 0, 5), Place("film", 10, 15)
    assert rank(hits, [first]) == 3
    assert rank(hits, [first, second]) == 2
    assert rank(hits, [Place("film", 90, 95)]) is None
    ranks = [1, 3, None, 2]
    assert [recall(ranks, k) for k in (1, 2, 3, 10)] == [0.25, 0.5, 0.75, 0.75]
    assert recall([], 1) is None
