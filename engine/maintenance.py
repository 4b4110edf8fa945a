"""`retry` and `forget`: on the daemon's ledger when it runs, else on the ledger and the store directly; and what
`status` can tell while no daemon runs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from engine.archive import Archive
from engine.config import Config
from engine.errors import ConfigError
from engine.files import shown
from engine.ledger import Ledger, fingerprint, ledger_path
from engine.ledger_reader import LedgerReader
from engine.operations import Operations
from engine.records import model_labels
from stages.errors import SluiceError, StoreUnavailable
from stages.store import COLLECTIONS, Filter, Store
from transport.requests import ForgetRequest, RetryRequest, Target

FAILURES = 20  # named by `status`
PAGE = 1000  # failed files that are cleared in one transaction, and videos that are named in an answer
ALL_OPERATIONS = 1 << 40


class Books(Protocol):
    """What is known of videos: the daemon's records, or the same for a command alone."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def archive(self) -> Archive: ...


@dataclass(frozen=True, slots=True)
class Named:
    """A video that a target names."""

    path: bytes
    video_id: str | None  # None: its file could not even be hashed

    def as_dict(self) -> dict[str, Any]:
        return {"path": shown(self.path), "video_id": self.video_id}


# --- retry ------------------------------------------------------------------------------------------------------------


def retry(books: Books, request: RetryRequest, in_work: frozenset[str]) -> dict[str, Any]:
    """Have failed videos tried again, at the next scan or the next `ingest`. in_work: content that is being indexed.

    Returns:
        {"retried", "not_failed", "in_work": lists of {"path", "video_id"}, of at most PAGE videos; "count": retried}

    Raises:
        ConfigError: a target names no video, or several; nothing was changed. LedgerUnavailable.
    """
    body: dict[str, Any] = {"retried": [], "not_failed": [], "in_work": [], "count": 0}
    if request.everything:
        while _retry_page(books.ledger, in_work, body):
            continue
        return body
    with books.ledger.transaction():
        for named in resolve(books.ledger, request.targets):
            if named.video_id in in_work:
                body["in_work"].append(named.as_dict())
            elif _reopen(books.ledger, named):
                _count(body, named)
            else:
                body["not_failed"].append(named.as_dict())
    return body


def _retry_page(ledger: Ledger, in_work: frozenset[str], body: dict[str, Any]) -> bool:
    """Some of the failed files; False when no more are left."""
    failed = [Named(row.path, row.video_id) for row in ledger.files.failed(PAGE + len(in_work))]
    page = [named for named in failed if named.video_id not in in_work]
    with ledger.transaction():
        for named in page:
            _reopen(ledger, named)
            _count(body, named)
    return bool(page)


def _reopen(ledger: Ledger, named: Named) -> bool:
    """Forget that it failed; False: it did not."""
    if named.video_id is None:
        return bool(ledger.files.clear_failure(path=named.path))
    tasks = ledger.tasks.retry(named.video_id)
    return bool(ledger.files.clear_failure(path=named.path, video_id=named.video_id)) or tasks > 0


def _count(body: dict[str, Any], named: Named) -> None:
    body["count"] += 1
    if len(body["retried"]) < PAGE:
        body["retried"].append(named.as_dict())


# --- forget -----------------------------------------------------------------------------------------------------------


def forget(books: Books, request: ForgetRequest, in_work: frozenset[str]) -> dict[str, Any]:
    """Forget videos, and queue the removal of their points. Their files stay, and are not indexed again by a scan.

    Returns:
        {"forgotten": [{"path", "video_id"}]}

    Raises:
        ConfigError: a target names no video, or several. SluiceError: one is being indexed now. Nothing was changed
        then. LedgerUnavailable.
    """
    found = resolve(books.ledger, request.targets)
    for named in found:
        if named.video_id is None:
            raise ConfigError("no-such-video", f"{shown(named.path)}: it failed before anything of it was stored")
        if named.video_id in in_work:
            raise SluiceError("video-in-work", f"{shown(named.path)} is being indexed; forget it when it is finished")
    with books.ledger.transaction():
        for named in found:
            assert named.video_id is not None
            books.archive.forget(named.video_id)
    return {"forgotten": [named.as_dict() for named in found]}


# --- without a daemon -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alone:
    """The books of a command that works on its own."""

    ledger: Ledger
    archive: Archive


