"""The daemon's metrics for Prometheus, on the loopback interface: the last status document, in other words.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` on what only grows.
"""

from collections.abc import Iterable, Iterator
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.bottleneck import STAGES
from engine.errors import StartError

ADDRESS = "127.0.0.1"
STATES = ("starting", "indexing", "idle", "draining", "waiting")
Rows = Iterable[tuple[tuple[str, ...], float]]  # values of the labels, and the metric's value


class Metrics(Collector):
    """Serves what `update` was told last, between `start` and `stop`. Port 0: serves nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._document: dict[str, Any] | None = None
        self._serving: tuple[WSGIServer, Thread] | None = None

    def start(self) -> None:
        """Raises StartError when the port cannot be had."""
        if self._port == 0:
            return
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._serving = start_http_server(self._port, ADDRESS, registry)
        except OSError as error:
            raise StartError(
                "metrics-port",
                f"metrics on {ADDRESS}:{self._port}: {error.strerror}; set daemon.metrics_port (0: none)",
            ) from error

    def update(self, document: dict[str, Any]) -> None:
        """From now on this document is served. It must not be changed any more: other threads read it."""
        self._document = document

    def collect(self) -> Iterator[Metric]:
        """Called by the server's threads for each request."""
        document = self._document
        if document is not None:
            yield from families(document)

    def stop(self) -> None:
        """Stop serving and give the port back. Stopping twice is harmless."""
        if self._serving is None:
            return
        server, thread = self._serving
        self._serving = None
        server.shutdown()
        server.server_close()
        thread.join()


def families(document: dict[str, Any]) -> Iterator[Metric]:
    """Every metric of a status document."""
    yield from _work(document)
    yield from _models(document["stages"])
    yield from _times(document)
    yield from _memory(document["memory"])
    yield from _processes(document)
    yield from _outside(document)


def _work(document: dict[str, Any]) -> Iterator[Metric]:
    totals, queue = document["totals"], document["queue"]
    states = [((state,), float(state == document["state"])) for state in STATES]
    yield _gauge("state", "What the daemon is doing: 1 for the present state", states, "state")
    yield _gauge("uptime_seconds", "Since the start of the daemon", document["uptime_seconds"])
    yield _gauge("queued_files", "Complete files that are not taken yet", queue["files"])
    yield _gauge("queued_tasks", "Tasks that no decoder has", queue["tasks"])
    yield _gauge("videos_in_work", "Videos that are taken and not finished", queue["videos"])
    videos = [((status,), count) for status, count in totals["videos"].items()]
    yield _counter("videos", "Videos finished", videos, "status")
    yield _counter("points", "Points written to the store", totals["points"])
    yield _counter("media_seconds", "Length of the videos indexed, wholly or in part", totals["media_seconds"])
    speed = totals["hours_per_hour"]["last_10_minutes"]
    yield _gauge("media_speed_ratio", "Hours of media done in an hour, over the last ten minutes", speed)
    kinds = [((kind,), totals[f"{kind}_coverage"]) for kind in ("text", "voice")]
    known = [(labels, share) for labels, share in kinds if share is not None]
    yield _gauge("coverage_ratio", "Share of the detected speech that has vectors", known, "kind")
    yield _searchable(totals["time_to_searchable"])


def _searchable(times: dict[str, Any]) -> Metric:
    bounds = [(_bound(each["at_most_seconds"]), float(each["videos"])) for each in times["buckets"]]
    what = "From a complete file to its first searchable point"
    return HistogramMetricFamily("sluice_first_searchable_seconds", what, bounds, times["sum_seconds"])


def _bound(seconds: float | None) -> str:
    return "+Inf" if seconds is None else f"{seconds:g}"


