"""Voice detection as a stream: the network against faster-whisper's use of it, the segments against Silero's rules."""

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import faster_whisper.vad as reference
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.audio import AudioChunk, read_audio
from stages.errors import ModelError
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.vad import (
    CHUNK_SAMPLES,
    Samples,
    Segment,
    SegmenterState,
    SpeechSegmenter,
    VoiceActivityDetector,
    silero_path,
)

MEDIA = Path(__file__).parents[2] / "shared" / "media"
JFK = MEDIA / "jfk-inaugural-speech_over-coffee-pour_hevc-main10-ac3.ts"


def noise(samples: int) -> Samples:
    """Noise whose level rises and falls, float32 [n]."""
    generator = np.random.default_rng(7)
    level = np.abs(np.sin(np.arange(samples) / 9_000))
    return (generator.normal(0, 0.2, samples) * level).astype(np.float32)


@pytest.fixture(scope="module")
def detector() -> VoiceActivityDetector:
    return VoiceActivityDetector()


def detect(detector: VoiceActivityDetector, signal: Samples, sizes: list[int]) -> list[float]:
    detector.reset()
    probabilities, begin, turn = [], 0, 0
    while begin < len(signal):
        probabilities += detector.push(signal[begin : begin + sizes[turn % len(sizes)]])
        begin, turn = begin + sizes[turn % len(sizes)], turn + 1
    return probabilities + detector.finish()


def expected(signal: Samples) -> Samples:
    """Probabilities of the whole signal by faster-whisper, which needs whole chunks and a silent one behind them."""
    padded = np.pad(signal, (0, -len(signal) % CHUNK_SAMPLES + CHUNK_SAMPLES))
    return np.asarray(reference.get_vad_model()(padded), np.float32).reshape(-1)[:-1]


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 60_000), sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=6))
def test_the_stream_gives_the_probabilities_of_the_whole(
    detector: VoiceActivityDetector, length: int, sizes: list[int]
) -> None:
    signal = noise(length)
    np.testing.assert_allclose(detect(detector, signal, sizes), expected(signal), atol=1e-4)


