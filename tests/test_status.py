"""The status document, and how it is shown."""

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import load_config
from engine.pace import Pace
from engine.report import Peaks
from engine.status import History, Moment, ProcessState, RootState, document
from engine.tally import FAILURES, SEARCHABLE_BUCKETS, TIMES, Searchable, Tally
from engine.videos import VideoError, VideoJob
from transport.messages import ConsumerStats, DecoderStats, EngineStats, MediaInfo, ModelStats

MEDIA = MediaInfo(container="mp4", duration_seconds=100.0, start_seconds=0.0, video=None, audio=None)


def job(**facts: Any) -> VideoJob:
    made = VideoJob(b"a.mp4", "a.mp4", 10.0, media=MEDIA, total_seconds=200.0)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def engine_stats(items: int = 5, busy_seconds: float = 2.0) -> EngineStats:
    model = ModelStats(
        items=items, batches=1, busy_seconds=busy_seconds, queued_items=3, oom_events=2, batch_splits=1, batch=16,
        queued_bytes=900,
    )  # fmt: skip
    return EngineStats(
        models={"image": model}, host_bytes=5_000_000, busy_seconds=2.0, uptime_seconds=4.0, peak_device_bytes=7,
        peak_rss_bytes=100, budget_bytes=10, releases=1, halvings=2, stops=3, changes=4, device_bytes=6, rss_bytes=90,
    )  # fmt: skip


def consumer_stats(state: str = "writing") -> ConsumerStats:
    return ConsumerStats(
        points=50, queued_bytes=8, retries=1, state=state, peak_rss_bytes=20, spool_bytes=11, rss_bytes=19
    )


def moment(**facts: Any) -> Moment:
    return Moment(**{"now_seconds": 110.0, "started_seconds": 10.0, "ready": True, **facts})


def document_of(at: Moment, peaks: Peaks | None = None, tally: Tally | None = None) -> dict[str, Any]:
    return document(at, peaks or Peaks(), tally or Tally(), History())


# --- the state in a word --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "store", "state", "reason"),
    [
        ({"ready": False}, None, "starting", None),
        ({}, "writing", "idle", None),
        ({"files_waiting": 1}, "writing", "indexing", None),
        ({"telling": True}, "writing", "indexing", None),
        ({"jobs": [job()]}, None, "indexing", None),
        ({"jobs": [job()]}, "waiting: store-unreachable: no answer", "waiting", "store: store-unreachable: no answer"),
        ({"waiting": "ledger: the database is locked"}, "writing", "waiting", "ledger: the database is locked"),
        ({"draining": True, "jobs": [job()]}, "writing", "draining", None),
        ({"draining": True, "ready": False}, "waiting: 503", "draining", "store: 503"),
    ],
)
def test_the_state_is_one_word_and_says_what_it_waits_for(
    facts: dict[str, Any], store: str | None, state: str, reason: str | None
) -> None:
    peaks = Peaks()
    if store is not None:
        peaks.see(consumer_stats(store))
    shown = document_of(moment(**facts), peaks)
    assert (shown["state"], shown["reason"]) == (state, reason)


def test_a_daemon_that_has_just_begun_has_a_whole_document() -> None:
    shown = document_of(moment(now_seconds=10.0, ready=False))
    assert shown["totals"]["hours_per_hour"] == {"last_10_minutes": 0.0, "since_start": 0.0}
    assert shown["totals"]["videos"] == {"indexed": 0, "partial": 0, "unchanged": 0, "failed": 0}
    assert shown["totals"]["text_coverage"] is None
    assert shown["stages"] == {}
    assert shown["store"]["state"] == "starting"
    json.dumps(shown)


# --- what is in it --------------------------------------------------------------------------------------------------


def test_videos_in_work_show_their_share_and_how_long_they_will_take() -> None:
    half = job(settled_seconds=50.0, video_id="ab" * 32, searchable_seconds=2.0)
    opening = job(media=None, total_seconds=0.0, shown_path="b.mp4")
    first, second = document_of(moment(jobs=[half, opening], queued_tasks=4, files_waiting=7))["videos"]
    assert first == {
        "path": "a.mp4", "video_id": "ab" * 32, "state": "indexing", "done": 0.25, "eta_seconds": 300.0,
        "duration_seconds": 100.0, "searchable": True,
    }  # fmt: skip
    assert second == {
        "path": "b.mp4", "video_id": None, "state": "opening", "done": 0.0, "eta_seconds": None,
        "duration_seconds": None, "searchable": False,
    }  # fmt: skip
    queue = document_of(moment(jobs=[half], queued_tasks=4, files_waiting=7))["queue"]
    assert queue == {"files": 7, "tasks": 4, "videos": 1}


