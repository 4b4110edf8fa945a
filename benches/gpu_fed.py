"""The whole engine on one budget, fed from memory: no decoder, no socket, no store, so the device is the limit.

The engine gets what decoders made of the medium, over and over, as fast as its byte credit lets it in, and works it off
to the end. A first stretch, in which it finds its batch sizes, does not count.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from benches.gpu_card import Sample, meter
from benches.gpu_work import Facts, Given, Sent, Stream, messages_of, recorded
from engine.config import Config
from engine.core import Engine
from engine.loading import Loaded, Loader
from engine.outbox import Outgoing
from engine.pressure import Pressure, PressureCounters
from engine.runner import RunCounters
from transport.messages import TaskResult, ToConsumer

WARM_UP = 0.4  # of the measured media
TRACE_SECONDS = 0.1  # between readings of the device's memory
MOST_POINTS = 150  # of a line in a plot
IDLE_SECONDS = 0.001
SENDER = b"decoder"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the engine gave, fed from memory or by decoders."""

    sampling: str
    media_seconds: float  # that were worked off
    wall_seconds: float
    budget_bytes: int
    peak_bytes: int  # most that the engine held on the device
    busy_fraction: float  # share of the time in models
    items: dict[str, int] = {}  # by role
    busy_seconds: dict[str, float] = {}  # by role
    batches: dict[str, int] = {}  # sizes that were found
    failures: int = 0  # named in the results of tasks: an item, or neighbours with the same reason
    oom_events: int = 0
    batch_splits: int = 0
    alone: int = 0  # items that got the whole device
    changes: int = 0  # models that came in by turns
    change_seconds: float = 0.0
    releases: int = 0  # how often the tiers of pressure acted
    halvings: int = 0
    stops: int = 0
    memory: tuple[tuple[float, float], ...] = ()  # (seconds, bytes held on the device)
    busy: tuple[tuple[float, float], ...] = ()  # (seconds, share of the time in models since the last)
    card: tuple[Sample, ...] = ()
    decoders: int = 0
    start_seconds: float = 0.0  # until the engine was ready
    notes: tuple[str, ...] = ()

    @property
    def hours_per_hour(self) -> float:
        return self.media_seconds / self.wall_seconds if self.wall_seconds else 0.0


class Amount(msgspec.Struct, frozen=True):
    """How much is fed: media up to a limit, but no longer than some seconds, should it go slower than expected."""

    media_seconds: float
    feed_seconds: float

    def times(self, share: float) -> "Amount":
        return Amount(share * self.media_seconds, share * self.feed_seconds)


def run_fed(config: Config, facts: Facts, work: Path, uuid: str | None, amounts: dict[str, Amount]) -> Iterator[Run]:
    """Load the models once, and run each sampling that has an amount. Raises SluiceError when they do not fit."""
    begun = time.monotonic()
    loaded = Loader(config).load()
    start_seconds = time.monotonic() - begun
    for sampling, amount in amounts.items():
        items = messages_of(recorded(work, sampling), config.models)
        Fed(loaded, config).run(_stream(items, facts, amount.times(WARM_UP)), sampling)
        with meter(uuid) as watch:
            run = Fed(loaded, config).run(_stream(items, facts, amount), sampling)
        card = tuple(watch.samples)
        yield msgspec.structs.replace(run, card=card, notes=loaded.notes, start_seconds=start_seconds)


def _stream(items: Sequence[Sent], facts: Facts, amount: Amount) -> Stream:
    end = time.monotonic() + amount.feed_seconds
    return Stream(items, facts.media_seconds, amount.media_seconds, lambda: time.monotonic() >= end)


