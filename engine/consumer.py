"""The consumer process: vectors arrive, are made durable in the store, and only then acknowledged and their credit
returned. While the store is away it waits and tries again; its senders feel that as missing credit.
"""

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from engine.host_memory import peak_rss_bytes
from engine.worker import WorkerSpec, connect_control
from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.store import (
    FRAMES,
    SPEECH,
    VOICES,
    CollectionSpec,
    Store,
    StoredPoint,
    frames_spec,
    speech_spec,
    voices_spec,
)
from transport.codec import WireError, as_array
from transport.credit import CreditBook
from transport.messages import (
    ConsumerStats,
    Drain,
    Grant,
    Join,
    Points,
    Prepare,
    Ready,
    TaskDurable,
    TaskResult,
    ToConsumer,
    ToConsumerControl,
)
from transport.sockets import Channel, Received

STATS_SECONDS = 1.0
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
LINGER_MS = 20  # how long a part-filled batch of points waits for more


class Writer:
    """Upserts with retries. Pure of sockets; clock, sleep and chance are passed in."""

    def __init__(
        self,
        store: Store,
        options: StoreOptions,
        waiting: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._options = options
        self._waiting = waiting
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self.points = 0
        self.retries = 0

    def write(self, collection: str, points: list[StoredPoint]) -> None:
        """Make the points durable, in batches of store.batch_points.

        Raises:
            StoreError: the store refuses, or stays away longer than store.retry_seconds (code store-lost).
        """
        size = self._options.batch_points
        for first in range(0, len(points), size):
            self._write_batch(collection, points[first : first + size])

    def _write_batch(self, collection: str, points: list[StoredPoint]) -> None:
        started, delay = self._clock(), FIRST_DELAY_SECONDS
        while (failure := self._try(collection, points)) is not None:
            if self._clock() - started > self._options.retry_seconds:
                raise StoreError(
                    "store-lost",
                    f"the store has been away for {self._options.retry_seconds:.0f} s ({failure}); "
                    "start it and run again, or raise store.retry_seconds",
                )
            self.retries += 1
            self._waiting(str(failure))
            self._sleep(self._chance(delay / 2, delay))  # jitter: many writers must not come back as one
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
        self.points += len(points)

    def _try(self, collection: str, points: list[StoredPoint]) -> StoreUnavailable | None:
        try:
            self._store.upsert(collection, points)
        except StoreUnavailable as unavailable:
            return unavailable
        return None


class Consumer:
    """Sockets of the consumer process around a `Writer`."""

    def __init__(self, spec: WorkerSpec, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._spec = spec
        self._options = spec.config.store
        self._control = connect_control(context, spec, ToConsumerControl)
        self._store = open_store(self._options, os.environ.get(self._options.api_key_env))
        self._points: Channel[Any] = Channel.bind(context, spec.endpoints.points, ToConsumer)
        self._credit = CreditBook(spec.config.engine.results_mb * 1024 * 1024)
        self._writer = Writer(self._store, self._options, self._report_waiting)
        self._stats_at = 0.0
        self._draining = False

    def run(self) -> None:
        """Write until told to drain and nothing more comes."""
        while True:
            batch = self._gather()
            if batch:
                self._write(batch)
            elif self._draining:
                break
            self._grant()
            self._take_control()
            self._report("writing")
        self._store.optimize()
        self._report("drained", at_once=True)
        self._store.close()
        self._points.close()
        self._control.close()

    def _gather(self) -> list[Received[Any]]:
        """Messages until a batch of points is full, or none comes for a moment."""
        batch: list[Received[Any]] = []
        points, timeout_ms = 0, 100
        while points < self._options.batch_points and (received := self._points.receive(timeout_ms)) is not None:
            if isinstance(received.message, Join):
                self._credit.join(received.sender)
                self._grant()
                continue
            self._credit.receive(received.sender, received.cost_bytes)
            batch.append(received)
            points += len(received.message.ids) if isinstance(received.message, Points) else 0
            timeout_ms = LINGER_MS
        return batch

    def _write(self, batch: list[Received[Any]]) -> None:
        """All points of the batch become durable before any of its results is acknowledged."""
        by_collection: dict[str, list[StoredPoint]] = {}
        for received in batch:
            if isinstance(received.message, Points):
                stored = stored_points(received.message, received.payload)
                by_collection.setdefault(received.message.collection, []).extend(stored)
        for collection, points in by_collection.items():
            self._writer.write(collection, points)
        for received in batch:
            if isinstance(received.message, TaskResult):
                self._control.send(TaskDurable(result=received.message))
            self._credit.release(received.sender, received.cost_bytes)

    def _grant(self) -> None:
        for sender, credit_bytes in self._credit.take_owed().items():
            try:
                self._points.send(Grant(credit_bytes=credit_bytes), to=sender)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._credit.leave(sender)  # an engine that died holds no credit; what it had sent is written

    def _take_control(self) -> None:
        received = self._control.receive(0)
        match received.message if received is not None else None:
            case Prepare(dimensions=dimensions):
                self._store.ensure(collection_specs(dimensions))
                self._control.send(Ready(role=self._spec.role, index=self._spec.index))
            case Drain():
                self._draining = True

    def _report_waiting(self, reason: str) -> None:
        self._report(f"waiting: {reason}")

    def _report(self, state: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._stats_at < STATS_SECONDS:
            return
        self._stats_at = now
        self._control.send(
            ConsumerStats(
                points=self._writer.points,
                queued_bytes=self._credit.held_bytes,
                retries=self._writer.retries,
                state=state,
                peak_rss_bytes=peak_rss_bytes(),
            )
        )


def stored_points(message: Points, payload: memoryview | None) -> list[StoredPoint]:
    """The points of a message, with their rows of the array.

    Raises:
        WireError: the array does not hold one row for each id.
    """
    rows = as_array(message.array, payload if payload is not None else b"")
    if not len(rows) == len(message.ids) == len(message.payloads):
        raise WireError(f"{len(rows)} rows for {len(message.ids)} ids and {len(message.payloads)} payloads")
    return [
        StoredPoint(id=id_, collection=message.collection, payload=facts, vectors={message.vector: row})
        for id_, facts, row in zip(message.ids, message.payloads, rows, strict=True)
    ]


SPEC_OF = {FRAMES: ("image", frames_spec), SPEECH: ("text", speech_spec), VOICES: ("voice", voices_spec)}


def collection_specs(dimensions: Mapping[str, int]) -> list[CollectionSpec]:
    """What the store must hold, from the dimensions of the models that are loaded."""
    return [make(dimensions[role]) for role, make in SPEC_OF.values() if role in dimensions]


def consumer_main(spec: WorkerSpec) -> None:
    """Entry of the consumer process."""
    Consumer(spec, zmq.Context()).run()
