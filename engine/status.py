"""The document of `status --json`: what the daemon is doing, put together from what its parts know. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.bottleneck import verdict
from engine.children import Child
from engine.pace import Pace, media_progress, share_done
from engine.profile import bottleneck_of, counters_of, times_of, usage_of
from engine.report import Peaks
from engine.tally import Tally
from engine.videos import VideoJob
from transport.messages import EngineStats, ModelStats

STAGE_WINDOW_SECONDS = 30.0
MEDIA_WINDOW_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of ours."""

    role: str  # supervisor | engine | consumer | decoder
    name: str  # its role, with a number where there are several
    pid: int | None
    state: str  # starting | ready | waiting: <reason> | ended
    restarts: int = 0


def process_state(child: Child, due_seconds: float | None, restarts: int) -> ProcessState:
    """A child as `status` shows it; due_seconds: of one that died, until its successor is started."""
    if due_seconds is not None:
        state = f"waiting: it died, and is started again in {max(0.0, due_seconds):.0f} s"
    elif not child.is_alive:
        state = "ended"
    else:
        state = "ready" if child.ready else "starting"
    return ProcessState(child.spec.role, child.name, child.process.pid, state, restarts)


@dataclass(frozen=True, slots=True)
class RootState:
    """One watched directory."""

    path: str
    state: str  # watching | polling | waiting: <reason>
    files: int = 0  # media files in it, by the last scan
    settling: int = 0  # … of them, not complete yet
    scanned_seconds_ago: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the supervisor knows at one moment."""

    now_seconds: float  # monotonic, as is started_seconds
    started_seconds: float
    ready: bool  # models are loaded
    draining: bool = False
    waiting: str | None = None  # what the daemon as a whole waits for: "ledger: the database is locked"
    device: str | None = None
    files_waiting: int = 0  # complete files that are not taken yet
    queued_tasks: int = 0  # tasks that no decoder has
    telling: bool = False  # the store has yet to do something: to label speakers, to remove points, …
    jobs: Sequence[VideoJob] = ()  # in work
    processes: Sequence[ProcessState] = ()
    supervisor_rss_bytes: int = 0
    roots: Sequence[RootState] = ()
    ledger: str = "ok"  # or what is wrong with it
    store: str = ""  # URL or path


@dataclass(slots=True)
class History:
    """How counters have grown of late. Feed it with each EngineStats (as Peaks adds them up over restarts)."""

    stages: Pace = field(default_factory=lambda: Pace(STAGE_WINDOW_SECONDS))
    media: Pace = field(default_factory=lambda: Pace(MEDIA_WINDOW_SECONDS))
    work: Pace = field(default_factory=lambda: Pace(MEDIA_WINDOW_SECONDS))

    def see(self, stats: EngineStats, now_seconds: float) -> None:
        """The engine's counters as they stand now."""
        counters = {f"{role} items": float(model.items) for role, model in stats.models.items()}
        counters.update({f"{role} busy": model.busy_seconds for role, model in stats.models.items()})
        self.stages.see(counters, now_seconds)


def document(moment: Moment, peaks: Peaks, tally: Tally, history: History) -> dict[str, Any]:
    """The status at one moment; plain values, ready for JSON. Call it about once a second: it feeds `history`, too."""
    done_seconds, _ = media_progress(moment.jobs, tally.media_seconds)
    history.media.see({"media": done_seconds}, moment.now_seconds)
    history.work.see(counters_of(peaks), moment.now_seconds)
    state, reason = _state(moment, peaks)
    return {
        "state": state,
        "reason": reason,
        "device": moment.device,
        "uptime_seconds": round(moment.now_seconds - moment.started_seconds, 1),
        "queue": {"files": moment.files_waiting, "tasks": moment.queued_tasks, "videos": len(moment.jobs)},
        "videos": [_video(job, moment.now_seconds) for job in moment.jobs],
        "stages": _stages(peaks, history.stages, moment.now_seconds),
        "bottleneck": _bottleneck(moment, peaks, history.work),
        "times": times_of(peaks),
        "memory": _memory(peaks),
        "totals": _totals(moment, peaks, tally, history, done_seconds),
        "failures": list(reversed(tally.failures)),
        "processes": [_process(process, peaks, moment) for process in moment.processes],
        "roots": [_root(root) for root in moment.roots],
        "ledger": moment.ledger,
        "store": {
            "at": moment.store,
            "state": peaks.consumer.state if peaks.consumer else "starting",
            "retries": peaks.consumer.retries if peaks.consumer else 0,
        },
    }


