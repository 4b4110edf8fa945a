"""What looking at a root gives, with both clocks in the test's hand."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import WatchOptions
from engine.looking import Look
from engine.scan import Identity
from engine.watched import MAX_LINES, Arrived, Given, Gone, Notice, Notices, Outbox, Pace, roots_of
from tests.watching import Clocks, Ledger, made

QUIET = 10.0


def identity_of(path: str) -> Identity:
    found = Path(path).stat()
    return found.st_dev, found.st_ino


class Rig:
    """One root, looked at without a thread. The clocks stand in 2030: files of today are old, and complete at once."""

    def __init__(self, path: Path, local: bool = True, max_files: int = 10_000, **settings: object) -> None:
        self.path = path
        self.ledger = Ledger()
        self.clocks = Clocks()
        self.taken: dict[bytes, Given] = {}
        self.lines: deque[Notice] = deque()
        self._pace = Pace(monotonic=self.clocks.monotonic, wall=self.clocks.wall, max_files=max_files)
        self._local = local
        self._options = WatchOptions(roots=(str(path),), quiet_seconds=QUIET, **settings)  # type: ignore[arg-type]
        self.begin()

    def begin(self, others: tuple[str, ...] = ()) -> None:
        """As after a start, or when another directory stands at the root's place."""
        options = WatchOptions(
            roots=(*self._options.roots, *others), quiet_seconds=QUIET, follow_links=self._options.follow_links
        )
        self.root = roots_of(options, ("mp4",))[0]
        self.stopped = threading.Event()
        self.outbox = Outbox(1_000_000, self.taken)
        notices = Notices(self.lines)
        identities = {os.fsencode(path): identity_of(path) for path in others}
        self.look = Look(
            self.root, self._local, self.ledger, self.outbox, notices, self._pace, self.stopped, identities
        )

    def events(self) -> list[Arrived | Gone]:
        """All that has been said."""
        return list(iter(self.outbox.take, None))

    def arrived(self) -> list[str]:
        """Paths that have arrived, from the root on; nothing else has been said."""
        events = self.events()
        assert all(isinstance(event, Arrived) for event in events)
        return [Path(os.fsdecode(event.path)).relative_to(self.path).as_posix() for event in events]

    def scan(self) -> list[str]:
        """A whole look."""
        self.look.whole()
        return self.arrived()

    def settle(self, *paths: bytes) -> None:
        """As the supervisor does when it has recorded a file."""
        self.ledger.record(*paths)
        for path in paths:
            self.taken.pop(path, None)

    def index_all(self) -> None:
        """Record everything there is."""
        self.look.whole()
        for event in self.events():
            self.settle(event.path)
        assert self.scan() == []

    def missing_for(self, seconds: float) -> list[Arrived | Gone]:
        """Let time pass, and look once more for what was missing."""
        self.clocks.pass_seconds(seconds)
        self.look.missing()
        return self.events()

    def texts(self) -> list[str]:
        """The lines for the log, since the last time."""
        texts = [line.text for line in self.lines]
        self.lines.clear()
        return texts


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    (tmp_path / "root").mkdir()
    return Rig(tmp_path / "root")


# --- what arrives -----------------------------------------------------------------------------------------------------


def test_old_files_arrive_at_once_with_the_time_of_their_last_change(rig: Rig) -> None:
    path = made(rig.path / "a/film.mp4")
    rig.look.whole()
    (event,) = rig.events()
    assert isinstance(event, Arrived)
    assert (event.path, event.root, event.priority) == (path, bytes(rig.path), 0)
    assert event.complete_seconds == pytest.approx(os.stat(path).st_ctime, abs=0.001)  # noqa: PTH116
    assert (rig.look.files, rig.look.ignored) == (1, 0)


def test_what_was_said_is_not_said_again_until_it_is_settled(rig: Rig) -> None:
    path = made(rig.path / "film.mp4")
    rig.look.whole()
    assert rig.scan() == ["film.mp4"]  # once, though looked at twice before it was taken
    assert rig.scan() == []
    rig.taken.pop(path)
    assert rig.scan() == ["film.mp4"]  # settled, but not recorded


def test_a_file_that_changes_before_it_is_settled_is_said_again(rig: Rig) -> None:
    path = made(rig.path / "film.mp4")
    assert rig.scan() == ["film.mp4"]
    made(rig.path / "film.mp4", b"a longer film")
    assert rig.scan() == ["film.mp4"]
    rig.settle(path)
    assert rig.scan() == []


