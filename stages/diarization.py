"""Who speaks when, from the voice vectors of a video: `stages.clustering` finds the voices, `stages.turns` their turns.

A pure function of the windows: it depends neither on their order nor on how they came in pages.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.clustering import VoiceVectors, edge_weights, find_voices, mean_voices, unit
from stages.options import VoiceOptions
from stages.turns import Piece, Turn, find_pieces, spoken_seconds, to_turns

__all__ = ["Diarization", "Diarizer", "Turn"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

STRETCH_WINDOWS = 64  # that share sound and are looked at together; speech is cut at 30 s, which is 20 windows
TOUCH_SECONDS = 0.02  # speech that goes on after such a cut is one turn
OVERLAP_SHARE = 0.5  # of a window that two share from which on it is marked


@dataclass(frozen=True, slots=True, eq=False)
class Diarization:
    """Who speaks when. Clusters are numbered from 1, in order of their first window in the video."""

    clusters: Ints  # [n] of each window, in the order in which they were added
    scores: Floats  # [n] cosine to the cluster's mean
    overlaps: Ints  # [n] the second cluster where two speak at once, 0: none
    means: Floats  # [k, d] unit length; windows beside a change of speakers weigh a tenth
    turns: tuple[Turn, ...]  # in order of time; together they cover the windows, and nothing else
    self_scores: Floats  # [k] cosine between the means of a cluster's even and odd windows; NaN with fewer than 4

    @property
    def count(self) -> int:
        """How many speakers."""
        return len(self.means)

    @property
    def windows(self) -> Ints:
        """[k] windows of each cluster."""
        return np.bincount(self.clusters, minlength=self.count + 1)[1:].astype(np.int32)

    @property
    def seconds(self) -> Doubles:
        """[k] how long each cluster speaks."""
        seconds = np.zeros(self.count)
        for turn in self.turns:
            seconds[turn.cluster - 1] += turn.end_seconds - turn.start_seconds
        return seconds


class Diarizer:
    """Takes a video's voice windows page by page and keeps 16 bytes and a float16 vector of each."""

    def __init__(self, dimension: int, options: VoiceOptions) -> None:
        self._dimension = dimension
        self._options = options
        self._starts: list[Doubles] = []
        self._ends: list[Doubles] = []
        self._vectors: list[npt.NDArray[np.float16]] = []

    def __len__(self) -> int:
        return sum(map(len, self._starts))

    def add(self, starts: npt.ArrayLike, ends: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Windows from `starts` [n] to `ends` [n], in seconds, with vectors [n, dimension] of any length but 0.

        A vector that is zero or not finite is like nobody's. Raises ValueError when the shapes do not fit.
        """
        begin, end = np.array(starts, np.float64), np.array(ends, np.float64)
        rows = np.array(vectors, np.float32)
        if not begin.shape == end.shape == rows.shape[:1] or rows.shape[1:] != (self._dimension,):
            raise ValueError(f"{begin.shape} starts, {end.shape} ends, {rows.shape} vectors of {self._dimension}")
        rows[~np.isfinite(rows).all(1)] = 0.0
        lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        self._starts.append(begin)
        self._ends.append(end)
        self._vectors.append((rows / lengths).astype(np.float16))

    def finish(self) -> Diarization:
        """Who speaks when in all windows that were added."""
        if not len(self):
            return _nobody(self._dimension)
        self._starts, self._ends = [np.concatenate(self._starts)], [np.concatenate(self._ends)]
        self._vectors = [np.concatenate(self._vectors)]
        windows = VoiceVectors(self._starts[0], self._ends[0], self._vectors[0])
        return _diarize(windows, find_voices(windows, self._options.same_speaker))


def _nobody(dimension: int) -> Diarization:
    none, no_scores = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Diarization(none, no_scores, none, np.zeros((0, dimension), np.float32), (), no_scores)


def _diarize(windows: VoiceVectors, means: Floats) -> Diarization:
    labels, seconds, pieces = _find_turns(windows, means)
    while len(present := np.unique(labels)) < len(means):  # a voice that only ever had the smaller part of windows
        means = means[present]
        labels, seconds, pieces = _find_turns(windows, means)
    return _numbered(windows, labels, seconds, pieces)


def _find_turns(windows: VoiceVectors, means: Floats) -> tuple[Ints, Ints, list[Piece]]:
    """Of each window who speaks most [n] and who speaks at once with that one [n], -1: nobody; and all pieces."""
    labels, seconds = np.zeros(len(windows), np.int32), np.full(len(windows), -1, np.int32)
    likeness, pieces = means @ means.T, list[Piece]()
    for part in _stretches(windows):
        scores, starts, ends = windows.rows(part) @ means.T, windows.starts[part], windows.ends[part]
        found = find_pieces(starts, ends, scores, likeness)
        labels[part], seconds[part] = _most(found, starts, ends, scores)
        pieces += _behind(found, pieces[-1].end_seconds if pieces else 0.0)
    return labels, seconds, pieces


def _stretches(windows: VoiceVectors) -> list[slice]:
    """Parts of the windows that share sound, each with the next."""
    joined, firsts = windows.joined, list[int]()
    for index in range(len(windows)):
        if not joined[index] or index - firsts[-1] == STRETCH_WINDOWS:
            firsts.append(index)
    return [slice(first, last) for first, last in zip(firsts, [*firsts[1:], len(windows)], strict=True)]


def _most(found: list[Piece], starts: Doubles, ends: Doubles, scores: Floats) -> tuple[Ints, Ints]:
    spoken, shared = spoken_seconds(found, starts, ends, scores.shape[1])
    every = np.arange(len(starts))
    labels = (spoken + 1e-3 * scores).argmax(1)  # two who share a window to the end: the nearer one
    overlapped = shared.sum(1) / 2 >= OVERLAP_SHARE * (ends - starts)
    shared[every, labels] = 0.0
    second = np.where(overlapped & (shared.max(1) > 0), shared.argmax(1), -1)
    return labels.astype(np.int32), second.astype(np.int32)


def _behind(pieces: list[Piece], seconds: float) -> list[Piece]:
    """What of the pieces lies behind a time that others cover already."""
    return [
        Piece(max(seconds, piece.start_seconds), piece.end_seconds, piece.speakers)
        for piece in pieces
        if piece.end_seconds > seconds
    ]


def _numbered(windows: VoiceVectors, labels: Ints, seconds: Ints, pieces: list[Piece]) -> Diarization:
    """Speakers renumbered by their first window, windows in the order in which they were given."""
    _, firsts = np.unique(labels, return_index=True)
    number = np.argsort(np.argsort(firsts)).astype(np.int32)
    labels, seconds = number[labels], np.where(seconds >= 0, number[seconds], -1)
    means = mean_voices(windows, labels, edge_weights(windows, labels), len(number)).means
    scores = np.concatenate([(rows * means[labels[part]]).sum(1) for part, rows in windows.blocks()])
    given = np.argsort(windows.order)
    renamed = [
        Piece(piece.start_seconds, piece.end_seconds, tuple(sorted(int(number[one]) for one in piece.speakers)))
        for piece in pieces
    ]
    return Diarization(
        clusters=(labels + 1)[given],
        scores=scores[given],
        overlaps=(seconds + 1)[given].astype(np.int32),
        means=means,
        turns=to_turns(renamed, TOUCH_SECONDS),
        self_scores=_self_scores(windows, labels, len(number)),
    )


def _self_scores(windows: VoiceVectors, labels: Ints, count: int) -> Floats:
    """Of each voice the cosine between the means of its even and its odd windows."""
    sizes = np.bincount(labels, minlength=count)
    place = np.empty(len(labels), np.int64)
    place[np.argsort(labels, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    halves = mean_voices(windows, labels * 2 + (place % 2).astype(np.int32), edge_weights(windows, labels), 2 * count)
    means = unit(halves.sums)
    cosines = (means[0::2] * means[1::2]).sum(1)
    return np.where(sizes >= 4, cosines, np.nan).astype(np.float32)
