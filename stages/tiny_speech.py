"""Untrained Whispers: right files, right shapes, made-up words. Small ones to try things with, and ones as large as the
real ones, for benches.

The Whisper is a CTranslate2 directory that faster-whisper loads as it loads a real one. Its weights are random, but a
few dimensions of the residual stream are kept clear of noise, so that a transcript behaves like a real one: the decoder
listens to one place after the other, says five words in two seconds, makes sentences, gives words their times, and ends
where the sound ends. What it says has nothing to do with what was spoken.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from ctranslate2.specs import attention_spec, common_spec, transformer_spec, whisper_spec
from faster_whisper.tokenizer import _LANGUAGE_CODES

Array = npt.NDArray[np.float32]

# Sizes of Whisper that do not depend on the model: 30 s of 10 ms frames, halved by the second convolution; and the
# longest text (https://arxiv.org/abs/2212.04356, table 1 and section 2.2).
AUDIO_POSITIONS = 1500
TEXT_POSITIONS = 448
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 20 ms

WORDS = 400
SENTENCE_TOKENS = 7
TOKEN_AUDIO_POSITIONS = 20  # 0.4 s of sound for each token

# Dimensions without noise.
OVERRUN = 0  # decoder: rises when the 30 s are over
SENTENCE = 1  # decoder: turns once a sentence
SOUND = 2  # encoder: how far the frames are from padding; decoder: the same, where it listens
PLACE = slice(4, 12)  # both: cosines and sines of the place in the sound
CLEAR = 12
PLACE_PERIODS = np.array([4000.0, 800.0, 200.0, 60.0])  # audio positions; the longest beyond 1500, so that it is unique

LANGUAGES = tuple(f"<|{code}|>" for code in _LANGUAGE_CODES)
CANTONESE = "<|yue|>"  # came with large-v3
DETECTED = ("<|de|>", "<|en|>", "<|es|>", "<|fr|>")  # the sound chooses among these

UNSAID = -60.0  # bias of a token that must not be chosen; float16 holds it


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Whisper; the defaults are those of the tiny one."""

    width: int = 64  # of the residual stream
    heads: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 2
    feed_forward: int = 128
    mels: int = 80
    languages: int = 99  # 100 with Cantonese
    tied: bool = False  # one matrix both reads tokens and chooses them, as in the real ones
    dtype: str = "float32"  # of the file

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads


class Noise:
    """Random weights of one seed, in the width and type of a shape."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Array:
        """Normal with a variance that keeps that of the input (fan-in)."""
        rows = self.rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        return rows.astype(self.shape.dtype, copy=False)

    def rows(self, count: int) -> Array:
        """[count, width] standard normal, zero in the clear dimensions."""
        rows = self.rng.standard_normal((count, self.shape.width), dtype=np.float32)
        rows[:, :CLEAR] = 0.0
        return rows

    def zeros(self, width: int) -> Array:
        """[width]"""
        return np.zeros(width, self.shape.dtype)

    def cast(self, values: Array) -> Array:
        """In the type of the file."""
        return values.astype(self.shape.dtype, copy=False)


TINY = Shape()


def build_tiny_whisper(directory: Path, seed: int = 0, multilingual: bool = True) -> None:
    """Write a CTranslate2 Whisper with random weights; about 27 MB. The same seed gives the same bytes.

    `multilingual` chooses between the vocabularies of the original models: 51865 tokens, or 51864 (English only).
    """
    build_whisper(directory, TINY, seed, multilingual)


def build_whisper(directory: Path, shape: Shape, seed: int = 0, multilingual: bool = True) -> None:
    """Write a CTranslate2 Whisper of any shape. The same shape and seed give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    noise = Noise(shape, seed)
    text_tokens = _text_tokens(noise.rng, multilingual)
    special_tokens = _special_tokens(shape.languages)
    _write_tokenizer(directory, text_tokens, special_tokens)
    tokens = text_tokens + special_tokens + [f"<|{i * 0.02:.2f}|>" for i in range(TIMESTAMPS)]
    spec = _spec(noise, tokens)
    spec.validate()
    if shape.tied:
        spec.decoder.projection.weight = "decoder/embeddings/weight"  # a name in place of a matrix is an alias
    spec.save(str(directory))
    features = {"feature_size": shape.mels, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}
    (directory / "preprocessor_config.json").write_text(json.dumps(features, indent=2, sort_keys=True) + "\n")


# --- vocabulary -----------------------------------------------------------------------------------------------------


