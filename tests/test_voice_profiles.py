"""Profiles of people: which clips make one, from which cosine on a voice is theirs, and whose voice it is."""

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.profiles import (
    DEFAULT_THRESHOLD,
    ENOUGH_SCORES,
    HIGHEST_THRESHOLD,
    HISTORY_EVENTS,
    LOWEST_THRESHOLD,
    MARGIN,
    SAME_PERSON_SCORE,
    Profile,
    Roster,
    SpeakerError,
    Threshold,
    calibrate,
    check_same_person,
    clean_name,
    distinct,
    equal_error,
    find,
    merged,
    new_profile,
    sample_vector,
    spread,
    unit,
    unmatched,
    voice_dimension,
    with_clips,
)
from transport.messages import VoiceSample

DIMENSION = 192
SAME = 0.65  # cosine of two windows of one person, as of ECAPA's
NOW = 1_790_000_000.0  # 2026-09-21T13:46:40 UTC
Rows = NDArray[np.float32]


def people(count: int, seed: int = 1) -> Rows:
    """Voices of different people, float32 [count, DIMENSION]: cosines of 0.1 ± 0.1."""
    rng = np.random.default_rng(seed)
    common = math.sqrt(0.1) * unit(rng.standard_normal(DIMENSION))
    own = rng.standard_normal((count, DIMENSION)) * math.sqrt(0.9 / DIMENSION)
    return np.stack([unit(common + row) for row in own])


def windows(person: Rows, count: int, seed: int) -> Rows:
    """Windows of one person, float32 [count, DIMENSION] of length 1."""
    noise = np.random.default_rng(seed).standard_normal((count, DIMENSION)) * math.sqrt((1 - SAME) / DIMENSION)
    rows = math.sqrt(SAME) * person + noise
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def clip(person: Rows, name: str = "a", count: int = 10, seed: int = 0) -> VoiceSample:
    """A clip of one person; its content is its name."""
    rows = tuple(tuple(float(value) for value in row) for row in windows(person, count, seed))
    return VoiceSample(content=f"content {name}", shown_path=f"/clips/{name}.wav", seconds=1.5 * count, vectors=rows)


def axis(*values: float) -> Rows:
    """A unit vector that can be reckoned with by hand."""
    return np.array([*values, math.sqrt(1 - sum(value * value for value in values))], np.float32)


def profile(name: str, vector: Rows, **facts: Any) -> Profile:
    made = Profile(f"id of {name}", name, vector, windows=4, seconds=6.0, clips=(), history=())
    return replace(made, **facts)


def raises_refusal(code: str, *words: str) -> Any:
    """What the one line must say."""
    return pytest.raises(
        SpeakerError, check=lambda error: error.code == code and all(w in error.message for w in words)
    )


# --- the threshold --------------------------------------------------------------------------------------------------


def normal(mean: float, deviation: float, count: int = 400) -> list[float]:
    """Quantiles of a normal distribution."""
    return [NormalDist(mean, deviation).inv_cdf((n + 0.5) / count) for n in range(count)]


def test_of_a_thousand_strangers_one_is_above_the_threshold() -> None:
    found = calibrate(normal(0.9, 0.03), normal(0.1, 0.1))
    assert (found.source, found.genuine, found.impostor) == ("archive", 400, 400)
    assert found.value == pytest.approx(0.1 + 3.09 * 0.1, abs=0.005)
    assert 1 - NormalDist(0.1, 0.1).cdf(found.value) == pytest.approx(0.001, rel=0.15)


@pytest.mark.parametrize(("profiles", "deviations"), [(0, 3.09), (1, 3.09), (10, 3.72), (1000, 4.75)])
def test_the_more_profiles_there_are_the_surer_each_match_must_be(profiles: int, deviations: float) -> None:
    found = calibrate([], normal(0.2, 0.05), profiles)
    assert found.value == pytest.approx(0.2 + deviations * 0.05, abs=0.003)


def test_scores_that_lie_close_are_parted_at_the_point_of_equal_error() -> None:
    found = calibrate(normal(0.5, 0.1), normal(0.2, 0.1))
    assert found.value == pytest.approx(0.35, abs=0.003)  # 0.2 + 3.09 * 0.1 would shut out half of the genuine


