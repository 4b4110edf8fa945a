"""The consumer process: vectors arrive, are made durable in the store, and only then acknowledged and their credit
returned. Its sockets; engine/writer.py says what becomes of a message.
"""

import gc
import math
import os
import time
from pathlib import Path
from typing import Any

import zmq

from engine.failpoints import BEFORE_CREDIT, reach
from engine.host_memory import peak_rss_bytes, rss_bytes
from engine.labelling import Labelling
from engine.spool import Spool, spool_directory
from engine.store_work import StoreAccess, collection_specs
from engine.trace import trace_of
from engine.trace_timesheet import Timesheet
from engine.worker import WorkerSpec, connect_control
from engine.writer import Writer
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import Store
from transport.credit import CreditBook
from transport.messages import (
    Committed,
    ConsumerStats,
    Drain,
    FetchPoints,
    Grant,
    Join,
    Label,
    Points,
    Prepare,
    Ready,
    RecordVideo,
    Remove,
    Repath,
    SearchStore,
    SpeakersTask,
    ToConsumer,
    ToConsumerControl,
)
from transport.sockets import Channel, Received

STATS_SECONDS = 1.0
GARBAGE_OBJECTS = 20_000  # between two searches for cycles, of which points have none: 700 cost a twelfth of all time
LINGER_MS = 20  # how long a part-filled batch of points waits for more
MIB = 1 << 20
SHOWN = {"writing": "write", "labelling": "label speakers"}  # of what it does; else it is waiting, or tells of itself


class Consumer:
    """Sockets of the consumer process around a `Writer`.

    A request to a server that does not answer holds the loop up for store.timeout_seconds; then no word comes of it.
    """

    def __init__(self, spec: WorkerSpec, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        options = spec.config.store
        self._spec = spec
        self._batch_points = options.batch_points
        self._control = connect_control(context, spec, ToConsumerControl)
        self._access = StoreAccess(lambda: _open(options), options.retry_seconds)
        self._spool = Spool(spool_directory(Path(spec.config.run.state), options), options.spool_mb * MIB)
        self._labelling = Labelling(self._access, spec.config.voice, self._control.send)
        share_bytes = spec.config.engine.results_mb * MIB
        self._writer = Writer(
            self._access,
            self._spool,
            options.batch_points,
            share_bytes // 2,  # while the one half is made durable, the other comes
            self._control.send,
            self._labelling,
        )
        self._points: Channel[Any] = Channel.bind(context, spec.endpoints.points, ToConsumer)
        self._credit = CreditBook(share_bytes)
        self._poller = zmq.Poller()
        for channel in (self._points, self._control):
            self._poller.register(channel.socket, zmq.POLLIN)
        self._trace = trace_of(spec, self._control.send)
        self._times = Timesheet("waiting", self._trace, SHOWN)
        self._started_seconds = self._stats_at = time.monotonic()
        self._queued_byte_seconds = 0.0
        self._owes_ready = False
        self._draining = False

    def run(self) -> None:
        """Write until told to drain and nothing more comes, or can be done.

        Raises:
            StoreError: the store refuses for good, or has been away for longer than store.retry_seconds.
        """
        while True:
            self._times.enter("waiting")
            is_quiet = not self._gather()
            self._write()
            if not self._draining:  # what is not labelled then is labelled in the next run
                self._labelling.step()
            self._times.enter("telling")
            self._say_ready()
            self._grant()
            self._report(self._writer.state())
            if self._draining and is_quiet and self._writer.may_end():
                break
        self.close()

    def _write(self) -> None:
        points = self._writer.points
        self._times.enter("writing")
        self._writer.step()
        self._times.enter("labelling", points=self._writer.points - points)

    def close(self) -> None:
        """Close the store, the spool and the sockets, in order."""
        self._access.close()
        left_mb = self._spool.size_bytes / 1e6
        self._report(f"drained, {left_mb:.1f} MB spooled" if left_mb else "drained", at_once=True)
        self._spool.close()
        self._points.close()
        self._control.close()

    def _gather(self) -> bool:
        """Messages until a batch of points is full, or none comes for a moment; False when none came for a while."""
        is_labelling = self._labelling.can_go_on and not self._draining
        wait_ms = 0 if is_labelling else math.ceil(1000 * self._writer.wait_seconds())
        points, timeout_ms = 0, wait_ms
        while self._poller.poll(timeout_ms):
            self._take_control()
            received = self._points.receive(0)
            if received is None:
                return True
            points += self._take(received)
            if points >= self._batch_points:
                return True
            timeout_ms = min(wait_ms, LINGER_MS)
        return points > 0 or wait_ms == 0

    def _take(self, received: Received[Any]) -> int:
        """Take a message of the engine's; returns how many points it holds."""
        if isinstance(received.message, Join):
            self._credit.join(received.sender)
            self._grant()
            return 0
        self._credit.receive(received.sender, received.cost_bytes)
        self._writer.receive(received.sender, received.message, received.payload, received.cost_bytes)
        return len(received.message.ids) if isinstance(received.message, Points) else 0

    def _grant(self) -> None:
        if released := self._writer.acknowledgements.take_released():
            reach(BEFORE_CREDIT)
        for sender, cost_bytes in released:
            self._credit.release(sender, cost_bytes)
        for sender, credit_bytes in self._credit.take_owed().items():
            try:
                self._points.send(Grant(credit_bytes=credit_bytes), to=sender)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._credit.leave(sender)  # an engine that died holds no credit; what it had sent is written

    def _take_control(self) -> None:
        while (received := self._control.receive(0)) is not None:
            match received.message:
                case Committed(key=key, section=section):
                    self._writer.committed(key, section)
                case SearchStore() as request:
                    self._control.send(self._access.search(request))
                case FetchPoints() as request:
                    self._control.send(self._access.fetch(request))
                case SpeakersTask() as task:
                    self._labelling.add(task)
                case Repath() | Remove() | RecordVideo() | Label() as operation:
                    self._take_points()
                    self._writer.operate(operation)
                case Prepare(dimensions=dimensions):
                    self._access.prepare(collection_specs(dimensions))
                    self._owes_ready = True
                case Drain():
                    self._draining = True

    def _take_points(self) -> None:
        """All that has come. What lies in the socket was sent before what we are told now, so it is written before."""
        while (received := self._points.receive(0)) is not None:
            self._take(received)

    def _say_ready(self) -> None:
        if self._owes_ready and self._writer.is_ready:
            self._owes_ready = False
            self._control.send(Ready(role=self._spec.role, index=self._spec.index))

    def _report(self, state: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._stats_at < STATS_SECONDS:
            return
        self._queued_byte_seconds += self._credit.held_bytes * (now - self._stats_at)
        self._stats_at = now
        self._control.send(
            ConsumerStats(
                points=self._writer.points,
                queued_bytes=self._credit.held_bytes,
                retries=self._access.retries,
                state=state,
                peak_rss_bytes=peak_rss_bytes(),
                spool_bytes=self._spool.size_bytes,
                rss_bytes=rss_bytes(),
                uptime_seconds=now - self._started_seconds,
                writing_seconds=self._times.seconds("writing"),
                labelling_seconds=self._times.seconds("labelling"),
                cpu_seconds=time.process_time(),
                queued_byte_seconds=self._queued_byte_seconds,
            )
        )
        self._trace.flush()


def _open(options: StoreOptions) -> Store:
    return open_store(options, os.environ.get(options.api_key_env))


def consumer_main(spec: WorkerSpec) -> None:
    """Entry of the consumer process."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    Consumer(spec, zmq.Context()).run()
