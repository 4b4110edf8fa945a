"""A CUDA device on fakes of torch.cuda and NVML (tests/fake_cuda.py), and on a real one where there is one."""

import gc
import inspect
import os
import threading
import time
import weakref
from types import SimpleNamespace

import pynvml
import pytest
import torch

from engine.cuda_device import CudaDevice
from engine.device import Device, Peak
from engine.errors import StartError
from tests.fake_cuda import CONTEXT_BYTES, TOTAL_BYTES, Card, FakeNvml, FakeTorchCuda, Machine, functions, install

GB = 1_000_000_000
MB = 1_000_000
SAMPLER = "device-memory"

real_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One card, of which another program holds 2 GB."""
    return install(monkeypatch, [Card(foreign=2 * GB)])


def wait_for_sample(card: Card, readings: int = 2) -> None:
    """Until the sampler has begun so many readings; after two, one began and ended from now on."""
    seen = card.reads.count(SAMPLER)
    deadline = time.monotonic() + 20
    while card.reads.count(SAMPLER) < seen + readings:
        assert time.monotonic() < deadline, "the sampler does not read"
        time.sleep(0.001)


@pytest.mark.parametrize(("module", "fake"), [(torch.cuda, FakeTorchCuda), (pynvml, FakeNvml)])
def test_the_fakes_take_what_the_real_functions_take(module: object, fake: type) -> None:
    for name in functions(fake([])):
        real = inspect.signature(getattr(module, name)).parameters
        ours = [parameter for parameter in inspect.signature(getattr(fake, name)).parameters if parameter != "self"]
        assert ours == list(real), name


def test_it_describes_the_card(machine: Machine) -> None:
    device: Device = CudaDevice(0)
    assert (device.name, device.label, device.total_bytes) == ("cuda:0", "NVIDIA Test 16GB", TOTAL_BYTES)
    assert device.notes == ()


def test_a_reading_tells_ours_from_theirs(machine: Machine) -> None:
    device = CudaDevice(0)
    machine.card.allocate(3 * GB)
    machine.card.free_tensor(1 * GB)
    machine.card.outside = 500 * MB
    reading = device.read()
    assert reading.used_bytes == CONTEXT_BYTES + 3 * GB + 500 * MB
    assert reading.cached_bytes == 1 * GB
    assert reading.free_bytes == TOTAL_BYTES - 2 * GB - reading.used_bytes


def test_nvml_is_asked_about_the_card_that_cuda_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES=1,0: CUDA's device 0 is NVML's device 1."""
    first, second = Card(uuid="aaaa", foreign=5 * GB), Card(uuid="bbbb", foreign=1 * GB)
    install(monkeypatch, [first, second], visible=[second, first])
    device = CudaDevice(0)
    second.allocate(4 * GB)
    assert device.read().used_bytes == CONTEXT_BYTES + 4 * GB
    assert first.context == 0


def test_a_mig_instance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch, [Card(mig=True, foreign=1 * GB)])
    machine.nvml.figures = "none"
    device = CudaDevice(0)
    machine.card.allocate(2 * GB)
    assert device.read().used_bytes == CONTEXT_BYTES + 2 * GB
    assert "gives no figure for this process on cuda:0" in device.notes[0]


@pytest.mark.parametrize("figures", ["none", "hidden"])
def test_without_a_figure_ours_is_what_came_after_the_start(machine: Machine, figures: str) -> None:
    """Our context is ours, for NVML's free memory was read before it was made."""
    machine.nvml.figures = figures
    device = CudaDevice(0)
    machine.card.outside = 1 * GB
    assert device.read().used_bytes == CONTEXT_BYTES + 1 * GB
    (note,) = device.notes
    assert note.startswith("NVML gives no figure for this process on cuda:0 (usual in containers, under MIG and WSL)")


def test_a_stranger_of_our_number_is_not_taken_for_us(machine: Machine) -> None:
    """In a container the numbers listed are the host's."""
    machine.nvml.figures = "hidden"
    clock = Clock()
    device = CudaDevice(0, clock)
    machine.card.allocate(4 * GB)
    machine.nvml.extra = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=1 * GB)]
    clock.seconds += 1
    assert device.read().used_bytes == CONTEXT_BYTES + 4 * GB


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), "NVML Shared Library Not Found"),
        (pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED), "Driver Not Loaded"),
        (pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION), "Insufficient Permissions"),
        (
            pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
            "RM has detected an NVML/RM version mismatch",
        ),
    ],
)
def test_it_works_without_nvml_and_says_so(machine: Machine, error: Exception, reason: str) -> None:
    machine.nvml.error = error
    device = CudaDevice(0)
    machine.card.allocate(1 * GB)
    assert device.read() == (1 * GB, 0, TOTAL_BYTES - 2 * GB - CONTEXT_BYTES - 1 * GB)
    (note,) = device.notes
    assert note.startswith(f"NVML does not answer for cuda:0 ({reason}): CUDA's own context")
    assert "\n" not in note


