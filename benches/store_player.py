"""A consumer process, and who speaks with it: an engine that keeps what is not acknowledged (engine.outbox.Delivery),
and a supervisor that commits results and asks for searches.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import zmq
from numpy.typing import NDArray

from benches.store_points import MODEL
from engine.children import Child
from engine.config import Config, load_config
from engine.outbox import Delivery, Outgoing
from engine.rundir import endpoints_in, run_directory
from engine.worker import WorkerSpec
from stages.errors import SluiceError
from stages.store import FRAMES
from transport.messages import (
    Committed,
    Drain,
    Grant,
    Hello,
    Join,
    Message,
    Prepare,
    Ready,
    SearchStore,
    StoreHits,
    TaskDurable,
    ToSupervisor,
)
from transport.sockets import Channel

LIMIT_SECONDS = 300.0
ENGINE = b"engine-0.1"


def config_for(store: Path) -> Config:
    """Defaults, with the store and all state in a directory."""
    return load_config(settings=[f"store.path={store}", f"run.state={store}-state"])


class Player:
    """One consumer. `with Player(config, dimension) as player: player.write(...)`."""

    def __init__(self, config: Config, dimension: int) -> None:
        self._config = config
        self._dimension = dimension
        self._undo = ExitStack()
        self._is_ready = False
        self._hits: StoreHits | None = None
        self._delivery = Delivery()
        self.results = 0  # that the supervisor was told of

    def __enter__(self) -> "Player":
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._undo.callback(context.destroy, linger=0)
        endpoints = endpoints_in(self._undo.enter_context(run_directory(None)))
        self._spec = WorkerSpec(role="consumer", index=0, generation=1, endpoints=endpoints, config=self._config)
        self._control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
        self._child = Child(self._spec, echo=True)
        self._undo.callback(self._end)
        self._engine: Channel[Grant] = Channel.connect(context, endpoints.points, Grant, ENGINE)
        self._poller = zmq.Poller()
        for channel in (self._control, self._engine):
            self._poller.register(channel.socket, zmq.POLLIN)
        self._until(lambda: self._is_ready)
        self._engine.send(Join())
        self._process = psutil.Process(self._child.pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._tell(Drain())
            self._until(lambda: not self._child.is_alive, ends=True)
        self._undo.close()

    def _end(self) -> None:
        self._child.kill()
        self._child.close()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def write(self, outgoing: Iterable[Outgoing]) -> None:
        """Send these as credit allows, until all of them are acknowledged."""
        self.begin(outgoing)
        self._until(lambda: self._delivery.is_empty)

    def begin(self, outgoing: Iterable[Outgoing]) -> None:
        """Send these as credit allows, while something else is waited for."""
        for each in outgoing:
            self._delivery.put(each)

    @property
    def is_writing(self) -> bool:
        """Whether something is not acknowledged yet."""
        return not self._delivery.is_empty

    def search_ms(self, queries: Iterable[NDArray[Any]], pace_seconds: float = 0.0) -> list[float]:
        """How long each takes, from the question to the answer, one every so often."""
        return [self._search(query, pace_seconds) for query in queries]

    def _search(self, query: NDArray[Any], pace_seconds: float) -> float:
        vector = tuple(map(float, query))
        self.wait(pace_seconds)
        self._hits = None
        started = time.perf_counter()
        self._tell(SearchStore(request=1, collection=FRAMES, vector_name="image", vector=vector, limit=10, model=MODEL))
        self._until(lambda: self._hits is not None)
        return (time.perf_counter() - started) * 1000

    def wait(self, seconds: float) -> None:
        """Go on sending for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._turn(min(10, round(1000 * max(0.0, end - time.monotonic()))))

    def thread_seconds(self) -> dict[int, float]:
        """Processor time of each thread of the consumer so far."""
        return {each.id: float(each.user_time + each.system_time) for each in self._process.threads()}

    # --- what goes to and fro -----------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], ends: bool = False) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if time.monotonic() > end or not (ends or self._child.is_alive):
                raise SluiceError("bench", f"the consumer ended, or hangs: {self._child.last_words()}")
            self._turn(10)

    def _turn(self, timeout_ms: int) -> None:
        while (outgoing := self._delivery.take()) is not None:
            self._engine.send_encoded(outgoing.header, outgoing.array)
        if not self._poller.poll(timeout_ms):
            self._child.read_log()
            return
        while (received := self._engine.receive(0)) is not None:
            self._delivery.grant(received.message.credit_bytes)
        while (said := self._control.receive(0)) is not None:
            self._hear(said.message)

    def _hear(self, message: Message) -> None:
        match message:
            case Hello():
                self._tell(Prepare(dimensions={"image": self._dimension}))
            case Ready():
                self._is_ready = True
            case TaskDurable(result=result):
                self.results += 1
                self._tell(Committed(key=result.key, section=result.section))
            case StoreHits() as hits:
                if hits.error is not None:
                    raise SluiceError("bench", f"a search failed: {hits.error}")
                self._hits = hits

    def _tell(self, message: Message) -> None:
        self._control.send(message, to=self._spec.identity)


def median_and_high(values: Sequence[float]) -> tuple[float, float]:
    """The median, and what one in twenty exceeds."""
    return statistics.median(values), statistics.quantiles(values, n=20)[-1]
