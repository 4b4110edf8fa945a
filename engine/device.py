"""What the engine asks of a device, whatever it is: how much memory there is, what a batch took, what can be freed.

The real ones stand in `engine/real_devices.py`, the simulated one in `engine/simulated_device.py`.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Reading(NamedTuple):
    """Device memory at one moment, as the driver counts it."""

    used_bytes: int  # held by this process: weights, caches, context, libraries' workspaces
    cached_bytes: int  # part of `used_bytes` that torch's allocator holds without need: `release` may give it back
    free_bytes: int  # what the driver would still give to anybody


@dataclass(slots=True)
class Peak:
    """What a batch took. Filled in when the measuring ends, whether the batch succeeded or not."""

    extra_bytes: int | None = None  # highest above what was in use at the start; None: the device cannot tell


class Device(Protocol):
    """Memory of one device. One thread calls it."""

    @property
    def name(self) -> str:
        """torch's name: "cpu", "cuda:0"."""

    @property
    def label(self) -> str:
        """What kind it is, such as "NVIDIA H100 80GB HBM3": what was measured on one holds for its like."""

    @property
    def total_bytes(self) -> int:
        """All of its memory, whoever holds it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be measured here, and what follows from that."""

    def read(self) -> Reading:
        """Its memory now."""

    def measure(self, outside_torch: bool) -> AbstractContextManager[Peak]:
        """Watch the memory while a batch runs. outside_torch: the model's memory is not from torch's allocator, so only
        the driver sees it.
        """

    def limit(self, budget_bytes: int) -> None:
        """Hold this process's allocations to the budget where the device can enforce it."""

    def release(self) -> None:
        """Give what is held without need back to the device: unreachable Python objects, torch's cache."""
