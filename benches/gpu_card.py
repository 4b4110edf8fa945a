"""The card that a GPU bench runs on: what it is, what it reaches by itself, and a meter that watches it meanwhile.

Peaks are measured, not taken from a data sheet: a data sheet's figure is of other clocks, often with sparsity. A matrix
product is as large as pays, of random numbers (zeros take less power, and so run faster).
"""

import threading
import time
from collections.abc import Callable

import msgspec

from engine.nvml import Nvml, NvmlMissing, driver_version
from engine.real_devices import cuda_trouble, open_device, resolve_device, torch_build

SIMULATED = "simulated"
METER_SECONDS = 0.2  # NVML itself averages the use over a sixth of a second to a second
MATRIX_SIDES = {"cuda": (4096, 8192), "cpu": (256, 512)}
COPY_BYTES = {"cuda": 1 << 29, "cpu": 1 << 27}
TRANSFER_BYTES = 1 << 28  # to the device
WARM_UPS = 3
MOST_RUNS = 1000
TENSOR_CORES_FLOAT32 = (8, 0)  # compute capability from which on float32 products may run as TF32


class Card(msgspec.Struct, frozen=True):
    """What was found and measured."""

    device: str  # resolved: "cuda:0", "cpu", "simulated"
    label: str
    total_bytes: int
    build: str  # torch's
    driver: str | None = None
    uuid: str | None = None  # as NVML wants it
    flops_per_second: dict[str, float] = {}  # by number format
    bytes_per_second: float = 0.0  # read and written, of a copy within the device
    to_device: dict[str, float] = {}  # bytes a second, from "pageable" and "pinned" host memory
    notes: tuple[str, ...] = ()
    missing: str | None = None  # why there is none: nothing else is filled in then

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def torch_device(self) -> str:
        """Where the models really run."""
        return "cpu" if self.device == SIMULATED else self.device

    def flops_for(self, precision: str) -> tuple[float, str]:
        """The peak for a model's number format, and whose it is: integers are compared with the format of the rest.

        Convolutions in float32 run as TF32 where the card can (cuDNN's default), so that is their ceiling.
        """
        for name in {"float32": ("tf32", "float32")}.get(precision, (precision, "float16", "float32")):
            if name in self.flops_per_second:
                return self.flops_per_second[name], name
        return 0.0, "none"


def look(device: str, seconds: float) -> Card:
    """Find the card and measure its peaks, some `seconds` each. device: auto, cuda, cuda:N, cpu or simulated.

    Raises:
        ConfigError, StartError: it is named, and not there.
    """
    if device == "auto" and (trouble := cuda_trouble()) is not None:
        return Card(device="", label="", total_bytes=0, build="", missing=trouble)
    name = "cpu" if device == SIMULATED else resolve_device(device)
    opened = open_device(name)
    return Card(
        device=device if device == SIMULATED else name,
        label=opened.label if device != SIMULATED else f"simulated on {opened.label}",
        total_bytes=opened.total_bytes,
        build=torch_build(),
        driver=driver_version(),
        uuid=_uuid(name),
        flops_per_second=_products(name, seconds),
        bytes_per_second=_copy(name, seconds),
        to_device=_transfers(name, seconds),
        notes=opened.notes,
    )


