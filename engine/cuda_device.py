"""A CUDA device: torch's allocator tells what torch holds, the driver what everybody holds, NVML what we hold."""

import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.device import Peak, Reading
from engine.errors import StartError
from engine.nvml import Nvml, NvmlMissing

REFRESH_SECONDS = 1.0  # between questions to NVML: it asks the driver about every process on the card
SAMPLE_SECONDS = 0.002  # between readings while a batch runs outside torch

NO_NVML = (
    "NVML does not answer for {name} ({reason}): CUDA's own context (some hundred MB) is not counted as this program's "
    "memory, and what other programs take from now on is"
)
NO_PROCESSES = (
    "NVML gives no figure for this process on {name} (usual in containers, under MIG and WSL): memory that other "
    "programs take from now on is counted as this one's"
)


class FreeSampler:
    """Watches the free memory while a batch runs, in one thread for the life of the process.

    The thread reads under the lock, so that no reading begun in one batch is counted in the next.
    """

    def __init__(self, read_free_bytes: Callable[[], int]) -> None:
        self._read = read_free_bytes
        self._lock = threading.Lock()
        self._watching = threading.Event()
        self._lowest_bytes = 0
        threading.Thread(target=self._run, name="device-memory", daemon=True).start()

    def start(self) -> int:
        """Begin; returns what is free now."""
        with self._lock:
            self._lowest_bytes = self._read()
            self._watching.set()
            return self._lowest_bytes

    def stop(self) -> int:
        """End; returns the least that was free since the start, now included."""
        with self._lock:
            self._watching.clear()
            return min(self._lowest_bytes, self._read())

    def _run(self) -> None:
        while True:
            self._watching.wait()
            self._sample()
            time.sleep(SAMPLE_SECONDS)

    def _sample(self) -> None:
        with self._lock:
            if not self._watching.is_set():
                return
            try:
                self._lowest_bytes = min(self._lowest_bytes, self._read())
            except RuntimeError:
                # The context is lost. `stop` meets the same error, in the thread that can say so.
                self._watching.clear()


