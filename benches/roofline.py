"""How near a model comes to what the machine can do: its operations and bytes, and the machine's own two limits.

The roofline model (Williams, Waterman and Patterson, 2009, doi.org/10.1145/1498765.1498785): work that does F floating
point operations for each byte of memory traffic cannot run faster than the peak of arithmetic, nor than F times the
peak of memory. Operations are counted by torch (matrix products, convolutions, attention; not what goes element by
element). Bytes are those that every operation would read and write if nothing stayed in a cache; caches save some of
it, so a batch that fits into them may lie above the roof.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benches.report import Chart
from stages.lanes import in_turn

MATRIX = 2048  # rows and columns of the product that is taken for the peak: 50 MB with its factors, in single precision
COPY_BYTES = 256 * 1024**2  # more than a cache holds, with its copy
TRIES = 3
ROOF = "roof of this machine"


@dataclass(frozen=True, slots=True)
class Work:
    """What one batch asks of the machine."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Floating point operations for each byte."""
        return self.flops / self.bytes


@dataclass(frozen=True, slots=True)
class Roof:
    """What the machine can do at best."""

    flops_per_second: float
    bytes_per_second: float

    def at(self, intensity: float) -> float:
        """The most floating point operations a second, at so many for each byte."""
        return min(self.flops_per_second, intensity * self.bytes_per_second)

    @property
    def ridge(self) -> float:
        """The intensity from which on arithmetic, and no longer memory, is the limit."""
        return self.flops_per_second / self.bytes_per_second


# --- counting ---------------------------------------------------------------------------------------------------------


def work_of(run: Callable[[], object]) -> Work:
    """Run it twice, on torch: operations are counted in the first run, bytes in the second. Torch counts one thread."""
    with in_turn():
        return Work(_flops(run), _bytes(run))


def _flops(run: Callable[[], object]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    unknown_to_torch = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch) as counted:
        run()
    return float(counted.get_total_flops())


def _bytes(run: Callable[[], object]) -> float:
    from torch.utils._python_dispatch import TorchDispatchMode

    total = 0

    class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal total
            result = function(*args, **(kwargs or {}))
            total += traffic_bytes((args, kwargs), result, changes_input=function._schema.is_mutable)
            return result

    with Traffic():  # type: ignore[no-untyped-call]
        run()
    return float(total)


def traffic_bytes(given: Any, result: Any, *, changes_input: bool) -> int:
    """Of one operation: its inputs once, its outputs once. One that gives a view of its input moves nothing. Pure."""
    read, written = list(_tensors(given)), list(_tensors(result))
    places = {tensor.untyped_storage().data_ptr() for tensor in read}
    is_view = any(tensor.untyped_storage().data_ptr() in places for tensor in written)
    if is_view and not changes_input:
        return 0
    return sum(tensor.nbytes for tensor in (*read, *written))


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


# --- the machine ------------------------------------------------------------------------------------------------------


def roof_now(device: str, matrix: int = MATRIX, copy_bytes: int = COPY_BYTES) -> Roof:
    """Measure: the product of two square matrices, and the copy of a large array; the best of some tries, in single
    precision, with as many threads as torch uses.
    """
    import torch

    factor, product = torch.ones(matrix, matrix, device=device), torch.empty(matrix, matrix, device=device)
    source = torch.ones(copy_bytes // 4, device=device)
    target = torch.empty_like(source)
    multiply = _best_seconds(lambda: torch.mm(factor, factor, out=product)[0, 0].item())
    copy = _best_seconds(lambda: target.copy_(source)[0].item())
    return Roof(2 * matrix**3 / multiply, 2 * source.nbytes / copy)  # a copy reads and writes


def _best_seconds(run: Callable[[], object]) -> float:
    """`run` gives a number in host memory, so a device has finished when it returns."""
    run()
    return min(_seconds(run) for _ in range(TRIES))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# --- for people -------------------------------------------------------------------------------------------------------


def roofline(measured: Mapping[str, Sequence[tuple[Work, float]]], roof: Roof) -> Chart:
    """measured: by name, batches with the seconds that each took. Pure."""
    lines = {
        name: tuple((work.intensity, work.flops / seconds / 1e9) for work, seconds in batches)
        for name, batches in measured.items()
    }
    places = [x for points in lines.values() for x, _ in points]
    ends = sorted({min(*places, roof.ridge) / 2, roof.ridge, max(*places, roof.ridge) * 2})
    return Chart(
        name="roofline",
        title="Models under the roof of this machine, by batch size",
        x="FLOP a byte (intensity)",
        y="GFLOP/s",
        lines={**lines, ROOF: tuple((x, roof.at(x) / 1e9) for x in ends)},
        log_x=True,
        log_y=True,
        limits=(ROOF,),
    )
