"""The embedded store: its directory, its lock, a full disk, a damaged file."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.qdrant import open_store
from stages.qdrant_local import LocalStore
from stages.qdrant_local_values import edge_errors
from stages.store import Filter, frames_spec
from stages.store_directory import MIB, StoreDirectory
from tests.qdrant_loopback import fast_disk
from tests.store_samples import DIMENSION, SPECS, code_of, frames, speech, vectors

ROOT = Path(__file__).parents[1]
FRAMES = [frames_spec(DIMENSION)]


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_disk()) as name:
        yield Path(name) / "store"


@pytest.fixture
def filled(directory: Path) -> Path:
    """A closed store with three frames in it."""
    store = LocalStore(directory, "sluice")
    store.ensure(FRAMES)
    store.upsert("frames", frames(3))
    store.close()
    return directory


def refused(path: Path, read_only: bool = False) -> pytest.ExceptionInfo[StoreError]:
    with pytest.raises(StoreError) as error:
        open_store(StoreOptions(path=str(path)), None, read_only)
    assert str(path) in error.value.message
    return error


# --- whose directory it is ------------------------------------------------------------------------------------------


def test_a_new_store_is_marked_and_named(filled: Path) -> None:
    assert json.loads((filled / "sluice-store.json").read_text()) == {"version": 1}
    assert sorted(entry.name for entry in filled.iterdir()) == ["lock", "sluice-store.json", "sluice_frames"]


def test_a_directory_of_something_else_is_never_written_to(directory: Path) -> None:
    directory.mkdir()
    (directory / "holiday.mp4").write_bytes(b"film")
    error = refused(directory)
    assert code_of(error) == "store-not-ours"
    assert "holiday.mp4" in error.value.message
    assert [entry.name for entry in directory.iterdir()] == ["holiday.mp4"]


def test_an_empty_directory_becomes_a_store(directory: Path) -> None:
    directory.mkdir()
    LocalStore(directory, "sluice").close()
    assert (directory / "sluice-store.json").exists()


def test_a_start_that_was_cut_short_is_taken_up_again(directory: Path) -> None:
    directory.mkdir()
    (directory / "lock").write_text("process 1")
    (directory / "sluice-store.json.tmp").write_text("{")
    LocalStore(directory, "sluice").close()
    assert json.loads((directory / "sluice-store.json").read_text()) == {"version": 1}


def test_a_collection_that_was_half_made_is_made_anew(filled: Path) -> None:
    half = filled / ".new-sluice_speech"
    half.mkdir()
    (half / "edge_config.json").write_text("{")
    store = LocalStore(filled, "sluice")
    store.ensure(SPECS)
    store.upsert("speech", speech(["a fox"]))
    assert store.count("speech") == 1
    assert store.count("frames") == 3
    assert not half.exists()
    store.close()


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_is_not_a_directory(directory: Path, below: str) -> None:
    directory.write_text("a file")
    assert code_of(refused(directory / below)) == "store-not-a-directory"
    assert directory.read_text() == "a file"


def test_a_directory_that_cannot_be_written() -> None:
    assert code_of(refused(Path("/proc/sluice-store"))) == "store-not-writable"  # not even by root


def test_nothing_to_read_is_said(directory: Path) -> None:
    error = refused(directory, read_only=True)
    assert code_of(error) == "store-missing"
    assert not directory.exists()


def test_a_later_format_is_refused(filled: Path) -> None:
    (filled / "sluice-store.json").write_text('{"version": 2}')
    assert code_of(refused(filled)) == "store-version"


@pytest.mark.parametrize("mark", ["", "[]", "{}", "\x00"])
def test_a_mark_that_cannot_be_read(filled: Path, mark: str) -> None:
    (filled / "sluice-store.json").write_text(mark)
    assert code_of(refused(filled)) == "store-damaged"


# --- who has it open ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_second_opener_is_told_who_has_it(filled: Path, read_only: bool) -> None:
    store = LocalStore(filled, "sluice")
    error = refused(filled, read_only)
    assert code_of(error) == "store-locked"
    assert f"process {os.getpid()} (" in error.value.message
    assert "store.path" in error.value.message
    store.close()
    LocalStore(filled, "sluice").close()


def test_a_killed_owner_holds_nothing(filled: Path) -> None:
    code = (
        "import pathlib, sys; from stages.qdrant_local import LocalStore\n"
        "store = LocalStore(pathlib.Path(sys.argv[1]), 'sluice')\n"
        "print(store.count('frames'), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(filled)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"3\n"
        error = refused(filled)
        assert f"process {owner.pid} (-c" in error.value.message
        owner.kill()
        owner.wait()
    store = LocalStore(filled, "sluice")
    assert store.count("frames") == 3
    store.close()


def test_a_batch_that_fails_is_told_to_the_writer_and_to_nobody_else(filled: Path) -> None:
    store = LocalStore(filled, "sluice")
    wrong = dataclasses.replace(frames(4)[3], vectors={"image": vectors(1, 5)[0]})
    with pytest.raises(StoreError) as error:
        store.put("frames", [wrong])
    assert code_of(error) == "vector-size"
    assert store.count("frames") == 3
    store.upsert("frames", frames(5)[4:])
    store.set_payload("frames", Filter(video_id="v1"), {"path": "/new"})
    store.delete("frames", Filter(ids=(frames(1)[0].id,)))
    store.flush()
    assert store.count("frames") == 3
    store.close()


# --- room -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_writes_before_edge_dies_of_it_and_mends(
    filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = os.statvfs(filled)
    free_bytes = free.f_bavail * free.f_frsize
    store = LocalStore(filled, "sluice", reserve_bytes=8 * free_bytes)
    with pytest.raises(StoreUnavailable, match="MiB are free") as error:
        store.count("frames")  # not even a quarter of the reserve is free: it cannot be opened
    assert code_of(error) == "store-full"
    store.close()
    store = LocalStore(filled, "sluice", reserve_bytes=2 * free_bytes)
    assert store.count("frames") == 3  # reading goes on
    writes: list[Callable[[], None]] = [
        lambda: store.upsert("frames", frames(5)),
        lambda: store.delete("frames", Filter(video_id="v1")),
        lambda: store.set_payload("frames", Filter(video_id="v1"), {"speaker": "Ada"}),
        lambda: store.ensure(SPECS),
    ]
    for write in writes:
        with pytest.raises(StoreUnavailable) as error:
            write()
        assert code_of(error) == "store-full"
    store.optimize()  # can wait
    assert "keeps the room" in caplog.text
    store.close()
    store = LocalStore(filled, "sluice")
    store.upsert("frames", frames(5))
    assert store.count("frames") == 5
    store.close()


def test_no_room_for_a_new_store(directory: Path) -> None:
    with pytest.raises(StoreUnavailable) as error:
        StoreDirectory(directory, read_only=False, reserve_bytes=1 << 60)
    assert code_of(error) == "store-full"
    StoreDirectory(directory, read_only=False, reserve_bytes=MIB).close()


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        ("No space left on device (os error 28)", "store-full"),
        ("Permission denied (os error 13)", "store-not-writable"),
        ("Can't init WAL: Kind(WouldBlock)", "store-locked"),
        ("out of bounds", "store-damaged"),
    ],
)
def test_the_cause_is_found_at_the_end_of_a_long_text(cause: str, code: str) -> None:
    nested = "Service runtime error: Failed to flush " + "Service runtime error: Failed to persist " * 20 + cause
    with pytest.raises(StoreError) as error, edge_errors(Path("/store/x_frames")):
        raise Exception(nested)  # noqa: TRY002 — as Edge does
    assert code_of(error) == code
    assert len(error.value.message) < 500
    assert code in {"store-full", "store-locked"} or cause in error.value.message


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "edge_config.json",
        "segments/*/segment.json",
        "segments/*/vector_storage-image/vectors/status.dat",
    ],  # the last: a panic
)
def test_a_damaged_file_is_named_in_one_line(filled: Path, pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    for file in (filled / "sluice_frames").glob(pattern):
        os.truncate(file, file.stat().st_size // 2)
    store = LocalStore(filled, "sluice")
    with pytest.raises(StoreError, match="sluice_frames") as error:
        store.count("frames")
    assert code_of(error) == "store-damaged"
    store.close()
    capfd.readouterr()  # a panic speaks on stderr, too


# --- threads --------------------------------------------------------------------------------------------------------


def test_searching_while_writing(filled: Path) -> None:
    store = LocalStore(filled, "sluice")
    found: list[int] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            found.append(len(store.search("frames", "image", vectors(1)[0], 3)))

    reader = threading.Thread(target=search)
    reader.start()
    for batch in range(10):
        store.upsert("frames", frames(50, video=f"w{batch}", seed=batch))
    done.set()
    reader.join()
    assert set(found) == {3}
    assert store.count("frames") == 503
    store.close()
