"""The models, loaded onto the device one after the other, measured, and put together into a runner."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tqdm import tqdm

from engine import calibration
from engine.budget import GIB, Budget, CostModel, total_bytes
from engine.calibration import CalibrationFile, SavedModel
from engine.config import Config
from engine.device import Device
from engine.errors import StartError
from engine.faults import is_out_of_memory
from engine.needs import Basis, estimate_bytes, too_small
from engine.nvml import driver_version
from engine.real_devices import cuda_trouble, open_device, resolve_device
from engine.runner import Runner
from engine.simulated_device import SimulatedDevice
from engine.simulation import Simulation, read_simulation, simulated, simulated_device, weights_bytes
from engine.turns import ParkMode
from stages.base import Model, Role
from stages.image_model import ImageModel, Towers
from stages.options import ModelOptions
from stages.registry import configured, load
from transport.messages import FrameFormat

SIMULATED = "simulated"
QUERY_ROLES: frozenset[Role] = frozenset({"image", "text"})
TOWERS: dict[bool, Towers] = {False: "image", True: "both"}  # of the image model, by whether queries are answered
SAVE_SECONDS = 60.0  # what was learned is written no more often than this
CANNOT_SAVE = (
    "{path} cannot be written ({reason}): what was learned of the models is measured anew at the next start; set "
    "run.state to a directory that can be written to"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that runs models."""

    runner: Runner
    frame_format: FrameFormat | None  # what the image model takes; None when it is off
    notes: tuple[str, ...]  # what whoever started it should know
    query_roles: frozenset[Role]  # models that embed queries


