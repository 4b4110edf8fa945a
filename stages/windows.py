"""Cuts speech into windows: up to 30 s, ending in silence, for the speech model; a few lengths for speakers."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.audio import SAMPLE_RATE, AudioChunk, read_audio
from stages.options import DecodeOptions, SpeechOptions, VoiceOptions
from stages.packing import Window, WindowPacker
from stages.vad import CHUNK_SAMPLES, Samples, SpeechSegmenter, VoiceActivityDetector
from transport.messages import Gap, MediaInfo

BUCKET_STEP_SECONDS = 0.5  # between the lengths of voice windows: few lengths fill batches, many lose little speech

Pcm = npt.NDArray[np.int16]  # [n], mono, 16 kHz


@dataclass(frozen=True, eq=False)
class SpeechWindow:
    """A stretch of sound that holds speech, and where in it."""

    start_seconds: float
    end_seconds: float
    speech: tuple[tuple[float, float], ...]  # detected speech inside the window, seconds of the medium
    pcm: Pcm  # int16 [n], 16 kHz mono, exactly from start to end


def read_speech_windows(
    path: bytes,
    media: MediaInfo,
    decode: DecodeOptions,
    speech: SpeechOptions,
    start_seconds: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[SpeechWindow | Gap]:
    """The speech of a sound track in windows of at most `speech.window_seconds`, and what is missing in the sound.

    Windows come in order and never overlap; together they hold every sample of speech that was found. Memory stays at
    about one window, whatever the length of the track. `progress` is told how many seconds are done, about once a
    second of sound. Raises MediaError when the file cannot be opened or has no sound track.
    """
    detector = VoiceActivityDetector()
    run: SpeechRun | None = None
    for item in read_audio(path, media, decode, start_seconds, speech.max_audio_gap_seconds):
        if isinstance(item, Gap):
            yield item
            continue
        start = round(item.start_seconds * SAMPLE_RATE)
        if run is None or run.end != start:  # behind a hole nothing that was heard before counts any more
            if run is not None:
                yield from run.finish()
            run = SpeechRun(start, detector, speech)
        yield from run.push(item)
        if progress is not None:
            progress(item.end_seconds)
    if run is not None:
        yield from run.finish()


class SpeechRun:
    """Sound without a hole: voice detection, segments, windows, and a ring of the sound that windows may still need."""

    def __init__(self, start: int, detector: VoiceActivityDetector, options: SpeechOptions) -> None:
        detector.reset()
        self._start = start  # of the run, in samples of the medium; all other positions count from here
        self._detector = detector
        self._segmenter = SpeechSegmenter(options)
        self._packer = WindowPacker(int(options.window_seconds * SAMPLE_RATE), self._quietest)
        self._ring = np.zeros(0, np.int16)
        self._ring_start = 0
        self._loudness: list[float] = []  # of each chunk in the ring: probability of speech times RMS
        self._chunks = 0  # chunks whose loudness is known

    @property
    def end(self) -> int:
        """The sample of the medium that continues this run."""
        return self._start + self._ring_start + len(self._ring)

    def push(self, chunk: AudioChunk) -> list[SpeechWindow]:
        """Windows that are complete with this chunk."""
        self._ring = np.concatenate((self._ring, to_pcm(chunk.samples)))
        probabilities = self._detector.push(chunk.samples)
        self._measure(probabilities)
        segments = self._segmenter.push(probabilities)
        windows = self._packer.update(segments, self._segmenter.open_segment, self._segmenter.settled)
        done = [self._cut_out(window) for window in windows]
        self._forget(self._packer.needed(self._segmenter.settled))
        return done

    def finish(self) -> list[SpeechWindow]:
        """The windows that the end of the run leaves."""
        total = self._ring_start + len(self._ring)
        probabilities = self._detector.finish()
        self._measure(probabilities)
        segments = self._segmenter.finish(probabilities, total)
        return [self._cut_out(window) for window in self._packer.finish(segments)]

    def _measure(self, probabilities: Sequence[float]) -> None:
        first = self._chunks * CHUNK_SAMPLES - self._ring_start
        for index, probability in enumerate(probabilities):
            begin = first + index * CHUNK_SAMPLES
            sound = self._ring[begin : begin + CHUNK_SAMPLES].astype(np.float32)
            self._loudness.append(probability * math.sqrt(float(np.dot(sound, sound)) / CHUNK_SAMPLES))
        self._chunks += len(probabilities)

    def _quietest(self, earliest: int, latest: int) -> int:
        """Where to cut a speaker who does not pause: amid the chunk that, with its neighbours, is least of speech."""
        first, last = math.ceil(earliest / CHUNK_SAMPLES), latest // CHUNK_SAMPLES - 2  # neighbours end before `latest`
        offset = self._chunks - len(self._loudness)

        def loudness(chunk: int) -> float:
            return sum(self._loudness[chunk - 1 - offset : chunk + 2 - offset])

        return min(range(first, last + 1), key=loudness) * CHUNK_SAMPLES + CHUNK_SAMPLES // 2

    def _forget(self, before: int) -> None:
        """Let go of sound that no window can need. By whole chunks, and one more, which _quietest may look at."""
        chunks = max(0, before // CHUNK_SAMPLES - 1 - self._ring_start // CHUNK_SAMPLES)
        self._ring = self._ring[chunks * CHUNK_SAMPLES :]
        self._ring_start += chunks * CHUNK_SAMPLES
        del self._loudness[:chunks]

    def _cut_out(self, window: Window) -> SpeechWindow:
        start, end = window.span
        return SpeechWindow(
            start_seconds=self._seconds(start),
            end_seconds=self._seconds(end),
            speech=tuple((self._seconds(first), self._seconds(last)) for first, last in window.speech),
            pcm=self._ring[start - self._ring_start : end - self._ring_start].copy(),
        )

    def _seconds(self, position: int) -> float:
        return (self._start + position) / SAMPLE_RATE


def to_pcm(samples: Samples) -> Pcm:
    """float32 in -1 to 1 as int16; divide by 32768 to go back."""
    scaled = np.rint(samples * np.float32(32768.0))
    pcm: Pcm = scaled.clip(-32768, 32767).astype(np.int16)
    return pcm


# --- windows for the speaker model ----------------------------------------------------------------------------------


def voice_windows(speech: Sequence[tuple[float, float]], options: VoiceOptions) -> tuple[tuple[float, float], ...]:
    """Windows (start, end) in seconds that cover every segment of `min_seconds` and longer, and nothing but segments.

    Within a segment all windows have one length: the largest of `window_lengths` that fits. So all windows of all
    videos fall into a few lengths, and each length can be batched without padding, which would change the embedding.
    Windows begin `hop_seconds` apart (less if they are shorter than that); the last one is aligned to the end of the
    segment. Times are whole samples of 16 kHz; the parts of a sample at a segment's ends are given up.
    """
    lengths = [round(seconds * SAMPLE_RATE) for seconds in window_lengths(options)]
    hop = max(1, round(options.hop_seconds * SAMPLE_RATE))
    windows: list[tuple[float, float]] = []
    for start_seconds, end_seconds in speech:
        start, end = math.ceil(start_seconds * SAMPLE_RATE - 1e-3), math.floor(end_seconds * SAMPLE_RATE + 1e-3)
        length = next((length for length in lengths if length <= end - start), None)
        if length is not None:
            starts = [*range(start, end - length, min(hop, length)), end - length]
            windows += [(first / SAMPLE_RATE, (first + length) / SAMPLE_RATE) for first in starts]
    return tuple(windows)


def window_lengths(options: VoiceOptions) -> tuple[float, ...]:
    """Lengths of voice windows in seconds, longest first: `window_seconds`, less by 0.5 s, …, `min_seconds`."""
    shortest = min(options.min_seconds, options.window_seconds)
    steps = math.ceil((options.window_seconds - shortest) / BUCKET_STEP_SECONDS - 1e-9)
    return (*(options.window_seconds - BUCKET_STEP_SECONDS * step for step in range(steps)), shortest)
