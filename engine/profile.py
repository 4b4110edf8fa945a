"""How busy every stage was, and what it could do at most: counters of the processes, as rates, as a table.

    counters of Peaks ─► growth over some time ─► Usage ─► Verdict (engine/bottleneck.py)

`ingest --profile` looks at the whole run from the moment on when the models are loaded, `status` at the last minutes.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.bottleneck import ModelUse, Usage, Verdict, verdict
from engine.records import Observer
from engine.report import Peaks
from engine.tasks import Board
from stages.control_groups import PROC
from transport.messages import ConsumerStats, EngineStats

LOOK_SECONDS = 1.0
IDLE_FIELDS = (3, 4)  # of a line of /proc/stat: idle, and waiting for a disk
COUNTED_FIELDS = 8  # user to steal; what guests get is in user already

NO_ENGINE = EngineStats(
    models={}, host_bytes=0, busy_seconds=0.0, uptime_seconds=0.0, peak_device_bytes=0, peak_rss_bytes=0
)
NO_CONSUMER = ConsumerStats(points=0, queued_bytes=0, retries=0, state="starting", peak_rss_bytes=0)

Rate = Callable[[str], float]  # growth of a counter in a second


def counters_of(peaks: Peaks) -> dict[str, float]:
    """Everything that only grows, in seconds, core seconds, byte seconds, or numbers of items."""
    decoder, engine, consumer = peaks.decoder, peaks.engine or NO_ENGINE, peaks.consumer or NO_CONSUMER
    counters = {
        "decoder items": float(decoder.items),
        "decoder decode": decoder.decode_seconds,
        "decoder credit": decoder.credit_seconds,
        "decoder idle": decoder.idle_seconds,
        "engine up": engine.uptime_seconds,
        "engine waiting": engine.waiting_seconds,
        "engine blocked": engine.blocked_seconds,
        "engine changes": engine.change_seconds,
        "engine bytes": engine.host_byte_seconds,
        "consumer up": consumer.uptime_seconds,
        "consumer writing": consumer.writing_seconds,
        "consumer bytes": consumer.queued_byte_seconds,
        "points": float(consumer.points),
        "machine cpu": peaks.core_seconds,
    }
    counters.update({f"{role} cpu": seconds for role, seconds in times_of(peaks)["cpu"].items()})
    for role, model in engine.models.items():
        counters[f"{role} items"] = float(model.items)
        counters[f"{role} busy"] = model.busy_seconds
        counters[f"{role} queued"] = model.queued_item_seconds
    return counters


def usage_of(
    rate: Rate,
    peaks: Peaks,
    *,
    seconds: float,
    device: str | None,
    start_seconds: float = 0.0,
    decoded_at_start: int = 0,
) -> Usage:
    """What the stages did while their counters grew at these rates. seconds: how long that was."""
    config = peaks.config
    of_decoders = [rate(f"decoder {state}") for state in ("decode", "credit", "idle")]
    decode, credit, idle = (_part(each, sum(of_decoders)) for each in of_decoders)
    engine_up, consumer_up = rate("engine up"), rate("consumer up")
    roles, state = (peaks.engine or NO_ENGINE).models, (peaks.consumer or NO_CONSUMER).state
    return Usage(
        seconds=seconds,
        start_seconds=start_seconds,
        decoded_at_start=decoded_at_start,
        decode=decode,
        credit=credit,
        idle=idle,
        decoders=config.decoder_processes,
        decoded_per_second=rate("decoder items"),
        models=tuple(_model(role, rate, engine_up) for role in roles),
        waiting=_part(rate("engine waiting"), engine_up) if engine_up else 1.0,  # none is there
        blocked=_part(rate("engine blocked"), engine_up),
        changing=_part(rate("engine changes"), engine_up),
        host_fill=_part(rate("engine bytes"), engine_up * config.engine.host_mb * 2**20),
        results_fill=_part(rate("consumer bytes"), consumer_up * config.engine.results_mb * 2**20),
        writing=_part(rate("consumer writing"), consumer_up),
        points_per_second=rate("points"),
        store_away=state.removeprefix("waiting: ") if state.startswith("waiting: ") else "",
        cores=core_count(),
        cores_used={role: rate(f"{role} cpu") for role in ("decoder", "engine", "consumer", "supervisor")},
        cores_busy=rate("machine cpu"),
        device=device or "cpu",
    )


def _model(role: str, rate: Rate, engine_up: float) -> ModelUse:
    busy, queued = _part(rate(f"{role} busy"), engine_up), rate(f"{role} queued")
    return ModelUse(role, busy, rate(f"{role} items"), queued / engine_up if engine_up else 0.0)


def _part(some: float, whole: float) -> float:
    return min(some / whole, 1.0) if whole > 0 else 0.0


def times_of(peaks: Peaks) -> dict[str, dict[str, float]]:
    """What the time of every stage went into since the start, in seconds; and of the processor's, by role."""
    decoder, engine, consumer = peaks.decoder, peaks.engine or NO_ENGINE, peaks.consumer or NO_CONSUMER
    return {
        "decoder": {state: getattr(decoder, f"{state}_seconds") for state in ("decode", "credit", "idle")},
        "engine": {state: getattr(engine, f"{state}_seconds") for state in ("waiting", "blocked", "change")},
        "consumer": {state: getattr(consumer, f"{state}_seconds") for state in ("writing", "labelling")},
        "cpu": {
            "decoder": decoder.cpu_seconds,
            "engine": engine.cpu_seconds,
            "consumer": consumer.cpu_seconds,
            "supervisor": peaks.supervisor_cpu_seconds,
        },
    }


