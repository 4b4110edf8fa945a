"""A failpoint kills once, at the count it was set to, and nothing without its variable."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from engine import failpoints

ROOT = Path(__file__).parents[1]
SCRIPT = (
    "from engine.failpoints import reach\nfor _ in range(3):\n    reach('before-upsert')\n    print('past', flush=True)"
)


def run(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    if setting is not None:
        environment[failpoints.VARIABLE] = setting
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_nothing_happens_without_the_variable() -> None:
    done = run(None)
    assert (done.returncode, done.stdout.count("past")) == (0, 3)


def test_the_process_dies_at_the_count_and_its_successor_goes_on(tmp_path: Path) -> None:
    setting = f"before-upsert:2:{tmp_path / 'done'}"
    first, second = run(setting), run(setting)
    assert (first.returncode, first.stdout.count("past")) == (-signal.SIGKILL, 1)
    assert (second.returncode, second.stdout.count("past")) == (0, 3)


def test_other_places_are_passed(tmp_path: Path) -> None:
    assert run(f"after-upsert:1:{tmp_path / 'done'}").returncode == 0
