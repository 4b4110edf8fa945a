"""What the ledger called done at some moment, and what the store held then.

Looked at while the subject is dead, in copies: opening the originals would mend what the next start has to mend itself.
"""

import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from engine.config import load_config
from engine.ledger import ledger_path
from engine.search import all_points
from stages.store import SPEAKERS
from tests.chaos.compare import Point

WHOLE = (0.0, float("inf"))


@dataclass(frozen=True)
class Done:
    """A part of a video that the ledger takes for indexed."""

    video_id: str
    kind: str  # frames: points that begin in the span; audio: speech and voices that end in it; video: all
    start_seconds: float
    end_seconds: float

    def covers(self, point: Point) -> bool:
        """Whether a point belongs to it."""
        payload, is_frame = point["payload"], point["collection"] == "frames"
        if payload["video_id"] != self.video_id or point["collection"] == SPEAKERS:  # those come behind all of it
            return False
        if self.kind == "frames":
            return is_frame and bool(self.start_seconds <= payload["start_seconds"] < self.end_seconds)
        return self.kind == "video" or (not is_frame and bool(payload["end_seconds"] <= self.end_seconds))


@dataclass(frozen=True)
class Sighting:
    """What was seen at one moment."""

    when: str
    done: tuple[Done, ...]
    stored: frozenset[str]  # ids

    def broken_promises(self, reference: Iterable[Point]) -> list[str]:
        """Points of what was called done, which were not in the store, a line each."""
        points = list(reference)
        promised = {point["id"]: done for done in self.done for point in points if done.covers(point)}
        return [f"{self.when}: {name} was not stored, though {done} was called done"
                for name, done in sorted(promised.items()) if name not in self.stored]  # fmt: skip

    def forgotten(self, finally_stored: Iterable[str]) -> list[str]:
        """Points that were there then, and are not there at the end, a line each."""
        gone = self.stored - set(finally_stored)
        return [f"{self.when}: {name} was stored, and is not any more" for name in sorted(gone)]


def testify(when: str, settings: list[str], directory: Path) -> Sighting:
    """Look at copies, made in `directory`, of an embedded store and its ledger. Nothing may have them open."""
    config = load_config(settings=settings)
    store, ledger = Path(config.store.path), ledger_path(config)
    if not store.exists():
        return Sighting(when, (), frozenset())
    copy = directory / "copy"
    subprocess.run(["cp", "-a", "--sparse=always", str(store), str(copy)], check=True)
    try:
        done = tuple(_done(copy / ledger.name)) if ledger.exists() else ()
        return Sighting(when, done, frozenset(_ids(copy, settings)))
    finally:
        shutil.rmtree(copy)


def _ids(store: Path, settings: list[str]) -> Iterator[str]:
    if (store / "sluice-store.json").exists():  # else it was killed while it made the store
        for point in all_points(load_config(settings=[*settings, f"store.path={store}"]), None, False):
            yield point["id"]


def _done(ledger: Path) -> Iterator[Done]:
    with closing(sqlite3.connect(ledger)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tasks'").fetchone():
            return
        for (video,) in connection.execute("SELECT video_id FROM videos WHERE state = 'indexed'"):
            yield Done(video, "video", *WHOLE)
        statement = "SELECT video_id, kind, start_seconds, end_seconds, state, section, resume_seconds FROM tasks"
        for video, kind, start, end, state, section, resume in connection.execute(statement):
            if state == "done":
                yield Done(video, kind, start, WHOLE[1] if end is None or kind == "audio" else end)
            elif section and resume is not None:
                yield Done(video, kind, 0.0, resume)