def test_memory_and_totals_come_from_what_the_processes_said_last() -> None:
    peaks = Peaks()
    peaks.see(engine_stats())
    peaks.see(consumer_stats())
    shown = document_of(moment(), peaks)
    assert shown["memory"] == {
        "host_bytes": 5_000_000, "results_queued_bytes": 8, "spool_bytes": 11, "device_bytes": 6,
        "peak_device_bytes": 7, "device_budget_bytes": 10, "model_changes": 4,
        "pressure": {"releases": 1, "halvings": 2, "stops": 3},
    }  # fmt: skip
    assert (shown["totals"]["points"], shown["totals"]["oom_events"], shown["totals"]["batch_splits"]) == (50, 2, 1)
    assert shown["store"] == {"at": "", "state": "writing", "retries": 1}


def test_stages_show_rates_of_the_last_half_minute() -> None:
    peaks, history = Peaks(), History()
    for second in range(100):  # 10 items a second at first, 2 a second from the 50th on
        peaks.see(engine_stats(items=10 * min(second, 50) + 2 * max(second - 50, 0), busy_seconds=second / 2))
        assert peaks.engine is not None
        history.see(peaks.engine, float(second))
    shown = document(moment(now_seconds=99.0), peaks, Tally(), history)["stages"]["image"]
    assert shown == {
        "items": 598, "items_per_second": 2.0, "busy": 0.5, "busy_seconds": 49.5, "queued_items": 3,
        "queued_bytes": 900, "batch": 16, "oom_events": 2, "batch_splits": 1,
    }  # fmt: skip


def test_the_bottleneck_is_that_of_the_last_ten_minutes() -> None:
    """At first the decoders are, then the speech model for longer than that."""
    history, shown = History(), {}
    peaks = Peaks(config=load_config(settings=["decode.processes=1"]))
    decoded = waited = ran = 0.0
    for second in range(1500):
        decoding = second < 700
        decoded, waited, ran = decoded + decoding, waited + 0.9 * decoding, ran + 0.95 * (not decoding)
        peaks.see(DecoderStats(index=0, peak_rss_bytes=1, decode_seconds=decoded, credit_seconds=second - decoded))
        stats = engine_stats(items=round(4 * ran), busy_seconds=ran)
        models = {"speech": stats.models["image"]}
        peaks.see(msgspec.structs.replace(stats, models=models, uptime_seconds=second, waiting_seconds=waited))
        at = moment(now_seconds=float(second), started_seconds=0.0, device="cuda:0")
        shown[second] = document(at, peaks, Tally(), history)["bottleneck"]
    assert shown[0]["stage"] == "none"
    assert shown[690]["stage"] == "decoders"
    assert shown[1499]["stage"] == "speech"
    assert shown[1499]["share"] == pytest.approx(0.95, abs=0.01)
    assert shown[1499]["sentence"].startswith("The speech model is the bottleneck: it runs 95 % of the engine's time")
    assert "a smaller models.speech" in shown[1499]["settings"]


def test_processes_show_their_size_and_restarts_add_up_by_role() -> None:
    peaks = Peaks()
    peaks.see(engine_stats())
    peaks.see(DecoderStats(index=1, peak_rss_bytes=40, rss_bytes=35))
    processes = [
        ProcessState("supervisor", "supervisor", 1, "ready"),
        ProcessState("engine", "engine", 2, "ready", restarts=1),
        ProcessState("decoder", "decoder 0", 3, "starting", restarts=2),
        ProcessState("decoder", "decoder 1", 4, "ready", restarts=3),
    ]
    shown = document_of(moment(processes=processes, supervisor_rss_bytes=60), peaks)
    assert [process["rss_bytes"] for process in shown["processes"]] == [60, 90, None, 35]
    assert shown["processes"][3] == {
        "role": "decoder", "name": "decoder 1", "pid": 4, "state": "ready", "restarts": 3, "rss_bytes": 35,
    }  # fmt: skip
    assert shown["totals"]["restarts"] == {"supervisor": 0, "engine": 1, "decoder": 5}


def test_roots_ledger_and_store_are_named() -> None:
    roots = [
        RootState("/films", "watching", files=9, settling=1, scanned_seconds_ago=12.34),
        RootState("/nas", "waiting: there is no such directory"),
    ]
    shown = document_of(moment(roots=roots, ledger="waiting: locked", store="/data/store"))
    assert shown["roots"][0] == {
        "path": "/films", "state": "watching", "files": 9, "settling": 1, "scanned_seconds_ago": 12.3,
    }  # fmt: skip
    assert shown["roots"][1]["scanned_seconds_ago"] is None
    assert (shown["ledger"], shown["store"]["at"]) == ("waiting: locked", "/data/store")


# --- what is finished -----------------------------------------------------------------------------------------------


