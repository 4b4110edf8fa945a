"""An hour of short videos: `python -m tests.chaos.soak --minutes 60`; see docs/chaos.md.

Feeds a daemon with videos of ever new content, takes old ones away, and samples what each process holds. Prints the
slopes after the warm-up. Exit code 1: something rises, or a process was started again.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

from stages.tiny import build_tiny
from tests.chaos.processes import figures, shared_memory
from tests.chaos.slopes import Slope, after_warm_up, slope
from tests.chaos.subject import DaemonSubject, Surprised
from tests.chaos.trial import Trial
from tests.chaos.videos import SHORT, sources_in

WARM_UP_SECONDS = 600.0  # caches fill, allocators find their size, batches theirs
SAMPLE_SECONDS = 2.0
KEPT_WAVES = 3  # of videos; older ones are deleted, and their points with them
START_SECONDS = 300.0
TOLD_ONLY = ("rss_mb",)  # with the pages of mapped files, such as the store's: the system takes those when it likes

Key = tuple[str, str]  # whose figure, which


@dataclass
class Samples:
    """Figures over time: the same times for all, for what is there from the first sample to the last."""

    seconds: list[float] = field(default_factory=list)
    values: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    pids: dict[str, int] = field(default_factory=dict)
    restarts: list[str] = field(default_factory=list)
    shared_memory: set[Path] = field(default_factory=set)  # what they ever had of it

    def take(self, subject: DaemonSubject, now_seconds: float) -> None:
        """One sample of every process."""
        self.seconds.append(now_seconds)
        counts: dict[str, int] = defaultdict(int)
        for process in subject.processes():
            if process.kind:
                name = f"{process.kind} {counts[process.kind]}" if process.kind == "decoder" else process.kind
                counts[process.kind] += 1
                self._take_process(name, process.pid)
        self._take_shared_memory(subject)

    def _take_process(self, name: str, pid: int) -> None:
        if self.pids.setdefault(name, pid) != pid:
            self.restarts.append(f"{name}: process {self.pids[name]} became {pid}")
            self.pids[name] = pid
        for figure, value in figures(pid).items():
            self.values[name, figure].append(value)

    def _take_shared_memory(self, subject: DaemonSubject) -> None:
        """What they have of /dev/shm, and what they had that is still there: other people use it, too."""
        now = {path for process in subject.processes() for path in shared_memory(process.pid)}
        self.shared_memory |= now
        left = {path for path in self.shared_memory - now if path.exists()}
        self.values["all", "/dev/shm entries"].append(float(len(now | left)))

    def slopes(self, warm_up_seconds: float) -> dict[Key, Slope]:
        """After the warm-up, of every figure that every sample has."""
        first = after_warm_up(self.seconds, warm_up_seconds)
        whole = {key: values for key, values in self.values.items() if len(values) == len(self.seconds)}
        return {key: slope(self.seconds[first:], values[first:]) for key, values in whole.items()}


def table(slopes: dict[Key, Slope]) -> str:
    """One line for each figure."""
    lines = [f"{'process':12} {'figure':18} {'first':>9} {'last':>9} {'per hour':>10}  {'95 % of it':^21}"]
    for (process, figure), found in sorted(slopes.items()):
        interval = f"{found.low:+10.2f} {found.high:+10.2f}"
        lines.append(
            f"{process:12} {figure:18} {found.first:9.1f} {found.last:9.1f} {found.per_hour:+10.2f}  {interval}  "
            f"{found.verdict}"
        )
    return "\n".join(lines)


def soak(trial: Trial, subject: DaemonSubject, seconds: float) -> Samples:
    """Feed and sample. Raises Surprised, TimeoutError."""
    samples, waves = Samples(), deque([list(trial.workload.directory.iterdir())])
    subject.ensure_running()
    subject.wait_idle(START_SECONDS)
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        if subject.is_idle():
            waves.append(trial.workload.add_wave())
            for path in waves.popleft() if len(waves) > KEPT_WAVES else ():
                path.unlink()
        samples.take(subject, now)
        if not subject.is_running:
            subject.check()
        time.sleep(SAMPLE_SECONDS)
    return samples


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left behind
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        models = build_tiny(directory / "models", ("clip", "whisper", "ecapa"))
        sources = sources_in(directory / "sources", SHORT)
        # No decoder is replaced for its age: what it gathers is what is looked for.
        more = ("watch.on_delete=remove", "decode.recycle_tasks=none")
        trial = Trial(directory, models, sources, DaemonSubject, more)
        assert isinstance(trial.subject, DaemonSubject)
        try:
            samples = soak(trial, trial.subject, options.minutes * 60)
        except (Surprised, TimeoutError) as error:
            print(error)
            return 1
        finally:
            trial.subject.close()
    slopes = samples.slopes(WARM_UP_SECONDS)
    print(table(slopes))
    print("\n".join(samples.restarts) or "no process was started again")
    print(f"{len(samples.seconds)} samples, {trial.workload.waves * len(sources)} videos")
    rising = [key for key, found in slopes.items() if found.rises and key[1] not in TOLD_ONLY]
    return 1 if samples.restarts or rising else 0


if __name__ == "__main__":
    sys.exit(main())
