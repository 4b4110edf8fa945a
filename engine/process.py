"""The engine process: two I/O threads around `Engine`, and the loop that steps it.

    decoders ══► Ingress (thread) ─ inbox ─► main thread: Engine.step() ─► Egress (thread) ══► consumer
                    ◄── credit ── released ──┘                                ◄── credit ──

A socket belongs to one thread. The threads are woken through an in-process socket, so that credit goes back while a
batch is still running.
"""

import queue
import time

import zmq

from engine.core import DEVICE_LOST, Engine, EngineLostError
from engine.egress import Egress
from engine.errors import ExitCode
from engine.heap import keep_freed_memory
from engine.host_memory import peak_rss_bytes, rss_bytes
from engine.ingress import Ingress
from engine.jobs import ItemId
from engine.loading import Loader
from engine.pressure import Pressure
from engine.runner import Failure
from engine.trace import trace_of
from engine.trace_batches import BatchWatch
from engine.trace_timesheet import Timesheet
from engine.worker import WorkerSpec, connect_control, leave
from stages.lanes import lanes_of
from stages.registry import frame_format
from transport.messages import (
    Abort,
    ConsumerReplaced,
    Drain,
    EmbedQuery,
    EngineLost,
    EngineStats,
    Fence,
    ModelStats,
    Passed,
    Ready,
    Receiving,
    Suspect,
    ToEngineControl,
)

STATS_SECONDS = 1.0
WAITS = {"waiting": "wait for items", "blocked": "wait for room for results"}  # of the step loop; else it is working
IDLE_WAIT_SECONDS = 0.05  # the loop looks at least so often at its control socket


