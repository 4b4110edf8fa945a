"""A device that is only arithmetic: a byte limit, an allocator that keeps caches and leaves fragments, other processes,
a price in seconds for each batch, and faults on demand. `device.name = "simulated"` runs the whole engine on it.

Two allocators share it, as on a real card: torch's, which keeps what is freed until `release`, and the one of
CTranslate2, of which the driver sees all. They raise exactly what the real ones raise.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.device import Peak, Reading
from stages.base import Model
from transport.messages import ModelInfo

BLOCK_BYTES = 2 * 1024 * 1024  # torch's allocator takes memory from the driver in blocks of 2 MiB

CTRANSLATE2_OUT_OF_MEMORY = "CUDA failed with error out of memory"
POISONED = "CUDA error: an illegal memory access was encountered"


class SimulatedClock:
    """Seconds that pass only when something costs time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class SimulatedDevice:
    """`engine.device.Device` in arithmetic."""

    name = "simulated"
    label = "simulated"
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        total_bytes: int,
        *,
        context_bytes: int = 0,
        fragmentation: float = 0.0,
        never_frees: bool = False,
        others_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """context_bytes: taken by the driver at the start. fragmentation: share of torch's cache that no request fits.
        never_frees: neither caches nor weights come back to the driver; each library uses its own again. others_bytes:
        what other processes hold now.
        """
        self.total_bytes = total_bytes
        self.highest_bytes = 0  # most that this process ever held
        self.lost = False  # the context is poisoned: nothing can run any more
        self._context_bytes = context_bytes
        self._fragmentation = fragmentation
        self._never_frees = never_frees
        self._others_bytes = others_bytes
        self._limit_bytes = total_bytes
        self._torch_bytes = 0  # in use
        self._cached_bytes = 0  # freed, and kept by torch's allocator
        self._outside_bytes = 0  # in use beside torch
        self._outside_cached_bytes = 0  # freed, and kept by CTranslate2's allocator
        self._peak: list[int] = []  # highest use of each measuring that is under way

    def read(self) -> Reading:
        outside = self._outside_bytes + self._outside_cached_bytes
        used = self._context_bytes + self._torch_bytes + self._cached_bytes + outside
        return Reading(used, self._cached_bytes, max(0, self.total_bytes - used - self._others_bytes()))

    @contextmanager
    def measure(self, outside_torch: bool) -> Iterator[Peak]:
        peak, start = Peak(), self._in_use()
        self._peak.append(start)
        try:
            yield peak
        finally:
            peak.extra_bytes = self._peak.pop() - start

    def limit(self, budget_bytes: int) -> None:
        self._limit_bytes = budget_bytes

    def release(self) -> None:
        if not self._never_frees:
            self._cached_bytes = 0

    def allocate(self, wanted_bytes: int, outside_torch: bool) -> int:
        """Take memory; returns how much was taken, for `free`. Raises what the library of that allocator raises."""
        if self.lost:
            raise RuntimeError(POISONED)
        wanted = math.ceil(wanted_bytes / BLOCK_BYTES) * BLOCK_BYTES
        if not self._take(wanted, outside_torch):
            if not outside_torch:
                self.release()  # as torch's allocator does before it gives up
            if outside_torch or not self._take(wanted, outside_torch):
                raise out_of_memory(wanted, outside_torch)
        if outside_torch:
            self._outside_bytes += wanted
        else:
            self._torch_bytes += wanted
        self.highest_bytes = max(self.highest_bytes, self.read().used_bytes)
        self._peak = [max(peak, self._in_use()) for peak in self._peak]
        return wanted

    def _take(self, wanted: int, outside_torch: bool) -> bool:
        """Out of the cache as far as it has no holes, the rest from the driver."""
        cached = self._outside_cached_bytes if outside_torch else self._cached_bytes
        reused = min(wanted, int(cached * (1 - self._fragmentation)))
        fresh = wanted - reused
        if fresh > self.read().free_bytes or (not outside_torch and self.read().used_bytes + fresh > self._limit_bytes):
            return False
        if outside_torch:
            self._outside_cached_bytes -= reused
        else:
            self._cached_bytes -= reused
        return True

    def free(self, taken_bytes: int, outside_torch: bool) -> None:
        """Give memory back: torch's goes into its cache."""
        if not outside_torch:
            self._torch_bytes -= taken_bytes
            self._cached_bytes += taken_bytes
            return
        self._outside_bytes -= taken_bytes
        if self._never_frees:
            self._outside_cached_bytes += taken_bytes

    def _in_use(self) -> int:
        """Of what is not torch's the driver sees all, caches too."""
        return self._torch_bytes + self._outside_bytes + self._outside_cached_bytes


