"""Who speaks when, in made conversations with known truth and by properties; and the bench that judges it."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benches.diarization import as_turns, wrong_share
from benches.made_voices import DIMENSION, TALKS, MadeVoices, Talk, make_voices, seconds_of, uneven, union
from benches.plain_clustering import Windows, midway
from benches.scoring import DiarizationErrors, diarization_errors
from stages.clustering import VoiceVectors, find_voices
from stages.diarization import Diarization, Diarizer, Turn, _diarize
from stages.options import VoiceOptions
from stages.windows import voice_windows

OPTIONS = VoiceOptions()
ROOT = Path(__file__).parents[1]
Spans = Sequence[tuple[float, float]]


def diarize(starts: npt.ArrayLike, ends: npt.ArrayLike, vectors: npt.ArrayLike) -> Diarization:
    diarizer = Diarizer(np.asarray(vectors).shape[1], OPTIONS)
    diarizer.add(starts, ends, vectors)
    return diarizer.finish()


def found_in(made: MadeVoices) -> Diarization:
    return diarize(made.starts, made.ends, made.vectors)


def errors_of(made: MadeVoices, found: Diarization, collar_seconds: float = 0.25) -> DiarizationErrors:
    turns = as_turns([(turn.start_seconds, turn.end_seconds, turn.cluster) for turn in found.turns])
    return diarization_errors(as_turns(made.turns), turns, made.covered, collar_seconds)


def same(one: Diarization, other: Diarization) -> bool:
    """Exactly the same, but for the order of windows."""
    return one.turns == other.turns and np.array_equal(one.means, other.means)


# --- made conversations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "speakers", "seed"), [(10, 2, 1), (10, 5, 2), (10, 20, 4), (30, 8, 4), (60, 5, 5), (60, 20, 6)]
)
def test_at_most_two_percent_of_speech_is_wrong(minutes: float, speakers: int, seed: int) -> None:
    """By NIST's definition, collar 0.25 s, two at once counted twice; without a collar at most four."""
    made = make_voices(minutes * 60, uneven(speakers), seed)
    found = found_in(made)
    assert errors_of(made, found).rate == pytest.approx(0.0, abs=0.02)
    assert errors_of(made, found, collar_seconds=0.0).rate == pytest.approx(0.0, abs=0.04)
    assert abs(found.count - len(np.unique(made.speakers))) <= speakers // 10


def test_one_who_speaks_alone_is_one() -> None:
    for seed in range(4):
        assert found_in(make_voices(600, [1.0], seed)).count == 1


def test_who_speaks_half_a_percent_of_the_time_is_found() -> None:
    made = make_voices(3600, [0.5, 0.3, 0.19, 0.005, 0.005], 300)
    assert 0 < np.bincount(made.speakers)[3:].max() < 30  # of 2,000 windows
    found = found_in(made)
    assert found.count == 5
    assert errors_of(made, found).rate == pytest.approx(0.0, abs=0.02)