def test_a_card_that_nvml_does_not_know(machine: Machine) -> None:
    machine.nvml.cards = []
    assert CudaDevice(0).notes[0].startswith("NVML does not answer for cuda:0 (Not Found)")


def test_a_card_whose_memory_nvml_does_not_tell(machine: Machine) -> None:
    machine.nvml.memory_error = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    device = CudaDevice(0)
    assert device.notes[0].startswith("NVML does not answer for cuda:0 (Not Supported)")
    device.read()
    assert machine.nvml.process_questions == 0


def test_an_nvml_older_than_its_binding(machine: Machine) -> None:
    """pynvml then raises an error that is no NVMLError."""
    machine.nvml.process_error = pynvml.NVMLLibraryMismatchError("Unversioned function called.")
    device = CudaDevice(0)
    machine.card.allocate(1 * GB)
    assert device.read().used_bytes == CONTEXT_BYTES + 1 * GB
    assert len(device.notes) == 1


def test_nvml_is_asked_once_a_second(machine: Machine) -> None:
    clock = Clock()
    device = CudaDevice(0, clock)
    assert machine.nvml.process_questions == 1
    for _ in range(100):
        clock.seconds += 0.0099
        device.read()
    assert machine.nvml.process_questions == 1
    clock.seconds += 0.02
    device.read()
    device.read()
    assert machine.nvml.process_questions == 2


def test_another_program_takes_and_releases_memory(machine: Machine) -> None:
    clock = Clock()
    device = CudaDevice(0, clock)
    machine.card.allocate(3 * GB)
    ours = CONTEXT_BYTES + 3 * GB
    machine.card.foreign += 2 * GB
    reading = device.read()
    assert reading.used_bytes == ours + 2 * GB  # for a second it looks like ours
    assert reading.free_bytes == TOTAL_BYTES - 4 * GB - ours
    clock.seconds += 1
    assert device.read().used_bytes == ours
    machine.card.foreign -= 4 * GB
    assert device.read().used_bytes == 3 * GB  # never less than torch holds
    clock.seconds += 1
    assert device.read().used_bytes == ours
    assert device.read().free_bytes == TOTAL_BYTES - ours


def test_without_figures_free_memory_is_right_all_the_same(machine: Machine) -> None:
    machine.nvml.figures = "none"
    clock = Clock()
    device = CudaDevice(0, clock)
    machine.card.foreign = 6 * GB
    clock.seconds += 5
    assert device.read() == (CONTEXT_BYTES + 4 * GB, 0, TOTAL_BYTES - 6 * GB - CONTEXT_BYTES)


def test_an_nvml_that_falls_silent_leaves_the_last_figure(machine: Machine) -> None:
    clock = Clock()
    device = CudaDevice(0, clock)
    machine.nvml.process_error = pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
    clock.seconds += 1
    machine.card.allocate(1 * GB)
    assert device.read().used_bytes == CONTEXT_BYTES + 1 * GB


def test_a_batch_in_torch_is_measured_by_its_tensors(machine: Machine) -> None:
    """Above what was there, whether the cache held the memory already or not."""
    device = CudaDevice(0)
    machine.card.allocate(2 * GB)
    for _ in range(2):  # the second time from the cache
        with device.measure(outside_torch=False) as peak:
            machine.card.allocate(700 * MB)
            machine.card.allocate(300 * MB)
            machine.card.free_tensor(1 * GB)
        assert peak.extra_bytes == 1 * GB


def test_a_batch_in_torch_that_fails_is_measured(machine: Machine) -> None:
    peaks: list[Peak] = []

    def batch() -> None:
        with CudaDevice(0).measure(outside_torch=False) as peak:
            peaks.append(peak)
            machine.card.allocate(5 * GB)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        batch()
    assert peaks == [Peak(5 * GB)]


def test_the_sampler_sees_a_peak_in_the_middle(machine: Machine) -> None:
    device = CudaDevice(0)
    with device.measure(outside_torch=True) as peak:
        machine.card.outside = 1 * GB
        wait_for_sample(machine.card)
        machine.card.outside = 0
    assert peak.extra_bytes == 1 * GB


