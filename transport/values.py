"""What messages are made of: the bases of all wire types, and the values that several of them carry."""

from typing import Literal

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plain value inside a message."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A message: tagged with its class name, so that one typed decoder serves one socket."""


# --- values ---------------------------------------------------------------------------------------------------------


class TaskKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One attempt at one task. A retried task keeps its id and counts its attempt up."""

    task_id: int
    attempt: int


class Gap(Value, frozen=True):
    """A stretch of a medium that is not in the index, and why."""

    start_seconds: float
    end_seconds: float
    reason: str  # "code: explanation", one line


class ItemFailure(Value, frozen=True):
    """An item that failed alone, after every split and retry."""

    kind: str  # the model's role: image | speech | text | voice
    start_seconds: float
    end_seconds: float
    code: str
    message: str


class ArraySpec(Value, frozen=True):
    """What frame 1 holds. Its length must equal the product of shape times the size of dtype."""

    dtype: Literal["uint8", "int16", "float16", "float32"]
    shape: tuple[int, ...]


class FrameFormat(Value, frozen=True):
    """The picture size that the image model takes, and how a frame is brought to it."""

    width: int
    height: int
    fit: Literal["crop", "stretch"]  # crop: shorter side to size, then centre crop; stretch: both sides, aspect lost


class VideoStream(Value, frozen=True):
    """The video stream that is indexed."""

    index: int
    codec: str
    width: int  # coded pixels
    height: int
    sample_aspect_ratio: float  # width of one pixel over its height; 1.0 when square
    average_fps: float | None
    duration_seconds: float | None  # of this stream alone; None when the container does not say
    key_seconds: tuple[float, ...] = ()  # of the key frames at which it can well be cut, as far as an index tells


class AudioStream(Value, frozen=True):
    """The audio stream that is indexed."""

    index: int
    codec: str
    sample_rate: int
    channels: int
    language: str | None
    duration_seconds: float | None


class CaptionTrack(Value, frozen=True):
    """A source of captions: a subtitle stream of the medium, or a file beside it."""

    format: str  # codec or file type: subrip, webvtt, mov_text, ass, …
    language: str | None
    stream_index: int | None = None
    sidecar: bytes | None = None  # path as the file system spells it


class MediaInfo(Value, frozen=True):
    """What opening a file told about it."""

    container: str
    duration_seconds: float | None
    start_seconds: float  # what is subtracted from every pts, so that times begin where a player's do
    video: VideoStream | None
    audio: AudioStream | None
    captions: tuple[CaptionTrack, ...] = ()
    notes: tuple[str, ...] = ()  # which of several streams was chosen, doubtful duration, …


class Word(msgspec.Struct, frozen=True, array_like=True):
    """A spoken word and when it was said."""

    start_seconds: float
    end_seconds: float
    text: str


class ModelInfo(Value, frozen=True):
    """Identity of a loaded model. `label` is what points carry and what their ids are made from."""

    role: Literal["image", "speech", "text", "voice"]
    name: str  # hub id, or the directory's name
    revision: str  # changes when the weights change
    dimension: int  # of its vectors; 0 for the speech model
    untrained: bool  # made by `models tiny`: right shapes, meaningless vectors

    @property
    def label(self) -> str:
        return f"{self.name}@{self.revision}" + (" (untrained)" if self.untrained else "")


class AudioResume(Value, frozen=True):
    """A place in a sound track from which reading can go on as if it had never stopped. See stages/windows.py."""

    section: int  # number of the section that begins here; the first is 0
    seconds: float  # everything that was said before it has left the decoder
    state: bytes  # of the reader, its own affair; without it reading begins at 0 and what lies before is not sent
    languages: tuple[tuple[str, float], ...] = ()  # heard before it, and for how many seconds: the engine adds them


class Suspect(Value, frozen=True):
    """One item, whatever attempt brings it: it was in a batch in which the engine was lost."""

    video_id: str
    role: str  # of the model: image | speech | text | voice
    start_seconds: float
    end_seconds: float


class Condemned(Value, frozen=True):
    """An item in which, alone, the engine was lost: it fails with this reason and is not run again."""

    item: Suspect
    code: str
    message: str
