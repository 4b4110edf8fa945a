"""Runs a batch on its model, within the budget.

    admit ─► measure ─► learn        what a batch took corrects what the next is expected to take
      │         └─ out of memory ─► release ─► halves ─► one item ─► alone on the device ─► recorded as failed
      └─ no room ─► release ─► halves ─► one item ─► alone on the device

A batch that fails for any other reason is halved, too, down to one item, so that a poisonous one fails alone, with its
reason, and its neighbours keep their results.

Search queries are admitted as items of their model are, and teach nothing about those. Somebody waits for them: no
patience is spent on memory that another process holds, nor is a worn-out process ended for them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.budget import Budget, length_class
from engine.device import Device, Peak
from engine.faults import DeviceLostError, RecycleError, first_line, is_device_lost, is_out_of_memory
from engine.residency import Residency
from engine.scheduler import Waiting
from engine.tuning import BatchTuner
from engine.turns import ParkMode, Turns
from stages.base import Model, Query

PATIENCE_SECONDS = 60.0  # how long an item waits for memory that another process holds
PATIENCE_STEP_SECONDS = 0.25
ALONE_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before each try of an item that has the device to itself
STUCK_SHARE = 0.10  # of the budget: so much more in use than the models account for, and the process is worn out


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no result."""

    code: str  # out-of-memory | model-error
    message: str


@dataclass(slots=True)
class RunCounters:
    """What a model has done since the start."""

    items: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    oom_events: int = 0
    batch_splits: int = 0
    alone: int = 0  # items that got the whole device