def test_of_a_file_that_changes_while_it_is_queued_only_the_last_state_is_given(rig: Rig) -> None:
    made(rig.path / "film.mp4")
    rig.look.whole()
    made(rig.path / "film.mp4", b"a longer film")
    rig.look.whole()
    assert rig.arrived() == ["film.mp4"]


@pytest.mark.parametrize("state", ["present", "failed"])
def test_a_file_that_is_recorded_as_it_is_does_not_arrive(rig: Rig, state: str) -> None:
    path = made(rig.path / "film.mp4")
    rig.ledger.record(path, state=state)  # type: ignore[arg-type]
    assert rig.scan() == []
    made(rig.path / "film.mp4", b"a longer film")
    assert rig.scan() == ["film.mp4"]


def test_a_file_that_is_back_arrives(rig: Rig) -> None:
    path = made(rig.path / "film.mp4")
    rig.ledger.record(path)
    rig.ledger.gone(path)
    assert rig.scan() == ["film.mp4"]


def test_another_number_of_the_device_is_no_change(rig: Rig) -> None:
    rig.ledger.record(made(rig.path / "film.mp4"))
    rig.ledger.move_to_device(99)
    assert rig.scan() == []


@pytest.mark.parametrize(("local", "arrives"), [(True, True), (False, False)])
def test_another_inode_counts_only_on_local_file_systems(tmp_path: Path, local: bool, arrives: bool) -> None:
    rig = Rig(tmp_path, local=local)
    path = made(rig.path / "film.mp4")
    rig.ledger.record(path)
    times = os.stat(path)  # noqa: PTH116
    os.replace(made(rig.path / "other"), path)  # noqa: PTH105
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    rig.look.whole()
    rig.clocks.pass_seconds(QUIET)
    rig.look.settling()
    assert bool(rig.events()) is arrives


def test_a_young_file_arrives_when_it_is_quiet_and_only_such_files_are_looked_at_until_then(rig: Rig) -> None:
    made(rig.path / "old.mp4")
    rig.clocks.wall_seconds = time.time()
    made(rig.path / "young.mp4", b"")  # empty: the probe will say so
    rig.look.whole()
    assert rig.arrived() == []
    assert rig.look.settling_files == 2
    (rig.path / "old.mp4").unlink()
    rig.clocks.pass_seconds(QUIET)
    rig.look.settling()
    assert rig.arrived() == ["young.mp4"]
    assert not rig.look.is_waiting


def test_a_growing_file_waits_until_it_has_stopped(rig: Rig) -> None:
    rig.clocks.wall_seconds = time.time()
    path = rig.path / "film.mp4"
    made(path)
    rig.look.whole()
    for _ in range(20):
        with path.open("ab") as file:
            file.write(b"more")
        rig.clocks.pass_seconds(QUIET - 1)
        rig.look.settling()
        assert rig.arrived() == []
    rig.clocks.pass_seconds(QUIET)
    rig.look.settling()
    assert rig.arrived() == ["film.mp4"]


def test_more_young_files_than_can_be_held_come_with_the_next_scans(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_files=2)
    rig.clocks.wall_seconds = time.time() - 3600  # the clock stands wrong: all are young
    for number in range(5):
        made(rig.path / f"{number}.mp4")
    arrived: list[str] = []
    for wanted in (True, True, False):
        rig.look.whole()
        rig.look.settling()
        assert rig.look.scan_wanted is wanted
        rig.clocks.pass_seconds(QUIET)
        rig.look.settling()
        arrived += rig.arrived()
    assert arrived == [f"{number}.mp4" for number in range(5)]


def test_only_regular_files_arrive(rig: Rig) -> None:
    os.mkfifo(rig.path / "pipe.mp4")
    (rig.path / "directory.mp4").mkdir()
    made(rig.path / "directory.mp4/film.mp4")
    assert rig.scan() == ["directory.mp4/film.mp4"]
    assert rig.look.files == 1


def test_files_of_a_root_within_the_root_are_that_ones(rig: Rig) -> None:
    made(rig.path / "a.mp4")
    rig.ledger.record(made(rig.path / "inner/b.mp4"), made(rig.path / "inner/c.mp4"))
    (rig.path / "inner/c.mp4").unlink()
    rig.begin(others=(str(rig.path / "inner"),))
    assert rig.scan() == ["a.mp4"]
    assert rig.missing_for(2 * QUIET) == []
    rig.look.hinted(bytes(rig.path / "inner"))
    assert rig.arrived() == []


