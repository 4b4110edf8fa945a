"""Which files a PATH means, and how odd names are shown."""

import os
from pathlib import Path

import pytest

from engine.files import find_files, shown

ENDINGS = ("mp4", "mkv")


def test_directories_are_looked_through_in_order(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "note.txt", ".hidden.mp4", "sub/c.mp4", ".trash/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(os.fsdecode(f.path)).relative_to(tmp_path).as_posix() for f in find_files([bytes(tmp_path)], ENDINGS)]
    assert found == ["a.MKV", "b.mp4", "sub/c.mp4"]


def test_a_file_named_outright_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "film.xyz").touch()
    (found,) = find_files([bytes(tmp_path / "film.xyz")], ENDINGS)
    assert found.error is None


def test_paths_that_give_nothing_are_named_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / "empty", tmp_path / "none.mp4", tmp_path / "pipe"]
    codes = [found.error.code for found in find_files([bytes(path) for path in paths], ENDINGS) if found.error]
    assert codes == ["no-media", "not-found", "not-a-file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_without_permission_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    codes = [found.error.code for found in find_files([bytes(tmp_path)], ENDINGS) if found.error]
    closed.chmod(0o700)
    assert codes == ["no-permission"]


def test_one_bad_path_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    found = list(find_files([b"/nowhere", bytes(tmp_path)], ENDINGS))
    assert [f.error is None for f in found] == [False, True]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"/a/b c%20'\".mp4", "/a/b c%20'\".mp4"),
        ("/a/90°.mov".encode(), "/a/90°.mov"),
        (b"/a/new\nline\t.mp4", "/a/new\\nline\\t.mp4"),
        (b"/a/\xff\xfe.mp4", "/a/\\xff\\xfe.mp4"),
        ("/a/\u202egnp.mp4".encode(), "/a/\\u202egnp.mp4"),
    ],
)
def test_a_path_is_shown_printable_on_one_line(path: bytes, text: str) -> None:
    assert shown(path) == text


def test_links_to_files_are_taken_and_links_to_directories_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.mp4").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link.mp4").symlink_to(tmp_path / "real/a.mp4")
    (tmp_path / "root/z.mp4").touch()
    (tmp_path / "root/down.mp4").symlink_to(tmp_path / "real")
    found = [Path(os.fsdecode(f.path)).name for f in find_files([bytes(tmp_path / "root")], ENDINGS)]
    assert found == ["link.mp4", "z.mp4"]
