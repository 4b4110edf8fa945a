"""The supervisor's side of its child processes: starting them, their log tails, their deaths."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgspec

from engine.errors import ExitCode, StartError
from engine.worker import WorkerSpec, child_main

TAIL_LINES = 20
READ_BYTES = 65536

# What the libraries say when the address space is used up: Python, C++, PyAV and decord.
OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory")


class Child:
    """One child process. Started by `spawn`: nothing of the supervisor's memory or threads is inherited."""

    def __init__(self, spec: WorkerSpec, echo: bool = False) -> None:
        self.spec = spec
        self.ready = False
        self.receiving = False  # the engine: it takes items, ready or not
        self._echo = echo
        self._partial = b""
        self.log_open = True  # closes with the child: its end of file is how a death wakes the supervisor
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        context = multiprocessing.get_context("spawn")
        parent_end, self._lifeline = context.Pipe(duplex=False)
        self.log, log_end = context.Pipe(duplex=False)
        os.set_blocking(self.log.fileno(), False)
        self.process: BaseProcess = context.Process(
            target=child_main,
            args=(msgspec.msgpack.encode(spec), parent_end, log_end),
            name=self.name,
            daemon=True,
        )
        self.process.start()
        self.started_seconds = time.monotonic()
        _close(parent_end, log_end)

    @property
    def name(self) -> str:
        """Role, with a number where there are several."""
        return f"{self.spec.role} {self.spec.index}" if self.spec.role == "decoder" else self.spec.role

    @property
    def identity(self) -> bytes:
        """Its name on the control socket."""
        return self.spec.identity

    @property
    def pid(self) -> int:
        """Its number, also when it is gone."""
        assert self.process.pid is not None, "a child is started when it is made"
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def read_log(self) -> None:
        """Take what it has written since, keeping the last lines. Never blocks."""
        with contextlib.suppress(BlockingIOError):
            while self.log_open:
                chunk = os.read(self.log.fileno(), READ_BYTES)
                self.log_open = bool(chunk)
                if self._echo:
                    sys.stderr.write(chunk.decode(errors="replace"))
                *lines, self._partial = (self._partial + chunk).split(b"\n")
                self._partial = self._partial[-READ_BYTES:]
                self.tail.extend(line.decode(errors="replace") for line in lines if line.strip())

    def kill(self) -> None:
        """Stop it now. Safe at any instant: what is not durable is done again."""
        if self.process.is_alive():
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Collect it after its end."""
        self.process.join()
        self.read_log()
        self.log_open = False
        _close(self.log, self._lifeline)

    def last_words(self) -> str:
        """How it ended and what it said last, in one line."""
        self.read_log()
        said = self.tail[-1] if self.tail else "it said nothing"
        limit = limit_reached(self.process.exitcode, self.tail) if self.spec.role == "decoder" else None
        reason = f" (it came to {limit})" if limit is not None else ""
        return f"{self.name} {describe_exit(self.process.exitcode)}{reason}; last log line: {said}"

    @property
    def failed_at_start(self) -> bool:
        """Whether it ended with an expected error, which a successor would meet as well."""
        return self.process.exitcode == ExitCode.CHILD_START_FAILED

    def failure(self) -> StartError:
        """Why it is gone: the expected error that it named; else how it ended, and its last line."""
        self.process.join()
        words = self.last_words()
        if self.process.exitcode in (ExitCode.CHILD_START_FAILED, ExitCode.STORE_LOST) and self.tail:
            code, separator, message = self.tail[-1].partition(": ")
            if separator:
                return StartError(code, message)
        return StartError(f"{self.spec.role}-died", words)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the end: no child is left half started, or started and known to nobody.

    The mask is for the children, who inherit it: a Ctrl-C, which a terminal sends to all, must not meet them before
    they ignore it. It is not enough here, where a library's thread may take the signal; so the handlers wait, too.
    """
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda caught_now, frame: held.append(caught_now)) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for caught in held:
        signal.raise_signal(caught)


def describe_exit(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "is still running"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    names = {int(known): known.name for known in ExitCode}
    return f"ended with exit code {code}" + (f" ({names[code]})" if code in names else "")


def limit_reached(code: int | None, tail: Iterable[str]) -> str | None:
    """The setting whose limit ended a decoder (engine/sandbox.py), by its exit code and last lines; None: neither."""
    if code == -signal.SIGXCPU:
        return "decode.cpu_minutes"
    ended_itself = code in (ExitCode.CHILD_CRASHED, -signal.SIGABRT)
    if ended_itself and any(words in line for line in tail for words in OUT_OF_MEMORY):
        return "decode.memory_gb"
    return None


def _close(*connections: Connection) -> None:
    for connection in connections:
        connection.close()
