"""The watched directories as the supervisor sees them: real directories, real threads, real hints."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from engine.config import WatchOptions, WatchRoot
from engine.errors import ConfigError
from engine.watcher import Arrived, Event, Gone, Notice, Pace, Watcher, WatchState
from stages.errors import SluiceError
from tests.watching import Ledger, made

PATIENCE_SECONDS = 60.0
PACE = Pace(look_seconds=0.1, settle_seconds=0.05)
SETTINGS: dict[str, Any] = {"quiet_seconds": 0.2, "scan_seconds": 3600.0, "poll_seconds": 0.3}


class Rig:
    """A watcher, the ledger that it asks, and what it has said."""

    def __init__(self, watcher: Watcher, ledger: Ledger) -> None:
        self.watcher, self.ledger = watcher, ledger
        self.arrived: list[bytes] = []
        self.gone: list[bytes] = []
        self.texts: list[str] = []

    def take(self) -> Event | None:
        """The next event, which is recorded as the supervisor would do it."""
        event = self.watcher.take()
        match event:
            case Arrived(path=path):
                self.arrived.append(path)
                self.ledger.record(path)
                self.watcher.settled(path)
            case Gone(path=path):
                self.gone.append(path)
                self.ledger.gone(path)
                self.watcher.settled(path)
            case Notice(text=text):
                self.texts.append(text)
        return event

    def until(self, condition: Callable[[], object]) -> None:
        """Take events until something is so."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self.take() is None:
                time.sleep(0.01)
            assert time.monotonic() < end, (self.arrived, self.gone, self.texts, self.watcher.states())

    def until_arrived(self, *paths: bytes) -> None:
        """Until exactly these have arrived since the last time, in any order."""
        self.until(lambda: len(self.arrived) >= len(paths))
        assert sorted(self.arrived) == sorted(paths)
        self.arrived.clear()

    def first_event(self) -> Event:
        """The next event, which nobody records."""
        events: list[Event] = []

        def found() -> bool:
            event = self.watcher.take()
            events.extend([event] if event is not None else [])
            return bool(events)

        self.until_true(found)
        return events[0]

    def until_queued(self, count: int) -> None:
        """Until so many events wait, of which none is taken."""
        self.until_true(lambda: self.watcher.waiting_files >= count)

    def until_true(self, condition: Callable[[], object]) -> None:
        """Wait and take nothing."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            time.sleep(0.01)
            assert time.monotonic() < end, self.watcher.states()

    def state(self) -> WatchState:
        """Of the only root."""
        (state,) = self.watcher.states()
        return state

    def until_watching(self) -> None:
        """Until the root was scanned and gives hints."""
        self.until(lambda: self.state().state == "watching" and not self.state().polled)


Start = Callable[..., Rig]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a watcher on roots; it is stopped with the test, and leaves no thread."""
    rigs: list[Rig] = []

    def started(*roots: Path | WatchRoot, ledger: Ledger | None = None, pace: Pace = PACE, **settings: Any) -> Rig:
        ledger = ledger or Ledger()
        options = options_of(*roots, **settings)
        rig = Rig(Watcher(options, ("mp4", "mkv"), lambda: ledger, pace), ledger)
        rigs.append(rig)
        rig.watcher.start()
        return rig

    yield started
    for rig in rigs:
        rig.watcher.stop()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("watch-")] == []


def options_of(*roots: Path | WatchRoot, **settings: Any) -> WatchOptions:
    entries = tuple(root if isinstance(root, WatchRoot) else str(root) for root in roots)
    return WatchOptions(roots=entries, **{**SETTINGS, **settings})


def test_files_that_are_there_arrive_and_later_ones_by_hints(tmp_path: Path, start: Start) -> None:
    first = made(tmp_path / "a.mp4")
    rig = start(tmp_path)
    rig.until_arrived(first)
    rig.until_watching()
    second = made(tmp_path / "b.mkv")
    third = made(tmp_path / "new/deep/c.mp4")
    rig.until_arrived(second, third)
    rig.until_arrived(made(tmp_path / "new/deep/d.mp4"))
    assert rig.gone == []


def test_a_growing_file_arrives_once_and_whole(tmp_path: Path, start: Start) -> None:
    rig = start(tmp_path, quiet_seconds=2.0)  # longer than this machine may pause between two pieces
    rig.until_watching()
    size = 0
    with (tmp_path / "film.mp4").open("wb", buffering=0) as file:
        for _ in range(50):
            size += file.write(b"piece")
            rig.take()
            time.sleep(0.02)
    rig.until_arrived(bytes(tmp_path / "film.mp4"))
    assert rig.ledger.rows[bytes(tmp_path / "film.mp4")].size_bytes == size


