"""Kills, by a schedule, and keeps the subject at work until all were made."""

import time
from collections.abc import Callable, Iterable

from tests.chaos.processes import Process
from tests.chaos.schedule import Kill
from tests.chaos.subject import LOOK_SECONDS, Subject
from tests.chaos.videos import Workload

VICTIM_SECONDS = 120.0  # by then a process of every kind is there; back-off counts in

Say = Callable[[str], None]


def kill_by(
    schedule: Iterable[Kill], subject: Subject, workload: Workload, say: Say, look: Callable[[Kill], None]
) -> None:
    """Make every kill of the schedule, on a subject that has something to do. `look` is called after each.

    Raises:
        TimeoutError: there was no process of the kind.
        Surprised: it ended otherwise than it may.
    """
    for kill in schedule:
        if not kill.soon:
            _await_work(subject, workload)
        _pause(kill.delay_seconds, subject, workload)
        victim = _strike(kill, subject, workload)
        say(f"{kill}: process {victim.pid} of start {subject.starts}")
        look(kill)


def _await_work(subject: Subject, workload: Workload) -> None:
    """Wait until its models are loaded, and there is something to do."""
    until = time.monotonic() + VICTIM_SECONDS
    while not subject.is_at_work:
        if time.monotonic() > until:
            raise TimeoutError(f"not at work within {VICTIM_SECONDS:.0f} s; it runs {subject.processes()}")
        time.sleep(LOOK_SECONDS)
        keep_busy(subject, workload)


def _pause(seconds: float, subject: Subject, workload: Workload) -> None:
    """Wait; what ends meanwhile is started again."""
    until = time.monotonic() + seconds
    keep_busy(subject, workload)
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(LOOK_SECONDS, left))
        keep_busy(subject, workload)


def keep_busy(subject: Subject, workload: Workload) -> None:
    """It runs, and has something to do."""
    if subject.is_idle():
        workload.add_wave()
    subject.ensure_running()


def _strike(kill: Kill, subject: Subject, workload: Workload) -> Process:
    """Wait for a process of the kind, and kill it."""
    until = time.monotonic() + VICTIM_SECONDS
    while time.monotonic() < until:
        if (found := subject.processes(kill.kind)) and subject.kill(victim := found[kill.pick % len(found)]):
            return victim
        time.sleep(LOOK_SECONDS)
        keep_busy(subject, workload)
    raise TimeoutError(f"{kill}: no {kill.kind} within {VICTIM_SECONDS:.0f} s; it runs {subject.processes()}")
