"""The speech model: Whisper through faster-whisper and CTranslate2. Windows of different media share a batch.

A batch goes through the encoder once; what comes out serves for finding languages, for decoding (each window with a
prompt in its own language), for decoding again what `stages.guards` doubts, and for placing the words in time.
faster-whisper's own batched pipeline is not used: it carries the end of one window's speech over to the next, so that a
result depends on its neighbours, takes one tokenizer for the whole batch, and decodes nothing again. Its parts are
used: tokenizer, alignment. The features are made on the device (`stages.log_mel`).

Text is decoded without timestamps, and phrases are made from the times of words. With timestamps Whisper leaves a
sentence that runs to the window's end unfinished, to resume there in the next window; in a batch nobody resumes it, and
it would be lost.
"""

from collections.abc import Sequence
from itertools import chain
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
from stages.guards import Guards, Reading, Verdict
from stages.hearing import Decision, decide, known, note_all
from stages.lanes import Lanes, lanes_of
from stages.log_mel import SAMPLE_RATE, WINDOW_SAMPLES, LogMel, frames
from stages.model_files import Files
from stages.options import SpeechOptions
from stages.phrases import phrase_span, split_phrases, trim_words
from stages.prompts import Prompts, check_tokenizer, language_tokenizers
from stages.speech_encoder import encode_windows
from transport.messages import Word

if TYPE_CHECKING:
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

MAX_BATCH = 32  # windows of 30 s; the budget decides below that
MAX_WORKERS = 8  # of CTranslate2 on the CPU: as many windows as a batch has; further cores help them
MIN_FRAMES = 16  # alignment smooths over 7 positions
MAX_TOKENS = 448  # prompt and text: the length of Whisper's text positions
LONGEST_TEXT = MAX_TOKENS // 2  # tokens; CTranslate2 stops there, as Whisper itself does (whisper.cc, max_length / 2)

# Punctuation that belongs to the word behind it, and to the word before it.
OPENING = "\"'“¿([{-"
CLOSING = "\"'.。,，!！?？:：”)]}、"

Alignment = list[dict[str, Any]]  # of one window: word, tokens, start, end (seconds), probability


