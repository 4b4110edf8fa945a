"""Frames that hardly differ from the last one that was sent are not sent: that one then stands for their time, too.

How far two frames differ is the root mean square over their blocks of 8x8 pixels and their three channels, of the
difference between the blocks' means: 0 to 255. Means forgive noise, and squares notice a small thing that changes much.
A frame is always compared with the last that was sent, so that slow change is not missed.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stages.errors import MediaError
from stages.sampling import Sample, SampledFrame
from transport.messages import Gap

BLOCK = 8  # pixels, across and down; what is left at the edges is not looked at

Means = NDArray[np.float32]  # [rows, columns, 3]


def without_similar(samples: Iterable[Sample], threshold: float) -> Iterator[Sample]:
    """The samples without frames that differ by less than `threshold` from the last one given. Holds one frame.

    The end of a frame becomes that of the last frame that it stands for. Behind a gap a frame is always given: what is
    not known is not taken for the same. An error in `samples` comes after the frame that was held.
    """
    sent = _Sent(threshold)
    try:
        for sample in samples:
            if isinstance(sample, Gap):
                yield from sent.take()
                yield sample
            elif not sent.stands_for(sample):
                yield from sent.take()
                sent.put(sample)
    except MediaError:
        yield from sent.take()
        raise
    yield from sent.take()


class _Sent:
    """The last frame that is to be sent, until its end is known."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._frame: SampledFrame | None = None
        self._means = np.zeros((0, 0, 3), np.float32)
        self._next = self._means  # of the frame that was compared last

    def stands_for(self, frame: SampledFrame) -> bool:
        """Whether it does, and then its end is that of `frame`."""
        self._next = block_means(frame.pixels)
        if self._frame is None or difference(self._means, self._next) >= self._threshold:
            return False
        self._frame = replace(self._frame, end_seconds=max(self._frame.end_seconds, frame.end_seconds))
        return True

    def put(self, frame: SampledFrame) -> None:
        """Hold the frame that was just compared."""
        self._frame, self._means = frame, self._next

    def take(self) -> Iterator[SampledFrame]:
        """Give it, if there is one."""
        if self._frame is not None:
            frame, self._frame = self._frame, None
            yield frame


def block_means(pixels: NDArray[np.uint8]) -> Means:
    """uint8 [height, width, 3] → the mean of each whole block, 0 to 255."""
    rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    whole = pixels[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns * BLOCK * 3)
    down = whole.sum(axis=1, dtype=np.uint16)  # of 8 pixels, at most 2,040
    sums = down.reshape(rows, columns, BLOCK, 3).sum(axis=2, dtype=np.uint16)  # of 64, at most 16,320
    means: Means = sums.astype(np.float32) / np.float32(BLOCK * BLOCK)
    return means


def difference(one: Means, other: Means) -> float:
    """Root mean square; infinite between pictures of different sizes, or without a whole block."""
    if one.shape != other.shape or not one.size:
        return math.inf
    return float(np.sqrt(np.square(one - other).mean()))