def _state(moment: Moment, peaks: Peaks) -> tuple[str, str | None]:
    """starting | indexing | idle | draining | waiting, and for the last what for."""
    store = peaks.consumer.state if peaks.consumer else ""
    reason = moment.waiting or (f"store: {store.removeprefix('waiting: ')}" if store.startswith("waiting") else None)
    if moment.draining:
        return "draining", reason
    if not moment.ready:
        return "starting", reason
    if reason is not None:
        return "waiting", reason
    return ("indexing" if moment.jobs or moment.files_waiting or moment.telling else "idle"), None


def _video(job: VideoJob, now_seconds: float) -> dict[str, Any]:
    share, elapsed = share_done(job), now_seconds - job.started_seconds
    return {
        "path": job.shown_path,
        "video_id": job.video_id,
        "state": "opening" if job.media is None else "indexing",
        "done": round(share, 4),
        "eta_seconds": round(elapsed * (1 - share) / share, 1) if share > 0 else None,
        "duration_seconds": job.duration_seconds,
        "searchable": job.searchable_seconds is not None,
    }


def _stages(peaks: Peaks, pace: Pace, now_seconds: float) -> dict[str, Any]:
    models: Mapping[str, ModelStats] = peaks.engine.models if peaks.engine is not None else {}
    return {
        role: {
            "items": model.items,
            "items_per_second": round(pace.rate(f"{role} items", now_seconds), 2),
            "busy": round(min(pace.rate(f"{role} busy", now_seconds), 1.0), 4),
            "busy_seconds": round(model.busy_seconds, 3),
            "queued_items": model.queued_items,
            "queued_bytes": model.queued_bytes,
            "batch": model.batch,
            "oom_events": model.oom_events,
            "batch_splits": model.batch_splits,
        }
        for role, model in models.items()
    }


def _bottleneck(moment: Moment, peaks: Peaks, pace: Pace) -> dict[str, Any]:
    """What held the work up in the last minutes."""
    seconds = min(moment.now_seconds - moment.started_seconds, MEDIA_WINDOW_SECONDS)
    usage = usage_of(
        lambda name: pace.rate(name, moment.now_seconds), peaks, seconds=max(seconds, 0.0), device=moment.device
    )
    return bottleneck_of(verdict(usage, peaks.config))


def _memory(peaks: Peaks) -> dict[str, Any]:
    engine, consumer = peaks.engine, peaks.consumer
    return {
        "host_bytes": engine.host_bytes if engine else 0,
        "results_queued_bytes": consumer.queued_bytes if consumer else 0,
        "spool_bytes": consumer.spool_bytes if consumer else 0,
        "device_bytes": engine.device_bytes if engine else 0,
        "peak_device_bytes": peaks.device_bytes,
        "device_budget_bytes": engine.budget_bytes if engine else 0,
        "model_changes": engine.changes if engine else 0,
        "pressure": {name: getattr(engine, name) if engine else 0 for name in ("releases", "halvings", "stops")},
    }


def _totals(moment: Moment, peaks: Peaks, tally: Tally, history: History, done_seconds: float) -> dict[str, Any]:
    models = list(peaks.engine.models.values()) if peaks.engine is not None else []
    uptime_seconds = moment.now_seconds - moment.started_seconds
    restarts: dict[str, int] = {}
    for process in moment.processes:
        restarts[process.role] = restarts.get(process.role, 0) + process.restarts
    return {
        "videos": dict(tally.videos),
        "points": peaks.consumer.points if peaks.consumer else 0,
        "media_seconds": round(tally.media_seconds, 3),
        "media_hours": round(tally.media_seconds / 3600, 3),
        "hours_per_hour": {
            "last_10_minutes": round(history.media.rate("media", moment.now_seconds), 2),
            "since_start": round(done_seconds / uptime_seconds, 2) if uptime_seconds > 0 else 0.0,
        },
        "text_coverage": tally.coverage("text_seconds", "speech_seconds"),
        "voice_coverage": tally.coverage("voice_seconds", "voiced_seconds"),
        "oom_events": sum(model.oom_events for model in models),
        "batch_splits": sum(model.batch_splits for model in models),
        "restarts": restarts,
        "time_to_searchable": tally.searchable.as_dict(),
    }


def _process(process: ProcessState, peaks: Peaks, moment: Moment) -> dict[str, Any]:
    supervisor = process.role == "supervisor"
    return {
        "role": process.role,
        "name": process.name,
        "pid": process.pid,
        "state": process.state,
        "restarts": process.restarts,
        "rss_bytes": moment.supervisor_rss_bytes if supervisor else peaks.latest_rss_bytes.get(process.name),
    }


def _root(root: RootState) -> dict[str, Any]:
    ago = root.scanned_seconds_ago
    return {
        "path": root.path,
        "state": root.state,
        "files": root.files,
        "settling": root.settling,
        "scanned_seconds_ago": round(ago, 1) if ago is not None else None,
    }
