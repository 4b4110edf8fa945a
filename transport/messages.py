"""Every message on every wire, and the plain values they carry.

Who says what to whom:

    supervisor ──Probe, DecodeFrames, DecodeAudio, Prepare, Abort, Drain──► decoder, engine, consumer
    decoder, engine, consumer ──Hello, Receiving, Ready, Probed, Progress, Decoded, TaskFailed, …──► supervisor
    decoder ──Join, TaskStart, Frame, Speech, Caption, Checkpoint, TaskEnd──► engine ──Grant──► decoder
    engine ──Join, Points, TaskResult──► consumer ──Grant──► engine
    consumer ──TaskDurable──► supervisor ──Committed──► consumer
    supervisor ──EmbedQuery──► engine ──QueryVectors──► supervisor ──SearchStore──► consumer ──StoreHits──► supervisor
    supervisor ──Fence──► engine ──Passed──► supervisor
    supervisor ──Repath, Remove, RecordVideo, Label──► consumer ──OperationDone──► supervisor
    supervisor ──FetchPoints, SpeakersTask──► consumer ──FetchedPoints, SpeakersDone──► supervisor

Headers travel as MessagePack in frame 0; the array that a header describes travels as raw bytes in frame 1.
Times are seconds from the start of the medium, as a player would show them.
"""

from transport.orders import (
    Abort,
    Committed,
    ConsumerReplaced,
    DecodeAudio,
    DecodeFrames,
    Drain,
    EmbedQuery,
    Fence,
    FetchPoints,
    Label,
    Prepare,
    Probe,
    RecordVideo,
    Remove,
    Repath,
    SearchStore,
    SpeakersTask,
    VoiceSample,
)
from transport.reports import (
    ConsumerStats,
    Decoded,
    DecoderStats,
    EngineLost,
    EngineStats,
    FetchedPoints,
    FoundPoint,
    Hello,
    ModelStats,
    OperationDone,
    Passed,
    Probed,
    Progress,
    QueryVectors,
    Ready,
    Receiving,
    Searchable,
    SpeakersDone,
    StoreHits,
    TaskDurable,
    TaskFailed,
    Traced,
)
from transport.stream import (
    Caption,
    Checkpoint,
    Frame,
    Grant,
    Join,
    Points,
    Speech,
    TaskEnd,
    TaskResult,
    TaskStart,
    Transcribed,
)
from transport.values import (
    ArraySpec,
    AudioResume,
    AudioStream,
    CaptionTrack,
    Condemned,
    FrameFormat,
    Gap,
    ItemFailure,
    MediaInfo,
    Message,
    ModelInfo,
    Suspect,
    TaskKey,
    Value,
    VideoStream,
    Word,
)

__all__ = [
    "Abort",
    "ArraySpec",
    "AudioResume",
    "AudioStream",
    "Caption",
    "CaptionTrack",
    "Checkpoint",
    "Committed",
    "Condemned",
    "ConsumerReplaced",
    "ConsumerStats",
    "DecodeAudio",
    "DecodeFrames",
    "Decoded",
    "DecoderStats",
    "Drain",
    "EmbedQuery",
    "EngineLost",
    "EngineStats",
    "Fence",
    "FetchPoints",
    "FetchedPoints",
    "FoundPoint",
    "Frame",
    "FrameFormat",
    "Gap",
    "Grant",
    "Hello",
    "ItemFailure",
    "Join",
    "Label",
    "MediaInfo",
    "Message",
    "ModelInfo",
    "ModelStats",
    "OperationDone",
    "Passed",
    "Points",
    "Prepare",
    "Probe",
    "Probed",
    "Progress",
    "QueryVectors",
    "Ready",
    "Receiving",
    "RecordVideo",
    "Remove",
    "Repath",
    "SearchStore",
    "Searchable",
    "SpeakersDone",
    "SpeakersTask",
    "Speech",
    "StoreHits",
    "Suspect",
    "TaskDurable",
    "TaskEnd",
    "TaskFailed",
    "TaskKey",
    "TaskResult",
    "TaskStart",
    "ToConsumer",
    "ToConsumerControl",
    "ToDecoder",
    "ToEngine",
    "ToEngineControl",
    "ToSupervisor",
    "Traced",
    "Transcribed",
    "Value",
    "VideoStream",
    "VoiceSample",
    "Word",
]

# --- what each socket may carry -------------------------------------------------------------------------------------

ToDecoder = Probe | DecodeFrames | DecodeAudio | Drain
ToEngineControl = Abort | Drain | ConsumerReplaced | Fence | EmbedQuery
ToConsumerControl = (
    Prepare | Drain | Committed | SearchStore | Repath | Remove | RecordVideo | Label | SpeakersTask | FetchPoints
)
ToSupervisor = (
    Hello
    | Ready
    | Receiving
    | Passed
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
