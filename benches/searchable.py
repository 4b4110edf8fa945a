"""How long it takes from a file being given to its first searchable point.

A file is given by renaming it into a directory that a running daemon watches, and searchable when the daemon, asked
every 20 ms, gives a point of it out of the store. Once while nothing else is to be done; once in a root of its own with
a higher priority while a film is being indexed; and once behind that film, in the same root. Beside it the command:
`run.py ingest` on one file, from the start of the process.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benches.corpus import SEED
from benches.corpus_sources import MEDIA
from benches.measuring import median, spread
from benches.mixed import long_film
from benches.options import add_models, tiny_models
from benches.report import Chart, Findings, Ratio, Table
from benches.sample_video import make_sample
from benches.whole_run import ROOT, Ingest, RunFailedError, tiny_settings
from engine.client import ask
from engine.config import load_config
from stages.errors import SluiceError
from stages.media import content_of
from transport.requests import PointsRequest, Request, SearchRequest, StatusRequest

TITLE = "time from a file being given to its first searchable point, idle and busy"

QUIET_SECONDS = 1.0  # watch.quiet_seconds: the default, 10, would only add 9 to every figure
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 600.0
CLIP_SECONDS = 8.0
URGENT = 10  # priority of the second root

COMMAND, IDLE, BUSY, BEHIND = "command, one file", "idle daemon", "busy daemon, priority", "busy daemon, same root"


class NeverSearchableError(SluiceError):
    """What was waited for did not come about."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--film", type=float, default=20.0, metavar="MINUTES", help="that keeps the daemon busy")
    parser.add_argument("--files", type=int, default=4, help="given one after the other, idle and busy alike")
    parser.add_argument("--runs", type=int, default=2, help="of the command")
    add_models(parser)


