"""Rows and totals of the report, the summary, and what the displays show."""

import io
import os
import pty
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.ingest import summary
from engine.pace import Rates, media_progress, share_done
from engine.progress import LiveObserver, PlainObserver, clock, row_line
from engine.report import ADDED, LARGEST, LATEST, Peaks, failed_row, joined, totals, unchanged_row, video_row
from engine.videos import Task, VideoError, VideoJob
from tests.runs import command, settings_for
from transport.messages import ConsumerStats, DecoderStats, EngineStats, Gap, MediaInfo, ModelStats, Probe

MEDIA = MediaInfo(container="mp4", duration_seconds=100.0, start_seconds=0.0, video=None, audio=None)


def job(**facts: Any) -> VideoJob:
    made = VideoJob(b"a.mp4", "a.mp4", 10.0, media=MEDIA, status="indexed", finished_seconds=15.0)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def engine_stats(**facts: Any) -> EngineStats:
    model = ModelStats(items=5, batches=1, busy_seconds=2.0, queued_items=3, oom_events=2, batch_splits=1)
    values: dict[str, Any] = {
        "models": {"image": model}, "host_bytes": 5_000_000, "busy_seconds": 2.0, "uptime_seconds": 4.0,
        "peak_device_bytes": 7, "peak_rss_bytes": 100,
    }  # fmt: skip
    return EngineStats(**{**values, **facts})


def test_a_row_counts_and_covers() -> None:
    sums = Counter({"speech_seconds": 10.0, "text_seconds": 5.0, "voiced_seconds": 8.0, "voice_seconds": 8.0})
    row = video_row(job(points=Counter(frames=3, speech=2, voices=4), sums=sums, heard=True))
    assert (row["frames"], row["speech_segments"], row["voice_segments"], row["points"]) == (3, 2, 4, 9)
    assert (row["text_coverage"], row["voice_coverage"]) == (0.5, 1.0)
    assert (row["wall_seconds"], row["rtf"]) == (5.0, 0.05)


def test_a_row_says_what_languages_were_spoken_and_how_long() -> None:
    languages: Counter[str] = Counter()
    for seconds in ({"en": 100.0}, {"de": 180.00049}, {"en": 23.4}):
        languages.update(seconds)
    row = video_row(job(languages=languages, heard=True))
    assert list(row["languages"].items()) == [("de", 180.0), ("en", 123.4)]
    assert video_row(job())["languages"] == {}


def test_coverage_is_whole_without_speech_and_unknown_without_listening() -> None:
    assert video_row(job(heard=True))["text_coverage"] == 1.0
    assert video_row(job(heard=False))["text_coverage"] is None


def test_gaps_stand_in_order_of_time() -> None:
    gaps = [Gap(start_seconds=s, end_seconds=s + 1, reason="corrupt: x") for s in (9.0, 2.0)]
    assert [gap["start_seconds"] for gap in video_row(job(gaps=gaps))["gaps"]] == [2.0, 9.0]


def test_gaps_of_neighbouring_spans_are_one_for_each_reason() -> None:
    def gap(start: float, end: float, reason: str) -> Gap:
        return Gap(start_seconds=start, end_seconds=end, reason=reason)

    short, gone = "truncated: the video ends at 8.000 s", "not-found: there is no such file"
    spans = [gap(60.0, 120.0, short), gap(8.0, 60.0, short), gap(120.0, 180.0, gone), gap(0.0, 180.0, gone)]
    assert joined([*spans, gap(200.0, 260.0, gone)]) == [
        gap(0.0, 180.0, gone),
        gap(8.0, 120.0, short),
        gap(200.0, 260.0, gone),
    ]


def test_totals_count_only_what_was_done_now() -> None:
    rows = [
        video_row(job(points=Counter(frames=3))),
        unchanged_row(video_row(job(points=Counter(frames=3))), "b.mp4"),
        failed_row("c.mp4", "not-found", "no such file"),
    ]
    peaks = Peaks()
    peaks.see(engine_stats())
    peaks.see(engine_stats(peak_rss_bytes=50, peak_device_bytes=3))
    peaks.see(DecoderStats(index=0, peak_rss_bytes=30))
    peaks.see(ConsumerStats(points=3, queued_bytes=0, retries=0, state="writing", peak_rss_bytes=20))
    sums = totals(rows, 50.0, peaks)
    assert (sums["videos"], sums["indexed"], sums["unchanged"], sums["failed"]) == (3, 1, 1, 1)
    assert (sums["points"], sums["media_seconds"], sums["hours_per_hour"], sums["rtf"]) == (3, 100.0, 2.0, 0.5)
    assert sums["peak_rss_bytes"] == {"supervisor": 0, "decoder": 30, "engine": 100, "consumer": 20}
    assert (sums["oom_events"], sums["peak_device_bytes"], sums["device_busy_fraction"]) == (2, 7, 0.5)