def test_a_root_that_is_a_link_to_a_directory_within_the_root_has_its_files_alone(rig: Rig, tmp_path: Path) -> None:
    made(rig.path / "inner/b.mp4")
    (tmp_path / "link").symlink_to(rig.path / "inner")
    rig.begin(others=(str(tmp_path / "link"),))
    assert rig.scan() == []


def test_a_stopped_look_says_nothing_more(rig: Rig) -> None:
    rig.ledger.record(made(rig.path / "a.mp4"), made(rig.path / "b.mp4"))
    made(rig.path / "c.mp4")
    (rig.path / "a.mp4").unlink()
    rig.stopped.set()
    rig.look.whole()
    assert rig.events() == []
    assert not rig.look.is_waiting


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_that_leave_the_root_are_named_once(rig: Rig, tmp_path: Path) -> None:
    made(rig.path / "inside/a.mp4")
    outside = made(tmp_path / "outside/b.mp4")
    (rig.path / "in").symlink_to("inside")
    (rig.path / "out").symlink_to(tmp_path / "outside")
    (rig.path / "out.mp4").symlink_to(os.fsdecode(outside))
    (rig.path / "text").symlink_to(os.fsdecode(made(tmp_path / "note.txt")))
    assert rig.scan() == ["inside/a.mp4"]
    texts = rig.texts()
    assert [text.split(":")[0] for text in texts] == [str(rig.path / "out"), str(rig.path / "out.mp4")]
    assert "watch.follow_links" in texts[0]
    rig.scan()
    assert rig.texts() == []


def test_of_very_many_links_only_some_are_named(rig: Rig, tmp_path: Path) -> None:
    for number in range(3 * MAX_LINES):
        (rig.path / f"{number:03}.mp4").symlink_to(tmp_path / "outside.mp4")
    rig.scan()
    assert len(rig.texts()) == MAX_LINES
    rig.scan()
    assert rig.texts() == []


def test_links_are_followed_where_that_is_allowed_and_loops_end(tmp_path: Path) -> None:
    made(tmp_path / "outside/b.mp4")
    made(tmp_path / "root/a.mp4")
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/link.mp4").symlink_to("a.mp4")
    (tmp_path / "root/broken.mp4").symlink_to("nothing")
    (tmp_path / "outside/back").symlink_to(tmp_path / "root")
    rig = Rig(tmp_path / "root", follow_links=True)
    assert rig.scan() == ["a.mp4", "link.mp4", "out/b.mp4"]
    assert rig.texts() == []


def test_a_hint_of_a_directory_asks_for_a_whole_scan_where_links_are_followed(tmp_path: Path) -> None:
    made(tmp_path / "a.mp4")
    rig = Rig(tmp_path, follow_links=True)
    rig.scan()
    made(tmp_path / "new/b.mp4")
    rig.look.hinted(bytes(tmp_path / "new"))
    assert rig.arrived() == []
    assert rig.look.scan_wanted


# --- hints ------------------------------------------------------------------------------------------------------------


def test_a_hint_of_a_file_brings_that_file(rig: Rig) -> None:
    rig.scan()
    path = made(rig.path / "a.mp4")
    made(rig.path / "b.mp4")
    rig.look.hinted(path)
    assert rig.arrived() == ["a.mp4"]


def test_a_hint_of_a_directory_brings_all_below_it_and_that_it_is_to_be_watched(rig: Rig) -> None:
    rig.scan()
    made(rig.path / "new/deep/a.mp4")
    rig.look.watched, rig.look.fresh = dict(rig.look.directories), set()
    rig.look.hinted(bytes(rig.path / "new"))
    assert rig.arrived() == ["new/deep/a.mp4"]
    assert rig.look.fresh == {bytes(rig.path / "new"), bytes(rig.path / "new/deep")}


def test_a_directory_that_was_replaced_is_to_be_watched_anew(rig: Rig) -> None:
    made(rig.path / "a/deep/1.mp4")
    rig.index_all()
    rig.look.watched, rig.look.fresh = dict(rig.look.directories), set()
    rig.look.hinted(bytes(rig.path / "a"))
    assert rig.look.fresh == {bytes(rig.path / "a"), bytes(rig.path / "a/deep")}


