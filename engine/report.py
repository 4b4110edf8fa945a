"""The report of a run: one row a video, and totals. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import msgspec

from engine.config import Config
from engine.videos import VideoJob
from transport.messages import ConsumerStats, DecoderStats, EngineStats, Gap, ModelStats

COLLECTION_COUNTS = (("frames", "frames"), ("speech", "speech_segments"), ("voices", "voice_segments"))


# What becomes of each field of EngineStats and ModelStats when one engine takes the place of another.
ADDED = {
    "items", "batches", "busy_seconds", "uptime_seconds", "oom_events", "batch_splits", "alone", "releases", "halvings",
    "stops", "changes", "change_seconds", "waiting_seconds", "blocked_seconds", "cpu_seconds", "host_byte_seconds",
    "queued_item_seconds",
}  # fmt: skip  # counters since its start
LARGEST = {"peak_device_bytes", "peak_rss_bytes"}
LATEST = {"queued_items", "queued_bytes", "host_bytes", "batch", "budget_bytes", "device_bytes", "rss_bytes"}


def added(past: EngineStats, present: EngineStats) -> EngineStats:
    """The statistics of several engines, one after the other, as if they were one."""
    models = {
        role: _combined(past.models[role], model) if role in past.models else model
        for role, model in present.models.items()
    }
    return _combined(past, msgspec.structs.replace(present, models={**past.models, **models}))


ADDED_OF_CONSUMERS = (
    "points", "retries", "uptime_seconds", "writing_seconds", "labelling_seconds", "cpu_seconds", "queued_byte_seconds",
)  # fmt: skip
ADDED_OF_DECODERS = ("items", "decode_seconds", "credit_seconds", "idle_seconds", "cpu_seconds")


def following(past: ConsumerStats, present: ConsumerStats) -> ConsumerStats:
    """The statistics of several consumers, one after the other, as if they were one."""
    whole = msgspec.structs.replace(present, **_sums(past, present, ADDED_OF_CONSUMERS))
    return msgspec.structs.replace(whole, peak_rss_bytes=max(past.peak_rss_bytes, present.peak_rss_bytes))


def _sums(one: object, other: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(one, name) + getattr(other, name) for name in names}


StatsT = TypeVar("StatsT", EngineStats, ModelStats)


def _combined(past: StatsT, present: StatsT) -> StatsT:
    values: dict[str, Any] = {}
    for name in present.__struct_fields__:
        if name in ADDED:
            values[name] = getattr(past, name) + getattr(present, name)
        elif name in LARGEST:
            values[name] = max(getattr(past, name), getattr(present, name))
    return msgspec.structs.replace(present, **values)


NO_DECODER = DecoderStats(index=-1, peak_rss_bytes=0)


@dataclass(slots=True)
class Peaks:
    """What the processes reported of themselves, the largest so far; counters of all engines together."""

    rss_bytes: dict[str, int] = field(
        default_factory=lambda: {"supervisor": 0, "decoder": 0, "engine": 0, "consumer": 0}
    )
    device_bytes: int = 0
    engine: EngineStats | None = None  # the latest, with what its predecessors had counted
    consumer: ConsumerStats | None = None  # the latest, with what its predecessors had counted
    engine_restarts: int = 0
    past_engines: EngineStats | None = None
    past_consumers: ConsumerStats | None = None
    latest_rss_bytes: dict[str, int] = field(default_factory=dict)  # by name of the child: "engine", "decoder 0", …
    decoders: dict[int, DecoderStats] = field(default_factory=dict)  # the latest of each, by index
    past_decoders: DecoderStats = NO_DECODER  # of those that are gone, added up
    supervisor_cpu_seconds: float = 0.0
    core_seconds: float = 0.0  # in which the cores of the machine were busy, with whatever
    config: Config = field(default_factory=Config)  # what they were told

    @property
    def decoder(self) -> DecoderStats:
        """The counters of all decoders, those that are gone included."""
        whole = self.past_decoders
        for stats in self.decoders.values():
            whole = msgspec.structs.replace(whole, **_sums(whole, stats, ADDED_OF_DECODERS))
        return whole

    def see(self, stats: EngineStats | ConsumerStats | DecoderStats) -> None:
        """Take one message of statistics."""
        match stats:
            case EngineStats():
                self.engine = stats if self.past_engines is None else added(self.past_engines, stats)
                self.device_bytes = max(self.device_bytes, stats.peak_device_bytes)
                self._resident("engine", "engine", stats)
            case ConsumerStats():
                self.consumer = stats if self.past_consumers is None else following(self.past_consumers, stats)
                self._resident("consumer", "consumer", stats)
            case DecoderStats(index=index):
                before = self.decoders.get(index, stats)
                if before.generation != stats.generation:
                    sums = _sums(self.past_decoders, before, ADDED_OF_DECODERS)
                    self.past_decoders = msgspec.structs.replace(self.past_decoders, **sums)
                self.decoders[index] = stats
                self._resident("decoder", f"decoder {index}", stats)

    def engine_restarted(self) -> None:
        """What comes from now on is of another engine, which counts from zero."""
        self.engine_restarts += 1
        self.past_engines = self.engine

    def consumer_restarted(self) -> None:
        """The same, for the consumer."""
        self.past_consumers = self.consumer

    def _resident(self, role: str, name: str, stats: EngineStats | ConsumerStats | DecoderStats) -> None:
        self.rss_bytes[role] = max(self.rss_bytes[role], stats.peak_rss_bytes)
        self.latest_rss_bytes[name] = stats.rss_bytes


def video_row(job: VideoJob) -> dict[str, Any]:
    """A video's row, as it stands under "videos" in the report."""
    if job.known is not None:
        return unchanged_row(job.known, job.shown_path)
    duration = job.duration_seconds
    wall = round(max(job.finished_seconds - job.started_seconds, 0.0), 3)
    row: dict[str, Any] = {
        "path": job.shown_path,
        "video_id": job.video_id,
        "status": job.status,
        "error": {"code": job.error.code, "message": job.error.message} if job.error else None,
        "duration_seconds": duration,
        "wall_seconds": wall,
        "rtf": round(wall / duration, 4) if duration else None,
    }
    row.update({name: job.points[collection] for collection, name in COLLECTION_COUNTS})
    row["points"] = sum(job.points.values())
    row["text_coverage"] = _coverage(job, "text_seconds", "speech_seconds")
    row["voice_coverage"] = _coverage(job, "voice_seconds", "voiced_seconds")
    row["speech_seconds"] = round(job.sums["speech_seconds"], 3) if job.heard else None
    row["languages"] = {language: round(seconds, 3) for language, seconds in job.languages.most_common()}
    row["gaps"] = [msgspec.to_builtins(gap) for gap in joined(job.gaps)]
    row["failures"] = [msgspec.to_builtins(failure) for failure in job.failures]
    row["notes"] = list(job.notes)
    row["first_searchable_seconds"] = _rounded(job.searchable_seconds)
    row["oom_events"] = int(job.sums["oom_events"])
    row["batch_splits"] = int(job.sums["batch_splits"])
    return row


