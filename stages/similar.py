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

from stages.sampling import Sample, SampledFrame
from transport.messages import Gap

BLOCK = 8  # pixels, across and down; what is left at the edges is not looked at

Means = NDArray[np.float32]  # [rows, columns, 3]


def without_similar(samples: Iterable[Sample], threshold: float) -> Iterator[Sample]:
    """The samples without frames that differ by less than `threshold` from the last one given. Holds one frame.

    The end of a frame becomes that of the last frame that it stands for. Behind a gap a frame is always given: what is
    not known is not taken for the same.
    """
    sent: SampledFrame | None = None  # not given yet, for its end is not known
    means = np.zeros((0, 0, 3), np.float32)
    for sample in samples:
        if isinstance(sample, Gap):
            yield from () if sent is None else (sent,)
            sent = None
            yield sample
            continue
        its_means = block_means(sample.pixels)
        if sent is not None and difference(means, its_means) < threshold:
            sent = replace(sent, end_seconds=max(sent.end_seconds, sample.end_seconds))
            continue
        yield from () if sent is None else (sent,)
        sent, means = sample, its_means
    yield from () if sent is None else (sent,)


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
