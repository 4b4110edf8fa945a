"""The spool: what was appended comes back in order, after a kill at any byte, a full disk and a damaged file, too."""

import errno
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import StartError
from engine.spool import RESERVE_BYTES, Spool, spool_directory
from engine.spool_segment import MAGIC, encoded
from stages.options import StoreOptions

MIB = 1 << 20
RECORDS = [(b"header %d" % number, bytes([number]) * (7 * number)) for number in range(12)]
PLENTY = 1 << 40


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def spool_in(directory: Path, limit_bytes: int = MIB, segment_bytes: int = MIB) -> Spool:
    return Spool(directory, limit_bytes, segment_bytes, free_bytes=lambda path: PLENTY)


def put(spool: Spool, records: list[tuple[bytes, bytes]]) -> None:
    """Append all."""
    left = list(records)
    while left:
        count = spool.append(left)
        assert count > 0
        left = left[count:]


def take_all(spool: Spool) -> list[tuple[bytes, bytes]]:
    """Read everything back; nothing is called done."""
    found = []
    while (record := spool.read()) is not None:
        found.append((record.header, record.payload))
    return found


def drain(spool: Spool) -> list[tuple[bytes, bytes]]:
    """Read everything back and be done with it."""
    found = []
    while (record := spool.read()) is not None:
        found.append((record.header, record.payload))
        spool.done(record.segment)
    return found


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- in and out -----------------------------------------------------------------------------------------------------


def test_nothing_is_made_before_it_is_needed(directory: Path) -> None:
    spool = spool_in(directory)
    assert spool.is_empty
    assert spool.read() is None
    assert not directory.parent.exists()
    spool.close()