def test_the_point_of_equal_error_is_as_many_deviations_from_both() -> None:
    assert equal_error((0.6, 0.1), (0.1, 0.1)) == pytest.approx(0.35)
    assert equal_error((0.7, 0.2), (0.1, 0.1)) == pytest.approx(0.3)


def test_a_tenth_of_wrong_scores_hardly_moves_the_threshold() -> None:
    clean = calibrate(normal(0.9, 0.03), normal(0.1, 0.1)).value
    spoilt = calibrate(normal(0.9, 0.03) + normal(0.2, 0.1, 40), normal(0.1, 0.1) + normal(0.7, 0.05, 40)).value
    assert spoilt == pytest.approx(clean, abs=0.07)
    naive = np.mean(normal(0.1, 0.1) + normal(0.7, 0.05, 40)) + 3.09 * np.std(normal(0.1, 0.1) + normal(0.7, 0.05, 40))
    assert naive > 0.75  # what mean and deviation would have made of it


def test_too_few_scores_leave_the_default() -> None:
    few = normal(0.1, 0.1, ENOUGH_SCORES - 1)
    assert calibrate(normal(0.9, 0.03), few) == Threshold(DEFAULT_THRESHOLD, "default", 400, ENOUGH_SCORES - 1)
    assert calibrate([], []) == Threshold(DEFAULT_THRESHOLD, "default", 0, 0)


def test_foreign_scores_alone_are_enough() -> None:
    assert calibrate([], normal(0.1, 0.1)).source == "archive"


@pytest.mark.parametrize(("mean", "bound"), [(-0.5, LOWEST_THRESHOLD), (0.97, HIGHEST_THRESHOLD)])
def test_the_threshold_stays_in_a_range_that_makes_sense(mean: float, bound: float) -> None:
    assert calibrate([], normal(mean, 0.01)).value == bound


@given(
    st.lists(st.floats(-1, 1), max_size=60),
    st.lists(st.floats(-1, 1), max_size=60),
)
def test_any_scores_give_a_threshold_in_range(genuine: list[float], impostor: list[float]) -> None:
    found = calibrate(genuine, impostor)
    assert LOWEST_THRESHOLD <= found.value <= HIGHEST_THRESHOLD
    assert (found.genuine, found.impostor) == (len(genuine), len(impostor))
    assert calibrate(genuine[::-1], impostor[::-1]) == found


def test_median_and_quartiles_are_those_of_the_normal_distribution() -> None:
    assert spread(normal(0.3, 0.05)) == pytest.approx((0.3, 0.05), rel=0.01)
    assert spread([0.4] * 50) == (0.4, 0.02)


def test_a_threshold_in_an_answer_says_where_it_comes_from() -> None:
    assert Threshold(0.4321, "archive", 200, 1004).as_dict() == {
        "value": 0.432, "source": "archive", "scores": 1204, "impostor": 1004,
    }  # fmt: skip


# --- matching -------------------------------------------------------------------------------------------------------


def test_a_voice_is_that_of_the_nearest_profile_above_the_threshold() -> None:
    roster = Roster([profile("Anna", axis(1.0)), profile("Bert", axis(0.0))], Threshold(0.4, "default"))
    found = roster.match(axis(0.9))
    assert found is not None
    assert found.profile.name == "Anna"
    assert found.score == pytest.approx(0.9)
    assert roster.match(np.array([0.39, -0.5], np.float32)) is None


def test_a_voice_between_two_profiles_is_nobodys() -> None:
    roster = Roster([profile("Anna", axis(1.0, 0.0)), profile("Bert", axis(0.0, 1.0))])
    assert roster.match(axis(0.70, 0.70 - MARGIN + 0.01)) is None
    found = roster.match(axis(0.70, 0.70 - MARGIN - 0.01))
    assert found is not None
    assert found.profile.name == "Anna"


def test_a_second_below_the_threshold_can_still_be_too_near() -> None:
    roster = Roster([profile("Anna", axis(1.0, 0.0)), profile("Bert", axis(0.0, 1.0))], Threshold(0.4, "default"))
    assert roster.match(axis(0.42, 0.39)) is None
    assert roster.match(axis(0.42, 0.30)) is not None


def test_nobody_enrolled_is_nobody_found() -> None:
    assert Roster().match(axis(1.0)) is None
    assert Roster().threshold == Threshold(DEFAULT_THRESHOLD, "default")


