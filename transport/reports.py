"""Wire types of the control sockets: what decoders, engine and consumer tell the supervisor."""

from typing import Any

from transport.stream import TaskResult
from transport.values import FrameFormat, MediaInfo, Message, ModelInfo, Suspect, TaskKey, Value

# --- decoder, engine, consumer → supervisor -------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First word of a child: it runs, and is loading."""

    role: str
    index: int
    pid: int


class Receiving(Message, frozen=True):
    """The engine takes items from now on, as far as their credit goes; it works them off when its models are loaded."""

    frame_format: FrameFormat | None  # what the image model takes; None when it is off


class Ready(Message, frozen=True):
    """A child can take work. The engine adds what its models are."""

    role: str
    index: int
    models: tuple[ModelInfo, ...] = ()
    frame_format: FrameFormat | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()  # what whoever started the run should know of the device


class Passed(Message, frozen=True):
    """Answer to Fence; and to all that came before it."""

    number: int


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