def test_what_is_held_at_the_end_is_seen_without_a_sample(machine: Machine) -> None:
    peaks: list[Peak] = []

    def batch() -> None:
        with CudaDevice(0).measure(outside_torch=True) as peak:
            peaks.append(peak)
            machine.card.outside = 2 * GB
            raise RuntimeError("CUDA failed with error out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        batch()
    assert peaks == [Peak(2 * GB)]


def test_one_thread_serves_all_batches_and_rests_between(machine: Machine) -> None:
    device = CudaDevice(0)
    before = {thread for thread in threading.enumerate() if thread.name == SAMPLER}
    for size in (3 * GB, 1 * GB):
        with device.measure(outside_torch=True) as peak:
            machine.card.outside = size
            wait_for_sample(machine.card)
            machine.card.outside = 0
        assert peak.extra_bytes == size
    ours = [thread for thread in threading.enumerate() if thread.name == SAMPLER and thread not in before]
    assert len(ours) == 1
    reads = len(machine.card.reads)
    time.sleep(0.02)
    assert len(machine.card.reads) == reads


def test_the_last_batch_s_unused_memory_goes_back_first(machine: Machine) -> None:
    """CTranslate2's pool keeps it until the device is synchronized; a batch that uses it would seem to take nothing."""
    device = CudaDevice(0)
    machine.card.pool = 1 * GB
    with device.measure(outside_torch=True) as peak:
        machine.card.outside = 1 * GB
    assert peak.extra_bytes == 1 * GB


def test_the_sampler_reads_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Card(uuid="aaaa"), Card(uuid="bbbb")
    install(monkeypatch, [first, second])
    with CudaDevice(1).measure(outside_torch=True) as peak:
        second.outside = 1 * GB
        first.outside = 9 * GB
        wait_for_sample(second)
    assert peak.extra_bytes == 1 * GB
    assert first.reads == []


def test_a_device_lost_in_a_batch_is_an_error_of_the_batch(machine: Machine) -> None:
    """Not of the sampler's thread, whose death would end the process."""
    device = CudaDevice(0)

    def batch() -> None:
        with device.measure(outside_torch=True):
            wait_for_sample(machine.card)
            machine.card.lost = True
            wait_for_sample(machine.card, readings=1)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        batch()
    machine.card.lost = False
    with device.measure(outside_torch=True) as peak:
        machine.card.outside = 1 * GB
        wait_for_sample(machine.card)
        machine.card.outside = 0
    assert peak.extra_bytes == 1 * GB


def test_the_budget_binds_torch(machine: Machine) -> None:
    device = CudaDevice(0)
    device.limit(4 * GB)
    assert machine.card.fraction == 0.25
    device.limit(20 * GB)
    assert machine.card.fraction == 1.0


def test_release_gives_back_garbage_the_pool_and_the_cache(machine: Machine) -> None:
    class Tensor:
        def __init__(self) -> None:
            self.itself = self
            weakref.finalize(self, machine.card.free_tensor, 1 * GB)

    device = CudaDevice(0)
    machine.card.allocate(1 * GB)
    machine.card.pool = 1 * GB
    gc.disable()
    try:
        Tensor()
        device.release()
    finally:
        gc.enable()
    assert device.read() == (CONTEXT_BYTES, 0, TOTAL_BYTES - 2 * GB - CONTEXT_BYTES)
    assert machine.cuda.calls == ["synchronize", "empty_cache"]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: out of memory\nmore"), torch.cuda.DeferredCudaCallError("CUDA error: out of memory\n")],
)
def test_a_card_that_does_not_start(machine: Machine, error: Exception) -> None:
    machine.cuda.init_error = error
    with pytest.raises(StartError) as caught:
        CudaDevice(0)
    assert caught.value.message == 'cuda:0 does not start: CUDA error: out of memory; set device.name = "cpu"'


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (10, 3), (12, 1), (13, 0)])
def test_cards_that_this_torch_has_code_for(machine: Machine, capability: tuple[int, int]) -> None:
    machine.card.capability = capability
    assert CudaDevice(0).total_bytes == TOTAL_BYTES


def test_a_card_older_than_this_torch(machine: Machine) -> None:
    """A GeForce of 2016 starts, and would fail at the first kernel."""
    machine.card.capability = (6, 1)
    with pytest.raises(StartError, match=r"no code for NVIDIA Test 16GB \(compute capability 6\.1\), only for sm_75, "):
        CudaDevice(0)


@real_device
def test_a_real_device_measures_a_tensor() -> None:
    device = CudaDevice(0)
    with device.measure(outside_torch=False) as peak:
        torch.ones(100 * MB, dtype=torch.uint8, device="cuda:0")
    assert peak.extra_bytes == pytest.approx(100 * MB, rel=0.01)


@real_device
def test_a_real_device_samples_the_driver() -> None:
    device = CudaDevice(0)
    device.release()
    with device.measure(outside_torch=True) as peak:
        block = torch.ones(500 * MB, dtype=torch.uint8, device="cuda:0")
        torch.cuda.synchronize(0)
    assert peak.extra_bytes is not None
    assert peak.extra_bytes >= block.nbytes


@real_device
def test_a_real_device_is_read_and_released() -> None:
    device = CudaDevice(0)
    device.release()
    before = device.read()
    block = torch.ones(500 * MB, dtype=torch.uint8, device="cuda:0")
    during = device.read()
    assert during.used_bytes - before.used_bytes >= block.nbytes
    del block
    assert device.read().cached_bytes >= 500 * MB
    device.release()
    assert device.read().used_bytes < during.used_bytes


@real_device
def test_a_real_device_keeps_torch_to_the_budget() -> None:
    device = CudaDevice(0)
    device.release()
    device.limit(300 * MB)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(500 * MB, dtype=torch.uint8, device="cuda:0")
    finally:
        device.limit(device.total_bytes)
