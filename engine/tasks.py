"""The supervisor's board of videos and tasks. Pure: messages and time go in, messages and finished videos come out.

A video is probed first; what is in it decides its tasks: one for each span of frames, one for the whole sound track. It
is finished when every task is durable or given up. A task whose decoder dies is tried again, up to `run.attempts`; when
the engine dies, all that it may have held is tried again. What is durable is in the task book (the ledger), so that a
video goes on where an earlier run left it.

The book may be unavailable for a time, and raises then; nothing has changed here when it does, and the same call can be
made again.
"""

from collections import Counter, deque
from collections.abc import Callable

from engine.config import Config
from engine.ledger_tasks import PlannedTask
from engine.notes import summed_notes
from engine.planning import MakeMessage, Plan, plan
from engine.taskbook import MemoryBook, TaskBook
from engine.videos import ACCESS_CODES, PASSING_CODES, Task, VideoError, VideoJob
from transport.messages import Abort, FrameFormat, Gap, Message, Probe, Probed, TaskKey, TaskResult

# A decoder that somebody or something kills (an operator, the kernel for want of memory) accuses its task less than one
# that crashes or stalls in it: of so many such deaths one counts.
STRANGE_DEATHS = 3
SUMS = ("speech_seconds", "text_seconds", "voiced_seconds", "voice_seconds", "oom_events", "batch_splits")


