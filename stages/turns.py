"""Speaker turns from voice windows: where one speaker ends and the next begins, finer than the windows' hop.

A window's vector is about the mean of what is said in it, in proportion to time. So the windows around a change of
speakers tell by their mixture where it was; and a mixture that lasts longer than a change explains is two people at
once.

Each stretch of windows that share sound is divided into blocks of half a window, so that a window reaches over two
blocks. A block is one speaker, or a change from one to another somewhere in it, with or without a time in which both
speak. Of all sequences of these the one is taken whose mixtures are nearest to the windows' vectors, less a penalty for
each change and for time that two share (Viterbi). Pure; times in seconds, speakers are numbers from 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations, pairwise, permutations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

# `python -m benches.diarization --penalties` shows what others would do.
CHANGE_PENALTY = 0.05  # for each change of speakers, in cosine
OVERLAP_PENALTY = 0.03  # for each block that two share, in cosine

STEPS = 6  # a block's places for a change: 0.25 s apart in windows of 3 s
OVERLAP_STEPS = 3  # and those where a time of two begins or ends
CANDIDATES = 3  # speakers that a block may hold: nearly all hold one or two, and states grow with the square
PLAUSIBLE = 0.5  # of the nearest speaker's cosine: so near must another come around a block to be one of them


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch in which somebody speaks without a pause."""

    start_seconds: float
    end_seconds: float
    cluster: int  # from 1
    overlap: bool  # somebody else speaks too, all the while; that turn is in the list as well


@dataclass(frozen=True, slots=True)
class Piece:
    """A time with the same speakers throughout."""

    start_seconds: float
    end_seconds: float
    speakers: tuple[int, ...]  # one, or two in order


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """The S ways to fill a block: `first` speaks until a fraction of it, `second` since another, not a later one."""

    first: Ints  # [S] which of the block's candidates
    second: Ints  # [S] the same as `first` in a block of one speaker
    since: Doubles  # [S] 0 to 1
    until: Doubles  # [S] 0 to 1

    @property
    def penalty(self) -> Doubles:
        """[S] for what changes inside of the block, and for the time that two share."""
        two = self.first != self.second
        changes = (two & (self.since > 0)).astype(int) + (two & (self.until < 1))
        penalty: Doubles = CHANGE_PENALTY / 2 * changes + OVERLAP_PENALTY * two * (self.until - self.since)
        return penalty

    @property
    def at_start(self) -> Ints:
        """[S, 2] who speaks first; the same twice, or two."""
        return np.stack((self.first, np.where(self.since <= 0, self.second, self.first)), 1)

    @property
    def at_end(self) -> Ints:
        """[S, 2] who speaks last; the same twice, or two."""
        return np.stack((self.second, np.where(self.until >= 1, self.first, self.second)), 1)


def find_pieces(starts: Doubles, ends: Doubles, scores: Floats, likeness: Floats) -> list[Piece]:
    """Who speaks when in one stretch of windows, in order of time; the pieces cover it from end to end.

    `scores` [n, k] are the cosines of the windows' vectors to the speakers' means, `likeness` [k, k] those of the
    means.
    """
    return join_pieces(list(_Stretch(starts, ends, scores, likeness).pieces()))