def test_people_are_told_apart_as_often_as_the_threshold_says() -> None:
    voices = people(40)
    roster = Roster([profile(f"person {n}", voice) for n, voice in enumerate(voices[:20])])
    for n, voice in enumerate(voices):
        found = roster.match(unit(windows(voice, 20, seed=n).sum(axis=0)))
        assert (found.profile.name if found else None) == (f"person {n}" if n < 20 else None)


def test_profiles_that_sound_alike_are_named() -> None:
    anna, ann, bert = profile("Anna", axis(1.0, 0.0)), profile("Ann", axis(0.8, 0.0)), profile("Bert", axis(0.0, 1.0))
    [(name, score)] = Roster([anna, ann, bert]).alike(anna)
    assert name == "Ann"
    assert score == pytest.approx(0.8)


# --- clips ----------------------------------------------------------------------------------------------------------


def test_a_clip_that_is_given_twice_counts_once() -> None:
    [anna] = people(1)
    first, copy, other = clip(anna, "a"), clip(anna, "a"), clip(anna, "b", seed=1)
    copy = VoiceSample(content=copy.content, shown_path="/clips/copy.wav", seconds=1.0, vectors=copy.vectors)
    kept, notes = distinct([first, copy, other, first])
    assert kept == [first, other]
    assert notes == ["/clips/copy.wav has the same content as /clips/a.wav: counted once"]


def test_clips_of_one_person_are_taken() -> None:
    [anna] = people(1)
    check_same_person([clip(anna, name, count=4, seed=n) for n, name in enumerate("abcde")])
    check_same_person([clip(anna)])
    check_same_person([])


@pytest.mark.parametrize("others", [1, 2, 3, 4])
def test_the_clip_of_another_person_is_named(others: int) -> None:
    anna, bert = people(2)
    clips = [clip(anna, f"anna{n}", seed=n) for n in range(others)]
    clips.insert(1, clip(bert, "bert", seed=9))
    name = "/clips/anna0.wav" if others == 1 else "/clips/bert.wav"  # of two, who is to say which is right?
    with raises_refusal("clip-other-person", "/clips/bert.wav", name, "leave it out"):
        check_same_person(clips)


def test_half_of_the_clips_being_of_another_person_is_refused() -> None:
    anna, bert = people(2)
    clips = [clip(anna, f"anna{n}", seed=n) for n in range(3)] + [clip(bert, f"bert{n}", seed=n) for n in range(3)]
    with raises_refusal("clip-other-person"):
        check_same_person(clips)


def test_a_further_clip_must_sound_like_the_profile() -> None:
    anna, bert = people(2)
    known = new_profile("id", "Anna", [clip(anna)], NOW)
    check_same_person([clip(anna, "b", seed=3)], known)
    with raises_refusal("clip-other-person", "/clips/bert.wav", "Anna", f"{SAME_PERSON_SCORE}"):
        check_same_person([clip(bert, "bert")], known)


def test_what_is_no_voice_is_refused() -> None:
    row = (0.6, 0.8)
    whole = VoiceSample(content="a", shown_path="/a.wav", seconds=6.0, vectors=(row, row))
    assert voice_dimension([whole]) == 2
    with raises_refusal("clip-none"):
        voice_dimension([])
    incomplete: list[tuple[tuple[float, ...], ...]] = [(), ((),), (row, (1.0,)), (row, (*row, 0.0))]
    for vectors in incomplete:
        with raises_refusal("clip-bad", "/b.wav"):
            voice_dimension([whole, VoiceSample(content="b", shown_path="/b.wav", seconds=6.0, vectors=vectors)])
    no_voice: list[tuple[tuple[float, ...], ...]] = [((0.0, 0.0),), ((math.nan, 1.0),), (row, (-0.6, -0.8))]
    for vectors in no_voice:
        with raises_refusal("clip-bad", "/b.wav"):
            sample_vector(VoiceSample(content="b", shown_path="/b.wav", seconds=6.0, vectors=vectors))


# --- profiles -------------------------------------------------------------------------------------------------------


def hand(name: str, *rows: tuple[float, float]) -> VoiceSample:
    return VoiceSample(content=f"content {name}", shown_path=f"/{name}.wav", seconds=2.5 * len(rows), vectors=rows)


