"""Sluice as it is killed: a process in a session of its own, started again whenever it ends, as a service manager does.

An end that is not our doing is a surprise, and every surprise is a failure of the run.
"""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.client import ask
from engine.config import load_config
from engine.errors import ExitCode
from engine.ledger import ledger_path
from engine.ledger_reader import LedgerReader
from stages.errors import SluiceError
from tests.chaos.processes import Process, in_session
from tests.runs import ROOT, command
from transport.requests import StatusRequest

LOOK_SECONDS = 0.02
ORPHAN_SECONDS = 30.0  # by then the children of a killed supervisor have noticed; loading a library may take long
TAIL_LINES = 30
STARTING, READY = ("=== start", "restarting the engine"), "indexing on"  # what the log says last tells which it is
ANSWER_SECONDS = 3.0  # a stopped daemon says nothing, and must not hold up the harness
ASK_SECONDS = 0.5
DRAIN_SECONDS = 120.0
# In tests, files appear whole, and nobody waits for minutes.
WATCH_SETTINGS = (
    "watch.quiet_seconds=0.3", "watch.scan_seconds=2", "daemon.metrics_port=0", "daemon.log_format=text",
)  # fmt: skip


class Surprised(RuntimeError):
    """Something ended, or lived on, that should not have."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises TimeoutError when it does not come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)


class Subject(ABC):
    """One command of run.py that is kept running. `ingest` and `daemon` differ in when they are done."""

    def __init__(self, arguments: Sequence[str], settings: Sequence[str], log: Path) -> None:
        self.settings = list(settings)
        self.log = log
        self.starts = 0
        self.surprises: list[str] = []
        self.environment: Mapping[str, str] = {}
        self.may_die = False  # by SIGKILL, at a failpoint
        self._command = command(arguments, settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._killed: set[str] = set()  # kinds that we killed since the last start
        self._told_to_stop = False

    # --- what differs ---

    @abstractmethod
    def is_idle(self) -> bool:
        """Whether there is nothing left to do."""

    @abstractmethod
    def is_expected(self, code: int, killed: set[str]) -> bool:
        """Whether it may end so after these kinds were killed."""

    @abstractmethod
    def stop(self, seconds: float) -> None:
        """Let it end in order."""

    # --- what does not ---

    @property
    def is_running(self) -> bool:
        """Whether its supervisor lives. An end is judged when it is first seen."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return True
        if not (self.is_expected(code, self._killed) or (self.may_die and code == -signal.SIGKILL)):
            self.surprises.append(f"start {self.starts} ended with {code} after {sorted(self._killed)}: {self.tail(1)}")
        self._wait_for_orphans()
        self._process = None
        return False

    def ensure_running(self) -> None:
        """Start it, if it does not run. Raises Surprised when it ended otherwise than it may."""
        if self.is_running:
            return
        self.check()
        self.starts += 1
        self._killed, self._told_to_stop = set(), False
        with self.log.open("ab") as log:
            log.write(f"=== start {self.starts} ===\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True,
                env={**os.environ, **self.environment},
            )  # fmt: skip

    def check(self) -> None:
        """Raises Surprised when it had to be."""
        if self.surprises:
            raise Surprised("\n".join([*self.surprises, "its log ends:", self.tail()]))

    def processes(self, kind: str | None = None) -> list[Process]:
        """What lives of it: all, or those of a kind. Its first process is the supervisor, whatever its name."""
        if self._process is None:
            return []
        main = self._process.pid
        found = [Process(each.pid, "supervisor") if each.pid == main else each for each in in_session(main)]
        return [each for each in found if kind is None or each.kind == kind]

    def kill(self, process: Process) -> bool:
        """SIGKILL; whether it was still there."""
        self._killed.add(process.kind)
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if process.kind == "supervisor" and self._process is not None:
            self._process.wait()
        return True

    def crash(self) -> None:
        """Its supervisor is killed, if it runs; its children must end by themselves."""
        for process in self.processes("supervisor"):
            self.kill(process)
            wait_until(lambda: not self.is_running, 2 * ORPHAN_SECONDS, "the end of a killed subject")

    @property
    def is_at_work(self) -> bool:
        """Whether the engine's models are loaded, by the log."""
        text = self.log.read_text("utf-8", "replace") if self.is_running else ""
        begun = max(text.rfind(sign) for sign in STARTING)
        return text.find(READY, begun) >= 0

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """End whatever is left of it, at once."""
        for process in self.processes():
            self.kill(process)
        if self._process is not None:
            self._process.wait()
            self._wait_for_orphans()
            self._process = None

    def _wait_for_orphans(self) -> None:
        """Children must notice by themselves that their supervisor is gone. Those that do not are a surprise."""
        try:
            wait_until(lambda: not self._orphans(), ORPHAN_SECONDS, "the end of orphans")
        except TimeoutError:
            left = self._orphans()
            self.surprises.append(f"orphans lived on: {left}")
            for process in left:
                self.kill(process)

    def _orphans(self) -> list[Process]:
        return [process for process in self.processes() if process.kind != "supervisor"]


