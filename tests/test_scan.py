"""What a walk finds, what it passes over, and when a missing file is taken for gone."""

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.scan import Entry, Presence, Rules, presence, rules, walk
from tests.watching import made

MEDIA = rules((), (".*", "*.part", "trash"), ("mp4", "mkv"))


def never(path: bytes, error: OSError) -> None:
    raise AssertionError(f"{path!r}: {error}")


def found(top: Path, names: Rules = MEDIA, follow_links: bool = False) -> list[str]:
    """Every file that is taken, from the top on."""
    walked = walk(bytes(top), names, never, follow_links=follow_links)
    paths = [os.fsdecode(listing.path + b"/" + name) for listing in walked for name in listing.files]
    return [Path(path).relative_to(top).as_posix() for path in paths]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("include", "name", "taken"),
    [
        ((), b"a.mp4", True),
        ((), b"A.MKV", True),
        ((), b"new\nline.mp4", True),
        ((), b"\xff\xfe.mp4", True),
        ((), b"a.mp4.txt", False),
        ((), b"mp4", False),
        ((), b".hidden.mp4", False),
        (("*.avi",), b"a.mp4", False),
        (("*.avi",), b"a.AVI", True),
        (("cam[0-9]_*", "*.avi"), b"CAM7_1.raw", True),
        (("cam[0-9]_*",), b"camx_1.raw", False),
        (("?.mp4",), "ü.mp4".encode(), True),
        (("*.Ä",), "film.ä".encode(), True),
        (("*",), b"anything", True),
        (("*",), b"film.part", False),
    ],
)
def test_names_are_taken_by_patterns_or_endings(include: tuple[str, ...], name: bytes, taken: bool) -> None:
    assert rules(include, (".*", "*.part"), ("mp4", "mkv")).takes(name) is taken


def test_nothing_is_passed_over_without_patterns() -> None:
    names = rules((), (), ("mp4",))
    assert names.takes(b".hidden.mp4")
    assert not names.passes_over(b".git")


def test_rules_from_the_same_settings_are_equal() -> None:
    assert rules(("a*",), (".*",), ("mp4",)) == rules(("a*",), (".*",), ("mp4",))
    assert rules(("a*",), (".*",), ("mp4",)) != rules(("b*",), (".*",), ("mp4",))


# --- walks ------------------------------------------------------------------------------------------------------------


def test_a_tree_is_walked_in_order_and_directories_by_some_names_are_not_entered(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mkv", "a/2.mp4", "a/1.mp4", "a/b/3.mp4", "trash/x.mp4", ".git/y.mp4", "z/note.txt"):
        made(tmp_path / name)
    assert found(tmp_path) == ["a.mkv", "b.mp4", "a/1.mp4", "a/2.mp4", "a/b/3.mp4"]


def test_what_is_ignored_is_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "1.txt", "2.txt", ".hidden", "trash/x.mp4"):
        made(tmp_path / name)
    (listing,) = walk(bytes(tmp_path), MEDIA, never)
    assert (listing.files, listing.ignored) == ([b"a.mp4"], 4)


def test_odd_names_are_found_as_they_are(tmp_path: Path) -> None:
    names = [b"\xff\xfe.mp4", b"new\nline.mp4", b"' \"$(x).mp4", "90°.mp4".encode()]
    for name in names:
        made(Path(os.fsdecode(os.path.join(bytes(tmp_path), name))))  # noqa: PTH118 - bytes
    (listing,) = walk(bytes(tmp_path), MEDIA, never)
    assert listing.files == sorted(names)


def test_links_are_named_and_not_followed(tmp_path: Path) -> None:
    made(tmp_path / "outside/b.mp4")
    made(tmp_path / "root/a.mp4")
    (tmp_path / "root/link.mp4").symlink_to(tmp_path / "root/a.mp4")
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/.hidden").symlink_to(tmp_path / "outside")
    (listing,) = walk(bytes(tmp_path / "root"), MEDIA, never)
    assert (listing.files, listing.links, listing.ignored) == ([b"a.mp4"], [b"link.mp4", b"out"], 1)


