"""Finds the batch size that is worth its memory: larger as long as items get cheaper. Pure."""

from dataclasses import dataclass, field
from statistics import median

from engine.budget import power_of_two

TRIALS = 7  # batches of a size before it is judged, by their median
GAIN = 1.05  # items a second that a doubling must bring: less is noise, and a larger batch costs memory and patience
PATIENCE = 32  # batches that may go by without the tried size coming about: then there are not so many items
SETTLED = 500  # batches until a larger size is tried again: lengths and neighbours change


@dataclass(slots=True)
class BatchTuner:
    """The batch size of one model, starting from what the configuration says: the power of two below it, for the budget
    allows no other sizes, and one that never comes about is never found to be worth doubling.
    """

    size: int  # settled so far
    largest: int
    _tried: int = 0  # 0: nothing is tried now
    _rates: dict[int, list[float]] = field(default_factory=dict)
    _waited: int = 0
    _settled: bool = False  # a larger size brought nothing, or did not come about

    def __post_init__(self) -> None:
        self.size = power_of_two(min(self.size, self.largest))

    @property
    def wanted(self) -> int:
        """How many items the next batch is to have."""
        return self._tried or self.size

    def record(self, count: int, seconds: float) -> None:
        """A batch of so many items took so long."""
        self._waited += 1
        if self._tried == 0:
            self._consider_trying(count, seconds)
        elif count == self._tried:
            self._waited = 0
            self._note(count, seconds)
            if len(self._rates[count]) >= TRIALS:
                self._judge()
        elif self._waited > PATIENCE:
            self._settle()

    def shrink(self, count: int) -> None:
        """A batch so large failed for want of memory: what is tried is given up. The budget holds sizes down."""
        if self._tried and count >= self._tried:
            self._settle()

    def _consider_trying(self, count: int, seconds: float) -> None:
        if count != self.size or 2 * self.size > self.largest:
            return
        self._note(count, seconds)
        if len(self._rates[count]) >= TRIALS and (not self._settled or self._waited > SETTLED):
            self._tried, self._waited = 2 * self.size, 0

    def _note(self, count: int, seconds: float) -> None:
        rates = self._rates.setdefault(count, [])
        rates.append(count / max(seconds, 1e-9))
        del rates[:-TRIALS]

    def _judge(self) -> None:
        if median(self._rates[self._tried]) < GAIN * median(self._rates[self.size]):
            self._settle()
            return
        self.size, self._tried, self._waited, self._settled = self._tried, 0, 0, False

    def _settle(self) -> None:
        self._tried, self._waited, self._settled = 0, 0, True
        self._rates.clear()
