"""Places decoded sound on the clock of its medium. Pure: blocks in, chunks of 16 kHz mono and gaps out.

Sound files break off, overlap themselves, and change their sample rate midway. Whatever reads the sound later counts
samples to know the time, so here holes are filled with silence, overlaps are cut, and a hole too long to fill starts a
new run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from transport.messages import Gap

Samples = npt.NDArray[np.float32]  # [n], mono, -1 to 1

SAMPLE_RATE = 16_000  # what Silero, Whisper and ECAPA take
TOLERANCE_SECONDS = 0.020  # containers round their times: Matroska to 1 ms, FLV and some AVI to a frame
FAULT_TOLERANCE_SECONDS = 0.005  # after a decoding error a hole is expected, the shortest packets hold 10 ms
MERGE_SECONDS = 1.0  # gaps nearer to each other than this are reported as one


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """About a second of sound. A chunk that begins where the one before it ended continues it without a seam."""

    start_seconds: float  # always a whole number of samples from the start of the medium
    samples: Samples  # float32 [n], mono, 16 kHz, -1 to 1

    @property
    def end_seconds(self) -> float:
        return (round(self.start_seconds * SAMPLE_RATE) + len(self.samples)) / SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class SoundBlock:
    """Decoded sound as it comes, in its own sample rate."""

    start_seconds: float | None  # None: where the block before it ended
    rate: int
    samples: Samples


@dataclass(frozen=True)
class Fault:
    """A packet, or a stretch of the file, that could not be read or decoded."""

    message: str
    code: str = "sound-corrupt"  # of the gap that follows; another one when it is not the content's fault


class Resampler(Protocol):
    """Brings a stream from one sample rate to 16 kHz."""

    def push(self, samples: Samples) -> Samples: ...

    def finish(self) -> Samples: ...


@runtime_checkable
class RepeatableResampler(Resampler, Protocol):
    """One that can be brought to any place of a stream without what lies before it."""

    def skip(self, samples: int) -> None: ...

    def held_back(self) -> Samples: ...


class RunState(msgspec.Struct, frozen=True, array_like=True):
    """How far a stretch of sound in one sample rate has come."""

    rate: int
    start_seconds: float
    samples: int  # in its own rate

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + self.samples / self.rate


class TimelineState(msgspec.Struct, frozen=True, array_like=True):
    """Where a timeline stands between two blocks, without the sound that it holds back."""

    cursor: int  # next sample of 16 kHz to give out
    ready: int  # samples behind it that are known already
    run: RunState | None

    @property
    def end_seconds(self) -> float:
        return self.run.end_seconds if self.run else (self.cursor + self.ready) / SAMPLE_RATE


class _Run:
    """Sound without a seam, in one sample rate."""

    def __init__(self, resampler: Resampler, rate: int, start_seconds: float) -> None:
        self.resampler = resampler
        self.rate = rate
        self._start_seconds = start_seconds
        self._samples = 0

    @property
    def end_seconds(self) -> float:
        return self._start_seconds + self._samples / self.rate

    @property
    def state(self) -> RunState:
        return RunState(self.rate, self._start_seconds, self._samples)

    def push(self, samples: Samples) -> Samples:
        self._samples += len(samples)
        return self.resampler.push(samples)

    def skip(self, samples: int) -> None:
        """Go on as if so many samples had been pushed."""
        assert isinstance(self.resampler, RepeatableResampler)
        self._samples = samples
        self.resampler.skip(samples)


class SoundTimeline:
    """Blocks of one sound track in, in the order in which they were decoded; chunks and gaps out.

    `start_seconds` is where sound is expected to begin; what lies before it is cut off.
    Holes up to `max_gap_seconds` become silence.
    """

    def __init__(self, resampler: Callable[[int], Resampler], start_seconds: float, max_gap_seconds: float) -> None:
        self._resampler = resampler
        self._max_gap_seconds = max_gap_seconds
        self._cursor = round(start_seconds * SAMPLE_RATE)  # next sample to give out
        self._run: _Run | None = None
        self._ready: list[Samples] = []  # given out once there is a second of it
        self._fault: Fault | None = None
        self._begun = False

    @property
    def end_seconds(self) -> float:
        """How far sound has come."""
        return self._run.end_seconds if self._run else self._ready_end / SAMPLE_RATE

    @property
    def position(self) -> int:
        """Where the next chunk begins, in samples of 16 kHz."""
        return self._cursor

    def state(self) -> TimelineState | None:
        """Where the timeline stands; None where it cannot be brought to this place again."""
        run = self._run
        if not self._begun or self._fault or (run and not isinstance(run.resampler, RepeatableResampler)):
            return None
        return TimelineState(self._cursor, self._ready_end - self._cursor, run.state if run else None)

    def restore(self, state: TimelineState) -> None:
        """Bring a fresh timeline to a place. What it held back there counts as silence: the first second is wrong."""
        self._cursor, self._begun = state.cursor, True
        self._ready = [np.zeros(state.ready, np.float32)]
        if state.run is not None:
            self._run = _Run(self._resampler(state.run.rate), state.run.rate, state.run.start_seconds)
            self._run.skip(state.run.samples)

    def held_back(self) -> list[Samples]:
        """The sound that chunks to come are made of, as far as it is known. Only where `state` is not None."""
        resampler = self._run.resampler if self._run else None
        return [*self._ready, *([resampler.held_back()] if isinstance(resampler, RepeatableResampler) else [])]

    def fault(self, fault: Fault) -> None:
        """Something was lost here; if a hole follows, this is why."""
        self._fault = fault

    def place(self, block: SoundBlock) -> Iterator[AudioChunk | Gap]:
        """Put a block where its time says."""
        at = self.end_seconds if block.start_seconds is None else block.start_seconds
        hole = at - self.end_seconds
        samples = block.samples
        if hole > self._tolerance():
            yield from self._bridge(at, block.rate)
        elif hole < -self._tolerance():
            samples = samples[min(len(samples), round(-hole * block.rate)) :]
            yield from self._overlap(at, at + (len(block.samples) - len(samples)) / block.rate)
        self._fault = None
        self._begun = self._begun or len(samples) > 0
        yield from self._feed(samples, block.rate)

    def finish(self, expected_end_seconds: float | None) -> Iterator[AudioChunk | Gap]:
        """The rest. Sound that ends before `expected_end_seconds` is a gap; None: the end is not known."""
        yield from self._close_run()
        end = self.end_seconds
        expected = end if expected_end_seconds is None else expected_end_seconds
        reason = self._reason("sound-truncated: the sound ends before the length that the file states")
        if expected - end > (FAULT_TOLERANCE_SECONDS if self._fault else self._max_gap_seconds):
            yield Gap(start_seconds=end, end_seconds=expected, reason=reason)
        elif self._fault and expected_end_seconds is None:  # how much is missing nobody knows
            yield Gap(start_seconds=end, end_seconds=end, reason=reason)

    @property
    def _ready_end(self) -> int:
        return self._cursor + sum(map(len, self._ready))

    def _tolerance(self) -> float:
        if self._run is None:
            return 0.0  # the beginning of a run can be placed exactly
        return FAULT_TOLERANCE_SECONDS if self._fault else TOLERANCE_SECONDS

    def _reason(self, otherwise: str) -> str:
        return f"{self._fault.code}: {self._fault.message}" if self._fault else otherwise

    def _bridge(self, until_seconds: float, rate: int) -> Iterator[AudioChunk | Gap]:
        """Cross a hole: with silence when it is short, else with a new run."""
        start, too_long = self.end_seconds, until_seconds - self.end_seconds > self._max_gap_seconds
        if too_long or self._fault:
            reason = self._reason("sound-missing: the track holds no sound here")
            yield Gap(start_seconds=start, end_seconds=until_seconds, reason=reason)
        if too_long:
            yield from self._close_run()
            self._cursor = max(self._cursor, round(until_seconds * SAMPLE_RATE))
            return
        missing = round((until_seconds - start) * rate)
        for first in range(0, missing, rate):
            yield from self._feed(np.zeros(min(rate, missing - first), np.float32), rate)

    def _overlap(self, start_seconds: float, end_seconds: float) -> Iterator[Gap]:
        if self._begun:  # before that it is what lies before the expected start
            reason = "sound-backwards: times run backwards; sound for a time that already has some is left out"
            yield Gap(start_seconds=start_seconds, end_seconds=end_seconds, reason=reason)

    def _feed(self, samples: Samples, rate: int) -> Iterator[AudioChunk]:
        if self._run is not None and self._run.rate != rate:
            yield from self._close_run()
        if self._run is None:
            self._run = _Run(self._resampler(rate), rate, self._ready_end / SAMPLE_RATE)
        yield from self._give(self._run.push(samples))

    def _give(self, samples: Samples) -> Iterator[AudioChunk]:
        self._ready.append(samples)
        if self._ready_end - self._cursor >= SAMPLE_RATE:
            ready = np.concatenate(self._ready)
            whole = len(ready) // SAMPLE_RATE * SAMPLE_RATE
            self._ready = [ready[whole:]]
            for first in range(0, whole, SAMPLE_RATE):
                yield self._chunk(ready[first : first + SAMPLE_RATE])

    def _chunk(self, samples: Samples) -> AudioChunk:
        start, self._cursor = self._cursor, self._cursor + len(samples)
        return AudioChunk(start / SAMPLE_RATE, samples)

    def _close_run(self) -> Iterator[AudioChunk]:
        if self._run is not None:
            run, self._run = self._run, None
            yield from self._give(run.resampler.finish())
        rest, self._ready = self._ready, []
        if any(map(len, rest)):
            yield self._chunk(np.concatenate(rest))


class GapMerger:
    """Joins neighbouring gaps of one kind: a thousand bad packets make one line of a report and not a thousand."""

    def __init__(self, held: Gap | None = None) -> None:
        self.held = held  # the next gap may join it

    def push(self, item: AudioChunk | Gap) -> list[AudioChunk | Gap]:
        """What is final with this item."""
        done: list[AudioChunk | Gap] = []
        if self.held is not None and item.start_seconds - self.held.end_seconds > MERGE_SECONDS:
            done += self.finish()
        if isinstance(item, AudioChunk):
            done.append(item)
        elif self.held is not None and _kind(self.held) == _kind(item):
            start, end = self.held.start_seconds, self.held.end_seconds
            self.held = Gap(
                start_seconds=min(start, item.start_seconds),
                end_seconds=max(end, item.end_seconds),
                reason=self.held.reason,
            )
        else:
            done += self.finish()
            self.held = item
        return done

    def finish(self) -> list[AudioChunk | Gap]:
        """The last gap."""
        held, self.held = self.held, None
        return [] if held is None else [held]


def _kind(gap: Gap) -> str:
    return gap.reason.partition(":")[0]