@pytest.mark.parametrize("name", [".hidden.mp4", "note.txt", "x.part", "@eaDir/a.mp4", "link/a.mp4", "unknown/a.mp4"])
def test_hints_of_what_is_passed_over_bring_nothing(rig: Rig, tmp_path: Path, name: str) -> None:
    made(rig.path / "a.mp4")
    (tmp_path / "elsewhere").mkdir()
    (rig.path / "link").symlink_to(tmp_path / "elsewhere")
    rig.index_all()
    path = made(rig.path / name)
    rig.look.hinted(path)
    if name.startswith("@eaDir"):
        rig.look.hinted(os.path.dirname(path))  # noqa: PTH120
    assert rig.events() == []


def test_a_directory_that_became_a_link_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    made(rig.path / "b.mp4")
    made(rig.path / "a/1.mp4")
    rig.index_all()
    (rig.path / "a").rename(tmp_path / "moved")
    (rig.path / "a").symlink_to(tmp_path / "moved")
    path = made(tmp_path / "moved/2.mp4")
    rig.look.hinted(bytes(rig.path / "a"))
    rig.look.hinted(bytes(rig.path / "a") + b"/" + os.path.basename(path))  # noqa: PTH119
    assert rig.events() == []


# --- what is gone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hint", [True, False])
def test_a_deleted_file_is_gone_when_it_was_missing_twice(rig: Rig, by_hint: bool) -> None:
    path = made(rig.path / "a.mp4")
    made(rig.path / "b.mp4")
    rig.index_all()
    (rig.path / "a.mp4").unlink()
    if by_hint:
        rig.look.hinted(path)
    else:
        rig.look.whole()
    assert rig.missing_for(QUIET) == []
    assert rig.missing_for(QUIET) == [Gone(path, bytes(rig.path))]
    rig.look.whole()
    assert rig.missing_for(2 * QUIET) == []  # said, and not settled yet
    rig.ledger.gone(path)
    rig.taken.clear()
    rig.look.whole()
    assert rig.missing_for(2 * QUIET) == []


@pytest.mark.parametrize("by_hint", [True, False])
def test_the_files_of_a_deleted_directory_are_gone(rig: Rig, by_hint: bool) -> None:
    paths = [made(rig.path / f"a/b/{number}.mp4") for number in range(3)]
    made(rig.path / "c.mp4")
    rig.index_all()
    for path in paths:
        os.unlink(path)  # noqa: PTH108
    (rig.path / "a/b").rmdir()
    (rig.path / "a").rmdir()
    if by_hint:
        rig.look.hinted(bytes(rig.path / "a"))
    else:
        rig.look.whole()
    assert [event.path for event in rig.missing_for(2 * QUIET)] == paths


def test_a_file_that_is_back_at_the_second_look_is_not_gone(rig: Rig) -> None:
    path = made(rig.path / "a.mp4")
    made(rig.path / "b.mp4")
    rig.index_all()
    (rig.path / "a.mp4").rename(rig.path / "a.bak")
    rig.look.whole()
    (rig.path / "a.bak").rename(rig.path / "a.mp4")
    assert rig.missing_for(2 * QUIET) == []
    assert rig.ledger.mark(path) is not None


def test_a_moved_file_arrives_before_it_is_gone(rig: Rig) -> None:
    old = made(rig.path / "a.mp4")
    rig.index_all()
    rig.clocks.wall_seconds = time.time()
    new = bytes((rig.path / "a.mp4").rename(rig.path / "b.mp4"))
    rig.look.hinted(old)
    rig.look.hinted(new)
    said: list[tuple[type, bytes]] = []
    for _ in range(10):
        rig.clocks.pass_seconds(QUIET / 4)
        rig.look.settling()
        rig.look.missing()
        said += [(type(event), event.path) for event in rig.events()]
    assert said == [(Arrived, new), (Gone, old)]


def test_an_emptied_root_deletes_nothing_and_says_so_once(rig: Rig) -> None:
    made(rig.path / "a.mp4")
    made(rig.path / "sub/b.mp4")
    rig.index_all()
    (rig.path / "a.mp4").unlink()
    (rig.path / "sub/b.mp4").unlink()
    for _ in range(2):
        rig.look.whole()
        assert rig.missing_for(2 * QUIET) == []
    (text,) = rig.texts()
    assert "forget" in text
    assert rig.look.lost == "it holds no file any more"


def test_a_root_emptied_between_two_scans_deletes_nothing(rig: Rig) -> None:
    path = made(rig.path / "a.mp4")
    rig.index_all()
    (rig.path / "a.mp4").unlink()
    made(rig.path / "note.txt")
    rig.look.hinted(path)
    assert rig.missing_for(2 * QUIET) == []
    assert rig.look.lost is not None


