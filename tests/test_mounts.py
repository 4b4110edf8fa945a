"""Which file system a path lies on, and whether changes by others go unsaid there."""

from pathlib import Path

import pytest

from engine.mounts import file_system, is_network

MOUNTS = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 27 0:40 / /nas rw,relatime shared:2 master:3 - nfs4 server:/export rw,vers=4.2
32 27 0:41 / /nas/local rw - xfs /dev/sdb rw
33 27 0:42 / /with\040space\134here rw - cifs //server/share rw
34 27 0:43 / /twice rw - autofs systemd-1 rw
35 34 0:44 / /twice rw - fuse.sshfs me@host:/ rw
36 27 0:45 / /new rw - bcachefs /dev/sdc rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/video", "ext4"),
        (b"/nas", "nfs4"),
        (b"/nas/films/a.mp4", "nfs4"),
        (b"/nas/local/films", "xfs"),
        (b"/nasty", "ext4"),
        (b"/with space\\here/films", "cifs"),
        (b"/twice/films", "fuse.sshfs"),
        (b"/new/films", "bcachefs"),
        (b"relative", None),
    ],
)
def test_the_longest_and_latest_mount_point_above_a_path_counts(path: bytes, kind: str | None) -> None:
    assert file_system(path, MOUNTS) == kind


@pytest.mark.parametrize(
    ("path", "network"),
    [("/video", False), ("/nas/films", True), ("/nas/local", False), ("/twice", True), ("/new", False)],
)
def test_network_mounts_are_told_from_local_and_unknown_ones(path: str, network: bool, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(MOUNTS)
    assert is_network(path.encode(), mounts) is network


def test_a_link_to_a_network_mount_lies_on_it(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(MOUNTS)
    (tmp_path / "link").symlink_to("/nas/films")
    assert is_network(bytes(tmp_path / "link"), mounts)


def test_without_a_list_of_mounts_everything_is_local(tmp_path: Path) -> None:
    assert not is_network(bytes(tmp_path), tmp_path / "none")


def test_the_mounts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    assert not is_network(bytes(tmp_path))