def measure(arguments: Namespace) -> Findings:
    """As `benches.registry` says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        settings = tiny_settings(tiny_models(arguments))
        count = arguments.files
        clips = [
            make_sample(directory / f"{n}.mp4", CLIP_SECONDS, SEED + n, captions=False) for n in range(2 * count + 2)
        ]
        film = long_film(directory / "film", arguments.film / 60, MEDIA)
        times = {COMMAND: [by_command(settings, clips[-1], directory / "run") for _ in range(arguments.runs)]}
        with daemon(settings, directory) as running:
            times |= by_daemon(running, clips[: 2 * count + 1], film, count)
        return Findings(tables=[table(times)], ratios=ratios(times), charts=[chart(times)], notes=NOTES)


def by_command(settings: Sequence[str], clip: Path, directory: Path) -> float:
    """From the start of `run.py ingest`, models and all."""
    seen = Ingest(settings, directory).run([clip])
    return seen.ready.wall_seconds + float(seen.report["videos"][0]["first_searchable_seconds"])


def by_daemon(running: "Daemon", clips: Sequence[Path], film: Path, count: int) -> dict[str, list[float]]:
    """clips: as many as `count` for each of idle and busy, and one to come behind the film."""
    idle = []
    for clip in clips[:count]:
        idle.append(running.searchable_seconds(clip, running.root))
        running.until(running.is_idle, "the daemon to be idle")
    running.check_search(clips[count - 1].name)
    inside = running.give(film, running.root)
    running.until(lambda: running.share_done(inside) > 0, "the film to be begun")
    busy = [running.searchable_seconds(clip, running.urgent) for clip in clips[count : 2 * count]]
    if not running.is_working_on(inside):
        raise NeverSearchableError("film-too-short", "the film was done before the last file came: a longer --film")
    return {IDLE: idle, BUSY: busy, BEHIND: [running.searchable_seconds(clips[2 * count], running.root)]}


# --- a daemon ---------------------------------------------------------------------------------------------------------


class Daemon:
    """A running daemon with two roots."""

    def __init__(self, settings: Sequence[str], directory: Path) -> None:
        self.root, self.urgent = directory / "root", directory / "urgent"
        for each in (self.root, self.urgent):
            each.mkdir()
        own = [
            f'watch.roots=["{self.root}", {{path = "{self.urgent}", priority = {URGENT}}}]',
            f"watch.quiet_seconds={QUIET_SECONDS}",
            f'store.path="{directory / "store"}"',
            f'run.state="{directory / "state"}"',
            "daemon.metrics_port=0",
        ]
        self._settings = [*settings, *own]
        self._config = load_config(settings=self._settings)
        self._log = directory / "daemon.log"
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "run.py", "daemon"]
        command += [word for setting in self._settings for word in ("--set", setting)]
        with self._log.open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def ask(self, request: Request) -> dict[str, Any]:
        """Its answer; empty while it cannot be asked. Raises RunFailedError when it has ended."""
        if (code := self.process.poll()) is not None:
            raise RunFailedError(["", "run.py", "daemon"], code, self._log.read_text().splitlines())
        with contextlib.suppress(SluiceError):  # it is not there yet
            return ask(self._config, request) or {}
        return {}

    def status(self) -> dict[str, Any]:
        return self.ask(StatusRequest())

    def is_idle(self) -> bool:
        return bool(self.status().get("state") == "idle")

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait until something is so; returns when it was. Raises NeverSearchableError."""
        end = time.perf_counter() + PATIENCE_SECONDS
        while not condition():
            time.sleep(POLL_SECONDS)
            if time.perf_counter() > end:
                raise NeverSearchableError("waited-in-vain", f"waited {PATIENCE_SECONDS:.0f} s for {what}")
        return time.perf_counter()

    def give(self, file: Path, root: Path) -> Path:
        """Move a whole file below a root; returns where it is now."""
        return file.rename(root / file.name)

    def searchable_seconds(self, clip: Path, root: Path) -> float:
        """Give it, and wait for its first point."""
        video_id = content_of(os.fsencode(clip), lambda: None).sha256
        request = PointsRequest(collection="frames", video_id=video_id, limit=1)
        begun = time.perf_counter()
        self.give(clip, root)
        return self.until(lambda: bool(self.ask(request).get("points")), f"a point of {clip.name}") - begun

    def check_search(self, name: str) -> None:
        """What the store gives by id is found by a search, too. Raises NeverSearchableError."""
        hits = self.ask(SearchRequest(query="a street in the rain", within="frames", limit=1000)).get("hits", [])
        if not any(Path(str(hit["path"])).name == name for hit in hits):
            raise NeverSearchableError("not-found", f"{name} is stored, and no search finds it")

    def share_done(self, file: Path) -> float:
        """Of a video in work; 0 before it is."""
        found = [video["done"] for video in self.status().get("videos", []) if video["path"] == str(file)]
        return float(found[0]) if found else 0.0

    def is_working_on(self, file: Path) -> bool:
        return any(video["path"] == str(file) for video in self.status().get("videos", []))


@contextlib.contextmanager
def daemon(settings: Sequence[str], directory: Path) -> Iterator[Daemon]:
    """A daemon that is ready; killed at the end, for what is left to do is of no interest."""
    running = Daemon(settings, directory)
    try:
        running.until(running.is_idle, "the daemon to be ready")
        yield running
    finally:
        running.process.kill()
        running.process.wait()


# --- what came of it: pure --------------------------------------------------------------------------------------------


def table(times: dict[str, list[float]]) -> Table:
    rows = tuple((name, len(each), median(each), *spread(each)) for name, each in times.items())
    return Table("Seconds from a file to its first searchable point", ("", "files", "median s", "least", "most"), rows)


def ratios(times: dict[str, list[float]]) -> list[Ratio]:
    """Whether being busy matters."""
    idle = median(times[IDLE])
    low, high = spread(times[BUSY])
    return [Ratio("busy, with priority / idle", median(times[BUSY]) / idle, None, "lower", low / idle, high / idle)]


def chart(times: dict[str, list[float]]) -> Chart:
    bars = {name: median(each) for name, each in times.items()}
    return Chart("searchable", "From a file to its first searchable point", "", "s", bars=bars, kind="bars")


NOTES = [
    f"watch.quiet_seconds = {QUIET_SECONDS:g} is in each of the daemon's figures: so long a file has to rest, until "
    "it counts as complete (10 by default).",
    "Behind a film in the same root, files wait for it: first come, first served. A file of a root with a priority is "
    "next as soon as a decoder is free; but a sound track is one task, and with one decoder what is given in the "
    "middle of it waits for its end.",
    "The command's figure holds the start of the processes and the loading of the models.",
]
