"""The encoder gives of a window what it gives of it in a batch."""

from typing import Any

import ctranslate2
import numpy as np
import pytest

from stages.log_mel import LogMel
from stages.speech_encoder import encode_windows
from tests.conftest import TinyModels
from tests.whispers import load, sound


class Counting:
    """A model that tells how many windows it was given at once."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.given: list[int] = []

    def encode(self, features: Any) -> Any:
        self.given.append(features.shape[0])
        return self._model.encode(features)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_windows_one_by_one_are_encoded_as_all_at_once(tiny_models: TinyModels, dtype: str) -> None:
    whisper = load(tiny_models["whisper"], dtype=dtype)._whisper
    features = LogMel(whisper.feature_extractor.mel_filters, "cpu")([sound(30), sound(7), sound(1)])
    model = Counting(whisper.model)
    encoded = np.array(encode_windows(model, features))
    assert model.given == [1, 1, 1]
    together = np.array(whisper.model.encode(ctranslate2.StorageView.from_array(features.numpy())))
    assert encoded.shape == together.shape == (3, 1500, together.shape[-1])
    np.testing.assert_allclose(encoded, together, atol=1e-4)
