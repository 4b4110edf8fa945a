"""Small untrained speech models: right files, right shapes, made-up words.

The Whisper is a CTranslate2 directory that faster-whisper loads as it loads a real one. Its weights are random, but a
few dimensions of the residual stream are kept clear of noise, so that a transcript behaves like a real one: the decoder
listens to one place after the other, says five words in two seconds, makes sentences, gives words their times, and ends
where the sound ends. What it says has nothing to do with what was spoken.
"""

import json
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
N_MELS = 80
AUDIO_POSITIONS = 1500
TEXT_POSITIONS = 448
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 20 ms

WIDTH = 64  # of the residual stream
HEADS = 2
HEAD_WIDTH = WIDTH // HEADS
LAYERS = 2
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

LANGUAGES = tuple(f"<|{code}|>" for code in _LANGUAGE_CODES if code != "yue")  # Cantonese came with large-v3
DETECTED = ("<|de|>", "<|en|>", "<|es|>", "<|fr|>")  # the sound chooses among these

UNSAID = -60.0  # bias of a token that must not be chosen; float16 holds it


def build_tiny_whisper(directory: Path, seed: int = 0, multilingual: bool = True) -> None:
    """Write a CTranslate2 Whisper with random weights; about 27 MB. The same seed gives the same bytes.

    `multilingual` chooses between the vocabularies of the original models: 51865 tokens, or 51864 (English only).
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    text_tokens = _text_tokens(rng, multilingual)
    special_tokens = _special_tokens()
    _write_tokenizer(directory, text_tokens, special_tokens)
    tokens = text_tokens + special_tokens + [f"<|{i * 0.02:.2f}|>" for i in range(TIMESTAMPS)]
    spec = _spec(rng, tokens)
    spec.validate()
    spec.save(str(directory))
    features = {"feature_size": N_MELS, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}
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


def _special_tokens() -> list[str]:
    """Whisper's own special tokens in its order; the two kinds differ only in where they begin."""
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    return ["<|endoftext|>", "<|startoftranscript|>", *LANGUAGES, *tasks]