class Loader:
    """Loads the models of a configuration within the budget, each with room to be measured: when they crowd each other,
    those that came before make way, and come back when there is work for them.
    """

    def __init__(
        self, config: Config, clock: Callable[[], float] = time.monotonic, serves_queries: bool = False
    ) -> None:
        """serves_queries: load what embeds them, too: the text tower of the image model."""
        self._config = config
        self._serves_queries = serves_queries
        self._clock = clock
        self._simulation = read_simulation(config.device.simulation)
        self._device = _open(config, self._simulation)
        reading = self._device.read()
        self._reach_bytes = reading.used_bytes + reading.free_bytes
        self._roles = [role for role, _ in configured(config.models)]
        self._budget = Budget(total_bytes(reading, config.device.memory_gb, config.device.memory_share))
        self._device.limit(self._budget.total_bytes)
        self._file = CalibrationFile(Path(config.run.state))
        self._models: dict[str, Model] = {}
        self._sizes: dict[str, int] = {}
        self._parked: set[str] = set()
        self._saved_seconds = clock()
        self._cannot_save = False
        notes = (self._file.note, self._short_of_memory(), self._unused_card(), *self._device.notes)
        self._notes = tuple(note for note in notes if note is not None)

    def load(self) -> Loaded:
        """Load, measure and park as the budget asks.

        Raises:
            ModelError: a model is missing, of the wrong kind or damaged; the message says which and what to do.
            StartError: budget-too-small, when a model does not fit even by itself.
        """
        # The libraries' progress bars share a lock between processes by default: a semaphore that a killed one leaks.
        tqdm.set_lock(threading.RLock())
        for role in self._roles:
            self._add(role)
        runner = self._runner()
        self._check_each()
        image = self._models.get("image")
        inner = getattr(image, "inner", None) or image
        trouble = self._save(runner)
        notes = self._notes
        if trouble is not None:  # it says enough, whether the file could be read or not
            notes = (*(note for note in notes if note != self._file.note), trouble)
        query_roles = QUERY_ROLES & self._models.keys() if self._serves_queries else frozenset()
        return Loaded(runner, inner.frame_format if isinstance(inner, ImageModel) else None, notes, query_roles)

    def save(self, runner: Runner, at_once: bool = False) -> None:
        """Write down what was learned of the models, now and then. Where that fails the run goes on: said once."""
        if self._cannot_save or (not at_once and self._clock() - self._saved_seconds < SAVE_SECONDS):
            return
        trouble = self._save(runner)
        if trouble is not None:
            print(trouble, file=sys.stderr, flush=True)

    def _save(self, runner: Runner) -> str | None:
        """Returns why it failed."""
        self._saved_seconds = self._clock()
        learned = {
            calibration.key_of(model, self._device): calibration.saved(
                self._budget.costs[role], self._budget.fixed_bytes[role], runner.tuners[role].size
            )
            for role, model in self._models.items()
        }
        try:
            self._file.save(learned)
        except OSError as error:
            self._cannot_save = True
            return CANNOT_SAVE.format(path=self._file.path, reason=error.strerror or error)
        return None

    # --- one model ----------------------------------------------------------------------------------------------------

    def _add(self, role: Role) -> None:
        model, fixed_bytes = self._load(role)
        self._models[role] = model
        known = self._file.find(calibration.key_of(model, self._device))
        self._sizes[role] = self._batch_size(role, known)
        self._budget.add(role, fixed_bytes, calibration.restored(known) if known is not None else CostModel())
        if self._is_crowded():
            self._park_all_but(role)
        if (known is None or not known.cells) and self._calibrates:
            self._probe(role)
            if not self._budget.costs[role].rows and self._here(role):  # not even one item fitted beside the others
                self._park_all_but(role)
                self._budget.costs[role] = CostModel()
                self._probe(role)

    def _load(self, role: Role) -> tuple[Model, int]:
        """Load a model; when there is no room beside the others, without them. With what its weights take, in bytes."""
        loaded = self._try_loading(role)
        if loaded is None:
            self._park_all_but(role)
            loaded = self._try_loading(role)
        if loaded is None:
            raise self._too_small(role, self._device.read().used_bytes + self._estimate_bytes(role), "files")
        return loaded

    def _try_loading(self, role: Role) -> tuple[Model, int] | None:
        """None when memory ran out."""
        self._device.release()
        before = self._device.read().used_bytes
        try:
            model = self._loaded(role)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        self._device.release()
        return model, max(0, self._device.read().used_bytes - before)

    def _loaded(self, role: Role) -> Model:
        models, towers = self._config.models, TOWERS[self._serves_queries]
        if not isinstance(self._device, SimulatedDevice):
            return load(role, models, self._config.speech, self._device.name, self._config.voice, towers=towers)
        model = load(role, for_the_cpu(models), self._config.speech, "cpu", self._config.voice, towers=towers)
        return simulated(model, self._device, self._simulation)

    def _estimate_bytes(self, role: Role) -> int:
        """What the weights of a model should take that could not be loaded."""
        if isinstance(self._device, SimulatedDevice):
            return weights_bytes(role, self._simulation)
        return estimate_bytes(role, self._config.models, self._device.name, self._serves_queries)

    def _batch_size(self, role: Role, known: SavedModel | None) -> int:
        wanted: int = getattr(self._config.engine, f"{role}_batch")
        return max(wanted, known.batch) if known is not None else wanted

    @property
    def _calibrates(self) -> bool:
        """On the CPU only where a limit is set: memory is plentiful there, and probes take long."""
        device = self._config.device
        return device.calibrate_seconds > 0 and (self._device.name != "cpu" or device.memory_gb is not None)

    def _probe(self, role: Role) -> None:
        model, cost = self._models[role], self._budget.costs[role]
        end = self._clock() + self._config.device.calibrate_seconds

        def room() -> int:
            return self._budget.room_bytes(self._device.read(), model.outside_torch)

        calibration.probe(model, self._device, cost, room, self._sizes[role], lambda: self._clock() >= end)

    # --- all of them --------------------------------------------------------------------------------------------------

    def _is_crowded(self) -> bool:
        """Whether those on the device leave too little: they would lie in the tier where batches are halved."""
        self._device.release()
        used = self._device.read().used_bytes
        here = len(self._models) - len(self._parked)
        return here > 1 and used > self._config.device.halve_at * self._budget.total_bytes

    def _here(self, role: str) -> list[str]:
        """The others on the device."""
        return [other for other in self._models if other not in self._parked and other != role]

    def _park_all_but(self, role: str) -> None:
        for other in self._here(role):
            self._models[other].park(keep=False)
            self._parked.add(other)
        self._device.release()

    def _runner(self) -> Runner:
        config = self._config
        park: ParkMode = "disk" if self._device.name == "cpu" else config.device.park
        runner = Runner(
            self._models,
            self._device,
            self._budget,
            batch_sizes=self._sizes,
            max_turn_seconds=config.engine.max_turn_ms / 1000,
            park=park,
            crowd_share=config.device.halve_at,
            clock=self._clock,
        )
        runner.turns.start(self._parked)
        self._device.release()
        reading = self._device.read()  # torch's cache is no overhead even where it stays: a fresh process has none
        self._budget.see_overhead(reading.used_bytes - reading.cached_bytes, runner.turns.residency.resident)
        return runner

    def _check_each(self) -> None:
        """Each model, with one item, must fit by itself."""
        total_bytes = self._budget.total_bytes
        for role in self._roles:
            cost, length = self._budget.costs[role], self._models[role].probe_length
            one_bytes = cost.expect(1, length)
            need_bytes = self._budget.overhead_bytes + self._budget.fixed_bytes[role] + (one_bytes or 0)
            if need_bytes > total_bytes:
                raise self._too_small(role, need_bytes, "measured")
            too_few = max((failed[1] for failed in cost.failures.values() if 1 in failed), default=None)
            if one_bytes is None and too_few is not None and need_bytes + too_few >= total_bytes:
                raise self._too_small(role, total_bytes, "failed")

    def _too_small(self, role: Role, need_bytes: int, basis: Basis) -> StartError:
        return too_small(
            role,
            getattr(self._config.models, role),
            need_bytes,
            basis,
            budget_bytes=self._budget.total_bytes,
            reach_bytes=self._reach_bytes,
            setting=self._budget_setting(),
            on_cpu=self._device.name == "cpu",
        )

    def _budget_setting(self) -> str:
        """What made the budget as large as it is."""
        device = self._config.device
        if device.memory_gb is None:
            return f"device.memory_share, {device.memory_share:g} of what is free"
        return "device.memory_gb" if self._short_of_memory() is None else "all that is free"

    def _short_of_memory(self) -> str | None:
        wanted = self._config.device.memory_gb
        have = self._budget.total_bytes / GIB
        if wanted is None or have >= wanted - 0.01:
            return None
        return (
            f"device.memory_gb = {wanted:g}, but only {have:.1f} GB are to be had on {self._device.label}: that is it"
        )

    def _unused_card(self) -> str | None:
        """With device.name = "auto" the CPU serves where a card cannot, which nobody may want."""
        if self._device.name != "cpu" or self._config.device.name != "auto" or driver_version() is None:
            return None
        return f"an NVIDIA driver is here, and the CPU is used: {cuda_trouble()}"


def for_the_cpu(models: ModelOptions) -> ModelOptions:
    """For a simulated device: the work is done on the CPU, in what precision it can; that of a card is calculated."""
    return msgspec.structs.replace(models, image_dtype="auto", text_dtype="auto", speech_dtype="auto")


def _open(config: Config, simulation: Simulation) -> Device:
    if config.device.name == SIMULATED:
        return simulated_device(simulation)
    return open_device(resolve_device(config.device.name))
