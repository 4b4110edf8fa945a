"""What the daemon answers to commands: status, searches, and what to try again or to forget.

Searches take their way through the engine and the consumer (engine/search_flow.py), what concerns stored points and
speakers through the consumer (engine/errands.py); the rest is answered at once.
"""

import os
import time
from typing import Any

from engine.config import Config
from engine.errands import Errands
from engine.errors import ConfigError
from engine.frontdesk import FrontDesk
from engine.host_memory import rss_bytes
from engine.maintenance import forget, retry
from engine.presence import store_name
from engine.search_flow import Searches
from engine.status import History, Moment, ProcessState, RootState, document
from engine.supervisor import Supervisor
from engine.watcher import Watcher, WatchState
from stages.errors import SluiceError
from transport.requests import (
    ForgetRequest,
    PointsRequest,
    RetryRequest,
    SearchRequest,
    SpeakersRequest,
    StatusRequest,
)

SEARCH_OFF = "daemon.search = false: set it to true and start the daemon again"


class Reception:
    """The front desk's requests and their answers."""

    def __init__(self, desk: FrontDesk, supervisor: Supervisor, watcher: Watcher, config: Config) -> None:
        self._desk = desk
        self._supervisor = supervisor
        self._watcher = watcher
        self._config = config
        self._history = History()
        self._started_seconds = time.monotonic()
        self.searches = Searches()
        self.errands = Errands()

    def turn(self) -> None:
        """Take requests, and answer what can be answered."""
        now = time.monotonic()
        for client, request in self._desk.take():
            if isinstance(request, PointsRequest | SpeakersRequest):
                self.errands.start(client, request, now)
            elif not isinstance(request, SearchRequest):
                self._desk.answer(client, self._answer(request))
            elif self._config.daemon.search:
                self.searches.start(client, request, self._labels(), now)
            else:
                self._desk.answer(client, ConfigError("search-off", SEARCH_OFF))
        self.searches.expire(now)
        self.errands.expire(now)
        self._pass_on()
        if (stats := self._supervisor.peaks.engine) is not None:
            self._history.see(stats, now)

    def _answer(self, request: StatusRequest | RetryRequest | ForgetRequest) -> dict[str, Any] | SluiceError:
        board = self._supervisor.board
        in_work = board.content_in_work if board is not None else frozenset()
        try:
            match request:
                case StatusRequest():
                    return self.document()
                case RetryRequest():
                    body = retry(self._supervisor.records, request, in_work)
                    self._watcher.scan_soon()
                    return body
                case ForgetRequest():
                    return forget(self._supervisor.records, request, in_work)
        except SluiceError as error:  # the ledger is away, or there is no such video
            return error

    def _pass_on(self) -> None:
        """What searches and errands have to say to the engine, the consumer and the clients."""
        outgoing = self.searches.take()
        errands, answers = self.errands.take()
        fleet = self._supervisor.fleet
        assert fleet is not None
        for question in outgoing.to_engine:  # to one that is away: asked again when another is ready
            fleet.send(fleet.engine, question)
        for lookup in [*outgoing.to_consumer, *errands]:
            fleet.send(fleet.consumer, lookup)
        for client, result in [*outgoing.answers, *answers]:
            self._desk.answer(client, result)

    def _labels(self) -> dict[str, str] | None:
        """Labels of the models that can embed a query; None while they are loading."""
        ready = self._supervisor.recovery.first
        if ready is None:
            return None
        return {info.role: info.label for info in ready.models if info.role in ("image", "text")}

    def ready(self, role: str) -> None:
        """Another engine or consumer is there: it is asked what the last one did not answer."""
        if role == "engine":
            self.searches.engine_replaced()
        elif role == "consumer":
            self.searches.consumer_replaced()
            self.errands.consumer_replaced()

    # --- status -------------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """The status now."""
        supervisor, board = self._supervisor, self._supervisor.board
        ready = supervisor.recovery.first
        moment = Moment(
            now_seconds=time.monotonic(),
            started_seconds=self._started_seconds,
            ready=ready is not None,
            draining=supervisor.interrupted,
            waiting=f"ledger: {waiting}" if (waiting := supervisor.records.waiting_for) else None,
            device=ready.device if ready is not None else None,
            files_waiting=self._watcher.waiting_files,
            queued_tasks=board.queued_tasks if board is not None else 0,
            telling=not supervisor.records.operations.is_quiet,
            jobs=list(board.jobs.values()) if board is not None else [],
            processes=self._processes(),
            supervisor_rss_bytes=rss_bytes(),
            roots=[_root_state(state) for state in self._watcher.states()],
            ledger=supervisor.records.waiting_for or "ok",
            store=store_name(self._config),
        )
        return document(moment, supervisor.peaks, supervisor.records.tally, self._history)

    def _processes(self) -> list[ProcessState]:
        own = ProcessState(role="supervisor", name="supervisor", pid=os.getpid(), state="ready")
        guard = self._supervisor.guard
        return [own, *(guard.states() if guard is not None else ())]


def _root_state(state: WatchState) -> RootState:
    how = "polling" if state.polled else "watching"
    return RootState(
        path=state.path,
        state=how if state.state == "watching" else f"waiting: {state.state}",
        files=state.files,
        settling=state.settling,
        scanned_seconds_ago=state.scanned_seconds_ago,
    )