def test_coverage_weighs_videos_by_their_speech() -> None:
    tally = Tally()
    tally.add(job(status="indexed", sums=Counter(speech_seconds=90, text_seconds=90, voiced_seconds=10)))
    tally.add(job(status="partial", sums=Counter(speech_seconds=10, voiced_seconds=10, voice_seconds=5)))
    tally.add(job(status="failed", sums=Counter(speech_seconds=900)))
    totals = document_of(moment(), tally=tally)["totals"]
    assert (totals["text_coverage"], totals["voice_coverage"]) == (0.9, 0.25)
    assert totals["videos"] == {"indexed": 1, "partial": 1, "unchanged": 0, "failed": 1}
    assert (totals["media_seconds"], totals["media_hours"]) == (200.0, round(200 / 3600, 3))


def test_the_last_failures_are_shown_the_latest_first() -> None:
    tally = Tally()
    for number in range(FAILURES + 5):
        tally.add(job(status="failed", shown_path=f"{number}.mp4", error=VideoError("not-media", "no")))
    tally.rejected("gone.mp4", "not-found", "no such file")
    failures = document_of(moment(), tally=tally)["failures"]
    assert len(failures) == FAILURES
    assert failures[0] == {"path": "gone.mp4", "code": "not-found", "message": "no such file"}
    assert failures[1]["path"] == f"{FAILURES + 4}.mp4"
    assert tally.videos["failed"] == FAILURES + 6


def test_media_hours_include_what_is_half_done() -> None:
    history, tally = History(), Tally()
    for second in range(1201):  # a video of 100 s is half done after 600 s, wholly after 1200 s
        working = job(started_seconds=0.0, settled_seconds=second / 6)
        at = moment(now_seconds=float(second), started_seconds=0.0, jobs=[working])
        shown = document(at, Peaks(), tally, history)
    rate = round(100 / 1200, 2)
    assert shown["totals"]["hours_per_hour"] == {"last_10_minutes": rate, "since_start": rate}


def test_time_to_searchable_is_counted_in_buckets() -> None:
    times = Searchable()
    for seconds in (0.5, 1.0, 4.0, 90_000.0):
        times.add(seconds)
    shown = times.as_dict()
    assert (shown["last_seconds"], shown["median_seconds"], shown["sum_seconds"]) == (90_000.0, 2.5, 90_005.5)
    assert {b["at_most_seconds"]: b["videos"] for b in shown["buckets"]} == {
        1.0: 2, 2.5: 2, 5.0: 3, 10.0: 3, 30.0: 3, 60.0: 3, 300.0: 3, 900.0: 3, 3600.0: 3, 14400.0: 3, 86400.0: 3,
        None: 4,
    }  # fmt: skip


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_every_time_is_in_its_bucket_and_the_median_is_of_the_last_ones(seconds: list[float]) -> None:
    times = Searchable()
    for each in seconds:
        times.add(each)
    shown = times.as_dict()
    for bucket in shown["buckets"][:-1]:
        assert bucket["videos"] == sum(each <= bucket["at_most_seconds"] for each in seconds)
    assert shown["buckets"][-1]["videos"] == len(seconds)
    assert len(shown["buckets"]) == len(SEARCHABLE_BUCKETS) + 1
    last = sorted(seconds[-TIMES:])
    assert last[0] - 0.001 <= shown["median_seconds"] <= last[-1] + 0.001


# --- pace -----------------------------------------------------------------------------------------------------------


def test_a_rate_falls_to_nothing_when_nothing_comes_any_more() -> None:
    pace = Pace(30.0)
    for second in range(61):
        pace.see({"items": 3.0 * second}, float(second))
    assert pace.rate("items", 60.0) == 3.0
    assert 0.0 < pace.rate("items", 75.0) < 3.0
    assert pace.rate("items", 200.0) == 0.0


def test_a_counter_that_falls_counts_for_nothing_until_it_grows_again() -> None:
    pace = Pace(30.0)
    for second, items in ((0, 100), (5, 200), (10, 0), (15, 50)):
        pace.see({"items": float(items)}, float(second))
    assert pace.rate("items", 15.0) == 10.0


def test_a_counter_that_appears_later_does_not_jump() -> None:
    pace = Pace(30.0)
    pace.see({}, 0.0)
    pace.see({"items": 1000.0}, 10.0)
    pace.see({"items": 1010.0}, 20.0)
    assert pace.rate("items", 20.0) == 0.5
    assert pace.rate("others", 20.0) == 0.0


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(0, 100)), min_size=2, max_size=400))
def test_pace_keeps_few_samples_and_is_right_about_steady_work(steps: list[tuple[float, float]]) -> None:
    pace, now = Pace(30.0, samples=20), 0.0
    pace.see({"items": 0.0}, now)
    for step, _ in steps:
        now += step
        pace.see({"items": 7.0 * now}, now)
        assert len(pace._samples) <= 23
    assert pace.rate("items", now) == pytest.approx(7.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e6)), max_size=100))
def test_a_rate_is_never_negative(samples: list[tuple[float, float]]) -> None:
    pace, now = Pace(30.0), 0.0
    for step, value in samples:
        now += step
        pace.see({"items": value}, now)
        assert pace.rate("items", now) >= 0.0
