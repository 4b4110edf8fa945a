"""What a process did when, as events in the Trace Event Format, which Chrome and Perfetto open.

    Trace ─ Traced messages, over the control socket ─► supervisor ─► TraceFile

Every event is written by the process that lived it; decoders may write no file (engine/sandbox.py), so all of them hand
theirs to the supervisor, a second late at most. Timestamps are microseconds of CLOCK_MONOTONIC, which all processes of
a machine share. The format is the one of chrome://tracing ("Trace Event Format", Duffy and others, Google).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.worker import Endpoints, WorkerSpec
from transport.messages import Traced

MAX_EVENTS = 1_000_000  # of one process: about 150 MB of the file
MAX_FILE_BYTES = 4 * 1024**3  # of all, restarts and what a decoder that was taken over may send included
FLUSH_EVENTS = 1000
# The thread of each process that is recorded, in the order of their tracks.
THREADS = {"supervisor": "loop", "decoder": "tasks", "engine": "step loop", "consumer": "loop"}
HEAD = b'{"displayTimeUnit":"ms","traceEvents":[\n'
FOOT = b"\n]}\n"
SEPARATOR = b",\n"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
Say = Callable[[Traced], object]


class NoTrace:
    """Records nothing, and costs a call."""

    enabled = False

    def complete(self, name: str, start_seconds: float, end_seconds: float, **about: Any) -> None:
        """Something that took from start to end (time.monotonic); whatever lies within it is shown below it."""

    def begin(self, name: str, **about: Any) -> None:
        """Something begins, and is in the trace even if this process dies before its `end`."""

    def end(self, **about: Any) -> None:
        """What was begun last is over."""

    def instant(self, name: str, **about: Any) -> None:
        """Something happened."""

    def flush(self) -> None:
        """Hand over what was recorded."""


class Trace(NoTrace):
    """Records the events of one track: of one thread, which alone may call it. Memory: FLUSH_EVENTS events."""

    enabled = True

    def __init__(
        self,
        name: str,
        say: Say,
        *,
        start: int = 0,
        max_events: int = MAX_EVENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """name: of the process: its role, and a number. start: which process of the run it is, so that a successor is
        told from the dead.
        """
        self._say = say
        self._clock = clock
        self._left = max_events
        self._open: list[str] = []
        self._pid = os.getpid()
        self._events: list[bytes] = []
        role = name.partition(" ")[0]
        self._put("M", "process_name", 0.0, args={"name": name})
        self._put("M", "process_sort_index", 0.0, args={"sort_index": list(THREADS).index(role)})
        self._put("M", "thread_name", 0.0, args={"name": THREADS[role]})
        if start:
            self._put("M", "process_labels", 0.0, args={"labels": f"process {start} of the run"})

    def complete(self, name: str, start_seconds: float, end_seconds: float, **about: Any) -> None:
        duration = _microseconds(end_seconds) - _microseconds(start_seconds)
        self._record("X", name, start_seconds, dur=duration, args=about)

    def begin(self, name: str, **about: Any) -> None:
        if self._record("B", name, self._clock(), args=about):
            self._open.append(name)

    def end(self, **about: Any) -> None:
        if self._open:  # its beginning was recorded: then its end is, however full the trace
            self._put("E", self._open.pop(), self._clock(), args=about)

    def instant(self, name: str, **about: Any) -> None:
        self._record("i", name, self._clock(), s="p", args=about)

    def counter(self, name: str, values: dict[str, float]) -> None:
        """Figures as they stand now; a track of its own."""
        self._record("C", name, self._clock(), args=values)

    def span(self, phase: str, name: str, at_seconds: float, number: int, **about: Any) -> None:
        """The beginning (phase "b") or the end ("e") of something that overlaps others; number: which one it is."""
        self._record(phase, name, at_seconds, cat="video", id=number, args=about)

    def flush(self) -> None:
        if self._events:
            self._say(Traced(events=SEPARATOR.join(self._events), is_full=self._left == 0))
            self._events.clear()

    def _record(self, phase: str, name: str, at_seconds: float, **more: Any) -> bool:
        """False when the trace is full; its last event says so."""
        if self._left == 0:
            return False
        self._left -= 1
        self._put(phase, name, at_seconds, **more)
        if self._left == 0:
            self._put("i", "the trace is full: nothing more is recorded of this process", at_seconds, s="p", args={})
        if len(self._events) >= FLUSH_EVENTS:
            self.flush()
        return True

    def _put(self, phase: str, name: str, at_seconds: float, **more: Any) -> None:
        event = {"ph": phase, "ts": _microseconds(at_seconds), "pid": self._pid, "tid": self._pid, "name": name}
        self._events.append(_encode({**event, **more}))


def trace_of(spec: WorkerSpec, say: Say) -> NoTrace:
    """The recorder of a child, if its run is traced. say: sends to the supervisor."""
    if not spec.endpoints.traced:
        return NoTrace()
    name = f"{spec.role} {spec.index}" if spec.role == "decoder" else spec.role
    return Trace(name, say, start=spec.generation)


def traced(endpoints: Endpoints, is_traced: bool) -> Endpoints:
    """The endpoints of a run whose children record what they do, or do not."""
    return msgspec.structs.replace(endpoints, traced=is_traced)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _refused(path: Path, reason: str | None) -> ConfigError:
    return ConfigError("bad-trace", f"--trace {path}: {reason}; name a new file in a writable directory")


def _is_whole(events: bytes) -> bool:
    """Whether they can stand in a list: a decoder that was taken over may send anything."""
    try:
        return bool(_decode(b"[" + events + b"]"))
    except msgspec.DecodeError:
        return False


class TraceFile:
    """The file of a run's trace. It is whole JSON after every write, so a run that is killed leaves one that opens."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        """Raises ConfigError when the file cannot be written."""
        self.trouble = ""  # why nothing more is written
        self._max_bytes = max_bytes
        self._at = len(HEAD)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _refused(path, error.strerror) from error
        trouble = self._begin()
        if trouble:
            self.close()
            raise _refused(path, trouble)

    def _begin(self) -> str:
        """Empty it and write its head; returns why not. Whatever else is there, a video perhaps, stays as it is."""
        there = os.pread(self._file, len(HEAD), 0)
        if there and there != HEAD:
            return "it is there, and is no trace"
        os.ftruncate(self._file, 0)
        self._write(HEAD + FOOT, 0)
        return self.trouble

    def take(self, message: Traced) -> None:
        """Write the events of a process."""
        if self.trouble or not _is_whole(message.events):
            return
        if self._at + len(message.events) > self._max_bytes:
            self.trouble = f"it has {self._at / 1e9:.1f} GB, as much as it may"
            return
        chunk = message.events if self._at == len(HEAD) else SEPARATOR + message.events
        if self._write(chunk + FOOT, self._at):
            self._at += len(chunk)

    def _write(self, data: bytes, at: int) -> bool:
        try:
            while data:
                written = os.pwrite(self._file, data, at)
                data, at = data[written:], at + written
        except OSError as error:
            self.trouble = error.strerror or str(error)
            self._mend()
        return not self.trouble

    def _mend(self) -> None:
        """The disk is full: what is there already is closed in the room that it has."""
        try:
            os.ftruncate(self._file, self._at)
            os.pwrite(self._file, FOOT, self._at)
        except OSError as error:
            self.trouble += f"; the file is not closed: {error.strerror}"

    def close(self) -> None:
        """Nothing more comes. Closing twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self.trouble = self.trouble or "it is closed"