def test_counters_of_engines_add_up_over_restarts() -> None:
    peaks = Peaks()
    peaks.see(engine_stats(uptime_seconds=1.0))
    peaks.see(engine_stats())
    peaks.engine_restarted()
    assert peaks.engine is not None
    assert peaks.engine.busy_seconds == 2.0, "until the next engine says something, that of the last"
    peaks.see(engine_stats(models={}, busy_seconds=0.0, uptime_seconds=1.0, peak_device_bytes=3))
    assert peaks.engine.models["image"].items == 5
    peaks.see(engine_stats(busy_seconds=1.0, uptime_seconds=6.0, host_bytes=9))
    peaks.engine_restarted()
    peaks.see(engine_stats(busy_seconds=1.0, uptime_seconds=10.0, host_bytes=9, peak_device_bytes=8, peak_rss_bytes=70))
    assert peaks.engine == EngineStats(
        models={
            "image": ModelStats(items=15, batches=3, busy_seconds=6.0, queued_items=3, oom_events=6, batch_splits=3)
        },
        host_bytes=9,
        busy_seconds=4.0,
        uptime_seconds=20.0,
        peak_device_bytes=8,
        peak_rss_bytes=100,
    )
    sums = totals([], 1.0, peaks)
    assert (sums["oom_events"], sums["device_busy_fraction"], sums["engine_restarts"]) == (6, 0.2, 2)
    assert (sums["peak_device_bytes"], sums["peak_rss_bytes"]["engine"]) == (8, 100)


def test_counters_of_consumers_add_up_over_restarts() -> None:
    peaks = Peaks()
    peaks.see(ConsumerStats(points=30, queued_bytes=5, retries=2, state="waiting: 503", peak_rss_bytes=20, rss_bytes=9))
    peaks.consumer_restarted()
    peaks.see(ConsumerStats(points=1, queued_bytes=0, retries=1, state="writing", peak_rss_bytes=10, rss_bytes=7))
    peaks.consumer_restarted()
    peaks.see(ConsumerStats(points=4, queued_bytes=0, retries=0, state="writing", peak_rss_bytes=10, rss_bytes=8))
    assert peaks.consumer == ConsumerStats(
        points=35, queued_bytes=0, retries=3, state="writing", peak_rss_bytes=20, rss_bytes=8
    )


def test_the_present_size_of_each_process_is_known_by_its_name() -> None:
    peaks = Peaks()
    peaks.see(DecoderStats(index=0, peak_rss_bytes=30, rss_bytes=25))
    peaks.see(DecoderStats(index=1, peak_rss_bytes=40, rss_bytes=35))
    peaks.see(DecoderStats(index=0, peak_rss_bytes=30, rss_bytes=20))
    peaks.see(engine_stats(rss_bytes=90))
    assert peaks.latest_rss_bytes == {"decoder 0": 20, "decoder 1": 35, "engine": 90}
    assert peaks.rss_bytes["decoder"] == 40


def test_the_time_to_the_first_searchable_point_is_told_where_it_is_known() -> None:
    rows = [video_row(job(searchable_seconds=seconds)) for seconds in (1.0004, 9.0, None, 2.0)]
    assert [row["first_searchable_seconds"] for row in rows] == [1.0, 9.0, None, 2.0]
    assert totals(rows, 50.0, Peaks())["first_searchable_seconds"] == {"median": 2.0, "max": 9.0}
    old = unchanged_row(rows[0], "b.mp4")
    assert old["first_searchable_seconds"] is None, "nothing became searchable now"
    assert totals([old], 50.0, Peaks())["first_searchable_seconds"] is None


def test_it_is_decided_of_each_figure_of_an_engine_what_a_restart_makes_of_it() -> None:
    figures = {*EngineStats.__struct_fields__, *ModelStats.__struct_fields__} - {"models"}
    assert figures == ADDED | LARGEST | LATEST
    assert len(figures) == len(ADDED) + len(LARGEST) + len(LATEST)


def test_a_run_of_nothing_divides_by_nothing() -> None:
    sums = totals([], 0.0, Peaks())
    assert (sums["hours_per_hour"], sums["rtf"], sums["device_busy_fraction"]) == (0.0, None, 0.0)


