"""The supervisor: hands tasks to decoders, watches every process, keeps the ledger, writes the report. No torch here.

Its loop: take what the children say, notice who died or stalls, write the ledger, feed files to the board, give tasks
to idle decoders. What needs the ledger waits in an inbox while that is unavailable; children's signs of life do not.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from engine.children import Child, signals_held
from engine.config import Config
from engine.extension import Extension
from engine.files import Found, shown
from engine.fleet import Fleet
from engine.guard import Guard
from engine.host_memory import peak_rss_bytes
from engine.profile import MachineWatch
from engine.rebuilding import rebuild_from_store
from engine.records import LedgerPatience, Observer, Records, StoreAbsence, model_labels
from engine.recovery import Recovery
from engine.report import Peaks, totals
from engine.rundir import endpoints_in, run_directory
from engine.sources import FileList, Source
from engine.tasks import Board
from engine.trace import TraceFile, traced
from stages.store_directory import StoreDirectory
from transport.messages import (
    Committed,
    ConsumerStats,
    Decoded,
    DecoderStats,
    EngineLost,
    EngineStats,
    OperationDone,
    Probed,
    Progress,
    Ready,
    Receiving,
    Searchable,
    TaskDurable,
    TaskFailed,
    Traced,
)
from transport.sockets import Received

AHEAD_TASKS = 2  # queued tasks for each decoder beyond which no further file is taken
DRAIN_SECONDS = 15.0  # how long a drain waits for a store or a ledger; the consumer itself waits for a little less
FEED_FILES = 100  # taken in one turn at most: the children want to be heard


class Supervisor:
    """One run over a stream of files."""

    def __init__(
        self, config: Config, observer: Observer, debug: bool = False, extension: Extension | None = None
    ) -> None:
        """extension: makes it a run without an end, as the daemon's is."""
        self._config = config
        self._observer = MachineWatch(observer)
        self._debug = debug
        self._extension = extension
        self.peaks = Peaks(config=config)
        self.trace: TraceFile | None = None  # of what every process does; set before the run
        self.board: Board | None = None
        self.fleet: Fleet | None = None
        self.guard: Guard | None = None
        self._draining = False
        self._told_to_drain = False
        self._said: set[str] = set()
        self._inbox: deque[Received[Any]] = deque()
        self._next: Found | None = None
        self.recovery = Recovery(config)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        models = model_labels(config)  # one that is missing is said before anything is made
        if config.store.url is None:
            # Ours, not locked, writable: or say so now.
            StoreDirectory(Path(config.store.path), read_only=False).close()
        self.records = Records(config, observer, models, keep_rows=extension is None)
        rebuild_from_store(self.records.ledger, config, observer.note)
        self._operations = self.records.operations
        self._store = StoreAbsence(DRAIN_SECONDS if extension is not None else math.inf)  # a run over files gives up
        self._patience = LedgerPatience(self.records, config.store.retry_seconds)

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to drain before its end."""
        return self._draining

    def run(self, files: Iterable[Found] | Source) -> dict[str, Any]:
        """Index the files; returns the report.

        Raises:
            SluiceError: a component could not start or go on. KeyboardInterrupt: stop now.
        """
        started = time.monotonic()
        source: Source = FileList(iter(files)) if isinstance(files, Iterable) else files
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            with run_directory(self._config.run.directory) as directory:
                self._work(source, directory)
        finally:
            signal.signal(signal.SIGTERM, previous)
            self.records.ledger.close()
            self.context.destroy(linger=0)
        self.peaks.rss_bytes["supervisor"] = peak_rss_bytes()
        rows = self.records.rows
        return {"videos": rows, "totals": totals(rows, time.monotonic() - started, self.peaks)}

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        if self._draining:
            raise KeyboardInterrupt
        self._draining = True

    def _work(self, source: Source, directory: Path) -> None:
        """Rows that need no work are written at once; the processes start at the first file that does."""
        while self._extension is None and self._next is None:
            self._next = source.take(None)
            if self._next is None and not self._operations.has_work():
                return
            if self._next is None:
                break
            if self.records.settled_at_once(self._next):
                self._next = None
        try:
            with signals_held():
                endpoints = traced(endpoints_in(directory), self.trace is not None)
                searches = self._extension is not None and self._config.daemon.search
                self.fleet = Fleet(self._config, self.context, endpoints, self._debug, searches)
            self.guard = Guard(
                self._config, self.fleet, self.recovery, self._take, self._tell, self._extension is not None
            )
            self._observer.phase("loading models")
            if self._extension is not None:
                self._extension.started(directory)
            while self._patience.attempt(self._turn, source):
                self._tick()
            self._drain(self.fleet)
        finally:
            if self.fleet is not None:
                self.fleet.stop()

    def _turn(self, source: Source) -> bool:
        """One turn; False when the run is over. Safe to be called again after LedgerUnavailable at any place."""
        fleet, guard = self.fleet, self.guard
        assert fleet is not None and guard is not None  # noqa: PT018
        for received in fleet.poll():
            self._take(received)
        if self._draining and not self._told_to_drain:
            self._told_to_drain = True
            guard.tell_decoders_to_drain()
            self._patience.limit_seconds = DRAIN_SECONDS  # what the ledger does not hold then is done again
        if not guard.watch(None, self._draining):  # who dies while the ledger is away is replaced all the same
            return False
        self._work_off()
        guard.tell(self.board)
        if self._extension is not None:
            self._extension.turn()
        more = not self._draining and self._feed(fleet, source)
        if self.board is not None:
            if self._draining:
                self._stop_work(self.board, fleet.engine)
            else:
                self._assign(fleet, guard, self.board)
            self.records.take_finished(self.board)
        self._operations.send(fleet)
        return more or not self._is_done()

    def _is_done(self) -> bool:
        idle = self._draining or not self._operations.has_work()
        return idle and not self._inbox and self.board.is_done if self.board is not None else self._draining

    def _stop_work(self, board: Board, engine: Child) -> None:
        """Give up what nobody will finish. In each turn: a probe that was under way may have planned new tasks."""
        if self._next is not None and self._extension is None:
            board.add(self._next.path, shown(self._next.path), time.monotonic())  # it gets its row
        self._next = None
        if self._store.is_long() or not engine.ready:
            board.stop_all(time.monotonic())  # none of it can become durable now, or not before models are loaded
        else:
            board.stop(time.monotonic())

    def _feed(self, fleet: Fleet, source: Source) -> bool:
        """Take further files while decoders would soon be idle; False when there are no more."""
        for _ in range(FEED_FILES):
            if self._next is None:
                full = self.board is None or self.board.queued_tasks >= AHEAD_TASKS * len(fleet.decoders)
                top = self.board.top_priority if self.board is not None else None
                self._next = source.take((top or 0) if full else None)
            found = self._next
            if found is None or self.board is None:
                break
            if not self.records.settled_at_once(found):
                now = time.monotonic()
                self.board.add(found.path, shown(found.path), now, found.priority, found.complete_since(now))
            self._next = None
        return self._next is not None or not source.is_over

    def _assign(self, fleet: Fleet, guard: Guard, board: Board) -> None:
        if self.records.waiting_for is not None or not fleet.engine.receiving or not fleet.engine.is_alive:
            return
        for decoder in fleet.decoders:
            if not guard.is_idle(decoder) or (guard.solo and board.in_flight()):
                continue
            message = board.next_message()
            if message is None:
                return
            guard.assign(decoder, message.key)  # type: ignore[attr-defined]
            fleet.send(decoder, message)

    def _drain(self, fleet: Fleet) -> None:
        """End the processes in order; what is open then was lost with an engine that died on the way."""
        self._observer.phase("draining")
        board = self.board
        if board is not None:
            fleet.drain(self._take_in_drain, self._tick, self._store.is_long)
            if fleet.engine.ready and fleet.engine.process.exitcode != 0:
                is_whole = board.is_done and not self._store.is_long()
                left = "all was stored before" if is_whole else "what was not stored before is interrupted"
                self._observer.phase(f"{self.recovery.reason(fleet.engine)}; {left}")
            board.stop_all(time.monotonic())
            while self._patience.attempt(self._finish_rows, board):
                self._tick()
                time.sleep(0.2)

    def _finish_rows(self, board: Board) -> None:
        self._work_off()
        self.records.take_finished(board)

    def _take_in_drain(self, received: Received[Any]) -> None:
        self._take(received)
        self._patience.attempt(self._work_off)

    def _tell(self, role: str, text: str) -> None:
        """A child is gone, and another takes its place."""
        if role == "engine":
            self.peaks.engine_restarted()
        elif role == "consumer":
            self.peaks.consumer_restarted()
            self._store.see("waiting: for another consumer")
        self._observer.phase(text)

    def _tick(self) -> None:
        self._observer.tick(self.board, self.peaks, self.records.count)
        if self._extension is not None:
            self._extension.tick()

    # --- what children say --------------------------------------------------------------------------------------------

    def _take(self, received: Received[Any]) -> None:
        """Take note of what can be noted at once; what needs the ledger goes to the inbox."""
        fleet, guard = self.fleet, self.guard
        assert fleet is not None and guard is not None  # noqa: PT018
        child = fleet.by_identity(received.sender)
        if child is None:
            return
        guard.heard(child)
        fleet.heard(child, received.message)
        match received.message:
            case Receiving(frame_format=frame_format) if child is fleet.engine:
                child.receiving = True  # what is decoded while the models load waits in the engine
                self.board = self.board or self.records.open_board(self._config, frame_format, self._extension is None)
            case Ready() as ready:
                guard.ready(child)
                self._say(ready.notes)
                if child is fleet.engine:
                    self._welcome(fleet, ready)
                if self._extension is not None:
                    self._extension.ready(child)
            case Progress(key=key, done_seconds=seconds) if self.board is not None:
                self.board.progress(key, seconds)
            case Searchable(key=key) if self.board is not None:
                self.board.searchable(key, time.monotonic())
            case Decoded(key=key):
                guard.sent_whole(received.sender, key)
            case Probed():
                guard.free(received.sender)
                self._inbox.append(received)
            case TaskFailed(key=key):
                guard.free(received.sender)
                fleet.abort(key)
                self._inbox.append(received)
            case TaskDurable() | OperationDone():
                self._inbox.append(received)
            case EngineLost() as words:
                self.recovery.heard(words)
            case EngineStats() | ConsumerStats() | DecoderStats() as stats:
                self.peaks.see(stats)
                if isinstance(stats, ConsumerStats):
                    self._store.see(stats.state)
            case Traced() as events if self.trace is not None:
                self.trace.take(events)
            case other if self._extension is not None:
                self._extension.heard(other)

    def _say(self, notes: tuple[str, ...]) -> None:
        for text in notes:
            if text not in self._said:  # a successor says the same again
                self._said.add(text)
                self._observer.note(text)

    def _welcome(self, fleet: Fleet, ready: Ready) -> None:
        """The engine is ready: the first one, or one that was started again."""
        self.recovery.welcome(ready)
        fleet.engine_is_ready(ready)
        count = self._config.decoder_processes
        untrained = ", ".join(info.role for info in ready.models if info.untrained)
        note = f" (UNTRAINED: {untrained})" if untrained else ""
        self._observer.phase(f"indexing on {ready.device}, {count} decoder{'s' * (count > 1)}{note}")

    def _work_off(self) -> None:
        """What needed the ledger, in order."""
        for _ in range(len(self._inbox) if self.board is not None else 0):
            message = self._inbox[0].message
            assert self.board is not None
            is_open = isinstance(message, Probed) and self.board.path_of(message.key) is not None
            if is_open and self._operations.is_removing(message.video_id):
                self._inbox.rotate(-1)  # its old points go first
                continue
            self._work_on(message, self.board)
            self._inbox.popleft()

    def _work_on(self, message: Any, board: Board) -> None:
        fleet, guard, now = self.fleet, self.guard, time.monotonic()
        assert fleet is not None and guard is not None  # noqa: PT018
        match message:
            case Probed(key=key, video_id=video_id):
                path = board.path_of(key)
                if path is not None and video_id not in board.content_in_work:
                    self.records.begun(video_id, path)
                board.probed(message, now)
            case TaskFailed(key=key, code=code, message=text):
                board.failed(key, code, text, now)
            case TaskDurable(result=result):
                guard.durable(result.key)
                if board.durable(result, now):
                    self.recovery.progress()
                while board.withdrawn:
                    fleet.abort(board.withdrawn.popleft())
                fleet.send(fleet.consumer, Committed(key=result.key, section=result.section))
            case OperationDone():
                self._operations.done(message)
