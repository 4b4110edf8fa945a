"""Who says what: turns of speakers joined to segments of text and to their words. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from stages.turns import Turn

NEAR_SECONDS = 0.5  # a word this close to a turn is still of it: a model's word times are off by a few tenths
OVERLAP_SHARE = 0.5  # a second voice is noted where it speaks at once for more than this share of a segment

Span = tuple[float, float]  # start, end in seconds of the medium


@dataclass(frozen=True, slots=True)
class ScoredWindow:
    """A voice window, whose voice it is, and how sure that is."""

    start_seconds: float
    end_seconds: float
    cluster: int
    score: float  # cosine to the mean of its cluster


@dataclass(frozen=True, slots=True)
class SegmentLabel:
    """Who speaks in a segment. None: nobody that is known of."""

    cluster: int | None  # who says most of it
    overlap: int | None  # who speaks at once for most of it
    score: float | None  # mean score of the cluster's windows in the segment; None when it has none there
    words: tuple[int | None, ...]  # the cluster of each word


class Timeline:
    """The turns of one video, to be asked who speaks when. A question costs the logarithm of their number."""

    def __init__(self, turns: Iterable[Turn], windows: Iterable[ScoredWindow] = ()) -> None:
        spans: dict[int, list[Span]] = {}
        for turn in turns:
            spans.setdefault(turn.cluster, []).append((turn.start_seconds, turn.end_seconds))
        self._voices = {cluster: _Disjoint(union(spans[cluster])) for cluster in sorted(spans)}
        scored: dict[int, list[ScoredWindow]] = {}
        for window in windows:
            scored.setdefault(window.cluster, []).append(window)
        self._scored = {cluster: _Scored(each) for cluster, each in scored.items()}

    def label(self, start_seconds: float, end_seconds: float, words: Sequence[Span] = ()) -> SegmentLabel:
        """Who speaks in a segment, and who says each of its words (start, end).

        A word is of whom it overlaps most, or else of the nearest turn within NEAR_SECONDS; a segment of whom most of
        its words are, by time. Without words (captions have none) it is judged by its own time, as one word would be.
        """
        reach = [start_seconds, end_seconds, *(time for word in words for time in word)]
        near = self._between(min(reach) - NEAR_SECONDS, max(reach) + NEAR_SECONDS)
        seconds = {cluster: shared_seconds(spans, [(start_seconds, end_seconds)]) for cluster, spans in near.items()}
        said = tuple(_speaker(near, seconds, word) for word in words)
        cluster = _most_said(words, said, seconds)
        if cluster is None:
            cluster = _speaker(near, seconds, (start_seconds, end_seconds))
        if cluster is None:
            return SegmentLabel(None, None, None, said)
        scored = self._scored.get(cluster)
        return SegmentLabel(
            cluster,
            _second_voice(near, cluster, (start_seconds, end_seconds)),
            scored.mean(start_seconds, end_seconds) if scored is not None else None,
            said,
        )

    def _between(self, begin: float, end: float) -> dict[int, list[Span]]:
        """The turns of each voice that touch a stretch of time, if there are any."""
        near = {cluster: voice.touching(begin, end) for cluster, voice in self._voices.items()}
        return {cluster: spans for cluster, spans in near.items() if spans}


class _Disjoint:
    """Spans in order that do not touch each other."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def touching(self, begin: float, end: float) -> list[Span]:
        """Those that share a point of time with a stretch."""
        return list(self._spans[bisect_left(self._ends, begin) : bisect_right(self._starts, end)])


class _Scored:
    """The windows of one cluster. They overlap, but the later begin and end later, or nearly."""

    def __init__(self, windows: Iterable[ScoredWindow]) -> None:
        self._windows = sorted(windows, key=lambda window: window.start_seconds)
        self._starts = [window.start_seconds for window in self._windows]
        self._reached = list(accumulate((window.end_seconds for window in self._windows), max))

    def mean(self, begin: float, end: float) -> float | None:
        """Of the scores in a stretch, each weighted by its time there."""
        near = self._windows[bisect_right(self._reached, begin) : bisect_left(self._starts, end)]
        shares = [max(0.0, min(each.end_seconds, end) - max(each.start_seconds, begin)) for each in near]
        total = sum(shares)
        if total <= 0:
            return None
        return sum(share * each.score for share, each in zip(shares, near, strict=True)) / total


def _speaker(near: Mapping[int, Sequence[Span]], seconds: Mapping[int, float], span: Span) -> int | None:
    """Whose turns share most time with a span, or lie nearest to it. Of equals: who speaks more in the segment."""
    shared = {cluster: round(shared_seconds(spans, [span]), 6) for cluster, spans in near.items()}  # equals are equal
    if any(shared.values()):
        return max(shared, key=lambda cluster: (shared[cluster], seconds[cluster], -cluster))
    away = {cluster: round(min(_distance(each, span) for each in spans), 6) for cluster, spans in near.items()}
    close = [cluster for cluster, distance in away.items() if distance <= NEAR_SECONDS]
    return min(close, key=lambda cluster: (away[cluster], -seconds[cluster], cluster), default=None)


def _most_said(words: Sequence[Span], said: Sequence[int | None], seconds: Mapping[int, float]) -> int | None:
    """Whose words last longest; of equals who has more words, then who speaks longer."""
    lengths: dict[int, float] = {}
    for (start, end), cluster in zip(words, said, strict=True):
        if cluster is not None:
            lengths[cluster] = round(lengths.get(cluster, 0.0) + max(0.0, end - start), 6)
    return max(lengths, key=lambda each: (lengths[each], said.count(each), seconds[each], -each), default=None)


def _second_voice(near: Mapping[int, Sequence[Span]], first: int, segment: Span) -> int | None:
    """Who speaks at the same time as the first voice, for most of the time that anybody speaks."""
    inside = {cluster: _clipped(spans, segment) for cluster, spans in near.items()}
    spoken = sum(end - start for start, end in union(span for spans in inside.values() for span in spans))
    together = {
        cluster: shared_seconds(spans, inside.get(first, [])) for cluster, spans in inside.items() if cluster != first
    }
    second = max(together, key=lambda cluster: (together[cluster], -cluster), default=None)
    return second if second is not None and together[second] > OVERLAP_SHARE * spoken else None


# --- spans ----------------------------------------------------------------------------------------------------------


def union(spans: Iterable[Span]) -> list[Span]:
    """The same time as spans in order that do not touch each other."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def shared_seconds(first: Sequence[Span], second: Sequence[Span]) -> float:
    """Time that two lists share; each is in order and without overlap."""
    total, left, right = 0.0, 0, 0
    while left < len(first) and right < len(second):
        (start, end), (other_start, other_end) = first[left], second[right]
        total += max(0.0, min(end, other_end) - max(start, other_start))
        left, right = (left + 1, right) if end <= other_end else (left, right + 1)
    return total


def _clipped(spans: Iterable[Span], within: Span) -> list[Span]:
    cut = [(max(start, within[0]), min(end, within[1])) for start, end in spans]
    return [(start, end) for start, end in cut if start < end]


def _distance(first: Span, second: Span) -> float:
    """Seconds between two spans; 0 when they touch."""
    return max(0.0, first[0] - second[1], second[0] - first[1])
