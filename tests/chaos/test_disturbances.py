"""Whatever else goes wrong, in short; `make chaos` does it for long. See docs/chaos.md.

Pictures only: sound is for test_chaos.py, and starts are faster without. All are compared with one undisturbed run.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import failpoints
from tests.chaos import scenarios
from tests.chaos.disks import NO_MOUNTS, may_mount, small_disk
from tests.chaos.scenarios import SERVER_SETTINGS, Place, Server
from tests.chaos.subject import DaemonSubject
from tests.chaos.trial import SETTINGS, Reference, Trial
from tests.chaos.videos import sources_in

VIDEOS = (("a.mp4", 20.0), ("b.ts", 6.0))
PICTURES_ONLY = (*SETTINGS, "models.text=off", "daemon.search=false", "watch.scan_seconds=1")
WAVES = 14  # more than any of them makes
FINISH_SECONDS = 100.0

needs_mounts = pytest.mark.skipif(not may_mount(), reason=NO_MOUNTS)


class Stage:
    """Where trials are made: with the same sources, models and reference."""

    def __init__(self, directory: Path, clip: Path) -> None:
        self._models = {"clip": clip, "whisper": "off", "ecapa": "off"}
        self._sources = sources_in(directory / "sources", VIDEOS)
        self._reference: Reference | None = None
        self._reference = Reference.of(self.trial(directory / "reference"), WAVES)

    def trial(self, directory: Path, *more: str) -> Trial:
        """A new one."""
        settings = [*more, "models.voice=off"]
        return Trial(
            directory, self._models, self._sources, DaemonSubject, settings, FINISH_SECONDS, PICTURES_ONLY,
            self._reference,
        )  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_models: Any) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"), tiny_models["clip"])


Begin = Callable[..., Trial]


@pytest.fixture
def begin(stage: Stage, tmp_path: Path) -> Iterator[Begin]:
    """Makes a trial, with settings; it leaves no process behind."""
    trials: list[Trial] = []

    def make(*settings: str) -> Trial:
        trials.append(stage.trial(tmp_path, *settings))
        return trials[-1]

    yield make
    for trial in trials:
        trial.subject.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    served = Server(tmp_path / "served")
    yield served
    served.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as directory:
        yield directory


OF_SUPERVISOR = ((failpoints.BEFORE_COMMIT, 4), (failpoints.AFTER_COMMIT, 5), (failpoints.DURING_DRAIN, 1))
OF_CHILDREN = (
    (failpoints.BEFORE_UPSERT, 2),
    (failpoints.AFTER_UPSERT, 2),
    (failpoints.BEFORE_CREDIT, 2),
    (failpoints.DURING_START, 1),
)
OF_SPOOL = ((failpoints.DURING_SPOOL_FLUSH, 1), (failpoints.DURING_REPLAY, 1))


def test_every_place_has_its_turn() -> None:
    assert {name for name, _ in (*OF_SUPERVISOR, *OF_CHILDREN, *OF_SPOOL)} == set(failpoints.NAMES)


@pytest.mark.parametrize("places", [OF_SUPERVISOR, OF_CHILDREN], ids=["supervisor", "children"])
def test_whoever_dies_between_two_steps_leaves_nothing_lost_or_doubled(begin: Begin, places: tuple[Place, ...]) -> None:
    trial = begin()
    assert scenarios.die_at(trial, places) == []
    assert trial.finish() == []


def test_a_store_that_is_away_in_every_way_gets_all_points_when_it_is_back(begin: Begin, server: Server) -> None:
    """Twice: first the consumer dies at its spool, too."""
    trial = begin(f"store.url={server.url}", *SERVER_SETTINGS)
    flush, replay = OF_SPOOL
    assert scenarios.die_while_away(trial, server, flush, replay) == []
    assert scenarios.outage(trial, server, seconds=2.0) == []
    assert trial.finish() == []
    assert scenarios.spooled(trial) == []


def test_processes_that_stand_still_for_a_while_hold_up_and_change_nothing(begin: Begin) -> None:
    trial = begin("run.stall_seconds=2")
    assert scenarios.stop_each(trial, seconds=2.5) == []
    assert trial.finish() == []


def test_a_file_that_grows_among_ten_thousand_others_is_indexed_once(begin: Begin) -> None:
    trial = begin()
    assert scenarios.crowd(trial, 10_000) == []
    assert scenarios.grow(trial, seconds=2.0) == []
    assert trial.finish() == []


@needs_mounts
def test_a_root_that_is_hidden_by_an_empty_mount_loses_nothing(begin: Begin) -> None:
    trial = begin("watch.on_delete=remove")
    assert scenarios.swap(trial, seconds=1.5) == []
    assert trial.finish() == []


@needs_mounts
def test_a_full_disk_of_store_and_ledger_is_said_and_waited_for(begin: Begin, disk: Path) -> None:
    trial = begin(f"store.path={disk / 'store'}")
    assert scenarios.full_store(trial, disk, seconds=2.0) == []
    assert trial.finish() == []


@needs_mounts
def test_a_full_disk_of_spool_and_ledger_is_said_and_waited_for(begin: Begin, server: Server, disk: Path) -> None:
    trial = begin(f"store.url={server.url}", f"run.state={disk / 'state'}", *SERVER_SETTINGS)
    assert scenarios.full_spool(trial, server, disk, seconds=2.0) == []
    assert trial.finish() == []
    assert scenarios.spooled(trial) == []
