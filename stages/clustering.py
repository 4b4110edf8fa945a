"""Finds the voices among voice vectors: how many there are, and the mean of each.

1. An evenly spaced sample is clustered (agglomerative, average linkage). Groups of some size are the first voices.
2. Every window goes to the nearest voice. Those that are near none are clustered in the same way, twice at most: so are
   speakers found who are too rare for the sample.
3. Means are taken anew until nothing changes, with little weight for windows beside a change of speakers. On the way,
   voices that are alike become one; a voice between two others is made of their changes, and is none; nor is one with
   hardly a window.

"Alike" is relative: the mean cosine between the windows of two voices, divided by that within one. So the noise of
short windows and the level of a recording cancel out. Only samples are compared pair by pair: time and memory grow
with n.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Indexes = npt.NDArray[np.int64]

TOLERANCE_SECONDS = 0.005  # of stored times
BLOCK = 4096  # vectors that are float32 at a time: 3 MB
SAMPLE = 3000  # windows compared pair by pair: 36 MB twice, 0.3 s; of one who speaks 0.5 % of the time it holds 15
GROUPS = 200  # kept of one clustering; vectors without sense would give thousands
ROUNDS = 3  # of clustering what is left
SETTLED = 20  # rounds of means at most; they settle in 3 to 8

USUAL_LIKENESS = 0.65  # mean cosine within a voice, for ECAPA: where too few windows touch to measure it
LIKENESS_RANGE = (0.4, 0.95)  # it is lower where speakers change faster than windows, and higher in untrained models
SENSELESS = 0.1  # below this the vectors of windows that touch have nothing in common: they tell nobody apart
PAIRS = 10  # of windows that touch, from which it is measured
LARGE_SECONDS = 30.0  # a group with so much sound can do without the windows beside a change
PRIOR_PAIRS = 10.0  # what the measured likeness weighs against that of a voice's own few windows, in pairs
# What chance may take from the likeness of 3 s of sound to its own voice, times √(ln n) of n windows: the farthest of
# many is far. Extreme value theory has √(2 ln n) standard deviations of 0.18 (0.12 / 0.65), which is 0.26; but that
# would cost every voice with few windows. With 0.08 one speaker alone is found to be one, and three windows a voice.
DOUBT = 0.08
BETWEEN = 0.72  # likeness to the nearest mixture of two voices from which on a voice is none; true ones are below 0.55
EDGE_WEIGHT = 0.1  # of a window beside a change of speakers: it is a mixture


class VoiceVectors:
    """Voice windows in order of time. Vectors stay float16 and where they are; they become float32 block by block."""

    def __init__(self, starts: Doubles, ends: Doubles, vectors: npt.NDArray[np.float16]) -> None:
        self.order: Indexes = np.lexsort((ends, starts))  # the place of each, in the arrays that were given
        self.starts, self.ends = starts[self.order], ends[self.order]
        self.dimension = vectors.shape[1]
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, indexes: Indexes | slice) -> Floats:
        """The vectors [m, d] at places in time."""
        rows: Floats = self._vectors[self.order[indexes]].astype(np.float32)
        return rows

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """All of them, part by part."""
        for begin in range(0, len(self), BLOCK):
            part = slice(begin, min(begin + BLOCK, len(self)))
            yield part, self.rows(part)

    @property
    def new_seconds(self) -> Doubles:
        """[n] of each window the sound that is in none before it."""
        reached = np.concatenate(([-np.inf], np.maximum.accumulate(self.ends)[:-1]))
        return np.maximum(self.ends - np.maximum(self.starts, reached), 0.0)

    @property
    def joined(self) -> npt.NDArray[np.bool_]:
        """[n] whether each window shares sound with one before it."""
        return self.new_seconds < self.ends - self.starts - TOLERANCE_SECONDS

    def nearest(self, means: Floats) -> tuple[Ints, Floats]:
        """Of each window the nearest mean [n], and the cosine to it [n]."""
        labels, cosines = np.zeros(len(self), np.int32), np.zeros(len(self), np.float32)
        for part, rows in self.blocks():
            scores = rows @ means.T
            labels[part], cosines[part] = scores.argmax(1), scores.max(1)
        return labels, cosines

    def own_likeness(self) -> float:
        """The cosine of two windows of one voice: the upper quartile of those that touch, most of which have one."""
        after = np.searchsorted(self.starts, self.ends - TOLERANCE_SECONDS)
        first = np.flatnonzero(after < len(self))
        first = first[self.starts[after[first]] <= self.ends[first] + TOLERANCE_SECONDS]
        return float(np.quantile(self._cosines(first, after[first]), 0.75)) if len(first) >= PAIRS else USUAL_LIKENESS

    def _cosines(self, some: Indexes, others: Indexes) -> Doubles:
        parts = [slice(begin, begin + BLOCK) for begin in range(0, len(some), BLOCK)]
        cosines = [(self.rows(some[part]) * self.rows(others[part])).sum(1) for part in parts]
        return np.concatenate((np.zeros(0), *cosines))


@dataclass(frozen=True, slots=True, eq=False)
class Voices:
    """Voices as sums over their windows' vectors, each with a weight."""

    sums: Doubles  # [k, d]
    weights: Doubles  # [k] sums of weights
    squares: Doubles  # [k] sums of squared weights
    seconds: Doubles  # [k] of sound, each counted once

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, chosen: Indexes | npt.NDArray[np.bool_]) -> "Voices":
        return Voices(*(part[chosen] for part in self._parts))

    def __add__(self, other: "Voices") -> "Voices":
        return Voices(*(np.concatenate(pair) for pair in zip(self._parts, other._parts, strict=True)))

    @property
    def joined(self) -> "Voices":
        """All of them as one."""
        return Voices(*(part.sum(0, keepdims=True) for part in self._parts))

    @property
    def _parts(self) -> tuple[Doubles, ...]:
        return self.sums, self.weights, self.squares, self.seconds

    @property
    def means(self) -> Floats:
        """[k, d] unit length."""
        return unit(self.sums).astype(np.float32)


