"""The speech model: Whisper through faster-whisper and CTranslate2. Windows of different media share a batch.

A batch goes through the encoder once; what comes out serves three uses on the device: finding languages, decoding (each
window with a prompt in its own language), and placing the words in time. faster-whisper's own batched pipeline is not
used: it carries the end of one window's speech over to the next, so that a result depends on its neighbours, and it
takes one tokenizer for the whole batch. Its parts are used: features, tokenizer, alignment.

Text is decoded without timestamps, and phrases are made from the times of words. With timestamps Whisper leaves a
sentence that runs to the window's end unfinished, to resume there in the next window; in a batch nobody resumes it, and
it would be lost.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from stages.base import Identity, Pcm, SpeechInput, TextSegment, Transcript
from stages.ctranslate2_model import (
    Weights,
    choose_compute_type,
    in_host_memory,
    load_errors,
    split_device,
    supported_compute_types,
)
from stages.cublas import preload_cublas
from stages.errors import ModelError
from stages.model_files import Files
from stages.options import SpeechOptions
from stages.phrases import phrase_span, split_phrases, trim_words
from transport.messages import Word

if TYPE_CHECKING:
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel

MAX_BATCH = 32  # windows of 30 s; the budget decides below that
SAMPLE_RATE = 16000
INT16_SCALE = 1 / 32768  # the model was trained on sound between -1 and 1
WINDOW_SAMPLES = 30 * SAMPLE_RATE  # the encoder takes exactly 30 s
WINDOW_FRAMES = 3000  # of 10 ms
FRAME_SAMPLES = 160
MIN_FRAMES = 16  # alignment smooths over 7 positions
MAX_TOKENS = 448  # prompt and text: the length of Whisper's text positions
LONGEST_TEXT = MAX_TOKENS // 2  # tokens; CTranslate2 stops there, as Whisper itself does (whisper.cc, max_length / 2)

# Punctuation that belongs to the word behind it, and to the word before it.
OPENING = "\"'“¿([{-"
CLOSING = "\"'.。,，!！?？:：”)]}、"

SPECIAL_TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")
Alignment = list[dict[str, Any]]  # of one window: word, tokens, start, end (seconds), probability


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder said of one window."""

    tokens: list[int]  # text alone
    average_logprob: float
    no_speech_probability: float