def test_noise_is_nobody_new() -> None:
    made = make_voices(1200, uneven(4), 7)
    vectors, generator = made.vectors.copy(), np.random.default_rng(0)
    noisy = generator.choice(len(vectors), len(vectors) // 50, replace=False)
    vectors[noisy] = generator.normal(size=(len(noisy), DIMENSION))
    assert diarize(made.starts, made.ends, vectors).count == found_in(made).count == 4


def test_two_at_once_are_marked_where_the_vectors_say_so() -> None:
    made = make_voices(1800, uneven(3), 8, TALKS["overlapping"])
    found = found_in(made)
    spoken = seconds_of(made.turns, 3, made.ends) - seconds_of(made.turns, 3, made.starts)
    second = np.sort(spoken, axis=1)[:, 1] / (made.ends - made.starts)
    marked = found.overlaps > 0
    assert (second > 0.99).sum() > 20
    assert marked[second > 0.99].mean() > 0.75  # two speak all through the window
    assert marked[second < 0.01].mean() < 0.01
    pairs = [{tuple(sorted(pair)) for pair in zip(found.clusters[marked], found.overlaps[marked], strict=True)}]
    assert all(one != other for one, other in pairs[0])


def test_turns_end_finer_than_windows_tell_alone() -> None:
    made = make_voices(1800, uneven(4), 9)
    found = found_in(made)
    coarse = midway(Windows(made.starts, made.ends, made.vectors, 4), found.clusters)
    wrong = diarization_errors(as_turns(made.turns), as_turns(coarse), made.covered)
    assert 2 * errors_of(made, found).confused_seconds < wrong.confused_seconds


def test_quick_exchanges_are_not_one_voice() -> None:
    """Most windows are mixtures here, and the first groups hold them, too."""
    made = make_voices(1200, uneven(2), 3, TALKS["rapid"])
    assert found_in(made).count == 2


def test_short_speech_alone_is_enough() -> None:
    """All windows are 1 to 2 s long, and noisier."""
    made = make_voices(900, uneven(3), 1, Talk(1.3, turn_spread=0.2, pause=1.0, overlap=0.0))
    assert (made.ends - made.starts).max() <= 2.5
    found = found_in(made)
    assert found.count == 3
    assert errors_of(made, found).rate == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("options", [VoiceOptions(hop_seconds=0.75), VoiceOptions(window_seconds=2.0, hop_seconds=1.0)])
def test_windows_may_be_cut_in_other_ways(options: VoiceOptions) -> None:
    made = make_voices(900, uneven(3), 11, options=options)
    found = found_in(made)
    assert found.count == 3
    assert errors_of(made, found).rate == pytest.approx(0.0, abs=0.02)


def test_the_setting_counts() -> None:
    made = make_voices(300, [0.5, 0.5], 12)
    counts = []
    for same_speaker in (0.05, 0.65):
        diarizer = Diarizer(DIMENSION, VoiceOptions(same_speaker=same_speaker))
        diarizer.add(made.starts, made.ends, made.vectors)
        counts.append(diarizer.finish().count)
    assert counts == [1, 2]


# --- properties -------------------------------------------------------------------------------------------------------

LENGTHS = st.lists(st.tuples(st.floats(1.0, 20.0), st.floats(0.3, 3.0)), min_size=1, max_size=8)


def a_conversation(lengths: Sequence[tuple[float, float]], seed: int) -> tuple[Spans, npt.NDArray[np.float32]]:
    """Windows of segments of these lengths and pauses, with a few noisy voices of 16 numbers."""
    times = np.cumsum(np.array(lengths).ravel())
    windows = voice_windows(
        [(float(end - length), float(end)) for (length, _), end in zip(lengths, times[::2], strict=True)], OPTIONS
    )
    generator = np.random.default_rng(seed)
    voices = np.eye(16)[generator.integers(0, 4, len(windows))]
    return windows, (voices + generator.normal(size=(len(windows), 16)) * 0.15).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(0, 2**32 - 1))
@example([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (6.0078125, 1.0)], 141)  # a sliver behind the last block
def test_everything_is_covered_numbered_and_in_order(lengths: list[tuple[float, float]], seed: int) -> None:
    windows, vectors = a_conversation(lengths, seed)
    starts, ends = np.array(windows).T
    found = diarize(starts, ends, vectors)
    firsts = [int(np.flatnonzero(found.clusters == cluster)[0]) for cluster in range(1, found.count + 1)]
    assert firsts == sorted(firsts)
    assert set(found.clusters) == set(range(1, found.count + 1))
    assert found.windows.sum() == len(windows)
    assert (found.overlaps != found.clusters).all()
    assert set(found.overlaps) <= set(range(found.count + 1))
    cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * found.means[found.clusters - 1]).sum(1)
    np.testing.assert_allclose(found.scores, cosines, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found.means, axis=1), 1.0, rtol=1e-5)
    check_turns(found.turns, union(windows))


def check_turns(turns: Sequence[Turn], speech: Spans) -> None:
    """In order, within speech and all over it; marked exactly where others speak."""
    assert list(turns) == sorted(turns, key=lambda turn: (turn.start_seconds, turn.cluster))
    assert all(turn.start_seconds < turn.end_seconds for turn in turns)
    covered = np.array(union([(turn.start_seconds, turn.end_seconds + 1e-6) for turn in turns]))
    np.testing.assert_allclose(covered, np.array(speech), atol=1e-5)
    for start, end in pairwise(sorted({time for turn in turns for time in (turn.start_seconds, turn.end_seconds)})):
        there = [turn for turn in turns if turn.start_seconds <= start and end <= turn.end_seconds]
        assert len({turn.cluster for turn in there}) == len(there) <= 2
        assert all(turn.overlap == (len(there) > 1) for turn in there)