class CudaDevice:
    """`engine.device.Device` on one CUDA device. Open it before anything is on the device.

    What we hold is what is in use less what others hold. What others hold is found once a second, where NVML lists this
    process with its figure. Where it does not, it is what was in use before our context was made, and stays so: then
    memory that another program takes later counts as ours, and memory that it gives back hides as much of ours (but
    never what torch holds). What is free is right in every case.
    """

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        """index: CUDA's, within CUDA_VISIBLE_DEVICES.

        Raises:
            StartError: CUDA does not start on the device, or this torch has no code for it.
        """
        import torch

        self._cuda = torch.cuda
        self._index = index
        self._clock = clock
        self._sampler: FreeSampler | None = None
        self.name = f"cuda:{index}"
        properties = self._start()
        self.label: str = properties.name
        self._nvml: Nvml | None = None
        self.notes: tuple[str, ...] = ()
        free_before_bytes: int | None = None
        try:
            self._nvml = Nvml(str(properties.uuid))
            free_before_bytes = self._nvml.free_bytes()
        except NvmlMissing as error:
            self._nvml = None
            self.notes = (NO_NVML.format(name=self.name, reason=error),)
        free_bytes, self.total_bytes = self._memory()  # this makes our context
        self._foreign_bytes = self.total_bytes - free_bytes
        if free_before_bytes is not None:
            self._foreign_bytes = min(self._foreign_bytes, max(0, self.total_bytes - free_before_bytes))
        self._refreshed_seconds = clock()
        if self._nvml is not None and not self._refresh(self._nvml, free_bytes):
            self.notes = (NO_PROCESSES.format(name=self.name),)

    def read(self) -> Reading:
        """Device memory now. NVML is asked once a second at most."""
        free_bytes = self._memory()[0]
        now_seconds = self._clock()
        if self._nvml is not None and now_seconds - self._refreshed_seconds >= REFRESH_SECONDS:
            self._refreshed_seconds = now_seconds
            self._refresh(self._nvml, free_bytes)
        reserved_bytes = self._cuda.memory_reserved(self._index)
        used_bytes = self.total_bytes - free_bytes - self._foreign_bytes
        return Reading(
            used_bytes=max(used_bytes, reserved_bytes),
            cached_bytes=reserved_bytes - self._cuda.memory_allocated(self._index),
            free_bytes=free_bytes,
        )

    @contextmanager
    def measure(self, outside_torch: bool) -> Iterator[Peak]:
        """Inside torch: the highest that its tensors took above the start. Outside: the most by which free memory fell,
        sampled every 2 ms; another program's memory is in it.

        Not what the allocator reserved for the tensors: that depends on what earlier batches left in the cache, so it
        does not repeat, and cached memory never is why a batch fails, for torch gives it back to the driver and tries
        again before it raises.

        Raises:
            RuntimeError: torch's, at the end, when the device is lost.
        """
        peak = Peak()
        finish = self._watch_driver() if outside_torch else self._watch_torch()
        try:
            yield peak
        finally:
            peak.extra_bytes = finish()

    def limit(self, budget_bytes: int) -> None:
        """Let torch's allocator reserve no more than the budget, with expandable segments too: it looks at the limit
        before it maps memory. CUDA's context and CTranslate2 are not bounded by it.
        """
        self._cuda.set_per_process_memory_fraction(min(1.0, budget_bytes / self.total_bytes), self._index)

    def release(self) -> None:
        """Collect what is unreachable, and give back torch's cache and CTranslate2's.

        CTranslate2 allocates from CUDA's memory pool (cudaMallocAsync, its default since CUDA 11.2), which gives back
        what is unused whenever the device is synchronized (cudaMemPoolAttrReleaseThreshold is 0).

        Raises:
            RuntimeError: torch's, when the device is lost.
        """
        gc.collect(1)  # what a failed batch left is young; a whole collection takes as long as many batches
        self._cuda.synchronize(self._index)
        self._cuda.empty_cache()

    def _start(self) -> Any:
        """Start CUDA; returns torch's properties of the device: its `name`, its `uuid`."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of devices without code, which is looked at below
                self._cuda.init()  # type: ignore[no-untyped-call]
            properties = self._cuda.get_device_properties(self._index)
        except (RuntimeError, AssertionError, self._cuda.DeferredCudaCallError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise StartError("no-cuda", f'{self.name} does not start: {reason}; set device.name = "cpu"') from error
        self._require_code_for(properties.name)
        return properties

    def _require_code_for(self, label: str) -> None:
        """A device older (or newer) than the torch build starts well, and fails at the first kernel."""
        capability = self._cuda.get_device_capability(self._index)
        built_for = self._cuda.get_arch_list()
        if built_for and not any(_runs_on(architecture, capability) for architecture in built_for):
            raise StartError(
                "no-cuda",
                f"this torch has no code for {label} (compute capability {capability[0]}.{capability[1]}), only for "
                f'{", ".join(built_for)}; install the torch build of another CUDA version, or set device.name = "cpu"',
            )

    def _refresh(self, nvml: Nvml, free_bytes: int) -> bool:
        """Find what others hold. False: NVML gives no figure for this process, or one that cannot be right (a stranger
        of the same number, seen from within a container).
        """
        try:
            ours_bytes = nvml.process_bytes()
        except NvmlMissing:
            return False
        if ours_bytes is None or ours_bytes < self._cuda.memory_reserved(self._index):
            return False
        self._foreign_bytes = max(0, self.total_bytes - free_bytes - ours_bytes)
        return True

    def _memory(self) -> tuple[int, int]:
        """Free and total bytes, for the driver. Names the device, so any thread may ask."""
        return self._cuda.mem_get_info(self._index)

    def _watch_torch(self) -> Callable[[], int]:
        start_bytes = self._cuda.memory_allocated(self._index)
        self._cuda.reset_peak_memory_stats(self._index)
        return lambda: max(0, self._cuda.max_memory_allocated(self._index) - start_bytes)

    def _watch_driver(self) -> Callable[[], int]:
        sampler = self._sampler = self._sampler or FreeSampler(lambda: self._memory()[0])
        self._cuda.synchronize(self._index)  # what the last batch freed goes back first, or it would hide as much
        free_bytes = sampler.start()
        return lambda: max(0, free_bytes - sampler.stop())


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether code for "sm_86" runs on a device, or that for "compute_90" can be translated for it. Binary code runs on
    devices of its major version that are not older (CUDA C++ Programming Guide, "Binary Compatibility").
    """
    kind, _, number = architecture.partition("_")
    built = divmod(int(number.rstrip("af")), 10)
    return built <= capability and (kind == "compute" or built[0] == capability[0])
