"""What `device.simulation` describes: how large the simulated device is, what the models take of it, what goes wrong.

The models do their real work on the CPU meanwhile; only memory is simulated. With it a whole run can be tried on a card
that is not there, and its faults tested through every process.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from engine.errors import ConfigError
from engine.simulated_device import BLOCK_BYTES, POISONED, Cost, Fault, SimulatedDevice, SimulatedModel, out_of_memory
from stages.base import Model, Role, SpeechInput
from stages.options import Options

MIB = 1024**2

Amount = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class CostOptions(Options, frozen=True):
    """[costs.ROLE] memory of one model. Times are those of the real work."""

    weights_mb: Amount
    batch_mb: Amount
    item_mb: Amount


class FaultOptions(Options, frozen=True):
    """[[faults]] what goes wrong, and when."""

    role: Role
    kind: Literal["out-of-memory", "device-lost", "leak"]  # leak: all that is free is taken, and never comes back
    batches: tuple[int, ...] = ()  # of this model in this process, counted from 1
    mean_above: float | None = None  # … or whenever an item's samples (pixels, PCM) are larger than this in the mean


class Simulation(Options, frozen=True):
    """The file."""

    total_gb: Annotated[float, msgspec.Meta(gt=0)] = 4.0
    context_mb: Amount = 400.0
    fragmentation: Share = 0.0
    never_frees: bool = False
    costs: dict[Role, CostOptions] = msgspec.field(default_factory=dict)
    faults: tuple[FaultOptions, ...] = ()


# The models of configs/default.toml, in half precision; ECAPA in float32. Weights are their parameters' bytes (of CLIP,
# the picture tower's 88 million); what an item takes is an estimate from the largest activations, to be replaced by
# what `python -m benches gpu` measures. ECAPA's was measured on the CPU.
COSTS: Mapping[Role, CostOptions] = {
    "image": CostOptions(weights_mb=168, batch_mb=20, item_mb=3),
    "speech": CostOptions(weights_mb=480, batch_mb=100, item_mb=90),
    "text": CostOptions(weights_mb=45, batch_mb=10, item_mb=4),
    "voice": CostOptions(weights_mb=85, batch_mb=20, item_mb=51),
}


def read_simulation(path: str | None) -> Simulation:
    """The file, or the defaults without one. Raises ConfigError when it cannot be read or says what is not known."""
    if path is None:
        return Simulation()
    try:
        return msgspec.convert(tomllib.loads(Path(path).read_text("utf-8")), Simulation)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError("bad-config", f"device.simulation = {path}: {' '.join(str(error).split())}") from error


def simulated_device(simulation: Simulation) -> SimulatedDevice:
    """The device that the file describes."""
    return SimulatedDevice(
        round(simulation.total_gb * 1024**3),
        context_bytes=round(simulation.context_mb * MIB),
        fragmentation=simulation.fragmentation,
        never_frees=simulation.never_frees,
    )


def weights_bytes(role: Role, simulation: Simulation) -> int:
    """What the weights of a model take."""
    return round(_costs(role, simulation).weights_mb * MIB)


def simulated(model: Model, device: SimulatedDevice, simulation: Simulation) -> SimulatedModel:
    """The model, as if it ran on the device. Raises what the library would when its weights do not fit."""
    role = model.info.role
    options = _costs(role, simulation)
    cost = Cost(
        weights_bytes=weights_bytes(role, simulation),
        batch_bytes=round(options.batch_mb * MIB),
        item_bytes=round(options.item_mb * MIB),
        batch_seconds=0.0,
        item_seconds=0.0,
        outside_torch=model.outside_torch,
    )
    return SimulatedModel(
        model.info,
        cost,
        device,
        inner=model,
        fault=_faults(simulation.faults, role, cost, device),
        # What is remembered of a model holds for these costs alone.
        precision=f"{options.weights_mb:g} + {options.batch_mb:g} + {options.item_mb:g} MB an item",
    )


def _costs(role: Role, simulation: Simulation) -> CostOptions:
    return simulation.costs.get(role, COSTS[role])


def _faults(options: Sequence[FaultOptions], role: str, cost: Cost, device: SimulatedDevice) -> Fault:
    mine = [fault for fault in options if fault.role == role]
    count = 0

    def fault(_: str, batch: Sequence[Any]) -> Exception | None:
        nonlocal count
        count += 1
        for option in mine:
            above = option.mean_above
            if count in option.batches or (above is not None and any(_mean(item) > above for item in batch)):
                return _happens(option, cost, device)
        return None

    return fault


def _happens(option: FaultOptions, cost: Cost, device: SimulatedDevice) -> Exception | None:
    match option.kind:
        case "device-lost":
            return RuntimeError(POISONED)
        case "out-of-memory":
            return out_of_memory(cost.item_bytes, cost.outside_torch)
        case "leak":
            device.allocate(device.read().free_bytes - BLOCK_BYTES, outside_torch=True)
            return None


def _mean(item: Any) -> float:
    samples = item.pcm if isinstance(item, SpeechInput) else item
    return float(np.mean(samples)) if isinstance(samples, np.ndarray) else 0.0
