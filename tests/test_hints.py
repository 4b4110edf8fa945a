"""Hints of changes from the system, and what becomes of them when it gives none."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.hints import MAX_PATHS, Hints, advice
from tests.watching import made

PATIENCE_SECONDS = 30.0


def gathered(hints: Hints, wake: threading.Event, path: bytes) -> bool:
    """Whether a path is hinted at in good time."""
    end = time.monotonic() + PATIENCE_SECONDS
    seen: set[bytes] = set()
    while path not in seen and time.monotonic() < end:
        wake.wait(0.1)
        wake.clear()
        seen |= hints.take()
    return path in seen


@pytest.fixture
def wake() -> threading.Event:
    return threading.Event()


@pytest.fixture
def begun(wake: threading.Event) -> Iterator[Callable[..., Hints]]:
    """Starts hints, which end with the test."""
    started: list[Hints] = []

    def begin(*directories: Path | bytes, **others: Any) -> Hints:
        hints = Hints([bytes(each) for each in directories], wake, **others)
        started.append(hints)
        hints.begin()
        return hints

    yield begin
    for hints in started:
        hints.stop()
        assert not hints.is_alive()


def test_changes_in_the_directories_are_told(
    tmp_path: Path, wake: threading.Event, begun: Callable[..., Hints]
) -> None:
    hints = begun(tmp_path)
    assert gathered(hints, wake, made(tmp_path / "a.mp4"))
    os.unlink(tmp_path / "a.mp4")  # noqa: PTH108
    assert gathered(hints, wake, bytes(tmp_path / "a.mp4"))


def test_links_are_not_followed_out_of_the_directories(
    tmp_path: Path, wake: threading.Event, begun: Callable[..., Hints]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    hints = begun(tmp_path / "root")
    made(tmp_path / "outside/a.mp4")
    paths: set[bytes] = set()
    made(tmp_path / "root/b.mp4")
    end = time.monotonic() + PATIENCE_SECONDS
    while bytes(tmp_path / "root/b.mp4") not in paths and time.monotonic() < end:
        paths |= hints.take()
    assert paths == {bytes(tmp_path / "root/b.mp4")}


def test_a_name_that_is_not_utf_8_ends_the_hints_with_a_reason(
    tmp_path: Path, wake: threading.Event, begun: Callable[..., Hints]
) -> None:
    hints = begun(tmp_path)
    made(Path(os.fsdecode(bytes(tmp_path) + b"/\xff.mp4")))
    assert wake.wait(PATIENCE_SECONDS)
    hints.join(PATIENCE_SECONDS)
    assert hints.failure is not None


def test_a_directory_whose_name_is_not_utf_8_is_left_out(
    tmp_path: Path, wake: threading.Event, begun: Callable[..., Hints]
) -> None:
    odd = os.path.join(bytes(tmp_path), b"\xff")  # noqa: PTH118
    os.mkdir(odd)  # noqa: PTH102
    hints = begun(tmp_path, odd)
    assert hints.failure is None
    assert gathered(hints, wake, made(tmp_path / "a.mp4"))


def test_more_changes_than_can_be_remembered_are_said_to_be_too_many(
    wake: threading.Event, begun: Callable[..., Hints]
) -> None:
    def watch(*paths: str, stop_event: threading.Event, **options: object) -> Iterator[set[tuple[int, str]]]:
        yield set()
        yield {(1, f"/{number}") for number in range(MAX_PATHS + 1)}
        stop_event.wait()

    hints = begun(b"/", watch=watch)
    assert wake.wait(PATIENCE_SECONDS)
    assert hints.too_many
    assert hints.take() == set()


def test_signals_reach_the_main_thread_and_leave_the_hints_alone(
    tmp_path: Path, wake: threading.Event, begun: Callable[..., Hints]
) -> None:
    caught = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        hints = begun(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)
        assert gathered(hints, wake, made(tmp_path / "a.mp4"))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert caught == [signal.SIGINT]
    assert hints.failure is None


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (OSError('OS file watch limit reached. about ["/a"]'), "fs.inotify.max_user_watches"),
        (RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"), "max_user_instances"),
        (FileNotFoundError("No such file or directory"), "No such file or directory"),
    ],
)
def test_a_failure_says_what_to_do(
    wake: threading.Event, begun: Callable[..., Hints], failure: Exception, remedy: str
) -> None:
    def watch(*paths: str, **options: object) -> Iterator[set[tuple[int, str]]]:
        raise failure
        yield set()

    hints = begun(b"/", watch=watch)
    assert hints.failure is not None
    assert remedy in advice(hints.failure)
    assert wake.is_set()