class Board:
    """All videos in work and their tasks."""

    def __init__(
        self,
        config: Config,
        frame_format: FrameFormat | None,
        is_known: Callable[[str], dict[str, object] | None] = lambda video_id: None,
        book: TaskBook | None = None,
        retry_failed: bool = True,
    ) -> None:
        """retry_failed: what failed in an earlier run is tried again when its video comes along."""
        self._config = config
        self._frame_format = frame_format
        self._is_known = is_known
        self._book = book or MemoryBook()
        self._retry_failed = retry_failed
        self._queues: dict[int, deque[Task]] = {}  # by priority
        self._tasks: dict[int, Task] = {}
        self._by_content: dict[str, VideoJob] = {}
        self._last_probe = 0  # their ids are negative: they are in no book
        self.jobs: dict[bytes, VideoJob] = {}  # in work, by path
        self.finished: deque[VideoJob] = deque()  # to be taken by the supervisor
        self.withdrawn: deque[TaskKey] = deque()  # the same: attempts given out, at what an older one has done since

    @property
    def queued_tasks(self) -> int:
        """Tasks that no decoder has yet."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def top_priority(self) -> int | None:
        """The highest priority of a queued task; None when none is queued."""
        return max((priority for priority, queue in self._queues.items() if queue), default=None)

    @property
    def is_done(self) -> bool:
        """No video is in work."""
        return not self.jobs

    @property
    def content_in_work(self) -> frozenset[str]:
        """Ids of the videos in work."""
        return frozenset(self._by_content)

    def path_of(self, key: TaskKey) -> bytes | None:
        """The file of a task; None: it is settled."""
        task = self._tasks.get(key.task_id)
        return task.job.path if task is not None else None

    def in_flight(self) -> list[Task]:
        """Tasks that a decoder or the engine has."""
        queued = {task.task_id for queue in self._queues.values() for task in queue}
        return [task for task in self._tasks.values() if task.task_id not in queued]

    # --- in -----------------------------------------------------------------------------------------------------------

    def add(
        self, path: bytes, shown_path: str, now_seconds: float, priority: int = 0, complete_seconds: float | None = None
    ) -> None:
        """Take a file: it is probed first. A path that is in work already is taken once."""
        if path in self.jobs:
            return
        job = VideoJob(path, shown_path, now_seconds, priority, complete_seconds)
        self.jobs[path] = job
        self._last_probe -= 1
        self._queue(Task(self._last_probe, job, lambda key, resume: Probe(key=key, path=path), "probe"))

    def next_message(self) -> Message | None:
        """The next task for an idle decoder."""
        priority = self.top_priority
        if priority is None:
            return None
        task = self._queues[priority].popleft()
        return task.make(task.key, task.resume)

    def progress(self, key: TaskKey, done_seconds: float) -> None:
        """A decoder is this far into its task (seconds of the medium)."""
        task = self._tasks.get(key.task_id)
        if task is not None and task.attempt == key.attempt and task.kind != "probe":
            task.done_seconds = min(max(done_seconds - task.start_seconds, 0.0), task.end_seconds - task.start_seconds)

    def probed(self, message: Probed, now_seconds: float) -> None:
        """A file is known now: plan its tasks, unless its content is known already."""
        task = self._tasks.get(message.key.task_id)
        if task is None:
            return
        job = task.job
        known = self._is_known(message.video_id)
        twin = self._by_content.get(message.video_id)
        job.video_id, job.media = message.video_id, message.media
        job.size_bytes, job.mtime_ns = message.size_bytes, message.mtime_ns
        if known is not None:
            job.known, job.status = known, "unchanged"
            self._settle(task)
            self._finish(job, now_seconds)
        elif twin is not None:
            twin.twins.append(job)
            job.notes.append(f"same content as {twin.shown_path}")
            self._settle(task)
        else:
            job.notes = []
            plans = plan(job, self._frame_format, self._config)
            planned = self._book.plan(message.video_id, [each.span for each in plans], self._retry_failed)
            self._settle(task)
            self._by_content[message.video_id] = job
            for each, row in zip(plans, planned, strict=True):
                self._take_up(job, each, row)
            self._finish_if_done(job, now_seconds)

    def durable(self, result: TaskResult, now_seconds: float) -> bool:
        """Every point of an attempt, or of a section of it, is in the store; an older attempt than the last counts too.
        Nothing may come of the last then: see `withdrawn`.

        False: it is known, or belongs to no video in work; the book takes it all the same if it knows its task.
        """
        task = self._tasks.get(result.key.task_id)
        if task is None:
            self._book.section(result.key.task_id, result)
            return False
        if result.section != task.section:
            return False
        if not _was_out_of_reach(result):  # else it is done again when the file is back
            self._book.section(task.task_id, result)
        task.decoder_deaths = task.strange_deaths = task.engine_deaths = 0
        task.job.searchable(now_seconds)
        self._count(task, result)
        if result.resume is not None:
            task.section, task.resume = result.resume.section, result.resume
        else:
            if self._settle(task) and task.key != result.key:
                self.withdrawn.append(task.key)
            self._finish_if_done(task.job, now_seconds)
        return True

    def searchable(self, key: TaskKey, now_seconds: float) -> None:
        """The first points of an attempt are in the store."""
        task = self._tasks.get(key.task_id)
        if task is not None:
            task.job.searchable(now_seconds)

    def failed(self, key: TaskKey, code: str, message: str, now_seconds: float) -> None:
        """A task cannot be done: its span becomes a gap, or its whole video fails when it could not even be opened."""
        task = self._tasks.get(key.task_id)
        if task is None:
            return
        if code not in PASSING_CODES | ACCESS_CODES and task.kind != "probe":
            self._book.failed(task.task_id, code, message)
        self._settle(task)
        self._give_up(task, code, message)
        self._finish_if_done(task.job, now_seconds)

    def decoder_lost(self, key: TaskKey, reason: str, now_seconds: float, strange: bool = False) -> Abort | None:
        """The decoder of this attempt is gone: try again, or give the task up. Returns what the engine must be told.

        strange: it was killed from outside, which says less about the task.
        """
        task = self._tasks.get(key.task_id)
        if task is None or task.attempt != key.attempt:
            return None
        counts = not strange or (task.strange_deaths + 1) % STRANGE_DEATHS == 0
        if counts and task.kind != "probe":
            self._book.died(task.task_id)
        task.strange_deaths += strange
        task.decoder_deaths += counts
        if task.decoder_deaths >= self._config.run.attempts:
            message = f"gave up after {task.decoder_deaths} attempts (run.attempts): {reason}"
            self.failed(key, "decoder-died", message, now_seconds)
        else:
            self._queue_again(task)
        return Abort(key=key)

    def engine_lost(self, reason: str = "", now_seconds: float = 0.0, accuse: bool = False) -> bool:
        """The engine is gone, and with it all that a decoder had sent it: every task that is not queued, is again.

        That is none of `run.attempts`. An attempt that turns out durable all the same counts, as ever.

        accuse: engines die again and again, so the task that was alone in this one is suspected, and given up when that
        was so for `run.attempts` times; then this returns True.
        """
        under_way = self.in_flight()
        if accuse and len(under_way) == 1 and under_way[0].kind != "probe":
            under_way[0].engine_deaths += 1
        given_up = False
        for task in reversed(under_way):  # the oldest comes first again
            if task.engine_deaths >= self._config.run.attempts:
                message = f"the engine died {task.engine_deaths} times with nothing else in it (run.attempts): {reason}"
                self.failed(task.key, "engine-died", message, now_seconds)
                given_up = True
            else:
                self._queue_again(task)
        return given_up

    def stop(self, now_seconds: float) -> None:
        """Give up every task that no decoder has: the run is draining."""
        for queue in self._queues.values():
            for task in list(queue):
                self._interrupt(task, now_seconds)

    def stop_all(self, now_seconds: float) -> None:
        """Give up every task there is: nobody is left to do it."""
        for task in list(self._tasks.values()):
            self._interrupt(task, now_seconds)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _interrupt(self, task: Task, now_seconds: float) -> None:
        self.failed(task.key, "interrupted", "the run was stopped before this was done", now_seconds)

    def _queue_again(self, task: Task) -> None:
        task.attempt += 1
        task.done_seconds = 0.0
        self._queues[task.job.priority].appendleft(task)

    def _queue(self, task: Task) -> None:
        self._tasks[task.task_id] = task
        task.job.open_tasks[task.task_id] = task
        self._queues.setdefault(task.job.priority, deque()).append(task)

    def _take_up(self, job: VideoJob, each: Plan, row: PlannedTask) -> None:
        """A planned task, as far as an earlier run has not done it."""
        make: MakeMessage = each.make
        end = each.span.end_seconds if each.span.end_seconds is not None else each.span.start_seconds
        task = Task(row.task_id, job, make, each.span.kind, each.span.start_seconds, end)
        task.decoder_deaths, task.resume = row.deaths, row.resume
        task.section = row.resume.section if row.resume is not None else 0
        job.total_seconds += task.end_seconds - task.start_seconds
        if row.results is not None:
            self._count(task, row.results)
        if row.state == "open":
            self._queue(task)
            return
        job.settled_seconds += task.end_seconds - task.start_seconds
        if row.error is not None:
            self._give_up(task, *row.error)

    def _count(self, task: Task, result: TaskResult) -> None:
        job = task.job
        job.points.update(result.points)
        for gap in result.gaps:
            job.add_gap(gap)
        job.failures.extend(result.failures)
        job.notes = summed_notes([*job.notes, *result.notes])
        job.languages.update(dict(result.languages))
        for name in SUMS:
            job.sums[name] += getattr(result, name)
        job.heard |= task.kind == "audio" and job.media is not None and job.media.audio is not None
        if result.failures and job.error is None:
            first = result.failures[0]
            job.error = VideoError(first.code, f"{len(result.failures)} failed items, the first: {first.message}")

    def _give_up(self, task: Task, code: str, message: str) -> None:
        job = task.job
        job.blame(code, message)
        if task.kind != "probe":
            begin = task.resume.seconds if task.resume is not None else task.start_seconds
            reason = f"{code}: {message}"
            job.gaps.append(Gap(start_seconds=begin, end_seconds=max(begin, task.end_seconds), reason=reason))

    def _settle(self, task: Task) -> bool:
        """Close a task: done or given up. A retry of it that still waits is withdrawn. True: none waited."""
        del self._tasks[task.task_id]
        queue = self._queues.get(task.job.priority)
        waits = queue is not None and task in queue
        if queue is not None and waits:
            queue.remove(task)
        task.job.open_tasks.pop(task.task_id)
        task.job.settled_seconds += task.end_seconds - task.start_seconds
        return not waits

    def _finish_if_done(self, job: VideoJob, now_seconds: float) -> None:
        if job.open_tasks:
            return
        points = sum(job.points.values())
        if job.error is None and not points and job.gaps:  # nothing at all came of it: the first reason stands for all
            code, _, message = job.gaps[0].reason.partition(": ")
            job.error = VideoError(code, message)
        whole = job.error is None and not job.gaps
        job.status = "indexed" if whole else "partial" if points else "failed"
        self._finish(job, now_seconds)

    def _finish(self, job: VideoJob, now_seconds: float) -> None:
        job.finished_seconds = now_seconds
        self.jobs.pop(job.path, None)
        self.finished.append(job)
        if job.video_id is not None and self._by_content.get(job.video_id) is job:
            del self._by_content[job.video_id]
        for twin in job.twins:
            is_there = job.status in ("indexed", "partial") and not job.is_passing  # else it is tried again, as we are
            twin.status = "unchanged" if is_there else "failed"
            twin.error = job.error if twin.status == "failed" else None
            twin.points = Counter(job.points)
            self._finish(twin, now_seconds)


def _was_out_of_reach(result: TaskResult) -> bool:
    """Whether something is missing for a reason that says nothing about the content."""
    return any(gap.reason.partition(":")[0] in ACCESS_CODES for gap in result.gaps)