def test_the_summary_names_every_video_that_is_not_whole() -> None:
    partial = video_row(job(status="partial", gaps=[Gap(start_seconds=9, end_seconds=10, reason="corrupt: bits")]))
    failed = failed_row("c.mp4", "empty-file", "the file is empty")
    rows = [video_row(job()), partial, failed]
    text = summary({"videos": rows, "totals": totals(rows, 10.0, Peaks())})
    assert "3 videos: 1 indexed, 1 partial, 0 unchanged, 1 failed" in text
    assert "c.mp4 - empty-file: the file is empty" in text
    assert "gap 9.0-10.0 s: corrupt: bits" in text
    assert "engine" not in text


@pytest.mark.parametrize(("count", "words"), [(1, "again 1 time"), (2, "again 2 times")])
def test_the_summary_says_that_the_engine_died(count: int, words: str) -> None:
    peaks = Peaks()
    for _ in range(count):
        peaks.engine_restarted()
    text = summary({"videos": [], "totals": totals([], 10.0, peaks)})
    assert f"the engine died and was started {words}" in text.splitlines()


def test_many_gaps_are_shown_as_a_few_and_a_count() -> None:
    gaps = [Gap(start_seconds=2 * s, end_seconds=2 * s + 1, reason="corrupt: x") for s in range(7)]
    assert "[and 4 more gaps]" in row_line(video_row(job(gaps=gaps)))


def test_a_reason_is_said_once() -> None:
    gap = Gap(start_seconds=1, end_seconds=2, reason="read-error: the disk is gone")
    error = VideoError("read-error", "the disk is gone")
    line = row_line(video_row(job(gaps=[gap], error=error, status="partial")))
    assert line.count("the disk is gone") == 1
    assert "[gap 1.0-2.0 s]" in line


@pytest.mark.parametrize(("seconds", "text"), [(None, "-:--"), (0, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_progress_weighs_tasks_by_their_length() -> None:
    made = job(status=None, total_seconds=200.0, settled_seconds=50.0)
    task = Task(1, made, lambda key, resume: Probe(key=key, path=b"a"), "audio", 0.0, 100.0, done_seconds=50.0)
    made.open_tasks[1] = task
    assert share_done(made) == 0.5
    assert media_progress([made], 30.0) == (80.0, 130.0)


def test_rates_and_eta() -> None:
    rates = Rates(started_seconds=100.0)
    assert rates.eta_seconds(0.0, 50.0, 100.0) is None
    assert rates.hours_per_hour(60.0, 110.0) == 6.0
    assert rates.eta_seconds(60.0, 120.0, 110.0) == 10.0


def test_plain_lines_say_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    observer = PlainObserver(stream)
    observer.phase("loading models")
    observer.note("NVML does not answer")
    observer.finished(video_row(job(error=VideoError("decoder-died", "killed"), status="failed")))
    peaks = Peaks()
    peaks.see(ConsumerStats(points=0, queued_bytes=0, retries=1, state="waiting: 503", peak_rss_bytes=1))
    for _ in range(3):
        observer.tick(None, peaks, 0)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["loading models", "note: NVML does not answer"]
    assert "decoder-died: killed" in lines[2]
    assert lines[3:] == ["store waiting: 503"], "said once"


def test_the_live_display_shows_videos_and_stages() -> None:
    from engine.config import Config
    from engine.tasks import Board

    board = Board(Config(), None)
    for number in range(10):
        board.add(f"{number}.mp4".encode(), f"film {number}.mp4", 0.0)
    peaks = Peaks()
    peaks.see(engine_stats())
    console = Console(file=io.StringIO(), width=100, record=True)
    observer = LiveObserver(console)
    observer.phase("indexing on cpu")
    observer.note("NVML does not answer")
    console.print(observer.render(board, peaks, 3, 1000.0))
    text = console.export_text()
    assert "indexing on cpu" in text
    assert "note: NVML does not answer" in text
    assert "film 0.mp4" in text
    assert "opening" in text
    assert "and 2 more" in text
    assert "image 5 done, 3 queued" in text
    assert "3 finished" in text


def test_a_terminal_gets_the_live_display(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    settings = settings_for(tiny_models, tmp_path)
    process = subprocess.Popen(
        command(["ingest", str(sample_video)], settings),
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"},
    )
    os.close(slave)
    shown = b""
    while chunk := _read(master):
        shown += chunk
    os.close(master)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    text = shown.decode(errors="replace")
    assert "hours/hour" in text
    assert "sample.mp4" in text
    assert "\x1b[31m" not in text, "NO_COLOR is respected"
    assert "1 video: 1 indexed" in stdout.decode()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # the other side is closed
        return b""
