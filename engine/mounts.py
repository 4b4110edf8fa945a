"""Which file system a path lies on: of changes on a network mount the kernel tells only what this host did itself."""

import os
import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")  # format: proc_pid_mountinfo(5)

# Where others change files behind the kernel's back: network and cluster file systems, and folders that a hypervisor
# shares with its guests. What stands here is polled; anything unknown is taken for local.
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
    "fuse.ceph", "fuse.curlftpfs", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse",
    "fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
})  # fmt: skip


def is_network(path: bytes, mountinfo: Path = MOUNTINFO) -> bool:
    """Whether what others do there goes unsaid. False where the system does not tell its mounts."""
    try:
        mounts = mountinfo.read_bytes()
    except OSError:
        return False
    return file_system(os.path.realpath(path), mounts) in NETWORK


def file_system(path: bytes, mounts: bytes) -> str | None:
    """Type of the file system that a path lies on, given the lines of mountinfo. path: absolute, without links."""
    best, found = b"", None
    for line in mounts.splitlines():
        point, kind = _parsed(line)
        if kind is not None and _below(path, point) and len(point) >= len(best):  # of two on one point the later counts
            best, found = point, kind
    return found


def _parsed(line: bytes) -> tuple[bytes, str | None]:
    mount, separator, source = line.partition(b" - ")
    fields, kinds = mount.split(b" "), source.split(b" ")
    if not separator or len(fields) < 5:
        return b"", None
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 0xFF]), fields[4]), os.fsdecode(kinds[0])


def _below(path: bytes, point: bytes) -> bool:
    return path == point or path.startswith(point.rstrip(b"/") + b"/")
