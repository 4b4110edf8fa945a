"""How fast the work goes: media done against wall time, and counters against time. Pure; time is passed in."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise

from engine.videos import VideoJob


class Rates:
    """Media seconds done against wall time."""

    def __init__(self, started_seconds: float) -> None:
        self._started = started_seconds
        self.finished_media_seconds = 0.0

    def hours_per_hour(self, done_seconds: float, now_seconds: float) -> float:
        """Hours of media done in an hour of wall time, so far."""
        elapsed = now_seconds - self._started
        return done_seconds / elapsed if elapsed > 0 else 0.0

    def eta_seconds(self, done_seconds: float, total_seconds: float, now_seconds: float) -> float | None:
        """Until all that is known is done, at the rate so far; None before there is a rate."""
        rate = self.hours_per_hour(done_seconds, now_seconds)
        return max(total_seconds - done_seconds, 0.0) / rate if rate > 0 else None


def media_progress(jobs: Iterable[VideoJob], finished_media_seconds: float) -> tuple[float, float]:
    """(done, total) media seconds of all videos opened so far. Frames and sound weigh by their length."""
    done = total = finished_media_seconds
    for job in jobs:
        length = job.duration_seconds or 0.0
        done += length * share_done(job)
        total += length
    return done, total


def share_done(job: VideoJob) -> float:
    """How much of a video's work is done, 0 to 1."""
    return min(job.done_seconds / job.total_seconds, 1.0) if job.total_seconds else 0.0


class Pace:
    """How fast counters have grown of late: samples of them over a window of time, of which few are kept.

    A counter that falls (its process was replaced, or work was given up) counts for nothing until it grows again.
    """

    def __init__(self, window_seconds: float, samples: int = 60) -> None:
        self._window_seconds = window_seconds
        self._spacing_seconds = window_seconds / samples
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def see(self, counters: Mapping[str, float], now_seconds: float) -> None:
        """The counters as they stand now. What comes too soon after the last replaces it, but for the first."""
        samples = self._samples
        if len(samples) > 1 and now_seconds - samples[-2][0] < self._spacing_seconds:
            samples.pop()
        samples.append((now_seconds, dict(counters)))
        # One from before the window stays, so that the window is whole.
        while len(samples) > 2 and samples[1][0] <= now_seconds - self._window_seconds:
            samples.popleft()

    def rate(self, name: str, now_seconds: float) -> float:
        """Growth of a counter in a second, over the window or as long as it has been seen; 0 before there is any."""
        recent = [sample for sample in self._samples if sample[0] >= now_seconds - 2 * self._window_seconds]
        if not recent or now_seconds <= recent[0][0]:
            return 0.0
        values = [counters[name] for _, counters in recent if name in counters]
        return sum(max(after - before, 0.0) for before, after in pairwise(values)) / (now_seconds - recent[0][0])