def find_voices(windows: VoiceVectors, same_speaker: float) -> Floats:
    """The means [k, d] of the voices in one or more windows; from `same_speaker` on, 0 to 1, two of them are one."""
    return _Search(windows, same_speaker).means()


def edge_weights(windows: VoiceVectors, labels: Ints) -> Doubles:
    """[n] 1, but little for windows that share sound with one of another voice."""
    weights = np.ones(len(windows))
    edges = np.flatnonzero(windows.joined[1:] & (labels[1:] != labels[:-1]))
    weights[edges] = weights[edges + 1] = EDGE_WEIGHT
    return weights


def mean_voices(windows: VoiceVectors, labels: Ints, weights: Doubles, count: int) -> Voices:
    """The voices that labels [n] from 0 to `count` give."""
    sums = np.zeros((count, windows.dimension))
    for part, rows in windows.blocks():
        members = np.zeros((len(rows), count), np.float32)
        members[np.arange(len(rows)), labels[part]] = weights[part]
        sums += members.T @ rows
    totals = (
        np.bincount(labels, part, count).astype(np.float64) for part in (weights, weights**2, windows.new_seconds)
    )
    return Voices(sums, *totals)


def unit(vectors: Doubles) -> Doubles:
    """Each of length 1; a zero stays."""
    scaled: Doubles = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def fewest_windows(count: int) -> int:
    """How many make a voice. One that is like no other may be noise; in a short recording it is somebody."""
    return 1 if count < 20 else 2 if count < 1000 else 3


