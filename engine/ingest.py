"""The ingest command: a run over files, its summary and its report file."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import ConfigError, ExitCode
from engine.files import find_files
from engine.profile import Profile, lines_of
from engine.progress import clock, observer_for, row_line
from engine.supervisor import Supervisor
from engine.trace_observer import recording


def ingest(
    config: Config,
    paths: Sequence[bytes],
    report_file: Path | None,
    as_json: bool,
    debug: bool,
    *,
    profiled: bool = False,
    trace_file: Path | None = None,
) -> ExitCode:
    """Index the files and print what became of them.

    profiled: say what held the run up. trace_file: record there what every process does.

    Raises:
        SluiceError: a component could not start or go on, or a setting is wrong; then there is no report.
    """
    if report_file is not None:
        _check_writable(report_file)
    with observer_for(sys.stderr) as display, recording(trace_file, display) as (observer, trace):
        profile = Profile(observer)
        supervisor = Supervisor(config, profile, debug)
        supervisor.trace = trace
        report = supervisor.run(find_files(paths, config.run.extensions))
    if profiled:
        ready = supervisor.recovery.first
        report["profile"] = profile.report(supervisor.peaks, ready.device if ready is not None else None)
    print(json.dumps(report, ensure_ascii=False) if as_json else summary(report))
    if profiled:
        print(*lines_of(report["profile"]), sep="\n", file=sys.stderr)
    if report_file is not None:
        _write(report_file, report)
    if supervisor.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.SOME_FAILED if any(row["error"] for row in report["videos"]) else ExitCode.OK


def summary(report: dict[str, Any]) -> str:
    """The run in a few lines: totals, then every video that is not wholly indexed, with the reason."""
    totals = report["totals"]
    states = ", ".join(f"{totals[state]} {state}" for state in ("indexed", "partial", "unchanged", "failed"))
    count = f"{totals['videos']} video{'s' * (totals['videos'] != 1)}"
    lines = [f"{count}: {states}; {totals['points']} points written"]
    if totals["media_seconds"]:
        lines.append(
            f"{clock(totals['media_seconds'])} of media in {clock(totals['wall_seconds'])}: "
            f"{totals['hours_per_hour']} hours/hour, RTF {totals['rtf']}"
        )
    if count := totals["engine_restarts"]:
        lines.append(f"the engine died and was started again {count} time{'s' * (count != 1)}")
    lines += [f"  {row_line(row)}" for row in report["videos"] if row["status"] in ("partial", "failed")]
    return "\n".join(lines)


def _check_writable(file: Path) -> None:
    """A report that cannot be written is said before hours of work, not after them."""
    directory = file.parent
    if not directory.is_dir() or not os.access(directory, os.W_OK) or file.is_dir():
        raise ConfigError(
            "bad-report", f"--report {file}: cannot be written there; name a file in a writable directory"
        )


def _write(file: Path, report: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a report."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise ConfigError("bad-report", f"--report {file}: {error.strerror}; the videos are indexed") from error
