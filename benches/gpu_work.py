"""The work of a GPU bench: what decoders make of a medium, recorded once, so that it can be fed without them.

Frames at one a second and at key frames, windows of speech, and the processor time that decoding took: all from
`benches.floor_decode`, which does what a decoder process does.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from benches.corpus import footage, lengthened, media_seconds
from benches.floor_decode import NoRecorder, Tasks
from benches.floor_work import FrameIndex, Index, Instant, Pass, Recorder, WindowIndex, Work
from engine.config import load_config
from stages.options import ModelOptions
from stages.registry import OFF
from stages.torchaudio_shim import import_torchaudio
from transport.codec import cost_of, encode, spec_of
from transport.messages import Frame, Message, Speech, TaskEnd, TaskKey, TaskStart

SAMPLINGS = ("keyframes", "fps")
FOOTAGE_HOURS = 2 / 60  # of generated footage
SOUND_OFF = ("models.speech=off", "models.text=off", "models.voice=off")
CHUNK_SECONDS = 60.0  # of a task that is fed, as of a decoder's

TASKS_A_VIDEO = 60
NO_KEY = TaskKey(0, 0)

Array = NDArray[Any]
Given = tuple[Message, Array | None, int]


class Facts(msgspec.Struct, frozen=True):
    """What the recorded work is, in numbers."""

    medium: str
    media_seconds: float
    frames: dict[str, int]  # by sampling
    windows: int  # of speech
    speech_seconds: float  # in the windows
    cpu_seconds: dict[str, float]  # of decoding, by sampling, sound included

    def cpu_seconds_an_hour(self, sampling: str) -> float:
        """Processor seconds of decoding an hour of such media."""
        return self.cpu_seconds[sampling] * 3600 / self.media_seconds


def medium_of(named: Path | None, directory: Path) -> Path:
    """The medium that was named, or some minutes of generated footage."""
    source = footage(named, directory)
    return source if named is not None else lengthened(source, directory, FOOTAGE_HOURS)


def record(medium: Path, settings: Sequence[str], directory: Path) -> Facts:
    """Decode it with each sampling, write down below `directory` what came of it, for `recorded`; decode it again for
    the time. Raises SluiceError when it cannot be decoded.
    """
    import_torchaudio()  # as a decoder does before it is ready
    with_sound = _decoded(medium, (*settings, "decode.sampling=keyframes"), directory / "keyframes")
    frames = _decoded(medium, (*settings, *SOUND_OFF, "decode.sampling=fps"), directory / "fps")
    works = {sampling: recorded(directory, sampling) for sampling in SAMPLINGS}
    windows, sound = works["keyframes"].index.windows, with_sound.part_seconds("sound")
    return Facts(
        medium=medium.name,
        media_seconds=media_seconds(medium),
        frames={sampling: len(work.frames) for sampling, work in works.items()},
        windows=len(windows),
        speech_seconds=sum(end - start for each in windows for start, end in each.speech),
        cpu_seconds={
            "keyframes": with_sound.part_seconds("frames") + sound,
            "fps": frames.part_seconds("frames") + sound,
        },
    )


def _decoded(medium: Path, settings: Sequence[str], directory: Path) -> Pass:
    """What it costs when nothing is kept; before, it is kept."""
    config, recorder = load_config(settings=settings), Recorder()
    list(Tasks(config, recorder).of(str(medium)))
    recorder.save(directory)
    begun = Instant.now()
    parts = tuple(Tasks(config, NoRecorder()).of(str(medium)))
    return Pass(begun.passed(), parts)


def recorded(directory: Path, sampling: str) -> Work:
    """What was recorded: frames as sampled, and the windows of speech."""
    work, sound = Work.load(directory / sampling), Work.load(directory / "keyframes")
    return Work(work.frames, sound.sound, Index(work.index.frames, sound.index.windows))


def corpus(medium: Path, hours: float, files: int, directory: Path) -> list[Path]:
    """So many Matroska files of equal length, of about so many hours in all, of whole copies of the medium.

    All but the first end with an empty element of their own: files of the same content would be indexed once.
    """
    directory.mkdir(parents=True, exist_ok=True)
    first = lengthened(medium, directory, hours / files, ".mkv")
    copies = [Path(shutil.copyfile(first, directory / f"{number}-{first.name}")) for number in range(1, files)]
    for number, copy in enumerate(copies, 1):
        with copy.open("ab") as file:
            file.write(void_element(number))
    return [first, *copies]


def void_element(number: int) -> bytes:
    """Eight bytes that a reader of Matroska passes over, different for each number (RFC 8794, section 11.3.2). Pure."""
    return b"\xec\x86" + number.to_bytes(6, "big")


# --- messages ---------------------------------------------------------------------------------------------------------


class Sent(msgspec.Struct, frozen=True):
    """One message of a decoder, with what it carries, at its place in the medium."""

    message: Frame | Speech
    array: Array
    cost_bytes: int

    def moved(self, key: TaskKey, seconds: float) -> Frame | Speech:
        """The same, later, in another task."""
        start, end = self.message.start_seconds + seconds, self.message.end_seconds + seconds
        later = msgspec.structs.replace(self.message, key=key, start_seconds=start, end_seconds=end)
        if isinstance(later, Speech):
            speech = tuple((begin + seconds, finish + seconds) for begin, finish in later.speech)
            later = msgspec.structs.replace(later, speech=speech)
        return later


def messages_of(work: Work, models: ModelOptions) -> list[Sent]:
    """The work as decoders send it for these models, in the order of the medium."""
    sent = [_sent(_frame(each, pixels), pixels) for each, pixels in zip(work.index.frames, work.frames, strict=True)]
    for window in work.index.windows if (models.speech, models.voice) != (OFF, OFF) else ():
        pcm = work.pcm(window)
        sent.append(_sent(_speech(window, pcm, models), pcm))
    return sorted(sent, key=lambda each: each.message.start_seconds)


def _sent(message: Frame | Speech, array: Array) -> Sent:
    return Sent(message, array, cost_of(encode(message), array))


def _frame(frame: FrameIndex, pixels: Array) -> Frame:
    start = frame.start_seconds
    return Frame(key=NO_KEY, start_seconds=start, end_seconds=start, array=spec_of(pixels))


def _speech(window: WindowIndex, pcm: Array, models: ModelOptions) -> Speech:
    return Speech(
        key=NO_KEY,
        start_seconds=window.start_seconds,
        end_seconds=window.end_seconds,
        speech=window.speech,
        captioned_seconds=0.0,
        transcribe=models.speech != OFF,
        voices=models.voice != OFF,
        array=spec_of(pcm),
    )


class Stream:
    """The medium over and over, in tasks of CHUNK_SECONDS: message, array, bytes of credit. A task is begun before the
    one before it ends, so that the engine always expects more.
    """

    def __init__(
        self, items: Sequence[Sent], medium_seconds: float, most_seconds: float, is_over: Callable[[], bool]
    ) -> None:
        """most_seconds: of media; it ends earlier when `is_over` says so."""
        self.seconds = 0.0  # of media that were given
        self._most_seconds = most_seconds
        self._items = items
        self._medium_seconds = medium_seconds
        self._is_over = is_over
        self._given = 0

    def __iter__(self) -> Iterator[Given]:
        task, count, task_end = 0, 0, CHUNK_SECONDS
        yield _task_start(task)
        while self.seconds < self._most_seconds and not self._is_over():
            item, begin = self._items[self._given % len(self._items)], self._begin
            self.seconds = item.message.start_seconds + begin
            if self.seconds >= task_end:
                yield from (_task_start(task + 1), _task_end(task, count))
                task, count, task_end = task + 1, 0, self.seconds - self.seconds % CHUNK_SECONDS + CHUNK_SECONDS
            yield item.moved(TaskKey(task, 0), begin), item.array, item.cost_bytes
            count += 1
            self._given += 1
        yield _task_end(task, count)

    @property
    def _begin(self) -> float:
        """Of the pass through the medium that it is in."""
        return self._given // len(self._items) * self._medium_seconds


def _task_start(number: int) -> Given:
    message = TaskStart(key=TaskKey(number, 0), video_id=f"{number // TASKS_A_VIDEO:064d}", shown_path="memory")
    return message, None, cost_of(encode(message), None)


def _task_end(number: int, items: int) -> Given:
    message = TaskEnd(key=TaskKey(number, 0), items=items, gaps=())
    return message, None, cost_of(encode(message), None)