@given(
    steps=st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["read", "done", "seal", "reopen"])), max_size=40),
    segment_bytes=st.sampled_from([1, 60, 200, MIB]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_it_is_a_queue_that_outlives_its_process(tmp_path: Path, steps: list[int | str], segment_bytes: int) -> None:
    """Against a list: what comes back is in order; after a reopening, it begins at or before the first not done."""
    directory = tmp_path / "spool"
    shutil.rmtree(directory, ignore_errors=True)
    spool = spool_in(directory, segment_bytes=segment_bytes)
    appended: list[bytes] = []
    done: set[int] = set()
    reading: list[tuple[int, int]] = []  # (which one, its segment) read back and not done
    at = 0  # which one is read next
    for step in steps:
        match step:
            case int(count):
                headers = [b"%d" % (len(appended) + index) for index in range(count)]
                put(spool, [(header, header * 5) for header in headers])
                appended += headers
            case "read":
                record = spool.read()
                assert (record is None) == (at == len(appended))
                if record is not None:
                    assert (record.header, record.payload) == (appended[at], appended[at] * 5)
                    reading.append((at, record.segment))
                    at += 1
            case "done" if reading:
                which, segment = reading.pop(len(reading) // 2)
                spool.done(segment)
                done.add(which)
            case "seal":
                assert spool.seal() >= spool.oldest
            case "reopen":
                spool.close()
                spool = spool_in(directory, segment_bytes=segment_bytes)
                first = next((which for which in range(len(appended)) if which not in done), len(appended))
                again = [int(header) for header, _ in take_all(spool)]
                assert again == list(range(len(appended) - len(again), len(appended)))
                assert len(appended) - len(again) <= first
                spool.close()
                spool = spool_in(directory, segment_bytes=segment_bytes)
                at, reading = len(appended) - len(again), []
    for _, segment in reading:
        spool.done(segment)
    drain(spool)
    assert spool.is_empty
    assert spool.size_bytes == 0
    spool.close()
    assert not list(directory.glob("*.spool"))


def test_a_segment_goes_when_all_of_it_is_done(directory: Path) -> None:
    spool = spool_in(directory, segment_bytes=100)
    put(spool, RECORDS[:6])
    before = len(files(directory))
    records = [record for _ in range(6) if (record := spool.read()) is not None]
    assert len({record.segment for record in records}) > 1
    assert len(files(directory)) == before, "nothing is done yet"
    for record in reversed(records):
        assert not spool.is_empty
        spool.done(record.segment)
    assert files(directory) == ["lock"]
    spool.close()


def test_what_is_appended_while_it_is_read_back_comes_last(directory: Path) -> None:
    spool = spool_in(directory)
    put(spool, RECORDS[:3])
    first = spool.read()
    assert first is not None
    put(spool, RECORDS[3:5])
    assert [(first.header, first.payload), *take_all(spool)] == RECORDS[:5]
    put(spool, RECORDS[5:6])
    assert take_all(spool) == RECORDS[5:6]
    spool.close()


def test_a_seal_parts_what_came_before_from_what_comes_after(directory: Path) -> None:
    spool = spool_in(directory)
    assert spool.seal() == spool.oldest, "nothing came before"
    put(spool, RECORDS[:3])
    mark = spool.seal()
    assert spool.seal() == mark
    put(spool, RECORDS[3:6])
    before = [spool.read(mark) for _ in range(4)]
    assert [(record.header, record.payload) for record in before if record] == RECORDS[:3]
    assert not spool.has_unread(mark)
    assert spool.has_unread()
    assert spool.oldest < mark
    for record in before[:3]:
        assert record is not None
        spool.done(record.segment)
    assert spool.oldest == mark
    assert take_all(spool) == RECORDS[3:6]
    spool.close()


# --- killed ---------------------------------------------------------------------------------------------------------


def test_a_file_that_ends_at_any_byte_gives_every_whole_record(tmp_path: Path) -> None:
    """As a kill in the middle of a write leaves it: nothing that was acknowledged is missing, nothing is made up."""
    whole = MAGIC + b"".join(encoded(*record) for record in RECORDS[:4])
    ends = [len(MAGIC) + sum(len(encoded(*record)) for record in RECORDS[:count]) for count in range(5)]
    for cut in range(len(whole) + 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / "00000003.spool").write_bytes(whole[:cut])
        spool = spool_in(directory)
        count = sum(end <= cut for end in ends[1:])
        put(spool, RECORDS[5:6])
        assert drain(spool) == RECORDS[:count] + RECORDS[5:6]
        assert spool.is_empty
        spool.close()
        assert files(directory) == ["lock"]


@given(cut=st.integers(0, 200), bits=st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_byte_costs_no_record_before_it_and_no_other_segment(tmp_path: Path, cut: int, bits: int) -> None:
    directory = tmp_path / "spool"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    parts = [encoded(*record) for record in RECORDS[3:7]]
    content = bytearray(MAGIC + b"".join(parts))
    cut = min(cut, len(content) - 1)
    content[cut] ^= bits
    (directory / "00000001.spool").write_bytes(content)
    (directory / "00000002.spool").write_bytes(MAGIC + encoded(*RECORDS[8]))
    ends = [len(MAGIC) + sum(map(len, parts[: count + 1])) for count in range(4)]
    whole = sum(end <= cut for end in ends) if cut >= len(MAGIC) else 0
    spool = spool_in(directory)
    assert drain(spool) == [*RECORDS[3 : 3 + whole], RECORDS[8]]
    assert spool.is_empty
    spool.close()
    assert files(directory) == ["00000001.damaged", "lock"]
    assert (directory / "00000001.damaged").read_bytes() == content


def test_damage_in_the_newest_segment_is_kept_aside_and_said(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = spool_in(directory)
    put(spool, RECORDS[:4])
    spool.close()
    path = directory / "00000001.spool"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    spool = spool_in(directory)
    assert drain(spool) == RECORDS[:3]
    assert "is damaged at byte" in caplog.text
    assert "kept aside" in caplog.text
    put(spool, RECORDS[5:6])
    assert drain(spool) == RECORDS[5:6]
    spool.close()
    assert files(directory) == ["00000001.damaged", "lock"]
    spool = spool_in(directory)
    put(spool, RECORDS[:1])
    assert "00000002.spool" in files(directory), "a number that was used is not used again"
    spool.close()


# --- room -----------------------------------------------------------------------------------------------------------


def test_it_takes_no_more_than_its_limit_and_more_when_there_is_room(directory: Path) -> None:
    limit_bytes = len(MAGIC) + sum(len(encoded(*record)) for record in RECORDS[:5]) + 3
    spool = spool_in(directory, limit_bytes=limit_bytes)
    assert spool.append(RECORDS) == 5
    assert spool.append(RECORDS[5:]) == 0
    assert spool.size_bytes <= limit_bytes
    assert drain(spool) == RECORDS[:5]
    put(spool, RECORDS[5:7])
    assert take_all(spool) == RECORDS[5:7]
    spool.close()


def test_a_limit_of_nothing_takes_nothing_and_gives_what_is_there(directory: Path) -> None:
    """As when store.spool_mb was set to 0 after an outage."""
    spool = spool_in(directory)
    put(spool, RECORDS[:4])
    spool.close()
    spool = spool_in(directory, limit_bytes=0)
    assert spool.append(RECORDS[4:]) == 0
    assert drain(spool) == RECORDS[:4]
    assert spool.append(RECORDS[4:]) == 0
    assert spool.is_empty
    spool.close()


class Quota:
    """A disk of so many bytes: what goes beyond is written in part, and then refused."""

    def __init__(self, left_bytes: int) -> None:
        self.left_bytes = left_bytes
        self.files: list[QuotaFile] = []

    def create(self, path: Path) -> io.RawIOBase:
        if self.left_bytes <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.files.append(QuotaFile(path, self))
        return self.files[-1]


class QuotaFile(io.FileIO):
    def __init__(self, path: Path, quota: Quota) -> None:
        super().__init__(path, "ab")
        self.quota = quota
        self.truncates = True

    def write(self, content: "bytes | memoryview") -> int:  # type: ignore[override]
        if self.quota.left_bytes <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(memoryview(content)[: self.quota.left_bytes])
        self.quota.left_bytes -= written
        return written

    def truncate(self, size: int | None = None) -> int:
        if not self.truncates:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().truncate(size)


@pytest.mark.parametrize("truncates", [True, False])
@pytest.mark.parametrize("left_bytes", [0, 5, 16, 20, 100])
def test_a_full_disk_takes_nothing_back_and_loses_nothing(directory: Path, left_bytes: int, truncates: bool) -> None:
    """A group that fits in part is not there at all; it is appended again when there is room."""
    quota = Quota(PLENTY)
    spool = Spool(directory, MIB, create=quota.create, free_bytes=lambda path: PLENTY)
    put(spool, RECORDS[:3])
    size_bytes = spool.size_bytes
    quota.left_bytes = left_bytes
    quota.files[-1].truncates = truncates
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            spool.append(RECORDS[3:])
        assert spool.size_bytes == size_bytes
    quota.left_bytes = PLENTY
    put(spool, RECORDS[3:])
    assert take_all(spool) == RECORDS
    spool.close()
    spool = spool_in(directory)
    assert list(dict.fromkeys(take_all(spool))) == RECORDS, "after a restart as well; what could not be cut off, twice"
    spool.close()


@pytest.mark.parametrize("left_bytes", [0, 5, 20])
def test_a_disk_that_is_full_from_the_start_leaves_no_file(directory: Path, left_bytes: int) -> None:
    quota = Quota(left_bytes)
    spool = Spool(directory, MIB, create=quota.create, free_bytes=lambda path: PLENTY)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            spool.append(RECORDS)
    assert spool.is_empty
    spool.close()
    assert files(directory) == ["lock"]


def test_the_last_of_the_disk_is_left_to_others(directory: Path) -> None:
    free = [PLENTY]
    spool = Spool(directory, MIB, free_bytes=lambda path: free[0])
    put(spool, RECORDS[:2])
    free[0] = RESERVE_BYTES
    with pytest.raises(OSError, match="No space left"):
        spool.append(RECORDS[2:])
    free[0] = PLENTY
    put(spool, RECORDS[2:])
    assert take_all(spool) == RECORDS
    spool.close()


# --- whose it is ----------------------------------------------------------------------------------------------------


def test_a_second_user_is_told_who_has_it(directory: Path) -> None:
    spool = spool_in(directory)
    put(spool, RECORDS[:1])
    with pytest.raises(StartError, match=rf"process {os.getpid()} .*run\.state") as caught:
        spool_in(directory)
    assert caught.value.code == "spool-locked"
    spool.close()


def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(StartError, match=r"run\.state") as caught:
        spool_in(tmp_path / "spool")
    assert caught.value.code == "spool"


def directories() -> Iterator[Path]:
    state = Path("state")
    yield spool_directory(state, StoreOptions(path="one"))
    yield spool_directory(state, StoreOptions(path="two"))
    yield spool_directory(state, StoreOptions(path="one", prefix="other"))
    yield spool_directory(state, StoreOptions(url="http://a:6333"))
    yield spool_directory(state, StoreOptions(url="http://a:6333", prefix="other"))
    yield spool_directory(state, StoreOptions(url="http://b:6333"))


def test_two_stores_never_share_a_spool() -> None:
    assert len(set(directories())) == len(list(directories()))
    one = spool_directory(Path("state"), StoreOptions(url="http://a:6333", path="one"))
    assert one == spool_directory(Path("state"), StoreOptions(url="http://a:6333/", path="two"))
    assert spool_directory(Path("s"), StoreOptions(path="x")) == spool_directory(
        Path("s"), StoreOptions(path=str(Path("x").resolve()))
    )
