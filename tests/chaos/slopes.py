"""How fast a figure rises, and how sure that is.

The slope is the median of the slopes between all pairs (Theil 1950, Sen 1968), and its noise the interval around it
that holds the true one with 95 % (Sen; Hollander and Wolfe, Nonparametric Statistical Methods, 9.3). Neither assumes
anything of the noise but that one sample tells nothing of the next, so they work on medians of blocks: memory goes up
and down within a video, and its samples are alike within seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCKS = 24  # medians that slopes are taken of
LEAST_BLOCKS = 5  # with fewer, 95 % is more than there are slopes
Z = 1.96  # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Slope:
    """Per hour, in the unit of the figure."""

    per_hour: float
    low: float  # the interval of 95 %
    high: float
    first: float  # medians of the first and of the last block
    last: float

    @property
    def rises(self) -> bool:
        """Whether it rises by more than its noise."""
        return self.low > 0.0

    @property
    def verdict(self) -> str:
        """In a word."""
        return "RISES" if self.rises else "falls" if self.high < 0.0 else "flat"


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """The slope of samples, oldest first.

    Raises:
        ValueError: there are too few to tell.
    """
    count = min(BLOCKS, len(values))
    if count < LEAST_BLOCKS:
        raise ValueError(f"{len(values)} samples are too few: at least {LEAST_BLOCKS}")
    hours = [float(np.median(block)) / 3600 for block in np.array_split(np.asarray(seconds, np.float64), count)]
    medians = [float(np.median(block)) for block in np.array_split(np.asarray(values, np.float64), count)]
    slopes = _between_pairs(np.asarray(hours), np.asarray(medians))
    half = Z * np.sqrt(count * (count - 1) * (2 * count + 5) / 18) / 2
    middle = len(slopes) / 2
    low = slopes[max(0, int(np.floor(middle - half)))]
    high = slopes[min(len(slopes) - 1, int(np.ceil(middle + half)))]
    return Slope(float(np.median(slopes)), float(low), float(high), medians[0], medians[-1])


def _between_pairs(hours: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Slopes between all pairs, rising [pairs]."""
    first, second = np.triu_indices(len(hours), k=1)
    return np.sort((values[second] - values[first]) / (hours[second] - hours[first]))


def after_warm_up(seconds: Sequence[float], warm_up_seconds: float) -> int:
    """Index of the first sample that counts: after the warm-up, or after a third of all where that is sooner."""
    if not seconds:
        return 0
    begin = seconds[0] + min(warm_up_seconds, (seconds[-1] - seconds[0]) / 3)
    return next((index for index, second in enumerate(seconds) if second >= begin), len(seconds))
