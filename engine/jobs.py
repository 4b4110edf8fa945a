"""What the engine remembers of the work in hand: buffers, jobs, windows of sound, and attempts at tasks. Pure.

A sound track is long, so its attempt comes in sections, each with a result of its own; an attempt at a frame task is
one section. `Attempt` is what a section holds; `Attempts` knows which sections of which attempts are in hand.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from engine.notes import DOUBTFUL, RETRIED, counted_note
from stages.base import Transcript
from stages.hearing import LanguageLog
from transport.messages import (
    AudioResume,
    Caption,
    Checkpoint,
    Frame,
    Gap,
    ItemFailure,
    Speech,
    TaskEnd,
    TaskKey,
    TaskResult,
    TaskStart,
    Transcribed,
)

MAX_FAILURES = 200  # named one by one for each section; more are counted together, so that memory stays bounded
MAX_ABORTED = 1000  # remembered, so that their late messages are dropped; far more than can be under way


@dataclass(slots=True)
class Buffer:
    """One message's bytes in host memory, shared by the jobs made from it. Its credit returns when the last is done."""

    sender: bytes
    cost_bytes: int
    uses: int = 0


@dataclass(slots=True)
class Window:
    """A window of sound on its way through several models, for counting what of its speech got vectors."""

    speech: Speech
    pending_texts: int = 0
    texts_failed: bool = False
    pending_voices: int = 0
    voiced: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of speech in it."""
        return sum(end - start for start, end in self.speech.speech)


@dataclass(slots=True)
class Cues:
    """The caption cues of an attempt. All its sections share it: a cue may cover speech of a later one."""

    count: int = 0  # numbers them: part of the ids of their points
    failed_seconds: float = 0.0  # of cues that got no vectors, as far as no section's coverage was lowered by it yet


@dataclass(slots=True)
class Attempt:
    """One section of an attempt at a task, up to its TaskResult."""

    start: TaskStart
    section: int = 0
    cues: Cues = field(default_factory=Cues)
    log: LanguageLog = field(default_factory=LanguageLog)  # of all its sections, as is the next
    queue: "InOrder" = field(default_factory=lambda: InOrder())
    windows: int = 0  # of sound that were to be transcribed when it ended, with those of the sections before it
    end: Checkpoint | TaskEnd | None = None
    received: int = 0
    pending: int = 0  # jobs not finished yet
    points: Counter[str] = field(default_factory=Counter)
    failures: list[ItemFailure] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)  # of the engine's own finding, beside the decoder's
    left_out: int = 0  # failures and gaps beyond what is named one by one
    speech_seconds: float = 0.0
    captioned_seconds: float = 0.0  # … of it, covered by caption cues
    text_seconds: float = 0.0  # … of it, transcribed
    voiced_seconds: float = 0.0
    voice_seconds: float = 0.0
    languages: dict[str, float] = field(default_factory=dict)  # seconds of speech that were transcribed
    notes: Counter[str] = field(default_factory=Counter)  # what happened to so many windows
    stretch: Transcribed | None = None  # of the sound that was transcribed, and the points that came of it
    oom_events: int = 0
    batch_splits: int = 0
    is_aborted: bool = False  # nothing more may come of it: another attempt at the same may be whole by then

    @property
    def key(self) -> TaskKey:
        return self.start.key

    @property
    def is_finished(self) -> bool:
        """Every item that the decoder sent has come out as points or as a named failure."""
        return self.end is not None and self.received == self.end.items and self.pending == 0

    def fail(self, failure: ItemFailure) -> None:
        """Record an item that failed alone; neighbours in time with the same reason become one entry."""
        last = self.failures[-1] if self.failures else None
        if last and (last.kind, last.code, last.message) == (failure.kind, failure.code, failure.message):
            self.failures[-1] = _joined(last, failure)
        elif len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)
        else:
            self.left_out += 1

    def add_gap(self, start_seconds: float, end_seconds: float, reason: str) -> None:
        """Record a stretch that gave no points although nothing failed."""
        if len(self.gaps) < MAX_FAILURES:
            self.gaps.append(Gap(start_seconds=start_seconds, end_seconds=end_seconds, reason=reason))
        else:
            self.left_out += 1

    def transcribed(self, transcript: Transcript, seconds: float) -> None:
        """A window with so many seconds of speech became text; 0: there was none in it."""
        if seconds:
            language = transcript.spoken_language
            self.languages[language] = self.languages.get(language, 0.0) + seconds
        if transcript.retries:
            self.notes[RETRIED] += 1
        if transcript.doubts:
            self.notes[DOUBTFUL] += 1

    def heard(self, window: Transcribed) -> None:
        """A window was transcribed; its points come later."""
        known = self.stretch or window
        start_seconds = min(known.start_seconds, window.start_seconds)
        end_seconds = max(known.end_seconds, window.end_seconds)
        self.stretch = msgspec.structs.replace(known, start_seconds=start_seconds, end_seconds=end_seconds)

    def wrote(self, ids: tuple[str, ...]) -> None:
        """Points of transcripts were made."""
        if self.stretch is not None:
            self.stretch = msgspec.structs.replace(self.stretch, ids=self.stretch.ids + ids)

    def result(self) -> TaskResult:
        """What became of the section's items. Asked for once, in the order of sections."""
        assert self.end is not None
        notes = self.end.notes + tuple(counted_note(text, count) for text, count in sorted(self.notes.items()))
        if self.left_out:
            notes += (f"{self.left_out} further failed items and gaps are not listed one by one",)
        return TaskResult(
            key=self.key,
            points=dict(self.points),
            gaps=self.end.gaps + tuple(self.gaps),
            failures=tuple(self.failures),
            notes=notes,
            speech_seconds=self.speech_seconds,
            text_seconds=min(self.text_seconds + self._captioned_seconds(), self.speech_seconds),
            voiced_seconds=self.voiced_seconds,
            voice_seconds=min(self.voice_seconds, self.voiced_seconds),
            oom_events=self.oom_events,
            batch_splits=self.batch_splits,
            section=self.section,
            resume=self._resume(self.end) if isinstance(self.end, Checkpoint) else None,
            languages=tuple(sorted(self.languages.items())),
            transcribed=self.stretch,
        )

    def _resume(self, end: Checkpoint) -> AudioResume:
        """Where the next section begins, with what languages were heard up to there."""
        return msgspec.structs.replace(end.resume, languages=self.log.settle(self.windows))

    def _captioned_seconds(self) -> float:
        """Speech that cues cover, less what those cover that failed. Which of it that is, nobody remembers."""
        failed_seconds = min(self.cues.failed_seconds, self.captioned_seconds)
        self.cues.failed_seconds -= failed_seconds
        return self.captioned_seconds - failed_seconds