class SpeechModel:
    """A Whisper on one device. `stages.base.Model`. One thread calls it."""

    max_batch = MAX_BATCH
    outside_torch = True  # CTranslate2 asks the driver itself
    probe_length = 0  # as `length_of`

    def __init__(
        self,
        whisper: "WhisperModel",
        identity: Identity,
        options: SpeechOptions,
        files: Files,
        lanes: Lanes,
        device: str = "cpu",
    ) -> None:
        from faster_whisper.transcribe import get_suppressed_tokens

        self._whisper = whisper
        self._lanes = lanes
        self._weights = Weights(whisper.model, files)
        self._log_mel = LogMel(whisper.feature_extractor.mel_filters, device)
        self.precision: str = whisper.model.compute_type
        self._options = options
        self._guards = Guards(options)
        self._multilingual: bool = whisper.model.is_multilingual
        self._tokenizers = language_tokenizers(whisper, options)
        self._prompts = Prompts(self._tokenizers, self._multilingual, options)
        any_tokenizer = next(iter(self._tokenizers.values()))
        self._suppressed = list(get_suppressed_tokens(any_tokenizer, [-1]))  # brackets, notes, speaker tags
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
        lanes: Lanes | None = None,
    ) -> Self:
        """Load a CTranslate2 directory; nothing is ever fetched.

        device: "cpu", "cuda" or "cuda:N". dtype: CTranslate2's compute_type, or "auto". lanes: for batches; None: those
        of the device.
        Raises ModelError: model-wrong-kind, model-load-failed when the files are damaged or do not belong together,
        model-dtype when the device cannot compute in `dtype`, model-library without cuBLAS on CUDA,
        model-language when options.language is unknown to it, model-task when it cannot translate, model-prompt when
        options.initial_prompt and hotwords are too long for it.
        RuntimeError of CTranslate2 when the device has no memory for it.
        """
        kind, index = split_device(device)
        compute_type = choose_compute_type(dtype, device, supported_compute_types(device))
        check_tokenizer(path / "tokenizer.json")
        files = Files("speech", path)
        if kind == "cuda":
            preload_cublas()
        from faster_whisper import WhisperModel

        lanes = lanes or lanes_of(device)
        workers = min(lanes.count, MAX_WORKERS)  # each does the part of one lane; they share the weights
        with load_errors(path):
            whisper = WhisperModel(
                str(path),
                device=kind,
                device_index=index,
                compute_type=compute_type,
                cpu_threads=lanes.cores // workers,
                num_workers=workers,
                local_files_only=True,
            )
        _check_features(path, whisper)
        return cls(whisper, identity, options or SpeechOptions(), files, lanes, device)

    def run(self, batch: Sequence[SpeechInput]) -> list[Transcript]:
        """One transcript for each window; the languages may differ. At temperature 0, results do not depend on the
        neighbours; above it they depend on chance (CTranslate2 has no seed for a batch).

        Notes the languages that were heard in the logs of the windows' tracks.
        Raises ValueError when a window is empty or longer than 30 s, RuntimeError of CTranslate2 when memory runs out.
        """
        if not batch:
            return []
        self._weights.check_on_device()
        encoded = self._encode_in_parts(batch)
        decisions = self._languages(batch, encoded)
        codes = [decision.language for decision in decisions]
        first = self._decode_parts(encoded, codes, self._guards.temperatures[0])
        rows = [window for part in encoded for window in np.split(in_host_memory(part), part.shape[0])]
        del encoded  # what is decoded again takes its place on the device
        verdicts = self._guards.settle(
            first, lambda some, temperature: self._decode_again(rows, some, codes, temperature)
        )
        found = list(zip(batch, decisions, verdicts, rows, strict=True))
        transcripts = self._lanes.map(lambda part: [self._transcript(*each) for each in part], found)
        note_all([item.place for item in batch], decisions)
        return transcripts

    def _encode_in_parts(self, batch: Sequence[SpeechInput]) -> list["StorageView"]:
        """Of each lane's part."""
        return self._lanes.run(self._encode, self._lanes.parts([item.pcm for item in batch]))

    def _decode_parts(
        self, encoded: list["StorageView"], codes: Sequence[str], temperature: float, unsaid: Sequence[int] = ()
    ) -> list[Reading]:
        parts = list(zip(encoded, self._lanes.parts(codes), strict=True))
        readings = self._lanes.run(lambda part: self._decode(*part, temperature, unsaid), parts)
        return list(chain.from_iterable(readings))

    def length_of(self, item: SpeechInput) -> int:
        """0: every window is padded to 30 s, so that all cost the same."""
        return 0

    def bytes_of(self, item: SpeechInput) -> int:
        """Host bytes of one window."""
        return item.pcm.nbytes

    def probe(self, count: int) -> None:
        """Transcribe `count` windows of noise, each to the longest text there is: with the end of text suppressed, the
        decoder's cache reaches its full size. One window is aligned, with such a text too: `run` aligns one at a time.

        Of the ways to decode, the one that takes most: beams, of which each has a cache; else sampling, which holds the
        probabilities of all tokens twice more. What is decoded again is part of a batch, so never more than all of it.
        """
        self._weights.check_on_device()
        temperatures = self._guards.temperatures
        temperature = 0.0 if self._options.beam_size > 1 and 0.0 in temperatures else max(temperatures)
        noise = np.random.default_rng(0).integers(-8192, 8192, WINDOW_SAMPLES, dtype=np.int16)
        batch = [SpeechInput(noise, None)] * count
        encoded = self._encode_in_parts(batch)
        codes = [decision.language for decision in self._languages(batch, encoded)]
        self._decode_parts(encoded, codes, temperature, [self._tokenizers[codes[0]].eot])
        self._align(batch[0], codes[0], [0] * LONGEST_TEXT, in_host_memory(encoded[0])[:1])

    def park(self, keep: bool) -> None:
        """As `stages.base.Model.park`."""
        self._weights.park(keep)

    def restore(self) -> None:
        """As `stages.base.Model.restore`."""
        self._weights.restore()

    def unload(self) -> None:
        """Give the weights' memory back. Raises RuntimeError as `park` does."""
        self._weights.park(keep=False)

    def _encode(self, windows: Sequence[Pcm]) -> "StorageView":
        """int16 [samples] each → [n, 1500, width], on the device."""
        return encode_windows(self._whisper.model, self._log_mel(windows))

    def _languages(self, batch: Sequence[SpeechInput], encoded: list["StorageView"]) -> list[Decision]:
        """What is set, else what the model hears. encoded: of the parts of the batch."""
        if not self._multilingual:
            return [Decision("en", 1.0, False)] * len(batch)
        given = [item.language if item.language in self._tokenizers else self._prompts.language for item in batch]
        unknown = [index for index, code in enumerate(given) if code is None]
        decisions = [Decision(code or "", 1.0, False) for code in given]
        if unknown:
            # Of each window: (token, probability), the likeliest first.
            heard = list(chain.from_iterable(self._lanes.run(self._whisper.model.detect_language, encoded)))
            windows = [(batch[index].place, known(heard[index], self._tokenizers)) for index in unknown]
            for index, decision in zip(unknown, decide(windows, self._options.language_threshold), strict=True):
                decisions[index] = decision
        return decisions

    def _decode(
        self, encoded: "StorageView", codes: Sequence[str], temperature: float, unsaid: Sequence[int] = ()
    ) -> list[Reading]:
        """codes: languages; unsaid: tokens that must not be said, besides those that never are."""
        tokenizers = [self._tokenizers[code] for code in codes]
        sampled = {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": temperature}  # 0: among all tokens
        results = self._whisper.model.generate(
            encoded,
            [self._prompts.of(code) for code in codes],
            max_length=MAX_TOKENS,
            suppress_blank=True,
            suppress_tokens=[*self._suppressed, *unsaid],
            return_scores=True,
            return_no_speech_prob=True,
            **(sampled if temperature > 0 else {"beam_size": self._options.beam_size}),
        )
        return [_reading(result, tokenizer, temperature) for result, tokenizer in zip(results, tokenizers, strict=True)]

    def _decode_again(
        self, rows: Sequence[npt.NDArray[np.float32]], some: list[int], codes: Sequence[str], temperature: float
    ) -> list[Reading]:
        """rows: float32 [1, 1500, width] of each window, in host memory; some: those to decode."""
        from faster_whisper.transcribe import get_ctranslate2_storage

        def decode(part: Sequence[int]) -> list[Reading]:
            encoded = get_ctranslate2_storage(np.concatenate([rows[index] for index in part]))
            return self._decode(encoded, [codes[index] for index in part], temperature)

        return self._lanes.map(decode, some)

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
        count = max(MIN_FRAMES, frames(item.pcm))
        storage = get_ctranslate2_storage(encoded)
        alignment: Alignment = self._whisper.find_alignment(self._tokenizers[code], [tokens], storage, count)[0]
        merge_punctuations(alignment, OPENING, CLOSING)
        return alignment

    def _transcript(
        self, item: SpeechInput, decision: Decision, verdict: Verdict, encoded: npt.NDArray[np.float32]
    ) -> Transcript:
        code, translates = decision.language, self._options.task == "translate"
        return Transcript(
            language="en" if translates else code,
            language_probability=decision.probability,
            segments=() if verdict.is_silence else self._segments(item, code, verdict.reading, encoded),
            translated_from=code if translates else None,
            temperature=verdict.reading.temperature,
            retries=verdict.retries,
            doubts=verdict.doubts,
            is_silence=verdict.is_silence,
        )

    def _segments(
        self, item: SpeechInput, code: str, reading: Reading, encoded: npt.NDArray[np.float32]
    ) -> tuple[TextSegment, ...]:
        """Phrases of one window, each with the whole window's figures of quality."""
        window_seconds = len(item.pcm) / SAMPLE_RATE
        spoken = [
            Word(float(word["start"]), float(word["end"]), word["word"])
            for word in self._align(item, code, reading.tokens, encoded)
            if word["word"].strip()
        ]
        phrases = split_phrases(trim_words(spoken, window_seconds))
        return tuple(_segment(phrase, window_seconds, reading) for phrase in phrases)


def _reading(result: Any, tokenizer: "Tokenizer", temperature: float) -> Reading:
    """result: ctranslate2.models.WhisperGenerationResult. The end token counts in the mean, as in Whisper itself."""
    from faster_whisper.transcribe import get_compression_ratio

    said = result.sequences_ids[0]
    tokens = [token for token in said if token < tokenizer.eot]
    return Reading(
        tokens=tokens,
        average_logprob=result.scores[0] * len(said) / (len(said) + 1),
        no_speech_probability=result.no_speech_prob,
        compression_ratio=get_compression_ratio(tokenizer.decode(tokens).strip()),
        temperature=temperature,
    )


def _segment(phrase: Sequence[Word], window_seconds: float, reading: Reading) -> TextSegment:
    start, end = phrase_span(phrase, window_seconds)
    return TextSegment(
        start_seconds=start,
        end_seconds=end,
        text="".join(word.text for word in phrase).strip(),
        words=tuple(Word(word.start_seconds, word.end_seconds, word.text.strip()) for word in phrase),
        average_logprob=reading.average_logprob,
        no_speech_probability=reading.no_speech_probability,
        compression_ratio=reading.compression_ratio,
    )


def _check_features(path: Path, whisper: "WhisperModel") -> None:
    """preprocessor_config.json says how many mel bands there are; where it is lacking, faster-whisper takes 80."""
    bands = len(whisper.feature_extractor.mel_filters)
    if bands != whisper.model.n_mels:
        raise ModelError(
            "model-load-failed",
            f"models.speech: {path / 'preprocessor_config.json'} is missing or wrong: the model takes "
            f"{whisper.model.n_mels} mel bands, not {bands}",
        )
