"""The scenarios in their long form, each with a trial and an undisturbed run of its own, sound and all."""

import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import failpoints
from tests.chaos import scenarios
from tests.chaos.disks import NO_MOUNTS, may_mount, small_disk
from tests.chaos.scenarios import SERVER_SETTINGS, Place, Server
from tests.chaos.subject import TAIL_LINES, DaemonSubject, Surprised
from tests.chaos.trial import Trial

AT_SPOOL = (failpoints.DURING_SPOOL_FLUSH, failpoints.DURING_REPLAY)
AT_START_OR_END = (failpoints.DURING_START, failpoints.DURING_DRAIN)  # reached once in each life
ROUNDS = 3  # of deaths at each place
OUTAGE_SECONDS = 120.0
STOP_SECONDS = 30.0
FULL_SECONDS = 30.0
GROW_SECONDS = 60.0
SWAP_SECONDS = 20.0
CROWD = 10_000


class CannotDisturb(RuntimeError):
    """The system does not let us do it; why."""


@dataclass
class Hall:
    """Where one scenario is played; everything is taken down with `stack`."""

    stack: ExitStack
    directory: Path
    models: Mapping[str, Path]
    sources: list[Path]
    chance: random.Random

    def trial(self, *settings: str) -> Trial:
        """Its trial, with settings."""
        trial = Trial(self.directory, self.models, self.sources, DaemonSubject, settings)
        self.stack.callback(trial.subject.close)
        return trial

    def server(self) -> Server:
        """A store."""
        server = Server(self.directory / "served")
        self.stack.callback(lambda: server.close())
        return server

    def disk(self) -> Path:
        """A disk that can be filled. Raises CannotDisturb."""
        need_mounts()
        return self.stack.enter_context(small_disk(self.directory / "disk"))


def need_mounts() -> None:
    """Raises CannotDisturb where nothing can be mounted."""
    if not may_mount():
        raise CannotDisturb(NO_MOUNTS)


def _deaths(hall: Hall) -> list[str]:
    trial, names = hall.trial(), [name for name in failpoints.NAMES if name not in AT_SPOOL]
    return scenarios.die_at(trial, [_place(hall, name, turn) for turn in range(ROUNDS) for name in names]) + (
        trial.finish()
    )


def _place(hall: Hall, name: str, turn: int) -> Place:
    """Each time later in the life of a process."""
    return name, 1 if name in AT_START_OR_END else hall.chance.randint(1 + 5 * turn, 5 + 5 * turn)


def _deaths_at_spool(hall: Hall) -> list[str]:
    server = hall.server()
    trial = hall.trial(f"store.url={server.url}", *SERVER_SETTINGS)
    places = [(name, hall.chance.randint(1, 2)) for name in AT_SPOOL]
    return scenarios.die_while_away(trial, server, *places) + trial.finish() + scenarios.spooled(trial)


def _outage(hall: Hall) -> list[str]:
    server = hall.server()
    trial = hall.trial(f"store.url={server.url}", *SERVER_SETTINGS)
    return scenarios.outage(trial, server, OUTAGE_SECONDS) + trial.finish() + scenarios.spooled(trial)


def _stopped(hall: Hall) -> list[str]:
    trial = hall.trial()
    return scenarios.stop_each(trial, STOP_SECONDS) + trial.finish()


def _full_store(hall: Hall) -> list[str]:
    disk = hall.disk()
    trial = hall.trial(f"store.path={disk / 'store'}")
    return scenarios.full_store(trial, disk, FULL_SECONDS) + trial.finish()


def _full_spool(hall: Hall) -> list[str]:
    disk, server = hall.disk(), hall.server()
    trial = hall.trial(f"store.url={server.url}", f"run.state={disk / 'state'}", *SERVER_SETTINGS)
    return scenarios.full_spool(trial, server, disk, FULL_SECONDS) + trial.finish() + scenarios.spooled(trial)


def _grow(hall: Hall) -> list[str]:
    trial = hall.trial()
    return scenarios.grow(trial, GROW_SECONDS) + trial.finish()


def _swap(hall: Hall) -> list[str]:
    need_mounts()
    trial = hall.trial("watch.on_delete=remove")
    return scenarios.swap(trial, SWAP_SECONDS) + trial.finish()


def _crowd(hall: Hall) -> list[str]:
    trial = hall.trial()
    return scenarios.crowd(trial, CROWD) + trial.finish()


LONG: Mapping[str, Callable[[Hall], list[str]]] = {
    "deaths": _deaths,
    "deaths-at-spool": _deaths_at_spool,
    "outage": _outage,
    "stopped": _stopped,
    "full-store": _full_store,
    "full-spool": _full_spool,
    "grow": _grow,
    "swap": _swap,
    "crowd": _crowd,
}


def _logs(home: Path) -> list[str]:
    """How the logs of all daemons end."""
    return [f"{path.parent.name}: {line}" for path in home.glob("*/log") for line in _tail(path)]


def _tail(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]


def play(name: str, directory: Path, models: Any, sources: list[Path], seed: int) -> list[str]:
    """One scenario of LONG: what is wrong, a line each. Leaves nothing behind. Raises CannotDisturb."""
    home = directory / name
    home.mkdir()
    try:
        with ExitStack() as stack:
            return LONG[name](Hall(stack, home, models, sources, random.Random(f"{seed} {name}")))
    except (Surprised, TimeoutError) as error:
        return [str(error), *_logs(home)]
    finally:
        shutil.rmtree(home)
