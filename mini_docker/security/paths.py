# Exported from notebooks/09_privileges.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09_privileges.ipynb#paths-module
"""Masked and read-only paths: the parts of /proc and /sys that a container must not read or write."""

from __future__ import annotations

import os
import stat

from mini_docker.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    OPEN_TREE_CLONE,
    RESOLVE_NO_SYMLINKS,
    fsconfig_set,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
)
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/09_privileges.ipynb#mask-paths
# Docker's lists: what of /proc and /sys tells too much, and what of /proc would change the host.
MASKED = tuple(
    "/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats "
    "/proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware "
    "/sys/devices/virtual/powercap".split()
)
READONLY = tuple("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split())


def _open_path(path: str) -> int | None:
    """Open `path` with no symlink on the way, or None where it does not exist."""
    try:
        return openat2(AT_FDCWD, path, os.O_PATH, RESOLVE_NO_SYMLINKS)
    except FileNotFoundError:
        return None


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def mask_path(path: str) -> None:
    """Cover `path`: a directory by an empty read-only tmpfs, a file by /dev/null, move_mount(2).

    What does not exist needs no mask. The null device is checked by its number, because a container that
    puts a link in its place would have something else bound there (CVE-2025-31133). Raises OSError.
    """
    target_fd = _open_path(path)
    if target_fd is None:
        return
    try:
        if stat.S_ISDIR(os.fstat(target_fd).st_mode):
            mount_fd = _empty_directory()
        else:
            mount_fd = _null_device()
        try:
            move_mount(mount_fd, "", target_fd)
        finally:
            os.close(mount_fd)
    finally:
        os.close(target_fd)


def _empty_directory() -> int:
    fs_fd = fsopen("tmpfs")
    try:
        fsconfig_set(fs_fd, "nr_blocks", "1")
        return fsmount(fs_fd, MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs_fd)


def _null_device() -> int:
    mount_fd = open_tree("/dev/null", OPEN_TREE_CLONE)
    if not _is_null(mount_fd):
        os.close(mount_fd)
        raise PermissionError(1, "/dev/null in this root is not the null device")
    return mount_fd


# %% notebooks/09_privileges.ipynb#readonly-paths
def make_readonly(path: str) -> None:
    """Make `path` and all below it read-only by a bind mount of itself, mount_setattr(2).

    What does not exist is left out. Raises OSError.
    """
    target_fd = _open_path(path)
    if target_fd is None:
        return
    try:
        mount_fd = open_tree("", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH, target_fd)
        try:
            done = _set_readonly(mount_fd)
            move_mount(mount_fd, "", target_fd)
            if not done:  # Linux 5.10 and 5.11
                flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
                mount(None, f"/proc/self/fd/{mount_fd}", None, flags)
        finally:
            os.close(mount_fd)
    finally:
        os.close(target_fd)


def _set_readonly(mount_fd: int) -> bool:
    """Return whether the kernel has mount_setattr(2) and did it."""
    try:
        mount_setattr(mount_fd, MOUNT_ATTR_RDONLY, recursive=True)
    except OSError as error:
        if error.errno != 38:  # ENOSYS
            raise
        return False
    return True


def plan_paths(spec: dict[str, Any]) -> list[Step]:
    """Plan linux.readonlyPaths and linux.maskedPaths, to be done after pivot_root.

    Source: OCI config-linux.md.
    """
    linux = spec.get("linux", {})
    steps = [
        Step(f"read-only {path}", make_readonly, (path,)) for path in linux.get("readonlyPaths", ())
    ]
    steps += [Step(f"mask {path}", mask_path, (path,)) for path in linux.get("maskedPaths", ())]
    return steps