class _Search:
    def __init__(self, windows: VoiceVectors, same_speaker: float) -> None:
        self._windows, self._same = windows, same_speaker
        measured = windows.own_likeness()
        self._senseless = measured < SENSELESS
        self._own = float(np.clip(measured, *LIKENESS_RANGE))
        self._fewest = fewest_windows(len(windows))
        self._near = same_speaker * np.sqrt(self._own)  # cosine of a window to a mean: within a voice it is the root
        self._doubt = DOUBT * np.sqrt(np.log(max(2, len(windows))))

    def means(self) -> Floats:
        voices = self._first()
        if self._senseless or not len(voices):
            return self._voices(np.zeros(len(self._windows), np.int32), 1).means
        labels = None
        for _ in range(SETTLED):
            before, labels = labels, self._windows.nearest(voices.means)[0]
            voices, changed = self._cleared(labels, len(voices))
            if not changed and before is not None and np.array_equal(before, labels):
                break
        return voices.means

    def _first(self) -> Voices:
        """Voices from samples: first of all windows, then of those that are near none."""
        nothing = np.zeros(0)
        voices = Voices(np.zeros((0, self._windows.dimension)), nothing, nothing, nothing)
        left = np.arange(len(self._windows))
        for _ in range(ROUNDS):
            found = self._groups(left)
            if not len(found):
                break
            voices = self._merged(self._cleaned(voices + found))
            voices = self._voices(self._windows.nearest(voices.means)[0], len(voices))
            voices = voices[voices.weights > 0]
            left = np.flatnonzero(self._windows.nearest(voices.means)[1] < self._near)
            if not len(left):
                break
        return voices

    def _cleaned(self, voices: Voices) -> Voices:
        """With the means of the larger ones taken anew: a group has collected the mixtures at its changes, too."""
        large = voices.seconds >= LARGE_SECONDS
        anew = self._voices(self._windows.nearest(voices.means)[0], len(voices))
        return anew[large & (anew.weights > 0)] + voices[~large]

    def _voices(self, labels: Ints, count: int) -> Voices:
        return mean_voices(self._windows, labels, edge_weights(self._windows, labels), count)

    def _groups(self, indexes: Indexes) -> Voices:
        """The larger groups among a sample of some windows."""
        sample = indexes[np.unique(np.linspace(0, len(indexes) - 1, min(len(indexes), SAMPLE)).round().astype(int))]
        rows = self._windows.rows(sample).astype(np.float64)
        labels = agglomerate(rows, self._same * self._own)
        sizes = np.bincount(labels)
        sums = np.zeros((len(sizes), rows.shape[1]))
        np.add.at(sums, labels, rows)
        needed = self._fewest if len(sample) == len(indexes) else 2
        largest = np.argsort(-sizes, kind="stable")[:GROUPS]
        chosen = largest[sizes[largest] >= needed]
        weights, seconds = sizes.astype(np.float64), np.bincount(labels, self._windows.new_seconds[sample])
        return Voices(sums, weights, weights, seconds.astype(np.float64))[chosen]

    def _cleared(self, labels: Ints, count: int) -> tuple[Voices, bool]:
        """The voices that labels give, without what is none, and whether that left any out."""
        voices, sizes = self._voices(labels, count), np.bincount(labels, minlength=count)
        voices = voices[sizes >= min(self._fewest, sizes.max())]
        if len(voices) == count:
            voices = self._merged(voices)
        if len(voices) == count:
            voices = self._without_mixture(voices)
        return voices, len(voices) < count

    def _merged(self, voices: Voices) -> Voices:
        """Voices that are alike, or might be for all that chance can do, become one, the most alike first."""
        while len(voices) > 1:
            means, doubts = self._denoised(voices), self._doubts(voices)
            alike = means @ means.T + np.maximum(doubts[:, None], doubts)
            np.fill_diagonal(alike, -np.inf)
            one, other = np.unravel_index(alike.argmax(), alike.shape)
            if alike[one, other] < self._same:
                break
            rest = np.ones(len(voices), np.bool_)
            rest[[one, other]] = False
            voices = voices[rest] + voices[~rest].joined
        return voices

    def _denoised(self, voices: Voices) -> Doubles:
        """Means [k, d] of such length that the product of two is their likeness: that of a voice to itself is 1."""
        products = (voices.sums**2).sum(1) - voices.squares  # of different windows
        pairs = voices.weights**2 - voices.squares
        own = (products + PRIOR_PAIRS * self._own) / (pairs + PRIOR_PAIRS)
        means: Doubles = voices.sums / (voices.weights * np.sqrt(np.maximum(own, 0.05)))[:, None]
        return means

    def _doubts(self, voices: Voices) -> Doubles:
        """How much of each voice's likeness [k] chance may have taken: the more, the less sound there is of it."""
        doubts: Doubles = self._doubt * np.sqrt(3.0 / np.maximum(voices.seconds, 0.01))
        return doubts

    def _without_mixture(self, voices: Voices) -> Voices:
        """Without the voice that lies nearest to a line between two larger ones, if it lies near."""
        means, directions = self._denoised(voices), unit(voices.sums)
        between = self._doubts(voices) + [
            self._between(mean, directions[voices.weights > weight])
            for mean, weight in zip(means, voices.weights, strict=True)
        ]
        most = int(np.argmax(between))
        return voices[np.arange(len(voices)) != most] if between[most] >= BETWEEN else voices

    @staticmethod
    def _between(mean: Doubles, directions: Doubles) -> float:
        """How much of a mean [d] the best mixture of two unit vectors of [k, d], with positive parts, explains."""
        cosines, angles = directions @ mean, directions @ directions.T
        rest = np.maximum(1 - angles**2, 1e-6)
        parts = (cosines[:, None] - angles * cosines) / rest
        explained = np.where((parts > 0) & (parts.T > 0), parts * cosines[:, None] + parts.T * cosines, 0.0)
        np.fill_diagonal(explained, 0.0)
        return float(np.sqrt(explained.max(initial=0.0)))


def agglomerate(rows: Doubles, least: float) -> Ints:
    """Labels [n] from 0 of groups that were joined as long as the mean cosine between two was at least `least`."""
    from scipy.cluster.hierarchy import fcluster, linkage  # 40 MB that only those pay who cluster

    count = len(rows)
    if count == 1:
        return np.zeros(1, np.int32)
    distances = np.empty(count * (count - 1) // 2)  # SciPy's condensed form: no square is ever held
    end = 0
    for index in range(count - 1):
        begin, end = end, end + count - 1 - index
        distances[begin:end] = np.maximum(0.0, 1.0 - rows[index + 1 :] @ rows[index])
    labels: Ints = fcluster(linkage(distances, "average"), 1.0 - least, "distance").astype(np.int32) - 1
    return labels
