"""Whisper's features, against faster-whisper's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.log_mel import FRAME_SAMPLES, WINDOW_FRAMES, WINDOW_SAMPLES, LogMel, frames
from tests.whispers import sound


@pytest.fixture(scope="module")
def extractor() -> Any:
    from faster_whisper.feature_extractor import FeatureExtractor

    return FeatureExtractor()


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(FRAME_SAMPLES, WINDOW_SAMPLES), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_they_are_those_of_faster_whisper_with_silence_behind_the_end(
    extractor: Any, lengths: list[int], seed: int
) -> None:
    windows = [sound(30, seed)[:length] for length in lengths]
    features = LogMel(extractor.mel_filters, "cpu")(windows).numpy()
    assert features.shape == (len(windows), 80, WINDOW_FRAMES)
    assert features.dtype == np.float32
    for pcm, ours in zip(windows, features, strict=True):
        count = frames(pcm)
        theirs = extractor(pcm.astype(np.float32) / 32768)
        np.testing.assert_allclose(ours[:, :count], theirs[:, :count], atol=1e-4)
        assert not ours[:, count:].any()


def test_digital_silence_has_features_too(extractor: Any) -> None:
    silence = np.zeros(16_000, np.int16)
    features = LogMel(extractor.mel_filters, "cpu")([silence])[0, :, :100].numpy()
    np.testing.assert_allclose(features, extractor(silence.astype(np.float32))[:, :100], atol=1e-6)


def test_a_window_of_one_sample_has_one_frame(extractor: Any) -> None:
    features = LogMel(extractor.mel_filters, "cpu")([np.ones(1, np.int16)])[0].numpy()
    assert np.isfinite(features).all()
    assert features[:, 0].any()
    assert not features[:, 1:].any()


def test_sound_that_must_not_be_written_to_is_taken(extractor: Any) -> None:
    pcm = sound(1)
    pcm.flags.writeable = False  # as it is in a message
    assert LogMel(extractor.mel_filters, "cpu")([pcm]).shape == (1, 80, WINDOW_FRAMES)


@pytest.mark.parametrize("length", [0, WINDOW_SAMPLES + 1])
def test_windows_of_impossible_length_are_refused(extractor: Any, length: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {WINDOW_SAMPLES} samples, not {length}"):
        LogMel(extractor.mel_filters, "cpu")([np.zeros(length, np.int16)])
