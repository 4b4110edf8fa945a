"""Voice activity detection: which stretches of a sound track hold speech.

`VoiceActivityDetector` runs the Silero network (version 6, MIT licence, https://github.com/snakers4/silero-vad), the
copy that ships inside faster-whisper. It is found without importing faster-whisper, which would bring CTranslate2 into
every decoder. `SpeechSegmenter` turns its probabilities into segments with the rules of Silero's own
`get_speech_timestamps`. Both work on streams: whatever the sizes of the pieces, the result is that of the whole signal
at once.
"""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stages.errors import ModelError
from stages.options import SpeechOptions

Samples = npt.NDArray[np.float32]  # [n], mono, 16 kHz, -1 to 1
Segment = tuple[int, int]  # [begin, end) in samples

CHUNK_SAMPLES = 512  # 32 ms at 16 kHz: what the network was trained on
CONTEXT_SAMPLES = 64  # the end of the chunk before, which the network sees in front of each chunk
HYSTERESIS = 0.15  # Silero's: speech ends only when its probability falls this far below the threshold
_STATE_SIZE = 128  # of the network's recurrent layer
_MAX_CHUNKS_A_RUN = 64  # 2 s: bounds the memory of a run


def silero_path() -> Path:
    """Where the network's file lies. Raises ModelError when faster-whisper, which carries it, is not installed."""
    found = importlib.util.find_spec("faster_whisper")
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            "no-voice-detector", "faster-whisper, which carries the voice detector, is missing: install it"
        )
    path = Path(found.submodule_search_locations[0]) / "assets" / "silero_vad_v6.onnx"
    if not path.is_file():
        raise ModelError("no-voice-detector", f"{path} is missing: install faster-whisper==1.2.1, which carries it")
    return path


