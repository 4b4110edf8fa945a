"""A consumer as a real process, and an engine and a supervisor that speak with it over real sockets.

The engine keeps what has no credit back, and sends it again to another consumer; the supervisor writes a ledger.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq
from numpy.typing import NDArray

from engine.config import Config
from engine.worker import Endpoints, WorkerSpec
from transport.codec import cost_of, encode
from transport.credit import CreditAccount
from transport.messages import (
    Committed,
    ConsumerStats,
    Drain,
    Grant,
    Hello,
    Join,
    Message,
    OperationDone,
    Prepare,
    Ready,
    Searchable,
    StoreHits,
    TaskDurable,
    TaskKey,
    ToSupervisor,
)
from transport.sockets import Channel

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 90.0
SCRIPT = """
import os, sys, msgspec
from multiprocessing import Pipe
from engine.worker import WorkerSpec, child_main
ours, theirs = Pipe()
log = Pipe()[1]
os.dup2(2, log.fileno())
child_main(sys.stdin.buffer.read(), ours, log)
"""


class Harness:
    """One consumer at a time; with `restarts`, another one takes the place of one that was killed."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        dimensions: Mapping[str, int],
        restarts: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self._dimensions = dict(dimensions)
        self._restarts = restarts
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._endpoints = Endpoints(control=f"ipc://{directory}/control", items="", points=f"ipc://{directory}/points")
        self._control: Channel[Any] = Channel.bind(self._context, self._endpoints.control, ToSupervisor)
        self.commits = True
        self.environment = dict(environment or {})
        self.ledger: list[tuple[TaskKey, int]] = []
        self.stats: ConsumerStats | None = None
        self.states: list[str] = []
        self.searchable: list[TaskKey] = []
        self.hits: dict[int, StoreHits] = {}
        self.operations: dict[int, OperationDone] = {}
        self.is_ready = False
        self.generation = 0
        self.deaths = 0
        self._unsent: deque[tuple[bytes, NDArray[Any] | None]] = deque()
        self._sent: deque[tuple[bytes, NDArray[Any] | None]] = deque()
        self.most_bytes_out = 0
        self._start()

    # --- the process ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.generation += 1
        spec = WorkerSpec(
            role="consumer", index=0, generation=self.generation, endpoints=self._endpoints, config=self.config
        )
        self._identity = spec.identity
        self.is_ready = False
        self.log = (self.directory / f"log-{self.generation}").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stderr=self.log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": ".", **self.environment},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.msgpack.encode(spec))
        self.process.stdin.close()
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._returned_bytes = 0
        self._credit = CreditAccount()
        name = b"engine-0.1-%d" % self.generation
        self._engine: Channel[Grant] = Channel.connect(self._context, self._endpoints.points, Grant, name)
        self._engine.send(Join())

    def restart(self) -> None:
        """Another consumer, when the one before has ended."""
        self._collect()
        self._start()

    def _collect(self) -> None:
        self.process.wait(LIMIT_SECONDS)
        self.log.close()
        self._engine.socket.close(linger=0)

    def close(self) -> None:
        """Kill what still runs."""
        self.process.kill()
        self._collect()
        self._control.close()
        self._context.destroy(linger=0)

    def words(self) -> str:
        """What the consumer has said on its standard error."""
        return (self.directory / f"log-{self.generation}").read_text()

    # --- what the others do -----------------------------------------------------------------------------------------

    def send(self, message: Message, array: NDArray[Any] | None = None) -> None:
        """The engine has made this, and sends it when its credit allows."""
        self._unsent.append((encode(message), array))

    def tell(self, message: Message) -> None:
        """The supervisor says this."""
        self._control.send(message, to=self._identity)

    def until(self, condition: Callable[[], bool]) -> None:
        """Play engine and supervisor until the condition holds. AssertionError when it never does."""
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < end, f"it never came true: {self.stats}, {self.words()}"
            self._turn()

    def drain(self) -> int:
        """Ask it to end, and play on until it has; returns its exit code."""
        self.tell(Drain())
        self.until(lambda: self.process.poll() is not None)
        for _ in range(3):
            self._turn()
        return self.process.returncode

    @property
    def all_acknowledged(self) -> bool:
        """Whether the engine keeps nothing any more."""
        return not self._unsent and not self._sent

    def _turn(self) -> None:
        if self._restarts and self.process.poll() is not None and self.process.returncode < 0:
            self.deaths += 1
            self.restart()
        if self._control.socket.poll(10):
            received = self._control.receive(0)
            if received is not None and received.sender == self._identity:
                self._hear(received.message)
        while (received := self._engine.receive(0)) is not None:
            self._take_credit(received.message.credit_bytes)
        self._send_what_fits()

    def _hear(self, message: Message) -> None:
        match message:
            case Hello():
                self.tell(Prepare(dimensions=self._dimensions))
            case Ready():
                self.is_ready = True
            case TaskDurable(result=result) if self.commits:
                self.ledger.append((result.key, result.section))
                self.tell(Committed(key=result.key, section=result.section))
            case ConsumerStats() as stats:
                self.stats = stats
                self.states.append(stats.state)
            case Searchable(key=key):
                self.searchable.append(key)
            case StoreHits() as hits:
                self.hits[hits.request] = hits
            case OperationDone() as done:
                self.operations[done.request] = done

    def _take_credit(self, credit_bytes: int) -> None:
        if self._credit.limit_bytes:  # what comes first is the share
            self._returned_bytes += credit_bytes
        self._credit.grant(credit_bytes)
        while self._sent and cost_of(*self._sent[0]) <= self._returned_bytes:
            self._returned_bytes -= cost_of(*self._sent.popleft())

    def _send_what_fits(self) -> None:
        while self._unsent and self._credit.can_send(cost_of(*self._unsent[0])):
            message = self._unsent.popleft()
            self._engine.send_encoded(*message)
            self._credit.spend(cost_of(*message))
            self._sent.append(message)
            self.most_bytes_out = max(self.most_bytes_out, sum(cost_of(*each) for each in self._sent))
