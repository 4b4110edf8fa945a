"""Finding voices: the number of them, who is too rare, what is no voice, and vectors without sense."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clustering import (
    USUAL_LIKENESS,
    VoiceVectors,
    agglomerate,
    edge_weights,
    fewest_windows,
    find_voices,
    mean_voices,
)

Doubles = npt.NDArray[np.float64]
SAME = 0.65


def voices_of(vectors: Doubles, hop_seconds: float = 1.5, apart: int = 0) -> VoiceVectors:
    """Windows of 3 s with these vectors, in one stretch, or with a silence after every `apart` of them."""
    numbers = np.arange(len(vectors))
    starts = numbers * hop_seconds + (10.0 * (numbers // apart) if apart else 0.0)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return VoiceVectors(starts, starts + 3.0, unit.astype(np.float16))


def around(center: int, count: int, generator: np.random.Generator, noise: float = 0.6) -> Doubles:
    """Windows of a voice on one axis of 64; with noise of 0.6 their cosines are about 0.7."""
    vectors: Doubles = np.eye(64)[center] + generator.normal(size=(count, 64)) * noise / 8.0
    return vectors


def found_axes(windows: VoiceVectors, same_speaker: float = SAME) -> list[int]:
    """The axes on which voices were found."""
    means = find_voices(windows, same_speaker)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1.0, rtol=1e-5)
    return sorted(np.abs(means).argmax(1).tolist())


# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 19, 20, 300])
def test_one_voice_is_one(count: int) -> None:
    assert found_axes(voices_of(around(3, count, np.random.default_rng(count)))) == [3]


@pytest.mark.parametrize("speakers", [2, 5, 20])
def test_voices_are_counted(speakers: int) -> None:
    generator = np.random.default_rng(speakers)
    vectors = np.concatenate([around(speaker, 30, generator) for speaker in range(speakers)])
    assert found_axes(voices_of(vectors)) == list(range(speakers))


def test_two_windows_of_two_people_are_two_voices() -> None:
    generator = np.random.default_rng(0)
    vectors = np.concatenate([around(0, 1, generator), around(1, 1, generator)])
    assert found_axes(voices_of(vectors, apart=1)) == [0, 1]


def test_who_is_too_rare_for_the_sample_is_found_among_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.clustering.SAMPLE", 40)
    generator = np.random.default_rng(1)
    vectors = np.concatenate([around(0, 300, generator), around(1, 5, generator), around(2, 300, generator)])
    assert found_axes(voices_of(vectors)) == [0, 1, 2]


def test_a_single_window_like_no_other_is_no_voice_in_a_long_recording() -> None:
    generator = np.random.default_rng(2)
    vectors = np.concatenate([around(0, 30, generator), around(1, 1, generator), around(0, 30, generator)])
    assert found_axes(voices_of(vectors)) == [0]
    assert found_axes(voices_of(vectors[26:35])) == [0, 1]  # in a short one it is


def test_windows_of_the_same_second_are_no_evidence_of_a_voice() -> None:
    """Two windows that hardly differ in time have the same noise; two that differ tell of a voice."""
    generator = np.random.default_rng(3)
    strange = 0.4 * np.eye(64)[0] + around(1, 1, generator, noise=0.1)  # somewhat like the one who speaks
    vectors = np.concatenate([around(0, 200, generator), strange, strange])
    starts = np.concatenate([np.arange(200) * 1.5, [400.0, 400.05]])
    lengths = np.concatenate([np.full(200, 3.0), [1.0, 1.0]])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len(find_voices(VoiceVectors(starts, starts + lengths, unit.astype(np.float16)), SAME)) == 1
    starts[201], lengths[200:] = 420.0, 3.0
    assert len(find_voices(VoiceVectors(starts, starts + lengths, unit.astype(np.float16)), SAME)) == 2


def test_windows_that_mix_two_voices_are_no_third() -> None:
    generator = np.random.default_rng(4)
    mixed = around(0, 60, generator) + around(1, 60, generator)
    vectors = np.concatenate([around(0, 100, generator), mixed, around(1, 100, generator)])
    for same_speaker in (SAME, 0.85):  # where a mixture is alike enough to be joined to one of them, and where not
        assert found_axes(voices_of(vectors), same_speaker) == [0, 1]


def test_the_setting_parts_or_joins_voices() -> None:
    generator = np.random.default_rng(5)
    like = around(0, 60, generator) + 0.75 * around(1, 60, generator, noise=0.1)  # cosine of the means: 0.8
    vectors = np.concatenate([around(0, 60, generator), like])
    assert len(find_voices(voices_of(vectors), 0.65)) == 1
    assert len(find_voices(voices_of(vectors), 0.92)) == 2


# --- vectors without sense --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vectors",
    [
        np.random.default_rng(0).normal(size=(400, 64)),  # nothing is like anything
        np.random.default_rng(0).normal(size=(10, 64)),
        np.ones((400, 64)) + np.random.default_rng(0).normal(size=(400, 64)) * 0.1,  # as of an untrained model
        np.ones((400, 64)),
        np.zeros((400, 64)),
    ],
    ids=["random", "few random", "nearly alike", "alike", "zero"],
)
def test_vectors_without_sense_give_few_voices(vectors: Doubles) -> None:
    means = find_voices(voices_of(vectors), SAME)
    assert len(means) == (1 if len(vectors) > 20 else len(means))
    assert len(means) <= len(vectors)
    assert np.isfinite(means).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5), st.floats(0.05, 0.95))
def test_there_is_always_at_least_one_voice(seed: int, count: int, speakers: int, same_speaker: float) -> None:
    generator = np.random.default_rng(seed)
    centers = generator.integers(0, speakers, count)
    vectors = np.concatenate([around(int(center), 1, generator) for center in centers])
    means = find_voices(voices_of(vectors, apart=int(generator.integers(1, 6))), same_speaker)
    assert 1 <= len(means) <= count
    assert means.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1.0, rtol=1e-4)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_windows_are_put_in_order_of_time() -> None:
    windows = VoiceVectors(np.array([6.0, 0.0, 3.0]), np.array([9.0, 3.0, 6.0]), np.eye(3, dtype=np.float16))
    assert windows.order.tolist() == [1, 2, 0]
    assert windows.rows(slice(0, 3)).argmax(1).tolist() == [1, 2, 0]
    assert [part.tolist() for part in (windows.starts, windows.ends)] == [[0, 3, 6], [3, 6, 9]]


def test_sound_is_counted_once() -> None:
    starts, ends = np.array([0.0, 1.5, 2.0, 5.0, 9.0]), np.array([3.0, 4.5, 5.0, 8.0, 10.0])
    windows = VoiceVectors(starts, ends, np.ones((5, 4), np.float16))
    assert windows.new_seconds.tolist() == [3.0, 1.5, 0.5, 3.0, 1.0]
    assert windows.joined.tolist() == [False, True, True, False, False]
    assert windows.new_seconds.sum() == 9.0


def test_likeness_within_a_voice_is_measured_between_windows_that_touch() -> None:
    generator = np.random.default_rng(6)
    windows = voices_of(around(0, 2000, generator))
    pairs = (windows.rows(slice(0, 1998)) * windows.rows(slice(2, 2000))).sum(1)
    assert windows.own_likeness() == pytest.approx(float(np.quantile(pairs, 0.75)), abs=1e-3)
    assert voices_of(around(0, 200, generator), apart=1).own_likeness() == USUAL_LIKENESS


def test_windows_beside_a_change_weigh_little() -> None:
    windows = voices_of(np.ones((6, 4)), apart=4)
    labels = np.array([0, 0, 1, 1, 0, 0], np.int32)
    assert edge_weights(windows, labels).tolist() == [1.0, 0.1, 0.1, 1.0, 1.0, 1.0]  # the silence parts the others


def test_means_of_voices() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    voices = mean_voices(voices_of(vectors, apart=1), np.array([0, 1, 0], np.int32), np.array([1.0, 1.0, 0.5]), 3)
    assert voices.sums.tolist() == [[1.5, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert voices.weights.tolist() == [1.5, 1.0, 0.0]
    assert voices.squares.tolist() == [1.25, 1.0, 0.0]
    assert voices.seconds.tolist() == [6.0, 3.0, 0.0]
    assert voices.means[:2].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_agglomeration_stops_at_the_mean_cosine() -> None:
    """0 and 1 are alike by 0.8; their mean cosine with 2 is (0.6 + 0.0) / 2."""
    rows = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 1.0, 0.0]])
    assert len(set(agglomerate(rows, 0.9))) == 3
    assert len(set(agglomerate(rows, 0.35))) == 2
    assert len(set(agglomerate(rows, 0.25))) == 1
    assert agglomerate(rows[:1], 0.5).tolist() == [0]


def test_a_voice_needs_more_windows_in_a_longer_recording() -> None:
    assert [fewest_windows(count) for count in (1, 19, 20, 999, 1000, 20_000)] == [1, 1, 2, 2, 3, 3]
