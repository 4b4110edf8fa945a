"""One trial: index a workload while something goes wrong, and compare with a run in which nothing did."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from engine.config import load_config
from engine.search import all_points
from stages.store import SPEAKERS
from tests.chaos.compare import Point, differences
from tests.chaos.killer import Say, kill_by
from tests.chaos.schedule import Kill
from tests.chaos.subject import ORPHAN_SECONDS, IngestSubject, Subject, wait_until
from tests.chaos.videos import Workload
from tests.chaos.witness import Sighting, testify
from tests.runs import settings_for

# Small spans are many tasks. Kills from outside accuse no file and no item, so none may be given up for them.
SETTINGS = (
    "decode.span_seconds=5", "decode.fps=2", "decode.processes=2", "run.attempts=1000", "run.engine_restarts=1000",
    "run.backoff_seconds=0.1", "run.backoff_max_seconds=0.5",
)  # fmt: skip

MakeSubject = Callable[[Path, Sequence[str], Path], Subject]


@dataclass
class Trial:
    """A workload, a subject that works on it, and its store; everything lies below `directory`."""

    directory: Path
    models: Any  # directories of the tiny models, by family
    sources: list[Path]
    make: MakeSubject = IngestSubject
    more: Sequence[str] = ()  # settings
    finish_seconds: float = 3600.0  # to do what is left, and again for the undisturbed run
    common: Sequence[str] = SETTINGS  # settings of the undisturbed run, too
    undisturbed: "Reference | None" = None  # where several trials are compared with one run
    workload: Workload = field(init=False)
    subject: Subject = field(init=False)
    sightings: list[Sighting] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workload = Workload(self.directory / "watched", self.sources)
        self.workload.add_wave()
        self.subject = self._subject("subject", self.more)

    def _subject(self, name: str, more: Sequence[str]) -> Subject:
        home = self.directory / name
        home.mkdir(parents=True)
        settings = [*settings_for(self.models, home), *self.common, *more]
        return self.make(self.workload.directory, settings, home / "log")

    def kill_by(self, schedule: Iterable[Kill], say: Say) -> None:
        """Make every kill of the schedule. Raises Surprised, TimeoutError."""
        kill_by(schedule, self.subject, self.workload, say, self._look)

    def _look(self, kill: Kill) -> None:
        """After every other death of the supervisor: the other times, the next start meets what the dead left open."""
        if kill.kind == "supervisor" and kill.pick % 2:
            wait_until(lambda: not self.subject.is_running, 2 * ORPHAN_SECONDS, "the end of a killed subject")
            self.sightings.append(testify(str(kill), self.subject.settings, self.directory))

    @property
    def promises(self) -> str:
        """How much was looked at, in words."""
        count = sum(len(each.done) for each in self.sightings)
        ids = sum(len(each.stored) for each in self.sightings)
        return (
            f"{count} parts called done and {ids} stored points looked at in {len(self.sightings)} stores of the dead"
        )

    def finish(self) -> list[str]:
        """Let the subject do what is left, and compare: what is wrong, a line each.

        Raises:
            Surprised, TimeoutError: it does not come to its end.
        """
        self.subject.stop(self.finish_seconds)
        found, reference = stored(self.subject), self.reference()
        return [
            *differences(reference, found),
            *(line for each in self.sightings for line in each.broken_promises(reference)),
            *(line for each in self.sightings for line in each.forgotten(point["id"] for point in found)),
        ]

    def reference(self) -> list[dict[str, Any]]:
        """The points of an undisturbed run over the same files."""
        if self.undisturbed is not None:
            return self.undisturbed.points_in(self.workload)
        undisturbed = self._subject("undisturbed", ())
        undisturbed.ensure_running()
        try:
            undisturbed.stop(self.finish_seconds)
        finally:
            undisturbed.close()
        return stored(undisturbed)


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run over the first waves of some sources has stored."""

    waves: int
    points: Sequence[Point]

    @classmethod
    def of(cls, trial: Trial, waves: int) -> Self:
        """Run it, in place of a trial."""
        while trial.workload.waves < waves:
            trial.workload.add_wave()
        return cls(waves, trial.reference())

    def points_in(self, workload: Workload) -> list[dict[str, Any]]:
        """The points of the files that are in another directory, of the same sources, as if they had lain there."""
        if workload.waves > self.waves:
            raise ValueError(f"the reference has {self.waves} waves, and there are {workload.waves}")
        places = [(point, workload.directory / Path(point["payload"]["path"]).name) for point in self.points]
        return [{**point, "payload": point["payload"] | {"path": str(path)}} for point, path in places if path.exists()]


def stored(subject: Subject) -> list[dict[str, Any]]:
    """Every point in its store, the voices of its videos among them. It must have ended."""
    config = load_config(settings=subject.settings)
    return [*all_points(config, None, True), *all_points(config, SPEAKERS, True)]