class IngestSubject(Subject):
    """`ingest DIR`, again and again until it ends by itself with everything done."""

    ends: tuple[ExitCode, ...] = (ExitCode.OK,)  # with everything done

    def __init__(self, directory: Path, settings: Sequence[str], log: Path) -> None:
        super().__init__(["ingest", str(directory)], settings, log)
        self._done = False

    def is_idle(self) -> bool:
        return not self.is_running and self._done

    def is_expected(self, code: int, killed: set[str]) -> bool:
        """Done; or killed; or it could not go on without what was killed."""
        self._done = code in self.ends
        return self._done or (code == -signal.SIGKILL and "supervisor" in killed) or (
            code == ExitCode.NO_START and bool(killed)
        )  # fmt: skip

    def ensure_running(self) -> None:
        super().ensure_running()
        self._done = False

    def stop(self, seconds: float) -> None:
        """It ends when all is done, and only then. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.is_idle():
            self.ensure_running()
            wait_until(lambda: not self.is_running, deadline - time.monotonic(), "the end of ingest")
        self.check()


class RealIngestSubject(IngestSubject):
    """… of files of which some are broken: whether they fail alike shows in what is stored of the others."""

    ends = (ExitCode.OK, ExitCode.SOME_FAILED)


class DaemonSubject(Subject):
    """`daemon`, with the directory as its only root. It must never end but by our doing."""

    def __init__(self, directory: Path, settings: Sequence[str], log: Path) -> None:
        super().__init__(["daemon"], [f'watch.roots=["{directory}"]', *WATCH_SETTINGS, *settings], log)
        self.directory = directory
        self.config = load_config(settings=self.settings)
        self._asked_at = float("-inf")
        self._idle = False

    def status(self) -> dict[str, Any] | None:
        """What `status --json` prints; None while it does not answer: it starts, or has just ended."""
        try:
            return ask(self.config, StatusRequest(), timeout_seconds=ANSWER_SECONDS)
        except SluiceError:
            return None

    def is_idle(self) -> bool:
        """Whether it says so, and its ledger knows every file. After a yes it is asked anew: there may be new files."""
        if self._idle or time.monotonic() - self._asked_at >= ASK_SECONDS:
            status = self.status()
            self._idle = status is not None and status["state"] == "idle" and not self.unknown_files()
            self._asked_at = time.monotonic()
        return self._idle

    def unknown_files(self) -> list[Path]:
        """Media in its directory that the ledger does not know as they are."""
        endings = {f".{ending}" for ending in self.config.run.extensions}
        files = [path for path in self.directory.rglob("[!.]*") if path.suffix in endings]
        try:
            with closing(LedgerReader(ledger_path(self.config))) as ledger:
                return [path for path in files if not _is_known(ledger, path)]
        except SluiceError:  # none is there yet, or it is being made
            return files

    def is_expected(self, code: int, killed: set[str]) -> bool:
        return (code == ExitCode.OK and self._told_to_stop) or (code == -signal.SIGKILL and "supervisor" in killed)

    def drain(self) -> None:
        """SIGTERM, once."""
        if self._process is not None and self._process.poll() is None:
            self._told_to_stop = True
            self._process.terminate()

    def stop(self, seconds: float) -> None:
        """Wait until it is idle, then drain it. Raises TimeoutError, Surprised."""
        self.wait_idle(seconds)
        self.drain()
        wait_until(lambda: not self.is_running, DRAIN_SECONDS, "the end of a drained daemon")
        self.check()

    def wait_idle(self, seconds: float) -> None:
        """Keep it running until it is idle. Raises TimeoutError, Surprised."""
        self._asked_at = float("-inf")
        wait_until(self._runs_and_is_idle, seconds, "an idle daemon")

    def _runs_and_is_idle(self) -> bool:
        self.ensure_running()
        return self.is_idle()


def _is_known(ledger: LedgerReader, path: Path) -> bool:
    mark, stat = ledger.mark(os.fsencode(path)), path.stat()
    return mark is not None and (mark.size_bytes, mark.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
