"""The bench of lanes: what it makes of its rounds, and that each way does all the items."""

import pytest

from benches import lanes
from benches.measuring import Cost
from benches.running import parser_for
from tests.conftest import TinyModels


def costs(wall: float, cpu: float) -> list[Cost]:
    return [Cost(wall, cpu), Cost(2 * wall, 2 * cpu)]


def test_lanes_are_compared_with_the_libraries_threads() -> None:
    found = {"image": (64, {lanes.ONE: costs(2.0, 2.0), lanes.THREADS: costs(1.5, 3.0), lanes.LANES: costs(1.0, 2.1)})}
    made = lanes.findings(found, cores=2)  # type: ignore[arg-type]
    speed, cpu = made.ratios
    assert (speed.name, speed.value, speed.low, speed.high) == ("image: speed, lanes / threads", 1.5, 1.5, 1.5)
    assert cpu.value == pytest.approx(0.7)
    assert [row[:2] for row in made.tables[0].rows] == [
        ("image", way) for way in (lanes.ONE, lanes.THREADS, lanes.LANES)
    ]
    assert made.tables[0].rows[0][2] == pytest.approx(64 / 3.0)
    assert made.charts[0].bars == pytest.approx(
        {"image, one thread": 1.0, "image, threads": 4 / 3, "image, lanes": 2.0}
    )


def test_small_models_run_in_every_way(tiny_models: TinyModels) -> None:
    options = ["--models", str(tiny_models.directory), "--rounds", "1", "--seconds", "0", "--roles", "image", "voice"]
    made = lanes.measure(parser_for("lanes").parse_args(options))
    assert [row[:2] for row in made.tables[0].rows] == [
        (role, way) for role in ("image", "voice") for way in (lanes.ONE, lanes.THREADS, lanes.LANES)
    ]
    assert all(isinstance(cell, float) and cell > 0 for row in made.tables[0].rows for cell in row[2:])
    assert len(made.ratios) == 4