def test_the_event_tells_root_priority_and_time(tmp_path: Path, start: Start) -> None:
    before = time.time()
    rig = start(WatchRoot(path=str(tmp_path), priority=3))
    made(tmp_path / "film.mp4")
    event = rig.first_event()
    assert isinstance(event, Arrived)
    assert (event.root, event.priority) == (bytes(tmp_path), 3)
    assert before - 1 <= event.complete_seconds <= time.time()


def test_a_renamed_file_arrives_and_is_then_gone(tmp_path: Path, start: Start) -> None:
    made(tmp_path / "rest.mp4")
    old = made(tmp_path / "old.mp4")
    rig = start(tmp_path, quiet_seconds=1.0)
    rig.until(lambda: len(rig.arrived) == 2)
    rig.until_watching()
    rig.arrived.clear()
    (tmp_path / "old.mp4").rename(tmp_path / "new.mp4")
    rig.until(lambda: rig.arrived or rig.gone)
    assert (rig.arrived, rig.gone) == ([bytes(tmp_path / "new.mp4")], [])
    rig.until(lambda: rig.gone)
    assert rig.gone == [old]


def test_a_polled_root_is_scanned_again_and_again(tmp_path: Path, start: Start) -> None:
    rig = start(tmp_path, poll="always")
    rig.until(lambda: rig.state().scan_seconds is not None)
    rig.until_arrived(made(tmp_path / "a.mp4"))
    assert rig.state().polled


def test_a_network_mount_is_polled_unless_that_is_forbidden(tmp_path: Path, start: Start) -> None:
    pace = replace(PACE, is_network=lambda path: True)
    rig = start(tmp_path, pace=pace)
    rig.until_arrived(made(tmp_path / "a.mp4"))
    assert rig.state().polled
    start(tmp_path, pace=pace, poll="never").until_watching()


def test_where_the_system_gives_no_hints_the_root_is_polled_until_it_does(tmp_path: Path, start: Start) -> None:
    limited = threading.Event()
    limited.set()

    def watch(*paths: str, **options: Any) -> Iterator[set[tuple[Any, str]]]:
        if limited.is_set():
            raise OSError("OS file watch limit reached.")
        yield from watchfiles.watch(*paths, **options)

    rig = start(tmp_path, pace=replace(PACE, watch=watch))
    rig.until(lambda: rig.texts)
    assert "fs.inotify.max_user_watches" in rig.texts[0]
    rig.until_arrived(made(tmp_path / "a.mp4"))
    assert rig.state().polled
    limited.clear()
    rig.until_watching()
    rig.until_arrived(made(tmp_path / "b.mp4"))
    assert len(rig.texts) == 2  # that it failed was said once, and that it works


def test_a_directory_that_goes_before_it_is_watched_costs_nothing(tmp_path: Path, start: Start) -> None:
    failures = [FileNotFoundError("No such file or directory"), PermissionError("Permission denied")]

    def watch(*paths: str, **options: Any) -> Iterator[set[tuple[Any, str]]]:
        if failures:
            raise failures.pop()
        yield from watchfiles.watch(*paths, **options)

    rig = start(tmp_path, pace=replace(PACE, watch=watch))
    rig.until_watching()
    rig.until_arrived(made(tmp_path / "a.mp4"))
    assert (failures, rig.texts) == ([], [])


def test_a_directory_that_can_never_be_watched_is_said_in_the_end(tmp_path: Path, start: Start) -> None:
    def watch(*paths: str, **options: Any) -> Iterator[set[tuple[Any, str]]]:
        raise PermissionError("Permission denied")
        yield set()

    rig = start(tmp_path, pace=replace(PACE, watch=watch))
    rig.until(lambda: rig.texts)
    assert "Permission denied" in rig.texts[0]
    rig.until_arrived(made(tmp_path / "a.mp4"))


def test_hints_that_do_not_fit_beside_the_old_ones_take_their_place(tmp_path: Path, start: Start) -> None:
    open_watches: set[object] = set()

    def watch(*paths: str, **options: Any) -> Iterator[set[tuple[Any, str]]]:
        if open_watches:
            raise OSError("OS file watch limit reached.")
        me = object()
        open_watches.add(me)
        try:
            yield from watchfiles.watch(*paths, **options)
        finally:
            open_watches.discard(me)

    rig = start(tmp_path, pace=replace(PACE, watch=watch))
    rig.until_watching()
    rig.until_arrived(made(tmp_path / "new/a.mp4"))
    rig.until_arrived(made(tmp_path / "new/b.mp4"))
    rig.until_watching()
    assert rig.texts == []


