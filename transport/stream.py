"""Wire types of the data sockets: decoder → engine → consumer, and the credit that comes back."""

from typing import Any

from transport.values import ArraySpec, AudioResume, Gap, ItemFailure, Message, TaskKey, Value

# --- decoder → engine, engine → consumer ----------------------------------------------------------------------------


class Join(Message, frozen=True):
    """First message on a data socket: the sender asks for its byte credit."""


# --- decoder → engine -----------------------------------------------------------------------------------------------


class TaskStart(Message, frozen=True):
    """First message of an attempt: what all its items share."""

    key: TaskKey
    video_id: str
    shown_path: str
    section: int = 0  # its first
    languages: tuple[tuple[str, float], ...] = ()  # as in AudioResume


class Frame(Message, frozen=True):
    """One sampled frame. Frame 1: uint8 pixels, RGB [height, width, 3]."""

    key: TaskKey
    start_seconds: float
    end_seconds: float
    array: ArraySpec


class Speech(Message, frozen=True):
    """One window of sound that holds speech. Frame 1: int16 PCM [samples], 16 kHz mono."""

    key: TaskKey
    start_seconds: float
    end_seconds: float
    speech: tuple[tuple[float, float], ...]  # detected speech inside the window, seconds of the medium
    captioned_seconds: float  # how much of `speech` caption cues cover
    transcribe: bool
    voices: bool
    array: ArraySpec


class Caption(Message, frozen=True):
    """One caption cue."""

    key: TaskKey
    start_seconds: float
    end_seconds: float
    text: str
    language: str | None


class Checkpoint(Message, frozen=True):
    """A section of a sound track ends here: all its items were sent. What follows belongs to the next section."""

    key: TaskKey
    items: int  # Speech and Caption messages sent in this section
    gaps: tuple[Gap, ...]
    resume: AudioResume  # where the next section begins; this one has the number before
    notes: tuple[str, ...] = ()


class TaskEnd(Message, frozen=True):
    """Last message of an attempt."""

    key: TaskKey
    items: int  # Frame, Speech and Caption messages sent, since the last checkpoint
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...] = ()


# --- engine → decoder, consumer → engine ----------------------------------------------------------------------------


class Grant(Message, frozen=True):
    """Byte credit: the receiver may be sent this many further bytes."""

    credit_bytes: int


# --- engine → consumer ----------------------------------------------------------------------------------------------


class Points(Message, frozen=True):
    """Vectors of one collection. Frame 1: float16 [n, dimension], one row a point."""

    key: TaskKey
    collection: str  # without the prefix: frames | speech | voices
    vector: str  # the vector's name in the collection: image | text | voice
    ids: tuple[str, ...]
    payloads: tuple[dict[str, Any], ...]
    array: ArraySpec


class Transcribed(Value, frozen=True):
    """The points of the transcripts of a stretch of sound: others of the same models that are stored there are of an
    earlier attempt, which heard something else.
    """

    video_id: str
    model: str  # label of the text model
    text_by: str  # as in the points' payload
    start_seconds: float
    end_seconds: float
    ids: tuple[str, ...]


class TaskResult(Message, frozen=True):
    """Behind the last points of an attempt, or of a section of it: what became of its items."""

    key: TaskKey
    points: dict[str, int]  # per collection
    gaps: tuple[Gap, ...]
    failures: tuple[ItemFailure, ...]
    notes: tuple[str, ...]
    speech_seconds: float  # detected speech
    text_seconds: float  # … of it, with stored text vectors
    voiced_seconds: float  # detected speech in segments of a second and longer
    voice_seconds: float  # … of it, with stored voice vectors
    oom_events: int
    batch_splits: int
    section: int = 0  # which one it is; sections come in order
    resume: AudioResume | None = None  # where the next section begins; None: this is the last
    languages: tuple[tuple[str, float], ...] = ()  # transcribed in this section, and how many seconds of each
    transcribed: Transcribed | None = None  # None: nothing was
