"""A simulated card with metered models on it, and the start of the real runner there, as `engine.loading` does it."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from benches.sim_workload import LightModel
from engine import calibration
from engine.budget import Budget, CostModel
from engine.calibration import SavedModel
from engine.config import Config
from engine.faults import is_out_of_memory
from engine.runner import Runner
from engine.simulated_device import Cost, Fault, SimulatedClock, SimulatedDevice, SimulatedModel
from stages.base import Model, Role

OOM_SECONDS = 0.05  # a failed batch: the kernels before the allocation that failed, and giving all caches back

DeviceFactory = Callable[[SimulatedClock], SimulatedDevice]
Length = Callable[[Any], int]
Admitted = Callable[[str, int, int], None]  # (role, items, length of the longest), before each batch


@dataclass(slots=True)
class Meter:
    """Where the virtual seconds of one run went, and what the device held."""

    clock: SimulatedClock
    run_seconds: float = 0.0  # in `model.run`, batches that succeeded
    swap_seconds: float = 0.0  # models leaving and coming back
    oom_events: int = 0
    longest_batch_seconds: float = 0.0
    largest: dict[str, int] = field(default_factory=dict)  # items of a batch, by role
    sizes: dict[str, Counter[int]] = field(default_factory=dict)  # by role: items that went in batches of each size
    batches: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    admitted: Admitted = lambda role, count, length: None


@dataclass(slots=True)
class MeteredModel(SimulatedModel):
    """Counts its seconds."""

    meter: Meter = field(default_factory=lambda: Meter(SimulatedClock()))

    def run(self, batch: Sequence[Any]) -> list[Any]:
        meter, role = self.meter, self.info.role
        meter.admitted(role, len(batch), max(map(self.length, batch)))
        started = meter.clock()
        try:
            results = SimulatedModel.run(self, batch)
        except (RuntimeError, MemoryError) as error:
            meter.oom_events += is_out_of_memory(error)
            meter.clock.sleep(OOM_SECONDS)
            raise
        seconds = meter.clock() - started
        meter.run_seconds += seconds
        meter.longest_batch_seconds = max(meter.longest_batch_seconds, seconds)
        meter.largest[role] = max(meter.largest.get(role, 0), len(batch))
        meter.sizes.setdefault(role, Counter())[len(batch)] += len(batch)
        meter.batches[role] = meter.batches.get(role, 0) + 1
        meter.items[role] = meter.items.get(role, 0) + len(batch)
        return results

    def restore(self) -> None:
        started = self.meter.clock()
        SimulatedModel.restore(self)
        self.meter.swap_seconds += self.meter.clock() - started


@dataclass(slots=True)
class Start:
    """One start of an engine on a fresh device: models loaded, measured, and parked where they crowd each other."""

    device: SimulatedDevice
    costs: Mapping[str, Cost]
    config: Config
    meter: Meter
    known: dict[str, SavedModel]  # what earlier starts learned; this one's is added
    faults: Mapping[str, Fault] = field(default_factory=dict)
    truth: Mapping[str, float] = field(default_factory=dict)  # true bytes for each byte that calibration finds
    lengths: Mapping[str, tuple[int, Length]] = field(
        default_factory=dict
    )  # (of a probe, of an item), not as real ones
    models: dict[str, MeteredModel] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)

    def runner(self) -> Runner:
        """The runner, ready.

        Raises:
            RuntimeError: a model does not fit, even alone. That is the library's, or says that the budget is too small.
        """
        budget = Budget(self.device.read().used_bytes + self.device.read().free_bytes)
        self.device.limit(budget.total_bytes)
        sizes: dict[str, int] = {}
        for role in self.costs:
            sizes[role] = self._add(role, budget)
        options, clock = self.config.engine, self.meter.clock
        runner = Runner(
            cast(Mapping[str, Model], self.models),
            self.device,
            budget,
            batch_sizes=sizes,
            max_turn_seconds=options.max_turn_ms / 1000,
            park=self.config.device.park,
            crowd_share=self.config.device.halve_at,
            clock=clock,
            sleep=clock.sleep,
        )
        runner.turns.start(self.parked)
        self.device.release()
        reading = self.device.read()
        budget.see_overhead(reading.used_bytes - reading.cached_bytes, runner.turns.residency.resident)
        self._check_each(budget)
        for role, model in self.models.items():
            model.truth = self.truth.get(role, 1.0)
        self.save(runner)
        return runner

    def save(self, runner: Runner) -> None:
        """Remember what was learned, as the calibration file does."""
        for role, cost in runner.budget.costs.items():
            size = runner.tuners[role].size
            self.known[role] = calibration.saved(cost, runner.budget.fixed_bytes[role], size)

    def _add(self, role: str, budget: Budget) -> int:
        """Returns the batch size to start with."""
        model, fixed_bytes = self._load(role)
        self.models[role] = model
        known = self.known.get(role)
        budget.add(role, fixed_bytes, calibration.restored(known) if known is not None else CostModel())
        if self._is_crowded(budget):
            self._park_all_but(role)
        wanted: int = getattr(self.config.engine, f"{role}_batch")
        if known is None and self.config.device.calibrate_seconds > 0:
            self._probe(model, budget, wanted)
            if not budget.costs[role].rows and len(self.models) - len(self.parked) > 1:
                self._park_all_but(role)  # not even one item fitted beside the others
                budget.costs[role] = CostModel()
                self._probe(model, budget, wanted)
        return max(wanted, known.batch) if known is not None else wanted

    def _check_each(self, budget: Budget) -> None:
        for role, cost in budget.costs.items():
            one = cost.expect(1, self.models[role].probe_length) or 0
            if budget.overhead_bytes + budget.fixed_bytes[role] + one > budget.total_bytes:
                raise RuntimeError(f"the budget is too small for the {role} model")

    def _load(self, role: str) -> tuple[MeteredModel, int]:
        """When there is no room beside the others, without them. With what its weights take."""
        try:
            return self._made(role)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._park_all_but(role)
        return self._made(role)

    def _made(self, role: str) -> tuple[MeteredModel, int]:
        self.device.release()
        before = self.device.read().used_bytes
        light = LightModel(cast(Role, role))
        sleep = self.meter.clock.sleep
        model = MeteredModel(light.info, self.costs[role], self.device, sleep, cast(Model, light), meter=self.meter)
        model.fault = self.faults.get(role, model.fault)
        model.probe_length, model.length = self.lengths.get(role, (model.probe_length, model.length))
        return model, self.device.read().used_bytes - before

    def _probe(self, model: MeteredModel, budget: Budget, most: int) -> None:
        clock, role = self.meter.clock, model.info.role
        end = clock() + self.config.device.calibrate_seconds

        def room() -> int:
            return budget.room_bytes(self.device.read(), model.outside_torch)

        calibration.probe(cast(Model, model), self.device, budget.costs[role], room, most, lambda: clock() >= end)

    def _is_crowded(self, budget: Budget) -> bool:
        self.device.release()
        here = self.models.keys() - self.parked
        return len(here) > 1 and self.device.read().used_bytes > self.config.device.halve_at * budget.total_bytes

    def _park_all_but(self, role: str) -> None:
        others: Collection[str] = [other for other in self.models if other not in self.parked and other != role]
        for other in others:
            self.models[other].park(keep=False)
            self.parked.add(other)
        self.device.release()
