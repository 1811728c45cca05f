# Exported from notebooks/C_system_calls.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/C_system_calls.ipynb#mount-constants
"""Mounts, the classic call and the new ones: mount, umount2, pivot_root, fsopen, open_tree, move_mount."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_uint, c_uint64, c_ulong, c_void_p, sizeof

from mini_docker.linux.syscall import system_call

# sys/mount.h: the flags of mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2

# linux/mount.h: the new mount API
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_IDMAP = 0x00100000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

# linux/openat2.h: how a path may be resolved
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


# %% notebooks/C_system_calls.ipynb#mount-classic
_mount = system_call("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = system_call("umount2", c_char_p, c_int)
_pivot_root = system_call("pivot_root", c_char_p, c_char_p)


def mount(
    source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None
) -> None:
    """Mount `source` on `target`, mount(2).

    `flags` are MS_*; `data` is the file system's own. Raises OSError.
    """
    _mount(
        *(os.fsencode(text) if text else None for text in (source, target, fstype)),
        flags,
        os.fsencode(data) if data else None,
    )


def umount2(target: str, flags: int = 0) -> None:
    """Unmount `target`; MNT_DETACH does it now and lets the users finish, umount2(2). Raises OSError."""
    _umount2(os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root mount of this namespace and put the old one on `put_old`, pivot_root(2)."""
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old))


# %% notebooks/C_system_calls.ipynb#mount-new
_fsopen = system_call("fsopen", c_char_p, c_uint)
_fsconfig = system_call("fsconfig", c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = system_call("fsmount", c_int, c_uint, c_uint)
_open_tree = system_call("open_tree", c_int, c_char_p, c_uint)
_move_mount = system_call("move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)


def fsopen(fstype: str) -> int:
    """Return a descriptor on which a new file system of type `fstype` is configured, fsopen(2)."""
    return _fsopen(os.fsencode(fstype), FSOPEN_CLOEXEC)


def fsconfig_set(fs_fd: int, key: str, value: str | None = None) -> None:
    """Set an option of a file system in the making: a flag, or a string of up to 255 bytes, fsconfig(2)."""
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    _fsconfig(
        fs_fd, command, os.fsencode(key), os.fsencode(value) if value is not None else None, 0
    )


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """Create the configured file system and return a detached mount of it (MOUNT_ATTR_*), fsmount(2)."""
    _fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None, None, 0)
    return _fsmount(fs_fd, FSMOUNT_CLOEXEC, attributes)


def open_tree(
    path: str, flags: int = OPEN_TREE_CLONE | AT_RECURSIVE, dir_fd: int = AT_FDCWD
) -> int:
    """Return a detached copy of the mounts at `path`: a bind mount that is nowhere yet, open_tree(2)."""
    return _open_tree(dir_fd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(mount_fd: int, target: str, dir_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount at `target`; an empty target means `dir_fd` itself, move_mount(2)."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    _move_mount(mount_fd, b"", dir_fd, os.fsencode(target), flags)


# %% notebooks/C_system_calls.ipynb#attributes
_mount_setattr = system_call("mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_ulong)
_openat2 = system_call("openat2", c_int, c_char_p, c_void_p, c_ulong)


class mount_attr(ctypes.Structure):  # noqa: N801 (the kernel's name)
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class open_how(ctypes.Structure):  # noqa: N801 (the kernel's name)
    """struct open_how of openat2(2)."""

    _fields_ = [(name, c_uint64) for name in ("flags", "mode", "resolve")]


def mount_setattr(
    mount_fd: int, set_: int, clear: int = 0, recursive: bool = False, userns_fd: int = 0
) -> None:
    """Change MOUNT_ATTR_* of the mount behind `mount_fd`, or of all below it, mount_setattr(2)."""
    attributes = mount_attr(set_, clear, 0, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(mount_fd, b"", flags, byref(attributes), sizeof(attributes))


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dir_fd` under the RESOLVE_* rules `resolve`, openat2(2).

    RESOLVE_IN_ROOT makes `dir_fd` the root: `..` and absolute symlinks cannot leave it. Raises OSError.
    """
    how = open_how(flags | os.O_CLOEXEC, mode, resolve)
    return _openat2(dir_fd, os.fsencode(path), byref(how), sizeof(how))


_fstatfs = system_call("fstatfs", c_int, c_void_p)


def file_system_type(fd: int) -> int:
    """Return the magic number of the file system that the file behind `fd` lies on, fstatfs(2)."""
    buffer = (c_ulong * 16)()  # struct statfs has 120 bytes; the type comes first
    _fstatfs(fd, buffer)
    return buffer[0]
