# Exported from notebooks/16_volumes.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/16_volumes.ipynb#fill-module
"""A volume that is empty is filled with what the image has at its place, as it is there."""

from __future__ import annotations

import errno
import os
import stat

from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2
from mini_docker.namespaces.places import Fd

# %% notebooks/16_volumes.ipynb#fill
O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 1 << 20
LINKS = 256  # files with several names that are kept open; of more, each name is a file


def fill(rootfs_fd: int, path: str, target: str) -> bool:
    """Copy what the image has at `path` into the volume directory `target`, if that is empty.

    Owners, modes, times, extended attributes, links, devices: all as they are. Both sides may be hostile:
    the image's path is resolved inside its root, and in the volume, which another container may be
    changing now, nothing is followed: each directory is a descriptor. Says whether it copied. Raises
    OSError.
    """
    target_fd = os.open(target, O_DIRECTORY)
    try:
        if os.listdir(target_fd):
            return False
        try:
            source_fd = openat2(rootfs_fd, path, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT)
        except OSError as error:
            # EACCES: a link in a sticky directory, which fs.protected_symlinks keeps even root from following
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                return False
            raise
        seen: dict[tuple[int, int], int] = {}
        try:
            copy_tree(source_fd, target_fd, seen)
        finally:
            for fd in (source_fd, *seen.values()):
                os.close(fd)
    finally:
        os.close(target_fd)
    return True


def copy_tree(source_fd: int, target_fd: int, seen: dict[tuple[int, int], int]) -> None:
    """Copy the entries of one directory into another, and its own attributes last.

    `seen` are the files that have several names: {(device, inode): a descriptor of the copy}; the caller
    closes them.
    """
    for name in os.listdir(source_fd):
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            _copy_directory(name, source_fd, target_fd, seen)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(name, source_fd, target_fd, seen)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
            _set_times(name, target_fd, status)
        else:
            _copy_node(name, target_fd, status)
    _copy_attributes(source_fd, target_fd)


def _copy_directory(
    name: str, source_fd: int, target_fd: int, seen: dict[tuple[int, int], int]
) -> None:
    os.mkdir(name, 0o700, dir_fd=target_fd)
    with (
        Fd(os.open(name, O_DIRECTORY, dir_fd=source_fd)) as inner_source,
        Fd(os.open(name, O_DIRECTORY, dir_fd=target_fd)) as inner_target,
    ):
        copy_tree(inner_source, inner_target, seen)


def _copy_file(name: str, source_fd: int, target_fd: int, seen: dict[tuple[int, int], int]) -> None:
    """Copy a file; the second name of one that was copied already becomes a link to it."""
    with Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source_fd)) as source:
        status = os.fstat(source)
        key = (status.st_dev, status.st_ino)
        if key in seen:
            os.link(f"/proc/self/fd/{seen[key]}", name, dst_dir_fd=target_fd, follow_symlinks=True)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with Fd(os.open(name, flags, 0o600, dir_fd=target_fd)) as target:
            while os.sendfile(target, source, None, CHUNK):
                pass
            _copy_attributes(source, target)
            if status.st_nlink > 1 and len(seen) < LINKS:
                seen[key] = os.dup(target)


def _copy_node(name: str, target_fd: int, status: os.stat_result) -> None:
    """Make a fifo, a socket's file or a device as the image has it."""
    os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target_fd)
    with Fd(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=target_fd)) as made:
        os.chown(f"/proc/self/fd/{made}", status.st_uid, status.st_gid)
        os.chmod(f"/proc/self/fd/{made}", stat.S_IMODE(status.st_mode))
    _set_times(name, target_fd, status)


def _copy_attributes(source_fd: int, target_fd: int) -> None:
    """Copy owner, extended attributes, mode and times, in this order: chown(2) clears set-user-ID, and
    file capabilities with it."""
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    for name in os.listxattr(source_fd):
        try:
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):  # overlay's own, or none here
                raise
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _set_times(name: str, directory_fd: int, status: os.stat_result) -> None:
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)
