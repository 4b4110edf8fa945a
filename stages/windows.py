"""Cuts speech into windows: up to 30 s, ending in silence, for the speech model; a few lengths for speakers."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
import numpy.typing as npt

from stages.audio import SAMPLE_RATE, AudioChunk, Seam, SoundTrack, open_sound
from stages.checkpoints import SoundState, digest, seal, unseal
from stages.options import DecodeOptions, SpeechOptions, VoiceOptions
from stages.packing import PackerState, Window, WindowPacker, overlap_seconds
from stages.vad import CHUNK_SAMPLES, Samples, SegmenterState, SpeechSegmenter, VoiceActivityDetector
from transport.messages import AudioResume, Gap, MediaInfo

SECTION_SAMPLES = 60 * SAMPLE_RATE  # between checkpoints: what a crash costs at most, of decoding and of inference
BUCKET_STEP_SECONDS = 0.5  # between the lengths of voice windows: few lengths fill batches, many lose little speech

Pcm = npt.NDArray[np.int16]  # [n], mono, 16 kHz


@dataclass(frozen=True, eq=False)
class SpeechWindow:
    """A stretch of sound that holds speech, and where in it."""

    start_seconds: float
    end_seconds: float
    speech: tuple[tuple[float, float], ...]  # detected speech inside the window, seconds of the medium
    pcm: Pcm  # int16 [n], 16 kHz mono, exactly from start to end


@dataclass(frozen=True)
class SoundCheckpoint:
    """A place from which reading can go on as if it had never stopped. All windows before it have been given."""

    end_seconds: float  # no window to come begins before it
    state: bytes  # for AudioResume; empty where only reading from the beginning leads to this place again


class SpeechState(msgspec.Struct, frozen=True, array_like=True):
    """A SpeechRun between two chunks. The sound in its ring is not in it: that is read again, and compared."""

    start: int
    ring_start: int
    ring_samples: int
    ring_digest: bytes
    loudness: bytes  # float32 [n]
    network: bytes
    segmenter: SegmenterState
    packer: PackerState


class SavedPlace(msgspec.Struct, frozen=True, array_like=True):
    """What the bytes of a checkpoint hold."""

    position: int  # sample of 16 kHz
    sound: SoundState
    speech: SpeechState | None  # None: at a hole in the sound


def read_speech_windows(
    path: bytes,
    media: MediaInfo,
    decode: DecodeOptions,
    speech: SpeechOptions,
    resume: AudioResume | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[SpeechWindow | Gap | SoundCheckpoint]:
    """The speech of a sound track in windows of at most `speech.window_seconds`, and what is missing in the sound.

    Windows come in order and never overlap; together they hold every sample of speech that was found. Memory stays at
    about one window, whatever the length of the track. Once in SECTION_SECONDS comes a checkpoint: read with `resume`
    made from it, the track gives exactly what would have followed. A state that leads nowhere (other settings, a
    decoder that is not to be repeated) costs time, not exactness: all is read, and what lies before is left out.

    `progress` is told how many seconds are done, once a second of sound and more often on the way to `resume`. Raises
    MediaError when the file cannot be opened or has no sound track.
    """
    tell = progress or (lambda seconds: None)
    detector = VoiceActivityDetector()
    saved = unseal(resume.state, SavedPlace, repr(speech)) if resume is not None else None
    if saved is not None:
        with open_sound(path, media, decode, speech.max_audio_gap_seconds) as sound:
            reader = SpeechReader(sound, detector, speech, tell)
            if reader.resume(saved):
                yield from reader.items()
                return
    with open_sound(path, media, decode, speech.max_audio_gap_seconds) as sound:
        items = SpeechReader(sound, detector, speech, tell).items()
        yield from items if resume is None else _behind(items, resume.seconds)


def _behind(
    items: Iterator[SpeechWindow | Gap | SoundCheckpoint], seconds: float
) -> Iterator[SpeechWindow | Gap | SoundCheckpoint]:
    """What follows the checkpoint at `seconds`. Without one there, for the settings changed, the windows behind it."""
    for item in items:
        if isinstance(item, SoundCheckpoint) and item.end_seconds >= seconds:
            break
        if isinstance(item, SpeechWindow) and item.start_seconds >= seconds:
            yield item
    yield from items


class SpeechReader:
    """Sound in, windows and checkpoints out."""

    def __init__(
        self,
        sound: SoundTrack,
        detector: VoiceActivityDetector,
        options: SpeechOptions,
        progress: Callable[[float], None],
    ) -> None:
        self._sound = sound
        self._detector = detector
        self._options = options
        self._progress = progress
        self._run: SpeechRun | None = None
        self._due = SECTION_SAMPLES  # where the next checkpoint is to be
        self._told_seconds = 0.0  # by the last checkpoint

    def resume(self, saved: SavedPlace) -> bool:
        """Go to a place; False when that is impossible, and then this reader and its sound are of no more use."""
        speech = saved.speech
        tail = self._sound.resume(saved.sound, speech.ring_samples if speech else 0, self._progress)
        if tail is None:
            return False
        self._due = _due_after(saved.position)
        self._told_seconds = saved.position / SAMPLE_RATE
        if speech is not None:
            self._run = SpeechRun(speech.start, self._detector, self._options)
            self._told_seconds = self._run.restore(speech, tail)
            return self._run.ring_digest() == speech.ring_digest
        return True

    def items(self) -> Iterator[SpeechWindow | Gap | SoundCheckpoint]:
        """All of it."""
        for item in self._sound.items():
            match item:
                case Gap():
                    yield item
                case AudioChunk():
                    yield from self._hear(item)
                case Seam():
                    yield from self._rest(item)
        yield from self._end_run()

    def _hear(self, chunk: AudioChunk) -> Iterator[SpeechWindow]:
        start = round(chunk.start_seconds * SAMPLE_RATE)
        if self._run is not None and self._run.end != start:
            yield from self._end_run()  # behind a hole nothing that was heard before counts any more
        if self._run is None:
            self._run = SpeechRun(start, self._detector, self._options)
        yield from self._run.push(chunk)
        self._progress(chunk.end_seconds)

    def _end_run(self) -> Iterator[SpeechWindow]:
        run, self._run = self._run, None
        if run is not None:
            yield from run.finish()

    def _rest(self, seam: Seam) -> Iterator[SpeechWindow | SoundCheckpoint]:
        if self._run is not None and self._run.end != seam.position:  # a hole lies between
            yield from self._end_run()
        seconds = self._run.needed_seconds if self._run is not None else seam.position / SAMPLE_RATE
        if seam.position >= self._due and seconds > self._told_seconds:
            self._due = _due_after(seam.position)
            self._told_seconds = seconds
            yield SoundCheckpoint(seconds, self._state(seam))

    def _state(self, seam: Seam) -> bytes:
        sound = seam.capture(seam.position if self._run is None else self._run.ring_begin)
        if sound is None:
            return b""
        speech = self._run.state() if self._run is not None else None
        return seal(SavedPlace(seam.position, sound, speech), repr(self._options))


def _due_after(position: int) -> int:
    """Checkpoints keep to a grid, so that those behind one do not depend on where reading began."""
    return (position // SECTION_SAMPLES + 1) * SECTION_SAMPLES


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
        return self.ring_begin + len(self._ring)

    @property
    def ring_begin(self) -> int:
        """The first sample of the medium that is still at hand."""
        return self._start + self._ring_start

    @property
    def needed_seconds(self) -> float:
        """No window to come begins before this time."""
        return self._seconds(self._packer.needed(self._segmenter.settled))

    def state(self) -> SpeechState:
        """Where this run stands."""
        return SpeechState(
            start=self._start,
            ring_start=self._ring_start,
            ring_samples=len(self._ring),
            ring_digest=self.ring_digest(),
            loudness=np.array(self._loudness, np.float32).tobytes(),
            network=self._detector.memory(),
            segmenter=self._segmenter.state,
            packer=self._packer.state,
        )

    def restore(self, state: SpeechState, ring: Samples) -> float:
        """Go on from there, with the sound that was in the ring. Returns `needed_seconds`."""
        self._ring, self._ring_start = to_pcm(ring), state.ring_start
        self._loudness = np.frombuffer(state.loudness, np.float32).tolist()
        self._chunks = state.segmenter.now // CHUNK_SAMPLES
        self._detector.restore(state.network, ring)
        self._segmenter.restore(state.segmenter)
        self._packer.restore(state.packer)
        return self.needed_seconds

    def ring_digest(self) -> bytes:
        """Of the sound at hand."""
        return digest((self._ring,))

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
        if not probabilities:
            return
        first = self._chunks * CHUNK_SAMPLES - self._ring_start
        sound = self._ring[first : first + len(probabilities) * CHUNK_SAMPLES].astype(np.float64)
        energies = np.add.reduceat(sound * sound, np.arange(len(probabilities)) * CHUNK_SAMPLES)  # exact: below 2^39
        loudness = np.array(probabilities) * np.sqrt(energies / CHUNK_SAMPLES)
        self._loudness += loudness.astype(np.float32).tolist()  # a checkpoint holds up to 1,100 of them
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


def parted(window: SpeechWindow, cues: list[tuple[float, float]]) -> Iterator[SpeechWindow]:
    """The window in parts, by turns of segments of speech that a caption's cue touches and of those that none does."""
    for _, segments in groupby(window.speech, key=lambda span: overlap_seconds((span,), cues) > 0):
        speech = tuple(segments)
        start, end = speech[0][0], speech[-1][1]
        first, last = (round((at - window.start_seconds) * SAMPLE_RATE) for at in (start, end))
        yield SpeechWindow(start, end, speech, window.pcm[first:last])


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
