"""A video in work, its tasks, and what is known of it so far. Pure data; the board (engine/tasks.py) fills it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from transport.messages import AudioResume, Gap, ItemFailure, MediaInfo, Message, TaskKey

# Reasons of gaps that say nothing about the content: a file that could be probed was gone, exchanged or out of reach
# later. The video counts as failed in part, and the next run tries it again.
ACCESS_CODES = {
    "not-found", "no-permission", "not-a-file", "empty-file", "not-media", "broken-header", "no-streams", "read-error",
    "file-changed",
}  # fmt: skip

# Errors that say nothing about the video at all: the run ended, or the file went away while it was read. Nothing of
# them is remembered; whoever meets the file next goes on where it was left.
PASSING_CODES = {"interrupted", "drained", "not-found", "file-changed"}


@dataclass(frozen=True, slots=True)
class VideoError:
    """Why a video, or a part of it, is not in the index."""

    code: str
    message: str


@dataclass(slots=True)
class Task:
    """One task of one video; `make` builds its message for an attempt."""

    task_id: int
    job: "VideoJob"
    make: Callable[[TaskKey, AudioResume | None], Message]
    kind: str  # probe | frames | audio
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    attempt: int = 0
    decoder_deaths: int = 0  # of all attempts: those that the engine's death ended are no fault of the task
    strange_deaths: int = 0  # … of them, by SIGKILL from outside: they accuse the file less (see `Board.decoder_lost`)
    engine_deaths: int = 0  # with no other task in the engine
    section: int = 0  # of the sound track: how many are durable
    resume: AudioResume | None = None  # behind them
    done_seconds: float = 0.0

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.task_id, self.attempt)


@dataclass(slots=True)
class VideoJob:
    """One file given to us, until its row stands in the report."""

    path: bytes
    shown_path: str
    started_seconds: float
    priority: int = 0  # of its root: the highest goes first
    complete_seconds: float | None = None  # when the file was complete, on the clock of started_seconds; None: unknown
    searchable_seconds: float | None = None  # from then (or from the start) to its first durable point
    video_id: str | None = None
    size_bytes: int = 0
    mtime_ns: int = 0
    media: MediaInfo | None = None
    status: str | None = None  # indexed | unchanged | partial | failed; None: in work
    finished_seconds: float = 0.0
    error: VideoError | None = None
    open_tasks: dict[int, Task] = field(default_factory=dict)
    points: Counter[str] = field(default_factory=Counter)
    gaps: list[Gap] = field(default_factory=list)
    failures: list[ItemFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sums: Counter[str] = field(default_factory=Counter)  # speech_seconds, text_seconds, …, oom_events, batch_splits
    languages: Counter[str] = field(default_factory=Counter)  # seconds of speech that were transcribed, by language
    heard: bool = False  # an audio task ran to its end: coverage is known
    total_seconds: float = 0.0  # media seconds of all its tasks, for progress
    settled_seconds: float = 0.0
    twins: list["VideoJob"] = field(default_factory=list)  # the same content under other paths, waiting for this one
    known: dict[str, object] | None = None  # what the ledger remembers, when unchanged

    @property
    def marks(self) -> tuple[int, int]:
        """Size and time of change when the file was probed: what they are no longer, has changed since."""
        return self.size_bytes, self.mtime_ns

    def changed(self) -> None:
        """The file is no longer what was probed: who knows which of the two was read."""
        self.blame("file-changed", "it changed while it was read: run again when it is whole")
        self.status = "partial" if self.status == "indexed" else self.status
        for twin in self.twins:
            twin.status, twin.error = "failed", self.error

    def blame(self, code: str, message: str) -> None:
        """Something went wrong. The first reason stands; a passing one stands above it, for there is more to be had."""
        if self.error is None or (code in PASSING_CODES and not self.is_passing):
            self.error = VideoError(code, message)

    @property
    def is_passing(self) -> bool:
        """Whether what went wrong says nothing about the video: it is to be tried again by itself."""
        return self.error is not None and self.error.code in PASSING_CODES

    def searchable(self, now_seconds: float) -> None:
        """Points of it are durable in the store."""
        if self.searchable_seconds is None:
            begin = self.complete_seconds if self.complete_seconds is not None else self.started_seconds
            self.searchable_seconds = max(0.0, now_seconds - begin)

    def add_gap(self, gap: Gap) -> None:
        """Something is missing; where that is no fault of the content, it is an error of the video."""
        self.gaps.append(gap)
        code, _, message = gap.reason.partition(": ")
        if code in ACCESS_CODES:
            self.blame(code, message)

    @property
    def duration_seconds(self) -> float | None:
        return self.media.duration_seconds if self.media else None

    @property
    def done_seconds(self) -> float:
        """Media seconds done, of total_seconds."""
        return self.settled_seconds + sum(task.done_seconds for task in self.open_tasks.values())
