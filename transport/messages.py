"""Every message on every wire, and the plain values they carry.

Who says what to whom:

    supervisor ──Probe, DecodeFrames, DecodeAudio, Prepare, Abort, Drain──► decoder, engine, consumer
    decoder, engine, consumer ──Hello, Ready, Probed, Progress, Decoded, TaskFailed, EngineLost, …──► supervisor
    decoder ──Join, TaskStart, Frame, Speech, Caption, Checkpoint, TaskEnd──► engine ──Grant──► decoder
    engine ──Join, Points, TaskResult──► consumer ──Grant──► engine
    consumer ──TaskDurable──► supervisor ──Committed──► consumer
    supervisor ──EmbedQuery──► engine ──QueryVectors──► supervisor ──SearchStore──► consumer ──StoreHits──► supervisor
    supervisor ──Repath, Remove, RecordVideo, Label──► consumer ──OperationDone──► supervisor
    supervisor ──FetchPoints, SpeakersTask──► consumer ──FetchedPoints, SpeakersDone──► supervisor

Headers travel as MessagePack in frame 0; the array that a header describes travels as raw bytes in frame 1.
Times are seconds from the start of the medium, as a player would show them.
"""

from typing import Any, Literal

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


# --- decoder, engine, consumer → supervisor -------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First word of a child: it runs, and is loading."""

    role: str
    index: int
    pid: int


class Ready(Message, frozen=True):
    """A child can take work. The engine adds what its models are."""

    role: str
    index: int
    models: tuple[ModelInfo, ...] = ()
    frame_format: FrameFormat | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()  # what whoever started the run should know of the device


class Probed(Message, frozen=True):
    """Answer to Probe."""

    key: TaskKey
    video_id: str  # sha256 of the content, hex
    size_bytes: int
    mtime_ns: int
    media: MediaInfo


class Progress(Message, frozen=True):
    """A decoder is alive and this far into its task."""

    key: TaskKey
    done_seconds: float


class Decoded(Message, frozen=True):
    """A decoder has sent the last item of its task and is idle."""

    key: TaskKey


class TaskFailed(Message, frozen=True):
    """A decoder could not do its task at all; it is idle."""

    key: TaskKey
    code: str
    message: str


class ModelStats(Value, frozen=True):
    """Counters of one model since start."""

    items: int
    batches: int
    busy_seconds: float
    queued_items: int
    oom_events: int
    batch_splits: int
    alone: int = 0  # items that got the whole device to themselves
    batch: int = 0  # items of a full batch, as found so far
    queued_bytes: int = 0
    queued_item_seconds: float = 0.0  # how many waited, and how long: over the time, how many on average


class EngineStats(Message, frozen=True):
    """What the engine is doing, about once a second."""

    models: dict[str, ModelStats]
    host_bytes: int
    busy_seconds: float
    uptime_seconds: float
    peak_device_bytes: int
    peak_rss_bytes: int
    budget_bytes: int = 0  # of device memory
    releases: int = 0  # how often the tiers of pressure acted: caches released,
    halvings: int = 0  # … batches halved,
    stops: int = 0  # … nothing more let in
    changes: int = 0  # models that came onto the device in turn
    change_seconds: float = 0.0
    device_bytes: int = 0  # held now
    rss_bytes: int = 0
    waiting_seconds: float = 0.0  # of its step loop, for items, or for company of those it has
    blocked_seconds: float = 0.0  # … for room for results
    cpu_seconds: float = 0.0  # of all its threads, since the models were loaded
    host_byte_seconds: float = 0.0  # host_bytes over the time


class EngineLost(Message, frozen=True):
    """Last words of an engine that cannot go on: it exits with DEVICE_LOST or RECYCLE, and another takes its place."""

    code: str
    message: str
    suspects: tuple[Suspect, ...] = ()  # the items of the batch it was lost in; one: that item is to blame


class QueryVectors(Message, frozen=True):
    """Answer to EmbedQuery."""

    request: int
    vectors: dict[str, tuple[float, ...]]  # by role; [dimension], unit length
    error: str | None = None  # "code: message"


class ConsumerStats(Message, frozen=True):
    """What the consumer is doing, about once a second."""

    points: int
    queued_bytes: int
    retries: int
    state: str  # "writing" | "waiting: <reason>"
    peak_rss_bytes: int
    spool_bytes: int = 0  # on disk, while the store is away
    rss_bytes: int = 0
    uptime_seconds: float = 0.0
    writing_seconds: float = 0.0  # in the store's hands, or the spool's
    labelling_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all its threads
    queued_byte_seconds: float = 0.0  # queued_bytes over the time


class DecoderStats(Message, frozen=True):
    """Memory and time of one decoder."""

    index: int
    peak_rss_bytes: int
    rss_bytes: int = 0
    generation: int = 0  # of the process: another one counts from zero
    items: int = 0  # frames, windows of speech and cues that it sent
    decode_seconds: float = 0.0  # with a task, and not waiting
    credit_seconds: float = 0.0  # waiting for the engine to take what it has
    idle_seconds: float = 0.0  # without a task
    cpu_seconds: float = 0.0  # of all its threads


class Traced(Message, frozen=True):
    """What a process has done since it last said so, for the trace of the run (engine/trace.py)."""

    events: bytes  # JSON objects, separated by commas
    is_full: bool = False  # these are its last: it has recorded as much as it may


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


# --- consumer → supervisor ------------------------------------------------------------------------------------------


class TaskDurable(Message, frozen=True):
    """Every point of an attempt, or of a section of it, is durable in the store."""

    result: TaskResult


class Searchable(Message, frozen=True):
    """The first points of an attempt are in the store. Sent once for each attempt."""

    key: TaskKey


class FoundPoint(Value, frozen=True):
    """One hit of a search."""

    score: float
    id: str
    payload: dict[str, Any]


class StoreHits(Message, frozen=True):
    """Answer to SearchStore, best first."""

    request: int
    hits: tuple[FoundPoint, ...]
    error: str | None = None  # "code: message"


class OperationDone(Message, frozen=True):
    """Answer to Repath, Remove, RecordVideo and Label: it is durable in the store."""

    request: int
    error: str | None = None  # "code: message": the store refused it for good


class FetchedPoints(Message, frozen=True):
    """Answer to FetchPoints."""

    request: int
    points: tuple[FoundPoint, ...]  # score 0
    following: str | None = None  # the first id of the next page; None: this was the last
    error: str | None = None  # "code: message"


class SpeakersDone(Message, frozen=True):
    """Answer to SpeakersTask: what the command prints with --json."""

    request: int
    body: dict[str, Any] | None
    error: str | None = None  # "code: message"


# --- what each socket may carry -------------------------------------------------------------------------------------

ToDecoder = Probe | DecodeFrames | DecodeAudio | Drain
ToEngineControl = Abort | Drain | ConsumerReplaced | EmbedQuery
ToConsumerControl = (
    Prepare | Drain | Committed | SearchStore | Repath | Remove | RecordVideo | Label | SpeakersTask | FetchPoints
)
ToSupervisor = (
    Hello
    | Ready
    | Probed
    | Progress
    | Decoded
    | TaskFailed
    | EngineStats
    | EngineLost
    | ConsumerStats
    | DecoderStats
    | Traced
    | TaskDurable
    | Searchable
    | QueryVectors
    | StoreHits
    | OperationDone
    | FetchedPoints
    | SpeakersDone
)
ToEngine = Join | TaskStart | Frame | Speech | Caption | Checkpoint | TaskEnd
ToConsumer = Join | Points | TaskResult
