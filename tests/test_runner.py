"""The runner under faults: out of memory as torch and CTranslate2 say it, poisonous items, lost devices, budgets."""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.device import Peak, Reading
from engine.faults import DEVICE_LOST_TEXTS, DeviceLostError, RecycleError, is_device_lost, is_out_of_memory
from engine.runner import Failure, Runner
from engine.simulated_device import (
    CTRANSLATE2_OUT_OF_MEMORY,
    POISONED,
    Cost,
    SimulatedClock,
    SimulatedDevice,
    SimulatedModel,
    out_of_memory,
)
from stages.base import Query
from tests.fakes import FakeModel
from tests.runners import GIB, runner_for
from transport.messages import ModelInfo

MIB = 1024**2


def fits(limit: int, error: Exception) -> Any:
    def fault(batch: Sequence[Any]) -> None:
        if len(batch) > limit:
            raise error

    return fault


def info(role: Any) -> ModelInfo:
    return ModelInfo(role=role, name=role, revision="0", dimension=4, untrained=True)


def cost(weights: int, batch: int, item: int, **more: Any) -> Cost:
    """MiB; 10 ms a batch and 1 ms an item."""
    return Cost(weights * MIB, batch * MIB, item * MIB, batch_seconds=0.01, item_seconds=0.001, **more)