class EngineProcess:
    """The step loop, and its control socket."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._control = connect_control(zmq.Context(), spec, ToEngineControl)  # its own context: see `leave`
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        config = spec.config
        share_bytes = config.engine.host_mb * 1024 * 1024 // config.decoder_processes
        self._ingress = Ingress(context, spec.endpoints.items, share_bytes)
        self._ingress.start()  # decoders need not wait for the models
        self._control.send(Receiving(frame_format=frame_format(config.models)))
        self._trace = trace_of(spec, self._control.send)
        self._trace.begin("load the models")
        self._trace.flush()
        self._loader = Loader(config, serves_queries=spec.serves_queries and config.daemon.search)
        loaded = self._loader.load()
        self._runner = loaded.runner
        self._device = loaded.runner.device
        if config.device.memory_gb is None:
            keep_freed_memory(lanes_of(self._device.name).count)
        tiers = (config.device.release_at, config.device.halve_at, config.device.stop_at)
        pressure = Pressure(self._runner.budget.total_bytes, tiers)
        self._engine = Engine(
            self._runner,
            config.engine,
            config.voice,
            pressure=pressure,
            share_bytes=share_bytes,
            suspects=[_item_id(item) for item in spec.suspects],
            condemned={_item_id(each.item): Failure(each.code, each.message) for each in spec.condemned},
            query_roles=loaded.query_roles,
        )
        self._egress = Egress(context, spec.endpoints.points, spec.identity)
        self._draining = False
        self._started_seconds, self._loading_cpu_seconds = time.monotonic(), time.process_time()
        self._stats_at = self._started_seconds
        self._times = Timesheet("working", self._trace, WAITS)
        self._batches = BatchWatch(self._runner.counters, self._runner.turns.residency, self._trace)
        self._host_byte_seconds = 0.0
        self._queued_item_seconds = dict.fromkeys(self._runner.counters, 0.0)
        self._held_bytes = 0  # of the device, when it was last read
        self._ready = Ready(
            role=spec.role,
            index=spec.index,
            models=tuple(model.info for model in self._runner.models.values()),
            frame_format=loaded.frame_format,
            device=self._device.name,
            notes=loaded.notes,
        )
        self._trace.end(device=self._device.name)

    def run(self) -> None:
        """Step until told to drain, and nothing is left to do and nothing sent that is not durable."""
        self._egress.start()
        self._control.send(self._ready)
        self._report(at_once=True)  # from here on its time is counted
        while not (self._draining and self._is_idle()):
            if self._engine.is_accepting:
                self._take_items(wait_seconds=0.0)
            self._take_control()
            worked = self._step()
            self._hand_over()
            self._report()
            if not worked:
                self._times.enter("blocked" if self._engine.outbox.is_full else "waiting")
                self._take_items(self._wait_seconds())
                self._times.enter("working")
        self._report(at_once=True)
        self._egress.close()
        self._control.close()

    def _step(self) -> bool:
        started = time.monotonic()
        try:
            worked = self._engine.step(started)
        except EngineLostError as lost:
            self._report(at_once=True, lost=True)
            suspects = tuple(Suspect(**item._asdict()) for item in lost.suspects)
            code = ExitCode.DEVICE_LOST if lost.code == DEVICE_LOST else ExitCode.RECYCLE
            leave(self._control, EngineLost(code=lost.code, message=str(lost), suspects=suspects), code)
        if worked:
            self._batches.ran(started, time.monotonic())
        return worked

    def _is_idle(self) -> bool:
        return self._engine.is_idle() and self._ingress.inbox.empty() and self._egress.is_empty

    def _wait_seconds(self) -> float:
        deadline = self._engine.next_deadline_seconds(time.monotonic())
        if deadline is None:
            return IDLE_WAIT_SECONDS
        return min(max(deadline - time.monotonic(), 0.001), IDLE_WAIT_SECONDS)

    def _take_items(self, wait_seconds: float) -> None:
        """Everything that has arrived; waits for the first one if asked to."""
        try:
            received = self._ingress.inbox.get(block=wait_seconds > 0, timeout=wait_seconds or None)
            self._times.enter("working")
            while True:
                self._engine.receive(*received, now_seconds=time.monotonic())
                received = self._ingress.inbox.get_nowait()
        except queue.Empty:
            self._hand_over()

    def _hand_over(self) -> None:
        """Results to the egress thread, credit to the ingress thread, answers to whoever asked."""
        while self._egress.has_room and (outgoing := self._engine.outbox.take()) is not None:
            self._egress.put(outgoing)
        if self._engine.released:
            self._ingress.release(self._engine.released)
            self._engine.released.clear()
        if (number := self._egress.take_passed()) is not None:
            self._control.send(Passed(number=number))
        while self._engine.queries.answers:
            self._control.send(self._engine.queries.answers.popleft())

    def _take_control(self) -> None:
        while (received := self._control.receive(0)) is not None:
            match received.message:
                case Abort(key=key):
                    self._engine.abort(key)
                case EmbedQuery() as query:
                    self._engine.ask(query, time.monotonic())
                case ConsumerReplaced():
                    self._egress.consumer_replaced()
                case Fence(number=number):
                    self._egress.fence(number, len(self._engine.outbox))
                case Drain():
                    self._draining = True

    def _report(self, at_once: bool = False, lost: bool = False) -> None:
        """Send the counters, about once a second. lost: the device may not be asked for anything any more."""
        now = time.monotonic()
        if not at_once and now - self._stats_at < STATS_SECONDS:
            return
        self._add_up(now - self._stats_at)
        self._stats_at = now
        self._loader.save(self._runner, at_once)
        counters = self._runner.counters
        pressure, residency = self._engine.gate.pressure.counters, self._runner.turns.residency
        if not lost and self._device.name != "cpu":  # there it is in the RSS
            self._held_bytes = self._device.read().used_bytes
        self._control.send(
            EngineStats(
                models={role: self._model_stats(role) for role in counters},
                host_bytes=self._ingress.held_bytes,
                busy_seconds=sum(counter.busy_seconds for counter in counters.values()),
                uptime_seconds=now - self._started_seconds,
                peak_device_bytes=max(self._held_bytes, self._runner.peak_bytes) if self._held_bytes else 0,
                peak_rss_bytes=peak_rss_bytes(),
                budget_bytes=self._runner.budget.total_bytes,
                releases=pressure.releases,
                halvings=pressure.halvings,
                stops=pressure.stops,
                changes=residency.changes,
                change_seconds=residency.change_seconds,
                device_bytes=self._held_bytes,
                rss_bytes=rss_bytes(),
                waiting_seconds=self._times.seconds("waiting"),
                blocked_seconds=self._times.seconds("blocked"),
                cpu_seconds=time.process_time() - self._loading_cpu_seconds,
                host_byte_seconds=self._host_byte_seconds,
            )
        )
        self._trace.flush()

    def _add_up(self, seconds: float) -> None:
        """What waits now, for the time since it was last looked at."""
        self._host_byte_seconds += self._ingress.held_bytes * seconds
        for role in self._queued_item_seconds:
            self._queued_item_seconds[role] += self._engine.scheduler.queued_items(role) * seconds

    def _model_stats(self, role: str) -> ModelStats:
        counters = self._engine.runner.counters[role]
        return ModelStats(
            items=counters.items,
            batches=counters.batches,
            busy_seconds=counters.busy_seconds,
            queued_items=self._engine.scheduler.queued_items(role),
            oom_events=counters.oom_events,
            batch_splits=counters.batch_splits,
            alone=counters.alone,
            batch=self._runner.tuners[role].size,
            queued_bytes=self._engine.scheduler.queued_bytes(role),
            queued_item_seconds=self._queued_item_seconds[role],
        )


def _item_id(item: Suspect) -> ItemId:
    return ItemId(item.video_id, item.role, item.start_seconds, item.end_seconds)


def engine_main(spec: WorkerSpec) -> None:
    """Entry of the engine process."""
    EngineProcess(spec).run()