def _write_tokenizer(directory: Path, text_tokens: list[str], special_tokens: list[str]) -> None:
    vocabulary = {token: index for index, token in enumerate(text_tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special_tokens)
    tokenizer.save(str(directory / "tokenizer.json"))


# --- weights --------------------------------------------------------------------------------------------------------


def _spec(rng: np.random.Generator, tokens: list[str]) -> whisper_spec.WhisperSpec:
    ids = {token: index for index, token in enumerate(tokens)}
    spec = whisper_spec.WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = [ids[token] for token in ("<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")]
    spec.config.suppress_ids_begin = [ids["Ġ"], ids["<|endoftext|>"]]  # as in the real models: say something
    spec.config.lang_ids = [ids[language] for language in LANGUAGES]
    spec.config.alignment_heads = [(layer, 0) for layer in range(LAYERS)]  # the heads that listen to one place
    _fill_encoder(spec.encoder, rng)
    _fill_decoder(spec.decoder, rng, ids)
    return spec


def _fill_encoder(encoder: whisper_spec.WhisperEncoderSpec, rng: np.random.Generator) -> None:
    encoder.conv1.weight, encoder.conv1.bias = _normal(rng, WIDTH, N_MELS, 3), _zeros(WIDTH)
    encoder.conv2.weight, encoder.conv2.bias = _normal(rng, WIDTH, WIDTH, 3), _zeros(WIDTH)
    _detect_sound(encoder)
    encoder.position_encodings.encodings = _places(np.arange(AUDIO_POSITIONS), 20.0)
    _fill_norm(encoder.layer_norm)
    for layer in encoder.layer:
        _fill_attention(layer.self_attention, rng, [3 * WIDTH, WIDTH])
        _fill_feed_forward(layer.ffn, rng)


def _detect_sound(encoder: whisper_spec.WhisperEncoderSpec) -> None:
    """SOUND: sum over eight bands of the band's magnitude. Padding is exactly zero in every band; sound never is."""
    bands = 8
    for band in range(bands):
        mels = slice(band * N_MELS // bands, (band + 1) * N_MELS // bands)
        for sign, channel in ((1.0, 2 * band), (-1.0, 2 * band + 1)):
            encoder.conv1.weight[channel] = 0.0
            encoder.conv1.weight[channel, mels, 1] = sign
    encoder.conv2.weight[:CLEAR] = 0.0
    encoder.conv2.weight[SOUND, : 2 * bands, :] = 0.08


def _fill_decoder(
    decoder: transformer_spec.TransformerDecoderSpec, rng: np.random.Generator, ids: dict[str, int]
) -> None:
    decoder.embeddings.weight = _noise_rows(rng, len(ids))
    decoder.position_encodings.encodings = _text_positions(
        rng, 4 if "" in ids else 2
    )  # with language and task, or without
    _fill_norm(decoder.layer_norm)
    for layer in decoder.layer:
        _fill_attention(layer.self_attention, rng, [3 * WIDTH, WIDTH])
        _fill_attention(layer.attention, rng, [WIDTH, 2 * WIDTH, WIDTH])
        _listen_to_place(layer.attention)
        _fill_feed_forward(layer.ffn, rng)
    decoder.projection.weight, decoder.projection.bias = _projection(rng, ids)


def _listen_to_place(spec: attention_spec.MultiHeadAttentionSpec) -> None:
    """Let head 0 attend where the place in the sound matches the place of the token, and bring SOUND along."""
    queries, keys_values, output = (linear.weight for linear in spec.linear)
    head, places = slice(HEAD_WIDTH), np.eye(PLACE.stop - PLACE.start)
    queries[head], keys_values[head] = 0.0, 0.0
    queries[: len(places), PLACE] = 20.0 * places
    keys_values[: len(places), PLACE] = places
    keys_values[WIDTH:] *= 5.0  # sound is heard over position
    keys_values[WIDTH] = 0.0  # the first of head 0's values
    keys_values[WIDTH, SOUND] = 1.0
    output[SOUND, 0] = 6.0


def _projection(rng: np.random.Generator, ids: dict[str, int]) -> tuple[Array, Array]:
    """[tokens, WIDTH] and [tokens]: a word; at the end of a sentence a full stop; where no sound is left, the end."""
    weight, bias = np.zeros((len(ids), WIDTH), np.float32), np.full(len(ids), UNSAID, np.float32)
    words = slice(256, 256 + WORDS)
    weight[words], bias[words] = 0.5 * _noise_rows(rng, WORDS), 0.0
    weight[ids["."], SENTENCE] = 70.0
    bias[ids["."]] = -14.0
    weight[ids["<|endoftext|>"], [OVERRUN, SOUND]] = 24.0, -24.0
    bias[ids["<|endoftext|>"]] = 24.0
    for language in DETECTED:
        weight[ids[language]], bias[ids[language]] = 0.2 * _noise_rows(rng, 1)[0], UNSAID + 20.0
    return weight, bias


def _text_positions(rng: np.random.Generator, prompt_tokens: int) -> Array:
    """[448, WIDTH] noise, and in the clear dimensions what the position stands for."""
    word = np.arange(TEXT_POSITIONS) - (prompt_tokens - 1)  # the first is predicted at the prompt's last token
    place = (word + 0.5) * TOKEN_AUDIO_POSITIONS
    positions = 2 * _noise_rows(rng, TEXT_POSITIONS) + _places(place, 6.0)
    positions[:, OVERRUN] = np.clip((place - AUDIO_POSITIONS) / TOKEN_AUDIO_POSITIONS, 0, 1) * 50
    positions[:, SENTENCE] = 2 * np.cos(2 * np.pi * (word + 1) / SENTENCE_TOKENS)
    return positions


def _places(positions: npt.NDArray[Any], amplitude: float) -> Array:
    """[n, WIDTH], zero but for PLACE."""
    turns = 2 * np.pi * positions[:, None] / PLACE_PERIODS
    rows = np.zeros((len(positions), WIDTH), np.float32)
    rows[:, PLACE] = amplitude * np.concatenate([np.cos(turns), np.sin(turns)], axis=1)
    return rows


def _fill_attention(spec: attention_spec.MultiHeadAttentionSpec, rng: np.random.Generator, widths: list[int]) -> None:
    """Fused projections, as CTranslate2 has them: query+key+value and output, or query, key+value and output."""
    _fill_norm(spec.layer_norm)
    for linear, width in zip(spec.linear, widths, strict=True):
        _fill_linear(linear, rng, width, WIDTH)
    _keep_clear(spec.linear[-1])


def _fill_feed_forward(spec: transformer_spec.FeedForwardSpec, rng: np.random.Generator) -> None:
    _fill_norm(spec.layer_norm)
    _fill_linear(spec.linear_0, rng, 2 * WIDTH, WIDTH)
    _fill_linear(spec.linear_1, rng, WIDTH, 2 * WIDTH)
    _keep_clear(spec.linear_1)


def _fill_linear(spec: common_spec.LinearSpec, rng: np.random.Generator, width_out: int, width_in: int) -> None:
    spec.weight, spec.bias = _normal(rng, width_out, width_in), _zeros(width_out)


def _keep_clear(spec: common_spec.LinearSpec) -> None:
    """Let a sublayer add nothing to the clear dimensions."""
    spec.weight[:CLEAR] = 0.0


def _fill_norm(spec: common_spec.LayerNormSpec) -> None:
    spec.gamma, spec.beta = np.ones(WIDTH, np.float32), _zeros(WIDTH)


def _noise_rows(rng: np.random.Generator, count: int) -> Array:
    """[count, WIDTH] standard normal, zero in the clear dimensions."""
    rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
    rows[:, :CLEAR] = 0.0
    return rows


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    """Normal with a variance that keeps that of the input (fan-in)."""
    return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def _zeros(width: int) -> Array:
    return np.zeros(width, np.float32)


# --- speaker embedder -----------------------------------------------------------------------------------------------

HYPERPARAMS = """\
# The layout of speechbrain/spkrec-ecapa-voxceleb, with fewer channels.
n_mels: 80
out_n_neurons: 10
pretrained_path: .

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [64, 64, 64, 64, 192]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 32
    lin_neurons: 192

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: !ref <out_n_neurons>

mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        mean_var_norm_emb: !ref <mean_var_norm_emb>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


def build_tiny_ecapa(directory: Path, seed: int = 0) -> None:
    """Write a small ECAPA-TDNN in speechbrain's layout, about 1 MB. The same seed gives the same bytes."""
    from stages.speaker_model import build_network, prepare_speechbrain, read_architecture

    prepare_speechbrain()
    import torch
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hyperparams.yaml").write_text(HYPERPARAMS, "utf-8")
    architecture = read_architecture(directory / "hyperparams.yaml")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture)
        classifier = Classifier(architecture.lin_neurons, out_neurons=10)
    statistics = {"count": 1, "glob_mean": torch.zeros(192), "glob_std": torch.ones(192)}
    torch.save(network.state_dict(), directory / "embedding_model.ckpt")
    torch.save(classifier.state_dict(), directory / "classifier.ckpt")
    torch.save(statistics, directory / "mean_var_norm_emb.ckpt")
    labels = "".join(f"'made-up-{i}' => {i}\n" for i in range(10))
    (directory / "label_encoder.txt").write_text(labels + "================\n'starting_index' => 0\n", "utf-8")