class Fed:
    """One engine on models that are loaded, and what it counts."""

    def __init__(self, loaded: Loaded, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = loaded.runner
        self._clock = clock
        device = config.device
        self._pressure = Pressure(self._runner.budget.total_bytes, (device.release_at, device.halve_at, device.stop_at))
        self._credit_bytes = config.engine.host_mb * 1024**2
        self._engine = Engine(
            self._runner, config.engine, config.voice, pressure=self._pressure, share_bytes=self._credit_bytes
        )
        self._failures = 0
        self._before = {role: replace(counters) for role, counters in self._runner.counters.items()}
        self._changes_before = self._changes()
        self._trace: list[tuple[float, float, float]] = []  # seconds, bytes held, busy seconds

    def run(self, stream: Stream, sampling: str) -> Run:
        """Feed it to the end of the stream, and wait until all is worked off."""
        self._runner.peak_bytes = 0
        feeder, started, traced = Feeder(self._engine, iter(stream), self._credit_bytes), self._clock(), 0.0
        while not (feeder.is_done and self._engine.is_idle()):
            feeder.feed(self._clock())
            if not self._engine.step(self._clock()):
                time.sleep(IDLE_SECONDS)
            self._take_results()
            if self._clock() - started - traced >= TRACE_SECONDS:
                traced = self._clock() - started
                self._trace.append((traced, float(self._runner.device.read().used_bytes), self._busy()))
        return self._row(sampling, stream.seconds, self._clock() - started)

    def _take_results(self) -> None:
        while (outgoing := self._engine.outbox.take()) is not None:
            if outgoing.array is None:  # not points, of which there are many
                self._failures += failures_in(outgoing)

    def _busy(self) -> float:
        return sum(each.busy_seconds for each in self._runner.counters.values())

    def _changes(self) -> tuple[int, float]:
        residency = self._runner.turns.residency
        return residency.changes, residency.change_seconds

    def _row(self, sampling: str, media_seconds: float, wall_seconds: float) -> Run:
        counted = {role: _since(before, self._runner.counters[role]) for role, before in self._before.items()}
        changes, change_seconds = self._changes()
        pressure: PressureCounters = self._pressure.counters
        return Run(
            sampling=sampling,
            media_seconds=media_seconds,
            wall_seconds=wall_seconds,
            budget_bytes=self._runner.budget.total_bytes,
            peak_bytes=max(self._runner.peak_bytes, *(round(held) for _, held, _ in self._trace), 0),
            busy_fraction=sum(each.busy_seconds for each in counted.values()) / wall_seconds,
            items={role: each.items for role, each in counted.items()},
            busy_seconds={role: each.busy_seconds for role, each in counted.items()},
            batches={role: self._runner.tuners[role].size for role in counted},
            failures=self._failures,
            oom_events=sum(each.oom_events for each in counted.values()),
            batch_splits=sum(each.batch_splits for each in counted.values()),
            alone=sum(each.alone for each in counted.values()),
            changes=changes - self._changes_before[0],
            change_seconds=change_seconds - self._changes_before[1],
            releases=pressure.releases,
            halvings=pressure.halvings,
            stops=pressure.stops,
            memory=thinned([(at, held) for at, held, _ in self._trace]),
            busy=shares(thinned([(at, busy) for at, _, busy in self._trace])),
        )


class Feeder:
    """Feeds the engine as one decoder would: within its credit."""

    def __init__(self, engine: Engine, work: Iterator[Given], credit_bytes: int) -> None:
        self._engine = engine
        self._work = work
        self._credit_bytes = credit_bytes
        self._next = next(work, None)

    @property
    def is_done(self) -> bool:
        """Whether everything was sent."""
        return self._next is None

    def feed(self, now_seconds: float) -> None:
        """Send what credit allows."""
        self._credit_bytes += sum(cost for _, cost in self._engine.released)
        self._engine.released.clear()
        while self._next is not None and self._engine.is_accepting:
            message, array, cost_bytes = self._next
            if cost_bytes > self._credit_bytes:
                return
            self._credit_bytes -= cost_bytes
            payload = array.data.cast("B") if array is not None else None
            self._engine.receive(SENDER, message, payload, cost_bytes, now_seconds)
            self._next = next(self._work, None)


def failures_in(outgoing: Outgoing) -> int:
    """Named in a task's result; none where it is another message."""
    message: Any = msgspec.msgpack.decode(outgoing.header, type=ToConsumer)
    return len(message.failures) if isinstance(message, TaskResult) else 0


Points = Sequence[tuple[float, float]]


def thinned(points: Points) -> tuple[tuple[float, float], ...]:
    """About MOST_POINTS of them, evenly, the highest of each stretch: of memory nothing else matters. Pure."""
    step = max(1, -(-len(points) // MOST_POINTS))
    stretches = (points[first : first + step] for first in range(0, len(points), step))
    return tuple(max(stretch, key=lambda point: point[1]) for stretch in stretches)


def shares(totals: Points) -> tuple[tuple[float, float], ...]:
    """From (seconds, busy seconds so far) to (seconds, share that was busy since the moment before). Pure."""
    steps = pairwise(totals)
    return tuple((at, (busy - before) / (at - since)) for (since, before), (at, busy) in steps if at > since)


def _since(before: RunCounters, after: RunCounters) -> RunCounters:
    names = RunCounters.__dataclass_fields__
    return RunCounters(**{name: getattr(after, name) - getattr(before, name) for name in names})
