"""Tiny Whispers for tests, and what can be put before one to see what it is asked, or to say what it answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.base import Identity, Pcm, Transcript
from stages.errors import ModelError
from stages.lanes import Lanes
from stages.options import SpeechOptions
from stages.speech_model import SpeechModel

IDENTITY = Identity("tiny-whisper", "0123456789ab", True)


def sound(seconds: float, seed: int = 0) -> Pcm:
    """A voice-like buzz whose pitch and loudness wander, over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    pitch = rng.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.2, 1) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return np.asarray(4000 * buzz + 200 * rng.standard_normal(len(time))).astype(np.int16)


def load(path: Path, **settings: Any) -> SpeechModel:
    """Untrained, it finds most of its text improbable: it decodes nothing again where no options say so."""
    options = SpeechOptions(temperatures=(0.0,))
    return SpeechModel.load(path, IDENTITY, **{"dtype": "float32", "options": options, "lanes": Lanes(2), **settings})


def said(transcript: Transcript) -> list[tuple[str, tuple[Any, ...]]]:
    return [(segment.text, segment.words) for segment in transcript.segments]


def refusal(path: Path, **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path, **settings)
    assert "\n" not in caught.value.message
    return caught.value


class Recorder:
    """Stands before a CTranslate2 model and keeps what it generated and aligned."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.prompts: list[list[int]] = []
        self.temperatures: list[float] = []  # of each batch
        self.beams: list[int] = []
        self.texts: list[int] = []  # tokens of each window
        self.aligned: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, encoded: Any, prompts: Any, **settings: Any) -> Any:
        self.prompts += prompts
        self.temperatures.append(settings.get("sampling_temperature", 0.0))
        self.beams.append(settings["beam_size"])
        results = self._model.generate(encoded, prompts, **settings)
        self.texts += [len(result.sequences_ids[0]) for result in results]
        return results

    def align(self, features: Any, start: Any, texts: Any, *arguments: Any, **settings: Any) -> Any:
        self.aligned += [len(text) for text in texts]
        return self._model.align(features, start, texts, *arguments, **settings)


class Said:
    """What CTranslate2 says of a window."""

    def __init__(self, tokens: list[int], average_logprob: float, no_speech_prob: float) -> None:
        self.sequences_ids = [tokens]
        self.scores = [average_logprob * (len(tokens) + 1) / len(tokens)]  # the end counts in the mean
        self.no_speech_prob = no_speech_prob


class Scripted:
    """Stands before a CTranslate2 model. Says in each batch what is written for its windows, known by their sound."""

    def __init__(self, model: Any, heard: Any = None, scripts: Any = (), tokenizer: Any = None) -> None:
        self._model = model
        self._heard = heard
        self._scripts = scripts  # of each window: log probability, text, and perhaps probability of no speech, in turn
        self._tokenizer = tokenizer
        self._known: list[Any] = []  # the encoded windows
        self.turns: list[tuple[list[int], dict[str, Any]]] = []  # windows of each batch that was decoded, and how
        self.encoded = 0  # windows, each as often as it was encoded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, features: Any, **settings: Any) -> Any:
        self.encoded += features.shape[0]
        return self._model.encode(features, **settings)

    def detect_language(self, encoded: Any) -> Any:
        return self._heard if self._heard is not None else self._model.detect_language(encoded)

    def generate(self, encoded: Any, prompts: Any, **settings: Any) -> Any:
        if not self._scripts:
            return self._model.generate(encoded, prompts, **settings)
        rows = list(np.array(encoded))
        assert len(prompts) == len(rows)
        self._known = self._known or rows
        windows = [next(n for n, known in enumerate(self._known) if np.array_equal(known, row)) for row in rows]
        how = {name: settings[name] for name in settings if "sampling" in name or name == "beam_size"}
        self.turns.append((windows, how))
        return [self._said(*self._scripts[window][len(self.turns) - 1]) for window in windows]

    def _said(self, average_logprob: float, text: str, no_speech_prob: float = 0.1) -> Said:
        return Said(self._tokenizer.encode(" " + text.strip()), average_logprob, no_speech_prob)


def scripted(model: SpeechModel, monkeypatch: pytest.MonkeyPatch, *scripts: Any) -> Scripted:
    engine = Scripted(model._whisper.model, scripts=scripts, tokenizer=model._tokenizers["en"])
    monkeypatch.setattr(model._whisper, "model", engine)
    return engine


def hears(monkeypatch: pytest.MonkeyPatch, model: SpeechModel, *ranks: list[tuple[str, float]]) -> None:
    """Have it hear these languages in the windows of the next batches."""
    monkeypatch.setattr(model._whisper, "model", Scripted(model._whisper.model, heard=list(ranks)))
