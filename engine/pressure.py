"""What to do as device memory fills up in spite of the plan: caches, fragments, other processes. Pure.

below 70 % of the budget   nothing
from 70 %                  release caches
from 80 %                  halve batches, collect garbage
from 90 %                  take no further items, work off what is here, park idle models
"""

from dataclasses import dataclass
from enum import IntEnum

from engine.device import Reading

WORTH_RELEASING = 0.05  # of the budget: less cache than that is not worth the device's time
RELEASE_SECONDS = 1.0  # weights alone may lie above the first tier; then caches are released no more often than this
HYSTERESIS = 0.03  # of the budget: a tier is left only when use is so far below where it began


class Tier(IntEnum):
    """How full the device is."""

    CALM = 0
    RELEASE = 1
    HALVE = 2
    STOP = 3


@dataclass(slots=True)
class PressureCounters:
    """How often each tier acted."""

    releases: int = 0
    halvings: int = 0
    stops: int = 0


class Pressure:
    """The tier that the device's use is in, between batches."""

    def __init__(self, total_bytes: int, shares: tuple[float, float, float] = (0.7, 0.8, 0.9)) -> None:
        if not 0 < shares[0] <= shares[1] <= shares[2] <= 1:
            raise ValueError(f"tiers must rise: {shares}")
        self.tier = Tier.CALM
        self.counters = PressureCounters()
        self._total_bytes = total_bytes
        self._shares = shares
        self._released_seconds = float("-inf")

    def should_release(self, reading: Reading, now_seconds: float) -> bool:
        """Whether caches are to be released before the tier is judged."""
        if self._tier_of(reading) < Tier.RELEASE or reading.cached_bytes < WORTH_RELEASING * self._total_bytes:
            return False
        if self._tier_of(reading) == Tier.RELEASE and now_seconds - self._released_seconds < RELEASE_SECONDS:
            return False
        self._released_seconds = now_seconds
        self.counters.releases += 1
        return True

    def see(self, reading: Reading) -> Tier:
        """Judge a reading taken between batches; entering a tier counts once."""
        before, self.tier = self.tier, self._tier_of(reading)
        if before < Tier.HALVE <= self.tier:
            self.counters.halvings += 1
        if before < Tier.STOP <= self.tier:
            self.counters.stops += 1
        return self.tier

    def batch_limit(self, limit: int) -> int:
        """Most items of a batch in this tier."""
        return max(1, limit // 2) if self.tier >= Tier.HALVE else limit

    def _tier_of(self, reading: Reading) -> Tier:
        """By use of the budget, or of what other processes have left of it."""
        within = min(self._total_bytes, reading.used_bytes + reading.free_bytes)
        use = reading.used_bytes / within if within else 1.0
        for tier in (Tier.STOP, Tier.HALVE, Tier.RELEASE):
            start = self._shares[tier - 1]
            if use >= (start - HYSTERESIS if self.tier >= tier else start):
                return tier
        return Tier.CALM
