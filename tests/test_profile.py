"""From counters of the processes to the profile of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import profile
from engine.bottleneck import Usage, verdict
from engine.config import load_config
from engine.profile import MachineWatch, Profile, counters_of, lines_of, profile_of, table_of, times_of, usage_of
from engine.report import Peaks
from tests.runs import Meddler, run_cli, settings_for
from transport.messages import ConsumerStats, DecoderStats, EngineStats, ModelStats

MIB = 1 << 20
BOARD: Any = object()


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def told() -> Any:
    """An observer that does nothing of its own."""
    observer = Meddler()
    observer.supervisor = BOARD
    return observer


def decoder(index: int, seconds: float, generation: int = 1) -> DecoderStats:
    """One that decodes half of its time, and waits for credit a quarter of it."""
    return DecoderStats(
        index=index, peak_rss_bytes=1, generation=generation, items=round(10 * seconds), decode_seconds=seconds / 2,
        credit_seconds=seconds / 4, idle_seconds=seconds / 4, cpu_seconds=seconds / 5,
    )  # fmt: skip


def engine(seconds: float) -> EngineStats:
    """One that waits half of its time, with its queue a quarter full."""
    image = ModelStats(
        items=round(20 * seconds), batches=3, busy_seconds=0.4 * seconds, queued_items=0, oom_events=0, batch_splits=0,
        queued_item_seconds=3.0 * seconds,
    )  # fmt: skip
    return EngineStats(
        models={"image": image}, host_bytes=0, busy_seconds=0.4 * seconds, uptime_seconds=seconds,
        peak_device_bytes=0, peak_rss_bytes=0, change_seconds=0.05 * seconds, waiting_seconds=0.5 * seconds,
        blocked_seconds=0.05 * seconds, cpu_seconds=1.5 * seconds, host_byte_seconds=64.0 * MIB * seconds,
    )  # fmt: skip


def consumer(seconds: float) -> ConsumerStats:
    return ConsumerStats(
        points=round(30 * seconds), queued_bytes=0, retries=0, state="writing", peak_rss_bytes=0,
        uptime_seconds=2 * seconds, writing_seconds=0.2 * seconds, labelling_seconds=0.1 * seconds,
        cpu_seconds=0.3 * seconds, queued_byte_seconds=16.0 * MIB * seconds,
    )  # fmt: skip


def peaks_after(seconds: float, peaks: Peaks | None = None) -> Peaks:
    """Of two decoders, an engine and a consumer that have worked so long, on two cores that others use, too."""
    peaks = peaks or Peaks(config=load_config(settings=["decode.processes=2"]))
    for stats in (decoder(0, seconds), decoder(1, seconds), engine(seconds), consumer(seconds)):
        peaks.see(stats)
    peaks.supervisor_cpu_seconds, peaks.core_seconds = 0.1 * seconds, 1e6 + 1.8 * seconds
    return peaks


def usage_after(seconds: float) -> Usage:
    counters = counters_of(peaks_after(seconds))
    return usage_of(lambda name: counters[name] / seconds, peaks_after(seconds), seconds=seconds, device="cuda:0")


def test_counters_become_shares_of_each_stages_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "core_count", lambda: 4)
    found = usage_after(100.0)
    assert (found.decode, found.credit, found.idle) == pytest.approx((0.5, 0.25, 0.25))
    assert (found.waiting, found.blocked, found.changing) == pytest.approx((0.5, 0.05, 0.05))
    assert (found.engine, found.running) == pytest.approx((0.45, 0.4))
    (image,) = found.models
    assert (image.busy, image.items_per_second, image.queued_items) == pytest.approx((0.4, 20.0, 3.0))
    assert (found.host_fill, found.results_fill) == pytest.approx((0.25, 0.25))
    assert (found.writing, found.points_per_second, found.decoded_per_second) == pytest.approx((0.1, 30.0, 20.0))
    assert found.cores_used == pytest.approx({"decoder": 0.4, "engine": 1.5, "consumer": 0.3, "supervisor": 0.1})
    assert (found.cores, found.decoders, found.store_away) == (4, 2, "")


def test_what_nobody_has_counted_yet_is_nothing() -> None:
    found = usage_of(lambda name: 0.0, Peaks(), seconds=0.0, device=None)
    assert verdict(found, Peaks().config).stage == "none"
    assert all(row["rate"] == 0 and row["limit"] is None and row["share"] == 0 for row in table_of(found))
    assert set(counters_of(Peaks()).values()) == {0.0}


def test_a_store_that_is_away_is_seen_in_the_consumers_words() -> None:
    peaks = peaks_after(10.0)
    peaks.see(ConsumerStats(points=0, queued_bytes=0, retries=0, state="waiting: refused", peak_rss_bytes=0))
    assert usage_of(lambda name: 1.0, peaks, seconds=1.0, device="cpu").store_away == "refused"


def test_a_stage_that_works_half_of_the_time_could_do_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "core_count", lambda: 4)
    rows = {row.pop("stage"): row for row in table_of(usage_after(100.0))}
    assert rows["decoders"] == {"unit": "items/s", "rate": 20.0, "limit": 40.0, "share": 0.5}
    assert rows["image"] == {"unit": "items/s", "rate": 20.0, "limit": 50.0, "share": 0.4, "queued_items": 3.0}
    assert rows["store"] == {"unit": "points/s", "rate": 30.0, "limit": 300.0, "share": 0.1, "queue_fill": 0.25}
    assert rows["engine"]["queue_fill"] == 0.25
    assert list(rows) == ["decoders", "engine", "image", "store", "processor"]


def test_the_profile_of_a_run_begins_when_its_models_are_loaded() -> None:
    """What the processes counted before, while others were starting, belongs to the start."""
    clock = Clock()
    seen = Profile(told(), clock)
    peaks = Peaks(config=load_config(settings=["decode.processes=2"]))
    for index in (0, 1):
        peaks.see(decoder(index, 5.0))
    clock.now = 30.0
    seen.tick(BOARD, peaks, 0)
    peaks_after(5.0, peaks)
    clock.now = 40.0
    seen.tick(BOARD, peaks, 0)
    clock.now = 50.0
    seen.tick(BOARD, peaks, 0)
    clock.now = 140.0
    made = seen.report(peaks_after(105.0, peaks), "cuda:0")
    assert (made["seconds"], made["start_seconds"], made["decoded_at_start"]) == (100.0, 40.0, 100)
    assert made["decoders"] == {"decode": 0.5, "credit": 0.25, "idle": 0.25}
    assert made["engine"] == {"running": 0.4, "changing": 0.05, "waiting": 0.5, "blocked": 0.05}
    assert made["cores_used"]["engine"] == 1.5
    assert made["stages"][0]["rate"] == 20.0
    assert made["bottleneck"]["stage"] == "balanced"
    json.dumps(made)


def test_a_run_without_work_has_a_profile_that_says_so() -> None:
    made = Profile(told()).report(Peaks(), None)
    assert made["bottleneck"] == {
        "stage": "none", "share": 0.0, "sentence": "Nothing was indexed in this time.", "settings": [],
    }  # fmt: skip


def test_for_people_it_is_a_table_and_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "core_count", lambda: 4)
    found = usage_after(100.0)
    said = verdict(found, Peaks().config)
    lines = list(lines_of(profile_of(found, said)))
    assert lines[0] == "profile of 100.0 s, after a start of 0.0 s"
    assert lines[1].split() == ["stage", "rate", "limit", "share", "queue"]
    assert lines[2].split() == ["decoders", "20.0", "items/s", "40.0", "items/s", "50", "%"]
    assert lines[4].split() == ["image", "20.0", "items/s", "50.0", "items/s", "40", "%", "3.0", "items"]
    assert lines[5].endswith("10 %  25 % full")
    assert lines[7] == "decoders: 50 % decoding, 25 % waiting for credit, 25 % without a task"
    assert lines[9] == said.sentence
    assert max(map(len, lines[:7])) <= 80


# --- who is added up ------------------------------------------------------------------------------------------------


def test_decoders_add_up_with_those_that_are_gone() -> None:
    peaks = Peaks()
    for stats in (decoder(0, 8.0), decoder(1, 4.0, 2), decoder(0, 2.0, 3), decoder(0, 4.0, 3)):
        peaks.see(stats)
    assert (peaks.decoder.items, peaks.decoder.decode_seconds) == (160, 8.0)
    assert (peaks.past_decoders.items, len(peaks.decoders)) == (80, 2)
    assert times_of(peaks)["decoder"] == {"decode": 8.0, "credit": 4.0, "idle": 4.0}


def test_consumers_add_up_too() -> None:
    peaks = Peaks()
    peaks.see(consumer(10.0))
    peaks.consumer_restarted()
    peaks.see(consumer(5.0))
    assert times_of(peaks)["consumer"] == pytest.approx({"writing": 3.0, "labelling": 1.5})
    assert counters_of(peaks)["points"] == 450


# --- the machine ----------------------------------------------------------------------------------------------------


def test_busy_cores_are_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.profile.os.sched_getaffinity", lambda pid: {0, 2})
    monkeypatch.setattr("engine.profile.os.sysconf", lambda name: 100)
    (tmp_path / "stat").write_text(
        "cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 100 200 300 5000 600 10 20 30 999 999\ncpu1 7 7 7 7 7 7 7 7 7 7\n"
        "cpu2 40 0 0 0 0 0 0 0 0 0\nintr 1 2 3\nctxt 5\n"
    )
    assert profile.core_seconds(tmp_path) == pytest.approx(7.0), (
        "without idling and waiting for disks, guests counted once"
    )


def test_the_machine_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5.0, 7.0])
    monkeypatch.setattr(profile, "core_seconds", lambda: next(readings))
    clock, peaks, seen = Clock(), Peaks(), []
    watch = MachineWatch(told(), clock)
    for clock.now in (0.0, 0.2, 0.9, 1.0, 1.5):
        watch.tick(None, peaks, 0)
        seen.append(peaks.core_seconds)
    assert seen == [5.0, 5.0, 5.0, 7.0, 7.0]
    assert peaks.supervisor_cpu_seconds > 0


# --- the command ----------------------------------------------------------------------------------------------------


def test_ingest_says_what_held_it_up_beside_its_result(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    waiting = ("decode.fps=20", "decode.span_seconds=5", "engine.host_mb=16")  # decoders have to, for the models
    settings, report = settings_for(tiny_models, tmp_path, *waiting), tmp_path / "report.json"
    done = run_cli(["ingest", str(sample_video), "--profile", "--report", str(report)], settings)
    assert done.returncode == 0, done.stderr
    made = json.loads(report.read_text())["profile"]
    assert made["bottleneck"]["sentence"] in done.stderr.splitlines()
    assert "profile" not in done.stdout
    stages = {row["stage"]: row for row in made["stages"]}
    assert {"decoders", "engine", "image", "speech", "voice", "store", "processor"} <= stages.keys()
    busy = ("decoders", "engine", "image", "store")
    assert all(0 < stages[name]["share"] <= 1 and stages[name]["rate"] > 0 for name in busy), stages
    assert made["decoded_at_start"] > 0, "decoding begins while the models load"
    children = {role: cores for role, cores in made["cores_used"].items() if role != "supervisor"}
    assert len(children) == 3
    assert all(cores > 0 for cores in children.values()), children  # its own is looked at once a second only
    again = run_cli(["ingest", str(sample_video), "--profile", "--json"], settings)
    unchanged = json.loads(again.stdout)
    assert unchanged["profile"]["bottleneck"]["stage"] == "none", "nothing was to be done"
    assert "Nothing was indexed in this time." in again.stderr
    plain = run_cli(["ingest", str(sample_video), "--json"], settings)
    assert "profile" not in json.loads(plain.stdout)
