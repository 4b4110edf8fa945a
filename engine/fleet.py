"""The supervisor's child processes as one: started, replaced, spoken to, drained."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from engine.children import Child, signals_held
from engine.config import Config
from engine.errors import StartError
from engine.failpoints import DURING_DRAIN, reach
from engine.worker import Endpoints, WorkerSpec
from transport.messages import (
    Abort,
    Condemned,
    ConsumerReplaced,
    Drain,
    Fence,
    Hello,
    Message,
    Passed,
    Prepare,
    Ready,
    Suspect,
    TaskKey,
    ToSupervisor,
)
from transport.sockets import Channel, Received

POLL_MS = 200  # a death wakes the poll at once; this is for timers


class Patience:
    """How long silence is borne."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Something was heard."""
        self._until = time.monotonic() + self._seconds

    @property
    def is_over(self) -> bool:
        """Whether it has been silent for too long."""
        return time.monotonic() > self._until


class Fleet:
    """Engine, consumer and decoders, and the control socket to all of them."""

    def __init__(
        self,
        config: Config,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoints: Endpoints,
        echo: bool = False,
        serves_queries: bool = False,
    ) -> None:
        """serves_queries: the engine holds what it takes to answer searches."""
        self._config = config
        self._endpoints = endpoints
        self._echo = echo
        self._serves_queries = serves_queries
        self._start_timeout = config.run.start_timeout_seconds
        self.control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
        self.control.socket.setsockopt(zmq.SNDTIMEO, 0)  # a child that hangs must not hold us up, too
        self._generation = 0
        self._fences = self._passed = 0  # sent to the engine, and answered
        self._prepare: Prepare | None = None  # what a consumer must know before it is ready
        self.extra_sockets: list[zmq.Socket[bytes]] = []  # whose messages wake the poll, too
        # The consumer first: a store that is locked or full is said before minutes of model loading.
        self.consumer = self._start("consumer", 0)
        self.engine = self._start("engine", 0)
        self.decoders = [self._start("decoder", index) for index in range(config.decoder_processes)]

    def _start(
        self, role: str, index: int, suspects: tuple[Suspect, ...] = (), condemned: tuple[Condemned, ...] = ()
    ) -> Child:
        self._generation += 1
        spec = WorkerSpec(
            role=role,
            index=index,
            generation=self._generation,
            endpoints=self._endpoints,
            config=self._config,
            suspects=suspects,
            condemned=condemned,
            serves_queries=self._serves_queries,
        )
        return Child(spec, self._echo)

    @property
    def children(self) -> Iterator[Child]:
        """Every child, the dead included until they are replaced."""
        yield self.consumer
        yield self.engine
        yield from self.decoders

    # --- successors ---------------------------------------------------------------------------------------------------

    def end(self, *children: Child) -> None:
        """Kill children and collect them."""
        for child in children:
            child.kill()
        for child in children:
            child.close()
        if self.engine in children:
            self._passed = self._fences  # what it had not given is gone, and is done again

    def replace_decoder(self, dead: Child) -> None:
        """Start a successor for a decoder that was ended."""
        index = self.decoders.index(dead)
        with signals_held():
            self.decoders[index] = self._start("decoder", dead.spec.index)

    def replace_consumer(self) -> None:
        """Start a successor for a consumer that was ended."""
        with signals_held():
            self.consumer = self._start("consumer", 0)

    def replace_engine(self, suspects: tuple[Suspect, ...], condemned: tuple[Condemned, ...]) -> None:
        """Start a successor for the engine, and for all decoders: what they had sent is gone with the old one.

        The old ones were ended before: the new engine binds the same endpoint, and must not hear the old decoders.
        """
        with signals_held():
            self.engine = self._start("engine", 0, suspects, condemned)
            self.decoders = [self._start("decoder", decoder.spec.index) for decoder in self.decoders]

    # --- speaking -----------------------------------------------------------------------------------------------------

    def by_identity(self, identity: bytes) -> Child | None:
        """The living child of that name; None for the last words of one that was replaced."""
        return next((child for child in self.children if child.identity == identity), None)

    def send(self, child: Child, message: Message) -> bool:
        """Send to a child; False when it cannot hear: it just died (noticed by itself), is not there yet, or has not
        read thousands of messages.
        """
        try:
            self.control.send(message, to=child.identity)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def engine_is_ready(self, ready: Ready) -> None:
        """What its models are decides what the consumer has to prepare."""
        dimensions: dict[str, int] = {info.role: info.dimension for info in ready.models if info.dimension}
        self._prepare = Prepare(dimensions=dimensions)
        if not self.consumer.ready:
            self.send(self.consumer, self._prepare)

    def consumer_took_over(self) -> None:
        """It is ready, in the place of one that died: it gets what that one had not acknowledged."""
        self._tell_engine(ConsumerReplaced())

    def abort(self, key: TaskKey) -> None:
        """Nothing more is to come of this attempt."""
        self._tell_engine(Abort(key=key))

    def _tell_engine(self, message: Message) -> None:
        """Of what concerns the points that are on their way, and a fence behind it."""
        if self.engine.is_alive and self.send(self.engine, message):
            self._fences += self.send(self.engine, Fence(number=self._fences + 1))

    @property
    def is_settled(self) -> bool:
        """Whether no points can come any more that were made before the engine heard of an abort, or of a consumer that
        took over. Until then nothing may be done with stored points: these would come behind it, and undo it.
        """
        return self._passed >= self._fences

    def heard(self, child: Child, message: Message) -> None:
        """Take note of what concerns how the children work together."""
        match message:
            case Hello() if child is self.consumer and self._prepare is not None:
                self.send(child, self._prepare)  # a successor: all that it needs is known
            case Passed(number=number) if child is self.engine:
                self._passed = max(self._passed, number)  # of one that is gone, it may come late

    def poll(self, timeout_ms: int = POLL_MS) -> Iterator[Received[Any]]:
        """Wait for messages, log lines or deaths, and give the messages that came."""
        poller = zmq.Poller()
        poller.register(self.control.socket, zmq.POLLIN)
        for socket in self.extra_sockets:
            poller.register(socket, zmq.POLLIN)
        for child in self.children:
            if child.log_open:
                poller.register(child.log.fileno(), zmq.POLLIN)
        poller.poll(timeout_ms)
        for child in self.children:
            child.read_log()
        while (received := self.control.receive(0)) is not None:
            yield received

    def late(self) -> StartError:
        """The error of children that do not get ready."""
        names = ", ".join(child.name for child in self.children if not child.ready)
        limit = self._start_timeout
        return StartError("start-timeout", f"{names}: not ready after {limit:.0f} s; raise run.start_timeout_seconds")

    # --- the end ------------------------------------------------------------------------------------------------------

    def drain(
        self,
        take: Callable[[Received[Any]], None],
        tick: Callable[[], None],
        is_hopeless: Callable[[], bool] = lambda: False,
    ) -> None:
        """End all children in the order in which work flows, each when it has finished what it holds.

        is_hopeless: whether decoders and engine would wait in vain.

        Raises:
            StartError: the consumer ended otherwise than in order. The engine may: what is durable, is.
        """
        reach(DURING_DRAIN)
        is_there = self.consumer.is_alive  # else it has died before, and holds nothing
        for group, next_one in ((self.decoders, self.engine), ([self.engine], self.consumer), ([self.consumer], None)):
            self._tell_to_drain(group)
            patience = Patience(self._config.run.stall_seconds if group is self.decoders else self._start_timeout)
            while any(child.is_alive for child in group):
                for received in self.poll():
                    if received.sender in {child.identity for child in group}:
                        patience.renew()
                    take(received)
                if patience.is_over or (next_one is not None and (is_hopeless() or not self._takes(next_one))):
                    self._give_up_on(group)
                tick()
        self.consumer.process.join()
        for received in self.poll(0):
            take(received)
        if is_there and self.consumer.process.exitcode != 0 and self.consumer.ready:
            raise self.consumer.failure()

    def _takes(self, child: Child) -> bool:
        """Whether what is sent to it will be worked off. An engine that still loads is ended itself."""
        return child.is_alive and (child.ready or child is not self.engine)

    def _tell_to_drain(self, group: list[Child]) -> None:
        """A successor that is still starting holds nothing: it need not load its models to end."""
        for child in group:
            if child.ready:
                self.send(child, Drain())
            else:
                child.kill()

    def _give_up_on(self, group: list[Child]) -> None:
        """A draining group has been silent for too long, or waits for a process that is gone: end it."""
        for child in group:
            child.kill()

    def stop(self) -> None:
        """Kill whatever still runs and collect it."""
        self.end(*self.children)
        self.control.close()
