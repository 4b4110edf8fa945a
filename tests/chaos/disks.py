"""Disks that get full, and something that is mounted over a directory: file systems in memory of the harness's own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.spool import free_bytes_of

DISK_BYTES = 512 << 20
NO_MOUNTS = "mounting needs root, and a system that lets it"


def may_mount() -> bool:
    """Whether this process may mount file systems."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


@contextmanager
def small_disk(directory: Path, size_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """A file system in memory at `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "none"]
    subprocess.run(["mount", *options, str(directory)], check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


class Ballast:
    """A file that takes the room of a disk."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._path = disk / "ballast"

    def take(self, left_bytes: int) -> None:
        """Take all room but so many bytes; what others let go of meanwhile, too."""
        with self._path.open("ab") as file:
            while (more_bytes := free_bytes_of(self._disk) - left_bytes) > 0:
                with contextlib.suppress(OSError):  # somebody else was faster
                    os.posix_fallocate(file.fileno(), file.tell(), more_bytes)
                file.seek(0, os.SEEK_END)

    def free(self) -> None:
        """Give it back."""
        self._path.unlink(missing_ok=True)
