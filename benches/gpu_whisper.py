"""What a Whisper must compute and move, from the shapes of its weights. It runs in CTranslate2, where nobody counts.

By the rules by which `benches.roofline` counts a model in torch: a multiplication with an addition is two FLOPs; bytes
are what each operator reads and writes, as if nothing stayed in a cache. T = 1500 positions of sound, width d, inner
width f of the MLP, h heads, V tokens in the vocabulary.

    encoder, a window     2 · 3 · (2T · mels · d + T · d²) for the convolutions; a layer: 8Td² for queries, keys, values
                          and output, 4T²d for scores and context, 4Tdf for the MLP
    decoder, a window     4Td² a layer: keys and values of the sound
    its p-th position     a layer: 8d² + 4pd for attention to the text, 4d² + 4Td to the sound, 4df for the MLP
    each token chosen     2dV
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from benches.roofline import Work

POSITIONS = 1500  # of the encoder's output for 30 s
FRAMES = 3000  # of its input, 10 ms each
KERNEL = 3  # width of both convolutions
HEAD_WIDTH = 64  # in all Whispers that were published

# What the operators of an encoder layer read and write beside the weights, in rows of T · d values: two norms (2 + 2),
# queries, keys and values (1 + 3), scores (2), context (1 + 1), output (1 + 1), two residuals (3 + 3), the MLP (1 + 1).
ROWS = 22
HIDDEN_ROWS = 4  # of T · f: written, read and written by the activation, read
SCORE_PASSES = 4  # of h · T²: written, read and written by the softmax, read
CHOICE_PASSES = 3  # of V, for each token: written, read by the softmax, read by the choice


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """Sizes of a Whisper."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    hidden: int  # inner width of the MLP
    mels: int
    vocabulary: int

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "WhisperShape":
        """shapes: by name, of the variables of a CTranslate2 file. Raises KeyError when it is no Whisper."""
        width, mels, _ = shapes["encoder/conv1/weight"]
        return cls(
            width=width,
            heads=max(1, width // HEAD_WIDTH),
            encoder_layers=_layers(shapes, "encoder"),
            decoder_layers=_layers(shapes, "decoder"),
            hidden=shapes["decoder/layer_0/ffn/linear_0/weight"][0],
            mels=mels,
            vocabulary=shapes["decoder/embeddings/weight"][0],
        )


def _layers(shapes: Mapping[str, Sequence[int]], side: str) -> int:
    return len({name.split("/")[1] for name in shapes if name.startswith(f"{side}/layer_") and name.count("/") > 2})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a weight, and of a value between operators."""

    weight_bytes: float
    value_bytes: float

    @classmethod
    def of(cls, compute_type: str) -> "Sizes":
        """As CTranslate2 names it: integers are of the weights alone, and what they leave is in the float type."""
        weights, _, values = compute_type.partition("_")
        plain = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
        return cls(plain.get(weights, 2.0 if weights == "int16" else 1.0), plain.get(values or weights, 4.0))


def encoder_work(shape: WhisperShape, windows: int, sizes: Sizes) -> Work:
    """Of a batch of windows: the weights are read once."""
    t, d, f, layers = POSITIONS, shape.width, shape.hidden, shape.encoder_layers
    flops = 2 * KERNEL * (FRAMES * shape.mels * d + t * d * d)
    flops += layers * (8 * t * d * d + 4 * t * t * d + 4 * t * d * f)
    values = FRAMES * (shape.mels + 2 * d) + t * d
    values += layers * (ROWS * t * d + HIDDEN_ROWS * t * f + SCORE_PASSES * shape.heads * t * t)
    weights = KERNEL * (shape.mels * d + d * d) + layers * (4 * d * d + 2 * d * f)
    return Work(windows * flops, weights * sizes.weight_bytes + windows * values * sizes.value_bytes)


def decoder_work(shape: WhisperShape, tokens: Sequence[int], prompt: int, sizes: Sizes) -> Work:
    """Of a batch that is decoded greedily. tokens: that each window said, without the end; prompt: tokens before them.

    A step reads all weights once, and the keys and values of every window: 2 (T + p) d values a layer. There are as
    many steps as the longest text has tokens, one for the end, one for the prompt. What else a single position reads
    and writes is too little to count, but for the vocabulary.
    """
    t, d, f, layers, v = POSITIONS, shape.width, shape.hidden, shape.decoder_layers, shape.vocabulary
    flops = values = 0.0
    for said in tokens:
        positions, chosen = prompt + said, said + 1
        before = positions * (positions + 1) / 2  # the sum of all p
        flops += layers * (4 * t * d * d + positions * (12 * d * d + 4 * t * d + 4 * d * f) + 4 * before * d)
        flops += chosen * 2 * d * v
        values += layers * (3 * t * d + 2 * d * (chosen * t + before)) + chosen * CHOICE_PASSES * v
    steps = max(tokens) + 2
    weights = steps * (layers * (6 * d * d + 2 * d * f) + d * v) + layers * 2 * d * d
    return Work(flops, weights * sizes.weight_bytes + values * sizes.value_bytes)


# --- the file of weights ----------------------------------------------------------------------------------------------


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables in a CTranslate2 model.bin, aliases with those of what they stand for. Weights
    are passed over (the format is that of ctranslate2.specs.model_spec).
    """
    found: dict[str, tuple[int, ...]] = {}
    with file.open("rb") as stream:
        _number(stream, "I")  # version of the format
        _text(stream)  # name of the specification
        _number(stream, "I")  # its revision
        for _ in range(_number(stream, "I")):
            name = _text(stream)
            found[name] = tuple(_number(stream, "I") for _ in range(_number(stream, "B")))
            _number(stream, "B")  # type
            stream.seek(_number(stream, "I"), 1)
        for _ in range(_number(stream, "I")):
            alias, name = _text(stream), _text(stream)
            found[alias] = found[name]
    return found


def _number(stream: BinaryIO, kind: str) -> int:
    value: int = struct.unpack(kind, stream.read(struct.calcsize(kind)))[0]
    return value


def _text(stream: BinaryIO) -> str:
    """Its length with the final zero, the characters, the zero."""
    return stream.read(_number(stream, "H"))[:-1].decode("utf-8")
