"""Models alone, and the roof that they stand under."""

import argparse

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benches import models
from benches.measuring import Cost
from benches.report import Findings
from benches.roofline import ROOF, Roof, Work, roof_now, roofline, traffic_bytes, work_of
from benches.running import parser_for
from tests.conftest import TinyModels

ROOFED = Roof(flops_per_second=100e9, bytes_per_second=20e9)


# --- the roof ---------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_the_roof_rises_to_its_ridge_and_then_is_flat(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert ROOFED.at(low) <= ROOFED.at(high) <= ROOFED.flops_per_second
    assert ROOFED.at(ROOFED.ridge) == ROOFED.flops_per_second
    assert ROOFED.at(low) == pytest.approx(low * 20e9) or low >= ROOFED.ridge


def test_operations_and_bytes_of_a_linear_layer_are_counted() -> None:
    layer, rows = torch.nn.Linear(64, 32, bias=False), torch.ones(8, 64)
    with torch.inference_mode():
        work = work_of(lambda: layer(rows))
    assert work.flops == 2 * 8 * 64 * 32
    assert work.bytes == 4 * (8 * 64 + 64 * 32 + 8 * 32)
    assert work.intensity == work.flops / work.bytes


def test_operations_of_attention_are_counted() -> None:
    query = torch.ones(1, 2, 16, 8)
    with torch.inference_mode():
        work = work_of(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))
    assert work.flops == 2 * 2 * 16 * 16 * 8 * 2  # two products, two heads


def test_a_view_moves_nothing_and_a_change_in_place_does() -> None:
    rows = torch.ones(8, 4)
    assert traffic_bytes(((rows,), {}), rows.t(), changes_input=False) == 0
    assert traffic_bytes(((rows, 2.0), None), rows, changes_input=True) == 2 * rows.nbytes
    assert traffic_bytes(([rows, rows],), rows + rows, changes_input=False) == 3 * rows.nbytes


def test_the_machine_has_two_limits() -> None:
    roof = roof_now("cpu", matrix=64, copy_bytes=1 << 16)
    assert roof.flops_per_second > 0
    assert roof.bytes_per_second > 0


def test_the_roof_spans_what_stands_under_it() -> None:
    chart = roofline({"image": [(Work(1e9, 1e9), 0.5), (Work(4e9, 1e9), 0.5)]}, ROOFED)
    assert chart.lines["image"] == ((1.0, 2.0), (4.0, 8.0))
    assert chart.lines[ROOF] == ((0.5, 10.0), (5.0, 100.0), (10.0, 100.0))
    assert chart.limits == (ROOF,)


# --- models -----------------------------------------------------------------------------------------------------------


@given(st.floats(0, 100), st.floats(0.01, 10))
def test_a_batch_runs_as_often_as_fits_into_its_time_and_once_at_least(batch_seconds: float, seconds: float) -> None:
    repeats = models.repeats_for(batch_seconds, seconds)
    assert repeats >= 1
    assert repeats == 1 or (repeats - 1) * batch_seconds < seconds


def test_items_are_the_same_every_time() -> None:
    assert models.sentences(5) == models.sentences(9)[:5]
    first, again = models.windows(2.0, 3), models.windows(2.0, 3)
    assert [len(window) for window in first] == [32_000] * 3
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    assert first[0].dtype == np.int16
    assert np.abs(np.concatenate(first).astype(np.int32)).max() > 5_000


def test_the_best_of_the_rounds_is_the_roof() -> None:
    rounds = [{"flops_per_second": 5.0, "bytes_per_second": 1.0}, {"flops_per_second": 4.0, "bytes_per_second": 2.0}]
    assert models.best_roof([Cost(1.0, 1.0, values) for values in rounds]) == Roof(5.0, 2.0)


@pytest.fixture(scope="module")
def given_options(tiny_models: TinyModels) -> argparse.Namespace:
    sizes = ["--batches", "2", "1", "--speech-batches", "1", "--rounds", "2", "--seconds", "0.01"]
    return parser_for("models").parse_args(["--models", str(tiny_models.directory), *sizes])


@pytest.fixture(scope="module")
def found(given_options: argparse.Namespace) -> Findings:
    return models.measure(given_options)


def test_every_model_is_measured_at_every_size(found: Findings) -> None:
    speed, roof = found.tables
    assert [(str(row[0]).partition(":")[0], row[1]) for row in speed.rows] == [
        ("image", 1), ("image", 2), ("speech", 1), ("text", 1), ("text", 2), ("voice", 1), ("voice", 2)
    ]  # fmt: skip
    assert all(isinstance(row[2], float) and row[2] > 0 for row in speed.rows)
    assert all(isinstance(row[4], float) and row[4] > 0 for row in speed.rows)
    assert [row[1] for row in roof.rows] == [1, 2] * 3
    assert all(isinstance(cell, float) and cell > 0 for row in roof.rows for cell in row[2:])


def test_operations_of_an_item_do_not_hang_on_the_batch(found: Findings) -> None:
    """But for text, where the longest of a batch pads the others."""
    by_model = {str(row[0]): row[2] for row in found.tables[1].rows}
    for row in found.tables[1].rows:
        if not str(row[0]).startswith("text"):
            assert row[2] == pytest.approx(by_model[str(row[0])], rel=0.01)


def test_what_is_not_trained_and_not_counted_is_said(found: Findings) -> None:
    assert [chart.name for chart in found.charts] == ["models", "roofline"]
    assert [line.split(":")[0] for line in found.charts[0].lines] == ["image", "speech", "text", "voice"]
    assert [name.split(":")[0] for name in found.charts[1].lines] == ["image", "text", "voice", ROOF]
    assert [ratio.name.split(":")[0] for ratio in found.ratios] == ["image", "text", "voice"]
    assert any("Its operations are not counted" in note for note in found.notes)
    assert any("untrained" in row for row in map(str, found.tables[0].rows))


def test_a_named_model_is_taken_instead_of_the_small_one(tiny_models: TinyModels) -> None:
    options = parser_for("models").parse_args(["--image", str(tiny_models["siglip"])])
    taken = models.subject("image", options)
    assert taken.model.info.name == "tiny-siglip"
    assert len(taken.batch(100)) == 100