class Attempts:
    """The sections in hand, of all attempts. The last of an attempt takes its items; the first gives the next result.

    Messages of an attempt may arrive after it was aborted, even its first, for the abort comes by another socket.
    """

    def __init__(self) -> None:
        self._sections: dict[TaskKey, deque[Attempt]] = {}
        self._aborted: deque[TaskKey] = deque(maxlen=MAX_ABORTED)

    def __len__(self) -> int:
        return len(self._sections)

    @property
    def are_ended(self) -> bool:
        """Whether no attempt will bring more items."""
        return all(isinstance(sections[-1].end, TaskEnd) for sections in self._sections.values())

    def start(self, message: TaskStart) -> None:
        """Begin an attempt with its first section."""
        if message.key not in self._aborted:
            log = LanguageLog(message.languages)
            self._sections[message.key] = deque([Attempt(message, message.section, log=log)])

    def current(self, key: TaskKey) -> Attempt | None:
        """The section that takes items now; None for an attempt that is unknown, aborted or at its end."""
        sections = self._sections.get(key)
        return sections[-1] if sections is not None and sections[-1].end is None else None

    def close(self, end: Checkpoint | TaskEnd) -> None:
        """All items of the current section were sent; a checkpoint opens the next."""
        attempt = self.current(end.key)
        if attempt is None:
            return
        attempt.end, attempt.windows = end, attempt.log.count
        if isinstance(end, Checkpoint):
            attempt.section = end.resume.section - 1
            shared = (attempt.cues, attempt.log, attempt.queue)
            self._sections[end.key].append(Attempt(attempt.start, end.resume.section, *shared))

    def abort(self, key: TaskKey) -> None:
        """Forget all sections of an attempt, and whatever may still come of it."""
        self._aborted.append(key)
        for attempt in self._sections.pop(key, ()):
            attempt.is_aborted = True

    def take_finished(self, key: TaskKey) -> list[Attempt]:
        """Sections that are finished, as far as all before them are: they are in hand no more."""
        sections = self._sections.get(key)
        finished: list[Attempt] = []
        while sections and sections[0].is_finished:
            finished.append(sections.popleft())
        if sections is not None and not sections:
            del self._sections[key]
        return finished


class ItemId(NamedTuple):
    """One item for one model, whatever the attempt: the same after a restart of the engine."""

    video_id: str
    role: str
    start_seconds: float
    end_seconds: float


@dataclass(slots=True)
class Job:
    """One item for one model."""

    role: str
    attempt: Attempt
    item: Any  # what the model takes
    start_seconds: float
    end_seconds: float
    source: Frame | Speech | Caption
    buffer: Buffer | None = None
    window: Window | None = None
    position: str = ""  # of the point in its video: part of its id
    payload: dict[str, Any] = field(default_factory=dict)  # of the point, beyond what all points carry

    @property
    def id(self) -> ItemId:
        return ItemId(self.attempt.start.video_id, self.role, self.start_seconds, self.end_seconds)


class InOrder:
    """Windows of one sound track on their way to the speech model, which finds the language of each by those before it.

    A batch takes them in order, but one that must run alone waits beside the others. So it waits here until those
    before it are done, and those behind it wait until it is.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Job, bool]] = deque()
        self._under_way = 0
        self._alone = False  # the one under way

    def add(self, job: Job, alone: bool) -> list[Job]:
        """Take a window; returns those that may go now."""
        self._waiting.append((job, alone))
        return self._next()

    def done(self) -> list[Job]:
        """One that was let go is done; returns those that may go now."""
        self._under_way -= 1
        self._alone = False
        return self._next()

    def _next(self) -> list[Job]:
        going: list[Job] = []
        while self._waiting and not self._alone and not (self._waiting[0][1] and self._under_way):
            job, self._alone = self._waiting.popleft()
            self._under_way += 1
            going.append(job)
        return going


def covered_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals, in seconds."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _joined(first: ItemFailure, second: ItemFailure) -> ItemFailure:
    return ItemFailure(
        kind=first.kind,
        start_seconds=min(first.start_seconds, second.start_seconds),
        end_seconds=max(first.end_seconds, second.end_seconds),
        code=first.code,
        message=first.message,
    )


def microseconds(seconds: float) -> str:
    """A time as part of an id."""
    return str(round(seconds * 1_000_000))