class SpeechModel:
    """A Whisper on one device. `stages.base.Model`. One thread calls it."""

    max_batch = MAX_BATCH
    outside_torch = True  # CTranslate2 asks the driver itself
    probe_length = 0  # as `length_of`

    def __init__(self, whisper: "WhisperModel", identity: Identity, options: SpeechOptions, files: Files) -> None:
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        self._whisper = whisper
        self._weights = Weights(whisper.model, files)
        self.precision: str = whisper.model.compute_type
        self._beam_size = options.beam_size
        self._language = options.language
        self._multilingual: bool = whisper.model.is_multilingual
        self._tokenizers = {
            code: Tokenizer(whisper.hf_tokenizer, self._multilingual, task="transcribe", language=code)
            for code in whisper.supported_languages
            if not self._multilingual or whisper.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
        }
        self._suppressed = list(get_suppressed_tokens(self._tokenizers["en"], [-1]))  # brackets, notes, speaker tags
        self.info = identity.info("speech", 0)

    @classmethod
    def load(
        cls,
        path: Path,
        identity: Identity,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        options: SpeechOptions | None = None,
        cpu_threads: int = 0,
    ) -> Self:
        """Load a CTranslate2 directory; nothing is ever fetched.

        device: "cpu", "cuda" or "cuda:N". dtype: CTranslate2's compute_type, or "auto". cpu_threads: 0 leaves the
        number to CTranslate2.
        Raises ModelError: model-wrong-kind, model-load-failed when the files are damaged or do not belong together,
        model-dtype when the device cannot compute in `dtype`, model-library without cuBLAS on CUDA,
        model-language when options.language is unknown to it.
        RuntimeError of CTranslate2 when the device has no memory for it.
        """
        kind, index = split_device(device)
        compute_type = choose_compute_type(dtype, device, supported_compute_types(device))
        _check_tokenizer(path / "tokenizer.json")
        files = Files("speech", path)
        if kind == "cuda":
            preload_cublas()
        from faster_whisper import WhisperModel

        with load_errors(path):
            whisper = WhisperModel(
                str(path),
                device=kind,
                device_index=index,
                compute_type=compute_type,
                cpu_threads=cpu_threads,
                num_workers=1,
                local_files_only=True,
            )
        _check_features(path, whisper)
        model = cls(whisper, identity, options or SpeechOptions(), files)
        model._check_language()
        return model

    def run(self, batch: Sequence[SpeechInput]) -> list[Transcript]:
        """One transcript for each window; the languages may differ. Results do not depend on the neighbours.

        Raises ValueError when a window is empty or longer than 30 s, RuntimeError of CTranslate2 when memory runs out.
        """
        if not batch:
            return []
        self._weights.check_on_device()
        encoded = self._whisper.encode(np.stack([self._features(item.pcm) for item in batch]))
        languages = self._languages(batch, encoded)
        decoded = self._decode(encoded, [code for code, _ in languages], self._suppressed)
        rows = in_host_memory(encoded)
        return [
            Transcript(code, probability, self._segments(item, code, result, rows[index : index + 1]))
            for index, (item, (code, probability), result) in enumerate(zip(batch, languages, decoded, strict=True))
        ]

    def length_of(self, item: SpeechInput) -> int:
        """0: every window is padded to 30 s, so that all cost the same."""
        return 0

    def bytes_of(self, item: SpeechInput) -> int:
        """Host bytes of one window."""
        return item.pcm.nbytes

    def probe(self, count: int) -> None:
        """Transcribe `count` windows of noise, each to the longest text there is: with the end of text suppressed, the
        decoder's cache reaches its full size. One window is aligned, with such a text too: `run` aligns one at a time.
        """
        self._weights.check_on_device()
        noise = np.random.default_rng(0).integers(-8192, 8192, WINDOW_SAMPLES, dtype=np.int16)
        batch = [SpeechInput(noise, None)] * count
        encoded = self._whisper.encode(np.stack([self._features(noise)] * count))
        codes = [code for code, _ in self._languages(batch, encoded)]
        end_of_text = self._tokenizers[codes[0]].eot
        self._decode(encoded, codes, [*self._suppressed, end_of_text])
        self._align(batch[0], codes[0], [0] * LONGEST_TEXT, in_host_memory(encoded)[:1])

    def park(self, keep: bool) -> None:
        """As `stages.base.Model.park`."""
        self._weights.park(keep)

    def restore(self) -> None:
        """As `stages.base.Model.restore`."""
        self._weights.restore()

    def unload(self) -> None:
        """Give the weights' memory back. Raises RuntimeError as `park` does."""
        self._weights.park(keep=False)

    def _check_language(self) -> None:
        if self._language is not None and self._language not in self._tokenizers:
            known = ", ".join(self._tokenizers)
            raise ModelError("model-language", f'speech.language = "{self._language}": this model knows {known}')

    def _features(self, pcm: Pcm) -> npt.NDArray[np.float32]:
        """int16 [samples] → log mel energies, float32 [mels, 3000], zero behind the window's end."""
        if not 0 < len(pcm) <= WINDOW_SAMPLES:
            raise ValueError(f"a speech window must hold 1 to {WINDOW_SAMPLES} samples, not {len(pcm)}")
        frames = self._whisper.feature_extractor(pcm.astype(np.float32) * np.float32(INT16_SCALE))[:, :WINDOW_FRAMES]
        padded = np.zeros((len(frames), WINDOW_FRAMES), np.float32)
        count = _frames(pcm)  # the extractor adds a frame of padding of its own
        padded[:, :count] = frames[:, :count]
        return padded

    def _languages(self, batch: Sequence[SpeechInput], encoded: "StorageView") -> list[tuple[str, float]]:
        """Language and its probability for each window: what is set, else what the model hears."""
        if not self._multilingual:
            return [("en", 1.0)] * len(batch)
        known = [item.language or self._language or "" for item in batch]
        if all(code in self._tokenizers for code in known):
            heard = [[("", 0.0)]] * len(batch)
        else:
            heard = self._whisper.model.detect_language(encoded)  # of each: (token, probability), the likeliest first
        return [
            (code, 1.0) if code in self._tokenizers else (ranked[0][0].strip("<|>"), ranked[0][1])
            for code, ranked in zip(known, heard, strict=True)
        ]

    def _decode(self, encoded: "StorageView", languages: Sequence[str], suppressed: Sequence[int]) -> list[Decoded]:
        tokenizers = [self._tokenizers[code] for code in languages]
        results = self._whisper.model.generate(
            encoded,
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps] for tokenizer in tokenizers],
            beam_size=self._beam_size,
            max_length=MAX_TOKENS,
            suppress_blank=True,
            suppress_tokens=suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [_decoded(result, tokenizer.eot) for result, tokenizer in zip(results, tokenizers, strict=True)]

    def _align(self, item: SpeechInput, code: str, tokens: list[int], encoded: npt.NDArray[np.float32]) -> Alignment:
        """Words of one window with their times. encoded: float32 [1, 1500, width], in host memory.

        One window at a time: a batch would hold a probability for each of the 51865 tokens at every place of the
        longest text, take one language alone, and, when all windows are equally long, let word times depend on the
        neighbours (CTranslate2 normalises attention over the padding of the shorter texts). It is one pass over a text
        that is already known, a small part of the time that finding it took.
        """
        from faster_whisper.transcribe import get_ctranslate2_storage, merge_punctuations

        if not tokens:
            return []
        frames = max(MIN_FRAMES, _frames(item.pcm))
        storage = get_ctranslate2_storage(encoded)
        alignment: Alignment = self._whisper.find_alignment(self._tokenizers[code], [tokens], storage, frames)[0]
        merge_punctuations(alignment, OPENING, CLOSING)
        return alignment

    def _segments(
        self, item: SpeechInput, code: str, result: Decoded, encoded: npt.NDArray[np.float32]
    ) -> tuple[TextSegment, ...]:
        """Phrases of one window, each with the whole window's figures of quality."""
        from faster_whisper.transcribe import get_compression_ratio

        window_seconds = len(item.pcm) / SAMPLE_RATE
        ratio = get_compression_ratio(self._tokenizers[code].decode(result.tokens).strip())
        spoken = [
            Word(float(word["start"]), float(word["end"]), word["word"])
            for word in self._align(item, code, result.tokens, encoded)
            if word["word"].strip()
        ]
        phrases = split_phrases(trim_words(spoken, window_seconds))
        return tuple(_segment(phrase, window_seconds, result, ratio) for phrase in phrases)


