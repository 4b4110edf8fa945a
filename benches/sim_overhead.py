"""What the engine itself costs, measured on this machine: CPU seconds around the models for batches of 32 frames.

Frames of 150 kB go in one by one, `step` admits, runs and finishes them, points come out encoded; the model gives its
vectors at once, and the time inside it is taken off. The device is the simulated one, and the real one of the CPU,
which reads the process's memory from the system. A CUDA device asks torch and the driver instead: that is not in here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from benches.report import Ratio, Table
from benches.sim_card import COSTS
from benches.sim_workload import LightModel, Video, tasks
from engine.budget import Budget, CostModel
from engine.config import EngineOptions
from engine.core import Engine
from engine.device import Device
from engine.host_device import HostDevice
from engine.pressure import Pressure
from engine.runner import Runner
from engine.simulated_device import SimulatedDevice, SimulatedModel
from stages.base import Model
from stages.options import VoiceOptions
from stages.torch_model import prepare_transformers

BATCH = 32
FAST_BATCH_SECONDS = 0.020  # what a fast GPU may take for 32 frames
AIM = 0.02  # of the batch


class _Timed:
    """Adds up the seconds of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.seconds = 0.0
        self._function = function

    def __call__(self, *args: Any) -> Any:
        started = time.process_time()
        try:
            return self._function(*args)
        finally:
            self.seconds += time.process_time() - started


class _Open(SimulatedModel):
    """One whose `run` can be replaced."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Seconds for a batch of 32 frames, the least of some rounds."""

    simulated_seconds: float  # receive, schedule, admit, learn, finish, on the simulated device
    simulated_points_seconds: float  # … making and encoding the points, not in the figure above
    host_seconds: float  # the same two on the device of the CPU
    host_points_seconds: float
    vit_seconds: float  # a batch of 32 in CLIP's ViT-B/32, random weights, on this CPU

    def ways(self) -> dict[str, float]:
        """Seconds for a batch, by what is in them."""
        return {
            "simulated device, without points": self.simulated_seconds,
            "simulated device, with points": self.simulated_seconds + self.simulated_points_seconds,
            "CPU device, without points": self.host_seconds,
            "CPU device, with points": self.host_seconds + self.host_points_seconds,
        }

    def table(self) -> Table:
        """For people."""
        rows = tuple(
            (name, seconds * 1e3, seconds / BATCH * 1e6, seconds / FAST_BATCH_SECONDS, seconds / self.vit_seconds)
            for name, seconds in self.ways().items()
        )
        share = f"of ViT-B/32 here ({self.vit_seconds:.2f} s)"
        columns = ("", "CPU ms", "µs/item", f"of {FAST_BATCH_SECONDS * 1e3:.0f} ms", share)
        return Table(f"The engine's own time for a batch of {BATCH} frames, the least of some rounds", columns, rows)

    def ratios(self) -> list[Ratio]:
        """Beside the aim."""
        fast = f"a batch of {FAST_BATCH_SECONDS * 1e3:.0f} ms"
        return [
            Ratio(f"engine's own time / {fast}, {name}", seconds / FAST_BATCH_SECONDS, AIM)
            for name, seconds in self.ways().items()
            if name.startswith("simulated")
        ]


def overhead(batches: int = 200, rounds: int = 5) -> Overhead:
    """Measure."""
    simulated = min(_one_round(_simulated(), batches) for _ in range(rounds))
    host = min(_one_round(_host(), batches) for _ in range(rounds))
    return Overhead(*simulated, *host, _vit_seconds())


def _simulated() -> tuple[Device, Model]:
    device = SimulatedDevice(16 * 1024**3)
    light = LightModel("image")
    return device, cast(Model, _Open(light.info, COSTS["image"], device, inner=cast(Model, light)))


def _host() -> tuple[Device, Model]:
    return HostDevice(), cast(Model, LightModel("image"))


def _one_round(on: tuple[Device, Model], batches: int) -> tuple[float, float]:
    """(without, with nothing but points) seconds for a batch."""
    device, model = on
    run = _Timed(model.run)
    model.run = run  # type: ignore[method-assign,assignment]
    engine = _engine(device, model)
    points = _Timed(engine._send_points)
    engine._send_points = points  # type: ignore[method-assign,assignment]
    (work, *_) = tasks([Video("video", BATCH)])
    start, *frames, _end = list(work.messages(1))
    engine.receive(b"0", start.message, None, 0, time.monotonic())
    seconds = 0.0
    for _ in range(batches):
        seconds += _one_batch(engine, frames)
        while engine.outbox.take() is not None:
            pass
        engine.released.clear()
    return (seconds - run.seconds - points.seconds) / batches, points.seconds / batches


def _one_batch(engine: Engine, frames: Sequence[Any]) -> float:
    started = time.process_time()
    for sent in frames:
        engine.receive(b"0", sent.message, sent.payload, sent.cost_bytes, time.monotonic())
    assert engine.step(time.monotonic())
    return time.process_time() - started


def _engine(device: Device, model: Model) -> Engine:
    reading = device.read()
    budget = Budget(reading.used_bytes + reading.free_bytes)
    cost = CostModel()
    cost.observe(model.max_batch, 0, 0)
    budget.add("image", 0, cost)
    runner = Runner({"image": model}, device, budget, batch_sizes={"image": BATCH})
    runner.tuners["image"].largest = BATCH
    runner.turns.start(())
    return Engine(
        runner, EngineOptions(), VoiceOptions(), pressure=Pressure(budget.total_bytes), share_bytes=256 * 1024**2
    )


def _vit_seconds(rounds: int = 3) -> float:
    """A batch of 32 through ViT-B/32, the default size of transformers' CLIP."""
    prepare_transformers()
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig()).eval()
    pixels = torch.zeros(BATCH, 3, 224, 224)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(rounds):
            started = time.perf_counter()
            model(pixel_values=pixels)
            best = min(best, time.perf_counter() - started)
    return best
