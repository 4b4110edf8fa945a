"""Work for the simulated engine: videos of given lengths as the messages that decoders would send, and light models.

Payloads have their real sizes (frames of 224 x 224, windows of up to 30 s), but all show the same zeros.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stages.base import Role, SpeechInput, TextSegment, Transcript
from stages.options import VoiceOptions
from stages.windows import voice_windows
from transport.messages import ArraySpec, Frame, Message, ModelInfo, Speech, TaskEnd, TaskKey, TaskStart, Word

FRAME = ArraySpec(dtype="uint8", shape=(224, 224, 3))
PCM = ArraySpec(dtype="int16", shape=(480_000,))
LARGE_FRAME = ArraySpec(dtype="uint8", shape=(2240, 224, 3))
_FRAME_BYTES, _LARGE_BYTES, _PCM_BYTES = (memoryview(bytes(size)) for size in (150_528, 1_505_280, 960_000))
HEADER_BYTES = 120  # of a message besides its array, roughly
SPAN_SECONDS = 60.0  # as decode.span_seconds
WINDOW_SECONDS = 30.0
FRAME_DECODE_SECONDS = 0.0054  # 720p H.264, one frame a second, PyAV without non-reference frames: docs/measurements
WINDOW_DECODE_SECONDS = (
    17.3 / 120
)  # AAC stereo with voice detection, CPU seconds for 30 s, as first measured; docs/speech.md has 15.2
# Speech in a window, seconds from its start: one long turn, or one and three short ones.
PATTERNS: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.0, 30.0),),
    ((0.0, 24.0), (24.1, 25.8), (26.0, 27.7), (28.0, 29.7)),
)
VOICES = tuple(len(voice_windows(pattern, VoiceOptions())) for pattern in PATTERNS)  # voice windows: 19, 21
DIMENSIONS: dict[Role, int] = {"image": 768, "speech": 0, "text": 1024, "voice": 192}
PROBE_LENGTHS: dict[Role, int] = {"image": 0, "speech": 0, "text": 512, "voice": 48_000}
MAX_BATCH: dict[Role, int] = {"image": 512, "speech": 32, "text": 512, "voice": 256}  # as the real models have them


class Sent:
    """A message with its array, what it takes of a decoder's credit, and of its time."""

    __slots__ = ("cost_bytes", "message", "payload", "seconds")

    def __init__(self, message: Message, payload: memoryview | None = None, seconds: float = 0.0) -> None:
        self.message = message
        self.payload = payload
        self.cost_bytes = HEADER_BYTES + (payload.nbytes if payload is not None else 0)
        self.seconds = seconds


@dataclass(frozen=True)
class Video:
    """A video with a frame a second and speech throughout."""

    name: str
    frames: int
    patterns: tuple[int, ...] = ()  # of its windows of sound, by number
    large: int | None = None  # the frame that is ten times the others

    @property
    def voices(self) -> int:
        """Its voice windows."""
        return sum(VOICES[pattern] for pattern in self.patterns)

    @property
    def points(self) -> dict[str, int]:
        """What must come of it, by collection."""
        counts = {"frames": self.frames, "speech": len(self.patterns) * len(PHRASES), "voices": self.voices}
        return {collection: count for collection, count in counts.items() if count}


def video(name: str, minutes: float) -> Video:
    """One of that length, with pictures and sound."""
    windows = round(minutes * 60 / WINDOW_SECONDS)
    return Video(name, round(minutes * 60), tuple(number % 2 for number in range(windows)))


def archive(count: int, minutes: tuple[float, float], seed: int = 0) -> list[Video]:
    """Videos of random lengths."""
    chance = random.Random(seed)
    return [video(f"video {number}", chance.uniform(*minutes)) for number in range(count)]


