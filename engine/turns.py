"""Puts models on the device and takes them off, as `Residency` decides and the budget allows."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.budget import Budget
from engine.device import Device
from engine.faults import DeviceLostError, RecycleError, first_line, is_device_lost, is_out_of_memory
from engine.residency import Residency
from engine.scheduler import Waiting
from stages.base import Model

ParkMode = Literal["auto", "host", "disk"]


@dataclass(slots=True)
class ParkTimes:
    """Seconds that leaving and coming back took a model, by whether its weights stayed in host memory."""

    seconds: dict[bool, float] = field(default_factory=dict)

    def keep(self, mode: ParkMode) -> bool:
        """Whether to keep the weights in host memory next time: each way is tried once, then the faster is taken."""
        if mode != "auto":
            return mode == "host"
        untried = [keep for keep in (True, False) if keep not in self.seconds]
        return untried[0] if untried else self.seconds[True] <= self.seconds[False]


class Turns:
    """Who is on the device. One thread calls it."""

    def __init__(
        self,
        models: Mapping[str, Model],
        device: Device,
        budget: Budget,
        residency: Residency,
        *,
        mode: ParkMode,
        crowd_share: float,
        clock: Callable[[], float],
    ) -> None:
        """crowd_share: of the budget, up to which several models may be on the device together."""
        self.residency = residency
        self._models = models
        self._device = device
        self._budget = budget
        self._mode = mode
        self._crowd_share = crowd_share
        self._clock = clock
        self._times = {role: ParkTimes() for role in models}
        self._parked_as: dict[str, bool] = {}
        self._parking_seconds: dict[str, float] = {}
        self._restoring_seconds = 0.0

    def start(self, parked: Collection[str]) -> None:
        """Say who is on the device at the start: all but those that were parked, by dropping their weights."""
        self.residency.resident = set(self._models) - set(parked)
        self._parked_as = dict.fromkeys(parked, False)

    @property
    def park_seconds(self) -> dict[str, dict[str, float]]:
        """What was measured: role → host | disk → seconds for leaving and coming back."""
        return {
            role: {("host" if keep else "disk"): seconds for keep, seconds in times.seconds.items()}
            for role, times in self._times.items()
            if times.seconds
        }

    def is_here(self, role: str) -> bool:
        """Whether a model is on the device."""
        return role in self.residency.resident

    def lacking_bytes(self, role: str, working_bytes: int) -> int:
        """How much others must give back before a model can come in and work; 0 or less: nothing."""
        reading, fixed_bytes = self._device.read(), self._budget.fixed_bytes[role]
        room_bytes = self._budget.room_bytes(
            reading, outside_torch=False
        )  # caches are released before anybody comes in
        lacking = fixed_bytes + working_bytes - room_bytes
        crowd = reading.used_bytes - reading.cached_bytes + fixed_bytes
        return max(lacking, crowd - int(self._crowd_share * self._budget.total_bytes))

    def bring_in(self, role: str, working_bytes: int, waiting: Mapping[str, Waiting]) -> None:
        """Put a model on the device with room to work, and take off whom that needs.

        Raises what restoring raises, out of memory when it does not fit even alone; then nobody is on the device.
        """
        if self.is_here(role):
            return
        started = self._clock()
        self._device.release()
        lacking = self.lacking_bytes(role, working_bytes)
        victims = self.residency.victims(role, lacking, self._budget.fixed_bytes, waiting) if lacking > 0 else []
        for victim in victims:
            self.park(victim)
        self._device.release()
        error = self._restore(role)
        if error is not None:
            victims += self.alone(role)
            error = self._restore(role)
        if error is not None:
            raise error
        now = self._clock()
        keep = self._parked_as.pop(role)
        parking_seconds = self._parking_seconds.pop(role, None)
        if parking_seconds is not None:  # None: it was parked at the start, nobody looked at the clock
            self._times[role].seconds[keep] = parking_seconds + self._restoring_seconds
        self.residency.changed(role, victims, now, now - started)

    def park(self, role: str) -> None:
        """Take a model off the device.

        Raises RecycleError when its memory was not given back, DeviceLostError when nothing can be done any more.
        """
        started = self._clock()
        keep = self._times[role].keep(self._mode)
        try:
            self._models[role].park(keep)
        except RuntimeError as error:
            if is_device_lost(error):
                raise DeviceLostError(first_line(error), ()) from error
            raise RecycleError(f"the {role} model stays on the device: {first_line(error)}", ()) from error
        self._parked_as[role] = keep
        self._parking_seconds[role] = self._clock() - started
        self.residency.parked(role)

    def alone(self, role: str) -> list[str]:
        """Take everybody else off the device; returns whom."""
        others = sorted(self.residency.resident - {role})
        for other in others:
            self.park(other)
        self._device.release()
        return others

    def park_idle(self, waiting: Mapping[str, Waiting]) -> list[str]:
        """Take off the models for which nothing waits; returns which."""
        idle = [role for role in sorted(self.residency.resident) if not waiting[role].items]
        for role in idle:
            self.park(role)
        return idle

    def _restore(self, role: str) -> Exception | None:
        """The exception when memory ran out: returned, so that nothing of the attempt is alive when it is handled."""
        started = self._clock()
        try:
            self._models[role].restore()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return error.with_traceback(None)
        finally:
            self._restoring_seconds = self._clock() - started
        return None