def test_a_root_that_was_always_empty_is_fine(rig: Rig) -> None:
    assert rig.scan() == []
    assert rig.texts() == []
    assert rig.look.lost is None


def test_an_unmounted_directory_deletes_nothing(rig: Rig) -> None:
    path = made(rig.path / "mount/a.mp4")
    made(rig.path / "b.mp4")
    rig.index_all()
    (rig.path / "mount/a.mp4").unlink()
    row = rig.ledger.rows[path]
    rig.ledger.rows[path] = type(row)(row.size_bytes, row.mtime_ns, row.inode, row.device + 1)
    for _ in range(2):
        rig.look.whole()
        assert rig.missing_for(2 * QUIET) == []
    (text,) = rig.texts()
    assert text.startswith(str(rig.path / "mount"))
    assert rig.look.lost is None


def test_a_root_swapped_for_one_of_another_file_system_deletes_nothing(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    made(tmp_path / "real/a.mp4")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    rig = Rig(tmp_path / "root")
    rig.index_all()
    point = shm / f"sluice-test-{os.getpid()}"
    point.mkdir()
    try:
        (tmp_path / "root").unlink()
        (tmp_path / "root").symlink_to(point)
        rig.begin()
        assert rig.scan() == []
        assert rig.missing_for(2 * QUIET) == []
        assert rig.look.lost == "another file system is there"
        made(point / "new.mp4")
        assert rig.scan() == ["new.mp4"]  # what is there is taken; what is not is left alone
        assert rig.missing_for(2 * QUIET) == []
        assert rig.look.lost == "another file system is there"
    finally:
        (point / "new.mp4").unlink(missing_ok=True)
        point.rmdir()


def test_a_device_with_a_new_number_is_recognised_by_the_files_that_are_still_there(rig: Rig) -> None:
    path = made(rig.path / "a.mp4")
    made(rig.path / "b.mp4")
    rig.index_all()
    rig.ledger.move_to_device(99)
    (rig.path / "a.mp4").unlink()
    rig.look.whole()
    assert rig.missing_for(2 * QUIET) == [Gone(path, bytes(rig.path))]
    assert rig.texts() == []


def test_more_missing_files_than_can_be_held_are_gone_one_after_the_other(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_files=2)
    paths = [made(rig.path / f"{number}.mp4") for number in range(5)]
    made(rig.path / "rest.mp4")
    rig.index_all()
    for path in paths:
        os.unlink(path)  # noqa: PTH108
    rig.look.whole()
    gone: list[bytes] = []
    for _ in range(4):
        for event in rig.missing_for(2 * QUIET):
            gone.append(event.path)
            rig.ledger.gone(event.path)
    assert gone == paths


def test_a_file_that_is_only_passed_over_now_is_not_gone(rig: Rig) -> None:
    made(rig.path / "b.mp4")
    rig.ledger.record(made(rig.path / "a.avi"), made(rig.path / ".x/c.mp4"))
    rig.scan()
    assert rig.missing_for(2 * QUIET) == []


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.fixture
def closed(rig: Rig) -> Callable[[], None]:
    """A file in a directory that was closed after it had been recorded. Returns what opens it again."""
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    made(rig.path / "a.mp4")
    made(rig.path / "closed/b.mp4")
    rig.index_all()
    (rig.path / "closed").chmod(0)
    return lambda: (rig.path / "closed").chmod(0o700)


def test_a_directory_that_cannot_be_read_is_named_once_and_loses_nothing(rig: Rig, closed: Callable[[], None]) -> None:
    for _ in range(2):
        assert rig.scan() == []
        assert rig.missing_for(2 * QUIET) == []
    unreadable, texts = rig.look.unreadable, rig.texts()
    closed()
    assert unreadable == [bytes(rig.path / "closed")]
    assert len(texts) == 1
    assert "Permission denied" in texts[0]


def test_a_directory_that_can_be_read_again_may_be_named_again(rig: Rig, closed: Callable[[], None]) -> None:
    rig.scan()
    closed()
    rig.scan()
    assert rig.look.unreadable == []
    (rig.path / "closed").chmod(0)
    rig.scan()
    texts = rig.texts()
    closed()
    assert len(texts) == 2


def test_a_root_that_cannot_be_read_loses_nothing(rig: Rig) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    made(rig.path / "a.mp4")
    rig.index_all()
    rig.path.chmod(0)
    rig.look.whole()
    said = rig.missing_for(2 * QUIET)
    rig.path.chmod(0o700)
    assert said == []
    assert rig.look.lost == "its files cannot be looked for"
