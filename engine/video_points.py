"""One video as it is stored, for a command: which one is meant, and its points, from the daemon or from the store."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from engine.client import ask
from engine.config import Config
from engine.errors import ConfigError
from engine.files import shown
from engine.ledger import VideoRow, ledger_path
from engine.ledger_reader import LedgerReader
from engine.maintenance import Named, resolve
from engine.presence import find
from stages.errors import SluiceError
from stages.store import Filter, Store, StoredVideo, stored_videos
from transport.requests import PointsRequest, Target

Payload = dict[str, Any]

PAGE = 256  # points of one answer: a phrase with its words is some kB


@dataclass(frozen=True, slots=True)
class Subject:
    """The video that is meant, and what is known of it beside its points."""

    video_id: str
    path: bytes
    state: str | None = None  # working | indexed | partial | failed; None: nothing is known
    duration_seconds: float | None = None
    error: str | None = None  # why it is not there, or not all of it

    @property
    def name(self) -> str:
        return shown(self.path)


# --- points -----------------------------------------------------------------------------------------------------------


class PointReader(Protocol):
    """Where points are read. Iterating raises SluiceError where they cannot be had."""

    def payloads(self, collection: str, video_id: str) -> Iterator[Payload]:
        """What every point of a video says, in the order of ids."""

    def records(self) -> Iterator[StoredVideo]:
        """The store's own records of videos, those that may not be in the ledger among them."""


class StoreReader:
    """Reads in a store that this process has open."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def payloads(self, collection: str, video_id: str) -> Iterator[Payload]:
        points = self._store.scroll(collection, False, Filter(video_id=video_id), page=PAGE)
        return (point.payload for point in points)

    def records(self) -> Iterator[StoredVideo]:
        return stored_videos(self._store)


class DaemonReader:
    """Asks the running daemon, page by page."""

    def __init__(self, config: Config, page: int = PAGE) -> None:
        self._config = config
        self._page = page

    def payloads(self, collection: Any, video_id: str) -> Iterator[Payload]:
        start: str | None = None
        while True:
            request = PointsRequest(collection=collection, video_id=video_id, start=start, limit=self._page)
            answer = ask(self._config, request)
            if answer is None:
                raise SluiceError("daemon-gone", "the daemon ended while its points were read; try again")
            yield from (point["payload"] for point in answer["points"])
            start = answer["following"]
            if start is None:
                return

    def records(self) -> Iterator[StoredVideo]:
        """None: a daemon's ledger knows whatever it has indexed."""
        return iter(())


@contextmanager
def reading(config: Config) -> Iterator[PointReader]:
    """The running daemon; or the store itself, open while the context lasts.

    Raises:
        StoreError: the store is not there, is locked by a running `ingest`, or refuses.
    """
    if find(config) is not None:
        yield DaemonReader(config)
        return
    from stages.qdrant import open_store

    store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True)
    try:
        yield StoreReader(store)
    finally:
        store.close()


# --- which video ------------------------------------------------------------------------------------------------------


def subject_of(config: Config, target: Target, reader: PointReader) -> Subject:
    """The video that the ledger knows, or else one that only the store knows: it may be shared, or its ledger lost.

    Raises:
        ConfigError: the target names no video, or several, or one that failed before it had an id. LedgerUnavailable,
        LedgerDamaged, StartError: the ledger cannot be read.
    """
    try:
        return _in_ledger(config, target)
    except ConfigError as error:
        recorded = _in_store(reader, target) if error.code == "no-such-video" else None
        if recorded is None:
            raise
        return recorded


def _in_ledger(config: Config, target: Target) -> Subject:
    path = ledger_path(config)
    if not path.exists():
        asked_for = target.video_id or shown(target.path or b"")
        raise ConfigError("no-such-video", f"{asked_for}: nothing is known of such a video, and there is no {path}")
    reader = LedgerReader(path)
    try:
        (named,) = resolve(reader, [target])
        rows = reader.videos.find(named.video_id) if named.video_id is not None else []
    finally:
        reader.close()
    return _of_row(named, next((row for row in rows if row.video_id == named.video_id), None))


def _of_row(named: Named, row: VideoRow | None) -> Subject:
    if named.video_id is None:
        raise ConfigError("not-indexed", f"{shown(named.path)} failed before anything of it was stored; see `status`")
    if row is None:
        return Subject(named.video_id, named.path)
    duration_seconds = (row.report or {}).get("duration_seconds")
    return Subject(row.video_id, named.path, row.state, duration_seconds, ": ".join(row.error) if row.error else None)


def _in_store(reader: PointReader, target: Target) -> Subject | None:
    found = {video.video_id: video for video in reader.records() if _is_meant(video, target)}
    if len(found) > 1:
        names = ", ".join(f"{video.video_id[:16]}… ({video.path})" for video in list(found.values())[:3])
        raise ConfigError("ambiguous-video", f"several videos are meant: {names}; give the first digits of the id")
    for video in found.values():
        report = json.loads(video.report)
        duration_seconds = report.get("duration_seconds")
        return Subject(video.video_id, os.fsencode(video.path), report.get("status"), duration_seconds)
    return None


def _is_meant(video: StoredVideo, target: Target) -> bool:
    if target.video_id is not None:
        return video.video_id.startswith(target.video_id)
    return video.path in {shown(path) for path in (target.path, target.spelled) if path is not None}
