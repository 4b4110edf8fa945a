"""Weights that leave their device and come back. Where no CUDA device is, a make-believe one has memory of its own."""

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages.errors import ModelError
from stages.model_files import Files
from stages.weights import Mover, Weights
from tests.conftest import TinyModels

INPUT = torch.linspace(-1, 1, 6).reshape(2, 3)


class Storages:
    """Storages of tensors, as long as anything holds them."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref[torch.UntypedStorage]] = []

    def add(self, tensor: Tensor) -> Tensor:
        self._seen.append(weakref.ref(tensor.untyped_storage()))
        return tensor

    def count(self) -> int:
        return sum(storage() is not None for storage in self._seen)


class FakeMover(Mover):
    """A device with room for some tensors, beside a host memory with room for some copies."""

    def __init__(self, device: str = "cuda:0") -> None:
        super().__init__(device)
        self.on_device, self.on_host = Storages(), Storages()
        self.device_room = self.host_room = 1000
        self.copies = self.finished = self.released = 0

    def to_host(self, tensor: Tensor) -> Tensor:
        if self.on_host.count() >= self.host_room:
            raise RuntimeError("CUDA error: out of memory")
        self.copies += 1
        return self.on_host.add(tensor.clone())

    def to_device(self, tensor: Tensor) -> Tensor:
        if self.on_device.count() >= self.device_room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.on_device.add(tensor.clone())

    def finish(self) -> None:
        self.finished += 1

    def release(self) -> None:
        self.released += 1


class Net(nn.Module):
    """Six tensors: one weight is shared by two layers, and there is a buffer beside the parameters."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.register_buffer("offset", torch.tensor([0.5, -0.5, 2.0]))
        self.alias = self.offset  # a plain attribute, as some libraries have them

    def forward(self, rows: Tensor) -> Tensor:
        hidden: Tensor = self.tied(self.second(self.first(rows))) + self.offset
        return hidden * self.alias


TENSORS = 6


def read() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Net().eval()


@pytest.fixture
def mover(monkeypatch: pytest.MonkeyPatch) -> FakeMover:
    fake = FakeMover()
    monkeypatch.setattr("stages.weights.Mover", lambda device: fake)
    return fake


def refuses(weights: Weights) -> bool:
    with pytest.raises(RuntimeError, match="parked"):
        weights.module(INPUT)
    return True


def test_weights_stand_on_the_device_once_read(mover: FakeMover) -> None:
    weights = Weights(read, "cuda:0")
    assert mover.on_device.count() == TENSORS
    assert mover.finished == 1
    assert torch.equal(weights.module(INPUT), read()(INPUT))


@pytest.mark.parametrize("keep", [True, False])
def test_they_leave_and_come_back_the_same(mover: FakeMover, keep: bool) -> None:
    weights = Weights(read, "cuda:0")
    for _ in range(3):
        weights.park(keep)
        assert refuses(weights)
        assert mover.on_device.count() == 0
        assert mover.on_host.count() == (TENSORS if keep else 0)
        weights.restore()
        assert mover.on_device.count() == TENSORS
        assert torch.equal(weights.module(INPUT), read()(INPUT))
    assert weights.module.tied.weight is weights.module.first.weight


def test_the_copy_in_host_memory_is_made_once(mover: FakeMover) -> None:
    weights = Weights(read, "cuda:0")
    for _ in range(3):
        weights.park(keep=True)
        weights.restore()
    assert mover.copies == mover.on_host.count() == TENSORS


def test_dropping_what_is_kept_frees_host_memory_too(mover: FakeMover) -> None:
    weights = Weights(read, "cuda:0")
    weights.park(keep=True)
    weights.park(keep=False)
    assert mover.on_host.count() == 0
    weights.park(keep=True)  # there is nothing to keep
    weights.restore()
    assert torch.equal(weights.module(INPUT), read()(INPUT))