def test_a_profile_is_the_mean_of_its_clips_by_windows() -> None:
    made = new_profile("id", "Anna", [hand("a", (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)), hand("b", (0.0, 1.0))], NOW)
    np.testing.assert_allclose(made.vector, np.array([3, 1]) / math.sqrt(10), atol=1e-6)
    assert (made.windows, made.seconds) == (4, 10.0)
    assert made.clips[1] == {
        "content": "content b", "path": "/b.wav", "seconds": 2.5, "added": "2026-09-21T14:13:20+00:00",
    }  # fmt: skip
    assert made.contents == {"content a", "content b"}
    assert [tuple(event) for event in made.history] == [
        ("2026-09-21T14:13:20+00:00", "enrolled", "2 clips, 10 s of speech")
    ]


def test_further_clips_weigh_as_much_as_the_first() -> None:
    [anna] = people(1)
    clips = [clip(anna, name, count=4 + n, seed=n) for n, name in enumerate("abc")]
    at_once = new_profile("id", "Anna", clips, NOW)
    in_turn = with_clips(with_clips(new_profile("id", "Anna", clips[:1], NOW), clips[1:2], NOW), clips[2:], NOW)
    np.testing.assert_allclose(in_turn.vector, at_once.vector, atol=1e-6)
    assert (in_turn.windows, in_turn.seconds, in_turn.clips) == (at_once.windows, at_once.seconds, at_once.clips)


def test_merging_weighs_by_windows_and_keeps_both_histories() -> None:
    one = new_profile("one", "Ann", [hand("a", (0.0, 1.0))], NOW + 5)
    into = new_profile("into", "Anna", [hand("b", (1.0, 0.0), (1.0, 0.0), (1.0, 0.0))], NOW)
    both = merged(one, into, NOW + 9)
    np.testing.assert_allclose(both.vector, np.array([3, 1]) / math.sqrt(10), atol=1e-6)
    assert (both.profile_id, both.name, both.windows, both.seconds) == ("into", "Anna", 4, 10.0)
    assert both.contents == {"content a", "content b"}
    assert [(event.event, event.detail) for event in both.history] == [
        ("enrolled", "1 clip, 8 s of speech"),
        ("enrolled", "1 clip, 2 s of speech"),
        ("merged", "Ann: 1 clip, 2 s of speech"),
    ]
    assert merged(one, both, NOW + 10) is both  # done already


def test_a_history_keeps_its_beginning_and_its_end() -> None:
    made = profile("Anna", axis(1.0))
    for n in range(3 * HISTORY_EVENTS):
        made = made.noting(NOW, "relabelled", str(n))
    assert [event.detail for event in made.history] == ["0", *map(str, range(2 * HISTORY_EVENTS + 1, 300))]
    assert len(made.history) == HISTORY_EVENTS


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Anna", "  Anna ", "Dr. Anna-Lena Müller (ZDF)", "李娜", "Speaker", "speaker one", "x" * 200]
)
def test_names_that_people_have_are_taken(name: str) -> None:
    assert clean_name(name) == name.strip()


def test_a_name_is_stored_in_one_spelling() -> None:
    assert clean_name("Mu\u0308ller") == "M\u00fcller"


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "   ",
        "x" * 201,
        "An\nna",
        "An\x07na",
        "\udcff",
        "speaker 3 of 0123abcd",
        "Speaker 12",
        "SPEAKER 1 of x",
    ],
)
def test_names_that_would_confuse_are_refused_in_one_line(name: str | None) -> None:
    with raises_refusal("name-bad") as caught:
        clean_name(name)
    assert "\n" not in caught.value.message
    assert caught.value.message.isprintable()


def test_voices_without_a_profile_are_named_by_number_and_video() -> None:
    assert unmatched("0123456789abcdef", 3) == "speaker 3 of 01234567"


def test_an_unknown_name_is_told_the_nearest() -> None:
    known = [profile("Anna Müller", axis(1.0)), profile("Bert", axis(0.0))]
    assert find(known, " Bert ").name == "Bert"
    with raises_refusal("name-unknown", "'anna mueller'", "Anna Müller"):
        find(known, "anna mueller")
    with raises_refusal("name-unknown", "speakers list"):
        find(known, "Zacharias")
    with raises_refusal("name-unknown"):
        find([], None)
