"""The decoder process: one task at a time, its items sent to the engine as its byte credit allows."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import zmq
from numpy.typing import NDArray

from engine.host_memory import peak_rss_bytes, rss_bytes
from engine.producer_messages import add_gap, caption_message, frame_message, speech_message
from engine.sandbox import allow_cpu, notes
from engine.trace import trace_of
from engine.trace_tasks import begin_task
from engine.trace_timesheet import Timesheet
from engine.worker import WorkerSpec, connect_control
from stages.captions import CaptionCue, find_sidecars, read_captions
from stages.errors import MediaError
from stages.media import content_of, probe
from stages.packing import merged_spans
from stages.video import read_frames
from stages.windows import SoundCheckpoint, parted, read_speech_windows
from transport.codec import cost_of, encode
from transport.credit import CreditAccount
from transport.messages import (
    AudioResume,
    Checkpoint,
    DecodeAudio,
    Decoded,
    DecodeFrames,
    DecoderStats,
    Drain,
    Gap,
    Grant,
    Join,
    Message,
    Probe,
    Probed,
    Progress,
    Ready,
    TaskEnd,
    TaskFailed,
    TaskKey,
    TaskStart,
    ToDecoder,
)
from transport.sockets import Channel

BEAT_SECONDS = 0.5  # how often a busy decoder says that it is alive
STATS_SECONDS = 1.0  # and how large it is, and what its time went into
IDLE_SECONDS = 1.0  # how often one without a task says the latter: that it is alive, too
# While the engine does not read, what was sent lies in our own memory, where ZeroMQ bounds messages and not bytes. So
# much is 450 frames or 70 windows of 30 s: many batches of each model.
MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
WAITS = {"credit": "wait for credit"}  # of what its time goes into, what the trace shows beside the tasks


class DrainingError(Exception):
    """The task in hand is long, and the supervisor wants to stop: give it up at this item."""


class Decoder:
    """Sockets and byte credit of a decoder process, and the three tasks it knows."""

    def __init__(self, spec: WorkerSpec, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._spec = spec
        self._config = spec.config
        self._control = connect_control(context, spec, ToDecoder)
        self._items: Channel[Grant] = Channel.connect(context, spec.endpoints.items, Grant, spec.identity)
        self._credit = CreditAccount()
        self._key = TaskKey(0, 0)
        self._done_seconds = 0.0
        self._beat_at = 0.0
        self._stats_at = 0.0
        self._draining = False
        self._items_sent = 0
        self._all_items_sent = 0
        self._gaps: list[Gap] = []
        self._notes: list[str] = []
        self._trace = trace_of(spec, self._control.send)
        self._times = Timesheet("idle", self._trace, WAITS)
        self._section_since = 0.0

    def run(self) -> None:
        """Take tasks until told to drain."""
        self._items.send(Join())
        self._control.send(Ready(role=self._spec.role, index=self._spec.index, notes=notes()))
        while not self._draining:
            received = self._control.receive(timeout_ms=int(IDLE_SECONDS * 1000))
            if received is None:
                self._send_stats()
            else:
                self._handle(received.message)
        self._flush()
        self._send_stats()
        self._items.close()
        self._control.close()

    def _handle(self, message: Message) -> None:
        match message:
            case Drain():
                self._draining = True
                return
            case Probe() | DecodeFrames() | DecodeAudio():
                self._key, self._done_seconds, self._items_sent, self._gaps, self._notes = message.key, 0.0, 0, [], []
                allow_cpu(self._config.decode.cpu_minutes)
        self._times.enter("decode")
        begin_task(self._trace, message)
        try:
            self._run_task(message)
        except MediaError as error:  # only opening raises it here: inside a span it becomes a gap
            self._control.send(TaskFailed(key=self._key, code=error.code, message=error.message))
        except DrainingError:
            self._control.send(TaskFailed(key=self._key, code="drained", message="stopped before its end"))
        _collect_garbage()
        self._trace.end()
        self._times.enter("idle")
        self._send_stats()

    def _run_task(self, message: Message) -> None:
        match message:
            case Probe():
                self._control.send(self._probe(message))
            case DecodeFrames():
                self._start(message)
                self._send_frames(message)
                self._end()
            case DecodeAudio():
                self._start(message)
                self._send_speech(message)
                self._end()

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _probe(self, task: Probe) -> Probed:
        media = probe(task.path, self._config.decode, find_sidecars(task.path))
        content = content_of(task.path, self._beat)
        return Probed(
            key=task.key,
            video_id=content.sha256,
            size_bytes=content.size_bytes,
            mtime_ns=content.mtime_ns,
            media=media,
        )

    def _send_frames(self, task: DecodeFrames) -> None:
        frames = read_frames(
            task.path,
            task.media,
            task.start_seconds,
            task.end_seconds,
            task.format,
            self._config.decode,
            self._progress,
        )
        end_seconds = task.end_seconds if task.end_seconds is not None else task.media.duration_seconds
        for frame in self._guarded(frames, task.start_seconds, end_seconds):
            self._send_item(frame_message(task.key, frame), frame.pixels)

    def _send_speech(self, task: DecodeAudio) -> None:
        cues = self._captions(task)
        if task.media.audio is None or not (task.transcribe or task.voices or cues):
            return
        section, self._done_seconds = (task.resume.section, task.resume.seconds) if task.resume else (0, 0.0)
        windows = read_speech_windows(
            task.path, task.media, self._config.decode, self._config.speech, task.resume, self._progress_or_stop
        )
        for item in self._guarded(windows, self._done_seconds, task.media.duration_seconds):
            if isinstance(item, SoundCheckpoint):
                section += 1
                self._end_section(AudioResume(section=section, seconds=item.end_seconds, state=item.state))
            else:
                for part in parted(item, cues) if cues else (item,):  # what no cue touches is transcribed
                    self._send_item(speech_message(task, part, cues), part.pcm)

    def _captions(self, task: DecodeAudio) -> list[tuple[float, float]]:
        """When there was a cue, by which the windows of sound are counted as covered. The cues themselves, and what is
        to be said of them, belong to section 0.
        """
        if task.captions is None:
            return []
        spans: list[tuple[float, float]] = []
        cues: Iterator[CaptionCue | Gap] = read_captions(task.path, task.captions, task.media, self._config.decode)
        for cue in self._guarded(cues, 0.0, task.media.duration_seconds):
            spans.append((cue.start_seconds, cue.end_seconds))
            self._beat()
            if task.resume is None:
                self._send_item(caption_message(task.key, cue))
        if task.resume is not None:
            self._gaps = []
        elif not spans and task.transcribe and task.media.audio is not None:  # nothing is missing: the sound has it all
            self._notes += [f"captions not used, speech is transcribed instead: {gap.reason}" for gap in self._gaps]
            self._gaps = []
        return merged_spans(spans)

    def _guarded(self, items: Iterator[Any], start_seconds: float, end_seconds: float | None) -> Iterator[Any]:
        """The items without the gaps, which are kept for the end; an error midway becomes a gap to the end."""
        reached = start_seconds
        try:
            for item in items:
                if isinstance(item, Gap):
                    add_gap(self._gaps, item)
                else:
                    reached = item.end_seconds
                    yield item
        except MediaError as error:
            end = max(end_seconds if end_seconds is not None else reached, reached)
            gap = Gap(start_seconds=reached, end_seconds=end, reason=f"{error.code}: {error.message}")
            add_gap(self._gaps, gap)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _start(self, task: DecodeFrames | DecodeAudio) -> None:
        self._section_since = time.monotonic()
        resume = task.resume if isinstance(task, DecodeAudio) else None
        section, languages = (resume.section, resume.languages) if resume is not None else (0, ())
        self._send(
            TaskStart(
                key=task.key,
                video_id=task.video_id,
                shown_path=task.shown_path,
                section=section,
                languages=languages,
            )
        )

    def _end_section(self, resume: AudioResume) -> None:
        self._send(Checkpoint(key=self._key, resume=resume, **self._account()))
        now = time.monotonic()
        self._trace.complete("section of sound", self._section_since, now, **{"to s": resume.seconds})
        self._section_since = now

    def _end(self) -> None:
        self._send(TaskEnd(key=self._key, **self._account()))
        self._control.send(Decoded(key=self._key))

    def _account(self) -> dict[str, Any]:
        """What a section, or a task without sections, sent and could not send; the next one counts from zero."""
        account = {"items": self._items_sent, "gaps": tuple(self._gaps), "notes": tuple(self._notes)}
        self._items_sent, self._gaps, self._notes = 0, [], []
        return account

    def _send_item(self, message: Message, array: NDArray[Any] | None = None) -> None:
        self._send(message, array)
        self._items_sent += 1
        self._all_items_sent += 1

    def _send(self, message: Message, array: NDArray[Any] | None = None) -> None:
        header = encode(message)
        cost_bytes = cost_of(header, array)
        self._take_grants(timeout_ms=0)
        while not self._may_send(cost_bytes):
            self._times.enter("credit")
            self._beat()  # waiting for the engine is no stall
            self._take_grants(timeout_ms=100)
        self._times.enter("decode")
        self._items.send_encoded(header, array)
        self._credit.spend(cost_bytes)

    def _flush(self) -> None:
        """Wait until the engine has let go of everything that was sent: then all credit is back.

        Closing a socket drops what is still queued after LINGER_MS, and the engine may be busy for longer.
        """
        while self._credit.available_bytes < self._credit.limit_bytes:
            self._beat()
            self._take_grants(timeout_ms=100)

    def _may_send(self, cost_bytes: int) -> bool:
        """Whether a message of this cost has credit, and would not block: who blocks cannot say that it is alive."""
        in_flight_bytes = self._credit.limit_bytes - self._credit.available_bytes
        if in_flight_bytes and in_flight_bytes + cost_bytes > MAX_IN_FLIGHT_BYTES:
            return False
        return self._credit.can_send(cost_bytes) and bool(self._items.socket.poll(0, zmq.POLLOUT))

    def _take_grants(self, timeout_ms: int) -> None:
        received = self._items.receive(timeout_ms)
        while received is not None:
            self._credit.grant(received.message.credit_bytes)
            received = self._items.receive(0)

    def _progress(self, done_seconds: float) -> None:
        self._done_seconds = max(self._done_seconds, done_seconds)
        self._beat()

    def _progress_or_stop(self, done_seconds: float) -> None:
        """As `_progress`, for tasks as long as a film: gives up when it is time to stop, in silence, too."""
        self._progress(done_seconds)
        if self._draining:
            raise DrainingError

    def _beat(self) -> None:
        """Say at most twice a second how far the task is, and look whether it is time to stop."""
        now = time.monotonic()
        if now - self._beat_at < BEAT_SECONDS:
            return
        self._beat_at = now
        self._control.send(Progress(key=self._key, done_seconds=self._done_seconds))
        self._trace.flush()
        if now - self._stats_at >= STATS_SECONDS:
            self._stats_at = now
            self._send_stats()
        received = self._control.receive(0)
        if received is not None and isinstance(received.message, Drain):
            self._draining = True

    def _send_stats(self) -> None:
        resident_bytes = rss_bytes()  # the kernel's mark may lag a little behind it
        self._control.send(
            DecoderStats(
                index=self._spec.index,
                peak_rss_bytes=max(peak_rss_bytes(), resident_bytes),
                rss_bytes=resident_bytes,
                generation=self._spec.generation,
                items=self._all_items_sent,
                decode_seconds=self._times.seconds("decode"),
                credit_seconds=self._times.seconds("credit"),
                idle_seconds=self._times.seconds("idle"),
                cpu_seconds=time.process_time(),
            )
        )
        self._trace.flush()


def _collect_garbage() -> None:
    """Free what the task left behind.

    PyAV's containers, streams and codecs refer to each other, so that a codec's buffers (0.4 MB at 360p, for each span)
    stay until the collector comes by, which it seldom does. What is alive between tasks are modules: frozen, they are
    not looked at again, and a collection takes microseconds instead of 70 ms.
    """
    gc.collect()
    gc.freeze()


def decoder_main(spec: WorkerSpec) -> None:
    """Entry of the decoder process."""
    Decoder(spec, zmq.Context()).run()