def test_names_that_are_not_utf_8_arrive_though_they_end_the_hints(tmp_path: Path, start: Start) -> None:
    rig = start(tmp_path)
    rig.until_watching()
    odd = bytes(tmp_path) + b"/\xff\n.mp4"
    made(Path(os.fsdecode(odd)))
    rig.until_arrived(odd)
    rig.until_arrived(made(tmp_path / "a.mp4"))
    rig.until_watching()
    assert rig.texts == []


def test_a_root_that_comes_later_is_watched_from_then_on(tmp_path: Path, start: Start) -> None:
    root = tmp_path / "later"
    rig = start(root)
    rig.until(lambda: rig.state().state == "missing")
    path = made(root / "a.mp4")
    rig.until_arrived(path)
    rig.until_watching()
    assert [text.split(":")[0] for text in rig.texts] == [str(root)] * 2
    assert "no such directory" in rig.texts[0]


def test_a_root_that_vanishes_loses_nothing_and_goes_on_when_it_is_back(tmp_path: Path, start: Start) -> None:
    root = tmp_path / "root"
    first = made(root / "a.mp4")
    rig = start(root)
    rig.until_arrived(first)
    rig.until_watching()
    root.rename(tmp_path / "away")
    rig.until(lambda: rig.state().state.startswith("lost: "))
    (tmp_path / "away").rename(root)
    rig.until_watching()
    rig.until_arrived(made(root / "b.mp4"))
    assert rig.gone == []
    assert len(rig.texts) == 2


def test_a_root_that_is_swapped_for_an_empty_directory_loses_nothing(tmp_path: Path, start: Start) -> None:
    root = tmp_path / "root"
    first = made(root / "a.mp4")
    rig = start(root)
    rig.until_arrived(first)
    root.rename(tmp_path / "away")
    root.mkdir()
    rig.until(lambda: rig.state().state == "lost: it holds no file any more")
    root.rmdir()
    (tmp_path / "away").rename(root)
    rig.until_watching()
    assert (rig.gone, rig.arrived) == ([], [])
    rig.until(lambda: any("there again" in text for text in rig.texts))
    assert any("forget" in text for text in rig.texts)


def test_a_root_that_is_a_file_is_said(tmp_path: Path, start: Start) -> None:
    made(tmp_path / "film.mp4")
    rig = start(tmp_path / "film.mp4")
    rig.until(lambda: rig.texts)
    assert "not a directory" in rig.texts[0]
    assert rig.state().state.startswith("lost: it is not a directory")


def test_a_root_may_be_a_link(tmp_path: Path, start: Start) -> None:
    made(tmp_path / "real/a.mp4")
    (tmp_path / "link").symlink_to("real")
    rig = start(tmp_path / "link")
    rig.until_arrived(bytes(tmp_path / "link/a.mp4"))
    rig.until_watching()
    made(tmp_path / "real/b.mp4")
    rig.until_arrived(bytes(tmp_path / "link/b.mp4"))
    assert rig.gone == []


def test_urgent_roots_come_first_and_a_full_queue_holds_nobody_else_up(tmp_path: Path, start: Start) -> None:
    for number in range(20):
        made(tmp_path / f"many/{number:02}.mp4")
    (tmp_path / "urgent").mkdir()
    pace = replace(PACE, queue_events=2)
    rig = start(tmp_path / "many", WatchRoot(path=str(tmp_path / "urgent"), priority=1), pace=pace)
    rig.until_queued(2)
    urgent = made(tmp_path / "urgent/now.mp4")
    rig.until_queued(3)
    assert rig.watcher.take(above=1) is None
    event = rig.watcher.take(above=0)
    assert isinstance(event, Arrived)
    assert event.path == urgent
    assert rig.watcher.take(above=0) is None
    rig.until(lambda: len(rig.arrived) == 20)


def test_roots_of_equal_priority_take_turns(tmp_path: Path, start: Start) -> None:
    for name in ("a", "b"):
        for number in range(3):
            made(tmp_path / f"{name}/{number}.mp4")
    rig = start(tmp_path / "a", tmp_path / "b")
    rig.until_queued(6)
    rig.until(lambda: len(rig.arrived) == 6)
    assert [os.path.basename(os.path.dirname(path)) for path in rig.arrived] == [b"a", b"b"] * 3  # noqa: PTH119, PTH120


