"""The engine without its sockets: items go in, `step()` schedules, runs and finishes one batch, messages come out.

    receive(message) ─► jobs ─► Scheduler ─► Runner ─► finish ─► outbox: Points, TaskResult
                                    ▲                    │
                                    └── texts of speech ─┘

Jobs made from one message share its buffer, whose credit returns when the last of them is done. A section of an attempt
gives its result behind its own last points, and behind the results of the sections before it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from engine.config import EngineOptions
from engine.faults import DeviceLostError, RecycleError
from engine.gate import Gate
from engine.intake import jobs_of, message_span, text_jobs
from engine.jobs import Attempt, Attempts, Buffer, ItemId, Job, covered_seconds
from engine.outbox import Outbox
from engine.points import points_message, transcribed
from engine.pressure import Pressure
from engine.queries import Queries, QueryJob
from engine.restarts import MEMORY_STUCK
from engine.runner import Failure, Runner
from engine.scheduler import Grouping, Scheduler
from stages.base import Transcript
from stages.options import VoiceOptions
from transport.codec import WireError
from transport.messages import (
    Caption,
    Checkpoint,
    EmbedQuery,
    Frame,
    ItemFailure,
    Message,
    Speech,
    TaskEnd,
    TaskKey,
    TaskStart,
)

DEVICE_LOST = "device-lost"
NO_WORDS = "no-words: the speech model heard no words in detected speech"
NO_SPEECH = "no-speech: the speech model takes detected speech for something else (speech.no_speech_threshold)"
TEXT_OVERHEAD_BYTES = 512  # a queued text job besides its characters, roughly
BATCH_SHARE = 4  # a batch holds at most this part of the host budget: more could not gather before credit runs out
GROUPING: dict[str, Grouping] = {"image": "any", "speech": "any", "text": "near", "voice": "equal"}


class EngineLostError(Exception):
    """This process can go on no more; a fresh one can. `suspects` are the items that were running."""

    def __init__(self, code: str, message: str, suspects: tuple[ItemId, ...]) -> None:
        super().__init__(message)
        self.code = code  # DEVICE_LOST | MEMORY_STUCK
        self.suspects = suspects


class Engine:
    """Every model, one scheduler, and the attempts in hand. One thread calls it."""

    def __init__(
        self,
        runner: Runner,
        options: EngineOptions,
        voice: VoiceOptions,
        *,
        pressure: Pressure,
        share_bytes: int,
        suspects: Collection[ItemId] = (),
        condemned: Mapping[ItemId, Failure] | None = None,
        query_roles: Collection[str] = (),
    ) -> None:
        """share_bytes: credit of one decoder. suspects run alone; condemned items are failed without being run: both
        were running when an engine before this one lost its device. query_roles: models that embed queries.
        """
        self.runner = runner
        self.models = runner.models
        self.gate = Gate(runner, pressure, share_bytes)
        self.outbox = Outbox(options.results_mb * 1024 * 1024)
        self.released: list[tuple[bytes, int]] = []  # (sender, bytes) whose credit is to be returned
        self._text_limit_bytes = options.results_mb * 1024 * 1024
        self._voice_options = voice
        self._suspects = frozenset(suspects)
        self._condemned = dict(condemned or {})
        self._attempts = Attempts()
        self.queries = Queries(query_roles)
        self.scheduler: Scheduler[Job | QueryJob] = Scheduler(
            {role: GROUPING[role] for role in self.models},
            self.gate.limits,
            max_delay_seconds=options.max_delay_ms / 1000,
            max_age_seconds=options.max_age_ms / 1000,
            max_batch_bytes=options.host_mb * 1024 * 1024 // BATCH_SHARE,
        )

    # --- in -----------------------------------------------------------------------------------------------------------

    def receive(
        self, sender: bytes, message: Message, payload: memoryview | None, cost_bytes: int, now_seconds: float
    ) -> None:
        """Take one message of a decoder. Its credit returns through `released`.

        Messages of an attempt that was aborted may still arrive, and are dropped.
        """
        buffer = Buffer(sender, cost_bytes, uses=1)
        self.gate.receive(sender, cost_bytes)
        match message:
            case TaskStart():
                self._attempts.start(message)
            case Frame() | Speech() | Caption() if attempt := self._attempts.current(message.key):
                self._receive_item(attempt, message, payload or memoryview(b""), buffer, now_seconds)
            case Checkpoint() | TaskEnd():
                self._attempts.close(message)
                self._settle(message.key)
        self._release(buffer)
        self._see_end()

    def abort(self, key: TaskKey) -> None:
        """Forget an attempt that its decoder gave up or died in. Its queued jobs give nothing: points that came behind
        those of the next attempt would undo what was done with these since.
        """
        self._attempts.abort(key)
        self._see_end()

    def ask(self, message: EmbedQuery, now_seconds: float) -> None:
        """Take a search query: it runs before all items. Its answer comes to `queries.answers`."""
        for job in self.queries.ask(message):
            model = self.models[job.role]
            size, length = model.bytes_of(job.item) + TEXT_OVERHEAD_BYTES, model.length_of(job.item)
            self.scheduler.append(job.role, job, size, now_seconds, length, urgent=True)

    def _see_end(self) -> None:
        """Part-filled batches may go when no open attempt will bring more, or when nothing more is let in."""
        self.scheduler.ended = self._attempts.are_ended or self.gate.is_closed

    def _receive_item(
        self,
        attempt: Attempt,
        message: Frame | Speech | Caption,
        payload: memoryview,
        buffer: Buffer,
        now_seconds: float,
    ) -> None:
        attempt.received += 1
        try:
            jobs = jobs_of(attempt, message, payload, buffer, self._voice_options)
        except WireError as error:
            kind = type(message).__name__.lower()
            attempt.fail(_failure(kind, *message_span(message), Failure("bad-message", str(error))))
            return
        self._queue_all(jobs, now_seconds)

    def _queue_all(self, jobs: list[Job], now_seconds: float) -> None:
        """All are counted before the first of them may be finished."""
        for job in jobs:
            job.attempt.pending += 1
            if job.buffer is not None:
                job.buffer.uses += 1
        for job in jobs:
            self._queue(job, now_seconds)

    def _queue(self, job: Job, now_seconds: float) -> None:
        failure = self._condemned.get(job.id) if self._condemned else None
        if failure is not None:
            self._finish(job.role, [job], [failure], now_seconds)
            return
        for each in job.attempt.queue.add(job, self._is_suspect(job)) if job.role == "speech" else [job]:
            self._schedule(each, now_seconds)

    def _schedule(self, job: Job, now_seconds: float) -> None:
        model = self.models[job.role]
        size = len(job.item) + TEXT_OVERHEAD_BYTES if job.role == "text" else model.bytes_of(job.item)
        length, alone = model.length_of(job.item), self._is_suspect(job)
        self.scheduler.append(job.role, job, size, now_seconds, length, alone=alone)

    def _is_suspect(self, job: Job) -> bool:
        return bool(self._suspects) and job.id in self._suspects

    # --- one step -----------------------------------------------------------------------------------------------------

    def step(self, now_seconds: float) -> bool:
        """Schedule, run and finish one batch; False when none is ready."""
        batch = self.scheduler.next_batch(now_seconds, self._may_not_run(now_seconds))
        if batch is None:
            return False
        if batch.urgent:
            self._answer(batch.role, cast(list[QueryJob], batch.items))
        else:
            self._work(batch.role, cast(list[Job], batch.items), now_seconds)
        self.gate.relieve(self.scheduler, now_seconds)
        self._see_end()
        return True

    def _answer(self, role: str, jobs: list[QueryJob]) -> None:
        for job, outcome in zip(jobs, self._run(role, jobs), strict=True):
            self.queries.finish(job, outcome)

    def _work(self, role: str, queued: list[Job], now_seconds: float) -> None:
        jobs = [job for job in queued if not job.attempt.is_aborted]
        if jobs:
            self._run_jobs(role, jobs, now_seconds)
        self._let_go([job for job in queued if job.attempt.is_aborted])
        for job in queued if role == "speech" else ():
            for following in job.attempt.queue.done():
                self._schedule(following, now_seconds)

    def _run_jobs(self, role: str, jobs: list[Job], now_seconds: float) -> None:
        before = replace(self.runner.counters[role])
        final = len(jobs) == 1 and self._is_suspect(jobs[0])
        outcomes = self._run(role, jobs, final)
        after = self.runner.counters[role]
        for attempt in {id(job.attempt): job.attempt for job in jobs}.values():
            attempt.oom_events += after.oom_events - before.oom_events
            attempt.batch_splits += after.batch_splits - before.batch_splits
        self._finish(role, jobs, outcomes, now_seconds)

    def _run(self, role: str, jobs: Sequence[Job | QueryJob], final: bool = False) -> list[Any]:
        """Raises EngineLostError when nothing more can run in this process."""
        inputs = [job.item for job in jobs]
        try:
            return self.runner.run(role, inputs, self.scheduler.waiting_by_role(), final)
        except (DeviceLostError, RecycleError) as error:
            running = {id(item) for item in error.inputs}
            suspects = tuple(job.id for job in jobs if isinstance(job, Job) and id(job.item) in running)
            code = DEVICE_LOST if isinstance(error, DeviceLostError) else MEMORY_STUCK
            raise EngineLostError(code, str(error), suspects) from error

    @property
    def is_accepting(self) -> bool:
        """Whether further items are let in: not in the last tier of pressure, unless nothing is left to work off."""
        return not self.gate.is_closed or not len(self.scheduler)

    def _may_not_run(self, now_seconds: float) -> frozenset[str]:
        blocked = self.blocked()
        return blocked | self.gate.held_back(self.scheduler, blocked, now_seconds)

    def blocked(self) -> frozenset[str]:
        """Models that may not run now because there is no room for what they would give."""
        if self.outbox.is_full:
            return frozenset(self.models)
        if "text" in self.models and self.scheduler.queued_bytes("text") >= self._text_limit_bytes:
            return frozenset({"speech"})
        return frozenset()

    def is_idle(self) -> bool:
        """Nothing is queued, no attempt is open, nothing waits to be sent."""
        return not (len(self.scheduler) or len(self._attempts) or len(self.outbox) or self.queries.answers)

    def next_deadline_seconds(self, now_seconds: float) -> float | None:
        """When something that may run will be ready by age; None when nothing waits."""
        return self.scheduler.next_deadline_seconds(self._may_not_run(now_seconds))

    # --- finish -------------------------------------------------------------------------------------------------------

    def _finish(self, role: str, jobs: list[Job], outcomes: list[Any], now_seconds: float) -> None:
        done: list[tuple[Job, Any]] = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Failure):
                self._fail(job, outcome)
            elif role == "speech":
                self._queue_texts(job, outcome, now_seconds)
            else:
                done.append((job, outcome))
            self._count_window(job, failed=isinstance(outcome, Failure))
        self._send_points(role, done)
        self._let_go(jobs)

    def _let_go(self, jobs: list[Job]) -> None:
        """Whatever became of these jobs, it is in the outbox."""
        for job in jobs:
            job.attempt.pending -= 1
            if job.buffer is not None:
                self._release(job.buffer)
            self._settle(job.attempt.key)

    def _queue_texts(self, job: Job, transcript: Transcript, now_seconds: float) -> None:
        jobs = text_jobs(job, transcript)
        if "text" in self.models:
            job.attempt.heard(transcribed(job, transcript, self.models))
        if not jobs:
            job.attempt.add_gap(job.start_seconds, job.end_seconds, NO_SPEECH if transcript.is_silence else NO_WORDS)
        self._queue_all(jobs, now_seconds)

    def _count_window(self, job: Job, failed: bool) -> None:
        """Coverage: a window's speech counts as text when at least one text came of it and none of them failed."""
        window = job.window
        if window is None:
            return
        if job.role == "text":
            window.pending_texts -= 1
            window.texts_failed |= failed
            if window.pending_texts == 0 and not window.texts_failed:
                job.attempt.text_seconds += window.seconds
        elif job.role == "voice":
            window.pending_voices -= 1
            if not failed:
                window.voiced.append((job.start_seconds, job.end_seconds))
            if window.pending_voices == 0:
                job.attempt.voice_seconds += covered_seconds(window.voiced)

    def _fail(self, job: Job, failure: Failure) -> None:
        if isinstance(job.source, Caption):
            job.attempt.cues.failed_seconds += job.end_seconds - job.start_seconds
        job.attempt.fail(_failure(job.role, job.start_seconds, job.end_seconds, failure))

    def _send_points(self, role: str, done: list[tuple[Job, Any]]) -> None:
        by_attempt: dict[int, list[tuple[Job, Any]]] = {}
        for job, vector in done:
            by_attempt.setdefault(id(job.attempt), []).append((job, vector))
        for pairs in by_attempt.values():
            message, array = points_message(role, pairs, self.models)
            attempt = pairs[0][0].attempt
            attempt.points[message.collection] += len(pairs)
            if role == "text":
                attempt.wrote(tuple(id_ for id_, (job, _) in zip(message.ids, pairs, strict=True) if job.window))
            self.outbox.put(message, array)

    def _settle(self, key: TaskKey) -> None:
        """Send the results of sections behind their last points."""
        for attempt in self._attempts.take_finished(key):
            self.outbox.put(attempt.result())

    def _release(self, buffer: Buffer) -> None:
        buffer.uses -= 1
        if buffer.uses == 0:
            self.gate.release(buffer.sender, buffer.cost_bytes)
            self.released.append((buffer.sender, buffer.cost_bytes))


def _failure(kind: str, start_seconds: float, end_seconds: float, failure: Failure) -> ItemFailure:
    return ItemFailure(
        kind=kind,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        code=failure.code,
        message=failure.message,
    )
