"""The simulation of the scheduler: its accounts add up, and what came before dies in it as it did."""

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from benches import scheduler_sim
from benches.scheduler_sim import Sluice, baselines, card, missed, sluice
from benches.sim_baselines import items_of
from benches.sim_card import COSTS
from benches.sim_engine import SimulatedRun
from benches.sim_overhead import _host, _one_round, _simulated
from benches.sim_workload import PHRASES, VOICES, archive, tasks, video

VIDEOS = archive(4, (5, 10))


def test_a_video_has_the_items_that_its_length_says() -> None:
    ten_minutes = video("one", 10)
    assert items_of(ten_minutes) == {"image": 600, "speech": 20, "text": 20 * len(PHRASES), "voice": 10 * sum(VOICES)}
    work = tasks([ten_minutes])
    assert [each.kind for each in work] == ["audio"] + ["frames"] * 10
    assert sum(1 for each in work for _ in each.messages(1)) == 600 + 20 + 2 * len(work)


def test_every_virtual_second_is_accounted_for() -> None:
    run = SimulatedRun(VIDEOS, card(4), COSTS)
    outcome = run.run()
    spent = run.meter.run_seconds + run.meter.swap_seconds
    waited = outcome.idle_seconds + outcome.company_seconds + outcome.held_seconds
    own = sum(run.meter.batches.values()) * 0.3e-3 + sum(run.meter.items.values()) * 20e-6
    assert outcome.seconds == pytest.approx(spent + waited + own, rel=0.01)


@pytest.mark.parametrize("gb", [4, 8, 24])
def test_the_engine_loses_nothing_within_the_budget(gb: int) -> None:
    ours = sluice(gb, VIDEOS, decoders=8)
    assert (ours.videos, ours.lost, ours.restarts) == (len(VIDEOS), 0, 0)
    assert ours.admitted <= 1
    assert ours.used <= 1
    assert ours.busy > (0.95 if gb > 4 else 0.85)
    assert ours.swap_share < 0.15


@pytest.fixture(scope="module")
def fits() -> Sluice:
    """A run that misses no aim and takes no turns."""
    return sluice(24, VIDEOS[:2], decoders=8)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lost": 1}, "1 items lost"),
        ({"admitted": 1.01}, "101.0% of the budget admitted"),
        ({"used": 1.01}, "101.0% of the budget used"),
        ({"busy": 0.94}, "busy for 94.0% of the time"),
        ({"swap_share": 0.15, "swaps": 9}, "15.0% of the time for changes"),
    ],
)
def test_each_aim_that_is_missed_is_named(fits: Sluice, change: dict[str, Any], named: str) -> None:
    assert missed(fits) == []
    (line,) = missed(replace(fits, **change))
    assert line.startswith("24 GB, decoders 8: ")
    assert named in line


def test_where_models_take_turns_their_changes_are_judged_and_not_the_busy_share(fits: Sluice) -> None:
    assert missed(replace(fits, busy=0.9, swaps=30, swap_share=0.1)) == []


def test_a_missed_aim_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["scheduler_sim", "--json", "--videos", "1", "--budgets", "24", "--no-overhead"])
    monkeypatch.setattr(scheduler_sim, "LEAST_BUSY", 1.01)
    assert scheduler_sim.main() == 1
    assert "less than 101%" in capsys.readouterr().err


def test_a_slow_decoder_leaves_the_device_idle_and_not_waiting() -> None:
    run = SimulatedRun(VIDEOS, card(24), COSTS, decoders=1)
    for decoder in run._decoders:
        decoder.pace = 4.0
    outcome = run.run()
    assert outcome.idle_seconds + outcome.company_seconds > 0.2 * outcome.seconds
    assert run.meter.run_seconds > 0.9 * (outcome.seconds - outcome.idle_seconds - outcome.company_seconds)


def test_what_came_before_dies_as_it_did() -> None:
    """On 6 GB: four Whispers do not load, and batches that are too large lose every video."""
    results = {result.name: result for result in baselines(6, VIDEOS, decoders=8)}
    assert results["fixed batch 4"].videos == len(VIDEOS)
    assert results["fixed batch 32"].videos == 0
    assert results["fixed batch 32"].told() == "4 videos out of memory in speech"
    assert results["stages in turn, per video"].videos == len(VIDEOS)
    workers = results["4 workers with a Whisper each"]
    assert (workers.videos, workers.told()) == (0, "out of memory while loading")
    total = sum(sum(items_of(video).values()) for video in VIDEOS)
    assert all(result.items + result.lost == total for result in results.values())


def test_the_bench_prints_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scheduler_sim", "--json", "--videos", "2", "--budgets", "4", "16", "--no-overhead"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert scheduler_sim.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert [(run["budget_gb"], run["lost"]) for run in found["sluice"]] == [(4, 0), (16, 0), (4, 0), (16, 0)]
    assert set(found["before"]) == {"4", "16"}


def test_the_bench_prints_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["scheduler_sim", "--videos", "2", "--budgets", "4", "--no-overhead"])
    assert scheduler_sim.main() == 0
    shown = capsys.readouterr().out
    assert "Assumed, not measured" in shown
    assert "how it died" in shown


@pytest.mark.parametrize("make", [_simulated, _host])
def test_the_engines_own_time_is_measured_without_the_models(make: object) -> None:
    own, points = _one_round(make(), batches=3)  # type: ignore[operator]
    assert 0 < own < 1
    assert 0 < points < 1
