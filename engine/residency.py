"""Which models are on the device when they do not fit together: they take turns, in bursts. Pure.

A change of models costs seconds in which nothing is computed. So whoever is on the device works its queue off, and
another comes in when nothing is ready for those who are there and what waits for it is worth the change, or when it has
waited for too long. `WORTH` is the hysteresis: each change is followed by so many times its seconds of work, unless
nothing is there to be done for those who are there. So changes that interrupt others take at most 1 / (1 + WORTH) of
the time, and an item waits for its model at most
    max_turn, in which others go first;
  + for each item that still waits then and came no later, and once more: a change, the turn that pays for it, and the
    batches that are running when it begins and when it ends (the scheduler lets the oldest go first).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from engine.scheduler import Waiting

WORTH = 8.0  # seconds of work for each second of changing


@dataclass(slots=True)
class Residency:
    """Who is on the device, since when, and who may come next."""

    max_turn_seconds: float  # an item that has waited so long for its model's turn ends the turn of the others
    resident: set[str] = field(default_factory=set)
    changes: int = 0
    change_seconds: float = 0.0  # of all changes together
    _turn_ends_seconds: float = float("-inf")  # until then a change has not been paid for
    _price_seconds: dict[str, float] = field(default_factory=dict)  # of the latest change to each model
    _worked_seconds: dict[str, float] = field(default_factory=dict)  # for an item, lately

    def worked(self, role: str, items: int, seconds: float) -> None:
        """A batch went through: what an item takes, smoothed over some batches."""
        latest = seconds / items
        self._worked_seconds[role] = 0.8 * self._worked_seconds.get(role, latest) + 0.2 * latest

    def changed(self, role: str, parked: Collection[str], now_seconds: float, seconds: float) -> None:
        """A model came in, others went out for it, and it took so long."""
        self.resident.add(role)
        self.resident.difference_update(parked)
        self.changes += 1
        self.change_seconds += seconds
        self._turn_ends_seconds = max(self._turn_ends_seconds, now_seconds + WORTH * seconds)
        self._price_seconds[role] = seconds

    def parked(self, role: str) -> None:
        """A model was taken off the device without another coming in."""
        self.resident.discard(role)

    def held_back(
        self, waiting: Mapping[str, Waiting], ready: Collection[str], now_seconds: float, hurry: bool
    ) -> frozenset[str]:
        """Models off the device that may not come in now.

        ready: models that have a batch and may run. hurry: nothing more will arrive before these have run, for the
        stream has ended or the decoders have used up their credit.
        """
        absent = [role for role in waiting if role not in self.resident]
        busy = any(role in self.resident for role in ready)
        return frozenset(role for role in absent if not self._may_enter(role, waiting[role], busy, now_seconds, hurry))

    def victims(
        self, role: str, need_bytes: int, sizes: Mapping[str, int], waiting: Mapping[str, Waiting]
    ) -> list[str]:
        """Whom to park so that `need_bytes` come free for `role`: those for whom least work waits, as few as do.

        sizes: bytes that parking each model gives back. Returns all of them when even that is too little.
        """
        others = sorted(self.resident - {role}, key=lambda other: (self._work(other, waiting), -sizes[other]))
        chosen: list[str] = []
        for other in others:
            if sum(sizes[each] for each in chosen) >= need_bytes:
                break
            chosen.append(other)
        for other in list(chosen):  # a later, larger one may make an earlier one superfluous
            if sum(sizes[each] for each in chosen) - sizes[other] >= need_bytes:
                chosen.remove(other)
        return chosen

    def _may_enter(self, role: str, queue: Waiting, busy: bool, now_seconds: float, hurry: bool) -> bool:
        if not queue.items:
            return False
        overdue = now_seconds - queue.oldest_seconds >= self.max_turn_seconds
        if busy:
            return overdue and now_seconds >= self._turn_ends_seconds
        price = self._price_seconds.get(role, 0.0)
        return overdue or hurry or queue.items * self._worked_seconds.get(role, 0.0) >= WORTH * price

    def _work(self, role: str, waiting: Mapping[str, Waiting]) -> float:
        queue = waiting.get(role)
        return queue.items * self._worked_seconds.get(role, 0.0) if queue is not None else 0.0
