"""The supervisor: hands tasks to decoders, watches every process, keeps the ledger, writes the report. No torch here.

Its loop: feed files to the board, give tasks to idle decoders, take what the children say, notice who died or stalls.
"""

import resource
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from engine.children import Child, signals_held
from engine.config import Config
from engine.files import Found, shown
from engine.fleet import Fleet, Patience
from engine.records import Observer, Records, model_labels
from engine.recovery import LAST_WORDS_SECONDS, Recovery
from engine.report import Peaks, totals
from engine.rundir import endpoints_in, run_directory
from engine.tasks import Board
from stages.store_directory import StoreDirectory
from transport.messages import (
    Abort,
    Committed,
    ConsumerStats,
    Decoded,
    DecoderStats,
    Drain,
    EngineLost,
    EngineStats,
    Probed,
    Progress,
    Ready,
    TaskDurable,
    TaskFailed,
    TaskKey,
)
from transport.sockets import Received

AHEAD_TASKS = 2  # queued tasks for each decoder beyond which no further file is taken
HEAR_OUT_MS = 20  # for what lies in our socket when the engine is dead


class Supervisor:
    """One run over a stream of files."""

    def __init__(self, config: Config, observer: Observer, debug: bool = False) -> None:
        self._config = config
        self._observer = observer
        self._debug = debug
        self._peaks = Peaks()
        self._board: Board | None = None
        self._fleet: Fleet | None = None
        self._assigned: dict[bytes, TaskKey] = {}  # by decoder identity
        self._decoded: dict[bytes, set[TaskKey]] = {}  # by decoder: sent whole, and not durable yet
        self._beats: dict[bytes, float] = {}
        self._draining = False
        self._recovery = Recovery(config)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        models = model_labels(config)  # one that is missing is said before anything is made
        if config.store.url is None:
            # Ours, not locked, writable: or say so now.
            StoreDirectory(Path(config.store.path), read_only=False).close()
        self._records = Records(config, observer, models)

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to drain before its end."""
        return self._draining

    def run(self, files: Iterable[Found]) -> dict[str, Any]:
        """Index the files; returns the report.

        Raises:
            SluiceError: a component could not start or go on. KeyboardInterrupt: stop now.
        """
        started = time.monotonic()
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            with run_directory(self._config.run.directory) as directory:
                self._work(iter(files), directory)
        finally:
            signal.signal(signal.SIGTERM, previous)
            self._records.ledger.close()
            self._context.destroy(linger=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._peaks.rss_bytes["supervisor"] = peak
        rows = self._records.rows
        return {"videos": rows, "totals": totals(rows, time.monotonic() - started, self._peaks)}

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        if self._draining:
            raise KeyboardInterrupt
        self._draining = True

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _work(self, files: Iterator[Found], directory: Path) -> None:
        """Rows that need no work are written at once; the processes start at the first file that does."""
        first = next((found for found in files if not self._records.settled_at_once(found)), None)
        if first is None:
            return
        try:
            with signals_held():
                self._fleet = Fleet(self._config, self._context, endpoints_in(directory), echo=self._debug)
            self._start(self._fleet)
            assert self._board is not None
            self._add(first)
            self._loop(self._fleet, self._board, files)
            self._drain(self._fleet, self._board)
        finally:
            if self._fleet is not None:
                self._fleet.stop()

    def _start(self, fleet: Fleet) -> None:
        self._observer.phase("loading models")
        ready = fleet.make_ready(self._tick)
        self._board = Board(self._config, ready.frame_format, self._records.ledger.known_video)
        self._welcome(ready)

    def _welcome(self, ready: Ready) -> None:
        """The engine is ready: the first one, or one that was started again."""
        self._recovery.welcome(ready)
        count = self._config.decoder_processes
        untrained = ", ".join(info.role for info in ready.models if info.untrained)
        note = f" (UNTRAINED: {untrained})" if untrained else ""
        for text in ready.notes:
            self._observer.note(text)
        self._observer.phase(f"indexing on {ready.device}, {count} decoder{'s' * (count > 1)}{note}")

    def _loop(self, fleet: Fleet, board: Board, files: Iterator[Found]) -> None:
        stopped = False
        while True:
            more = not self._draining and self._feed(fleet, board, files)
            if self._draining and not stopped:
                stopped = True
                for decoder in fleet.decoders:
                    fleet.send(decoder, Drain())
            if stopped:
                board.stop(time.monotonic())  # each time: a probe that was under way may have planned new tasks
            else:
                self._assign(fleet, board)
            self._records.take_finished(board)
            if board.is_done and not more:
                return
            for received in fleet.poll():
                self._take(received)
            fleet.check_alive(but=("decoder", "engine"))
            if not self._watch_engine(fleet, board):
                return
            self._watch_decoders(fleet, board, stopped)
            self._tick()

    def _feed(self, fleet: Fleet, board: Board, files: Iterator[Found]) -> bool:
        """Take further files while decoders would soon be idle; False when there are no more."""
        while board.queued_tasks < AHEAD_TASKS * len(fleet.decoders):
            found = next(files, None)
            if found is None:
                return False
            if not self._records.settled_at_once(found):
                self._add(found)
        return True

    def _add(self, found: Found) -> None:
        assert self._board is not None
        self._board.add(found.path, shown(found.path), time.monotonic())

    def _assign(self, fleet: Fleet, board: Board) -> None:
        for decoder in fleet.decoders:
            if fleet.engine.ready and decoder.ready and decoder.identity not in self._assigned:
                message = board.next_message()
                if message is None:
                    return
                self._assigned[decoder.identity] = message.key  # type: ignore[attr-defined]
                self._beats[decoder.identity] = time.monotonic()
                fleet.send(decoder, message)

    def _drain(self, fleet: Fleet, board: Board) -> None:
        """End the processes in order; what is open then was lost with an engine that died on the way."""
        self._observer.phase("draining")
        fleet.drain(self._take, self._tick)
        if fleet.engine.ready and fleet.engine.process.exitcode != 0:
            left = "all was stored before" if board.is_done else "what was not stored before is interrupted"
            self._observer.phase(f"{self._recovery.reason(fleet.engine)}; {left}")
        board.stop_all(time.monotonic())
        self._records.take_finished(board)

    # --- what children say --------------------------------------------------------------------------------------------

    def _take(self, received: Received[Any]) -> None:
        fleet, board, now = self._fleet, self._board, time.monotonic()
        assert fleet is not None
        assert board is not None
        child = fleet.by_identity(received.sender)
        if child is None:
            return
        self._beats[received.sender] = now
        match received.message:
            case Ready() as ready:
                child.ready = True
                if child is fleet.engine:
                    self._welcome(ready)
            case Progress(key=key, done_seconds=done_seconds):
                board.progress(key, done_seconds)
            case Probed() as probed:
                self._assigned.pop(received.sender, None)
                board.probed(probed, now)
            case Decoded(key=key):
                self._assigned.pop(received.sender, None)
                self._decoded.setdefault(received.sender, set()).add(key)
            case TaskFailed(key=key, code=code, message=message):
                self._assigned.pop(received.sender, None)
                fleet.send(fleet.engine, Abort(key=key))
                board.failed(key, code, message, now)
            case TaskDurable(result=result):
                for keys in self._decoded.values():
                    keys.discard(result.key)
                if board.durable(result, now):
                    self._recovery.progress()
                fleet.send(fleet.consumer, Committed(key=result.key, section=result.section))
            case EngineLost() as words:
                self._recovery.heard(words)
            case EngineStats() | ConsumerStats() | DecoderStats() as stats:
                self._peaks.see(stats)

    # --- watching the decoders ----------------------------------------------------------------------------------------

    def _watch_decoders(self, fleet: Fleet, board: Board, stopped: bool) -> None:
        now = time.monotonic()
        for decoder in list(fleet.decoders):
            silent = now - self._beats.get(decoder.identity, now)
            if not decoder.is_alive and not (
                stopped and decoder.process.exitcode == 0
            ):  # in order: its last words come
                self._lose(fleet, board, decoder, decoder.last_words(), stopped)
            elif decoder.identity in self._assigned and silent > self._config.run.stall_seconds:
                decoder.kill()
                reason = f"{decoder.name} made no progress for {silent:.0f} s and was killed (run.stall_seconds)"
                self._lose(fleet, board, decoder, reason, stopped)

    def _lose(self, fleet: Fleet, board: Board, decoder: Child, reason: str, stopped: bool) -> None:
        key = self._assigned.pop(decoder.identity, None)
        if key is None and not decoder.ready and not stopped:
            raise decoder.failure()  # it cannot even start: a successor would not either
        # What it had sent whole may still have lain in its own socket, and died with it: that is done again, too.
        lost = self._decoded.pop(decoder.identity, set()) | ({key} if key is not None else set())
        for each in sorted(lost):
            abort = board.decoder_lost(each, reason, time.monotonic())
            if abort is not None:
                fleet.send(fleet.engine, abort)
        if stopped:
            board.stop(time.monotonic())
        else:
            fleet.replace(decoder)

    def _tick(self) -> None:
        self._observer.tick(self._board, self._peaks, len(self._records.rows))

    # --- when the engine dies -----------------------------------------------------------------------------------------

    def _watch_engine(self, fleet: Fleet, board: Board) -> bool:
        """Start a successor for an engine that died; False when the run ends here, for it was to end anyway."""
        if fleet.engine.is_alive:
            self._recovery.hurry(fleet)
            return True
        for decoder in fleet.decoders:
            decoder.kill()
        self._hear_out(fleet)
        self._recovery.died(fleet.engine)
        if self._draining:
            return False
        self._restart_engine(fleet, board)
        return True

    def _hear_out(self, fleet: Fleet) -> None:
        """Take what the engine and the decoders had sent us before they ended."""
        patience = Patience(LAST_WORDS_SECONDS)
        while True:
            for received in fleet.poll(HEAR_OUT_MS):
                self._take(received)
            if self._recovery.is_heard_out(fleet.engine, patience):
                return

    def _restart_engine(self, fleet: Fleet, board: Board) -> None:
        """A new engine and new decoders; every task that was under way is done again. The consumer stays."""
        reason = self._recovery.reason(fleet.engine)
        self._recovery.restart(fleet)
        self._observer.phase(f"restarting the engine: {reason}")
        board.engine_lost()
        self._peaks.engine_restarted()
        self._assigned.clear()
        self._decoded.clear()
        self._beats.clear()
