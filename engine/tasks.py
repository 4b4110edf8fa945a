"""The supervisor's board of videos and tasks. Pure: messages and time go in, messages and finished videos come out.

A video is probed first; what is in it decides its tasks: one for each span of frames, one for the whole sound track. It
is finished when every task is durable or given up. A task whose decoder dies is tried again, up to `run.attempts`; when
the engine dies, all that it may have held is tried again.
"""

from collections import Counter, deque
from collections.abc import Callable

from engine.config import Config
from engine.videos import Task, VideoError, VideoJob
from stages.captions import choose_track
from stages.video import plan_spans
from transport.messages import (
    Abort,
    CaptionTrack,
    DecodeAudio,
    DecodeFrames,
    FrameFormat,
    Gap,
    MediaInfo,
    Message,
    Probe,
    Probed,
    TaskKey,
    TaskResult,
)


class Board:
    """All videos in work and their tasks."""

    def __init__(
        self,
        config: Config,
        frame_format: FrameFormat | None,
        is_known: Callable[[str], dict[str, object] | None] = lambda video_id: None,
    ) -> None:
        self._config = config
        self._frame_format = frame_format
        self._is_known = is_known
        self._queue: deque[Task] = deque()
        self._tasks: dict[int, Task] = {}
        self._by_content: dict[str, VideoJob] = {}
        self._next_id = 1
        self.jobs: dict[bytes, VideoJob] = {}  # in work, by path
        self.finished: deque[VideoJob] = deque()  # to be taken by the supervisor

    @property
    def queued_tasks(self) -> int:
        """Tasks that no decoder has yet."""
        return len(self._queue)

    @property
    def is_done(self) -> bool:
        """No video is in work."""
        return not self.jobs

    # --- in -----------------------------------------------------------------------------------------------------------

    def add(self, path: bytes, shown_path: str, now_seconds: float) -> None:
        """Take a file: it is probed first. A path that is in work already is taken once."""
        if path in self.jobs:
            return
        job = VideoJob(path, shown_path, now_seconds)
        self.jobs[path] = job
        self._queue_task(job, "probe", lambda key: Probe(key=key, path=path))

    def next_message(self) -> Message | None:
        """The next task for an idle decoder."""
        if not self._queue:
            return None
        task = self._queue.popleft()
        return task.make(task.key)

    def progress(self, key: TaskKey, done_seconds: float) -> None:
        """A decoder is this far into its task (seconds of the medium)."""
        task = self._tasks.get(key.task_id)
        if task is not None and task.attempt == key.attempt and task.kind != "probe":
            task.done_seconds = min(max(done_seconds - task.start_seconds, 0.0), task.end_seconds - task.start_seconds)

    def probed(self, message: Probed, now_seconds: float) -> None:
        """A file is known now: plan its tasks, unless its content is known already."""
        task = self._settle(message.key)
        if task is None:
            return
        job = task.job
        job.video_id, job.media = message.video_id, message.media
        job.size_bytes, job.mtime_ns = message.size_bytes, message.mtime_ns
        known = self._is_known(message.video_id)
        twin = self._by_content.get(message.video_id)
        if known is not None:
            job.known, job.status = known, "unchanged"
            self._finish(job, now_seconds)
        elif twin is not None:
            twin.twins.append(job)
            job.notes.append(f"same content as {twin.shown_path}")
        else:
            self._by_content[message.video_id] = job
            self._plan(job)
            self._finish_if_done(job, now_seconds)

    def durable(self, result: TaskResult, now_seconds: float) -> bool:
        """Every point of an attempt is in the store; an older attempt than the last counts too. False: known before."""
        task = self._settle(result.key)
        if task is None:
            return False
        job = task.job
        job.points.update(result.points)
        for gap in result.gaps:
            job.add_gap(gap)
        job.failures.extend(result.failures)
        job.notes.extend(note for note in result.notes if note not in job.notes)
        for name in ("speech_seconds", "text_seconds", "voiced_seconds", "voice_seconds", "oom_events", "batch_splits"):
            job.sums[name] += getattr(result, name)
        job.heard |= task.kind == "audio" and job.media is not None and job.media.audio is not None
        if result.failures and job.error is None:
            first = result.failures[0]
            job.error = VideoError(first.code, f"{len(result.failures)} failed items, the first: {first.message}")
        self._finish_if_done(job, now_seconds)
        return True

    def failed(self, key: TaskKey, code: str, message: str, now_seconds: float) -> None:
        """A task cannot be done: its span becomes a gap, or its whole video fails when it could not even be opened."""
        task = self._settle(key)
        if task is None:
            return
        job = task.job
        job.error = job.error or VideoError(code, message)
        if task.kind != "probe":
            reason = f"{code}: {message}"
            job.gaps.append(Gap(start_seconds=task.start_seconds, end_seconds=task.end_seconds, reason=reason))
        self._finish_if_done(job, now_seconds)

    def decoder_lost(self, key: TaskKey, reason: str, now_seconds: float) -> Abort | None:
        """The decoder of this attempt is gone: try again, or give the task up. Returns what the engine must be told."""
        task = self._tasks.get(key.task_id)
        if task is None or task.attempt != key.attempt:
            return None
        task.decoder_deaths += 1
        if task.decoder_deaths >= self._config.run.attempts:
            message = f"gave up after {task.decoder_deaths} attempts (run.attempts): {reason}"
            self.failed(key, "decoder-died", message, now_seconds)
        else:
            self._queue_again(task)
        return Abort(key=key)

    def engine_lost(self) -> None:
        """The engine is gone, and with it all that a decoder had sent it: every task that is not queued, is again.

        That is none of `run.attempts`. An attempt that turns out durable all the same counts, as ever.
        """
        queued = {task.task_id for task in self._queue}
        for task in reversed(list(self._tasks.values())):  # the oldest comes first again
            if task.task_id not in queued:
                self._queue_again(task)

    def stop(self, now_seconds: float) -> None:
        """Give up every task that no decoder has: the run is draining."""
        for task in list(self._queue):
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
        self._queue.appendleft(task)

    def _queue_task(
        self,
        job: VideoJob,
        kind: str,
        make: Callable[[TaskKey], Message],
        start_seconds: float = 0.0,
        end_seconds: float = 0.0,
    ) -> None:
        task = Task(self._next_id, job, make, kind, start_seconds, end_seconds)
        self._next_id += 1
        self._tasks[task.task_id] = task
        job.open_tasks[task.task_id] = task
        job.total_seconds += end_seconds - start_seconds
        self._queue.append(task)

    def _plan(self, job: VideoJob) -> None:
        media = job.media
        assert media is not None
        job.notes.extend(media.notes)
        duration = media.duration_seconds or 0.0
        self._plan_audio(job, media, duration)
        if media.video is None:
            job.notes.append("no video stream: no frames")
        elif self._frame_format is None:
            job.notes.append('models.image = "off": no frames')
        else:
            for start, end in plan_spans(media.video.duration_seconds or media.duration_seconds, self._config.decode):
                self._plan_span(job, media, start, end, duration)

    def _plan_span(self, job: VideoJob, media: MediaInfo, start: float, end: float | None, duration: float) -> None:
        frame_format, video_id = self._frame_format, job.video_id
        assert frame_format is not None
        assert video_id is not None

        def make(key: TaskKey) -> Message:
            return DecodeFrames(
                key=key,
                path=job.path,
                shown_path=job.shown_path,
                video_id=video_id,
                media=media,
                start_seconds=start,
                end_seconds=end,
                format=frame_format,
            )

        self._queue_task(job, "frames", make, start, end if end is not None else max(duration, start))

    def _plan_audio(self, job: VideoJob, media: MediaInfo, duration: float) -> None:
        models, video_id = self._config.models, job.video_id
        assert video_id is not None
        wanted = self._config.speech.captions == "prefer" and models.text != "off"
        captions = choose_track(media.captions, self._config.speech) if wanted else None
        transcribe = models.speech != "off"
        voices = models.voice != "off"
        job.notes.extend(
            f'models.{role} = "off": {what}'
            for role, what in (
                ("speech", "nothing is transcribed"),
                ("text", "no text vectors"),
                ("voice", "no voice vectors"),
            )
            if getattr(models, role) == "off" and media.audio is not None
        )
        if captions is not None:
            job.notes.append(f"captions: {describe_track(captions)}; where it has no cue, speech is transcribed")
        if media.audio is None:
            job.notes.append("no audio stream: no speech")
        if captions is None and (media.audio is None or not (transcribe or voices)):
            return

        def make(key: TaskKey) -> Message:
            return DecodeAudio(
                key=key,
                path=job.path,
                shown_path=job.shown_path,
                video_id=video_id,
                media=media,
                captions=captions,
                transcribe=transcribe,
                voices=voices,
            )

        self._queue_task(job, "audio", make, 0.0, duration)

    def _settle(self, key: TaskKey) -> Task | None:
        """Close a task: done or given up. A retry of it that still waits is withdrawn."""
        task = self._tasks.pop(key.task_id, None)
        if task is None:
            return None
        if task in self._queue:
            self._queue.remove(task)
        task.job.open_tasks.pop(task.task_id)
        task.job.settled_seconds += task.end_seconds - task.start_seconds
        return task

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
            twin.status = "unchanged" if job.status in ("indexed", "partial") else "failed"
            twin.error = job.error if twin.status == "failed" else None
            twin.points = Counter(job.points)
            self._finish(twin, now_seconds)


def describe_track(track: CaptionTrack) -> str:
    """A caption track in a few words."""
    where = f"stream {track.stream_index}" if track.sidecar is None else "the file beside it"
    return f"{where} ({track.format}, {track.language or 'language not given'})"