@contextmanager
def opened(config: Config, models: Sequence[str]) -> Iterator[Alone]:
    """The ledger of these settings, held while the context lasts. models: from `model_labels`.

    Raises:
        SluiceError: another process has it, or it cannot be read.
    """
    with ExitStack() as undo:
        ledger = Ledger(ledger_path(config), fingerprint(config, models))
        undo.callback(ledger.close)
        yield Alone(ledger, Archive(ledger, Operations(ledger)))


def _check_ledger(config: Config) -> None:
    path = ledger_path(config)
    if not path.exists():
        raise SluiceError("no-ledger", f"there is no ledger {path}: nothing was indexed yet (store.path, store.url)")


def retry_alone(config: Config, request: RetryRequest) -> dict[str, Any]:
    """`retry` while no daemon runs. Which tasks are meant depends on the models, so none may be missing."""
    _check_ledger(config)
    with opened(config, model_labels(config)) as books:
        return retry(books, request, frozenset())


def forget_alone(config: Config, request: ForgetRequest) -> dict[str, Any]:
    """`forget` while no daemon runs: the points are removed at once.

    Adds to the body "pending": why points are still there, or None. They go with the next run then.
    """
    from stages.qdrant import open_store

    _check_ledger(config)
    with opened(config, ()) as books, ExitStack() as undo:
        store = open_store(config.store, os.environ.get(config.store.api_key_env))
        undo.callback(store.close)
        body = forget(books, request, frozenset())
        try:
            for facts in body["forgotten"]:
                _remove(books.ledger, store, facts["video_id"])
        except StoreUnavailable as away:
            return {**body, "pending": f"{away.code}: {away.message}"}
        return {**body, "pending": None}


def _remove(ledger: Ledger, store: Store, video_id: str) -> None:
    """Do what the ledger has queued for a video whose last operation is its removal: the others need not be done."""
    for collection in COLLECTIONS:
        store.delete(collection, Filter(video_id=video_id))
    with ledger.transaction():
        for operation in ledger.operations.pending(ALL_OPERATIONS):
            if operation.video_id == video_id:
                ledger.operations.done(operation.operation_id)


def stopped(config: Config) -> dict[str, Any]:
    """The status document while no daemon runs: what the ledger tells.

    Raises:
        SluiceError: the ledger cannot be read.
    """
    empty: dict[str, Any] = {
        "state": "stopped",
        "videos": {},
        "files": {},
        "tasks": {},
        "operations": 0,
        "failures": [],
    }
    if not ledger_path(config).exists():
        return empty
    with ExitStack() as undo:
        reader = LedgerReader(ledger_path(config))
        undo.callback(reader.close)
        failures = [
            {"path": shown(row.path), "code": row.error[0], "message": row.error[1]}
            for row in reader.files.failed(FAILURES)
            if row.error is not None
        ]
        return {
            "state": "stopped",
            "videos": reader.videos.counts(),
            "files": reader.files.counts(),
            "tasks": reader.task_counts(),
            "operations": reader.operations.count(),
            "failures": failures,
        }


# --- which video is meant ---------------------------------------------------------------------------------------------


def resolve(ledger: Ledger | LedgerReader, targets: Sequence[Target]) -> list[Named]:
    """The videos that are meant, each once.

    Raises:
        ConfigError: a target names no video, or several.
    """
    return list(dict.fromkeys(_resolve(ledger, target) for target in targets))


def _resolve(ledger: Ledger | LedgerReader, target: Target) -> Named:
    if target.video_id is not None:
        return _by_id(ledger, target.video_id)
    for path in (target.path, target.spelled):
        row = ledger.files.find(path) if path is not None else None
        if row is not None:
            return Named(row.path, row.video_id)
    for path in (target.path, target.spelled):
        rows = ledger.videos.find(shown(path)) if path is not None else []
        if rows:
            return Named(rows[0].path, rows[0].video_id)
    raise ConfigError("no-such-video", f"{shown(target.path or b'')}: nothing is known of a video there")


def _by_id(ledger: Ledger | LedgerReader, beginning: str) -> Named:
    rows = {row.video_id: row for row in ledger.videos.find(beginning) if row.video_id.startswith(beginning)}
    if not rows:
        raise ConfigError("no-such-video", f"nothing is known of a video with the id {beginning}…")
    if len(rows) > 1:
        names = ", ".join(f"{row.video_id[:16]}… ({row.shown_path})" for row in list(rows.values())[:3])
        raise ConfigError("ambiguous-video", f"{beginning} begins the ids of several videos: {names}; give more digits")
    (row,) = rows.values()
    return Named(row.path, row.video_id)
