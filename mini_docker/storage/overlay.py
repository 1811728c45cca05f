# Exported from notebooks/10_layers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10_layers.ipynb#overlay-module
"""The overlay driver: layers stacked to one root, with all changes in a directory of their own."""

from __future__ import annotations

import errno
import os
import struct
from collections import namedtuple

from mini_docker.linux.mount import (
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    fsconfig_set,
    fsmount,
    fsopen,
    mount,
    open_tree,
    openat2,
)
from mini_docker.linux.process import CLONE_NEWNS, pidfd_getfd, pidfd_open, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NamedTuple, NoReturn

    class Overlay(NamedTuple):
        """A mount as data: layers from the lowest up, and the two directories that take the changes."""

        lower: tuple[str, ...]
        upper: str
        work: str
        volatile: bool

else:
    Overlay = namedtuple("Overlay", ("lower", "upper", "work", "volatile"))


# %% notebooks/10_layers.ipynb#plan-overlay
# An option of fsconfig(2) holds 255 bytes, the options of mount(2) together a page: 14 layers, and 700.
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
    own. Raises OSError, with the directory that is missing where one is.
    """
    if overlay.volatile:
        _allow_once_more(overlay.work)
    fds: list[int] = []
    try:
        for path in (*overlay.lower, overlay.upper, overlay.work):
            fds.append(_open_directory(path))
        if len(_options("/proc/self/fd/", fds)["lowerdir"]) > LONGEST_OPTION:
            return _mount_elsewhere(overlay)
        return _stack(_options("/proc/self/fd/", fds), overlay.volatile)
    finally:
        for fd in fds:
            os.close(fd)


def _allow_once_more(work: str) -> None:
    """Take away the sign by which the kernel refuses what was mounted as volatile before, overlayfs.rst.

    It is for those who do not know whether the machine crashed meanwhile. Raises OSError.
    """
    sign = f"{work}/work/incompat/volatile"
    try:
        os.unlink(f"{sign}/dirty")
        os.rmdir(sign)
    except FileNotFoundError:
        pass


def _options(prefix: str, fds: Sequence[int]) -> dict[str, str]:
    """Return the options that name the directories: layers from the lowest up, upper, work."""
    *lower, upper, work = (f"{prefix}{fd}" for fd in fds)
    return {"lowerdir": ":".join(reversed(lower)), "upperdir": upper, "workdir": work}


def _stack(options: dict[str, str], volatile: bool) -> int:
    """Return the detached mount of what `options` name."""
    fs_fd = fsopen("overlay")
    try:
        for key, value in options.items():
            fsconfig_set(fs_fd, key, value)
        if volatile:
            fsconfig_set(fs_fd, "volatile")
        return fsmount(fs_fd)
    finally:
        os.close(fs_fd)


# %% notebooks/10_layers.ipynb#mount-elsewhere
def _mount_elsewhere(overlay: Overlay) -> int:
    """Return the detached mount of many layers, made by a child in a mount namespace of its own.

    There it may change its working directory and mount by mount(2); what we take from it is a copy of
    the mount, attached nowhere, pidfd_getfd(2). The other one goes with the child. Raises OSError.
    """
    answer_fd, child_answer_fd = os.pipe2(os.O_CLOEXEC)
    child_word_fd, word_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(word_fd)
        _mount_and_offer(overlay, child_answer_fd, child_word_fd)
    os.close(child_answer_fd)
    os.close(child_word_fd)
    try:
        error, mount_fd = struct.unpack("=ii", os.read(answer_fd, 8) or ABORTED)
        if error:
            raise OSError(error, f"overlay of {len(overlay.lower)} layers: {os.strerror(error)}")
        pidfd = pidfd_open(pid)
        try:
            return pidfd_getfd(pidfd, mount_fd)
        finally:
            os.close(pidfd)
    finally:
        os.close(answer_fd)
        os.close(word_fd)
        os.waitpid(pid, 0)


ABORTED = struct.pack("=ii", errno.EINTR, -1)


def _mount_and_offer(overlay: Overlay, answer_fd: int, word_fd: int) -> NoReturn:
    """Be the child: mount, tell the number of the copy's descriptor, wait until our parent has it.

    The directories are opened anew: a layer must lie in the namespace that it is mounted in.
    """
    try:
        unshare(CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        fds = [_open_directory(path) for path in (*overlay.lower, overlay.upper, overlay.work)]
        os.chdir("/proc/self/fd")  # so that a descriptor's name is its number, and many fit
        options = [f"{key}={value}" for key, value in _options("", fds).items()]
        data = ",".join([*options, *(["volatile"] if overlay.volatile else [])])
        mount("overlay", overlay.work, "overlay", 0, data)
        os.write(answer_fd, struct.pack("=ii", 0, open_tree(overlay.work, OPEN_TREE_CLONE)))
        os.read(word_fd, 1)
    except OSError as error:
        os.write(answer_fd, struct.pack("=ii", error.errno or errno.EIO, -1))
    finally:
        os._exit(0)


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
