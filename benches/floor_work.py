"""What the two halves of the floor share: what they are asked, what they answer, and the work as it lies between them.

`benches.floor_decode` writes the work once (frames, windows of speech), `benches.floor_models` reads it whole before
its clock starts. Both say how long they took as user and system time, by parts, with their start-up apart.
"""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray


class Job(msgspec.Struct, frozen=True):
    """What a process of the floor is asked."""

    settings: tuple[str, ...]  # KEY=VALUE, as `run.py --set`
    media: tuple[str, ...] = ()  # decode-only
    warm_up: str | None = None  # decode-only: a medium that is read before the clock starts
    record: str | None = None  # directory: decode-only writes the work there, model-only reads it there
    batches: dict[str, int] = {}  # model-only: items of a batch by role; engine.*_batch where it is not named
    threads: tuple[int, ...] = ()  # model-only: a pass over all work with each of these numbers


class Time(msgspec.Struct, frozen=True):
    """What something took in one process, all its threads together."""

    wall_seconds: float
    user_seconds: float
    system_seconds: float

    @property
    def cpu_seconds(self) -> float:
        return self.user_seconds + self.system_seconds


class Part(msgspec.Struct, frozen=True):
    """One task of a decoder, or all batches of one model."""

    name: str  # "frames" | "sound", or a model's role
    time: Time
    items: int
    batches: int = 0
    medium: str = ""  # of a task


class Pass(msgspec.Struct, frozen=True):
    """Once over all work."""

    time: Time
    parts: tuple[Part, ...]
    threads: int = 1  # of each library

    def part_seconds(self, name: str) -> float:
        """Processor time of all parts of a name."""
        return sum(part.time.cpu_seconds for part in self.parts if part.name == name)


class Answer(msgspec.Struct, frozen=True):
    """What a process of the floor prints as JSON."""

    start: Time  # imports, loading models, and what is done for the first time only
    passes: tuple[Pass, ...]
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Instant:
    """The three clocks of this process."""

    wall: float
    user: float
    system: float

    @classmethod
    def now(cls) -> "Instant":
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), usage.ru_utime, usage.ru_stime)

    def until(self, later: "Instant") -> Time:
        return Time(later.wall - self.wall, later.user - self.user, later.system - self.system)

    def passed(self) -> Time:
        """Since then."""
        return self.until(Instant.now())


class WindowIndex(msgspec.Struct, frozen=True):
    """Where a window of speech lies in the recorded sound, and what the decoder says of it."""

    medium: str
    first: int
    samples: int
    start_seconds: float
    end_seconds: float
    speech: tuple[tuple[float, float], ...]


class FrameIndex(msgspec.Struct, frozen=True):
    """Which frame it is."""

    medium: str
    start_seconds: float


class Index(msgspec.Struct, frozen=True):
    """What lies where."""

    frames: list[FrameIndex]
    windows: list[WindowIndex]


@dataclass(frozen=True)
class Work:
    """Everything that the models get, in memory."""

    frames: NDArray[np.uint8]  # [n, height, width, 3]
    sound: NDArray[np.int16]  # all windows, one behind the other
    index: Index

    @classmethod
    def load(cls, directory: Path) -> "Work":
        index = msgspec.json.decode((directory / "index.json").read_bytes(), type=Index)
        return cls(np.load(directory / "frames.npy"), np.load(directory / "sound.npy"), index)

    def pcm(self, window: WindowIndex) -> NDArray[np.int16]:
        """The sound of one window: int16 [samples]."""
        return self.sound[window.first : window.first + window.samples]


class Recorder:
    """Gathers the work of a decode-only run, and writes it as a `Work`."""

    def __init__(self) -> None:
        self._frames: list[NDArray[np.uint8]] = []
        self._sound: list[NDArray[np.int16]] = []
        self._index = Index([], [])
        self._samples = 0

    def frame(self, medium: str, start_seconds: float, pixels: NDArray[np.uint8]) -> None:
        """uint8 [height, width, 3]."""
        self._frames.append(pixels.copy())
        self._index.frames.append(FrameIndex(medium, start_seconds))

    def window(
        self, medium: str, span: tuple[float, float], speech: tuple[tuple[float, float], ...], pcm: NDArray[np.int16]
    ) -> None:
        """int16 [samples], 16 kHz."""
        self._sound.append(pcm.copy())
        self._index.windows.append(WindowIndex(medium, self._samples, len(pcm), *span, speech))
        self._samples += len(pcm)

    def save(self, directory: Path) -> None:
        """frames.npy, sound.npy and index.json. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "frames.npy", np.stack(self._frames) if self._frames else np.zeros((0, 1, 1, 3), np.uint8))
        np.save(directory / "sound.npy", np.concatenate(self._sound) if self._sound else np.zeros(0, np.int16))
        (directory / "index.json").write_bytes(msgspec.json.encode(self._index))


def read_job() -> Job:
    """From standard input."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=Job)


def answer(start: Time, passes: list[Pass]) -> None:
    """To standard output, as its last line."""
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(msgspec.json.encode(Answer(start, tuple(passes), peak_bytes)).decode() + "\n")
    sys.stdout.flush()
