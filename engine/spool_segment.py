"""One file of the spool: how records are written into it, and what a torn or damaged one looks like.

MAGIC, then records: lengths of header and payload and the CRC-32 of all the rest (three little-endian uint32), header,
payload. A process that is killed leaves at most one torn record, the last; it was never acknowledged.
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = b"sluice spool 1\r\n"
_FRAME = struct.Struct("<III")


class DamageError(Exception):
    """What stands in the file is no whole record."""


class TornError(DamageError):
    """The file ends before its last record does."""


@dataclass(slots=True)
class Segment:
    """A file, and how far it was read back."""

    number: int
    path: Path
    size_bytes: int = len(MAGIC)  # of whole records, on the disk
    read_bytes: int = len(MAGIC)
    open_records: int = 0  # read back, and not done yet
    is_damaged: bool = False

    @property
    def is_read(self) -> bool:
        """Whether all that is in it was read back."""
        return self.read_bytes >= self.size_bytes

    @property
    def is_blank(self) -> bool:
        """Whether nothing was written into it."""
        return self.size_bytes == len(MAGIC)


def encoded(header: bytes, payload: bytes | memoryview) -> bytes:
    """A record."""
    lengths = struct.pack("<II", len(header), len(payload))
    return b"".join((lengths, struct.pack("<I", _checksum(lengths, header, payload)), header, payload))


def read_record(file: BinaryIO, left_bytes: int) -> tuple[bytes, bytes, int]:
    """Header, payload and whole length of the record at the file's position; `left_bytes` of the file are left.

    Raises TornError, DamageError.
    """
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        raise TornError("it ends within a record")
    header_bytes, payload_bytes, checksum = _FRAME.unpack(frame)
    record_bytes = _FRAME.size + header_bytes + payload_bytes
    if record_bytes > left_bytes:
        raise TornError("a record is longer than what is left of the file")
    header, payload = file.read(header_bytes), file.read(payload_bytes)
    if _checksum(frame[:8], header, payload) != checksum:
        raise DamageError("a checksum is wrong")
    return header, payload, record_bytes


def check_magic(file: BinaryIO) -> None:
    """Raises DamageError unless the file begins as a segment of this version does."""
    if file.read(len(MAGIC)) != MAGIC:
        raise DamageError("it is no segment of a spool, or of another version")


def cut_torn_tail(path: Path) -> None:
    """Leave only whole records in the segment that a killed process was writing; one without its MAGIC is removed.

    Other damage is left as it is: it did not come from the kill. Raises OSError.
    """
    size_bytes, whole_bytes = path.stat().st_size, len(MAGIC)
    if size_bytes < whole_bytes:
        path.unlink()
        return
    with path.open("r+b") as file:
        try:
            check_magic(file)
            while whole_bytes < size_bytes:
                whole_bytes += read_record(file, size_bytes - whole_bytes)[2]
        except TornError:
            file.truncate(whole_bytes)
            os.fsync(file.fileno())
        except DamageError:
            return


def write_all(file: io.RawIOBase, content: bytes) -> None:
    """Write everything to an unbuffered file, which may take it in parts. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) or 0 :]


def _checksum(lengths: bytes, header: bytes, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(header, zlib.crc32(lengths)))