class Runner:
    """Owns the models and the device. Knows nothing of tasks, videos or sockets."""

    def __init__(
        self,
        models: Mapping[str, Model],
        device: Device,
        budget: Budget,
        *,
        batch_sizes: Mapping[str, int],
        max_turn_seconds: float = 60.0,
        park: ParkMode = "auto",
        crowd_share: float = 0.8,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.models = models
        self.device = device
        self.budget = budget
        self.peak_bytes = 0  # most that this process held on the device
        self.counters = {role: RunCounters() for role in models}
        self.tuners = {
            role: BatchTuner(min(batch_sizes[role], model.max_batch), model.max_batch) for role, model in models.items()
        }
        residency = Residency(max_turn_seconds)
        self.turns = Turns(models, device, budget, residency, mode=park, crowd_share=crowd_share, clock=clock)
        self._clock = clock
        self._sleep = sleep
        self._needless: set[str] = set()  # models whose items ran well after waiting in vain, for the time being
        self._hopeless: dict[str, set[int]] = {role: set() for role in models}  # length classes that fit nowhere lately

    def room_bytes(self, role: str) -> int:
        """What a batch of a model may take now."""
        return self.budget.room_bytes(self.device.read(), self.models[role].outside_torch)

    def working_bytes(self, role: str) -> int:
        """Room that a model should find when it comes in: for a quarter of its batch."""
        count = max(1, self.tuners[role].wanted // 4)
        return self.budget.costs[role].predict(count, self.models[role].probe_length) or 0

    def fits_beside(self, role: str) -> bool:
        """Whether a model could come in without another leaving."""
        return self.turns.lacking_bytes(role, self.working_bytes(role)) <= 0

    def run(
        self, role: str, inputs: Sequence[Any], waiting: Mapping[str, Waiting] | None = None, final: bool = False
    ) -> list[Any]:
        """One result for each input, in order: the model's, or a `Failure`.

        waiting: what waits for each model, by which it is decided whom to park. final: what does not fit alone is
        failed, even if a fresh process might have room.

        Raises:
            DeviceLostError: nothing more can run in this process. RecycleError: a fresh process would have room.
        """
        counters = self.counters[role]
        final |= _are_queries(inputs)
        lacking = self._bring_in(role, waiting or {}, 0.0 if _are_queries(inputs) else PATIENCE_SECONDS)
        if lacking is not None:
            self._check_not_stuck(lacking, inputs, final)
            return [Failure("out-of-memory", lacking)] * len(inputs)
        started = self._clock()
        outcomes = self._attempt(role, inputs, final)
        counters.busy_seconds += self._clock() - started
        if _are_queries(inputs):
            return outcomes
        counters.items += len(inputs)
        counters.batches += 1
        self.turns.residency.worked(role, len(inputs), self._clock() - started)
        self.tuners[role].record(len(inputs), self._clock() - started)
        return outcomes

    # --- one batch ----------------------------------------------------------------------------------------------------

    def _attempt(self, role: str, inputs: Sequence[Any], final: bool) -> list[Any]:
        length = max(map(self.models[role].length_of, inputs))
        admitted = self._admit(role, len(inputs), length)
        outcome = self._call(role, inputs, length) if admitted else None
        if (outcome is None or isinstance(outcome, Failure)) and len(inputs) > 1:
            return self._halves(role, inputs, final)
        if outcome is None or (isinstance(outcome, Failure) and outcome.code == "out-of-memory"):
            outcome = self._alone(role, inputs, length, final)
        return [outcome] if isinstance(outcome, Failure) else outcome

    def _halves(self, role: str, inputs: Sequence[Any], final: bool) -> list[Any]:
        self.counters[role].batch_splits += 1
        middle = len(inputs) // 2
        return self._attempt(role, inputs[:middle], final) + self._attempt(role, inputs[middle:], final)

    def _admit(self, role: str, count: int, length: int) -> bool:
        """Whether the batch's predicted peak fits; what is held without need is released before it is refused."""
        predicted = self.budget.costs[role].predict(count, length)
        if predicted is None:
            return count == 1
        if predicted > self.room_bytes(role):
            self.device.release()
            if predicted > self.room_bytes(role):
                return False
        self._needless.discard(role)  # there is room again; when it goes next, waiting may help
        return True

    def _call(self, role: str, inputs: Sequence[Any], length: int) -> list[Any] | Failure:
        """The model's results. What an exception leaves behind is handled outside the except block: inside it the
        traceback would keep the failed batch's tensors alive.
        """
        reading = self.device.read()
        room_bytes = self.budget.room_bytes(reading, self.models[role].outside_torch)
        outcome, peak = self._measured(role, inputs)
        held_bytes = reading.used_bytes - reading.cached_bytes + (peak.extra_bytes or 0)
        self.peak_bytes = max(self.peak_bytes, reading.used_bytes, held_bytes)
        if not isinstance(outcome, BaseException):
            if not _are_queries(inputs):
                # A device that cannot measure: batches grow by doubling all the same, until memory runs out.
                self.budget.costs[role].observe(len(inputs), length, peak.extra_bytes or 0)
            if len(outcome) != len(inputs):
                return Failure("model-error", f"{role} model gave {len(outcome)} results for {len(inputs)} items")
            return outcome
        message = first_line(outcome)
        if is_device_lost(outcome):
            raise DeviceLostError(message, tuple(inputs))
        if not is_out_of_memory(outcome):
            return Failure("model-error", message)
        self.counters[role].oom_events += 1
        if not _are_queries(inputs):
            if len(inputs) > 1:  # one item that does not fit says nothing about others
                self.budget.costs[role].ran_out(len(inputs), length, room_bytes)
            self.tuners[role].shrink(len(inputs))
        del outcome
        self.device.release()
        return Failure("out-of-memory", message)

    def _measured(self, role: str, inputs: Sequence[Any]) -> tuple[list[Any] | Exception, Peak]:
        peak = Peak()
        try:
            with self.device.measure(self.models[role].outside_torch) as peak:
                return self.models[role].run(inputs), peak
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails its items, and nothing else
            return error.with_traceback(None), peak

    # --- when there is no room ----------------------------------------------------------------------------------------

    def _bring_in(self, role: str, waiting: Mapping[str, Waiting], patience_seconds: float) -> str | None:
        """Put the model on the device. Returns why it does not fit, even alone and after some patience with others."""
        waited, pauses = 0.0, iter(ALONE_PAUSES[1:])
        while (error := self._try_bringing_in(role, waiting)) is not None:
            self.counters[role].oom_events += 1
            others = self._held_by_others() and waited < patience_seconds
            pause_seconds = PATIENCE_STEP_SECONDS if others else next(pauses, None)
            if pause_seconds is None:
                return error
            self._sleep(pause_seconds)
            waited += pause_seconds
        return None

    def _try_bringing_in(self, role: str, waiting: Mapping[str, Waiting]) -> str | None:
        try:
            self.turns.bring_in(role, self.working_bytes(role), waiting)
        except (RuntimeError, MemoryError) as error:
            if is_device_lost(error):
                raise DeviceLostError(first_line(error), ()) from error
            if not is_out_of_memory(error):
                raise
            return first_line(error)
        return None

    def _alone(self, role: str, inputs: Sequence[Any], length: int, final: bool) -> list[Any] | Failure:
        """Give the whole device to one item: park all others, and try again for a while. Others may give memory back,
        and what failed once need not fail twice.
        """
        self.counters[role].alone += 1
        self.turns.alone(role)
        if _are_queries(inputs):
            return self._call(role, inputs, length)
        kind = length_class(length)
        outcome: list[Any] | Failure = []
        needed_bytes, patience_seconds = self.budget.costs[role].predict(1, length) or 0, PATIENCE_SECONDS
        for pause_seconds in ALONE_PAUSES if kind not in self._hopeless[role] else ALONE_PAUSES[:1]:
            self._sleep(pause_seconds)
            patience_seconds -= self._wait_for_others(needed_bytes, role, patience_seconds)
            outcome = self._call(role, inputs, length)
            if not isinstance(outcome, Failure) or outcome.code != "out-of-memory":
                self._hopeless[role].discard(kind)
                if patience_seconds <= 0:
                    self._needless.add(role)
                return outcome
            needed_bytes = max(needed_bytes, self.room_bytes(role) + 1)  # so much was too little, whatever was expected
        assert isinstance(outcome, Failure)
        self._check_not_stuck(outcome.message, inputs, final)
        self._hopeless[role].add(kind)
        return outcome

    def _wait_for_others(self, needed_bytes: int, role: str, patience_seconds: float) -> float:
        """Returns for how long it waited, or would have, were it not known that it would be for nothing."""
        waited = patience_seconds if role in self._needless else 0.0
        while needed_bytes > self.room_bytes(role) and self._held_by_others() and waited < patience_seconds:
            self._sleep(PATIENCE_STEP_SECONDS)
            waited += PATIENCE_STEP_SECONDS
        return waited

    def _held_by_others(self) -> bool:
        """Whether the driver would give less than the budget allows: another process has it, for now."""
        reading = self.device.read()
        return reading.free_bytes < self.budget.total_bytes - reading.used_bytes

    def _check_not_stuck(self, message: str, inputs: Sequence[Any], final: bool) -> None:
        """Raises RecycleError when it is this process that holds on to the memory."""
        here = sum(self.budget.fixed_bytes[each] for each in self.turns.residency.resident)
        stuck_bytes = self.device.read().used_bytes - here - self.budget.overhead_bytes
        if not final and stuck_bytes > STUCK_SHARE * self.budget.total_bytes:
            text = f"{stuck_bytes / 1e9:.1f} GB do not come back from the libraries ({message})"
            raise RecycleError(text, tuple(inputs))


def _are_queries(inputs: Sequence[Any]) -> bool:
    return isinstance(inputs[0], Query)
