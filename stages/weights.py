"""Where the weights of a torch model are: on its device, parked in host memory, or dropped until they are read again.

Models that do not fit on a device together take turns. A turn costs one copy of the weights to the device; the way back
costs nothing, for weights never change: the copy in host memory is made when the model is first parked, and kept.
"""

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Mover:
    """Moves tensors between host memory and one device, "cpu" or "cuda:N"."""

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def apart(self) -> bool:
        """Whether the device has memory of its own; on the CPU there is nothing to move."""
        return self.device.startswith("cuda")

    def to_host(self, tensor: "Tensor") -> "Tensor":
        """A copy in pinned host memory, from where the device fetches at full speed and without the CPU.

        torch's host allocator rounds each up to a power of two: in all up to twice the weights' bytes, mostly far less.
        """
        import torch

        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)

    def to_device(self, tensor: "Tensor") -> "Tensor":
        """A copy on the device, perhaps not finished before `finish`. Raises torch.OutOfMemoryError."""
        return tensor.to(self.device, non_blocking=True)

    def finish(self) -> None:
        """Wait for the copies."""
        import torch

        if self.apart:
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Give freed device memory back to the device, and freed pinned memory to the system."""
        import torch

        if self.apart:
            torch.cuda.empty_cache()
            torch.accelerator.memory.empty_host_cache()


class Weights:
    """The module of a torch model, which can leave its device for a while."""

    def __init__(self, read: Callable[[], "Module"], device: str) -> None:
        """read: makes the module from its files, in host memory and in eval mode. Called at once, and again by
        `restore` after the weights were dropped. Raises what `read` raises, and torch.OutOfMemoryError.
        """
        self._read = read
        self._mover = Mover(device)
        self._module: Module | None = None
        self._host: list[Tensor] = []  # the module's tensors in pinned host memory; empty until it is first parked
        self._parked = True
        self.restore()

    @property
    def module(self) -> Any:
        """The module, on its device. Raises RuntimeError while it is parked."""
        if self._parked:
            raise RuntimeError("the model is parked: restore() brings it back")
        return self._module

    @property
    def precision(self) -> str:
        """Number format of the weights: float32, float16, bfloat16."""
        return next(str(t.dtype).removeprefix("torch.") for t in self.module.parameters() if t.is_floating_point())

    def park(self, keep: bool) -> None:
        """As `stages.base.Model.park`. Where host memory cannot take the weights, they are dropped."""
        self._parked = True
        if not (keep and self._moved_to_host()):
            self._module = None
            self._host.clear()
            gc.collect()  # cycles inside modules hold weights until they are collected
        self._mover.release()

    def restore(self) -> None:
        """As `stages.base.Model.restore`."""
        if not self._parked:
            return
        module = self._module or self._read()
        self._move_to_device(module)
        self._module = module
        self._parked = False

    def _moved_to_host(self) -> bool:
        """Whether the module is in host memory now."""
        if self._module is None:
            return False
        if not self._mover.apart:
            return True
        tensors = _tensors(self._module)
        try:
            if not self._host:
                self._host = [self._mover.to_host(tensor.data) for tensor in tensors]
        except RuntimeError:  # of the allocator: no more host memory, or no more of it may be pinned
            return False
        for tensor, host in zip(tensors, self._host, strict=True):
            tensor.data = host
        return True

    def _move_to_device(self, module: "Module") -> None:
        """All tensors or none: a tensor changes place when there is room for the last."""
        tensors = _tensors(module)
        moved: list[Tensor] = []
        try:
            for tensor in tensors:
                moved.append(self._mover.to_device(tensor.data))  # noqa: PERF401 - cleared below when it fails midway
            self._mover.finish()
            for tensor, there in zip(tensors, moved, strict=True):
                tensor.data = there
        finally:
            moved.clear()  # an error's traceback keeps this frame, and would keep what was already moved


def _tensors(module: "Module") -> list["Tensor"]:
    """Parameters and buffers, each once, in a fixed order."""
    return [*module.parameters(), *module.buffers()]
