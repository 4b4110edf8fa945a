"""Kills at random moments: `python -m tests.chaos.chaos --kills 200 --seed 1`; see docs/chaos.md.

Exit code 0: nothing was lost or doubled. 1: something was; it is listed, with the seed.
"""

import argparse
import secrets
import signal
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from stages.tiny import build_tiny
from tests.chaos.schedule import schedule
from tests.chaos.subject import DaemonSubject, IngestSubject, Surprised
from tests.chaos.trial import Trial
from tests.chaos.videos import LONG, sources_in

SUBJECTS = {"daemon": DaemonSubject, "ingest": IngestSubject}
LONGEST_PAUSE_SECONDS = 8.0  # of work between two kills


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left behind
    options = _options()
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:8.2f} {line}", file=sys.stderr, flush=True)

    say(f"seed {options.seed}, {options.kills} kills, subject {options.subject}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        directory = Path(name)
        models = build_tiny(directory / "models", ("clip", "whisper", "ecapa"))
        trial = Trial(
            directory, models, sources_in(directory / "sources", LONG, options.real), SUBJECTS[options.subject]
        )
        kills = islice(schedule(options.seed, LONGEST_PAUSE_SECONDS), options.kills)
        try:
            trial.kill_by(kills, say)
            say(f"{trial.workload.waves} waves of videos, {trial.subject.starts} starts; now it may finish")
            wrong = trial.finish()
            say(trial.promises)
        except (Surprised, TimeoutError) as error:
            wrong = [str(error)]
        finally:
            trial.subject.close()
    print("\n".join(wrong))
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="default: a new one")
    parser.add_argument("--subject", choices=tuple(SUBJECTS), default="daemon")
    parser.add_argument("--real", action="store_true", help="index the files of ../shared/media, too, where they are")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
