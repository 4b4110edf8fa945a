"""CUDA cards without any: torch.cuda's memory functions and NVML's, as their sources say they behave.

The functions of the real modules are replaced one by one, so a name that torch or pynvml lacks is an error, and NVML's
exceptions are the real ones.
"""

import os
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

CONTEXT_BYTES = 300_000_000  # what CUDA takes for itself once a process touches a device
TOTAL_BYTES = 16_000_000_000


@dataclass
class Card:
    """One device, and what everybody holds of it, in bytes."""

    uuid: str = "6f0c1b7e-0000-1111-2222-333344445555"
    mig: bool = False
    name: str = "NVIDIA Test 16GB"
    capability: tuple[int, int] = (8, 9)
    foreign: int = 0
    context: int = 0
    allocated: int = 0  # of torch's tensors
    reserved: int = 0  # by torch's allocator
    peak: int = 0
    outside: int = 0  # CTranslate2's
    pool: int = 0  # CTranslate2's unused memory, until the device is synchronized
    fraction: float = 1.0
    lost: bool = False
    reads: list[str] = field(default_factory=list)  # names of the threads that asked for the free memory

    @property
    def ours(self) -> int:
        return self.context + self.reserved + self.outside + self.pool

    @property
    def free(self) -> int:
        return TOTAL_BYTES - self.foreign - self.ours

    def allocate(self, size: int) -> None:
        """A tensor: from the cache, else from the driver."""
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.peak = max(self.peak, self.allocated)

    def free_tensor(self, size: int) -> None:
        self.allocated -= size


class FakeTorchCuda:
    """What replaces functions of torch.cuda. `cards`: those visible, by CUDA's numbers."""

    def __init__(self, cards: list[Card]) -> None:
        self.cards = cards
        self.calls: list[str] = []
        self.init_error: Exception | None = None

    def init(self) -> None:
        if self.init_error is not None:
            raise self.init_error

    def is_available(self) -> bool:
        return self.init_error is None and bool(self.cards)

    def device_count(self) -> int:
        return len(self.cards)

    def get_device_properties(self, device: int = 0) -> Any:
        if device >= len(self.cards):
            raise AssertionError("Invalid device id")
        return SimpleNamespace(name=self.cards[device].name, uuid=self.cards[device].uuid)

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return self.cards[device].capability

    def get_arch_list(self) -> list[str]:
        return ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]

    def mem_get_info(self, device: int = 0) -> tuple[int, int]:
        card = self.cards[device]
        card.reads.append(threading.current_thread().name)
        if card.lost:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        card.context = CONTEXT_BYTES
        return card.free, TOTAL_BYTES

    def memory_reserved(self, device: int = 0) -> int:
        return self.cards[device].reserved

    def memory_allocated(self, device: int = 0) -> int:
        return self.cards[device].allocated

    def max_memory_allocated(self, device: int = 0) -> int:
        return self.cards[device].peak

    def reset_peak_memory_stats(self, device: int = 0) -> None:
        self.cards[device].peak = self.cards[device].allocated

    def set_per_process_memory_fraction(self, fraction: Any, device: int = 0) -> None:
        if not isinstance(fraction, float):
            raise TypeError("Invalid type for fraction argument, must be `float`")
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        self.cards[device].fraction = fraction

    def synchronize(self, device: int = 0) -> None:
        self.calls.append("synchronize")
        self.cards[device].pool = 0

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")
        for card in self.cards:
            card.reserved = card.allocated


class FakeNvml:
    """What replaces functions of pynvml. `error`: raised by everything; `figures`: what it says of processes."""

    def __init__(self, cards: list[Card]) -> None:
        self.cards = cards  # every card of the machine, visible to CUDA or not
        self.error: Exception | None = None
        self.memory_error: Exception | None = None
        self.process_error: Exception | None = None
        self.figures = "ours"  # ours | none: WSL, MIG | hidden: another namespace of processes
        self.extra: list[Any] = []
        self.process_questions = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.error is not None:
            raise self.error

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95.05"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        for card in self.cards:
            if uuid == f"{'MIG' if card.mig else 'GPU'}-{card.uuid}":
                return card
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetMemoryInfo(self, handle: Card, version: Any = None) -> Any:  # noqa: N802
        if self.memory_error is not None:
            raise self.memory_error
        return SimpleNamespace(total=TOTAL_BYTES, free=handle.free, used=TOTAL_BYTES - handle.free)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[Any]:  # noqa: N802
        self.process_questions += 1
        if self.process_error is not None:
            raise self.process_error
        listed = [*self.extra, SimpleNamespace(pid=1, usedGpuMemory=handle.foreign)]
        if handle.context and self.figures != "hidden":
            figure = handle.ours if self.figures == "ours" else None
            listed.append(SimpleNamespace(pid=os.getpid(), usedGpuMemory=figure))
        return listed


@dataclass
class Machine:
    """A machine with CUDA cards."""

    cuda: FakeTorchCuda
    nvml: FakeNvml

    @property
    def card(self) -> Card:
        return self.cuda.cards[0]


def install(monkeypatch: pytest.MonkeyPatch, cards: list[Card], visible: list[Card] | None = None) -> Machine:
    """Put the fakes in the place of the real functions. visible: CUDA_VISIBLE_DEVICES, all of `cards` by default."""
    machine = Machine(FakeTorchCuda(cards if visible is None else visible), FakeNvml(cards))
    for module, fake in ((torch.cuda, machine.cuda), (pynvml, machine.nvml)):
        for name in functions(fake):
            monkeypatch.setattr(module, name, getattr(fake, name))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return machine


def functions(fake: object) -> list[str]:
    """The names of the functions that a fake replaces."""
    return [name for name in vars(type(fake)) if not name.startswith("_")]
