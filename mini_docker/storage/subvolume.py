# Exported from notebooks/10b_drivers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10b_drivers.ipynb#subvolume-module
"""Subvolumes and snapshots of btrfs, by ioctl(2): a whole tree copied in a millisecond, whatever its size."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from mini_docker.storage.overlay import DIRECTORY

# linux/btrfs.h; a number holds direction, size of the argument, 0x94 for btrfs, and the command
BTRFS_IOC_SUBVOL_CREATE = 0x5000940E
BTRFS_IOC_SNAP_DESTROY = 0x5000940F
BTRFS_IOC_SNAP_CREATE_V2 = 0x50009417
BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941A
BTRFS_SUBVOL_RDONLY = 1 << 1
FIRST_INODE = 256  # the root directory of every subvolume has this number
VOL_ARGS = "=q4088s"  # struct btrfs_ioctl_vol_args: fd, name
VOL_ARGS_V2 = "=qQQ4Q4040s"  # struct btrfs_ioctl_vol_args_v2: fd, transid, flags, unused, name


# %% notebooks/10b_drivers.ipynb#subvolumes
def create_subvolume(path: str) -> None:
    """Make an empty subvolume, BTRFS_IOC_SUBVOL_CREATE. Raises OSError."""
    parent, name = os.path.split(path)
    _ask(parent, BTRFS_IOC_SUBVOL_CREATE, struct.pack(VOL_ARGS, 0, _name(name)))


def snapshot_subvolume(source: str, path: str, readonly: bool = False) -> None:
    """Make `path` a copy of the subvolume `source` that shares all its blocks, BTRFS_IOC_SNAP_CREATE_V2."""
    parent, name = os.path.split(path)
    flags = BTRFS_SUBVOL_RDONLY if readonly else 0
    source_fd = os.open(source, DIRECTORY)
    try:
        argument = struct.pack(VOL_ARGS_V2, source_fd, 0, flags, 0, 0, 0, 0, _name(name))
        _ask(parent, BTRFS_IOC_SNAP_CREATE_V2, argument)
    finally:
        os.close(source_fd)


def make_subvolume_readonly(path: str) -> None:
    """Let nobody write to a subvolume any more, BTRFS_IOC_SUBVOL_SETFLAGS. Raises OSError."""
    _ask(path, BTRFS_IOC_SUBVOL_SETFLAGS, struct.pack("=Q", BTRFS_SUBVOL_RDONLY))


def destroy_subvolume(path: str) -> None:
    """Remove a subvolume with all that is in it, BTRFS_IOC_SNAP_DESTROY; gone is fine.

    A container may have made subvolumes of its own inside, which the kernel does not remove with it: they
    go first, the deepest ones at the beginning. Raises OSError.
    """
    parent, name = os.path.split(path)
    argument = struct.pack(VOL_ARGS, 0, _name(name))
    try:
        _ask(parent, BTRFS_IOC_SNAP_DESTROY, argument)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        _destroy_nested(path)
        _ask(parent, BTRFS_IOC_SNAP_DESTROY, argument)


def _destroy_nested(path: str) -> None:
    """Destroy the subvolumes below `path`: found from above, destroyed from below."""
    nested, waiting = [], [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    if entry.stat(follow_symlinks=False).st_ino == FIRST_INODE:
                        nested.append(entry.path)
    for subvolume in reversed(nested):
        parent, name = os.path.split(subvolume)
        _ask(parent, BTRFS_IOC_SNAP_DESTROY, struct.pack(VOL_ARGS, 0, _name(name)))


def _ask(directory: str, command: int, argument: bytes) -> None:
    fd = os.open(directory, DIRECTORY)
    try:
        fcntl.ioctl(fd, command, bytearray(argument))  # as bytes, Python takes 1,024 of them
    finally:
        os.close(fd)


def _name(name: str) -> bytes:
    encoded = os.fsencode(name)
    if not 0 < len(encoded) < 256:
        raise OSError(errno.ENAMETOOLONG, f"{name!r} is no name of a subvolume")
    return encoded
