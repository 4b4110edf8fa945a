"""The frame embedder, on tiny models of both families, against transformers itself and Pillow's arithmetic."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from stages.base import Identity, Pixels, Query
from stages.errors import ModelError
from stages.image_model import ImageModel, Preprocessing
from stages.lanes import Lanes
from stages.tiny import build_tiny
from stages.torch_model import dtype_for, unit_rows
from tests.conftest import TinyModels
from transport.messages import FrameFormat

FAMILIES = ("clip", "siglip")
IDENTITY = Identity("tiny", "0123456789ab", True)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def noise(count: int, seed: int = 0) -> Pixels:
    """uint8 [count, 224, 224, 3]"""
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(family: str, tiny_models: TinyModels) -> Path:
    return tiny_models[family]


@pytest.fixture(scope="module")
def model(path: Path) -> ImageModel:
    return ImageModel.load(path, IDENTITY)


def transformers_model(family: str, path: Path) -> Any:
    import transformers

    return getattr(transformers, {"clip": "CLIPModel", "siglip": "SiglipModel"}[family]).from_pretrained(path).eval()


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / norms)


def pillow_arithmetic(pixels: Pixels, config: dict[str, Any]) -> np.ndarray[Any, Any]:
    """What transformers' Pillow backend computes after the resize, in float64: rescale, subtract, divide."""
    rescaled = pixels.astype(np.float64) * config["rescale_factor"]
    return np.asarray((rescaled - config["image_mean"]) / config["image_std"]).transpose(0, 3, 1, 2)


def test_preprocessing_is_pillows_arithmetic(model: ImageModel, path: Path) -> None:
    config = json.loads((path / "preprocessor_config.json").read_text())
    every_value = np.resize(np.arange(256, dtype=np.uint8), (1, 224, 224, 3))
    got = model.normalise(every_value).numpy()
    np.testing.assert_allclose(got, pillow_arithmetic(every_value, config), atol=2e-6)


def test_preprocessing_is_that_of_transformers_own_numpy_transforms(model: ImageModel, path: Path) -> None:
    from transformers.image_transforms import normalize, rescale

    config = json.loads((path / "preprocessor_config.json").read_text())
    frame = noise(1)[0]
    theirs = normalize(rescale(frame, config["rescale_factor"]), config["image_mean"], config["image_std"])
    np.testing.assert_allclose(model.normalise(frame[None])[0].permute(1, 2, 0).numpy(), theirs, atol=2e-6)


def test_frames_embed_as_transformers_embeds_them(model: ImageModel, family: str, path: Path) -> None:
    frames = noise(3)
    config = json.loads((path / "preprocessor_config.json").read_text())
    pixel_values = torch.tensor(pillow_arithmetic(frames, config), dtype=torch.float32)
    with torch.inference_mode():
        theirs = transformers_model(family, path).get_image_features(pixel_values=pixel_values).pooler_output.numpy()
    ours = np.stack(model.run(list(frames)))
    assert ours.shape == (3, 64)
    assert cosine(ours, theirs).min() >= 0.9999


