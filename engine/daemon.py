"""The daemon: a run without an end, fed from watched directories, that answers commands and tells of itself.

    watcher threads ─ events ─► Daemon ─ files ─► Supervisor ─► decoders, engine, consumer
    commands ─ requests ─► front desk ─┘ └─► status ─► metrics, service manager

All of it but the watcher's threads and the metrics' server happens in the supervisor's loop.
"""

import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import zmq

from engine import notify
from engine.children import Child
from engine.config import Config
from engine.errors import ConfigError, ExitCode, StartError
from engine.files import Found
from engine.frontdesk import FrontDesk
from engine.ledger import ledger_path
from engine.ledger_reader import LedgerReader
from engine.logs import DaemonObserver
from engine.metrics import Metrics
from engine.presence import announce, find
from engine.reception import Reception
from engine.reload import changes
from engine.sandbox import name_process
from engine.supervisor import Supervisor
from engine.watcher import Arrived, Gone, Notice, Watcher
from stages.errors import SluiceError
from transport.messages import FetchedPoints, QueryVectors, SpeakersDone, StoreHits

STATUS_SECONDS = 1.0
EVENTS = 100  # of the watcher, taken in one turn at most


class Daemon:
    """Watcher, front desk, metrics and service manager around a supervisor: its source of files, and its extension."""

    def __init__(self, config: Config, reload: Callable[[], Config], debug: bool) -> None:
        """reload: reads the configuration again, for SIGHUP."""
        self._config = config
        self._reload = reload
        self._started_at = time.time()
        self._held = ExitStack()
        self._observer = DaemonObserver(config.daemon.log_format)
        self._watcher = Watcher(config.watch, config.run.extensions, self._known)
        self._gone: deque[bytes] = deque()
        self._hangup = False
        self._stopping = False  # the service manager knows
        self._status_at = 0.0
        self._metrics = Metrics(config.daemon.metrics_port)
        daemon_config = msgspec.structs.replace(
            config, store=msgspec.structs.replace(config.store, retry_seconds=float("inf"))
        )
        self.supervisor = Supervisor(daemon_config, self._observer, debug, extension=self)
        self.supervisor.records.on_settled = self._watcher.settled
        self.supervisor.records.on_passing = self._watcher.scan_soon
        self._reception: Reception | None = None

    def _known(self) -> LedgerReader:
        return LedgerReader(ledger_path(self._config))

    def run(self) -> ExitCode:
        """Work until SIGTERM.

        Raises:
            SluiceError: a component could not start. KeyboardInterrupt: stop now.
        """
        name_process("supervisor")
        with self._held:
            previous = signal.signal(signal.SIGHUP, self._on_hangup)
            self._held.callback(signal.signal, signal.SIGHUP, previous)
            self._metrics.start()
            self._held.callback(self._metrics.stop)
            self.supervisor.run(self)
        return ExitCode.OK

    def _on_hangup(self, signum: int, frame: FrameType | None) -> None:
        self._hangup = True

    # --- the source of files ------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Never: a directory may always get another file."""
        return False

    def take(self, above: int | None) -> Found | None:
        """The next complete file."""
        for _ in range(EVENTS):
            event = self._watcher.take(above)
            match event:
                case Arrived():
                    complete_at = max(event.complete_seconds, self._started_at)  # a backlog did not wait for us
                    return Found(event.path, priority=event.priority, complete_at=complete_at)
                case Gone(path=path):
                    self._gone.append(path)
                case Notice(text=text):
                    self._observer.note(text)
                case None:
                    return None
        return None

    # --- the extension of the supervisor ------------------------------------------------------------------------------

    def started(self, directory: Path) -> None:
        """Open the front desk and the watched directories."""
        supervisor = self.supervisor
        endpoint = f"ipc://{directory}/desk.ipc"
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()  # its own: the last answers outlive the supervisor's
        self._held.callback(context.destroy)
        desk = FrontDesk(context, endpoint)
        self._held.callback(desk.close)
        self._held.enter_context(announce(self._config, endpoint))
        assert supervisor.fleet is not None
        supervisor.fleet.extra_sockets.append(desk.socket)
        self._reception = Reception(desk, supervisor, self._watcher, self._config)
        self._watcher.start()
        self._held.callback(self._watcher.stop)

    def heard(self, message: Any) -> None:
        """An answer of the engine or the consumer to what a command asked."""
        assert self._reception is not None
        match message:
            case QueryVectors() | StoreHits():
                self._reception.searches.heard(message)
            case FetchedPoints() | SpeakersDone():
                self._reception.errands.heard(message)

    def turn(self) -> None:
        """One turn of the supervisor's loop."""
        self._watch_signals()
        while self._gone:
            self.supervisor.records.archive.gone(self._gone[0])
            self._watcher.settled(self._gone.popleft())

    def tick(self) -> None:
        """Answer commands, and tell the metrics and the service manager how it goes; while draining, too."""
        now = time.monotonic()
        if self._reception is None:
            return
        self._reception.turn()
        if now - self._status_at < STATUS_SECONDS:
            return
        self._status_at = now
        document = self._reception.document()
        self._metrics.update(document)
        notify.watchdog()
        notify.status(f"{document['state']}, {document['totals']['videos']['indexed']} videos indexed")
        if self.supervisor.interrupted and not self._stopping:
            self._stopping = notify.stopping()

    def ready(self, child: Child) -> None:
        """A child can take work."""
        if self._reception is not None:
            self._reception.ready(child.spec.role)
        if child.spec.role == "engine":
            notify.ready()

    def _watch_signals(self) -> None:
        if not self._hangup:
            return
        self._hangup = False
        notify.reloading()
        try:
            self._apply(self._reload())
        except SluiceError as error:
            self._observer.note(f"reload: {error.code}: {error.message}; nothing was changed")
        notify.ready()

    def _apply(self, config: Config) -> None:
        """Take over what can change while running; say what cannot."""
        fixed, said = changes(self._config, config)
        self._watcher.reload(fixed.watch)  # may refuse
        self._observer.note(said)
        self._config = fixed
        self.supervisor.records.archive.on_delete = fixed.watch.on_delete
        self._observer.format = fixed.daemon.log_format


def run_daemon(config: Config, reload: Callable[[], Config], debug: bool) -> ExitCode:
    """Entry of the daemon command."""
    if not config.watch.roots:
        raise ConfigError("no-roots", "nothing is watched: set watch.roots to the directories that hold the videos")
    if (other := find(config)) is not None:
        raise StartError(
            "already-running",
            f"a daemon with process {other.pid} ({other.command}) serves {other.store}: stop it, or set another "
            "store.path (or store.prefix) and run.state",
        )
    return Daemon(config, reload, debug).run()