# --- as plain values, and as text -------------------------------------------------------------------------------------


def table_of(usage: Usage) -> list[dict[str, Any]]:
    """A row a stage. rate: of wall time; limit: what it would do if it worked all the time; share: how much it did."""
    items = sum(model.items_per_second for model in usage.models)
    rows = [
        _row("decoders", "items/s", usage.decoded_per_second, usage.decode),
        _row("engine", "items/s", items, usage.engine, queue_fill=round(usage.host_fill, 4)),
    ]
    for model in usage.models:
        queued = round(model.queued_items, 1)
        rows.append(_row(model.role, "items/s", model.items_per_second, model.busy, queued_items=queued))
    rows.append(
        _row("store", "points/s", usage.points_per_second, usage.writing, queue_fill=round(usage.results_fill, 4))
    )
    rows.append(_row("processor", "cores", usage.processor * usage.cores, usage.processor))
    return rows


def _row(stage: str, unit: str, rate: float, share: float, **queue: float) -> dict[str, Any]:
    limit = round(rate / share, 3) if share else None
    return {"stage": stage, "unit": unit, "rate": round(rate, 3), "limit": limit, "share": round(share, 4), **queue}


def bottleneck_of(found: Verdict) -> dict[str, Any]:
    """The verdict as plain values."""
    return {
        "stage": found.stage,
        "share": round(found.share, 4),
        "sentence": found.sentence,
        "settings": list(found.settings),
    }


def profile_of(usage: Usage, found: Verdict) -> dict[str, Any]:
    """Under "profile" in the report."""
    return {
        "seconds": round(usage.seconds, 3),
        "start_seconds": round(usage.start_seconds, 3),
        "decoded_at_start": usage.decoded_at_start,
        "bottleneck": bottleneck_of(found),
        "stages": table_of(usage),
        "decoders": {name: round(getattr(usage, name), 4) for name in ("decode", "credit", "idle")},
        "engine": {name: round(getattr(usage, name), 4) for name in ("running", "changing", "waiting", "blocked")},
        "cores_used": {role: round(cores, 3) for role, cores in usage.cores_used.items()},
    }