def out_of_memory(wanted_bytes: int, outside_torch: bool) -> RuntimeError:
    """What torch, or CTranslate2, raises."""
    if outside_torch:
        return RuntimeError(CTRANSLATE2_OUT_OF_MEMORY)
    import torch

    return torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {wanted_bytes / 2**20:.2f} MiB.")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model takes of a device. Items are as long as they come (`probe_length`); shorter ones take less."""

    weights_bytes: int
    batch_bytes: int  # of any batch, however small
    item_bytes: int
    batch_seconds: float  # of any batch
    item_seconds: float
    host_seconds: float = 0.5  # coming back from host memory
    disk_seconds: float = 2.0  # … from disk
    max_batch: int = 512
    outside_torch: bool = False


Fault = Callable[[str, Sequence[Any]], Exception | None]  # (role, batch) → what the library raises instead of running


@dataclass(slots=True)
class SimulatedModel:
    """`stages.base.Model` that takes memory and time of a simulated device; the work, if any, is another model's."""

    info: ModelInfo
    cost: Cost
    device: SimulatedDevice
    pass_seconds: Callable[[float], None] = lambda seconds: None
    inner: Model | None = None
    fault: Fault = lambda role, batch: None
    probe_length: int = 0
    truth: float = 1.0  # true bytes of a batch for each byte of `cost`
    precision: str = "simulated"
    length: Callable[[Any], int] = lambda item: 0
    moves: list[str] = field(default_factory=list)
    _weights_bytes: int = 0

    def __post_init__(self) -> None:
        if self.inner is not None:
            self.probe_length, self.length = self.inner.probe_length, self.inner.length_of
        self._weights_bytes = self.device.allocate(self.cost.weights_bytes, self.outside_torch)

    @property
    def max_batch(self) -> int:
        return self.cost.max_batch if self.inner is None else min(self.cost.max_batch, self.inner.max_batch)

    @property
    def outside_torch(self) -> bool:
        return self.cost.outside_torch

    def run(self, batch: Sequence[Any]) -> list[Any]:
        if not self._weights_bytes:
            raise RuntimeError(f"the {self.info.role} model is parked")
        error = self.fault(self.info.role, batch)
        self.device.lost |= error is not None and POISONED in str(error)
        if error is not None:
            raise error
        longest = max(map(self.length, batch))
        share = longest / self.probe_length if self.probe_length else 1.0
        self._occupy(len(batch), share)
        return list(batch) if self.inner is None else self.inner.run(batch)

    def probe(self, count: int) -> None:
        if not self._weights_bytes:
            raise RuntimeError(f"the {self.info.role} model is parked")
        self._occupy(count, 1.0)

    def length_of(self, item: Any) -> int:
        return self.length(item)

    def bytes_of(self, item: Any) -> int:
        return 0 if self.inner is None else self.inner.bytes_of(item)

    def park(self, keep: bool) -> None:
        self.device.free(self._weights_bytes, self.outside_torch)
        self.device.release()
        self._weights_bytes = 0
        self.moves.append("host" if keep else "disk")

    def restore(self) -> None:
        self._weights_bytes = self.device.allocate(self.cost.weights_bytes, self.outside_torch)
        self.pass_seconds(self.cost.host_seconds if self.moves[-1] == "host" else self.cost.disk_seconds)

    def unload(self) -> None:
        if self._weights_bytes:
            self.park(keep=False)
        if self.inner is not None:
            self.inner.unload()

    def _occupy(self, count: int, share: float) -> None:
        wanted = round((self.cost.batch_bytes + self.cost.item_bytes * count * share) * self.truth)
        taken = self.device.allocate(wanted, self.outside_torch)
        try:
            self.pass_seconds(self.cost.batch_seconds + self.cost.item_seconds * count * share)
        finally:
            self.device.free(taken, self.outside_torch)