class Rig:
    """A simulated device with models, and the runner on it."""

    def __init__(
        self, total_gb: float, costs: dict[str, Cost], resident: Sequence[str] | None = None, **more: Any
    ) -> None:
        self.clock = SimulatedClock()
        self.device = SimulatedDevice(round(total_gb * GIB), **more.pop("device", {}))
        self.models: dict[str, SimulatedModel] = {}
        for role, each in sorted(costs.items(), key=lambda pair: resident is not None and pair[0] in resident):
            model = SimulatedModel(info(role), each, self.device, self.clock.sleep)
            self.models[role] = model
            if resident is not None and role not in resident:
                model.park(keep=False)
        self.runner: Runner = runner_for(self.models, self.device, clock=self.clock, sleep=self.clock.sleep, **more)
        self.runner.turns.start([] if resident is None else sorted(set(costs) - set(resident)))

    def run_all(self, role: str, items: Sequence[Any], size: int | None = None) -> list[Any]:
        """In batches as large as the budget allows, or of one size."""
        results: list[Any] = []
        while len(results) < len(items):
            room = self.runner.room_bytes(role)
            count = size or max(1, self.runner.budget.most(role, 0, room, self.runner.tuners[role].wanted))
            results += self.runner.run(role, items[len(results) : len(results) + count])
        return results


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(CTRANSLATE2_OUT_OF_MEMORY),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("mkl_malloc: failed to allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_splits_the_batch_and_loses_nothing(error: Exception) -> None:
    model = FakeModel("image", fault=fits(3, error))
    runner = runner_for({"image": model})
    items = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    results = runner.run("image", items)
    assert [list(result) for result in results] == [list(model.result_of(item)) for item in items]
    assert runner.counters["image"].oom_events > 0
    assert runner.counters["image"].batch_splits > 0
    assert max(size for size in model.batches[1:]) < len(items)


def test_what_did_not_fit_is_not_tried_again() -> None:
    model = FakeModel("image", fault=fits(4, torch.OutOfMemoryError("CUDA out of memory.")))
    runner = runner_for({"image": model})
    runner.run("image", list("abcdefgh"))
    assert runner.counters["image"].oom_events == 1
    assert runner.budget.most("image", 0, runner.room_bytes("image"), 8) == 4
    runner.run("image", list("abcdefgh"))  # whoever asks for 8 all the same gets halves, and no second failure
    assert runner.counters["image"].oom_events == 1


def test_an_item_that_fits_nowhere_fails_alone_with_its_reason() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if "huge" in batch:
            raise RuntimeError(CTRANSLATE2_OUT_OF_MEMORY)

    clock = SimulatedClock()
    runner = runner_for({"image": FakeModel("image", fault=fault)}, clock=clock, sleep=clock.sleep)
    results = runner.run("image", ["a", "b", "huge", "c"])
    assert [isinstance(result, Failure) for result in results] == [False, False, True, False]
    assert results[2] == Failure("out-of-memory", f"RuntimeError: {CTRANSLATE2_OUT_OF_MEMORY}")
    assert runner.counters["image"].alone == 1


def test_hopeless_items_cost_patience_once() -> None:
    clock = SimulatedClock()
    model = FakeModel("image", fault=fits(0, RuntimeError(CTRANSLATE2_OUT_OF_MEMORY)))
    runner = runner_for({"image": model}, clock=clock, sleep=clock.sleep)
    assert all(isinstance(result, Failure) for result in runner.run("image", ["a"]))
    first = clock.seconds
    assert first > 0
    assert all(isinstance(result, Failure) for result in runner.run("image", ["b", "c", "d"]))
    assert clock.seconds == first


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_poisonous_items_fail_alone_and_their_neighbours_succeed(poisonous: list[bool]) -> None:
    def fault(batch: Sequence[Any]) -> None:
        if any(item.startswith("bad") for item in batch):
            raise ValueError("cannot be read")

    runner = runner_for({"text": FakeModel("text", fault=fault)})
    items = [f"{'bad' if bad else 'good'} {number}" for number, bad in enumerate(poisonous)]
    results = runner.run("text", items)
    assert [isinstance(result, Failure) for result in results] == poisonous
    assert runner.counters["text"].oom_events == 0
    assert runner.counters["text"].items == len(items)


def test_a_model_that_miscounts_fails_its_items() -> None:
    class Miscounting(FakeModel):
        def run(self, batch: Sequence[Any]) -> list[Any]:
            return super().run(batch)[:-1]

    (result,) = runner_for({"text": Miscounting("text")}).run("text", ["one"])
    assert isinstance(result, Failure)
    assert "0 results for 1 items" in result.message


def test_an_ordinary_runtime_error_is_no_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_device_lost(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("text", DEVICE_LOST_TEXTS)
def test_a_lost_device_names_the_batch_that_was_running(text: str) -> None:
    def fault(batch: Sequence[Any]) -> None:
        raise RuntimeError(f"CUDA error: {text}\nCUDA kernel errors might be reported asynchronously")

    runner = runner_for({"image": FakeModel("image", fault=fault)})
    with pytest.raises(DeviceLostError, match=r"RuntimeError: CUDA error") as caught:
        runner.run("image", ["a", "b"])
    assert caught.value.inputs == ("a", "b")


def test_a_lost_device_stays_lost() -> None:
    rig = Rig(4, {"image": cost(300, 20, 3), "text": cost(45, 10, 1)})
    rig.models["image"].fault = lambda role, batch: RuntimeError(POISONED)
    for role in ("image", "text"):
        with pytest.raises(DeviceLostError):
            rig.runner.run(role, ["a"])


# --- within a budget --------------------------------------------------------------------------------------------------


def test_the_batch_size_is_found_on_a_card_of_4_gb() -> None:
    """150 frames of one video, and a batch to start with that is far too large."""
    rig = Rig(4, {"image": cost(1000, 100, 150)}, batch_sizes={"image": 32}, device={"context_bytes": 400 * MIB})
    assert rig.run_all("image", list(range(150))) == list(range(150))
    assert rig.device.highest_bytes <= 4 * GIB
    assert rig.runner.counters["image"].oom_events == 0
    assert rig.runner.budget.most("image", 0, rig.runner.room_bytes("image"), 32) == 16


def test_a_cost_three_times_the_calibrated_one_loses_nothing() -> None:
    rig = Rig(8, {"image": cost(500, 50, 100)})
    rig.run_all("image", list(range(200)))
    rig.models["image"].truth = 3.0
    assert rig.run_all("image", list(range(200))) == list(range(200))
    assert 0 < rig.runner.counters["image"].oom_events <= 3


def test_an_item_ten_times_the_others_gets_the_device() -> None:
    rig = Rig(4, {"image": cost(500, 50, 200), "text": cost(1000, 10, 1)})
    rig.models["image"].probe_length = 10
    rig.models["image"].length = lambda item: 100 if item == 7 else 10
    rig.run_all("image", list(range(64)))
    rig.models["image"].fault = lambda role, batch: None
    assert rig.runner.run("image", [5, 6, 7, 8]) == [5, 6, 7, 8]
    assert rig.runner.turns.residency.resident == {"image"}, "2 GB for one item: the other model made room"
    assert rig.runner.run("text", ["a"]) == ["a"]


@pytest.mark.parametrize("outside", [False, True])
def test_a_thousand_injected_failures_lose_nothing(outside: bool) -> None:
    rig = Rig(8, {"image": cost(500, 50, 10, outside_torch=outside), "text": cost(200, 10, 1)})
    chance = random.Random(1)
    injected = 0

    def fault(role: str, batch: Sequence[Any]) -> Exception | None:
        nonlocal injected
        if injected == 1000 or chance.random() >= 0.3:
            return None
        injected += 1
        return out_of_memory(len(batch), outside)

    for model in rig.models.values():
        model.fault = fault
    done = 0
    while injected < 1000:
        for role in ("image", "text"):
            items = list(range(done, done + 32))
            assert rig.run_all(role, items) == items
        done += 32
    assert sum(counters.oom_events for counters in rig.runner.counters.values()) == 1000


def test_another_process_that_takes_and_gives_back_costs_time_and_no_item() -> None:
    held = 0

    def others() -> int:
        return held

    rig = Rig(4, {"image": cost(1500, 100, 100)}, device={"others_bytes": others})
    sleep, chance, waits = rig.clock.sleep, random.Random(2), 0
    rig.run_all("image", list(range(64)))

    def slept(seconds: float) -> None:
        nonlocal held, waits
        sleep(seconds)
        waits += 1
        held = 0 if waits % 3 == 0 else held

    rig.runner._sleep = slept
    for start in range(0, 640, 16):
        held = chance.choice([0, 0, 2 * GIB, 2 * GIB + 400 * MIB])
        assert rig.runner.run("image", list(range(start, start + 16))) == list(range(start, start + 16))
    assert waits > 0
    assert rig.device.highest_bytes <= 4 * GIB


def test_memory_that_does_not_come_back_asks_for_a_fresh_process() -> None:
    rig = Rig(4, {"image": cost(2000, 100, 100), "text": cost(2500, 10, 1, outside_torch=True)}, ["image"])
    rig.device._never_frees = True
    rig.runner.run("image", ["a"])
    with pytest.raises(RecycleError, match="do not come back"):
        rig.runner.run("text", ["b"])


def test_in_a_fresh_process_that_item_is_final() -> None:
    rig = Rig(4, {"image": cost(2000, 100, 100), "text": cost(2500, 10, 1, outside_torch=True)}, ["image"])
    rig.device._never_frees = True
    rig.runner.run("image", ["a"])
    (failure,) = rig.runner.run("text", ["b"], final=True)
    assert isinstance(failure, Failure)
    assert failure.code == "out-of-memory"


@settings(max_examples=60, deadline=None)
@given(
    total_mib=st.integers(700, 6000),
    costs=st.lists(st.tuples(st.integers(50, 500), st.integers(0, 60), st.integers(1, 90)), min_size=1, max_size=4),
    truth=st.floats(0.5, 3.0),
    fragmentation=st.floats(0, 0.5),
    outside=st.lists(st.booleans(), min_size=4, max_size=4),
    work=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=25),
)
def test_what_is_admitted_never_exceeds_the_budget_and_every_item_comes_out_once(
    total_mib: int,
    costs: list[tuple[int, int, int]],
    truth: float,
    fragmentation: float,
    outside: list[bool],
    work: list[tuple[int, int]],
) -> None:
    """Models that fit by themselves, in any mixture, with wrong costs and a torn cache: nothing is lost."""
    roles = ("image", "speech", "text", "voice")[: len(costs)]
    table = {role: cost(*each, outside_torch=out) for role, each, out in zip(roles, costs, outside, strict=False)}
    rig = Rig(total_mib / 1024, table, resident=(), device={"fragmentation": fragmentation})
    for model in rig.models.values():
        model.truth = truth
        fitting = model.cost.weights_bytes + truth * (model.cost.batch_bytes + model.cost.item_bytes) + 8 * MIB
        if fitting > rig.device.total_bytes:
            return
    admitted: list[tuple[int, int]] = []
    call = rig.runner._call

    def watched(role: str, inputs: Sequence[Any], length: int) -> Any:
        predicted = rig.runner.budget.costs[role].predict(len(inputs), length)
        if predicted is not None and len(inputs) > 1:
            reading: Reading = rig.device.read()
            torch_room = 0 if rig.models[role].outside_torch else reading.cached_bytes
            admitted.append((predicted + reading.used_bytes - torch_room, rig.runner.budget.total_bytes))
        return call(role, inputs, length)

    rig.runner._call = watched  # type: ignore[method-assign]
    for number, count in work:
        role = roles[number % len(roles)]
        items = [f"{role} {each}" for each in range(count)]
        assert rig.runner.run(role, items) == items
    assert all(bytes_ <= budget for bytes_, budget in admitted)
    assert rig.device.highest_bytes <= rig.device.total_bytes


def test_batches_grow_on_a_device_that_cannot_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def blind(device: SimulatedDevice, outside_torch: bool) -> Iterator[Peak]:
        yield Peak()

    monkeypatch.setattr(SimulatedDevice, "measure", blind)
    rig = Rig(4, {"image": cost(300, 20, 3)})
    assert rig.run_all("image", list(range(63))) == list(range(63))
    assert rig.runner.counters["image"].batches == 6, "1, 2, 4, 8, 16, 32"
    assert rig.runner.counters["image"].batch_splits == 0


def test_waiting_for_nothing_is_done_once() -> None:
    """Another process holds what an item should take, and the item runs well without it, as on a CPU it may."""
    held = 0
    rig = Rig(4, {"image": cost(500, 50, 1000)}, device={"others_bytes": lambda: held})
    rig.run_all("image", [1, 2])
    rig.models["image"].truth = 0.1
    held = 3 * GIB
    before = rig.clock.seconds
    assert rig.runner.run("image", [3]) == [3]
    assert rig.clock.seconds - before >= 60
    before = rig.clock.seconds
    assert rig.run_all("image", [4, 5, 6, 7]) == [4, 5, 6, 7]
    assert rig.clock.seconds - before < 1
    held = 0
    rig.run_all("image", [8])
    rig.models["image"].truth = 1.0
    held, before = 3 * GIB, rig.clock.seconds
    rig.runner.run("image", [9])
    assert rig.clock.seconds - before >= 60, "there was room in between, so that patience may help again"


# --- search queries ---------------------------------------------------------------------------------------------------


def queries(count: int) -> list[Query]:
    return [Query(f"query {number}") for number in range(count)]


def test_queries_teach_nothing_about_the_items_of_their_model() -> None:
    rig = Rig(4, {"image": cost(500, 50, 100)})
    rig.run_all("image", list(range(64)))
    learned = copy.deepcopy((rig.runner.budget.costs["image"], rig.runner.tuners["image"]))
    counters = rig.runner.counters["image"]
    items, busy_seconds = counters.items, counters.busy_seconds
    rig.models["image"].truth = 0.01
    for count in (1, 2, 4):
        assert rig.runner.run("image", queries(count)) == queries(count)
    assert (rig.runner.budget.costs["image"], rig.runner.tuners["image"]) == learned
    assert counters.items == items
    assert counters.busy_seconds > busy_seconds


def test_queries_that_do_not_fit_together_are_run_one_by_one() -> None:
    def fault(batch: Sequence[Any]) -> None:
        if len(batch) > 1:
            raise RuntimeError(CTRANSLATE2_OUT_OF_MEMORY)

    runner = runner_for({"text": FakeModel("text", fault=fault)})
    learned = copy.deepcopy(runner.budget.costs["text"])
    assert not any(isinstance(outcome, Failure) for outcome in runner.run("text", queries(5)))
    assert runner.budget.costs["text"] == learned


@pytest.mark.parametrize("resident", [("image",), ()])
def test_a_query_does_not_wait_for_the_memory_of_other_processes(resident: tuple[str, ...]) -> None:
    held = 0
    rig = Rig(4, {"image": cost(500, 50, 1000)}, resident, device={"others_bytes": lambda: held})
    rig.run_all("image", [1, 2])
    if not resident:
        rig.runner.turns.park("image")
    held, before = 4 * GIB - 100 * MIB, rig.clock.seconds
    (failure,) = rig.runner.run("image", queries(1))
    assert isinstance(failure, Failure)
    assert failure.code == "out-of-memory"
    assert rig.clock.seconds - before < 3
    before = rig.clock.seconds
    (failure,) = rig.runner.run("image", [3])
    assert isinstance(failure, Failure)
    assert rig.clock.seconds - before >= 60, "an item still does"


def test_a_worn_out_process_is_not_ended_for_a_query() -> None:
    rig = Rig(4, {"image": cost(2000, 100, 100), "text": cost(2500, 10, 1, outside_torch=True)}, ["image"])
    rig.device._never_frees = True
    rig.runner.run("image", ["a"])
    (failure,) = rig.runner.run("text", queries(1))
    assert isinstance(failure, Failure)
    with pytest.raises(RecycleError):
        rig.runner.run("text", ["b"])