class _Stretch:
    """Blocks are counted from the first window's start, and times in here are in blocks."""

    def __init__(self, starts: Doubles, ends: Doubles, scores: Floats, likeness: Floats) -> None:
        self._begin, self._end = float(starts.min()), float(ends.max())
        self._block_seconds = max(1e-3, float((ends - starts).max()) / 2)
        self._starts = (starts - self._begin) / self._block_seconds
        self._ends = (ends - self._begin) / self._block_seconds
        count = max(2, int(np.ceil(self._ends.max() - 0.01)))
        self._first_block = np.clip(np.rint((self._starts + self._ends) / 2).astype(int) - 1, 0, count - 2)
        self._scores, self._likeness = scores, likeness
        self._speakers = [self._candidates(block) for block in range(count)]

    def pieces(self) -> Iterator[Piece]:
        """The best sequence, not yet joined."""
        for block, chosen in enumerate(self._best_path()):
            yield from self._cut(block, chosen)

    def _candidates(self, block: int) -> tuple[int, ...]:
        """The nearest speakers in the windows that reach into a block and their neighbours."""
        near = np.abs(self._first_block + 0.5 - block) < 2
        best = self._scores[near].max(0) if near.any() else self._scores.max(0)
        order = np.argsort(-best, kind="stable")[:CANDIDATES]
        plausible = order[1:][best[order[1:]] >= PLAUSIBLE * max(0.0, float(best[order[0]]))]
        return (int(order[0]), *map(int, plausible))

    def _best_path(self) -> list[int]:
        """The state of each block."""
        value, back = -block_states(len(self._speakers[0])).penalty, []
        for block, (left, right) in enumerate(pairwise(self._speakers)):
            known = tuple(left.index(speaker) if speaker in left else -1 for speaker in right)
            gain = value[:, None] - change_penalties(len(left), known) - block_states(len(right)).penalty
            for window in np.flatnonzero(self._first_block == block):
                gain += self._fit(int(window), block)
            back.append(gain.argmax(0))
            value = gain.max(0)
        path = [int(value.argmax())]
        for pointers in reversed(back):
            path.append(int(pointers[path[-1]]))
        return path[::-1]

    def _fit(self, window: int, block: int) -> Doubles:
        """Cosine [S, S'] of a window's vector to the mixture of the states of two blocks."""
        start, end = float(self._starts[window]) - block, float(self._ends[window]) - block
        left, right = list(self._speakers[block]), list(self._speakers[block + 1])
        one = shares(len(left), round(min(start, 1.0), 3), round(min(end, 1.0), 3))
        two = shares(len(right), round(max(start, 1.0) - 1.0, 3), round(max(end, 1.0) - 1.0, 3))
        near, scores = self._likeness, self._scores[window]
        cross = one @ near[np.ix_(left, right)] @ two.T
        one_squared = ((one @ near[np.ix_(left, left)]) * one).sum(1)
        two_squared = ((two @ near[np.ix_(right, right)]) * two).sum(1)
        length = np.sqrt(np.maximum(one_squared[:, None] + 2 * cross + two_squared, 1e-6))
        fit: Doubles = ((one @ scores[left])[:, None] + two @ scores[right]) / length
        return fit

    def _cut(self, block: int, chosen: int) -> Iterator[Piece]:
        """A block in its state as one to three pieces."""
        speakers, states = self._speakers[block], block_states(len(self._speakers[block]))
        first, second = speakers[states.first[chosen]], speakers[states.second[chosen]]
        since, until = float(states.since[chosen]), float(states.until[chosen])
        both = tuple(sorted({first, second}))
        for start, end, who in ((0.0, since, (first,)), (since, until, both), (until, 1.0, (second,))):
            if start >= end:
                continue
            start_seconds = self._begin + (block + start) * self._block_seconds
            end_seconds = min(self._end, self._begin + (block + end) * self._block_seconds)
            if block == len(self._speakers) - 1 and end == 1.0:
                end_seconds = self._end  # a sliver behind it has no block of its own
            if start_seconds < end_seconds:
                yield Piece(start_seconds, end_seconds, who)


@cache
def block_states(candidates: int) -> States:
    """All ways to fill a block with one or two of so many candidates."""
    rows = [(speaker, speaker, 0.0, 1.0) for speaker in range(candidates)]
    rows += [(*pair, 0.0, 1.0) for pair in combinations(range(candidates), 2)]
    for pair in permutations(range(candidates), 2):
        rows += [(*pair, step / STEPS, step / STEPS) for step in range(1, STEPS)]
        edges = combinations(range(OVERLAP_STEPS + 1), 2)
        rows += [(*pair, a / OVERLAP_STEPS, b / OVERLAP_STEPS) for a, b in edges if (a, b) != (0, OVERLAP_STEPS)]
    first, second, since, until = (np.array(column) for column in zip(*rows, strict=True))
    return States(first.astype(np.int32), second.astype(np.int32), since, until)


