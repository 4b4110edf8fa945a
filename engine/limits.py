"""How many items the next batch of a model may hold: what is worth it, and what the budget can pay for now."""

from engine.device import Reading
from engine.pressure import Pressure
from engine.runner import Runner

STEPS = 8  # to each doubling of length: a limit is worked out for few lengths, not for every one


class Limits:
    """`engine.scheduler.Limit`. Keeps its answers until the device is read again."""

    def __init__(self, runner: Runner, pressure: Pressure) -> None:
        self._runner = runner
        self._pressure = pressure
        self._room_bytes = 0
        self._known: dict[tuple[str, int], int] = {}
        self.renew(runner.device.read())

    def __call__(self, role: str, length: int) -> int:
        """Most items of a batch whose longest is of this length; at least one, for an item alone is always tried."""
        key = (role, rounded_up(length))
        limit = self._known.get(key)
        if limit is None:
            limit = self._known[key] = self._work_out(*key)
        return limit

    def renew(self, reading: Reading) -> None:
        """A batch has run, and the device was read.

        Torch's cache counts as room for all: the runner releases it before it refuses a batch of another library.
        """
        self._room_bytes = self._runner.budget.room_bytes(reading, outside_torch=False)
        self._known.clear()

    def _work_out(self, role: str, length: int) -> int:
        runner = self._runner
        wanted = self._pressure.batch_limit(runner.tuners[role].wanted)
        return max(1, runner.budget.most(role, length, self._room_for(role), wanted))

    def _room_for(self, role: str) -> int:
        """A model that is not on the device will find at least what is left when it is there by itself."""
        runner = self._runner
        if runner.turns.is_here(role):
            return self._room_bytes
        budget = runner.budget
        return budget.total_bytes - budget.overhead_bytes - budget.fixed_bytes[role]


def rounded_up(length: int) -> int:
    """The next of STEPS lengths to each doubling."""
    if length <= STEPS:
        return length
    step = 1 << max(0, (length - 1).bit_length() - STEPS.bit_length())
    return -(-length // step) * step
