# Exported from notebooks/10_layers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10_layers.ipynb#overlay-module
"""The overlay driver: layers stacked to one root, with all changes in a directory of their own."""

from __future__ import annotations

import errno
import os
from collections import namedtuple

from mini_docker.linux.mount import (
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    fsconfig_set,
    fsmount,
    fsopen,
    openat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
# An option of fsconfig(2) holds 255 bytes: some sixty descriptors' numbers with their colons. What lies below
# is stacked to an overlay of its own first: the kernel allows two on top of each other.
LONGEST_OPTION = 255
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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
    The directories are named by descriptors, because an option holds 255 bytes and has escapes of its
    own. Only for a process with one thread: its working directory changes for a moment. Raises OSError,
    with the directory that is missing where one is.
    """
    fds: list[int] = []
    try:
        for path in (*overlay.lower, overlay.upper, overlay.work):
            fds.append(_open_directory(path))
        *lower, upper, work = fds
        if not _fits(lower):
            below = _too_many(lower, work + 3)
            fds.append(_stack(lower[:below]))
            lower = [fds[-1], *lower[below:]]
        return _stack(lower, upper, work, overlay.volatile)
    except OSError as error:
        if error.errno == errno.EINVAL and not _fits(fds[: len(overlay.lower)]):
            # an older kernel takes no mount for a layer that is attached nowhere
            words = f"overlay: {len(overlay.lower)} layers are too many for this kernel"
            raise OSError(errno.E2BIG, words) from None
        raise
    finally:
        for fd in fds:
            os.close(fd)


def _fits(lower: list[int]) -> bool:
    return len(":".join(map(str, lower))) <= LONGEST_OPTION


def _too_many(lower: list[int], longest: int) -> int:
    """Return how many of the lowest layers go into an overlay of their own, whose number is not `longest`.

    Raises OSError(E2BIG) for more layers than the two options hold; Docker builds images of 127 at most.
    """
    below = 2
    while not _fits([longest, *lower[below:]]):
        below += 1
    if not _fits(lower[:below]):
        raise OSError(errno.E2BIG, f"overlay: {len(lower)} layers are too many for one root")
    return below


def _stack(
    lower: list[int], upper: int | None = None, work: int | None = None, volatile: bool = False
) -> int:
    """Return the detached mount of layers (lowest first), read-only where there is no upper directory."""
    fs_fd = fsopen("overlay")
    here_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir("/proc/self/fd")  # so that a descriptor's name is its number, and many fit
        fsconfig_set(fs_fd, "lowerdir", ":".join(map(str, lower[::-1])))
        if upper is not None:
            fsconfig_set(fs_fd, "upperdir", str(upper))
            fsconfig_set(fs_fd, "workdir", str(work))
        if volatile:
            fsconfig_set(fs_fd, "volatile")
        return fsmount(fs_fd)
    finally:
        os.fchdir(here_fd)
        os.close(here_fd)
        os.close(fs_fd)


def _open_directory(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(2, f"overlay: no directory {path}") from None


# %% notebooks/10_layers.ipynb#remove-tree
def remove_tree(path: str) -> None:
    """Remove `path` and all below it, following no symlink and crossing no mount; gone is fine.

    A directory inside a directory is first moved up to `path` itself: however deep the tree is, two
    descriptors are enough. Raises OSError(EBUSY) where something is still mounted inside.
    """
    try:
        top_fd = os.open(path, DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        while entries := _entries(top_fd):
            for name, is_directory in entries:
                if is_directory:
                    _remove_directory(top_fd, name)
                else:
                    _ignore_missing(os.unlink, name, top_fd)
    finally:
        os.close(top_fd)
    _ignore_missing(os.rmdir, path, None)


def _entries(directory_fd: int) -> list[tuple[str, bool]]:
    """Return (name, is it a directory) of each entry.

    Back to the start first: what came since the last look, btrfs shows only then.
    """
    os.lseek(directory_fd, 0, os.SEEK_SET)
    with os.scandir(directory_fd) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _ignore_missing(call: Callable[..., None], name: str, directory_fd: int | None) -> None:
    """Remove a name that somebody else may have removed already."""
    try:
        call(name, dir_fd=directory_fd)
    except FileNotFoundError:
        pass


def _remove_directory(top_fd: int, name: str) -> None:
    """Remove the directory `name` of the top one: its files at once, its directories by moving them up."""
    try:
        directory_fd = openat2(top_fd, name, DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, f"something is still mounted on {name!r}") from None
        raise
    try:
        for child, is_directory in _entries(directory_fd):
            if is_directory:
                unique = f"{child[:100]}.{os.urandom(6).hex()}"
                os.rename(child, unique, src_dir_fd=directory_fd, dst_dir_fd=top_fd)
            else:
                _ignore_missing(os.unlink, child, directory_fd)
    finally:
        os.close(directory_fd)
    _ignore_missing(os.rmdir, name, top_fd)