@dataclass(frozen=True)
class Work:
    """One task of a decoder."""

    task_id: int
    video: Video
    kind: Literal["frames", "audio"]
    first: int  # frames, or windows
    last: int

    def messages(self, attempt: int) -> Iterator[Sent]:
        """What a decoder sends."""
        key = TaskKey(self.task_id, attempt)
        yield Sent(TaskStart(key=key, video_id=self.video.name, shown_path=self.video.name))
        make = _frame if self.kind == "frames" else _window
        for number in range(self.first, self.last):
            yield make(key, self.video, number)
        yield Sent(TaskEnd(key=key, items=self.last - self.first, gaps=()))


def _frame(key: TaskKey, of: Video, number: int) -> Sent:
    array, payload = (LARGE_FRAME, _LARGE_BYTES) if number == of.large else (FRAME, _FRAME_BYTES)
    frame = Frame(key=key, start_seconds=float(number), end_seconds=number + 1.0, array=array)
    return Sent(frame, payload, FRAME_DECODE_SECONDS)


def _window(key: TaskKey, of: Video, number: int) -> Sent:
    start = number * WINDOW_SECONDS
    speech = Speech(
        key=key,
        start_seconds=start,
        end_seconds=start + WINDOW_SECONDS,
        speech=tuple((start + first, start + last) for first, last in PATTERNS[of.patterns[number]]),
        captioned_seconds=0.0,
        transcribe=True,
        voices=True,
        array=PCM,
    )
    return Sent(speech, _PCM_BYTES, WINDOW_DECODE_SECONDS)


def tasks(videos: Sequence[Video]) -> list[Work]:
    """The tasks of some videos, in the order in which they are handed out."""
    found: list[Work] = []
    span = round(SPAN_SECONDS)
    for each in videos:
        if each.patterns:
            found.append(Work(len(found), each, "audio", 0, len(each.patterns)))
        for first in range(0, each.frames, span):
            found.append(Work(len(found), each, "frames", first, min(first + span, each.frames)))
    return found


# --- models that take no time of their own ----------------------------------------------------------------------------

PHRASES = ("yes", "and then we went on to the next one", "that is how it was", "so") * 2
TRANSCRIPT = Transcript(
    "en",
    1.0,
    tuple(
        TextSegment(
            start_seconds=3.5 * number,
            end_seconds=3.5 * number + 3.0,
            text=f" {text}",
            words=tuple(Word(3.5 * number, 3.5 * number + 0.3, word) for word in text.split()),
            average_logprob=-0.2,
            no_speech_probability=0.0,
            compression_ratio=1.2,
        )
        for number, text in enumerate(PHRASES)
    ),
)


class LightModel:
    """Behind the protocol of models: results of the right shapes, at once. The simulated one adds costs."""

    precision = "none"
    outside_torch = False

    def __init__(self, role: Role) -> None:
        dimension = DIMENSIONS[role]
        self.info = ModelInfo(role=role, name=f"light-{role}", revision="0", dimension=dimension, untrained=True)
        self.max_batch = MAX_BATCH[role]
        self.probe_length = PROBE_LENGTHS[role]
        self._result = TRANSCRIPT if role == "speech" else np.full(dimension, dimension**-0.5, np.float32)

    def run(self, batch: Sequence[Any]) -> list[Any]:
        """The same result for each."""
        return [self._result] * len(batch)

    def probe(self, count: int) -> None:
        """Nothing to be measured."""

    def length_of(self, item: Any) -> int:
        """As the real models have it."""
        if isinstance(item, str):
            return min(len(item.encode()), self.probe_length)
        return len(item) if self.probe_length else 0

    def bytes_of(self, item: Any) -> int:
        """As the real models have it."""
        if isinstance(item, str):
            return len(item.encode())
        return item.pcm.nbytes if isinstance(item, SpeechInput) else int(item.nbytes)

    def park(self, keep: bool) -> None:
        """It is nowhere."""

    def restore(self) -> None:
        """It was nowhere."""

    def unload(self) -> None:
        """It holds nothing."""