class VoiceActivityDetector:
    """Probability of speech for each 32 ms of a stream of sound. 2 MB of weights, one CPU thread."""

    def __init__(self) -> None:
        self._session = _session(silero_path())
        self.reset()

    def reset(self) -> None:
        """Forget the stream so far."""
        self._hidden = np.zeros((1, 1, _STATE_SIZE), np.float32)
        self._cell = np.zeros((1, 1, _STATE_SIZE), np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._rest = np.zeros(0, np.float32)  # less than a chunk

    def memory(self) -> bytes:
        """What the network remembers of the stream: its recurrent state, float32 [2, 128]. Less than a chunk of sound
        is not in it."""
        return np.stack((self._hidden, self._cell)).tobytes()

    def restore(self, memory: bytes, heard: Samples) -> None:
        """Go on where `memory` was taken. `heard`: the sound before, at least 64 samples and those of the last,
        incomplete chunk; its length tells how many those are, for it begins with a chunk."""
        self._hidden, self._cell = np.frombuffer(memory, np.float32).reshape(2, 1, 1, _STATE_SIZE).copy()
        whole = len(heard) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self._rest = heard[whole:].copy()
        if whole:
            self._context = heard[whole - CONTEXT_SAMPLES : whole].copy()

    def push(self, samples: Samples) -> list[float]:
        """Probabilities of the chunks that these samples complete."""
        stream = np.concatenate((self._rest, samples))
        chunks = len(stream) // CHUNK_SAMPLES
        self._rest = stream[chunks * CHUNK_SAMPLES :].copy()
        probabilities: list[float] = []
        for first in range(0, chunks, _MAX_CHUNKS_A_RUN):
            last = min(first + _MAX_CHUNKS_A_RUN, chunks)
            probabilities += self._run(stream[first * CHUNK_SAMPLES : last * CHUNK_SAMPLES])
        return probabilities

    def finish(self) -> list[float]:
        """Probability of the last, incomplete chunk, if there is one; it is filled up with silence."""
        missing = -len(self._rest) % CHUNK_SAMPLES
        return self.push(np.zeros(missing, np.float32))

    def _run(self, samples: Samples) -> list[float]:
        chunks = samples.reshape(-1, CHUNK_SAMPLES)
        before = np.concatenate((self._context[None], chunks[:-1, -CONTEXT_SAMPLES:]))
        self._context = chunks[-1, -CONTEXT_SAMPLES:].copy()
        inputs = {"input": np.concatenate((before, chunks), axis=1), "h": self._hidden, "c": self._cell}
        output, self._hidden, self._cell = self._session.run(None, inputs)
        return [float(probability) for probability in output.reshape(-1)]


def _session(path: Path) -> Any:
    import onnxruntime  # here, not above: processes that only plan windows need not load it

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena only grows
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SegmenterState(msgspec.Struct, frozen=True, array_like=True):
    """Where a segmenter stands; the fields are its own."""

    now: int
    start: int | None
    quiet: int | None
    last_end: int | None
    held: Segment | None


class SpeechSegmenter:
    """Probabilities of 32 ms chunks in, segments of speech out. Positions are samples from the start of the stream.

    A segment begins with a chunk at or above `vad_threshold`. It ends where the probability fell below the threshold
    less 0.15 and did not reach the threshold again for `min_silence_ms`. Segments not longer than `min_speech_ms` are
    dropped. The others are widened by `pad_ms` on both sides, or to the middle of the silence between them if that is
    shorter.
    """

    def __init__(self, options: SpeechOptions) -> None:
        self._threshold = options.vad_threshold
        self._low = max(options.vad_threshold - HYSTERESIS, 0.01)
        self._min_speech = options.min_speech_ms * 16
        self._min_silence = options.min_silence_ms * 16
        self._pad = options.pad_ms * 16
        self._now = 0  # samples seen, in whole chunks
        self._total = sys.maxsize  # samples of the whole stream, once it has ended
        self._start: int | None = None  # of the speech that goes on now, without padding
        self._quiet: int | None = None  # since when it is below the low threshold
        self._last_end: int | None = None  # of the last segment, without padding
        self._held: Segment | None = None  # the last segment, until the silence behind it is known to hold the padding

    def push(self, probabilities: Iterable[float]) -> list[Segment]:
        """Segments, padded, that are final with these further chunks."""
        done: list[Segment] = []
        for probability in probabilities:
            self._step(probability)
            done += self._release()
        return done

    def finish(self, probabilities: Iterable[float], total_samples: int) -> list[Segment]:
        """The last segments. These are the last chunks of a stream of `total_samples`; one may be incomplete."""
        self._total = total_samples
        done = self.push(probabilities)
        if self._start is not None and total_samples - self._start > self._min_speech:
            done += self._hold((self._start, total_samples))
        if self._held is not None:
            done.append((self._held[0], min(total_samples, self._held[1] + self._pad)))
        self._held = self._start = self._quiet = None
        return done

    @property
    def state(self) -> SegmenterState:
        """Where it stands, before the end of the stream is known."""
        return SegmenterState(self._now, self._start, self._quiet, self._last_end, self._held)

    def restore(self, state: SegmenterState) -> None:
        """Go on from there."""
        self._now, self._start, self._quiet = state.now, state.start, state.quiet
        self._last_end, self._held = state.last_end, state.held

    @property
    def open_segment(self) -> Segment | None:
        """A segment that goes on: its padded begin, and the end up to which it is sure to be speech."""
        if self._start is None or not self._is_speech():
            return None
        return self._padded_start(self._start), self._sure_end()

    @property
    def settled(self) -> int:
        """No segment that is still to come begins before this sample."""
        if self._held is not None:
            return self._held[0]
        return self._padded_start(self._now if self._start is None else self._start)

    def _step(self, probability: float) -> None:
        at, self._now = self._now, self._now + CHUNK_SAMPLES
        if probability >= self._threshold:
            self._quiet = None
            if self._start is None:
                self._start = at
        elif probability < self._low and self._start is not None:
            self._quiet = at if self._quiet is None else self._quiet
            if at - self._quiet >= self._min_silence:
                self._close()

    def _close(self) -> None:
        assert self._start is not None
        if self._is_speech():  # then _release has already let go of the segment before
            self._held = (self._padded_start(self._start), self._sure_end())
            self._last_end = self._sure_end()
        self._start = self._quiet = None

    def _hold(self, last: Segment) -> list[Segment]:
        """Take the last segment of the stream; the one before it is thereby final."""
        before = [] if self._held is None else [self._padded_end(self._held, last[0])]
        self._held = (self._padded_start(last[0]), last[1])
        return before

    def _release(self) -> list[Segment]:
        """The held segment, once what follows cannot change its padding any more."""
        if self._held is None:
            return []
        follows = self._now if self._start is None else self._start
        if follows - self._held[1] < 2 * self._pad and not (self._start is not None and self._is_speech()):
            return []
        done, self._held = [self._padded_end(self._held, follows)], None
        return done

    def _is_speech(self) -> bool:
        return self._start is not None and self._sure_end() - self._start > self._min_speech

    def _sure_end(self) -> int:
        return min(self._total, self._now) if self._quiet is None else self._quiet

    def _padded_start(self, start: int) -> int:
        if self._last_end is None:
            return max(0, start - self._pad)
        return start - min(self._pad, (start - self._last_end) // 2)

    def _padded_end(self, segment: Segment, follows: int) -> Segment:
        return segment[0], segment[1] + min(self._pad, (follows - segment[1]) // 2)
