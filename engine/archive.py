"""Which content lies where, and what the store is told of it: moves, copies, changes, deletions. No inference for any.

Points carry one path, the video's path of record. When the file there is gone, changed or moved, another present path
of the same content takes its place; when there is none, the points are stale.
"""

import os
from collections.abc import Callable
from typing import Literal

from engine.files import shown
from engine.ledger import Ledger
from engine.operations import Operations


class Archive:
    """The ledger's files and videos, and the operations that follow from what happens to them."""

    def __init__(self, ledger: Ledger, operations: Operations, on_delete: Literal["keep", "remove"] = "keep") -> None:
        self._ledger = ledger
        self._operations = operations
        self.on_delete = on_delete
        self.in_work: Callable[[], frozenset[str]] = frozenset  # content that is being indexed now: never removed

    def holds(self, path: bytes, stat: os.stat_result, video_id: str) -> None:
        """This file shows this content, which is indexed.

        Its history follows (seen, moved, copied, changed), the path of record, and the end of what lay here before.
        """
        with self._ledger.transaction():
            self._ledger.files.record_file(path, stat, video_id)
            home = self._ledger.videos.path_of(video_id)
            if home is not None and home != path and not self._still_shows(home, video_id):
                self._move_record(video_id, path)
            for old in self._ledger.videos.at(path):
                if old != video_id and old not in self.in_work():
                    self._leave(old, path)

    def gone(self, path: bytes) -> None:
        """The file was deleted, or moved: its content may live on elsewhere."""
        with self._ledger.transaction():
            video_id = self._ledger.files.mark_gone(path)
            if video_id is None or self._ledger.videos.path_of(video_id) != path:
                return
            others = [other for other in self._ledger.files.paths_of(video_id) if other != path]
            if others:
                self._move_record(video_id, others[0])
            elif self.on_delete == "remove" and video_id not in self.in_work():  # else when it ends: `vanished`
                self.forget(video_id)

    def vanished(self, video_id: str) -> None:
        """Its file went away before it was wholly indexed: what there is of it has the fate of deleted files."""
        with self._ledger.transaction():
            if self.on_delete == "remove" and not self._ledger.files.paths_of(video_id):
                self.forget(video_id)

    def left_off(self, path: bytes, video_id: str) -> None:
        """Work on it ended before its end. Nobody goes on with it where other known content has taken its place."""
        with self._ledger.transaction():
            row = self._ledger.files.find(path)
            is_replaced = row is not None and row.state == "present" and row.video_id not in (None, video_id)
            if is_replaced and self._ledger.videos.path_of(video_id) == path:
                self._leave(video_id, path)

    def forget(self, video_id: str) -> None:
        """Remove all points of a video, and what is known of it but its history."""
        with self._ledger.transaction():
            self._operations.remove(video_id)
            self._ledger.videos.forget(video_id)

    def _leave(self, video_id: str, path: bytes) -> None:
        """The content that lay at this path does so no more."""
        others = [other for other in self._ledger.files.paths_of(video_id) if other != path]
        if others:
            self._move_record(video_id, others[0])
        else:
            self.forget(video_id)

    def _move_record(self, video_id: str, path: bytes) -> None:
        self._ledger.videos.repath(video_id, path)
        self._operations.repath(video_id, shown(path))

    def _still_shows(self, path: bytes, video_id: str) -> bool:
        """Whether the file is there as it was when it had this content."""
        row = self._ledger.files.find(path)
        stat = stat_of(path)
        if row is None or stat is None or row.video_id != video_id:
            return False
        return (row.marks.size_bytes, row.marks.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def stat_of(path: bytes) -> os.stat_result | None:
    """None: it cannot be had, and whoever opens the file next will say why."""
    try:
        return os.stat(path)  # noqa: PTH116 - bytes, which Path does not take
    except OSError:
        return None