def test_links_are_followed_where_that_is_wanted(tmp_path: Path) -> None:
    made(tmp_path / "outside/b.mp4")
    made(tmp_path / "root/a.mp4")
    (tmp_path / "root/link.mp4").symlink_to(tmp_path / "root/a.mp4")
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    assert found(tmp_path / "root", follow_links=True) == ["a.mp4", "link.mp4", "out/b.mp4"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    made(tmp_path / "a/b/film.mp4")
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/here").symlink_to(".")
    assert found(tmp_path, follow_links=True) == ["a/b/film.mp4"]


def test_a_link_to_itself_is_a_problem_of_its_own(tmp_path: Path) -> None:
    made(tmp_path / "film.mp4")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    problems: list[bytes] = []
    (listing,) = walk(bytes(tmp_path), MEDIA, lambda path, error: problems.append(path), follow_links=True)
    assert listing.files == [b"film.mp4"]
    assert problems == [bytes(tmp_path / "self.mp4")]


def test_the_top_may_be_a_link(tmp_path: Path) -> None:
    made(tmp_path / "real/a.mp4")
    (tmp_path / "link").symlink_to("real")
    assert found(tmp_path / "link") == ["a.mp4"]


def test_directories_are_skipped_below_the_top(tmp_path: Path) -> None:
    made(tmp_path / "a/1.mp4")
    made(tmp_path / "b/2.mp4")
    status = (tmp_path / "a").stat()
    skipped = bytes(tmp_path / "a"), (status.st_dev, status.st_ino)

    def files(top: Path) -> list[list[bytes]]:
        return [listing.files for listing in walk(bytes(top), MEDIA, never, skip=lambda *asked: asked == skipped)]

    assert files(tmp_path) == [[], [b"2.mp4"]]
    assert files(tmp_path / "a") == [[b"1.mp4"]]


def test_a_top_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    problems: list[OSError] = []
    assert list(walk(bytes(tmp_path / "none"), MEDIA, lambda path, error: problems.append(error))) == []
    assert isinstance(problems[0], FileNotFoundError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_without_permission_does_not_hide_the_rest(tmp_path: Path) -> None:
    made(tmp_path / "a/1.mp4")
    made(tmp_path / "b/2.mp4")
    (tmp_path / "a").chmod(0)
    problems: list[bytes] = []
    walked = list(walk(bytes(tmp_path), MEDIA, lambda path, error: problems.append(path)))
    (tmp_path / "a").chmod(0o700)
    assert walked[-1].files == [b"2.mp4"]
    assert problems == [bytes(tmp_path / "a")]


@dataclass(frozen=True)
class Made:
    """An entry of a directory that is not there."""

    name: bytes
    directory: bool = False

    def is_dir(self) -> bool:
        return self.directory

    def is_symlink(self) -> bool:
        return False


def test_an_error_in_the_midst_of_a_directory_leaves_what_was_read(tmp_path: Path) -> None:
    @contextmanager
    def failing(path: bytes) -> Iterator[Iterator[Entry]]:
        def entries() -> Iterator[Entry]:
            yield Made(b"a.mp4")
            raise OSError(5, "Input/output error")

        yield entries()

    problems: list[bytes] = []
    walked = walk(bytes(tmp_path), MEDIA, lambda path, error: problems.append(path), scandir=failing)
    assert [listing.files for listing in walked] == [[b"a.mp4"]]
    assert problems == [bytes(tmp_path)]


def test_a_million_ignored_files_take_no_memory(tmp_path: Path) -> None:
    @contextmanager
    def crowded(path: bytes) -> Iterator[Iterator[Entry]]:
        def entries() -> Iterator[Entry]:
            for number in range(1_000_000):
                yield Made(b"%d.jpg" % number)
            yield Made(b"film.mp4")

        yield entries()

    tracemalloc.start()
    listing = next(walk(bytes(tmp_path), MEDIA, never, scandir=crowded))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (listing.files, listing.ignored) == ([b"film.mp4"], 1_000_000)
    assert peak_bytes < 1_000_000


# --- presence ---------------------------------------------------------------------------------------------------------


def same(recorded: int, now: int) -> bool:
    return recorded == now


def presence_of(path: Path, root: Path, device: int | None = None) -> tuple[Presence, Path]:
    recorded = root.stat().st_dev if device is None else device
    what, where = presence(bytes(path), recorded, bytes(root), same)
    return what, Path(os.fsdecode(where))


def test_a_file_that_is_there_is_here_on_whatever_device(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.touch()
    assert presence_of(path, tmp_path, device=-1)[0] is Presence.HERE


def test_a_deleted_file_and_one_of_a_deleted_directory_are_gone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert presence_of(tmp_path / "a/1.mp4", tmp_path) == (Presence.GONE, tmp_path / "a")
    assert presence_of(tmp_path / "x/y/1.mp4", tmp_path) == (Presence.GONE, tmp_path)


def test_a_file_whose_directory_became_a_file_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert presence_of(tmp_path / "a/1.mp4", tmp_path) == (Presence.GONE, tmp_path)


def test_a_file_of_another_device_than_the_directory_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    device = tmp_path.stat().st_dev + 1
    assert presence_of(tmp_path / "mount/a/1.mp4", tmp_path, device) == (Presence.ELSEWHERE, tmp_path / "mount")


def test_below_a_root_that_is_not_there_nobody_can_tell(tmp_path: Path) -> None:
    root = tmp_path / "none"
    assert presence(bytes(root / "a/1.mp4"), 0, bytes(root), lambda recorded, now: True)[0] is Presence.UNSURE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600])
def test_below_a_directory_without_permission_nobody_can_tell(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=mode)
    what, _ = presence_of(closed / "1.mp4", tmp_path)
    closed.chmod(0o700)
    assert what is Presence.UNSURE