def test_memory_is_given_back_when_parked(mover: FakeMover) -> None:
    weights = Weights(read, "cuda:0")
    weights.park(keep=True)
    weights.restore()
    weights.park(keep=False)
    assert mover.released == 2


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("room", range(TENSORS))
def test_running_out_of_memory_midway_leaves_nothing_on_the_device(mover: FakeMover, keep: bool, room: int) -> None:
    weights = Weights(read, "cuda:0")
    weights.park(keep)
    mover.device_room = room
    with pytest.raises(torch.OutOfMemoryError) as caught:
        weights.restore()
    assert mover.on_device.count() == 0  # though the error, and with it the frames that it went through, is still held
    assert caught.value.__traceback__ is not None
    assert refuses(weights)
    mover.device_room = TENSORS
    weights.restore()
    assert torch.equal(weights.module(INPUT), read()(INPUT))


def test_running_out_of_memory_at_first_leaves_nothing_on_the_device(mover: FakeMover) -> None:
    mover.device_room = TENSORS - 1
    with pytest.raises(torch.OutOfMemoryError) as caught:
        Weights(read, "cuda:0")
    assert mover.on_device.count() == 0
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize("room", [0, TENSORS - 1])
def test_where_host_memory_has_no_room_they_are_dropped(mover: FakeMover, room: int) -> None:
    weights = Weights(read, "cuda:0")
    mover.host_room = room
    weights.park(keep=True)
    assert (mover.on_device.count(), mover.on_host.count()) == (0, 0)
    weights.restore()
    assert torch.equal(weights.module(INPUT), read()(INPUT))


def test_a_read_that_fails_leaves_them_parked(mover: FakeMover) -> None:
    errors: list[Exception] = []

    def unreliable() -> Net:
        if errors:
            raise errors.pop()
        return read()

    weights = Weights(unreliable, "cuda:0")
    weights.park(keep=False)
    errors.append(ModelError("model-load-failed", "damaged"))
    with pytest.raises(ModelError, match="damaged"):
        weights.restore()
    assert refuses(weights)
    weights.restore()
    assert torch.equal(weights.module(INPUT), read()(INPUT))


def test_restoring_what_is_there_does_nothing(mover: FakeMover) -> None:
    weights = Weights(read, "cuda:0")
    module = weights.module
    weights.restore()
    assert weights.module is module
    assert mover.finished == 1


# --- on the CPU -----------------------------------------------------------------------------------------------------


def test_on_the_cpu_kept_weights_stay_where_they_are() -> None:
    weights = Weights(read, "cpu")
    module = weights.module
    pointer = module.first.weight.data_ptr()
    weights.park(keep=True)
    assert refuses(weights)
    weights.restore()
    assert weights.module is module
    assert module.first.weight.data_ptr() == pointer


def test_on_the_cpu_dropped_weights_are_freed() -> None:
    weights = Weights(read, "cpu")
    weight = weakref.ref(weights.module.first.weight)
    weights.park(keep=False)
    assert weight() is None
    weights.restore()
    assert torch.equal(weights.module(INPUT), read()(INPUT))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_precision_is_that_of_the_weights(dtype: str) -> None:
    assert Weights(lambda: read().to(getattr(torch, dtype)), "cpu").precision == dtype


# --- with CUDA ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_the_copy_is_pinned_and_the_device_memory_free() -> None:
    weights = Weights(lambda: nn.Linear(2048, 2048).eval(), "cuda:0")
    expected = weights.module.weight.cpu()
    for keep in (True, True):
        before = torch.cuda.memory_allocated()
        module = weights.module
        weights.park(keep)
        assert module.weight.is_pinned()
        assert before - torch.cuda.memory_allocated() >= 2048 * 2048 * 4
        weights.restore()
        assert torch.equal(weights.module.weight.cpu(), expected)


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_that_change_are_noticed(tiny_models: TinyModels, clip: Path) -> None:
    files = Files("image", clip)
    files.check()
    (clip / "notes.txt").write_text("nobody reads this")
    files.check()
    with (clip / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x7f")
    with pytest.raises(ModelError, match=r"models\.image: .* has changed since the model was loaded") as error:
        files.check()
    assert error.value.code == "model-changed"
