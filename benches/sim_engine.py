"""The real engine (core, gate, scheduler, runner) on a simulated device, in virtual seconds.

Decoders send what `benches.sim_workload` makes, as their byte credit allows, each at its own pace; a consumer takes
everything at once. An engine that is lost is replaced by a fresh one on a fresh device after `restart_seconds`, as the
supervisor does it (engine/restarts.py): items that were running run alone; one that was alone when the device was lost
is condemned; every task without a result is done again as a new attempt.

Virtual time passes in models, in moving them, in the runner's pauses, in waiting, and by `HOST_SECONDS` for the engine
itself: what benches/sim_overhead.py measures, as a constant.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benches.sim_device import DeviceFactory, Meter, Start
from benches.sim_waits import Waits
from benches.sim_workload import Sent, Video, Work, tasks
from engine.calibration import SavedModel
from engine.config import Config
from engine.core import Engine, EngineLostError
from engine.jobs import ItemId
from engine.pressure import Pressure
from engine.restarts import Restarts
from engine.runner import Failure, RunCounters, Runner
from engine.simulated_device import Cost, SimulatedClock, SimulatedDevice
from stages.base import ROLES
from transport.messages import EngineLost, Suspect, TaskResult

HOST_SECONDS = (0.3e-3, 20e-6)  # of the engine's own, for each batch, and for each item
POLL_SECONDS = 0.05  # engine.process looks at least so often
SAVE_SECONDS = 60.0  # as engine.loading
MAX_RESTARTS = 100  # in one run: more is no progress
MIB = 1024**2


def _item(suspect: Suspect) -> ItemId:
    return ItemId(suspect.video_id, suspect.role, suspect.start_seconds, suspect.end_seconds)


class PointIds(msgspec.Struct, frozen=True, tag="Points"):
    """What is looked at of a Points message."""

    ids: tuple[str, ...]
    collection: str


class Decoder:
    """One decoder: a task at a time, an item when it is decoded and credit is there."""

    def __init__(self, name: bytes, share_bytes: int) -> None:
        self.name = name
        self.share_bytes = share_bytes
        self.pace = 1.0  # times what decoding takes
        self.start_over(0.0)

    def start_over(self, now_seconds: float) -> None:
        """Drop what is in hand; a fresh engine grants the whole share."""
        self.credit_bytes = self.share_bytes
        self.messages: Iterator[Sent] = iter(())
        self.next: Sent | None = None
        self.ready_seconds = now_seconds
        self._blocked = False  # an item is ready, and credit does not suffice

    def take(self, work: Work, attempt: int) -> None:
        """Begin a task."""
        self.messages = work.messages(attempt)
        self.next = next(self.messages)

    def sendable(self, now_seconds: float) -> Sent | None:
        """The next message, when it is decoded and credit suffices."""
        if self.next is None or self.ready_seconds > now_seconds:
            return None
        if self.credit_bytes < self.next.cost_bytes:
            self._blocked = True
            return None
        return self.next

    def sent(self, message: Sent, now_seconds: float) -> None:
        """Its cost is spent, and the next item is begun: when this one was ready, or when credit came at last."""
        self.credit_bytes -= message.cost_bytes
        self.next = next(self.messages, None)
        begun = now_seconds if self._blocked else self.ready_seconds
        self.ready_seconds = begun + (self.next.seconds * self.pace if self.next is not None else 0.0)
        self._blocked = False


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    seconds: float = 0.0  # from ready to the last point
    start_seconds: float = 0.0  # loading and measuring
    idle_seconds: float = 0.0  # nothing was queued
    company_seconds: float = (
        0.0  # part-filled batches waited for company (engine.max_delay_ms), and nothing else was queued
    )
    held_seconds: float = 0.0  # items waited for their model's turn, and nothing ran
    points: Counter[str] = field(default_factory=Counter)  # distinct ids, by collection
    results: dict[int, TaskResult] = field(default_factory=dict)  # by task
    restarts: Counter[str] = field(default_factory=Counter)  # by code
    highest_bytes: int = 0
    highest_share: float = 0.0  # of what was admitted, in the budget: prediction plus what is in use beside it
    alone_tries: int = 0  # single items that were tried although their prediction did not fit
    swaps: int = 0
    counters: dict[str, RunCounters] = field(default_factory=dict)
    host_bytes: int = 0  # most that was held of all decoders

    @property
    def failures(self) -> list[Any]:
        """Items that failed, of all tasks."""
        return [failure for result in self.results.values() for failure in result.failures]


class SimulatedRun:
    """One run over some videos."""

    def __init__(
        self,
        videos: Sequence[Video],
        device: DeviceFactory,
        costs: Mapping[str, Cost],
        *,
        config: Config | None = None,
        decoders: int = 4,
        restart_seconds: float = 20.0,
        **special: Mapping[str, Any],
    ) -> None:
        """special: faults, truth, lengths, by role, as `benches.sim_device.Start` takes them."""
        self.config = config or Config()
        self.clock = SimulatedClock()
        self.meter = Meter(self.clock, admitted=self._see_admitted)
        self.waits = Waits(self.config.engine)
        self.outcome = Outcome()
        self.known: dict[str, SavedModel] = {}
        self.after_step: Callable[[SimulatedRun], None] = lambda run: None
        self._make_device = device
        self._costs = {role: costs[role] for role in ROLES if role in costs}
        self._special = special
        self._restart_seconds = restart_seconds
        self._share_bytes = self.config.engine.host_mb * MIB // decoders
        self._decoders = [Decoder(str(number).encode(), self._share_bytes) for number in range(decoders)]
        self._work = tasks(videos)
        self._queue = deque(self._work)
        self._attempts: Counter[int] = Counter()
        self._given: dict[int, Work] = {}  # tasks handed out, without a result yet
        self._restarts = Restarts(self.config.run.engine_restarts)
        self._ids: dict[str, set[str]] = {}
        self._start_engine()
        self.outcome.start_seconds = self.clock()
        for decoder in self._decoders:
            decoder.start_over(self.clock())

    # --- engines ------------------------------------------------------------------------------------------------------

    def _start_engine(self) -> None:
        self.device: SimulatedDevice = self._make_device(self.clock)
        self.start = Start(self.device, self._costs, self.config, self.meter, self.known, **self._special)  # type: ignore[arg-type]
        self.runner: Runner = self.start.runner()
        device = self.config.device
        self.engine = Engine(
            self.runner,
            self.config.engine,
            self.config.voice,
            pressure=Pressure(self.runner.budget.total_bytes, (device.release_at, device.halve_at, device.stop_at)),
            share_bytes=self._share_bytes,
            suspects=[_item(suspect) for suspect in self._restarts.suspects],
            condemned={_item(each.item): Failure(each.code, each.message) for each in self._restarts.condemned},
        )
        self.waits.watch(self.engine.scheduler)
        self._saved_seconds = self.clock()

    def _replace_engine(self, error: EngineLostError) -> None:
        self.outcome.restarts[error.code] += 1
        self._see_engine()
        self.start.save(self.runner)
        suspects = tuple(Suspect(**item._asdict()) for item in error.suspects)
        self._restarts.lost(EngineLost(code=error.code, message=str(error), suspects=suspects))
        if not self._restarts.may_restart or self.outcome.restarts.total() > MAX_RESTARTS:
            raise RuntimeError(f"restarted too often: {error}") from error
        self.clock.sleep(self._restart_seconds)
        for decoder in self._decoders:
            decoder.start_over(self.clock())
        again = [work for work in self._given.values() if work.task_id not in self.outcome.results]
        self._queue.extendleft(reversed(again))
        self._given.clear()
        self._start_engine()

    def _see_engine(self) -> None:
        """Add up what an engine did, at its end."""
        outcome = self.outcome
        outcome.highest_bytes = max(outcome.highest_bytes, self.device.highest_bytes)
        outcome.swaps += self.runner.turns.residency.changes
        for role, counters in self.runner.counters.items():
            total = outcome.counters.setdefault(role, RunCounters())
            for name in ("items", "batches", "busy_seconds", "oom_events", "batch_splits", "alone"):
                setattr(total, name, getattr(total, name) + getattr(counters, name))

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Until everything is done. Raises RuntimeError when nothing can go on any more."""
        while len(self.outcome.results) < len(self._work):
            self._deliver()
            self._hand_over()  # credit that came back at once: of starts, ends, and items that failed
            before = self.meter.items.copy()
            try:
                worked = self.engine.step(self.clock())
            except EngineLostError as error:
                self._replace_engine(error)
                continue
            if worked:
                done = sum(self.meter.items.values()) - sum(before.values())
                self.clock.sleep(HOST_SECONDS[0] + HOST_SECONDS[1] * done)
                self.after_step(self)
            self._hand_over()
            if self.clock() - self._saved_seconds >= SAVE_SECONDS:
                self.start.save(self.runner)
                self._saved_seconds = self.clock()
            if not worked and len(self.outcome.results) < len(self._work):
                self._wait()
        self._see_engine()
        self.outcome.seconds = self.clock() - self.outcome.start_seconds
        self.outcome.points = Counter({name: len(ids) for name, ids in self._ids.items()})
        return self.outcome

    def torn(self) -> set[str]:
        """The videos of which not every item became points."""
        return {work.video.name for work in self._work if self.outcome.results[work.task_id].failures}

    def _deliver(self) -> None:
        if not self.engine.is_accepting:
            return
        now = self.clock()
        for decoder in self._decoders:
            while True:
                if decoder.next is None and self._queue:
                    work = self._queue.popleft()
                    self._attempts[work.task_id] += 1
                    self._given[work.task_id] = work
                    decoder.take(work, self._attempts[work.task_id])
                sent = decoder.sendable(now)
                if sent is None:
                    break
                decoder.sent(sent, now)
                self.engine.receive(decoder.name, sent.message, sent.payload, sent.cost_bytes, now)
        held = sum(decoder.share_bytes - decoder.credit_bytes for decoder in self._decoders)
        self.outcome.host_bytes = max(self.outcome.host_bytes, held)

    def _hand_over(self) -> None:
        while (outgoing := self.engine.outbox.take()) is not None:
            if outgoing.array is None:
                result = msgspec.msgpack.decode(outgoing.header, type=TaskResult)
                self.outcome.results[result.key.task_id] = result
                self._restarts.progress()
                self._given.pop(result.key.task_id, None)
            else:
                points = msgspec.msgpack.decode(outgoing.header, type=PointIds)
                self._ids.setdefault(points.collection, set()).update(points.ids)
        for sender, cost_bytes in self.engine.released:
            self._decoders[int(sender)].credit_bytes += cost_bytes
        self.engine.released.clear()

    def _wait(self) -> None:
        """Let time pass to the next thing that can happen, and say what was waited for."""
        now, queued = self.clock(), len(self.engine.scheduler)
        events = [now + POLL_SECONDS] if queued else []
        if self.engine.is_accepting:
            able = [
                each for each in self._decoders if each.next is not None and each.credit_bytes >= each.next.cost_bytes
            ]
            events += [each.ready_seconds for each in able]
        deadline = self.engine.next_deadline_seconds(now)
        if deadline is not None:
            events.append(max(deadline, now + 1e-3))
        if not events:
            raise RuntimeError(f"stands still at {now:.1f} s: nothing is queued, and no decoder can send")
        seconds = max(min(events) - now, 1e-6)
        self.clock.sleep(seconds)
        scheduler = self.engine.scheduler
        if not queued:
            self.outcome.idle_seconds += seconds
        elif scheduler.ready_roles(now):
            self.outcome.held_seconds += seconds
        else:
            self.outcome.company_seconds += seconds

    def _see_admitted(self, role: str, count: int, length: int) -> None:
        """Before each batch: what it is expected to take, beside what is in use, against the budget."""
        budget, reading = self.runner.budget, self.device.read()
        predicted = budget.costs[role].predict(count, length)
        if predicted is None:
            return
        model = self.runner.models[role]
        reusable = 0 if model.outside_torch else reading.cached_bytes
        share = (reading.used_bytes - reusable + predicted) / budget.total_bytes
        if count == 1 and predicted > budget.room_bytes(reading, model.outside_torch):
            self.outcome.alone_tries += 1
        else:
            self.outcome.highest_share = max(self.outcome.highest_share, share)