def _text_tokens(rng: np.random.Generator, multilingual: bool) -> list[str]:
    """The 256 bytes, then made-up words, then tokens that are never said. "Ġ" spells a space (byte-level BPE).

    The multilingual vocabularies end with the empty token; by it CTranslate2 tells the two kinds apart.
    """
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġ{word}" for word in _made_up_words(rng)]
    unused = [f"Ġunused{i}" for i in range(50256 - len(alphabet) - len(words))]
    return alphabet + words + unused + ([""] if multilingual else [])


def _made_up_words(rng: np.random.Generator) -> list[str]:
    """WORDS different words of two or three syllables."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(rng.choice(syllables, size=rng.integers(2, 4)))] = None
    return list(words)


def _languages(count: int) -> list[str]:
    return [language for language in LANGUAGES if count == len(LANGUAGES) or language != CANTONESE]


def _special_tokens(languages: int) -> list[str]:
    """Whisper's own special tokens in its order; the kinds differ in where they begin, and in Cantonese."""
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    return ["<|endoftext|>", "<|startoftranscript|>", *_languages(languages), *tasks]


def _write_tokenizer(directory: Path, text_tokens: list[str], special_tokens: list[str]) -> None:
    vocabulary = {token: index for index, token in enumerate(text_tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special_tokens)
    tokenizer.save(str(directory / "tokenizer.json"))


# --- weights --------------------------------------------------------------------------------------------------------


def _spec(noise: Noise, tokens: list[str]) -> whisper_spec.WhisperSpec:
    shape, ids = noise.shape, {token: index for index, token in enumerate(tokens)}
    spec = whisper_spec.WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = [ids[token] for token in ("<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")]
    spec.config.suppress_ids_begin = [ids["Ġ"], ids["<|endoftext|>"]]  # as in the real models: say something
    spec.config.lang_ids = [ids[language] for language in _languages(shape.languages)]
    spec.config.alignment_heads = [
        (layer, 0) for layer in range(shape.decoder_layers)
    ]  # those that listen to one place
    _fill_encoder(spec.encoder, noise)
    _fill_decoder(spec.decoder, noise, ids)
    return spec


def _fill_encoder(encoder: whisper_spec.WhisperEncoderSpec, noise: Noise) -> None:
    width = noise.shape.width
    encoder.conv1.weight, encoder.conv1.bias = noise.normal(width, noise.shape.mels, 3), noise.zeros(width)
    encoder.conv2.weight, encoder.conv2.bias = noise.normal(width, width, 3), noise.zeros(width)
    _detect_sound(encoder, noise.shape.mels)
    encoder.position_encodings.encodings = noise.cast(_places(np.arange(AUDIO_POSITIONS), 20.0, width))
    _fill_norm(encoder.layer_norm, noise)
    for layer in encoder.layer:
        _fill_attention(layer.self_attention, noise, [3 * width, width], noise.shape.encoder_layers)
        _fill_feed_forward(layer.ffn, noise, noise.shape.encoder_layers)


def _detect_sound(encoder: whisper_spec.WhisperEncoderSpec, mels: int) -> None:
    """SOUND: sum over eight bands of the band's magnitude. Padding is exactly zero in every band; sound never is."""
    bands = 8
    for band in range(bands):
        inside = slice(band * mels // bands, (band + 1) * mels // bands)
        for sign, channel in ((1.0, 2 * band), (-1.0, 2 * band + 1)):
            encoder.conv1.weight[channel] = 0.0
            encoder.conv1.weight[channel, inside, 1] = sign
    encoder.conv2.weight[:CLEAR] = 0.0
    encoder.conv2.weight[SOUND, : 2 * bands, :] = 0.08


def _fill_decoder(decoder: transformer_spec.TransformerDecoderSpec, noise: Noise, ids: dict[str, int]) -> None:
    width = noise.shape.width
    if not noise.shape.tied:
        decoder.embeddings.weight = noise.cast(noise.rows(len(ids)))
    prompt_tokens = 4 if "" in ids else 2  # with language and task, or without
    decoder.position_encodings.encodings = noise.cast(_text_positions(noise, prompt_tokens))
    _fill_norm(decoder.layer_norm, noise)
    for layer in decoder.layer:
        _fill_attention(layer.self_attention, noise, [3 * width, width], noise.shape.decoder_layers)
        _fill_attention(layer.attention, noise, [width, 2 * width, width], noise.shape.decoder_layers)
        _listen_to_place(layer.attention, noise.shape)
        _fill_feed_forward(layer.ffn, noise, noise.shape.decoder_layers)
    decoder.projection.weight, decoder.projection.bias = map(noise.cast, _projection(noise, ids))
    if noise.shape.tied:
        decoder.embeddings.weight = decoder.projection.weight


def _listen_to_place(spec: attention_spec.MultiHeadAttentionSpec, shape: Shape) -> None:
    """Let head 0 attend where the place in the sound matches the place of the token, and bring SOUND along."""
    queries, keys_values, output = (linear.weight for linear in spec.linear)
    head, places = slice(shape.head_width), np.eye(PLACE.stop - PLACE.start)
    queries[head], keys_values[head] = 0.0, 0.0
    queries[: len(places), PLACE] = 20.0 * places
    keys_values[: len(places), PLACE] = places
    keys_values[shape.width :] *= 5.0  # sound is heard over position
    keys_values[shape.width] = 0.0  # the first of head 0's values
    keys_values[shape.width, SOUND] = 1.0
    output[SOUND, 0] = 6.0 * TINY.decoder_layers / shape.decoder_layers  # as loud after the last layer, however many


def _projection(noise: Noise, ids: dict[str, int]) -> tuple[Array, Array]:
    """[tokens, width] and [tokens]: a word; at the end of a sentence a full stop; where no sound is left, the end.

    Words are as loud at any width. A matrix that tokens are read by too knows no sentences: a full stop that is read
    would call for the next.
    """
    width = noise.shape.width
    loudness = np.float32(np.sqrt(TINY.width / width))
    weight, bias = np.zeros((len(ids), width), np.float32), np.full(len(ids), UNSAID, np.float32)
    words = slice(256, 256 + WORDS)
    weight[words], bias[words] = 0.5 * loudness * noise.rows(WORDS), 0.0
    if not noise.shape.tied:
        weight[ids["."], SENTENCE] = 70.0
        bias[ids["."]] = -14.0
    weight[ids["<|endoftext|>"], [OVERRUN, SOUND]] = 24.0, -24.0
    bias[ids["<|endoftext|>"]] = 24.0
    for language in DETECTED:
        weight[ids[language]], bias[ids[language]] = 0.2 * loudness * noise.rows(1)[0], UNSAID + 20.0
    return weight, bias


def _text_positions(noise: Noise, prompt_tokens: int) -> Array:
    """[448, width] noise, and in the clear dimensions what the position stands for."""
    word = np.arange(TEXT_POSITIONS) - (prompt_tokens - 1)  # the first is predicted at the prompt's last token
    place = (word + 0.5) * TOKEN_AUDIO_POSITIONS
    positions = 2 * noise.rows(TEXT_POSITIONS) + _places(place, 6.0, noise.shape.width)
    positions[:, OVERRUN] = np.clip((place - AUDIO_POSITIONS) / TOKEN_AUDIO_POSITIONS, 0, 1) * 50
    positions[:, SENTENCE] = 2 * np.cos(2 * np.pi * (word + 1) / SENTENCE_TOKENS)
    return positions


def _places(positions: npt.NDArray[Any], amplitude: float, width: int) -> Array:
    """[n, width], zero but for PLACE."""
    turns = 2 * np.pi * positions[:, None] / PLACE_PERIODS
    rows = np.zeros((len(positions), width), np.float32)
    rows[:, PLACE] = amplitude * np.concatenate([np.cos(turns), np.sin(turns)], axis=1)
    return rows


def _fill_attention(spec: attention_spec.MultiHeadAttentionSpec, noise: Noise, widths: list[int], layers: int) -> None:
    """Fused projections, as CTranslate2 has them: query+key+value and output, or query, key+value and output."""
    _fill_norm(spec.layer_norm, noise)
    for linear, width in zip(spec.linear, widths, strict=True):
        _fill_linear(linear, noise, width, noise.shape.width)
    _hush(spec.linear[-1], layers)


def _fill_feed_forward(spec: transformer_spec.FeedForwardSpec, noise: Noise, layers: int) -> None:
    shape = noise.shape
    _fill_norm(spec.layer_norm, noise)
    _fill_linear(spec.linear_0, noise, shape.feed_forward, shape.width)
    _fill_linear(spec.linear_1, noise, shape.width, shape.feed_forward)
    _hush(spec.linear_1, layers)


def _fill_linear(spec: common_spec.LinearSpec, noise: Noise, width_out: int, width_in: int) -> None:
    spec.weight, spec.bias = noise.normal(width_out, width_in), noise.zeros(width_out)


def _hush(spec: common_spec.LinearSpec, layers: int) -> None:
    """Let a sublayer add nothing to the clear dimensions, and all layers together no more noise than the tiny one's."""
    spec.weight *= np.float32(np.sqrt(TINY.encoder_layers / layers))
    spec.weight[:CLEAR] = 0.0


def _fill_norm(spec: common_spec.LayerNormSpec, noise: Noise) -> None:
    width = noise.shape.width
    spec.gamma, spec.beta = np.ones(width, noise.shape.dtype), noise.zeros(width)
