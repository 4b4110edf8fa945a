"""How `status` looks: the document as a page of at most 80 columns, redrawn every second where the terminal can."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.progress import clock

COLUMNS = 80
MAX_VIDEOS = 8  # of those in work
MAX_FAILURES = 5
WATCH_SECONDS = 1.0
STYLES = {"waiting": "yellow", "draining": "yellow", "starting": "cyan", "indexing": "green", "idle": "green"}


def show(document: dict[str, Any], stream: TextIO) -> None:
    """Print it once."""
    _console(stream).print(page(document))


def watch(ask: Callable[[], dict[str, Any]], stream: TextIO, sleep: Callable[[float], None] = time.sleep) -> None:
    """Redraw it every second until it is interrupted; page under page where the terminal cannot redraw.

    Raises:
        SluiceError: from `ask`. KeyboardInterrupt ends it in order.
    """
    console = _console(stream)
    try:
        if not _can_redraw(console):
            while True:
                console.print(page(ask()), "")
                sleep(WATCH_SECONDS)
        with Live(page(ask()), console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                sleep(WATCH_SECONDS)
                live.update(page(ask()), refresh=True)
    except KeyboardInterrupt:
        return


def _console(stream: TextIO) -> Console:
    """rich respects NO_COLOR. Elsewhere than on a terminal a page has the same width everywhere."""
    if not stream.isatty():
        return Console(file=stream, width=COLUMNS)
    console = Console(file=stream)
    return Console(file=stream, width=COLUMNS) if console.width > COLUMNS else console


def _can_redraw(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and bool(os.environ.get("TERM"))


def page(document: dict[str, Any]) -> RenderableType:
    """The document as text and tables."""
    return Group(*(_stopped(document) if document["state"] == "stopped" else _parts(document)))


def _stopped(document: dict[str, Any]) -> Iterator[RenderableType]:
    """What the ledger alone tells, while no daemon runs."""
    yield _line("no daemon runs for this store (run.state, store.path, store.url)", "bold yellow")
    for name in ("videos", "files", "tasks"):
        counts = ", ".join(f"{count} {state}" for state, count in sorted(document[name].items()))
        yield _line(f"{name:7} {counts or 'none'}")
    if document["operations"]:
        yield _line(f"store   has yet to be told of {document['operations']} changes, when it runs again")
    yield from _failures(document["failures"])


def _failures(failures: list[dict[str, Any]]) -> Iterator[Text]:
    for failure in failures[:MAX_FAILURES]:
        yield _line(f"failed {failure['path']}: {failure['code']}: {failure['message']}", "red")
    if len(failures) > MAX_FAILURES:
        yield _line(f"and {len(failures) - MAX_FAILURES} more failures; --json names them", "red")


def _parts(document: dict[str, Any]) -> Iterator[RenderableType]:
    yield _head(document)
    yield from _lines(document)
    yield from _bottleneck(document["bottleneck"])
    if document["stages"]:
        yield _stages(document["stages"])
    if document["videos"]:
        yield _videos(document["videos"])
    if document["roots"]:
        yield _roots(document["roots"])
    yield _processes(document["processes"])
    yield from _failures(document["failures"])


def _head(document: dict[str, Any]) -> Text:
    state, reason = document["state"], document["reason"]
    parts = [f"{state}: {reason}" if reason else state]
    parts += [f"on {document['device']}"] if document["device"] else []
    parts.append(f"up {clock(document['uptime_seconds'])}")
    return Text(" · ".join(parts), style=f"bold {STYLES[state]}")


def _lines(document: dict[str, Any]) -> Iterator[Text]:
    queue, totals, memory = document["queue"], document["totals"], document["memory"]
    speed = totals["hours_per_hour"]
    yield _line(f"queue   {queue['files']} files, {queue['tasks']} tasks, {queue['videos']} videos in work")
    videos = ", ".join(f"{count} {status}" for status, count in totals["videos"].items())
    yield _line(f"videos  {videos}; {totals['points']} points")
    yield _line(
        f"media   {totals['media_hours']:.2f} hours; {speed['last_10_minutes']} hours/hour of late, "
        f"{speed['since_start']} since the start"
    )
    times = totals["time_to_searchable"]
    yield _line(
        f"found   after {_seconds(times['median_seconds'])} (last {_seconds(times['last_seconds'])}); coverage: "
        f"text {_share(totals['text_coverage'])}, voice {_share(totals['voice_coverage'])}"
    )
    yield _line(
        f"memory  host {_bytes(memory['host_bytes'])}, results {_bytes(memory['results_queued_bytes'])}, "
        f"spool {_bytes(memory['spool_bytes'])}"
    )
    if memory["device_budget_bytes"]:
        tiers = ", ".join(f"{count} {tier}" for tier, count in memory["pressure"].items())
        yield _line(
            f"device  {_bytes(memory['device_bytes'])}, peak {_bytes(memory['peak_device_bytes'])} of "
            f"{_bytes(memory['device_budget_bytes'])}; {memory['model_changes']} changes, {tiers}"
        )
    yield _line(f"store   {document['store']['state']} · {document['store']['at']}")
    if document["ledger"] != "ok":
        yield _line(f"ledger  {document['ledger']}", "yellow")


def _bottleneck(bottleneck: dict[str, Any]) -> Iterator[RenderableType]:
    """In full, over several lines: it says what to do. Nothing while nothing is done."""
    if bottleneck["stage"] == "none":
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("limit ", Text(bottleneck["sentence"]))
    if bottleneck["settings"]:
        table.add_row("next", Text("; or ".join(bottleneck["settings"])))
    yield table


def _stages(stages: dict[str, Any]) -> Table:
    table = _table("model", "items", "/s", "busy", "queued", "bytes", "batch", "oom", "splits")
    for role, stage in stages.items():
        table.add_row(
            role,
            str(stage["items"]),
            f"{stage['items_per_second']:.1f}",
            f"{stage['busy']:.0%}",
            str(stage["queued_items"]),
            _bytes(stage["queued_bytes"]),
            str(stage["batch"]),
            str(stage["oom_events"]),
            str(stage["batch_splits"]),
        )
    return table


def _videos(videos: list[dict[str, Any]]) -> Table:
    table = _table("in work", "done", "ETA", "length")
    for video in videos[:MAX_VIDEOS]:
        done = "opening" if video["state"] == "opening" else f"{video['done']:.0%}"
        table.add_row(_tail(video["path"]), done, clock(video["eta_seconds"]), clock(video["duration_seconds"]))
    if len(videos) > MAX_VIDEOS:
        table.add_row(f"and {len(videos) - MAX_VIDEOS} more", "", "", "")
    return table


def _roots(roots: list[dict[str, Any]]) -> Table:
    table = _table("watched", "files", "settling", "state")
    for root in roots:
        table.add_row(_tail(root["path"], 30), str(root["files"]), str(root["settling"]), _start(root["state"]))
    return table


def _processes(processes: list[dict[str, Any]]) -> Table:
    table = _table("process", "pid", "memory", "restarts", "state")
    for process in processes:
        size = "" if process["rss_bytes"] is None else _bytes(process["rss_bytes"])
        pid = "" if process["pid"] is None else str(process["pid"])
        table.add_row(process["name"], pid, size, str(process["restarts"]), _start(process["state"]))
    return table


def _table(*names: str) -> Table:
    """Numbers stand right, and none is cut: what may be long is shortened before."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 or name == "state" else "right", no_wrap=True)
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _tail(path: str, width: int = 50) -> Text:
    """The end of a path, which tells it from its neighbours. Never read as markup: file names hold brackets."""
    shown = path
    while cell_len(shown) > width:  # letters of some scripts are two columns wide
        shown = "…" + shown[max(2, len(shown) - width + 1) :]
    return Text(shown)


def _start(text: str, width: int = 32) -> Text:
    shown = Text(text)
    shown.truncate(width, overflow="ellipsis")
    return shown


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _bytes(count: int) -> str:
    """1.2 MB, as the settings count: powers of ten."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" or size >= 100 else f"{size:.1f} {units[0]}"