def _models(stages: dict[str, Any]) -> Iterator[Metric]:
    def of(key: str) -> Rows:
        return [((role,), stage[key]) for role, stage in stages.items()]

    yield _counter("items", "Items that a model has run", of("items"), "model")
    yield _counter("busy_seconds", "Time that a model ran", of("busy_seconds"), "model")
    yield _gauge("queued_items", "Items that wait for a model", of("queued_items"), "model")
    yield _gauge("queued_bytes", "Host memory of the items that wait for a model", of("queued_bytes"), "model")
    yield _gauge("batch_items", "Items of a full batch, as found so far", of("batch"), "model")
    yield _counter("oom_events", "Batches that met the end of the device's memory", of("oom_events"), "model")
    yield _counter("batch_splits", "Batches that were halved and run again", of("batch_splits"), "model")


def _times(document: dict[str, Any]) -> Iterator[Metric]:
    times = document["times"]

    def of(role: str) -> Rows:
        return [((state,), seconds) for state, seconds in times[role].items()]

    yield _counter("decoder_seconds", "What the time of the decoders went into, all together", of("decoder"), "state")
    yield _counter("engine_seconds", "Time of the engine in which no model ran, by why", of("engine"), "state")
    yield _counter("consumer_seconds", "Time of the consumer in which it worked", of("consumer"), "state")
    yield _counter("cpu_seconds", "Processor time of our processes, those that are gone included", of("cpu"), "role")
    stages = [((stage,), float(stage == document["bottleneck"]["stage"])) for stage in STAGES]
    yield _gauge("bottleneck", "1 for the stage that held the work up in the last ten minutes", stages, "stage")


def _memory(memory: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("host_bytes", "Items in the engine's host memory", memory["host_bytes"])
    yield _gauge("results_queued_bytes", "Vectors on their way into the store", memory["results_queued_bytes"])
    yield _gauge("spool_bytes", "Kept on disk while the store is away", memory["spool_bytes"])
    yield _gauge("device_bytes", "Device memory held", memory["device_bytes"])
    yield _gauge("device_peak_bytes", "Device memory held at most", memory["peak_device_bytes"])
    yield _gauge("device_budget_bytes", "Device memory that may be held", memory["device_budget_bytes"])
    yield _counter("model_changes", "Models that came onto the device in turn", memory["model_changes"])
    tiers = [((tier,), count) for tier, count in memory["pressure"].items()]
    yield _counter("pressure", "How often pressure of device memory was acted on", tiers, "tier")


def _processes(document: dict[str, Any]) -> Iterator[Metric]:
    restarts = [((role,), count) for role, count in document["totals"]["restarts"].items()]
    yield _counter("restarts", "Processes that were started again", restarts, "role")
    sizes = [
        ((each["role"], each["name"]), each["rss_bytes"])
        for each in document["processes"]
        if each["rss_bytes"] is not None
    ]
    yield _gauge("resident_bytes", "Resident memory of a process", sizes, "role", "process")


def _outside(document: dict[str, Any]) -> Iterator[Metric]:
    """What the daemon depends on."""
    store = document["store"]
    yield _counter("store_retries", "Requests to the store that were tried again", store["retries"])
    yield _gauge("store_waiting", "1 while the store is away", float(store["state"].startswith("waiting")))
    yield _gauge("ledger_waiting", "1 while the ledger cannot be written", float(document["ledger"] != "ok"))
    roots = document["roots"]
    waiting = [((root["path"],), float(root["state"].startswith("waiting"))) for root in roots]
    yield _gauge("root_waiting", "1 while a watched directory is away", waiting, "root")
    yield _gauge(
        "root_files", "Media files in a watched directory", [((r["path"],), r["files"]) for r in roots], "root"
    )


def _gauge(name: str, what: str, rows: Rows | float, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"sluice_{name}", what, labels=labels), rows)


def _counter(name: str, what: str, rows: Rows | float, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"sluice_{name}", what, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows | float) -> Metric:
    for values, value in [((), rows)] if isinstance(rows, int | float) else rows:
        family.add_metric(list(values), value)
    return family
