"""Untrained models of real size: the numbers give the published parameter counts, and what is built loads and runs.

Building is tested with small numbers in the place of the real ones, counting on torch's meta device.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import convert
from safetensors import safe_open

from benches import real_size
from benches.real_size import IMAGE, SPEECH, TEXT, VOICE, Tower, build, image_config, shapes_of, text_config
from stages import registry
from stages.base import Role, SpeechInput
from stages.options import ModelOptions, SpeechOptions
from stages.speaker_model import build_network, read_architecture
from stages.tiny_speech import Shape
from stages.tiny_voice import Sizes, hyperparams
from stages.torch_model import prepare_transformers

TOWER = Tower(32, 2, 2, 64)
SMALL: dict[tuple[Role, str], Any] = {
    ("image", "vit-b-32"): replace(IMAGE["vit-b-32"], vision=TOWER, text=TOWER, dimension=32),
    ("image", "siglip-base"): replace(IMAGE["siglip-base"], vision=TOWER, text=TOWER, dimension=32),
    ("speech", "small"): replace(SPEECH["small"], width=64, heads=2, encoder_layers=3, decoder_layers=3),
    ("speech", "large-v3"): replace(SPEECH["large-v3"], width=64, heads=2, encoder_layers=1, decoder_layers=1),
    ("text", "bert-base"): replace(TEXT["bert-base"], width=32, layers=1, heads=2, feed_forward=64),
    ("text", "qwen2-1.5b"): replace(TEXT["qwen2-1.5b"], width=32, layers=1, heads=4, feed_forward=64, vocabulary=31000),
    ("voice", "ecapa"): replace(VOICE["ecapa"], channels=64, last_channels=192, attention_channels=32),
}  # fmt: skip


def noise(count: int) -> list[Any]:
    """Sound: int16 [32000] each."""
    return list(np.random.default_rng(1).integers(-3000, 3000, (count, 32000), dtype=np.int16))


def items(role: Role) -> list[Any]:
    match role:
        case "image":
            return list(np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8))
        case "speech":
            return [SpeechInput(sound, None) for sound in noise(2)]
        case "text":
            return ["a short sentence", "another one, a little longer than the first"]
        case "voice":
            return noise(2)


def load(role: Role, path: Path) -> Any:
    return registry.load(role, convert({role: str(path)}, ModelOptions), SpeechOptions(), "cpu")


# --- the real numbers -----------------------------------------------------------------------------------------------


def parameters(config: Any) -> int:
    return sum(shape.numel() for shape in shapes_of(config).values())


@pytest.mark.parametrize(
    ("name", "published"), [("vit-b-32", 151_277_313), ("vit-l-14", 427_616_513), ("siglip-base", 203_155_970)]
)
def test_image_models_have_the_published_number_of_parameters(tmp_path: Path, name: str, published: int) -> None:
    prepare_transformers()
    config, _ = image_config(IMAGE[name], tmp_path)
    assert parameters(config) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [("minilm", 22_713_216), ("bert-base", 109_482_240), ("qwen2-1.5b", 1_543_714_304 - 290 * 1536)],
)  # the last: Qwen2-1.5B without its output layer, and with the 290 fewer tokens that gte-Qwen2 has
def test_text_models_have_the_published_number_of_parameters(name: str, published: int) -> None:
    prepare_transformers()
    assert parameters(text_config(TEXT[name])) == published


def whisper_parameters(shape: Shape) -> int:
    """As transformers counts them, for which the output layer is the embedding."""
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=51766 + shape.languages,
        num_mel_bins=shape.mels,
        d_model=shape.width,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.feed_forward,
        decoder_ffn_dim=shape.feed_forward,
    )
    with torch.device("meta"):
        return sum(weight.numel() for weight in WhisperModel(config).state_dict().values())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("tiny", 37_760_640),
        ("base", 72_593_920),
        ("small", 241_734_912),
        ("medium", 763_857_920),
        ("large-v3", 1_543_490_560),
        ("large-v3-turbo", 808_878_080),
    ],
)
def test_whispers_have_the_published_number_of_parameters(name: str, published: int) -> None:
    prepare_transformers()
    assert whisper_parameters(SPEECH[name]) == published


def test_the_voice_model_has_the_published_number_of_parameters(tmp_path: Path) -> None:
    (tmp_path / "hyperparams.yaml").write_text(hyperparams(VOICE["ecapa"]))
    network = build_network(read_architecture(tmp_path / "hyperparams.yaml"))
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(20.8e6, rel=0.005)


def test_every_role_has_sizes_by_name() -> None:
    assert {role: list(sizes) for role, sizes in real_size.SIZES.items()} == {
        "image": ["vit-b-32", "vit-l-14", "siglip-base"],
        "speech": ["tiny", "base", "small", "medium", "large-v3", "large-v3-turbo"],
        "text": ["minilm", "bert-base", "qwen2-1.5b"],
        "voice": ["ecapa"],
    }


# --- building -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "name"), SMALL)
def test_what_is_built_loads_by_the_usual_door_runs_and_says_that_it_is_untrained(
    tmp_path: Path, role: Role, name: str, no_network: None
) -> None:
    path = build(tmp_path, role, name, sizes=SMALL[role, name])
    assert path == tmp_path / f"{role}-{name}"
    model = load(role, path)
    assert model.info.label.endswith(" (untrained)")
    results = model.run(items(role))
    if role == "speech":
        assert all(transcript.segments for transcript in results)
    else:
        np.testing.assert_allclose(np.linalg.norm(results, axis=1), 1, atol=1e-5)
        assert abs(float(results[0] @ results[1])) < 0.9999
    model.probe(2)


@pytest.mark.parametrize("name", ["small", "large-v3"])
def test_the_file_of_a_whisper_holds_its_parameters_in_float16(tmp_path: Path, name: str) -> None:
    prepare_transformers()
    shape = SMALL["speech", name]
    size = (build(tmp_path, "speech", name, sizes=shape) / "model.bin").stat().st_size
    assert size / 2 == pytest.approx(whisper_parameters(shape), rel=0.03)  # biases that the real ones lack, and names


def test_a_whisper_of_many_layers_says_more_of_a_longer_sound_and_comes_to_an_end(tmp_path: Path) -> None:
    shape = replace(SMALL["speech", "small"], encoder_layers=8, decoder_layers=8)
    model = load("speech", build(tmp_path, "speech", "small", sizes=shape))
    sounds = [np.tile(noise(1)[0], times) for times in (1, 5, 15)]  # 2, 10 and 30 s
    transcripts = model.run([SpeechInput(sound, "en") for sound in sounds])
    counts = [sum(len(segment.words) for segment in transcript.segments) for transcript in transcripts]
    assert 3 <= counts[0] <= 8
    assert 20 <= counts[1] <= 30
    assert 60 <= counts[2] <= 90


def test_large_v3_knows_cantonese(tmp_path: Path) -> None:
    model = load("speech", build(tmp_path, "speech", "large-v3", sizes=SMALL["speech", "large-v3"]))
    [transcript] = model.run([SpeechInput(noise(1)[0], "yue")])
    assert (transcript.language, transcript.language_probability) == ("yue", 1.0)


@pytest.mark.parametrize(("role", "name"), [("image", "vit-b-32"), ("text", "bert-base")])
def test_weights_lie_in_float16(tmp_path: Path, role: Role, name: str) -> None:
    path = build(tmp_path, role, name, sizes=SMALL[role, name])
    with safe_open(path / "model.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118 - no mapping


def test_weights_of_the_voice_model_lie_in_float16(tmp_path: Path) -> None:
    path = build(tmp_path, "voice", "ecapa", sizes=SMALL["voice", "ecapa"])
    weights = torch.load(path / "embedding_model.ckpt", weights_only=True)
    assert {weight.dtype for weight in weights.values() if weight.is_floating_point()} == {torch.float16}


@pytest.mark.parametrize(("role", "name"), [("image", "vit-b-32"), ("voice", "ecapa")])
def test_a_seed_makes_a_revision(tmp_path: Path, role: Role, name: str) -> None:
    revisions = [
        registry.identify(role, str(path), path).revision
        for folder, seed in (("a", 0), ("b", 0), ("c", 1))
        for path in [build(tmp_path / folder, role, name, seed, SMALL[role, name])]
    ]
    assert revisions[0] == revisions[1] != revisions[2]


def test_what_is_there_is_left_alone_and_other_sizes_replace_it(tmp_path: Path) -> None:
    sizes = SMALL["voice", "ecapa"]
    weights = build(tmp_path, "voice", "ecapa", sizes=sizes) / "embedding_model.ckpt"
    stamp = weights.stat().st_mtime_ns
    build(tmp_path, "voice", "ecapa", sizes=sizes)
    assert weights.stat().st_mtime_ns == stamp
    before = weights.stat().st_size
    build(tmp_path, "voice", "ecapa", sizes=Sizes(64, 192, 64))
    assert weights.stat().st_size > before


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {role: {name: sizes} for (role, name), sizes in SMALL.items() if name in ("vit-b-32", "ecapa")}
    monkeypatch.setattr(real_size, "SIZES", real_size.SIZES | small)
    monkeypatch.setattr("sys.argv", ["real_size", str(tmp_path / "m"), "--image", "vit-b-32", "--voice", "ecapa"])
    real_size.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["models.image", "=", str(tmp_path / "m" / "image-vit-b-32")],
        ["models.voice", "=", str(tmp_path / "m" / "voice-ecapa")],
    ]
    assert all(" MB " in line and line.endswith(" s") for line in lines)
