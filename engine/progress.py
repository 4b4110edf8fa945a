"""Who watches a run: a live display on a terminal, plain lines otherwise. Both write to standard error."""

import sys
import time
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.pace import Rates, media_progress, share_done
from engine.report import Peaks
from engine.tasks import Board

MAX_ROWS = 8  # videos shown at once
PLAIN_SECONDS = 10.0  # between plain progress lines


def clock(seconds: float | None) -> str:
    """Seconds as h:mm:ss or m:ss."""
    if seconds is None:
        return "-:--"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def row_line(row: dict[str, Any]) -> str:
    """A finished video in one line."""
    parts = [f"{row['status']:9}", str(row["path"])]
    error = f"{row['error']['code']}: {row['error']['message']}" if row["error"] else None
    if error is not None:
        parts.append(f"- {error}")
    if row["status"] in ("indexed", "partial"):
        counts = f"{row['frames']} frames, {row['speech_segments']} speech, {row['voice_segments']} voice"
        parts.append(f"- {counts}, {clock(row['duration_seconds'])} in {row['wall_seconds']:.1f} s")
    parts += [_gap(gap, error) for gap in row["gaps"][:3]]
    if len(row["gaps"]) > 3:
        parts.append(f"[and {len(row['gaps']) - 3} more gaps]")
    return " ".join(parts)


def _gap(gap: dict[str, Any], error: str | None) -> str:
    """When, and why unless the line has said it already."""
    why = "" if gap["reason"] == error else f": {gap['reason']}"
    return f"[gap {gap['start_seconds']:.1f}-{gap['end_seconds']:.1f} s{why}]"


def stage_line(peaks: Peaks) -> str:
    """What each stage is doing, in one line."""
    parts = []
    if peaks.engine is not None:
        for role, model in peaks.engine.models.items():
            parts.append(f"{role} {model.items} done, {model.queued_items} queued")
        parts.append(f"host {peaks.engine.host_bytes / 1e6:.0f} MB")
    if peaks.consumer is not None:
        parts.append(f"store {peaks.consumer.points} points, {peaks.consumer.state}")
    return " · ".join(parts)


class PlainObserver:
    """One line for each event, and now and then one for the whole."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rates = Rates(time.monotonic())
        self._last_seconds = time.monotonic()
        self._store_state = ""

    def phase(self, text: str) -> None:
        """What the run as a whole is doing."""
        self._print(text)

    def note(self, text: str) -> None:
        """Something that whoever started the run should know."""
        self._print(f"note: {text}")

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""
        if row["status"] in ("indexed", "partial"):
            self._rates.finished_media_seconds += row["duration_seconds"] or 0.0
        self._print(row_line(row))

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        now = time.monotonic()
        state = peaks.consumer.state if peaks.consumer else ""
        if state.startswith("waiting") and state != self._store_state:
            self._print(f"store {state}")
        self._store_state = state
        if board is None or now - self._last_seconds < PLAIN_SECONDS:
            return
        self._last_seconds = now
        done, total = media_progress(list(board.jobs.values()), self._rates.finished_media_seconds)
        rate, eta = self._rates.hours_per_hour(done, now), self._rates.eta_seconds(done, total, now)
        self._print(
            f"{clock(done)} of {clock(total)} media, {rate:.1f} hours/hour, ETA {clock(eta)}, "
            f"{rows} videos finished · {stage_line(peaks)}"
        )

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> "PlainObserver":
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class LiveObserver:
    """A table that is redrawn in place, above it the videos that are finished."""

    def __init__(self, console: Console) -> None:
        self._rates = Rates(time.monotonic())
        self._phase = "starting"
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveObserver":
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        """What the run as a whole is doing."""
        self._phase = text

    def note(self, text: str) -> None:
        """Something that whoever started the run should know."""
        self._console.print(Text(f"note: {text}", style="yellow"))

    def finished(self, row: dict[str, Any]) -> None:
        """A video's row of the report is final."""
        if row["status"] in ("indexed", "partial"):
            self._rates.finished_media_seconds += row["duration_seconds"] or 0.0
        style = {"failed": "red", "partial": "yellow", "unchanged": "dim"}.get(row["status"], "")
        self._console.print(Text(row_line(row), style=style))

    def tick(self, board: Board | None, peaks: Peaks, rows: int) -> None:
        """Called several times a second."""
        self._live.update(self.render(board, peaks, rows, time.monotonic()))

    def render(self, board: Board | None, peaks: Peaks, rows: int, now_seconds: float) -> Group:
        """The display at one moment."""
        jobs = list(board.jobs.values()) if board else []
        done, total = media_progress(jobs, self._rates.finished_media_seconds)
        rate = self._rates.hours_per_hour(done, now_seconds)
        eta = self._rates.eta_seconds(done, total, now_seconds)
        head = Text(
            f"{self._phase} · {clock(done)} of {clock(total)} media · {rate:.1f} hours/hour · "
            f"ETA {clock(eta)} · {rows} finished",
            style="bold",
        )
        table = Table.grid(padding=(0, 2))
        for job in jobs[:MAX_ROWS]:
            share = share_done(job)
            length = job.duration_seconds
            state = "opening" if job.media is None else f"{clock((length or 0.0) * share)} of {clock(length)}"
            table.add_row(f"{share:4.0%}", Text(job.shown_path, overflow="ellipsis", no_wrap=True), state)
        if len(jobs) > MAX_ROWS:
            table.add_row("", f"and {len(jobs) - MAX_ROWS} more", "")
        return Group(head, table, Text(stage_line(peaks), style="dim"))


def observer_for(stream: TextIO) -> PlainObserver | LiveObserver:
    """The live display on a terminal, plain lines otherwise. rich respects NO_COLOR."""
    if stream.isatty():
        return LiveObserver(Console(file=stream))
    return PlainObserver(stream)
