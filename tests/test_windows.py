"""Windows: packed from segments, cut out of the sound, and the equal lengths for the speaker model."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import windows
from stages.audio import SAMPLE_RATE, AudioChunk
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions, VoiceOptions
from stages.vad import CHUNK_SAMPLES, Samples, SpeechSegmenter
from stages.windows import (
    SpeechRun,
    SpeechState,
    SpeechWindow,
    parted,
    read_speech_windows,
    to_pcm,
    voice_windows,
    window_lengths,
)
from tests.audio_factory import info, tone, write_sound
from transport.messages import Gap

MEDIA = Path(__file__).parents[2] / "shared" / "media"
PANEL = MEDIA / "panel-five-readers-labelled-turns_3min25_h264-aac.mkv"
LOUD = 0.2  # for the stand-in detector


class LoudnessDetector:
    """Stands in for the network: what is loud is speech, and the louder the surer."""

    def reset(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> list[float]:
        stream = np.concatenate((self._rest, samples))
        whole = len(stream) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self._rest = stream[whole:]
        return [min(1.0, float(np.abs(chunk).max()) / LOUD / 2) for chunk in stream[:whole].reshape(-1, CHUNK_SAMPLES)]

    def finish(self) -> list[float]:
        return self.push(np.zeros(-len(self._rest) % CHUNK_SAMPLES, np.float32))

    def memory(self) -> bytes:
        return b""

    def restore(self, memory: bytes, heard: Samples) -> None:
        self._rest = heard[len(heard) // CHUNK_SAMPLES * CHUNK_SAMPLES :]


def sound(levels: Sequence[float], chunks_each: int = 4) -> Samples:
    """Noise of the given levels, each for some 32 ms chunks."""
    generator = np.random.default_rng(len(levels))
    each = [generator.uniform(-level, level, chunks_each * CHUNK_SAMPLES) for level in levels]
    return np.concatenate(each).astype(np.float32)


def segments(signal: Samples, options: SpeechOptions) -> list[tuple[int, int]]:
    """What the segmenter finds in the whole signal at once."""
    detector = LoudnessDetector()
    detector.reset()
    segmenter = SpeechSegmenter(options)
    body = segmenter.push(detector.push(signal))
    return body + segmenter.finish(detector.finish(), len(signal))


def cut(signal: Samples, options: SpeechOptions, sizes: Sequence[int], start: int = 0) -> list[SpeechWindow]:
    """Run the windows over a signal in pieces."""
    run = SpeechRun(start, LoudnessDetector(), options)  # type: ignore[arg-type]
    found, begin, turn = [], 0, 0
    while begin < len(signal):
        piece = signal[begin : begin + sizes[turn % len(sizes)]]
        found += run.push(AudioChunk((start + begin) / SAMPLE_RATE, piece))
        begin, turn = begin + len(piece), turn + 1
        assert run.end == start + begin
        assert len(run._ring) <= (options.window_seconds + 4) * SAMPLE_RATE
    return found + run.finish()


LEVEL = st.tuples(st.sampled_from([0.0, 0.25, 0.3, 0.4]), st.integers(1, 30))
LEVELS = st.lists(LEVEL, min_size=1, max_size=14).map(
    lambda runs: [level for level, count in runs for _ in range(count)]
)
OPTIONS = st.builds(
    SpeechOptions,
    window_seconds=st.sampled_from([1.0, 2.5, 6.0, 30.0]),
    min_silence_ms=st.sampled_from([64, 300]),
    pad_ms=st.sampled_from([0, 200]),
)


@settings(max_examples=80, deadline=None)
@given(LEVELS, OPTIONS, st.lists(st.integers(100, 40_000), min_size=1, max_size=4), st.integers(0, 900))
def test_windows_hold_exactly_the_speech_and_its_sound(
    levels: list[float], options: SpeechOptions, sizes: list[int], missing: int
) -> None:
    signal = sound(levels)[: -missing or None]
    found = cut(signal, options, sizes)
    for window in found:
        assert window.end_seconds - window.start_seconds <= options.window_seconds
        assert (window.speech[0][0], window.speech[-1][1]) == (window.start_seconds, window.end_seconds)
        assert all(other[0] - one[1] <= 2.0 for one, other in pairwise(window.speech))
        begin, end = round(window.start_seconds * SAMPLE_RATE), round(window.end_seconds * SAMPLE_RATE)
        np.testing.assert_array_equal(window.pcm, to_pcm(signal[begin:end]))
    assert all(one.end_seconds <= other.start_seconds for one, other in pairwise(found))
    assert uncut(found) == segments(signal, options)


def uncut(found: list[SpeechWindow]) -> list[tuple[int, int]]:
    """The speech of windows in samples; a piece that begins a window just where the one before ended continues it.

    Segments without padding are at least a chunk apart; padded ones can touch, so they are told apart by the window.
    """
    pieces: list[tuple[int, int]] = []
    for window in found:
        for number, (start_seconds, end_seconds) in enumerate(window.speech):
            start, end = round(start_seconds * SAMPLE_RATE), round(end_seconds * SAMPLE_RATE)
            if number == 0 and pieces and pieces[-1][1] == start and start % CHUNK_SAMPLES == CHUNK_SAMPLES // 2:
                pieces[-1] = (pieces[-1][0], end)
            else:
                pieces.append((start, end))
    return pieces


@settings(max_examples=20, deadline=None)
@given(LEVELS, OPTIONS, st.lists(st.integers(1_000, 40_000), min_size=1, max_size=4))
def test_windows_do_not_depend_on_the_pieces_the_sound_comes_in(
    levels: list[float], options: SpeechOptions, sizes: list[int]
) -> None:
    signal = sound(levels)
    spans = [(window.start_seconds, window.end_seconds, window.speech) for window in cut(signal, options, sizes)]
    assert spans == [
        (window.start_seconds, window.end_seconds, window.speech) for window in cut(signal, options, [16_000])
    ]


@settings(max_examples=40, deadline=None)
@given(LEVELS, OPTIONS, st.integers(1_000, 30_000), st.integers(0, 100))
def test_a_run_goes_on_where_another_stood(
    levels: list[float], options: SpeechOptions, size: int, percent: int
) -> None:
    signal, start = sound(levels), 12_345
    first = SpeechRun(start, LoudnessDetector(), options)  # type: ignore[arg-type]
    pieces = [(begin, signal[begin : begin + size]) for begin in range(0, len(signal), size)]
    cut = len(pieces) * percent // 100
    found = [window for begin, piece in pieces[:cut] for window in first.push(chunk(start + begin, piece))]
    heard = signal[: first.end - start]
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state()), type=SpeechState)
    second = SpeechRun(start, LoudnessDetector(), options)  # type: ignore[arg-type]
    second.restore(state, heard[len(heard) - state.ring_samples :])
    assert second.ring_digest() == state.ring_digest
    assert all(window.end_seconds <= second.needed_seconds for window in found)
    found += [window for begin, piece in pieces[cut:] for window in second.push(chunk(start + begin, piece))]
    found += second.finish()
    expected = cut_in_seconds(signal, options, start)
    assert [(window.start_seconds, window.speech, window.pcm.tobytes()) for window in found] == [
        (window.start_seconds, window.speech, window.pcm.tobytes()) for window in expected
    ]


def chunk(position: int, samples: Samples) -> AudioChunk:
    return AudioChunk(position / SAMPLE_RATE, samples)


def cut_in_seconds(signal: Samples, options: SpeechOptions, start: int) -> list[SpeechWindow]:
    return cut(signal, options, [16_000], start)


def test_a_long_stretch_is_cut_where_it_is_quietest() -> None:
    levels = [0.4] * 700  # 90 s without a pause
    levels[210] = 0.25  # within the last 5 s of the first window, at 26.9 s
    found = cut(sound(levels), SpeechOptions(), [16_000])
    assert found[0].end_seconds == pytest.approx(210.5 * 4 * CHUNK_SAMPLES / SAMPLE_RATE, abs=0.07)
    assert [round(window.end_seconds - window.start_seconds) for window in found[1:-1]] == [
        pytest.approx(27.5, abs=2.6)
    ] * (len(found) - 2)
    assert sum(len(window.pcm) for window in found) == 700 * 4 * CHUNK_SAMPLES


def test_neighbours_share_a_window_and_long_silence_parts_them() -> None:
    second, short, long = [0.4] * 8, [0.0] * 8, [0.0] * 24  # 1 s of speech, 1 s and 3 s of silence
    found = cut(sound(second + short + second + long + second), SpeechOptions(), [16_000])
    assert [len(window.speech) for window in found] == [2, 1]


def test_a_segment_that_does_not_fit_begins_the_next_window() -> None:
    found = cut(sound([0.4] * 32 + [0.0] * 6 + [0.4] * 32), SpeechOptions(window_seconds=6.0), [16_000])
    assert [len(window.speech) for window in found] == [1, 1]
    assert found[0].end_seconds < found[1].start_seconds


def test_a_file_with_a_hole_gives_the_gap_and_windows_at_their_true_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "VoiceActivityDetector", LoudnessDetector)
    signal = np.concatenate([np.zeros(16_000, np.float32), tone(3.0), np.zeros(64_000, np.float32), tone(2.0)])
    path = write_sound(tmp_path / "a.mka", [signal], holes=[(2.0, 5.0)])
    heard: list[float] = []
    items = list(
        read_speech_windows(os.fsencode(path), info(path), DecodeOptions(), SpeechOptions(), None, heard.append)
    )
    found = [item for item in items if isinstance(item, SpeechWindow)]
    assert [item.reason.partition(":")[0] for item in items if isinstance(item, Gap)] == ["sound-missing"]
    spans = [(window.start_seconds, window.end_seconds) for window in found]
    np.testing.assert_allclose(spans, [(0.8, 2.0), (7.8, 10.0)], atol=0.1)
    for window in found:
        begin = round(window.start_seconds * SAMPLE_RATE)
        np.testing.assert_allclose(window.pcm, to_pcm(signal[begin : begin + len(window.pcm)]), atol=2)
    assert heard == sorted(heard)
    assert heard[-1] == 10.0


@pytest.mark.skipif(not PANEL.exists(), reason="the developers' media are not here")
def test_real_turns_are_found() -> None:
    options = DecodeOptions()
    media = probe(os.fsencode(PANEL), options)
    items = list(read_speech_windows(os.fsencode(PANEL), media, options, SpeechOptions()))
    found = [item for item in items if isinstance(item, SpeechWindow)]
    assert len(found) >= 7
    assert not [item for item in items if isinstance(item, Gap)]
    lines = [line.split() for line in (MEDIA / "labels" / f"{PANEL.stem}.rttm").read_text().splitlines()]
    for start, length in ((float(line[3]), float(line[4])) for line in lines):
        inside = sum(
            max(0.0, min(window.end_seconds, start + length) - max(window.start_seconds, start)) for window in found
        )
        assert inside > 0.75 * length


def test_pcm_is_scaled_to_the_whole_range_and_clipped() -> None:
    pcm = to_pcm(np.array([-1.0, 0.0, 0.5, 1.0], np.float32))
    assert pcm.dtype == np.int16
    assert pcm.tolist() == [-32768, 0, 16384, 32767]


# --- windows for the speaker model ----------------------------------------------------------------------------------

VOICE = st.builds(
    VoiceOptions,
    window_seconds=st.sampled_from([0.7, 2.0, 3.0, 3.3]),
    hop_seconds=st.sampled_from([0.3, 1.5, 5.0]),
    min_seconds=st.sampled_from([0.5, 1.0, 1.2]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 20)), max_size=6), VOICE)
def test_voice_windows_cover_their_segments_and_nothing_else(
    spans: list[tuple[float, float]], options: VoiceOptions
) -> None:
    speech, at = [], 0.0
    for silence, length in spans:
        speech.append((at + silence, at + silence + length))
        at += silence + length
    found = voice_windows(speech, options)
    allowed = {round(length * SAMPLE_RATE) for length in window_lengths(options)}
    assert {round((end - start) * SAMPLE_RATE) for start, end in found} <= allowed
    sample = 1.5 / SAMPLE_RATE
    for start, end in speech:
        inside = [window for window in found if start - sample <= window[0] and window[1] <= end + sample]
        if end - start < min(allowed) / SAMPLE_RATE - sample:
            assert inside == []
        elif end - start > min(allowed) / SAMPLE_RATE + 2 * sample:
            assert len({round((last - first) * SAMPLE_RATE) for first, last in inside}) == 1
            assert inside[0][0] == pytest.approx(start, abs=sample)
            assert inside[-1][1] == pytest.approx(end, abs=sample)
            assert all(other[0] <= one[1] + sample for one, other in pairwise(inside))
    assert sum(any(start - sample <= a and b <= end + sample for start, end in speech) for a, b in found) == len(found)


def test_voice_windows_of_known_segments() -> None:
    options = VoiceOptions()
    assert window_lengths(options) == (3.0, 2.5, 2.0, 1.5, 1.0)
    assert voice_windows([(0.0, 0.9)], options) == ()
    assert voice_windows([(1.0, 2.2)], options) == ((1.0, 2.0), (1.2, 2.2))
    assert voice_windows([(0.0, 3.0)], options) == ((0.0, 3.0),)
    assert voice_windows([(0.0, 7.0)], options) == ((0.0, 3.0), (1.5, 4.5), (3.0, 6.0), (4.0, 7.0))
    assert window_lengths(VoiceOptions(window_seconds=3.0, min_seconds=1.2)) == (3.0, 2.5, 2.0, 1.5, 1.2)


# --- beside captions --------------------------------------------------------------------------------------------------


def test_a_window_is_parted_into_what_cues_touch_and_what_none_does() -> None:
    pcm = np.arange(10 * 16_000, dtype=np.int32).astype(np.int16)
    window = SpeechWindow(5.0, 15.0, ((5.0, 6.0), (6.5, 8.0), (9.0, 10.0), (11.0, 15.0)), pcm)
    parts = list(parted(window, [(0.0, 5.5), (11.0, 12.0)]))
    assert [part.speech for part in parts] == [((5.0, 6.0),), ((6.5, 8.0), (9.0, 10.0)), ((11.0, 15.0),)]
    assert [(part.start_seconds, part.end_seconds) for part in parts] == [(5.0, 6.0), (6.5, 10.0), (11.0, 15.0)]
    for part in parts:
        first = round((part.start_seconds - 5.0) * 16_000)
        np.testing.assert_array_equal(part.pcm, pcm[first : first + len(part.pcm)])
        assert len(part.pcm) == round((part.end_seconds - part.start_seconds) * 16_000)


@pytest.mark.parametrize("cues", [[], [(0.0, 99.0)], [(0.0, 5.0), (15.0, 99.0)]])
def test_a_window_that_cues_cover_wholly_or_not_at_all_stays_whole(cues: list[tuple[float, float]]) -> None:
    window = SpeechWindow(5.0, 15.0, ((5.0, 6.0), (11.0, 15.0)), np.zeros(160_000, np.int16))
    (part,) = parted(window, cues)
    assert (part.start_seconds, part.end_seconds, part.speech) == (5.0, 15.0, window.speech)
    assert len(part.pcm) == 160_000
