"""Whole runs of which processes are killed, in short; `make chaos` does it for long. See docs/chaos.md."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.schedule import schedule
from tests.chaos.subject import DaemonSubject, IngestSubject
from tests.chaos.trial import MakeSubject, Trial
from tests.chaos.videos import SHORT, sources_in

SEED = 4
KILLS = 4  # one of each kind
FINISH_SECONDS = 75.0


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sources_in(tmp_path_factory.mktemp("sources"), SHORT)


Begin = Callable[..., Trial]


@pytest.fixture
def begin(sources: list[Path], tiny_models: Any, tmp_path: Path) -> Iterator[Begin]:
    """Makes a trial of a subject, with settings; it leaves no process behind."""
    trials: list[Trial] = []

    def make(subject: MakeSubject, *settings: str) -> Trial:
        trials.append(Trial(tmp_path, tiny_models, sources, subject, settings, FINISH_SECONDS))
        return trials[-1]

    yield make
    for trial in trials:
        trial.subject.close()


@pytest.mark.parametrize("subject", [IngestSubject, DaemonSubject])
def test_who_is_killed_again_and_again_ends_with_the_same_points(begin: Begin, subject: MakeSubject) -> None:
    trial = begin(subject)
    trial.kill_by(islice(schedule(SEED, longest_seconds=2.0), KILLS), print)
    assert trial.finish() == []
    assert trial.subject.starts > 1