def test_long_pushes_are_run_in_parts_with_the_same_result(detector: VoiceActivityDetector) -> None:
    signal = noise(12 * 16_000)
    np.testing.assert_allclose(detect(detector, signal, [len(signal)]), expected(signal), atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(length=st.integers(600, 30_000), percent=st.integers(0, 100))
def test_a_detector_goes_on_where_another_stood(detector: VoiceActivityDetector, length: int, percent: int) -> None:
    """Whatever it heard in between; of the sound before it needs what follows the chunk before the last whole one."""
    signal = noise(length)
    cut = length * percent // 100
    detector.reset()
    detector.push(signal[:cut])
    memory, expected = detector.memory(), detector.push(signal[cut:])
    detector.push(noise(9_999))
    detector.reset()
    detector.restore(memory, signal[max(0, cut // CHUNK_SAMPLES - 1) * CHUNK_SAMPLES : cut])
    assert detector.push(signal[cut:]) == expected


def test_reset_forgets(detector: VoiceActivityDetector) -> None:
    first = detect(detector, noise(30_000), [30_000])
    detector.push(noise(9_999))
    assert detect(detector, noise(30_000), [30_000]) == first


@pytest.mark.skipif(not JFK.exists(), reason="the developers' media are not here")
def test_real_speech_is_found(detector: VoiceActivityDetector) -> None:
    options = DecodeOptions()
    items = read_audio(os.fsencode(JFK), probe(os.fsencode(JFK), options), options)
    signal = np.concatenate([item.samples for item in items if isinstance(item, AudioChunk)])
    probabilities = detect(detector, signal, [16_000])
    np.testing.assert_allclose(probabilities, expected(signal), atol=1e-4)
    assert 0.5 < np.mean(np.array(probabilities) > 0.5) < 0.95


def test_silence_and_tones_are_not_speech(detector: VoiceActivityDetector) -> None:
    assert max(detect(detector, np.zeros(50_000, np.float32), [16_000])) < 0.2
    tone = np.sin(np.arange(50_000) * 0.2).astype(np.float32)
    assert np.mean(detect(detector, tone, [16_000])) < 0.2


def test_the_network_is_found_without_importing_what_carries_it() -> None:
    code = "import sys; from stages.vad import *; VoiceActivityDetector().push; print('ctranslate2' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_a_missing_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert silero_path().is_file()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="faster-whisper, which carries the voice detector, is missing"):
        silero_path()
    empty = ModuleSpec("faster_whisper", None, is_package=True)
    empty.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: empty)
    with pytest.raises(ModelError, match=r"silero_vad_v6\.onnx is missing"):
        silero_path()


# --- segments -------------------------------------------------------------------------------------------------------

RUN = st.tuples(st.sampled_from([0.1, 0.4, 0.9]), st.integers(1, 40))  # silence, in between, speech
PROBABILITIES = st.lists(RUN, min_size=1, max_size=12).map(
    lambda runs: [value for value, count in runs for _ in range(count)]
)
OPTIONS = st.builds(
    SpeechOptions,
    min_speech_ms=st.sampled_from([0, 100, 250]),
    min_silence_ms=st.sampled_from([0, 64, 100, 300]),
    pad_ms=st.sampled_from([0, 30, 200, 400]),
)


def segment(options: SpeechOptions, probabilities: list[float], total: int, sizes: list[int]) -> list[Segment]:
    """Feed a segmenter in pieces; the last chunk goes to finish."""
    segmenter, segments, begin, turn = SpeechSegmenter(options), [], 0, 0
    body = probabilities[:-1]
    while begin < len(body):
        before, opened = segmenter.settled, segmenter.open_segment
        new = segmenter.push(body[begin : begin + sizes[turn % len(sizes)]])
        assert all(start >= before for start, _ in new)
        if opened is not None:
            following = [*new, *([segmenter.open_segment] if segmenter.open_segment else [])]
            assert (
                any(start == opened[0] and end >= opened[1] for start, end in following)
                or segmenter.settled == opened[0]
            )
        segments += new
        begin, turn = begin + sizes[turn % len(sizes)], turn + 1
    return segments + segmenter.finish(probabilities[-1:], total)


@settings(max_examples=300, deadline=None)
@given(PROBABILITIES, OPTIONS, st.integers(0, CHUNK_SAMPLES - 1), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_segments_are_those_of_silero_on_the_whole_signal(
    probabilities: list[float], options: SpeechOptions, missing: int, sizes: list[int]
) -> None:
    total = len(probabilities) * CHUNK_SAMPLES - missing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "get_vad_model", lambda: lambda signal: np.array(probabilities))
        rules = reference.get_speech_timestamps(
            np.zeros(total, np.float32),
            threshold=options.vad_threshold,
            min_speech_duration_ms=options.min_speech_ms,
            min_silence_duration_ms=options.min_silence_ms,
            speech_pad_ms=options.pad_ms,
        )
    assert segment(options, probabilities, total, sizes) == [(rule["start"], rule["end"]) for rule in rules]


@settings(max_examples=100, deadline=None)
@given(PROBABILITIES, OPTIONS, st.integers(0, 100))
def test_a_segmenter_goes_on_where_another_stood(
    probabilities: list[float], options: SpeechOptions, percent: int
) -> None:
    cut, total = len(probabilities) * percent // 100, len(probabilities) * CHUNK_SAMPLES
    first, second = SpeechSegmenter(options), SpeechSegmenter(options)
    first.push(probabilities[:cut])
    second.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=SegmenterState))
    assert (second.open_segment, second.settled) == (first.open_segment, first.settled)
    rest = second.push(probabilities[cut:]) + second.finish([], total)
    assert rest == first.push(probabilities[cut:]) + first.finish([], total)


def test_hysteresis_pause_and_padding() -> None:
    options = SpeechOptions(min_speech_ms=64, min_silence_ms=96, pad_ms=32)
    speech, doubt, silence = [0.9] * 10, [0.4] * 5, [0.1] * 2
    joined = [0.1] * 4 + speech + doubt + silence + speech + [0.1] * 10
    assert segment(options, joined, len(joined) * 512, [3]) == [(3 * 512, 32 * 512)]
    apart = [0.1] * 4 + speech + [0.1] * 6 + speech + [0.1] * 10
    assert segment(options, apart, len(apart) * 512, [3]) == [(3 * 512, 15 * 512), (19 * 512, 31 * 512)]