def _uuid(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def synchronise(device: str) -> None:
    """Wait for everything on the device, of torch and of whoever shares its context; on the CPU nothing is late."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def durations(run: Callable[[], object], device: str, seconds: float, least: int = 3) -> list[float]:
    """Seconds of each of at least `least` runs, for `seconds` in all or MOST_RUNS, behind WARM_UPS that do not count;
    each with the device idle before and after.
    """
    for _ in range(min(WARM_UPS, least)):
        run()
    synchronise(device)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or (time.perf_counter() < end and len(taken) < MOST_RUNS):
        started = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - started)
    return taken


# --- peaks ------------------------------------------------------------------------------------------------------------


def _products(device: str, seconds: float) -> dict[str, float]:
    """FLOPs a second of the best square matrix product, by number format."""
    import torch

    found = {"float32": _product(device, torch.float32, seconds)}
    if device == "cpu":
        return found
    found["float16"] = _product(device, torch.float16, seconds)
    if torch.cuda.get_device_capability(device) >= TENSOR_CORES_FLOAT32:
        found["bfloat16"] = _product(device, torch.bfloat16, seconds)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        found["tf32"] = _product(device, torch.float32, seconds)
        torch.set_float32_matmul_precision(before)
    return found


def _product(device: str, dtype: "object", seconds: float) -> float:
    import torch

    best = 0.0
    generator = torch.Generator(device).manual_seed(0)
    for side in MATRIX_SIDES[device.partition(":")[0]]:
        a, b = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in "ab")  # type: ignore[call-overload]
        out = torch.empty_like(a)

        def several(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            for _ in range(PRODUCTS):
                torch.mm(a, b, out=out)

        best = max(best, PRODUCTS * 2 * side**3 / min(durations(several, device, seconds / 2)))
    return best


PRODUCTS = 4  # queued together: the gap between two launches is not the card's


def _copy(device: str, seconds: float) -> float:
    """Bytes a second of a copy within the device's memory, read and written."""
    import torch

    source = torch.ones(COPY_BYTES[device.partition(":")[0]], dtype=torch.uint8, device=device)  # more than any cache
    target = torch.empty_like(source)
    return 2 * source.numel() / min(durations(lambda: target.copy_(source), device, seconds))


def _transfers(device: str, seconds: float) -> dict[str, float]:
    if not device.startswith("cuda"):
        return {}
    import torch

    target = torch.empty(TRANSFER_BYTES, dtype=torch.uint8, device=device)
    found = {}
    for name, pinned in (("pageable", False), ("pinned", True)):
        source = torch.ones(TRANSFER_BYTES, dtype=torch.uint8, pin_memory=pinned)
        taken = durations(lambda source=source: target.copy_(source, non_blocking=True), device, seconds / 2)  # type: ignore[misc]
        found[name] = TRANSFER_BYTES / min(taken)
    return found


# --- meter ------------------------------------------------------------------------------------------------------------


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The card at one moment. None where NVML does not say (MIG gives no use, WSL no power)."""

    seconds: float  # since the meter was started
    used_bytes: int  # by whoever
    use: float | None  # share of the time in which a kernel ran
    watts: float | None
    mhz: float | None  # of the multiprocessors


class CardMeter(Nvml):
    """Samples a card in a thread, from any process, with no context of CUDA. `with CardMeter(uuid) as meter: …`

    Raises NvmlMissing as `Nvml` does.
    """

    def __init__(self, uuid: str, interval_seconds: float = METER_SECONDS) -> None:
        super().__init__(uuid)
        self.samples: list[Sample] = []
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="card-meter", daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> "CardMeter":
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self.samples.append(self.sample())

    def sample(self) -> Sample:
        """Now."""
        import pynvml

        def asked(question: Callable[[], float]) -> float | None:
            try:
                return float(question())
            except pynvml.NVMLError:
                return None

        handle = self._handle
        watts = asked(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
        return Sample(
            time.monotonic() - self._started,
            int(asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used) or 0),
            asked(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
            watts / 1000 if watts is not None else None,
            asked(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        )


class NoMeter:
    """In the place of a meter where there is nothing to be asked."""

    samples: tuple[Sample, ...] = ()

    def __enter__(self) -> "NoMeter":
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing was started."""


def meter(uuid: str | None) -> CardMeter | NoMeter:
    """A meter for the card, or none where there is no card, or NVML does not know it."""
    try:
        return CardMeter(uuid) if uuid is not None else NoMeter()
    except NvmlMissing:
        return NoMeter()
