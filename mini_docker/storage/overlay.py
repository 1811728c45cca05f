# Exported from notebooks/10_layers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10_layers.ipynb#overlay-module
"""The overlay driver: layers stacked to one root, with all changes in a directory of their own."""

from __future__ import annotations

import os
from collections import namedtuple

from mini_docker.linux.mount import fsconfig_set, fsmount, fsopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    class Overlay(NamedTuple):
        """A mount as data: layers from the lowest up, and the two directories that take the changes."""

        lower: tuple[str, ...]
        upper: str
        work: str
        volatile: bool

else:
    Overlay = namedtuple("Overlay", ("lower", "upper", "work", "volatile"))


# %% notebooks/10_layers.ipynb#plan-overlay
LONGEST_OPTION = 255


def plan_overlay(layers: Sequence[str], directory: str, volatile: bool = False) -> Overlay:
    """Return the overlay of `layers` (lowest first) whose changes go below `directory`.

    Pure: nothing is made. `volatile` gives up crash safety of the changes: for containers with --rm.
    """
    if not layers:
        raise ValueError("an overlay needs at least one layer")
    return Overlay(tuple(layers), f"{directory}/upper", f"{directory}/work", volatile)


# %% notebooks/10_layers.ipynb#open-overlay
def open_overlay(overlay: Overlay) -> int:
    """Return a descriptor of the detached mount of `overlay`, fsopen(2).

    No path of the host changes: the mount lives as long as the descriptor, or where move_mount puts it.
    Raises OSError, with the directory that is missing where one is.
    """
    for path in (*overlay.lower, overlay.upper, overlay.work):
        if not os.path.isdir(path):
            raise FileNotFoundError(2, f"overlay: no directory {path}")
    fds = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in overlay.lower]
    fs_fd = fsopen("overlay")
    try:
        _set_lower(fs_fd, [f"/proc/self/fd/{fd}" for fd in reversed(fds)])
        fsconfig_set(fs_fd, "upperdir", overlay.upper)
        fsconfig_set(fs_fd, "workdir", overlay.work)
        if overlay.volatile:
            fsconfig_set(fs_fd, "volatile")
        return fsmount(fs_fd)
    finally:
        for fd in (fs_fd, *fds):
            os.close(fd)


def _set_lower(fs_fd: int, layers: list[str]) -> None:
    """Name the lower layers, highest first: in one option, or one by one (lowerdir+, Linux 6.5)."""
    together = ":".join(layers)
    if len(together) <= LONGEST_OPTION:
        fsconfig_set(fs_fd, "lowerdir", together)
        return
    for layer in layers:
        fsconfig_set(fs_fd, "lowerdir+", layer)


# %% notebooks/10_layers.ipynb#remove-tree
def remove_tree(path: str) -> None:
    """Remove `path` and all below it, following no symlink and crossing no mount; gone is fine.

    Raises OSError(EBUSY) where something is still mounted inside.
    """
    try:
        directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _empty(directory_fd)
    finally:
        os.close(directory_fd)
    os.rmdir(path)


def _empty(directory_fd: int) -> None:
    with os.scandir(directory_fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory_fd)
            continue
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        child_fd = os.open(name, flags, dir_fd=directory_fd)
        try:
            _empty(child_fd)
        finally:
            os.close(child_fd)
        os.rmdir(name, dir_fd=directory_fd)
