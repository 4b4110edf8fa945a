"""A damaged ledger: kept aside, a new one begun, and what the store remembers of finished videos entered into it.

No point is lost with a ledger. What it costs: every file is hashed again, and work that was under way begins anew.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import StartError
from engine.ledger_schema import Database, LedgerDamaged, suspect_mark

if TYPE_CHECKING:
    from engine.ledger import Ledger

GROUP = 500  # videos entered in one transaction


def opened(path: Path) -> tuple[Database, str | None]:
    """The ledger's file, open. And one line that says so, when it was damaged and a new one was begun.

    Raises:
        LedgerUnavailable; StartError: it is of a newer version, or cannot be set aside.
    """
    try:
        return Database(path), None
    except LedgerDamaged as error:
        damage = error.message
    aside = set_aside(path)
    return Database(path), f"{damage.partition(';')[0]}: it is kept as {aside.name}, and a new one is begun"


def set_aside(path: Path) -> Path:
    """Rename a ledger and the files that belong to it; returns its new path.

    Its own file goes first: whoever finds a log without it, after a crash in between, throws the log away.

    Raises:
        StartError: it cannot be renamed.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{path.name}.damaged-{stamp}{f'-{count}' if count else ''}" for count in range(1000))
    aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    try:
        for suffix in ("", "-wal", "-shm"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                source.rename(aside.with_name(aside.name + suffix))
        suspect_mark(path).unlink(missing_ok=True)
    except OSError as error:
        raise StartError("ledger", f"damaged ledger {path} cannot be renamed: {error}; move it away") from error
    return aside


def rebuild(ledger: "Ledger", videos: Iterable[tuple[str, str, str, str]]) -> int:
    """Enter what the store remembers: (video id, fingerprint, shown path, row of the report as JSON) of each video.

    What the ledger knows already stays as it is; what cannot be read is passed over, and indexed again when a scan
    meets it. Can be done again at any time. Returns how many were entered.

    Raises:
        LedgerUnavailable, LedgerDamaged: those before the last group are entered.
    """
    count = 0
    group: list[tuple[str, str, str, dict[str, Any]]] = []
    for video_id, fingerprint, shown_path, text in videos:
        report = _report(text)
        if report is not None:
            group.append((video_id, fingerprint, shown_path, report))
        if len(group) == GROUP:
            count += _enter(ledger, group)
            group = []
    return count + _enter(ledger, group)


def _enter(ledger: "Ledger", group: list[tuple[str, str, str, dict[str, Any]]]) -> int:
    with ledger.transaction():
        return sum(ledger.videos.restore(*entry) for entry in group)


def _report(text: str) -> dict[str, Any] | None:
    try:
        report = json.loads(text)
    except ValueError:
        return None
    is_finished = isinstance(report, dict) and report.get("status") in ("indexed", "partial")
    return report if is_finished else None
