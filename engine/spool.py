"""Messages on disk while the store is away: first in, first out, deleted when done with.

DIR/lock              held (flock) by the one consumer that uses the spool; names it
DIR/00000017.spool    a segment, append-only; see engine/spool_segment.py
DIR/*.damaged         a segment in which a record could not be read; what stood before that was replayed
"""

import contextlib
import errno
import hashlib
import io
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from engine.errors import StartError
from engine.failpoints import DURING_SPOOL_FLUSH, reach
from engine.spool_segment import (
    MAGIC,
    DamageError,
    Segment,
    check_magic,
    cut_torn_tail,
    encoded,
    read_record,
    write_all,
)
from stages.options import StoreOptions
from stages.store_directory import sync_directory, take_lock

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20  # small enough that a crash repeats little of a replay, large enough that files are few
RESERVE_BYTES = 64 << 20  # left free on the disk: the ledger lives there, and perhaps the embedded store


class Record(NamedTuple):
    """One message as it was received."""

    segment: int
    header: bytes
    payload: bytes


def open_segment(path: Path) -> io.RawIOBase:
    """A new file that takes what is written at once, and at its end."""
    return path.open("ab", buffering=0)


def free_bytes_of(directory: Path) -> int:
    """Room on the disk of a directory."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


class Spool:
    """A queue of messages on disk. Its directory is made when it is first needed.

    Raises StartError "spool-locked", "spool": there is one already, and it cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        limit_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        create: Callable[[Path], io.RawIOBase] = open_segment,
        free_bytes: Callable[[Path], int] = free_bytes_of,
    ) -> None:
        self.directory = directory
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._create = create
        self._free_bytes = free_bytes
        self._lock: int | None = None
        self._segments: deque[Segment] = deque()
        self._next_number = 1
        self._writer: io.RawIOBase | None = None  # of the last segment
        self._reader: tuple[int, BinaryIO] | None = None  # number of the segment, and its file
        if directory.exists():
            self._take_over()

    def _take_over(self) -> None:
        """What an earlier process has left. New records go into new segments."""
        try:
            self._lock = take_lock(self.directory, _locked_error)
            if paths := self._paths("*.spool"):
                cut_torn_tail(paths[-1])
            found = [Segment(int(path.stem), path, path.stat().st_size) for path in self._paths("*.spool")]
        except OSError as error:
            raise StartError(
                "spool", f"the spool in {self.directory} cannot be used: {error.strerror}; set run.state"
            ) from error
        self._segments.extend(found)
        self._next_number = max((int(path.stem) + 1 for path in self._paths("*")), default=1)
        self._drop_finished()

    def _paths(self, pattern: str) -> list[Path]:
        paths = (path for path in self.directory.glob(pattern) if path.stem.isdigit())
        return sorted(paths, key=lambda path: int(path.stem))

    # --- how much there is --------------------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def is_empty(self) -> bool:
        """Nothing is left: all was read back and done."""
        return not self._segments

    @property
    def oldest(self) -> int:
        """Number of the oldest segment that is left; that of the next record when there is none."""
        return self._segments[0].number if self._segments else self._next_number

    def has_unread(self, before: int | None = None) -> bool:
        """Whether a segment below `before` was not read to its end."""
        return any(not segment.is_read for segment in self._segments_before(before))

    def _segments_before(self, before: int | None) -> Iterator[Segment]:
        return (segment for segment in self._segments if before is None or segment.number < before)

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, records: Iterable[tuple[bytes, bytes | memoryview]]) -> int:
        """Write the first of the records (header, payload), as many as fit into one segment; returns how many.

        They are on the disk then. 0: the limit is reached. Raises OSError: none was written.
        """
        count = written_bytes = 0
        try:
            for record in (encoded(header, payload) for header, payload in records):
                if not self._has_room(written_bytes, len(record)):
                    break
                write_all(self._writer or self._begin_segment(), record)
                written_bytes += len(record)
                count += 1
            self._sync(written_bytes)
        except OSError:
            self._take_back()
            raise
        return count

    def seal(self) -> int:
        """End the current segment, unless nothing is in it; returns the number of the segment of the next record."""
        if self._writer is not None and self._segments[-1].is_blank:
            return self._segments[-1].number
        self._end_segment()
        return self._next_number

    def _has_room(self, written_bytes: int, record_bytes: int) -> bool:
        """Whether a record may follow `written_bytes` that are not synced yet. A full segment ends between groups.

        Raises OSError when the disk is full but for the reserve.
        """
        more_bytes = written_bytes + record_bytes
        if self.size_bytes + more_bytes > self._limit_bytes:
            return False
        if self._writer is not None and self._segments[-1].size_bytes + more_bytes > self._segment_bytes:
            if written_bytes:
                return False
            if not self._segments[-1].is_blank:
                self._end_segment()
        if self.directory.exists() and self._free_bytes(self.directory) < record_bytes + RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))
        return True

    def _sync(self, written_bytes: int) -> None:
        if self._writer is not None and written_bytes:
            reach(DURING_SPOOL_FLUSH)
            os.fsync(self._writer.fileno())
            self._segments[-1].size_bytes += written_bytes

    def _take_back(self) -> None:
        """Part of a group may be in the file: cut it off, or else never write behind it."""
        if self._writer is not None:
            try:
                self._writer.truncate(self._segments[-1].size_bytes)
            except OSError:
                self._end_segment()
            self._drop_finished()

    def _begin_segment(self) -> io.RawIOBase:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = take_lock(self.directory, _locked_error)
        path = self.directory / f"{self._next_number:08}.spool"
        writer = self._create(path)
        with contextlib.ExitStack() as undo:
            undo.callback(path.unlink)
            undo.callback(writer.close)
            write_all(writer, MAGIC)
            sync_directory(self.directory)
            undo.pop_all()
        self._segments.append(Segment(self._next_number, path))
        self._next_number += 1
        self._writer = writer
        return writer

    def _end_segment(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # --- reading back -------------------------------------------------------------------------------------------------

    def read(self, before: int | None = None) -> Record | None:
        """The next record of a segment below `before`; None when all were read. Each must be reported `done` later."""
        for segment in self._segments_before(before):
            while not segment.is_read:
                record = self._read_from(segment)
                if record is not None:
                    return record
        self._drop_finished()  # a damaged one in which nothing could be read
        return None

    def done(self, segment_number: int) -> None:
        """A record of that segment is safe elsewhere. A segment is deleted when all before and in it are done."""
        segment = next(each for each in self._segments if each.number == segment_number)
        segment.open_records -= 1
        self._drop_finished()

    def close(self) -> None:
        """Close all files; what is left stays for the next process."""
        self._end_segment()
        self._end_reading()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read_from(self, segment: Segment) -> Record | None:
        try:
            header, payload, record_bytes = read_record(self._opened(segment), segment.size_bytes - segment.read_bytes)
        except (DamageError, OSError) as error:
            log.warning("%s is damaged at byte %d and kept aside: %s", segment.path, segment.read_bytes, error)
            segment.is_damaged = True
            segment.read_bytes = segment.size_bytes
            if segment is self._segments[-1]:
                self._end_segment()
            return None
        segment.read_bytes += record_bytes
        segment.open_records += 1
        return Record(segment.number, header, payload)

    def _opened(self, segment: Segment) -> BinaryIO:
        """The segment's file, at the place up to which it was read."""
        if self._reader is None or self._reader[0] != segment.number:
            self._end_reading()
            self._reader = (segment.number, segment.path.open("rb"))
            check_magic(self._reader[1])
        file = self._reader[1]
        file.seek(segment.read_bytes)
        return file

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None

    def _drop_finished(self) -> None:
        while self._segments and self._segments[0].is_read and not self._segments[0].open_records:
            if len(self._segments) == 1:
                self._end_segment()
            segment = self._segments.popleft()
            self._end_reading()  # an open file that is deleted keeps its room
            if segment.is_damaged:
                segment.path.rename(segment.path.with_suffix(".damaged"))
            else:
                segment.path.unlink()
            sync_directory(self.directory)


def spool_directory(state: Path, options: StoreOptions) -> Path:
    """Where a store's messages wait: two stores never share a directory."""
    place = options.url.rstrip("/") if options.url is not None else str(Path(options.path).resolve())
    return state / f"spool-{hashlib.sha256(f'{place} {options.prefix}'.encode()).hexdigest()[:16]}"


def _locked_error(directory: Path, owner: str) -> StartError:
    message = f"the spool in {directory} is in use by {owner}: stop it, or set another run.state"
    return StartError("spool-locked", message)
