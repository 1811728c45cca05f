# Exported from notebooks/04_mnt.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/04_mnt.ipynb#places-module
"""Places inside a root that somebody else may be changing: found and made by descriptors."""

from __future__ import annotations

import errno
import os
import stat

from mini_docker.linux.mount import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    openat2,
)


# %% notebooks/04_mnt.ipynb#in-root
class Fd(int):
    """A file descriptor that is closed at the end of its `with` block."""

    __slots__ = ()

    def __enter__(self) -> Fd:
        """Return the descriptor."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self)


ATTEMPTS = 128


def open_in_root(root_fd: int, path: str, resolve: int = 0) -> Fd:
    """Open `path` (O_PATH) as if `root_fd` were the root: no `..` and no symlink leads out, openat2(2).

    Where a rename went on beside it, the kernel cannot vouch for a `..` and says EAGAIN: once more.
    Raises OSError.
    """
    for _ in range(ATTEMPTS):
        try:
            return Fd(openat2(root_fd, path, os.O_PATH, RESOLVE_IN_ROOT | resolve))
        except BlockingIOError as error:
            again = error
    raise again


def open_mount_point(root_fd: int, path: str, directory: bool, resolve: int = 0) -> Fd:
    """Open `path` inside `root_fd`, made as a directory or an empty file where it is missing.

    Raises OSError, also if it is there and of the other kind.
    """
    try:
        found = open_in_root(root_fd, path, resolve)
    except FileNotFoundError:
        make_in_root(root_fd, path, directory)
        found = open_in_root(root_fd, path, resolve)
    except OSError as error:
        if error.errno == errno.ELOOP and resolve & RESOLVE_NO_SYMLINKS:
            text = f"{path} leads over a symlink in this root: refused"
            raise OSError(errno.ELOOP, text) from None
        raise
    if stat.S_ISDIR(os.fstat(found).st_mode) != directory:
        os.close(found)
        kinds = ("file", "directory") if directory else ("directory", "file")
        text = f"{path} is a {kinds[0]}, and a {kinds[1]} would be mounted on it"
        raise NotADirectoryError(errno.ENOTDIR, text)
    return found


def make_in_root(root_fd: int, path: str, directory: bool) -> None:
    """Make `path` inside `root_fd`, and the directories above it, each by its parent's descriptor.

    A symlink that points to nothing is in the way of mkdirat(2), which follows none: then what it points
    to is made, inside the root too. Raises OSError.
    """
    parent, name = os.path.split(path.rstrip("/"))
    with open_mount_point(root_fd, parent or "/", True) as parent_fd:
        if name in ("", ".", ".."):
            return
        try:
            make_at(name, parent_fd, directory)
        except FileExistsError:
            try:
                target = os.readlink(name, dir_fd=parent_fd)
            except OSError:
                return  # no link: another container on the same root made it just now
            make_in_root(root_fd, os.path.join(parent, target), directory)


def make_at(name: str, dir_fd: int, directory: bool) -> None:
    """Make a directory or an empty file that everyone may read, whatever the caller's umask."""
    umask = os.umask(0)
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=dir_fd)
        else:
            os.mknod(name, stat.S_IFREG | 0o644, dir_fd=dir_fd)
    finally:
        os.umask(umask)
