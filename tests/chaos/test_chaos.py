"""Whole runs of which processes are killed, in short; `make chaos` does it for long. See docs/chaos.md."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.schedule import schedule
from tests.chaos.trial import Trial
from tests.chaos.videos import SHORT, sources_in

SEED = 4
KILLS = 4  # one of each kind


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sources_in(tmp_path_factory.mktemp("sources"), SHORT)


def test_ingest_that_is_killed_again_and_again_ends_with_the_same_points(
    sources: list[Path], tiny_models: Any, tmp_path: Path
) -> None:
    trial = Trial(tmp_path, tiny_models, sources)
    try:
        trial.kill_by(islice(schedule(SEED, longest_seconds=4.0), KILLS), print)
        assert trial.finish() == []
    finally:
        trial.subject.close()
    assert trial.subject.starts > 1
