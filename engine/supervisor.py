"""The supervisor: hands tasks to decoders, watches every process, keeps the ledger, writes the report. No torch here.

Its loop: feed files to the board, give tasks to idle decoders, take what the children say, notice who died or stalls.
"""

import os
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import zmq

from engine.children import Child, signals_held
from engine.config import Config
from engine.files import Found, shown
from engine.fleet import Fleet
from engine.ledger import Ledger, fingerprint, ledger_path
from engine.report import Peaks, failed_row, totals, unchanged_row, video_row
from engine.rundir import endpoints_in, run_directory
from engine.tasks import Board
from engine.videos import VideoJob
from stages.registry import configured, identify, resolve
from stages.store_directory import StoreDirectory
from transport.messages import (
    Abort,
    ConsumerStats,
    Decoded,
    DecoderStats,
    Drain,
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


class Observer(Protocol):
    """Who watches a run: the live display, the plain lines, a test."""

    def phase(self, text: str) -> None:
        """What the run as a whole is doing."""

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""


class Supervisor:
    """One run over a stream of files."""

    def __init__(self, config: Config, observer: Observer, debug: bool = False) -> None:
        self._config = config
        self._observer = observer
        self._debug = debug
        self._peaks = Peaks()
        self._rows: list[dict[str, Any]] = []
        self._board: Board | None = None
        self._fleet: Fleet | None = None
        self._assigned: dict[bytes, TaskKey] = {}  # by decoder identity
        self._decoded: dict[bytes, set[TaskKey]] = {}  # by decoder: sent whole, and not durable yet
        self._beats: dict[bytes, float] = {}
        self._draining = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        paths = {
            role: resolve(role, source, Path(config.models.directory)) for role, source in configured(config.models)
        }
        infos = [identify(role, source, paths[role]).info(role, 0) for role, source in configured(config.models)]
        if config.store.url is None:
            StoreDirectory(
                Path(config.store.path), read_only=False
            ).close()  # ours, not locked, writable: or say so now
        self._ledger = Ledger(ledger_path(config), fingerprint(config, [f"{info.role} {info.label}" for info in infos]))

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
            self._ledger.close()
            self._context.destroy(linger=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._peaks.rss_bytes["supervisor"] = peak
        return {"videos": self._rows, "totals": totals(self._rows, time.monotonic() - started, self._peaks)}

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        if self._draining:
            raise KeyboardInterrupt
        self._draining = True

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _work(self, files: Iterator[Found], directory: Path) -> None:
        """Rows that need no work are written at once; the processes start at the first file that does."""
        first = next((found for found in files if not self._settled_at_once(found)), None)
        if first is None:
            return
        try:
            with signals_held():
                self._fleet = Fleet(self._config, self._context, endpoints_in(directory), echo=self._debug)
            self._start(self._fleet)
            assert self._board is not None
            self._add(first)
            self._loop(self._fleet, self._board, files)
            self._observer.phase("draining")
            self._fleet.drain(self._take, self._tick)
        finally:
            if self._fleet is not None:
                self._fleet.stop()

    def _start(self, fleet: Fleet) -> None:
        self._observer.phase("loading models")
        ready = fleet.make_ready(self._tick)
        self._board = Board(self._config, ready.frame_format, self._ledger.known_video)
        count = len(fleet.decoders)
        untrained = ", ".join(info.role for info in ready.models if info.untrained)
        note = f" (UNTRAINED: {untrained})" if untrained else ""
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
            self._take_finished(board)
            if board.is_done and not more:
                return
            for received in fleet.poll():
                self._take(received)
            self._watch(fleet, board, stopped)
            self._tick()

    def _feed(self, fleet: Fleet, board: Board, files: Iterator[Found]) -> bool:
        """Take further files while decoders would soon be idle; False when there are no more."""
        while board.queued_tasks < AHEAD_TASKS * len(fleet.decoders):
            found = next(files, None)
            if found is None:
                return False
            if not self._settled_at_once(found):
                self._add(found)
        return True

    def _add(self, found: Found) -> None:
        assert self._board is not None
        self._board.add(found.path, shown(found.path), time.monotonic())

    def _settled_at_once(self, found: Found) -> bool:
        """Whether a file needs no decoder: it cannot be read, or the ledger knows it as it is."""
        if found.error is not None:
            self._finish_row(failed_row(shown(found.path), found.error.code, found.error.message))
            return True
        known = self._known(found.path)
        if known is not None:
            self._finish_row(unchanged_row(known, shown(found.path)))
        return known is not None

    def _known(self, path: bytes) -> dict[str, Any] | None:
        stat = _stat(path)
        video_id = self._ledger.known_file(path, stat) if stat is not None else None
        return self._ledger.known_video(video_id) if video_id is not None else None

    def _assign(self, fleet: Fleet, board: Board) -> None:
        for decoder in fleet.decoders:
            if decoder.ready and decoder.identity not in self._assigned:
                message = board.next_message()
                if message is None:
                    return
                self._assigned[decoder.identity] = message.key  # type: ignore[attr-defined]
                self._beats[decoder.identity] = time.monotonic()
                fleet.send(decoder, message)

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
            case Ready():
                child.ready = True
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
                board.durable(result, now)
            case EngineStats() | ConsumerStats() | DecoderStats() as stats:
                self._peaks.see(stats)

    def _take_finished(self, board: Board) -> None:
        while board.finished:
            job = board.finished.popleft()
            stat = _stat(job.path)
            if stat is not None and job.media is not None and (stat.st_size, stat.st_mtime_ns) != job.marks:
                job.changed()
            row = video_row(job)
            self._record(job, stat, row)
            self._finish_row(row)

    def _record(self, job: VideoJob, stat: os.stat_result | None, row: dict[str, Any]) -> None:
        """Into the ledger when its points are durable and trying again would give no more."""
        if job.video_id is None or job.error is not None:
            return
        if job.status in ("indexed", "partial"):
            self._ledger.record_video(job.video_id, job.path, row)
        if stat is not None:  # else it vanished after it was read; its content is indexed all the same
            self._ledger.record_file(job.path, stat, job.video_id)

    def _finish_row(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._observer.finished(row)

    # --- watching -----------------------------------------------------------------------------------------------------

    def _watch(self, fleet: Fleet, board: Board, stopped: bool) -> None:
        fleet.check_alive(but=("decoder",))
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
        self._observer.tick(self._board, self._peaks, len(self._rows))


def _stat(path: bytes) -> os.stat_result | None:
    """None: it cannot be had, and whoever opens the file next will say why."""
    try:
        return os.stat(path)  # noqa: PTH116 - bytes, which Path does not take
    except OSError:
        return None
