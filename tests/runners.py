"""Runners and engines for tests: any models, on a simulated device."""

from collections.abc import Collection, Mapping
from typing import Any

from engine.budget import Budget, CostModel
from engine.config import EngineOptions
from engine.core import Engine
from engine.pressure import Pressure
from engine.runner import Runner
from engine.simulated_device import SimulatedDevice, SimulatedModel
from stages.base import Model
from stages.options import VoiceOptions

GIB = 1024**3


def runner_for(models: Mapping[str, Model], device: SimulatedDevice | None = None, **more: Any) -> Runner:
    """A runner whose models are all on the device, in a budget that is the whole device."""
    device = device or SimulatedDevice(4 * GIB)
    budget = Budget(device.total_bytes)
    for role, model in models.items():
        cost = CostModel()
        if not isinstance(model, SimulatedModel):
            cost.observe(model.max_batch, model.probe_length, 0)  # fakes take no memory
        budget.add(role, model.cost.weights_bytes if isinstance(model, SimulatedModel) else 0, cost)
    sizes = more.pop("batch_sizes", dict.fromkeys(models, 32))
    runner = Runner(models, device, budget, batch_sizes=sizes, **more)
    runner.turns.start(())
    return runner


def engine_for(
    runner: Runner, options: EngineOptions | None = None, suspects: Collection[Any] = (), **more: Any
) -> Engine:
    """An engine around a runner."""
    return Engine(
        runner,
        options or EngineOptions(),
        VoiceOptions(),
        pressure=Pressure(runner.budget.total_bytes),
        share_bytes=256 * 1024 * 1024,
        suspects=suspects,
        **more,
    )
