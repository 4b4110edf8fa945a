"""What a daemon has finished since its start: counts, coverage, failures, time to searchable. Pure, of bounded size."""

from bisect import bisect_left
from collections import Counter, deque
from statistics import median
from typing import Any

from engine.videos import VideoJob

STATUSES = ("indexed", "partial", "unchanged", "failed")
FAILURES = 20  # the last ones that are shown
TIMES = 100  # to searchable, of which the median is shown
# Seconds; from a short clip on an idle machine to a file that waited all day in the queue.
SEARCHABLE_BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Searchable:
    """The times from a complete file to its first searchable point."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=TIMES)
        self._buckets = [0] * (len(SEARCHABLE_BUCKETS) + 1)  # the last one: longer than all bounds
        self._sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """One video became searchable."""
        self._last.append(seconds)
        self._sum_seconds += seconds
        self._buckets[bisect_left(SEARCHABLE_BUCKETS, seconds)] += 1

    def as_dict(self) -> dict[str, Any]:
        """last and median: of the last TIMES videos; buckets: how many took at most so long, of all."""
        counted, buckets = 0, []
        for bound, count in zip((*SEARCHABLE_BUCKETS, None), self._buckets, strict=True):
            counted += count
            buckets.append({"at_most_seconds": bound, "videos": counted})
        return {
            "last_seconds": round(self._last[-1], 3) if self._last else None,
            "median_seconds": round(median(self._last), 3) if self._last else None,
            "sum_seconds": round(self._sum_seconds, 3),
            "buckets": buckets,
        }


class Tally:
    """Sums over the videos that are finished."""

    def __init__(self) -> None:
        self.videos: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
        self.media_seconds = 0.0  # of what was indexed, wholly or in part
        self.searchable = Searchable()
        self.failures: deque[dict[str, Any]] = deque(maxlen=FAILURES)  # the latest last
        self._sums: Counter[str] = Counter()

    def add(self, job: VideoJob) -> None:
        """A video's status is final."""
        status = job.status or "failed"
        self.videos[status] += 1
        if job.error is not None:
            self.failed(job.shown_path, job.error.code, job.error.message)
        if job.searchable_seconds is not None:
            self.searchable.add(job.searchable_seconds)
        if status not in ("indexed", "partial"):
            return
        self.media_seconds += job.duration_seconds or 0.0
        for name in ("speech_seconds", "text_seconds", "voiced_seconds", "voice_seconds"):
            self._sums[name] += job.sums[name]

    def rejected(self, path: str, code: str, message: str) -> None:
        """A file failed before it became work."""
        self.videos["failed"] += 1
        self.failed(path, code, message)

    def failed(self, path: str, code: str, message: str) -> None:
        """Remember why a video is not wholly indexed."""
        self.failures.append({"path": path, "code": code, "message": message})

    def coverage(self, part: str, whole: str) -> float | None:
        """Share of all speech that has vectors, weighted by its time; None before there was any speech."""
        return round(min(self._sums[part] / self._sums[whole], 1.0), 4) if self._sums[whole] else None
