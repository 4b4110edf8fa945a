"""Kills at random moments, then every other disturbance: `python -m tests.chaos.chaos --kills 200 --seed 1`.

Prints a line for each, and what is wrong below it; see docs/chaos.md. Exit code 0: nothing was lost or doubled. 1:
something was.
"""

import argparse
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from stages.tiny import build_tiny
from tests.chaos.long import LONG, CannotDisturb, play
from tests.chaos.schedule import schedule
from tests.chaos.subject import DaemonSubject, IngestSubject, RealIngestSubject, Surprised
from tests.chaos.trial import MakeSubject, Trial
from tests.chaos.videos import LONG as LONG_VIDEOS
from tests.chaos.videos import SHORT, sources_in

LONGEST_PAUSE_SECONDS = 8.0  # of work between two kills
KILLS, SCENARIOS = "kills", "scenarios"


@dataclass
class Session:
    """What was asked for, where it is done, and what came of it."""

    options: argparse.Namespace
    directory: Path
    begin: float = field(default_factory=time.monotonic)
    failed: bool = False

    def say(self, line: str) -> None:
        """What happens, for whoever waits."""
        print(f"{time.monotonic() - self.begin:8.2f} {line}", file=sys.stderr, flush=True)

    def result(self, name: str, wrong: list[str], since: float) -> None:
        """What came of it: one line, and those of what is wrong."""
        self.failed |= bool(wrong)
        verdict = f"WRONG {len(wrong)}" if wrong else "ok"
        print("\n".join([f"{verdict:8} {name} ({time.monotonic() - since:.0f} s)", *wrong]), flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left behind
    options = options_of(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        session = Session(options, Path(name))
        session.say(f"seed {options.seed}")
        models = build_tiny(session.directory / "models", ("clip", "whisper", "ecapa"))
        if kills_of(options):
            _kill(session, models)
        _disturb(session, models, list(scenarios_of(options)))
    return 1 if session.failed else 0


def _kill(session: Session, models: Any) -> None:
    options, since = session.options, time.monotonic()
    sources = sources_in(session.directory / "sources", LONG_VIDEOS, options.real)
    trial = Trial(session.directory, models, sources, _subject(options))
    try:
        trial.kill_by(islice(schedule(options.seed, LONGEST_PAUSE_SECONDS), options.kills), session.say)
        session.say(f"{trial.workload.waves} waves of videos, {trial.subject.starts} starts; now it may finish")
        wrong = trial.finish()
        session.say(trial.promises)
    except (Surprised, TimeoutError) as error:
        wrong = [str(error)]
    finally:
        trial.subject.close()
    session.result(f"{options.kills} kills of {options.subject}, seed {options.seed}", wrong, since)


def _subject(options: argparse.Namespace) -> MakeSubject:
    if options.subject == "daemon":
        return DaemonSubject
    return RealIngestSubject if options.real else IngestSubject


def kills_of(options: argparse.Namespace) -> int:
    """How many kills were asked for."""
    return int(options.kills) if options.only in (None, KILLS) else 0


def scenarios_of(options: argparse.Namespace) -> Iterator[str]:
    """Which scenarios were asked for."""
    return (name for name in LONG if options.only in (None, SCENARIOS, name))


def _disturb(session: Session, models: Any, names: list[str]) -> None:
    sources = sources_in(session.directory / "short", SHORT) if names else []
    for name in names:
        since = time.monotonic()
        session.say(f"scenario {name}")
        try:
            session.result(name, play(name, session.directory, models, sources, session.options.seed), since)
        except CannotDisturb as error:
            print(f"{'left out':8} {name}: {error}", flush=True)


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line, read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="default: a new one")
    parser.add_argument("--subject", choices=("daemon", "ingest"), default="daemon", help="of the kills")
    parser.add_argument("--real", action="store_true", help="kill into the files of ../shared/media, too, if there")
    parser.add_argument("--only", choices=(KILLS, SCENARIOS, *LONG), help="default: the kills, then all scenarios")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
