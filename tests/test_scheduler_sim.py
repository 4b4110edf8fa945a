"""The simulation of the scheduler: its accounts add up, and what came before dies in it as it did."""

import time
from dataclasses import replace
from typing import Any

import pytest

from benches.report import Findings
from benches.running import parser_for
from benches.scheduler_sim import Sluice, aims, baselines, card, measure, sluice
from benches.sim_baselines import items_of
from benches.sim_card import COSTS
from benches.sim_engine import SimulatedRun
from benches.sim_overhead import Overhead, _host, _one_round, _simulated
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
        ({"lost": 1}, "items lost, of all"),
        ({"admitted": 1.01}, "admitted / budget, at most"),
        ({"used": 1.01}, "used / budget, at most"),
        ({"busy": 0.94}, "busy where no turns are taken, at least"),
        ({"swap_share": 0.16, "swaps": 9}, "time for changing models, at most"),
    ],
)
def test_each_aim_is_judged_by_the_worst_run(fits: Sluice, change: dict[str, Any], named: str) -> None:
    assert all(ratio.is_met for ratio in aims([fits]))
    assert [ratio.name for ratio in aims([fits, replace(fits, **change), fits]) if not ratio.is_met] == [named]


def test_where_models_take_turns_their_changes_are_judged_and_not_the_busy_share(fits: Sluice) -> None:
    assert all(ratio.is_met for ratio in aims([replace(fits, busy=0.9, swaps=30, swap_share=0.1)]))


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


@pytest.fixture(scope="module")
def found() -> Findings:
    arguments = ["--videos", "2", "--budgets", "16", "4", "--no-overhead"]
    return measure(parser_for("scheduler").parse_args(arguments))


def test_every_system_stands_beside_the_others_on_every_card(found: Findings) -> None:
    assumed, rates, deaths, alone = found.tables
    assert [row[0] for row in assumed.rows] == list(COSTS)
    assert rates.columns == ("", "4 GB", "16 GB")
    assert rates.rows[0][0] == "Sluice"
    assert ("fixed batch 32", "2 videos out of memory in speech", "") in deaths.rows
    assert alone.columns == ("", "4 GB", "16 GB", "4 GB, one decoder", "16 GB, one decoder")
    assert ("items lost", 0, 0, 0, 0) in alone.rows


def test_the_chart_shows_what_the_table_says(found: Findings) -> None:
    (chart,) = found.charts
    rates = {row[0]: row[1:] for row in found.tables[1].rows}
    assert {name: tuple(f"{y:.0f}" for _, y in line) for name, line in chart.lines.items()} == rates
    assert all(ratio.is_met for ratio in found.ratios)
    assert found.notes[0].startswith("Assumed, not measured")


@pytest.mark.parametrize("make", [_simulated, _host])
def test_the_engines_own_time_is_measured_without_the_models(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.process_time", time.perf_counter)  # it may count whole ticks: three batches took 0
    own, points = _one_round(make(), batches=3)  # type: ignore[operator]
    assert 0 < own < 1
    assert 0 < points < 1


def test_the_engines_own_time_stands_beside_its_aim() -> None:
    measured = Overhead(0.0001, 0.0005, 0.0002, 0.0005, vit_seconds=2.0)
    assert [(ratio.value, ratio.is_met) for ratio in measured.ratios()] == [(0.005, True), (pytest.approx(0.03), False)]
    assert measured.table().rows[0] == ("simulated device, without points", 0.1, 3.125, 0.005, 0.00005)
