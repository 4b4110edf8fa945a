"""The two halves of a Whisper by themselves, in CTranslate2 and nothing around it: the encoder and the decoder of one
batch of windows, greedy, as the engine runs them at temperature 0. What `SpeechModel` does beside (features, finding
the language, words' times) is left out, so that their rates can be compared with the device's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.gpu_card import durations
from benches.gpu_whisper import FRAMES, Sizes, WhisperShape, decoder_work, encoder_work, read_shapes
from benches.roofline import Work
from stages.ctranslate2_model import split_device
from stages.cublas import preload_cublas

FRAME_SAMPLES = 160
INT16_SCALE = 1 / 32768
MAX_TOKENS = 448
PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
ENGLISH_PROMPT = ("<|startoftranscript|>", "<|notimestamps|>")  # of models that know no other language


@dataclass(frozen=True, slots=True)
class Halves:
    """What was measured at one batch."""

    encoder_seconds: list[float]
    decoder_seconds: list[float]
    encoder: Work
    decoder: Work
    tokens: list[int]  # that each window said


def measure_halves(
    path: Path, device: str, compute_type: str, windows: Sequence[NDArray[np.int16]], seconds: float
) -> Halves:
    """Run a batch of windows, int16 [samples] of at most 30 s each, for some `seconds` each half.

    Raises RuntimeError of CTranslate2, out of memory included.
    """
    import ctranslate2

    kind, index = split_device(device)
    if kind == "cuda":
        preload_cublas()
    whisper = ctranslate2.models.Whisper(str(path), device=kind, device_index=index, compute_type=compute_type)
    features = ctranslate2.StorageView.from_array(_features(path, windows))
    prompt = _prompt(path, PROMPT if whisper.is_multilingual else ENGLISH_PROMPT)
    prompts = [prompt] * len(windows)

    def decode() -> list[Any]:
        results: list[Any] = whisper.generate(
            encoded, prompts, beam_size=1, max_length=MAX_TOKENS, suppress_blank=True, return_no_speech_prob=True
        )
        return results

    encoded = whisper.encode(features)
    tokens = [len(result.sequences_ids[0]) for result in decode()]
    shape, sizes = WhisperShape.of(read_shapes(path / "model.bin")), Sizes.of(compute_type)
    return Halves(
        durations(lambda: whisper.encode(features), device, seconds),
        durations(decode, device, seconds),
        encoder_work(shape, len(windows), sizes),
        decoder_work(shape, tokens, len(prompt), sizes),
        tokens,
    )


def _features(path: Path, windows: Sequence[NDArray[np.int16]]) -> NDArray[np.float32]:
    """float32 [n, mels, 3000], zero behind a window's end, as `SpeechModel` has them."""
    from faster_whisper.feature_extractor import FeatureExtractor

    file = path / "preprocessor_config.json"
    mels = json.loads(file.read_text("utf-8"))["feature_size"] if file.exists() else 80
    extractor, found = FeatureExtractor(feature_size=mels), np.zeros((len(windows), mels, FRAMES), np.float32)
    for row, pcm in zip(found, windows, strict=True):
        frames = min(FRAMES, -(-len(pcm) // FRAME_SAMPLES))
        row[:, :frames] = extractor(pcm.astype(np.float32) * np.float32(INT16_SCALE))[:, :frames]
    return found


def _prompt(path: Path, words: Sequence[str]) -> list[int]:
    """Token ids."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = (tokenizer.token_to_id(word) for word in words)
    return [each for each in ids if each is not None]
