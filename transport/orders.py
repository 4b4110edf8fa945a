"""Wire types of the control sockets: what the supervisor tells decoders, engine and consumer."""

from typing import Literal

from transport.values import AudioResume, CaptionTrack, FrameFormat, MediaInfo, Message, TaskKey, Value

# --- supervisor → decoder, engine, consumer -------------------------------------------------------------------------


class Probe(Message, frozen=True):
    """Hash a file, open it, and tell what is in it."""

    key: TaskKey
    path: bytes


class DecodeFrames(Message, frozen=True):
    """Sample the frames of one span [start, end) of one video. end None: to wherever the stream ends."""

    key: TaskKey
    path: bytes
    shown_path: str  # for payloads and people: printable, valid Unicode
    video_id: str
    media: MediaInfo
    start_seconds: float
    end_seconds: float | None
    format: FrameFormat


class DecodeAudio(Message, frozen=True):
    """Find the speech of one sound track, and read its captions."""

    key: TaskKey
    path: bytes
    shown_path: str
    video_id: str
    media: MediaInfo
    captions: CaptionTrack | None  # windows of speech that a cue of it touches are not transcribed
    transcribe: bool
    voices: bool
    resume: AudioResume | None = None  # None: from the beginning


class Committed(Message, frozen=True):
    """To the consumer: a result it called durable is in the ledger; now its credit may return."""

    key: TaskKey
    section: int


class ConsumerReplaced(Message, frozen=True):
    """To the engine: another consumer has taken the place of the one that died; send it what is not acknowledged."""


class Fence(Message, frozen=True):
    """To the engine: say Passed when the consumer has for good all that came out of you until now."""

    number: int


class EmbedQuery(Message, frozen=True):
    """To the engine: vectors of a search query, ahead of all other work."""

    request: int
    text: str
    roles: tuple[Literal["image", "text"], ...]


class SearchStore(Message, frozen=True):
    """To the consumer: the stored points nearest to a vector."""

    request: int
    collection: str  # frames | speech
    vector_name: str
    vector: tuple[float, ...]
    limit: int
    model: str  # label: vectors of two models cannot be compared
    speaker: str | None = None
    words: str | None = None  # hybrid: match these words too


class Repath(Message, frozen=True):
    """To the consumer: the content of this video has another path now."""

    request: int
    video_id: str
    shown_path: str


class Remove(Message, frozen=True):
    """To the consumer: remove every point of this video."""

    request: int
    video_id: str


class RecordVideo(Message, frozen=True):
    """To the consumer: note in the store that this video is indexed, so that a lost ledger can be rebuilt from it."""

    request: int
    video_id: str
    fingerprint: str
    shown_path: str
    report: str  # its row of the report, as JSON


class Label(Message, frozen=True):
    """To the consumer: find out who speaks when in this video, from its stored voices, and note it at its points."""

    request: int
    video_id: str
    model: str  # label of the voice model


class VoiceSample(Value, frozen=True):
    """The voice in one clip of an enrolment. Components of one vector add up to a unit vector."""

    content: str  # sha256 of the clip
    shown_path: str
    seconds: float  # of speech
    vectors: tuple[tuple[float, ...], ...]  # [windows, dimension], float16 precision


class SpeakersTask(Message, frozen=True):
    """To the consumer: look at, or change, the enrolled speakers."""

    request: int
    action: Literal["enroll", "list", "show", "rename", "merge", "remove", "relabel"]
    model: str  # label of the voice model
    name: str | None = None
    into: str | None = None  # rename: the new name; merge: the speaker that stays
    samples: tuple[VoiceSample, ...] = ()  # enroll
    now: float = 0.0  # unix seconds, for the history


class FetchPoints(Message, frozen=True):
    """To the consumer: a page of the points of one video, or of all, in the order of ids, without vectors."""

    request: int
    collection: str
    video_id: str | None
    start: str | None = None  # the first id
    limit: int = 256


class Prepare(Message, frozen=True):
    """To the consumer: dimensions of the models' vectors, by role; its collections must exist before it is ready."""

    dimensions: dict[str, int]


class Abort(Message, frozen=True):
    """To the engine: forget an attempt, its decoder is gone or gave it up."""

    key: TaskKey


class Drain(Message, frozen=True):
    """Finish what is in hand, then exit with 0."""