@settings(deadline=None, max_examples=25)
@given(LENGTHS, st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_neither_order_nor_pages_matter(lengths: list[tuple[float, float]], seed: int, pages: list[int]) -> None:
    windows, vectors = a_conversation(lengths, seed)
    starts, ends = np.array(windows).T
    at_once = diarize(starts, ends, vectors)
    order = np.random.default_rng(seed).permutation(len(windows))
    diarizer, begin = Diarizer(16, OPTIONS), 0
    while begin < len(order):
        page = order[begin : begin + pages[begin % len(pages)]]
        diarizer.add(starts[page], ends[page], vectors[page])
        begin += len(page)
    assert len(diarizer) == len(windows)
    shuffled = diarizer.finish()
    assert same(at_once, shuffled)
    assert np.array_equal(at_once.clusters[order], shuffled.clusters)
    assert np.array_equal(at_once.overlaps[order], shuffled.overlaps)
    assert np.array_equal(at_once.scores[order], shuffled.scores)
    assert same(shuffled, diarizer.finish())  # and once more


def test_times_may_overlap_in_every_way() -> None:
    generator = np.random.default_rng(1)
    starts = generator.uniform(0, 60, 200).round(1)
    lengths = generator.choice([0.0, 0.5, 1.0, 3.0], 200)
    found = diarize(starts, starts + lengths, generator.normal(size=(200, 16)))
    assert len(found.clusters) == 200
    by_cluster = [[turn for turn in found.turns if turn.cluster == cluster + 1] for cluster in range(found.count)]
    for turns in by_cluster:
        assert all(one.end_seconds <= other.start_seconds + 1e-9 for one, other in pairwise(turns))


# --- little, odd and much ---------------------------------------------------------------------------------------------


def test_nothing_is_nobody() -> None:
    for diarizer in (Diarizer(4, OPTIONS), Diarizer(4, OPTIONS)):
        diarizer.add([], [], np.zeros((0, 4)))
        found = diarizer.finish()
        assert (found.count, len(found.clusters), found.turns, found.means.shape) == (0, 0, (), (0, 4))
        assert len(found.windows) == len(found.seconds) == len(found.self_scores) == 0
    assert Diarizer(4, OPTIONS).finish().count == 0


def test_a_single_window_is_one_speaker() -> None:
    found = diarize([3.0], [5.5], [[0.0, 2.0, 0.0]])
    assert found.clusters.tolist() == [1]
    assert found.scores.tolist() == [1.0]
    assert found.turns == (Turn(3.0, 5.5, 1, overlap=False),)
    assert found.seconds.tolist() == [2.5]
    assert np.isnan(found.self_scores).all()


def test_two_people_with_one_window_each() -> None:
    found = diarize([8.0, 3.0], [11.0, 6.0], [[0.1, 1.0, 0.0], [1.0, 0.0, 0.1]])
    assert found.clusters.tolist() == [2, 1]
    assert found.turns == (Turn(3.0, 6.0, 1, overlap=False), Turn(8.0, 11.0, 2, overlap=False))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_vector_without_sense_is_like_nobody(bad: float) -> None:
    vectors = np.tile([1.0, 0.0, 0.0, 0.0], (5, 1))
    vectors[2] = bad
    found = diarize(np.arange(5) * 4.0, np.arange(5) * 4.0 + 3, vectors)
    assert found.count == 1
    assert found.scores.tolist() == pytest.approx([1, 1, 0, 1, 1], abs=1e-3)


def test_vectors_of_an_untrained_model_are_one_voice() -> None:
    made = make_voices(600, uneven(5), 13)
    generator = np.random.default_rng(0)
    alike = 1.0 + 0.1 * generator.normal(size=made.vectors.shape)  # cosines of 0.99
    meaningless = generator.normal(size=made.vectors.shape)
    for vectors in (alike, meaningless):
        found = diarize(made.starts, made.ends, vectors)
        assert found.count == 1
        check_turns(found.turns, made.covered)


def test_a_voice_that_has_no_window_to_itself_is_none() -> None:
    made = make_voices(120, [1.0], 16)
    windows = VoiceVectors(made.starts, made.ends, made.vectors.astype(np.float16))
    voice = find_voices(windows, OPTIONS.same_speaker)
    nobody = np.roll(-voice, 1, axis=1)
    found = _diarize(windows, np.concatenate((nobody, voice)))
    assert found.count == 1
    assert set(found.clusters) == {1}
    assert {turn.cluster for turn in found.turns} == {1}


def test_the_halves_of_a_voice_are_alike() -> None:
    made = make_voices(300, [0.6, 0.4], 14)
    found = found_in(made)
    for cluster in (1, 2):
        rows = made.vectors[found.clusters == cluster]
        assert found.self_scores[cluster - 1] > 0.9
        halves = rows[0::2].mean(0), rows[1::2].mean(0)  # with changes; the score gives those little weight
        cosine = halves[0] @ halves[1] / np.linalg.norm(halves[0]) / np.linalg.norm(halves[1])
        assert found.self_scores[cluster - 1] == pytest.approx(cosine, abs=0.03)


def test_shapes_must_fit() -> None:
    diarizer = Diarizer(4, OPTIONS)
    for starts, ends, shape in (([0.0], [1.0], (1, 3)), ([0.0], [1.0, 2.0], (1, 4)), ([0.0, 1.0], [1.0, 2.0], (1, 4))):
        with pytest.raises(ValueError, match="vectors of 4"):
            diarizer.add(starts, ends, np.ones(shape))
    assert len(diarizer) == 0


def test_memory_stays_below_a_kilobyte_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept, what finding voices takes for a moment, and what is found; each beyond what does not grow."""
    monkeypatch.setattr("stages.clustering.SAMPLE", 500)
    monkeypatch.setattr("stages.clustering.BLOCK", 512)
    kept, peaks, sizes = [], [], []
    for hours in (1.0, 3.0):
        made = make_voices(hours * 3600, uneven(4), 15)
        diarizer = Diarizer(DIMENSION, OPTIONS)
        tracemalloc.start()
        for begin in range(0, len(made.starts), 1024):
            page = slice(begin, begin + 1024)
            diarizer.add(made.starts[page], made.ends[page], made.vectors[page])
        kept.append(tracemalloc.get_traced_memory()[0])
        windows = VoiceVectors(made.starts, made.ends, made.vectors.astype(np.float16))
        find_voices(windows, OPTIONS.same_speaker)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(len(made.starts))
    found = diarizer.finish()
    arrays = (found.clusters, found.scores, found.overlaps)
    result = sum(array.nbytes for array in arrays) + sum(turn_bytes(turn) for turn in found.turns)
    assert kept[1] < 420 * sizes[1]
    assert peaks[1] - peaks[0] + result < 1000 * (sizes[1] - sizes[0])


def turn_bytes(turn: Turn) -> int:
    """Of a turn in memory, with its numbers."""
    return sum(sys.getsizeof(part) for part in (turn, turn.start_seconds, turn.end_seconds, turn.cluster))


# --- the bench --------------------------------------------------------------------------------------------------------


def test_made_voices_are_like_those_of_ecapa() -> None:
    """3-s windows, apart by more than 3 s: 0.65 ± 0.12 within a voice, 0.1 ± 0.1 between voices."""
    within, between = [], []
    for seed in range(6):
        made = make_voices(1200, [0.1] * 10, seed, Talk(8.0, pause=1.0, overlap=0.0))
        whole = np.flatnonzero(made.ends - made.starts > 2.99)
        rows, speakers = made.vectors[whole], made.speakers[whole]
        cosines, alike = rows @ rows.T, speakers[:, None] == speakers
        far = np.abs(made.starts[whole][:, None] - made.starts[whole]) > 4
        within.append(cosines[alike & far])
        between.append(cosines[~alike])
    for cosines, mean, spread in ((np.concatenate(within), 0.65, 0.12), (np.concatenate(between), 0.1, 0.1)):
        assert cosines.mean() == pytest.approx(mean, abs=0.05)
        assert cosines.std() == pytest.approx(spread, abs=0.025)


def test_made_windows_hold_the_speech_and_their_truth() -> None:
    made = make_voices(600, [0.7, 0.3], 3)
    assert made.speech == union([(start, end) for start, end, _ in made.turns])
    assert np.array_equal(np.array(voice_windows(made.speech, OPTIONS)), np.stack((made.starts, made.ends), 1))
    spoken = seconds_of(made.turns, 2, made.ends) - seconds_of(made.turns, 2, made.starts)
    assert np.array_equal(spoken.argmax(1), made.speakers)
    again = make_voices(600, [0.7, 0.3], 3)
    assert np.array_equal(made.vectors, again.vectors)
    assert made.turns == again.turns


def test_windows_are_wrong_when_another_label_stands_for_their_speaker() -> None:
    speakers = np.array([0, 0, 0, 1, 1, 2], np.int32)
    assert wrong_share(speakers, np.array([5, 5, 5, 1, 1, 0], np.int32)) == 0.0
    assert wrong_share(speakers, np.array([5, 5, 1, 1, 1, 1], np.int32)) == pytest.approx(2 / 6)
    assert wrong_share(speakers, np.array([0, 1, 2, 3, 3, 4], np.int32)) == pytest.approx(2 / 6)


def test_plain_turns_change_midway() -> None:
    windows = Windows(np.array([0.0, 1.5, 6.0]), np.array([3.0, 4.5, 8.0]), np.zeros((3, 4), np.float32), 2)
    assert midway(windows, np.array([1, 0, 1], np.int32)) == [(0.0, 2.25, 1), (2.25, 4.5, 0), (6.0, 8.0, 1)]


def test_the_bench_prints_a_line_for_each_method(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benches.diarization", "--hours", "0.05", "--speakers", "3"]
    target = tmp_path / "rows.json"
    done = subprocess.run(
        [*command, "--memory-gb", "0", "--json", str(target), "--methods", "sluice", "agglomerative", "spectral"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(target.read_text("utf-8"))
    assert [row["method"] for row in rows] == ["sluice", "agglomerative", "spectral"]
    assert rows[0]["found"] == rows[0]["speakers"]
    assert 0 <= rows[0]["error_percent"] < 4
    assert rows[0]["needs_gb"] is None
    assert "not run: needs" in done.stdout
    assert len(done.stdout.splitlines()) == 5