def test_texts_embed_as_transformers_embeds_them(model: ImageModel, family: str, path: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["A dog catches a BALL", "rain, on the street!", "été 日本"]
    tokenizer = AutoTokenizer.from_pretrained(path)
    padding = {"clip": True, "siglip": "max_length"}[family]
    inputs = tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
    if family == "siglip":
        assert inputs.pop("attention_mask").shape == (3, 64)  # the family was trained without a mask
    with torch.inference_mode():
        theirs = transformers_model(family, path).get_text_features(**inputs).pooler_output.numpy()
    ours = model.embed_texts(texts)
    assert cosine(ours, theirs).min() >= 0.9999
    assert cosine(ours[0], ours[1]) < 0.9999


def test_vectors_are_float32_of_unit_length_and_in_order(model: ImageModel) -> None:
    frames = noise(5)
    together = model.run(list(frames))
    assert all(vector.dtype == np.float32 and vector.shape == (model.dimension,) for vector in together)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for frame, vector in zip(frames, together, strict=True):
        np.testing.assert_allclose(model.run([frame])[0], vector, atol=1e-5)


def test_what_a_text_finds_does_not_hang_on_its_neighbours(model: ImageModel) -> None:
    alone = model.embed_texts(["a dog"])[0]
    beside = model.embed_texts(["a dog", "four people sit at a table and have a meeting"])[0]
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_case_does_not_matter_to_a_search(model: ImageModel) -> None:
    lower, upper = model.embed_texts(["a red car", "A RED CAR"])
    np.testing.assert_allclose(lower, upper, atol=1e-6)


def test_a_text_longer_than_the_tower_is_cut_not_refused(model: ImageModel) -> None:
    assert model.embed_texts(["word " * 500]).shape == (1, model.dimension)


def test_a_batch_of_queries_takes_the_text_tower(model: ImageModel) -> None:
    texts = ["a dog", "a red car in the rain", ""]
    vectors = np.stack(model.run([Query(text) for text in texts]))
    np.testing.assert_allclose(vectors, model.embed_texts(texts), atol=1e-6)
    assert [model.length_of(Query(text)) for text in texts] == [0, 0, 0]
    assert model.bytes_of(Query("Zoë")) == 4


def test_without_its_text_tower_an_image_model_refuses_queries(path: Path) -> None:
    with pytest.raises(RuntimeError, match="only the image tower"):
        ImageModel.load(path, IDENTITY, towers="image").run([Query("a dog")])


def test_a_lone_tower_gives_the_same_vectors_with_fewer_weights(model: ImageModel, path: Path) -> None:
    image = ImageModel.load(path, IDENTITY, towers="image")
    text = ImageModel.load(path, IDENTITY, towers="text")
    np.testing.assert_allclose(image.run(list(noise(2))), model.run(list(noise(2))), atol=1e-6)
    np.testing.assert_allclose(text.embed_texts(["a dog"]), model.embed_texts(["a dog"]), atol=1e-6)
    assert image.dimension == text.dimension == model.dimension
    sizes = [sum(p.numel() for p in each._model.parameters()) for each in (image, text, model)]
    assert sum(sizes[:2]) <= sizes[2]
    with pytest.raises(RuntimeError, match="only the image tower"):
        image.embed_texts(["a dog"])


def test_it_loads_and_runs_without_a_network(path: Path, no_network: None) -> None:
    model = ImageModel.load(path, IDENTITY)
    assert model.embed_texts(["a dog"]).shape == (1, 64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_close(model: ImageModel, path: Path, dtype: str) -> None:
    half = ImageModel.load(path, IDENTITY, dtype=dtype)
    vectors = np.stack(half.run(list(noise(2))))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert cosine(vectors, np.stack(model.run(list(noise(2))))).min() > 0.999
    assert half._model.dtype == getattr(torch, dtype)


def test_what_the_model_says_of_itself(model: ImageModel, family: str) -> None:
    assert model.info.label == "tiny@0123456789ab (untrained)"
    assert (model.info.role, model.info.dimension) == ("image", 64)
    fit: Literal["crop", "stretch"] = "crop" if family == "clip" else "stretch"
    assert model.frame_format == FrameFormat(width=224, height=224, fit=fit)
    assert model.bytes_of(noise(1)[0]) == 150_528
    assert model.length_of(noise(1)[0]) == 0


def test_what_the_budget_asks(model: ImageModel, path: Path) -> None:
    assert (model.precision, model.outside_torch) == ("float32", False)
    assert ImageModel.load(path, IDENTITY, dtype="bfloat16").precision == "bfloat16"
    assert model.probe_length == model.length_of(noise(1)[0])


def test_a_probe_runs_as_many_frames_as_asked(model: ImageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    features = model._image_features

    def record(pixel_values: torch.Tensor) -> Any:
        shapes.append(tuple(pixel_values.shape))
        return features(pixel_values)

    monkeypatch.setattr(model, "_image_features", record)
    monkeypatch.setattr(model, "_lanes", Lanes(1))
    model.probe(3)
    assert shapes == [(3, 3, 224, 224)]


def test_a_parked_model_comes_back_the_same(path: Path) -> None:
    model = ImageModel.load(path, IDENTITY)
    frames = list(noise(2))
    images, texts = np.stack(model.run(frames)), model.embed_texts(["a dog"])
    for keep in (True, False, True, False, False):
        model.park(keep)
        for use in (lambda: model.run(frames), lambda: model.probe(1), lambda: model.embed_texts(["a dog"])):
            with pytest.raises(RuntimeError, match="parked"):
                use()
        assert (model.precision, model.dimension) == ("float32", 64)
        model.restore()
        np.testing.assert_array_equal(np.stack(model.run(frames)), images)
        np.testing.assert_array_equal(model.embed_texts(["a dog"]), texts)


def test_other_weights_in_the_same_place_are_not_taken_for_the_old_ones(clip: Path, tmp_path: Path) -> None:
    model = ImageModel.load(clip, IDENTITY)
    model.park(keep=False)
    shutil.copy(build_tiny(tmp_path / "other", ("clip",), seed=1)["clip"] / "model.safetensors", clip)
    with pytest.raises(ModelError, match="has changed") as error:
        model.restore()
    assert error.value.code == "model-changed"


@pytest.mark.parametrize("shape", [(200, 224, 3), (224, 224, 4), (3, 224, 224)])
def test_frames_of_another_size_are_refused(model: ImageModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(224, 224, 3\)"):
        model.run([np.zeros(shape, np.uint8)])


def test_frames_of_another_type_are_refused(model: ImageModel) -> None:
    with pytest.raises(ValueError, match="float32"):
        model.run([np.zeros((224, 224, 3), np.float32)])


def test_unloading_frees_the_weights(path: Path) -> None:
    import weakref

    model = ImageModel.load(path, IDENTITY)
    weight = weakref.ref(next(model._model.parameters()))
    model.unload()
    assert weight() is None


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(path, tmp_path / "copy"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_damaged_weights_are_one_line(copy: Path) -> None:
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"models\.image: .*copy") as error:
        ImageModel.load(copy, IDENTITY)
    assert error.value.code == "model-load-failed"
    assert "\n" not in error.value.message


def test_a_damaged_tokenizer_is_one_line(copy: Path, family: str) -> None:
    (copy / {"clip": "tokenizer.json", "siglip": "spiece.model"}[family]).write_bytes(b"{")
    with pytest.raises(ModelError, match=r"models\.image: .*copy") as error:
        ImageModel.load(copy, IDENTITY)
    assert error.value.code == "model-load-failed"
    assert "\n" not in error.value.message


def test_lacking_weights_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights: .*fc1\.weight"):
        ImageModel.load(copy, IDENTITY)


def test_vectors_that_are_not_numbers_are_an_error(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["vision_model.embeddings.patch_embedding.weight"].fill_(torch.inf)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"models\.image_dtype"):
        ImageModel.load(copy, IDENTITY).run(list(noise(1)))


def test_a_model_of_another_family_is_named(copy: Path) -> None:
    edit(copy / "config.json", model_type="siglip2")
    with pytest.raises(ModelError, match="holds a siglip2 model"):
        ImageModel.load(copy, IDENTITY)


def test_the_oldest_form_of_clips_preprocessor_file_is_read(tiny_models: TinyModels, tmp_path: Path) -> None:
    """The first CLIP checkpoints give sizes as bare numbers, and no rescale factor."""
    old = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "size": 224,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    then, now = Preprocessing.read(tmp_path), Preprocessing.read(tiny_models["clip"])
    assert then.format == now.format
    np.testing.assert_allclose((then.scale, then.offset), (now.scale, now.offset))


def test_a_crop_with_a_margin_is_refused(tmp_path: Path) -> None:
    config = {
        "do_center_crop": True,
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="without a margin") as error:
        Preprocessing.read(tmp_path)
    assert error.value.code == "model-unsupported"


def test_a_tokenizer_that_keeps_case_is_given_lower_case() -> None:
    """SigLIP 2's fixed-size checkpoints are of type siglip, with Gemma's tokenizer, which keeps case."""
    from stages.image_model import _tokenize

    seen: list[str] = []

    class GemmaLike:
        def __call__(self, texts: list[str], **settings: Any) -> dict[str, Any]:
            seen.extend(texts)
            return settings

    from transformers import SiglipConfig

    settings = _tokenize(GemmaLike(), SiglipConfig(), ["A Dog"])
    assert seen == ["a dog"]
    assert settings["padding"] == "max_length"
    assert settings["max_length"] == 64


def test_precision_follows_the_device() -> None:
    assert dtype_for("auto", "cpu") is torch.float32
    assert dtype_for("auto", "cuda:0") is torch.float16
    assert dtype_for("bfloat16", "cpu") is torch.bfloat16


def test_lengths_are_taken_in_float32() -> None:
    """300 squared is more than float16 can hold."""
    rows = unit_rows(torch.full((2, 8), 300.0, dtype=torch.float16), "models.image_dtype")
    np.testing.assert_allclose(rows, np.full((2, 8), 8**-0.5), atol=1e-6)


def pickle_weights(path: Path) -> Path:
    """Put the weights in the older format, which openai/clip-vit-base-patch32 still has alone."""
    from safetensors.torch import load_file

    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return path / "pytorch_model.bin"


def test_pickled_weights_are_read_as_data(copy: Path, model: ImageModel) -> None:
    pickle_weights(copy)
    pickled = ImageModel.load(copy, IDENTITY)
    np.testing.assert_allclose(pickled.embed_texts(["a dog"]), model.embed_texts(["a dog"]), atol=1e-6)


def test_pickled_weights_cannot_run_code(copy: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"logit_scale": Attack()}, pickle_weights(copy))
    with pytest.raises(ModelError, match="would run code") as error:
        ImageModel.load(copy, IDENTITY)
    assert error.value.code == "model-load-failed"
    assert not (tmp_path / "ran").exists()
