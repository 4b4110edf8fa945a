"""The simulated device: memory is conserved, errors are those of the real libraries, peaks are exact."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.device import Peak, Reading
from engine.faults import is_device_lost, is_out_of_memory
from engine.simulated_device import (
    BLOCK_BYTES,
    POISONED,
    Cost,
    SimulatedClock,
    SimulatedDevice,
    SimulatedModel,
    out_of_memory,
)
from transport.messages import ModelInfo

MIB = 1024**2
GIB = 1024**3
INFO = ModelInfo(role="image", name="test", revision="1", dimension=8, untrained=True)


# --- accounting against a model ---------------------------------------------------------------------------------------


class DeviceAgainstAModel(RuleBasedStateMachine):
    """Any sequence of allocations, of both libraries, and of what else happens on a card."""

    TOTAL = 64 * BLOCK_BYTES

    @initialize(
        context=st.integers(0, 4), fragmentation=st.sampled_from((0.0, 0.25, 0.5, 1.0)), never_frees=st.booleans()
    )
    def start(self, context: int, fragmentation: float, never_frees: bool) -> None:
        self.others = 0
        self.context = context * BLOCK_BYTES
        self.fragmentation, self.never_frees = fragmentation, never_frees
        self.device = SimulatedDevice(
            self.TOTAL,
            context_bytes=self.context,
            fragmentation=fragmentation,
            never_frees=never_frees,
            others_bytes=lambda: self.others,
        )
        self.limit = self.TOTAL
        self.taken: dict[bool, list[int]] = {False: [], True: []}  # by whether outside torch
        self.cached = {False: 0, True: 0}
        self.highest = 0
        self.watches: list[tuple[ExitStack, Peak, int, int]] = []  # with use at the start, and the highest since

    def used(self) -> int:
        return self.context + sum(map(sum, self.taken.values())) + sum(self.cached.values())

    def in_use(self) -> int:
        return self.used() - self.context - self.cached[False]

    def free(self) -> int:
        return max(0, self.TOTAL - self.used() - self.others)

    def reusable(self, outside: bool) -> int:
        return int(self.cached[outside] * (1 - self.fragmentation))

    def fits(self, wanted: int, outside: bool) -> bool:
        fresh = max(0, wanted - self.reusable(outside))
        return fresh <= self.free() and (outside or self.used() + fresh <= self.limit)

    @rule(wanted=st.integers(0, 30 * BLOCK_BYTES), outside=st.booleans())
    def allocate(self, wanted: int, outside: bool) -> None:
        blocks = -(-wanted // BLOCK_BYTES) * BLOCK_BYTES
        if not self.fits(blocks, outside) and not outside and not self.never_frees:
            self.cached[False] = 0  # torch gives its cache back before it gives up
        if not self.fits(blocks, outside):
            with pytest.raises(RuntimeError) as raised:
                self.device.allocate(wanted, outside)
            assert raised.type is (RuntimeError if outside else torch.OutOfMemoryError)
            assert is_out_of_memory(raised.value)
            return
        self.cached[outside] -= min(blocks, self.reusable(outside))
        assert self.device.allocate(wanted, outside) == blocks
        self.taken[outside].append(blocks)
        self.highest = max(self.highest, self.used())
        self.watches = [(stack, peak, start, max(top, self.in_use())) for stack, peak, start, top in self.watches]

    @precondition(lambda self: any(self.taken.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        outside = data.draw(st.sampled_from([each for each in (False, True) if self.taken[each]]))
        bytes_ = self.taken[outside].pop(data.draw(st.integers(0, len(self.taken[outside]) - 1)))
        self.device.free(bytes_, outside)
        if not outside or self.never_frees:
            self.cached[outside] += bytes_

    @rule()
    def release(self) -> None:
        self.device.release()
        if not self.never_frees:
            self.cached[False] = 0

    @rule(others=st.integers(0, 80))
    def others_come_and_go(self, others: int) -> None:
        self.others = others * BLOCK_BYTES

    @rule(limit=st.integers(0, 64))
    def set_limit(self, limit: int) -> None:
        self.limit = limit * BLOCK_BYTES
        self.device.limit(self.limit)

    @rule(outside=st.booleans())
    def begin_watching(self, outside: bool) -> None:
        stack = ExitStack()
        peak = stack.enter_context(self.device.measure(outside))
        assert peak.extra_bytes is None
        self.watches.append((stack, peak, self.in_use(), self.in_use()))

    @precondition(lambda self: self.watches)
    @rule()
    def end_watching(self) -> None:
        stack, peak, start, top = self.watches.pop()
        stack.close()
        assert peak.extra_bytes == top - start >= 0

    @invariant()
    def reading_agrees(self) -> None:
        reading = self.device.read()
        assert reading == Reading(self.used(), self.cached[False], self.free())
        assert 0 <= reading.cached_bytes <= reading.used_bytes <= self.device.total_bytes
        assert reading.free_bytes >= 0
        assert self.device.highest_bytes == self.highest


TestDeviceAgainstAModel = DeviceAgainstAModel.TestCase
TestDeviceAgainstAModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_torch_raises_its_own_error_and_ctranslate2_a_plain_one() -> None:
    torchs, plain = out_of_memory(3 * MIB, outside_torch=False), out_of_memory(3 * MIB, outside_torch=True)
    assert type(torchs) is torch.OutOfMemoryError
    assert str(torchs) == "CUDA out of memory. Tried to allocate 3.00 MiB."
    assert type(plain) is RuntimeError
    assert str(plain) == "CUDA failed with error out of memory"


def test_a_failed_allocation_takes_nothing() -> None:
    device = SimulatedDevice(10 * BLOCK_BYTES)
    device.allocate(4 * BLOCK_BYTES, outside_torch=False)
    for outside in (False, True):
        with pytest.raises(RuntimeError):
            device.allocate(7 * BLOCK_BYTES, outside)
    assert device.read() == Reading(4 * BLOCK_BYTES, 0, 6 * BLOCK_BYTES)


def test_torch_gives_its_cache_back_before_it_gives_up_and_ctranslate2_cannot() -> None:
    device = SimulatedDevice(10 * BLOCK_BYTES, fragmentation=1.0)
    device.free(device.allocate(8 * BLOCK_BYTES, outside_torch=False), outside_torch=False)
    with pytest.raises(RuntimeError, match="CUDA failed"):
        device.allocate(3 * BLOCK_BYTES, outside_torch=True)
    assert device.read().cached_bytes == 8 * BLOCK_BYTES
    device.allocate(3 * BLOCK_BYTES, outside_torch=False)
    assert device.read() == Reading(3 * BLOCK_BYTES, 0, 7 * BLOCK_BYTES)


def test_the_limit_binds_torch_alone() -> None:
    device = SimulatedDevice(10 * BLOCK_BYTES)
    device.limit(4 * BLOCK_BYTES)
    with pytest.raises(torch.OutOfMemoryError):
        device.allocate(5 * BLOCK_BYTES, outside_torch=False)
    assert device.allocate(5 * BLOCK_BYTES, outside_torch=True) == 5 * BLOCK_BYTES


def test_a_poisoned_device_runs_nothing_more() -> None:
    device = SimulatedDevice(10 * BLOCK_BYTES)
    device.lost = True
    with pytest.raises(RuntimeError) as raised:
        device.allocate(1, outside_torch=False)
    assert is_device_lost(raised.value)
    assert not is_out_of_memory(raised.value)


# --- measuring --------------------------------------------------------------------------------------------------------


def test_the_peak_of_a_batch_that_fails_is_measured_too() -> None:
    device = SimulatedDevice(10 * BLOCK_BYTES)
    peak = Peak()

    def batch() -> None:
        nonlocal peak
        with device.measure(outside_torch=False) as peak:
            taken = device.allocate(6 * BLOCK_BYTES, outside_torch=False)
            try:
                device.allocate(6 * BLOCK_BYTES, outside_torch=False)
            finally:
                device.free(taken, outside_torch=False)

    with pytest.raises(torch.OutOfMemoryError):
        batch()
    assert peak.extra_bytes == 6 * BLOCK_BYTES
    with device.measure(outside_torch=False) as after:
        pass
    assert after.extra_bytes == 0, "what the failed batch left behind is not watched any more"


def test_what_was_there_before_is_not_in_the_peak_and_what_is_freed_in_between_is() -> None:
    device = SimulatedDevice(10 * BLOCK_BYTES, context_bytes=BLOCK_BYTES)
    weights = device.allocate(3 * BLOCK_BYTES, outside_torch=False)
    with device.measure(outside_torch=False) as outer:
        device.free(device.allocate(2 * BLOCK_BYTES, outside_torch=False), outside_torch=False)
        with device.measure(outside_torch=False) as inner:
            device.free(device.allocate(BLOCK_BYTES, outside_torch=True), outside_torch=True)
        device.free(weights, outside_torch=False)
    assert (outer.extra_bytes, inner.extra_bytes) == (2 * BLOCK_BYTES, BLOCK_BYTES)


# --- models -----------------------------------------------------------------------------------------------------------


def model_on(device: SimulatedDevice, clock: SimulatedClock | None = None, **more: Any) -> SimulatedModel:
    cost = more.pop("cost", Cost(100 * MIB, batch_bytes=10 * MIB, item_bytes=4 * MIB, batch_seconds=1, item_seconds=2))
    return SimulatedModel(INFO, cost, device, (clock or SimulatedClock()).sleep, **more)


def peak_of(model: SimulatedModel, batch: Sequence[Any]) -> int:
    with model.device.measure(model.outside_torch) as peak:
        assert model.run(batch) == list(batch)
    assert peak.extra_bytes is not None
    return peak.extra_bytes


def test_a_model_takes_its_weights_and_a_batch_its_bytes_and_seconds() -> None:
    device, clock = SimulatedDevice(GIB), SimulatedClock()
    model = model_on(device, clock)
    assert device.read().used_bytes == 100 * MIB
    assert peak_of(model, [1, 2, 3]) == 22 * MIB
    assert clock() == 7.0
    assert device.read() == Reading(122 * MIB, 22 * MIB, GIB - 122 * MIB)


def test_shorter_items_take_less_and_the_longest_counts() -> None:
    model = model_on(SimulatedDevice(GIB), probe_length=100, length=lambda item: item)
    assert peak_of(model, [50, 10]) == 14 * MIB
    assert peak_of(model, [100, 10]) == 18 * MIB
    with model.device.measure(outside_torch=False) as peak:
        model.probe(2)
    assert peak.extra_bytes == 18 * MIB


def test_the_truth_may_be_another_than_the_cost() -> None:
    assert peak_of(model_on(SimulatedDevice(GIB), truth=3.0), [1]) == 42 * MIB


def test_parked_weights_leave_the_device_and_come_back_at_the_price_of_their_place() -> None:
    device, clock = SimulatedDevice(GIB), SimulatedClock()
    model = model_on(device, clock)
    for keep, seconds in ((True, 0.5), (False, 2.0)):
        before = clock()
        model.park(keep)
        assert device.read() == Reading(0, 0, GIB)
        with pytest.raises(RuntimeError, match="parked"):
            model.run([1])
        with pytest.raises(RuntimeError, match="parked"):
            model.probe(1)
        model.restore()
        assert clock() - before == seconds
        assert device.read().used_bytes == 100 * MIB
    assert model.moves == ["host", "disk"]


def test_a_model_that_finds_no_room_stays_parked() -> None:
    device = SimulatedDevice(150 * MIB)
    model = model_on(device)
    model.park(keep=True)
    device.allocate(100 * MIB, outside_torch=True)
    with pytest.raises(torch.OutOfMemoryError):
        model.restore()
    with pytest.raises(RuntimeError, match="parked"):
        model.run([1])


def test_a_device_that_never_frees_keeps_the_weights_too() -> None:
    for outside in (False, True):
        device = SimulatedDevice(GIB, never_frees=True)
        cost = Cost(100 * MIB, 0, 0, 0, 0, outside_torch=outside)
        model = model_on(device, cost=cost)
        model.unload()
        assert device.read().used_bytes == 100 * MIB
        model.unload()
        assert device.read().used_bytes == 100 * MIB


def test_a_fault_is_raised_instead_of_the_batch_and_may_poison_the_device() -> None:
    device = SimulatedDevice(GIB)
    faults: list[Exception | None] = [None, out_of_memory(MIB, outside_torch=True), RuntimeError(POISONED)]
    model = model_on(device, fault=lambda role, batch: faults.pop(0))
    assert model.run([1]) == [1]
    with pytest.raises(RuntimeError, match="out of memory"):
        model.run([1])
    assert not device.lost
    with pytest.raises(RuntimeError, match="illegal memory access"):
        model.run([1])
    assert device.lost


def test_a_batch_that_does_not_fit_leaves_nothing_behind() -> None:
    device = SimulatedDevice(120 * MIB)
    model = model_on(device)
    with pytest.raises(torch.OutOfMemoryError):
        model.run([1] * 100)
    assert device.read() == Reading(100 * MIB, 0, 20 * MIB)
    assert model.run([1]) == [1]