def lines_of(profile: dict[str, Any]) -> Iterator[str]:
    """The profile for people."""
    begun = f", in which {count} items were decoded already" if (count := profile["decoded_at_start"]) else ""
    yield f"profile of {profile['seconds']:.1f} s, after a start of {profile['start_seconds']:.1f} s{begun}"
    yield f"{'stage':10} {'rate':>17} {'limit':>17} {'share':>6}  queue"
    for row in profile["stages"]:
        limit = "-" if row["limit"] is None else f"{row['limit']:,.1f} {row['unit']}"
        rate = f"{row['rate']:,.1f} {row['unit']}"
        yield f"{row['stage']:10} {rate:>17} {limit:>17} {_percent(row['share']):>6}  {_queue(row)}".rstrip()
    parts = ", ".join(f"{_percent(share)} {_WORDS[name]}" for name, share in profile["decoders"].items())
    yield f"decoders: {parts}"
    parts = ", ".join(f"{_percent(share)} {_WORDS[name]}" for name, share in profile["engine"].items())
    yield f"engine: {parts}"
    yield profile["bottleneck"]["sentence"]
    if settings := profile["bottleneck"]["settings"]:
        yield f"Turn next: {'; or '.join(settings)}."


_WORDS = {
    "decode": "decoding", "credit": "waiting for credit", "idle": "without a task", "running": "models run",
    "changing": "models change", "waiting": "waiting for items", "blocked": "waiting for room for results",
}  # fmt: skip


def _queue(row: dict[str, Any]) -> str:
    if "queued_items" in row:
        return f"{row['queued_items']:,.1f} items"
    return f"{_percent(row['queue_fill'])} full" if "queue_fill" in row else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# --- who looks on -----------------------------------------------------------------------------------------------------


class Onlooker:
    """An observer that looks on, and tells another one everything."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def phase(self, text: str) -> None:
        """What the run as a whole is doing."""
        self._observer.phase(text)

    def note(self, text: str) -> None:
        """Something that whoever started the run should know."""
        self._observer.note(text)

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""
        self._observer.finished(row)

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        self._observer.tick(board, peaks, rows)


class Profile(Onlooker):
    """An observer that notes what the counters stood at when the models were loaded."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(observer)
        self._clock = clock
        self._started_seconds = clock()
        self._from: tuple[float, dict[str, float]] | None = None

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        if peaks.engine is not None and self._from is None:
            self._from = (self._clock(), counters_of(peaks))
        super().tick(board, peaks, rows)

    def report(self, peaks: Peaks, device: str | None) -> dict[str, Any]:
        """The profile of the run that ends now; device: that the models ran on."""
        now = self._clock()
        since, before = self._from or (now, {})
        after, seconds = counters_of(peaks), now - since

        def rate(name: str) -> float:
            return max(after.get(name, 0.0) - before.get(name, 0.0), 0.0) / seconds if seconds > 0 else 0.0

        start_seconds = since - self._started_seconds
        decoded = round(before.get("decoder items", 0.0))
        usage = usage_of(
            rate, peaks, seconds=seconds, device=device, start_seconds=start_seconds, decoded_at_start=decoded
        )
        return profile_of(usage, verdict(usage, peaks.config))


# --- the machine ------------------------------------------------------------------------------------------------------


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def core_seconds(proc: Path = PROC) -> float:
    """How long the cores that we may use have been busy since the machine started, with whatever (proc_stat(5))."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in (proc / "stat").read_text("ascii").splitlines():
        name, *fields = line.split()
        if name in ours:
            counted = [int(field) for field in fields[:COUNTED_FIELDS]]
            ticks += sum(counted) - sum(counted[place] for place in IDLE_FIELDS)
    return ticks / os.sysconf("SC_CLK_TCK")


class MachineWatch(Onlooker):
    """Looks, once a second, at what the supervisor and the whole machine have used of the processor."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(observer)
        self._clock = clock
        self._looked_seconds = float("-inf")

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        if self._clock() - self._looked_seconds >= LOOK_SECONDS:
            self._looked_seconds = self._clock()
            peaks.supervisor_cpu_seconds = time.process_time()
            peaks.core_seconds = core_seconds()
        super().tick(board, peaks, rows)