@lru_cache(maxsize=256)
def shares(candidates: int, start: float, end: float) -> Doubles:
    """How much of `start` to `end` [S, candidates] speak in each state of a block, which is from 0 to 1.

    Where that reaches out of the block, those at the block's end go on. What two share counts for both.
    """
    states = block_states(candidates)
    until = np.where(states.until >= 1, end, states.until.clip(start, end))
    since = np.where(states.since <= 0, start, states.since.clip(start, end))
    spoken = np.zeros((len(since), candidates))
    every = np.arange(len(since))
    spoken[every, states.first] = until - start
    spoken[every, states.second] = np.where(states.first == states.second, end - start, end - since)
    return spoken


@lru_cache(maxsize=256)
def change_penalties(candidates: int, known: tuple[int, ...]) -> Doubles:
    """The penalty [S, S'] between the states of two blocks, for everybody who ends or begins there.

    The first block has so many candidates; `known` says which of them each candidate of the second is, -1: none.
    """
    names = np.array([candidates + index if name < 0 else name for index, name in enumerate(known)])
    before = np.zeros((len(block_states(candidates).since), candidates + len(known)), np.int32)
    np.put_along_axis(before, block_states(candidates).at_end, 1, axis=1)
    after = np.zeros((len(block_states(len(known)).since), before.shape[1]), np.int32)
    np.put_along_axis(after, names[block_states(len(known)).at_start], 1, axis=1)
    differing = before.sum(1)[:, None] + after.sum(1) - 2 * before @ after.T
    penalties: Doubles = CHANGE_PENALTY / 2 * differing
    return penalties


# --- from pieces to turns and windows ---------------------------------------------------------------------------------


def join_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours with the same speakers become one."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].speakers == piece.speakers:
            joined[-1] = Piece(joined[-1].start_seconds, piece.end_seconds, piece.speakers)
        else:
            joined.append(piece)
    return joined


def spoken_seconds(pieces: Sequence[Piece], starts: Doubles, ends: Doubles, speakers: int) -> tuple[Doubles, Doubles]:
    """Of each window: how long each speaks in it [n, speakers], and how long each speaks while another does."""
    alone, shared = np.zeros((len(starts), speakers)), np.zeros((len(starts), speakers))
    for piece in pieces:
        seconds = np.minimum(ends, piece.end_seconds) - np.maximum(starts, piece.start_seconds)
        for speaker in piece.speakers:
            (shared if len(piece.speakers) > 1 else alone)[:, speaker] += seconds.clip(0)
    return alone + shared, shared


def to_turns(pieces: Sequence[Piece], gap_seconds: float) -> tuple[Turn, ...]:
    """Pieces in order of time as turns, clusters counted from 1; a speaker's pieces that nearly touch become one."""
    turns: list[Turn] = []
    last: dict[int, int] = {}  # cluster → where its latest turn is in the list
    for piece in pieces:
        for speaker in piece.speakers:
            turn = Turn(piece.start_seconds, piece.end_seconds, speaker + 1, len(piece.speakers) > 1)
            before = turns[last[turn.cluster]] if turn.cluster in last else None
            if before and before.overlap == turn.overlap and turn.start_seconds <= before.end_seconds + gap_seconds:
                turns[last[turn.cluster]] = Turn(before.start_seconds, turn.end_seconds, turn.cluster, turn.overlap)
            else:
                last[turn.cluster] = len(turns)
                turns.append(turn)
    return tuple(sorted(turns, key=lambda turn: (turn.start_seconds, turn.cluster)))