def test_ten_thousand_files_arrive_once_each(tmp_path: Path, start: Start) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}.mp4").touch()
    rig = start(tmp_path)
    rig.until(lambda: len(rig.arrived) >= 10_000)
    rig.until_watching()
    assert len(set(rig.arrived)) == len(rig.arrived) == 10_000
    assert rig.state().files == 10_000


def test_reloading_adds_and_removes_roots_and_keeps_the_others(tmp_path: Path, start: Start) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    rig = start(tmp_path / "a", tmp_path / "b")
    rig.watcher.reload(options_of(tmp_path / "b", tmp_path / "c"))
    assert [state.path for state in rig.watcher.states()] == [str(tmp_path / "b"), str(tmp_path / "c")]
    rig.until(lambda: all(not state.polled for state in rig.watcher.states()))
    made(tmp_path / "a/1.mp4")
    rig.until_arrived(made(tmp_path / "b/2.mp4"), made(tmp_path / "c/3.mp4"))


def test_reloading_other_patterns_gives_what_they_take_and_nothing_twice(tmp_path: Path, start: Start) -> None:
    first, second = made(tmp_path / "a.mp4"), made(tmp_path / "b.txt")
    rig = start(tmp_path)
    taken = rig.first_event()  # never settled
    rig.watcher.reload(options_of(tmp_path, include=("*.mp4", "*.txt")))
    rig.until_arrived(second)
    rig.until_watching()
    assert isinstance(taken, Arrived)
    assert (taken.path, rig.arrived) == (first, [])


def test_what_was_queued_before_a_reload_is_given_after_it(tmp_path: Path, start: Start) -> None:
    path = made(tmp_path / "a.mp4")
    rig = start(tmp_path)
    rig.until_queued(1)
    rig.watcher.reload(options_of(tmp_path, include=("*.mp4",)))
    rig.until_arrived(path)
    assert rig.gone == []


@pytest.mark.parametrize("roots", [("/a", "/b/../a"), ("",), ("a\0b",)])
def test_roots_that_make_no_sense_are_refused_and_change_nothing(tmp_path: Path, start: Start, roots: Any) -> None:
    rig = start(tmp_path)
    with pytest.raises(ConfigError, match=r"watch\.roots"):
        rig.watcher.reload(WatchOptions(roots=roots))
    assert rig.state().path == str(tmp_path)


def test_a_ledger_that_cannot_be_read_is_asked_again(tmp_path: Path, start: Start) -> None:
    class Locked(Ledger):
        broken = True

        def mark(self, path: bytes) -> Any:
            if self.broken:
                raise SluiceError("ledger-locked", "ledger x: database is locked")
            return super().mark(path)

    ledger = Locked()
    path = made(tmp_path / "a.mp4")
    rig = start(tmp_path, ledger=ledger)
    rig.until(lambda: ledger.closed >= 2)
    assert rig.state().state == "lost: ledger x: database is locked"
    ledger.broken = False
    rig.until_arrived(path)
    rig.until_watching()
    assert len(rig.texts) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_of_something_unforeseen_is_replaced(tmp_path: Path, start: Start) -> None:
    class Cursed(Ledger):
        deaths = 1

        def mark(self, path: bytes) -> Any:
            if self.deaths:
                self.deaths -= 1
                raise ZeroDivisionError
            return super().mark(path)

    path = made(tmp_path / "a.mp4")
    rig = start(tmp_path, ledger=Cursed())
    rig.until_arrived(path)
    assert "has died" in rig.texts[0]


def test_stopping_ends_all_threads_even_with_full_queues(tmp_path: Path, start: Start) -> None:
    for number in range(10):
        made(tmp_path / f"{number}.mp4")
    rig = start(tmp_path, pace=replace(PACE, queue_events=1))
    rig.until_queued(1)
    rig.watcher.stop()
    assert rig.ledger.closed == 1
    assert rig.watcher.states() == []


def test_a_scan_that_is_wanted_finds_what_the_ledger_has_forgotten(tmp_path: Path, start: Start) -> None:
    path = made(tmp_path / "a.mp4")
    rig = start(tmp_path)
    rig.until_arrived(path)
    rig.until_watching()
    del rig.ledger.rows[path]
    rig.watcher.scan_soon()
    rig.until_arrived(path)
    assert rig.gone == []
