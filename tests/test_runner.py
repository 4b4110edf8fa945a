"""The runner under faults: out of memory as torch and CTranslate2 say it, poisonous items, models that miscount."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.runner import Failure, Runner, is_out_of_memory
from tests.fakes import FakeModel

CTRANSLATE2_OOM = "CUDA failed with error out of memory"


def runner_with(model: FakeModel) -> tuple[Runner, list[int]]:
    released: list[int] = []
    return Runner({model.info.role: model}, release=lambda: released.append(1)), released


def fits(limit: int, error: Exception) -> Any:
    def fault(batch: Sequence[Any]) -> None:
        if len(batch) > limit:
            raise error

    return fault


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(CTRANSLATE2_OOM),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("mkl_malloc: failed to allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_splits_the_batch_and_loses_nothing(error: Exception) -> None:
    model = FakeModel("image", fault=fits(3, error))
    runner, released = runner_with(model)
    items = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    results = runner.run("image", items)
    assert [list(result) for result in results] == [list(model.result_of(item)) for item in items]
    assert runner.counters["image"].oom_events == len(released) > 0
    assert runner.counters["image"].batch_splits > 0
    assert max(size for size in model.batches[1:]) < len(items)


def test_an_item_that_fits_nowhere_fails_alone_with_its_reason() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if "huge" in batch:
            raise RuntimeError(CTRANSLATE2_OOM)

    runner, _ = runner_with(FakeModel("image", fault=fault))
    results = runner.run("image", ["a", "b", "huge", "c"])
    assert [isinstance(result, Failure) for result in results] == [False, False, True, False]
    assert results[2] == Failure("out-of-memory", f"RuntimeError: {CTRANSLATE2_OOM}")


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_poisonous_items_fail_alone_and_their_neighbours_succeed(poisonous: list[bool]) -> None:
    def fault(batch: Sequence[Any]) -> None:
        if any(item.startswith("bad") for item in batch):
            raise ValueError("cannot be read")

    runner, released = runner_with(FakeModel("text", fault=fault))
    items = [f"{'bad' if bad else 'good'} {number}" for number, bad in enumerate(poisonous)]
    results = runner.run("text", items)
    assert [isinstance(result, Failure) for result in results] == poisonous
    assert not released, "only out of memory gives memory back"
    assert runner.counters["text"].items == len(items)


def test_a_model_that_miscounts_fails_its_items() -> None:
    class Miscounting(FakeModel):
        def run(self, batch: Sequence[Any]) -> list[Any]:
            return super().run(batch)[:-1]

    runner, _ = runner_with(Miscounting("text"))
    (result,) = runner.run("text", ["one"])
    assert isinstance(result, Failure)
    assert "0 results for 1 items" in result.message


def test_an_ordinary_runtime_error_is_no_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