def unchanged_row(known: dict[str, Any], shown_path: str) -> dict[str, Any]:
    """The row of a file whose content is indexed already: what was said of it then."""
    now = {
        "path": shown_path,
        "status": "unchanged",
        "wall_seconds": 0.0,
        "rtf": None,
        "first_searchable_seconds": None,
    }
    return {**known, **now}


def _rounded(seconds: float | None) -> float | None:
    return round(seconds, 3) if seconds is not None else None


def joined(gaps: Sequence[Gap]) -> list[Gap]:
    """In order of time; what the spans of a video each tell, is one gap where they meet for the same reason."""
    whole: list[Gap] = []
    by_reason: dict[str, int] = {}  # place in `whole` of the latest gap with this reason
    for gap in sorted(gaps, key=lambda gap: gap.start_seconds):
        place = by_reason.get(gap.reason)
        if place is not None and gap.start_seconds <= whole[place].end_seconds:
            end_seconds = max(whole[place].end_seconds, gap.end_seconds)
            whole[place] = msgspec.structs.replace(whole[place], end_seconds=end_seconds)
        else:
            by_reason[gap.reason] = len(whole)
            whole.append(gap)
    return whole


def _coverage(job: VideoJob, part: str, whole: str) -> float | None:
    """Share of the speech that got vectors; 1.0 when there was none to get any; None when nobody listened."""
    if not job.heard:
        return None
    return round(min(job.sums[part] / job.sums[whole], 1.0), 4) if job.sums[whole] else 1.0


def totals(rows: Sequence[dict[str, Any]], wall_seconds: float, peaks: Peaks) -> dict[str, Any]:
    """The sums over all rows, and the peaks of the processes."""
    worked = [row for row in rows if row["status"] in ("indexed", "partial")]
    media_seconds = sum(row["duration_seconds"] or 0.0 for row in worked)
    waits = [row["first_searchable_seconds"] for row in worked if row["first_searchable_seconds"] is not None]
    engine = peaks.engine
    return {
        "videos": len(rows),
        "indexed": sum(row["status"] == "indexed" for row in rows),
        "partial": sum(row["status"] == "partial" for row in rows),
        "unchanged": sum(row["status"] == "unchanged" for row in rows),
        "failed": sum(row["status"] == "failed" for row in rows),
        "points": sum(row["points"] for row in worked),
        "media_seconds": round(media_seconds, 3),
        "hours_per_hour": round(media_seconds / wall_seconds, 2) if wall_seconds else 0.0,
        "rtf": round(wall_seconds / media_seconds, 4) if media_seconds else None,
        "wall_seconds": round(wall_seconds, 3),
        "first_searchable_seconds": {"median": _rounded(median(waits)), "max": max(waits)} if waits else None,
        "oom_events": sum(model.oom_events for model in engine.models.values()) if engine else 0,
        "engine_restarts": peaks.engine_restarts,
        "peak_rss_bytes": dict(peaks.rss_bytes),
        "peak_device_bytes": peaks.device_bytes,
        "device_budget_bytes": engine.budget_bytes if engine else 0,
        "pressure": {name: getattr(engine, name) if engine else 0 for name in ("releases", "halvings", "stops")},
        "model_changes": engine.changes if engine else 0,
        "model_change_seconds": round(engine.change_seconds, 3) if engine else 0.0,
        "device_busy_fraction": round(engine.busy_seconds / engine.uptime_seconds, 4) if engine else 0.0,
    }


def failed_row(path: str, code: str, message: str) -> dict[str, Any]:
    """The row of a path that never became work."""
    job = VideoJob(b"", path, 0.0)
    row = video_row(job)
    row.update(status="failed", error={"code": code, "message": message})
    return row