def _frames(pcm: Pcm) -> int:
    """Frames of 10 ms, the last one perhaps begun."""
    return math.ceil(len(pcm) / FRAME_SAMPLES)


def _decoded(result: Any, end_of_text: int) -> Decoded:
    """result: ctranslate2.models.WhisperGenerationResult. The end token counts in the mean, as in Whisper itself."""
    tokens = result.sequences_ids[0]
    average_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
    return Decoded([token for token in tokens if token < end_of_text], average_logprob, result.no_speech_prob)


def _segment(phrase: Sequence[Word], window_seconds: float, result: Decoded, ratio: float) -> TextSegment:
    start, end = phrase_span(phrase, window_seconds)
    return TextSegment(
        start_seconds=start,
        end_seconds=end,
        text="".join(word.text for word in phrase).strip(),
        words=tuple(Word(word.start_seconds, word.end_seconds, word.text.strip()) for word in phrase),
        average_logprob=result.average_logprob,
        no_speech_probability=result.no_speech_probability,
        compression_ratio=ratio,
    )


def _check_tokenizer(file: Path) -> None:
    """Without the file faster-whisper would ask the hub for one; without Whisper's tokens nothing would come of it."""
    try:
        added = json.loads(file.read_text("utf-8"))["added_tokens"]
        lacking = [token for token in SPECIAL_TOKENS if token not in {entry["content"] for entry in added}]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "model-wrong-kind", f"models.speech: {file} is missing or no tokenizer ({type(error).__name__}): {REMEDY}"
        ) from error
    if lacking:
        raise ModelError("model-wrong-kind", f"models.speech: {file} lacks {lacking[0]}: {REMEDY}")


REMEDY = "take a directory that was converted for faster-whisper, with its tokenizer.json"


def _check_features(path: Path, whisper: "WhisperModel") -> None:
    """preprocessor_config.json says how many mel bands there are; where it is lacking, faster-whisper takes 80."""
    bands = len(whisper.feature_extractor.mel_filters)
    if bands != whisper.model.n_mels:
        raise ModelError(
            "model-load-failed",
            f"models.speech: {path / 'preprocessor_config.json'} is missing or wrong: the model takes "
            f"{whisper.model.n_mels} mel bands, not {bands}",
        )
