"""The metrics, as Prometheus would read them: over HTTP."""

import re
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import StartError
from engine.metrics import Metrics, families
from engine.report import Peaks
from engine.status import History, Moment, ProcessState, RootState, document
from engine.tally import Tally
from engine.videos import VideoError, VideoJob
from transport.messages import ConsumerStats, DecoderStats, EngineStats, MediaInfo, ModelStats

MEDIA = MediaInfo(container="mp4", duration_seconds=100.0, start_seconds=0.0, video=None, audio=None)


def full_document(store: str = "writing") -> dict[str, Any]:
    """Of a daemon that has seen everything once."""
    peaks, tally, history = Peaks(), Tally(), History()
    model = ModelStats(
        items=5, batches=1, busy_seconds=2.5, queued_items=3, oom_events=2, batch_splits=1, batch=16, queued_bytes=900
    )
    peaks.see(
        EngineStats(
            models={"image": model, "text": model}, host_bytes=5_000_000, busy_seconds=2.0, uptime_seconds=4.0,
            peak_device_bytes=7, peak_rss_bytes=100, budget_bytes=10, releases=1, changes=4, device_bytes=6,
            rss_bytes=90, waiting_seconds=1.5,
        )
    )  # fmt: skip
    consumer = ConsumerStats(points=50, queued_bytes=8, retries=1, state=store, peak_rss_bytes=20, spool_bytes=11)
    peaks.see(msgspec.structs.replace(consumer, uptime_seconds=2.0, writing_seconds=0.5))
    gone = DecoderStats(index=1, peak_rss_bytes=0, generation=3, credit_seconds=3.5, cpu_seconds=6.5)
    peaks.past_decoders = gone  # its successor has not said anything
    done = VideoJob(b"a", "a.mp4", 0.0, media=MEDIA, status="indexed", searchable_seconds=4.0)
    done.sums = Counter(speech_seconds=8, text_seconds=6)
    tally.add(done)
    tally.add(VideoJob(b"b", "b.mp4", 0.0, status="failed", error=VideoError("not-media", "no")))
    moment = Moment(
        now_seconds=110.0,
        started_seconds=10.0,
        ready=True,
        files_waiting=7,
        processes=[
            ProcessState("engine", "engine", 2, "ready", 1),
            ProcessState("decoder", "decoder 0", 3, "starting"),
        ],
        roots=[RootState('/films "new"\n', "watching", files=9), RootState("/nas", "waiting: not there")],
    )
    return document(moment, peaks, tally, history)


@pytest.fixture
def port() -> int:
    """One that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def metrics(port: int) -> Iterator[Metrics]:
    made = Metrics(port)
    made.start()
    yield made
    made.stop()


def scraped(port: int) -> dict[str, float]:
    """Every sample by its name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def test_the_last_document_is_served(metrics: Metrics, port: int) -> None:
    assert scraped(port) == {}
    metrics.update(full_document())
    samples = scraped(port)
    assert samples["sluice_state{state=indexing}"] == 1.0
    assert samples["sluice_state{state=idle}"] == 0.0
    assert samples["sluice_uptime_seconds"] == 100.0
    assert samples["sluice_queued_files"] == 7.0
    assert samples["sluice_videos_total{status=indexed}"] == 1.0
    assert samples["sluice_videos_total{status=failed}"] == 1.0
    assert samples["sluice_points_total"] == 50.0
    assert samples["sluice_media_seconds_total"] == 100.0
    assert samples["sluice_coverage_ratio{kind=text}"] == 0.75
    assert "sluice_coverage_ratio{kind=voice}" not in samples, "nobody has spoken long enough: that is no number"
    assert samples["sluice_items_total{model=image}"] == 5.0
    assert samples["sluice_busy_seconds_total{model=text}"] == 2.5
    assert samples["sluice_batch_items{model=image}"] == 16.0
    assert samples["sluice_decoder_seconds_total{state=credit}"] == 3.5
    assert samples["sluice_engine_seconds_total{state=waiting}"] == 1.5
    assert samples["sluice_consumer_seconds_total{state=writing}"] == 0.5
    assert samples["sluice_cpu_seconds_total{role=decoder}"] == 6.5
    assert samples["sluice_bottleneck{stage=none}"] == 1.0, "nothing has grown yet"
    assert samples["sluice_bottleneck{stage=decoders}"] == 0.0
    assert samples["sluice_device_budget_bytes"] == 10.0
    assert samples["sluice_pressure_total{tier=releases}"] == 1.0
    assert samples["sluice_restarts_total{role=engine}"] == 1.0
    assert samples["sluice_resident_bytes{process=engine,role=engine}"] == 90.0
    assert "sluice_resident_bytes{process=decoder 0,role=decoder}" not in samples, "it has not said its size yet"
    assert samples['sluice_root_files{root=/films "new"\n}'] == 9.0
    assert samples["sluice_root_waiting{root=/nas}"] == 1.0
    metrics.update(full_document("waiting: 503"))
    assert samples["sluice_store_waiting"] == 0.0
    assert scraped(port)["sluice_store_waiting"] == 1.0


def test_the_time_to_searchable_is_a_histogram(metrics: Metrics, port: int) -> None:
    metrics.update(full_document())
    samples = scraped(port)
    assert samples["sluice_first_searchable_seconds_bucket{le=2.5}"] == 0.0
    assert samples["sluice_first_searchable_seconds_bucket{le=5}"] == 1.0
    assert samples["sluice_first_searchable_seconds_bucket{le=+Inf}"] == 1.0
    assert samples["sluice_first_searchable_seconds_count"] == 1.0
    assert samples["sluice_first_searchable_seconds_sum"] == 4.0


def test_names_follow_the_conventions() -> None:
    found = list(families(full_document()))
    names = [family.name for family in found]
    assert len(set(names)) == len(names)
    for family in found:
        assert re.fullmatch(r"sluice_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation
        assert not re.search(r"_(ms|mb|hours|percent|count)$", family.name), "base units"
        assert (family.type == "counter") == any(sample.name.endswith("_total") for sample in family.samples)


def test_a_port_that_is_taken_is_named_with_its_setting(metrics: Metrics, port: int) -> None:
    with pytest.raises(StartError, match=r"daemon\.metrics_port") as caught:
        Metrics(port).start()
    assert (caught.value.code, str(port) in caught.value.message) == ("metrics-port", True)


def test_stopping_gives_the_port_back_and_ends_the_thread(port: int) -> None:
    before = threading.active_count()
    for _ in range(2):
        metrics = Metrics(port)
        metrics.start()
        metrics.update(full_document())
        assert scraped(port)
        metrics.stop()
        metrics.stop()
    assert threading.active_count() == before


def test_port_0_serves_nothing() -> None:
    before = threading.active_count()
    metrics = Metrics(0)
    metrics.start()
    metrics.update(full_document())
    assert threading.active_count() == before
    metrics.stop()


def test_only_this_machine_is_served(metrics: Metrics, port: int) -> None:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    listening = [row[1] for row in rows if row[3] == "0A"]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
