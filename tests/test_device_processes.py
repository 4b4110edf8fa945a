"""Whole runs on the simulated device: models taking turns, a context that is lost, memory that does not come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media_factory import make_video
from tests.runs import Meddler, run_supervisor, settings_for, stored_points

RUN = ("decode.fps=10", "decode.span_seconds=5")


@pytest.fixture(scope="module")
def expected(sample_video: Path, tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The points of a run with memory enough."""
    settings = settings_for(tiny_models, tmp_path_factory.mktemp("expected"), *RUN)
    run_supervisor([sample_video], settings, Meddler())
    return stored_points(settings)


WHITE = 17  # number of the frame that poisons


def one_white(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Grey pictures, one of them white."""
    return np.full((height, width, 3), 255 if number == WHITE else 60, np.uint8)


def on_card(tiny_models: Any, tmp_path: Path, card: str, *more: str) -> list[str]:
    """Settings of a run on a simulated card."""
    file = tmp_path / "card.toml"
    file.write_text(card, "utf-8")
    settings = settings_for(tiny_models, tmp_path, *RUN, "device.name=simulated", f"device.simulation={file}", *more)
    return [setting for setting in settings if setting != "device.name=cpu"]


def test_models_that_do_not_fit_together_take_turns_and_give_the_same_points(
    sample_video: Path, tiny_models: Any, tmp_path: Path, expected: dict[str, Any]
) -> None:
    settings = on_card(tiny_models, tmp_path, "total_gb = 1.2")
    report = run_supervisor([sample_video], settings, Meddler())
    totals = report["totals"]
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert set(stored_points(settings)) == set(expected)
    assert totals["model_changes"] > 0
    assert totals["oom_events"] == totals["engine_restarts"] == 0
    assert 0 < totals["peak_device_bytes"] <= totals["device_budget_bytes"]


def test_an_item_that_poisons_the_device_fails_alone_by_name(tiny_models: Any, tmp_path: Path) -> None:
    """Two restarts: the first engine names its batch, the second, which runs those one by one, the item."""
    video = make_video(tmp_path / "video.mkv", fps=5, seconds=8, paint=one_white)
    card = 'total_gb = 8\n[[faults]]\nrole = "image"\nkind = "device-lost"\nmean_above = 200.0\n'
    meddler = Meddler()
    report = run_supervisor([video], on_card(tiny_models, tmp_path, card, "decode.fps=5"), meddler)
    (row,) = report["videos"]
    assert row["frames"] == 39
    (failure,) = row["failures"]
    assert failure["start_seconds"] == pytest.approx(WHITE / 5, abs=0.05)
    assert failure["code"] == "device-lost"
    assert "illegal memory access" in failure["message"]
    assert row["status"] == "partial"
    assert report["totals"]["engine_restarts"] == 2
    assert sum("illegal memory access" in phase for phase in meddler.phases) == 2


def test_memory_that_does_not_come_back_costs_a_restart_and_no_item(
    sample_video: Path, tiny_models: Any, tmp_path: Path, expected: dict[str, Any]
) -> None:
    """A library takes all that is left while the frame embedder is away; then that one finds no room to come back."""
    card = "total_gb = 4\n[costs.image]\nweights_mb = 2500\nbatch_mb = 20\nitem_mb = 3\n"
    card += '[[faults]]\nrole = "voice"\nkind = "leak"\nbatches = [1]\n'
    settings = on_card(tiny_models, tmp_path, card)
    report = run_supervisor([sample_video], settings, Meddler())
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert set(stored_points(settings)) == set(expected)
    assert report["totals"]["engine_restarts"] > 0


def test_injected_failures_lose_nothing(
    sample_video: Path, tiny_models: Any, tmp_path: Path, expected: dict[str, Any]
) -> None:
    fault = '[[faults]]\nrole = "{}"\nkind = "out-of-memory"\nbatches = [1, 2, 4, 5, 9]\n'
    card = "total_gb = 8\n" + "".join(fault.format(role) for role in ("image", "speech", "text", "voice"))
    settings = on_card(tiny_models, tmp_path, card)
    report = run_supervisor([sample_video], settings, Meddler())
    (row,) = report["videos"]
    assert row["status"] == "indexed"
    assert set(stored_points(settings)) == set(expected)
    assert row["oom_events"] > 4
    assert report["totals"]["oom_events"] > 4
