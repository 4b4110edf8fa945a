"""What a Whisper computes: the formulas beside torch's own counts, and the shapes out of a file of weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benches.gpu_whisper import Sizes, WhisperShape, decoder_work, encoder_work, read_shapes
from benches.real_size import SPEECH
from benches.roofline import work_of
from stages.tiny_speech import TINY, Shape, build_whisper
from stages.torch_model import prepare_transformers
from tests.conftest import TinyModels

SMALL = WhisperShape(
    width=128, heads=2, encoder_layers=2, decoder_layers=3, hidden=256, mels=80, vocabulary=51865
)  # fmt: skip
SINGLE = Sizes(4, 4)
PROMPT, SAID, WINDOWS = 4, 9, 2


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' own Whisper of the small shape, with weights of no meaning."""
    prepare_transformers()
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        d_model=SMALL.width,
        encoder_layers=SMALL.encoder_layers,
        decoder_layers=SMALL.decoder_layers,
        encoder_attention_heads=SMALL.heads,
        decoder_attention_heads=SMALL.heads,
        encoder_ffn_dim=SMALL.hidden,
        decoder_ffn_dim=SMALL.hidden,
        num_mel_bins=SMALL.mels,
        vocab_size=SMALL.vocabulary,
    )
    return WhisperForConditionalGeneration(config).eval()


def encode(reference: Any) -> Any:
    with torch.inference_mode():
        return reference.model.encoder(torch.zeros(WINDOWS, SMALL.mels, 3000))


def test_the_encoder_is_what_torch_counts(reference: Any) -> None:
    assert encoder_work(SMALL, WINDOWS, SINGLE).flops == work_of(lambda: encode(reference)).flops


def test_the_decoder_is_what_torch_counts_token_by_token(reference: Any) -> None:
    sound = encode(reference)

    def decode() -> None:
        with torch.inference_mode():
            prompt, token = torch.zeros(WINDOWS, PROMPT, dtype=torch.long), torch.zeros(WINDOWS, 1, dtype=torch.long)
            out = reference(decoder_input_ids=prompt, encoder_outputs=sound, use_cache=True)
            for _ in range(SAID):
                past = out.past_key_values
                out = reference(decoder_input_ids=token, encoder_outputs=sound, past_key_values=past, use_cache=True)

    ours = decoder_work(SMALL, [SAID] * WINDOWS, PROMPT, SINGLE).flops
    needless = WINDOWS * (PROMPT - 1) * 2 * SMALL.width * SMALL.vocabulary  # transformers chooses at each of the prompt
    prompt_rows = WINDOWS * SMALL.decoder_layers * 4 * SMALL.width * (PROMPT**2 - PROMPT * (PROMPT + 1) / 2)  # no mask
    assert ours == work_of(decode).flops - needless - prompt_rows


def test_the_weights_are_read_once_for_a_batch_by_the_encoder_and_once_for_a_step_by_the_decoder() -> None:
    heavy = Sizes(weight_bytes=4, value_bytes=0)
    assert encoder_work(SMALL, 8, heavy).bytes == encoder_work(SMALL, 1, heavy).bytes
    assert decoder_work(SMALL, [20] * 8, PROMPT, heavy).bytes == decoder_work(SMALL, [20], PROMPT, heavy).bytes
    step = decoder_work(SMALL, [21], PROMPT, heavy).bytes - decoder_work(SMALL, [20], PROMPT, heavy).bytes
    layer = 6 * SMALL.width**2 + 2 * SMALL.width * SMALL.hidden
    assert step == 4 * (SMALL.decoder_layers * layer + SMALL.width * SMALL.vocabulary)


def test_a_decoder_goes_on_until_the_longest_text_is_done() -> None:
    heavy = Sizes(weight_bytes=1, value_bytes=0)
    assert decoder_work(SMALL, [3, 30], PROMPT, heavy).bytes == decoder_work(SMALL, [30, 30], PROMPT, heavy).bytes
    assert decoder_work(SMALL, [3, 30], PROMPT, heavy).flops < decoder_work(SMALL, [30, 30], PROMPT, heavy).flops


@pytest.mark.parametrize(
    ("compute_type", "sizes"),
    [
        ("float32", Sizes(4, 4)),
        ("float16", Sizes(2, 2)),
        ("bfloat16", Sizes(2, 2)),
        ("int8", Sizes(1, 4)),
        ("int8_float32", Sizes(1, 4)),
        ("int8_float16", Sizes(1, 2)),
        ("int8_bfloat16", Sizes(1, 2)),
        ("int16", Sizes(2, 4)),
    ],
)
def test_compute_types_say_how_large_a_weight_and_a_value_are(compute_type: str, sizes: Sizes) -> None:
    assert Sizes.of(compute_type) == sizes


def test_shapes_are_read_from_a_file_of_separate_matrices(tiny_models: TinyModels) -> None:
    shape = WhisperShape.of(read_shapes(tiny_models["whisper"] / "model.bin"))
    assert (shape.width, shape.hidden, shape.mels, shape.vocabulary) == (TINY.width, TINY.feed_forward, 80, 51865)
    assert (shape.encoder_layers, shape.decoder_layers) == (2, 2)


def test_shapes_are_read_where_one_matrix_stands_for_two(tmp_path: Path) -> None:
    built = Shape(width=128, heads=2, encoder_layers=3, decoder_layers=1, mels=128, tied=True, dtype="float16")
    build_whisper(tmp_path, built)
    shape = WhisperShape.of(read_shapes(tmp_path / "model.bin"))
    assert shape == WhisperShape(128, 2, 3, 1, 128, 128, 51865)


def test_published_sizes_have_heads_64_wide() -> None:
    assert all(shape.heads == shape.width // 64 for shape in SPEECH.values())


def test_whisper_small_takes_a_third_of_a_teraflop_for_a_window_of_sound() -> None:
    small = WhisperShape(768, 12, 12, 12, 3072, 80, 51865)
    assert encoder_work(small, 1, Sizes(2, 2)).flops == pytest.approx(0.344e12, rel=0.01)
