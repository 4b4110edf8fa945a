"""What may run now, given the memory of the device: how large a batch, which models, and whether more is let in."""

from collections import Counter
from typing import Any

from engine.limits import Limits
from engine.pressure import Pressure, Tier
from engine.runner import Runner
from engine.scheduler import Scheduler

STARVED_SHARE = 0.9  # a decoder that has used up so much of its credit will soon stand still, …
LARGEST_MESSAGE_BYTES = 1_000_000  # … and so will one with no credit left for this: a window of 30 s, 960 kB


class Gate:
    """Between the scheduler, which knows what waits, and the device."""

    def __init__(self, runner: Runner, pressure: Pressure, share_bytes: int) -> None:
        """share_bytes: credit of one decoder."""
        self.pressure = pressure
        self.limits = Limits(runner, pressure)
        self._runner = runner
        self._starved_bytes = min(STARVED_SHARE * share_bytes, share_bytes - LARGEST_MESSAGE_BYTES)
        self._held_bytes: Counter[bytes] = Counter()  # by decoder

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is let in."""
        return self.pressure.tier is Tier.STOP

    def receive(self, sender: bytes, cost_bytes: int) -> None:
        """A decoder has used so much of its credit."""
        self._held_bytes[sender] += cost_bytes

    def release(self, sender: bytes, cost_bytes: int) -> None:
        """So much of it is on its way back."""
        self._held_bytes[sender] -= cost_bytes
        if not self._held_bytes[sender]:
            del self._held_bytes[sender]  # decoders come and go

    def held_back(self, scheduler: Scheduler[Any], blocked: frozenset[str], now_seconds: float) -> frozenset[str]:
        """Models that it is not worth bringing onto the device now."""
        residency = self._runner.turns.residency
        if len(residency.resident) == len(self._runner.models):
            return frozenset()
        ready = scheduler.ready_roles(now_seconds) - blocked
        starved = any(held >= self._starved_bytes for held in self._held_bytes.values())
        held = residency.held_back(scheduler.waiting_by_role(), ready, now_seconds, scheduler.ended or starved)
        return frozenset(role for role in held if not self._runner.fits_beside(role))

    def relieve(self, scheduler: Scheduler[Any], now_seconds: float) -> None:
        """After a batch: act on how full the device is, and plan the next by it."""
        device = self._runner.device
        reading = device.read()
        if self.pressure.should_release(reading, now_seconds):
            device.release()
            reading = device.read()
        before = self.pressure.tier
        tier = self.pressure.see(reading)
        if before < Tier.HALVE <= tier:
            device.release()
        if tier is Tier.STOP:
            self._runner.turns.park_idle(scheduler.waiting_by_role())
        self.limits.renew(device.read() if tier >= Tier.HALVE else reading)
