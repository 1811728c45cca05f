# Exported from notebooks/10b_drivers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10b_drivers.ipynb#tree-module
"""Trees and what is between them: copy one, lay changes over it, find the changes again.

Changes between two trees are always in overlay's form, whatever made them: a file that is new or other is
there, a deleted name is a whiteout (a character device 0,0), a directory that hides all below it is opaque.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections import namedtuple

from mini_docker.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from mini_docker.storage.overlay import DIRECTORY, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

    class Change(NamedTuple):
        """A line of `docker diff`: kind "A" (added), "C" (changed) or "D" (deleted), an absolute path."""

        kind: str
        path: str

else:
    Change = namedtuple("Change", ("kind", "path"))

OPAQUE = "trusted.overlay.opaque"
FICLONE = 0x40049409  # linux/fs.h: let two files share their blocks
NOT_COPIED = ("trusted.overlay.", "user.overlay.", "system.nfs4_acl")


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether a file is overlay's mark for "nothing of this name below". Source: overlayfs.rst."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: str) -> bool:
    """Say whether a directory of an upper tree hides all that lies below it. Source: overlayfs.rst."""
    try:
        return os.getxattr(directory, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


# %% notebooks/10b_drivers.ipynb#copier
class Copier:
    """Copies files with all they have: owner, mode, times, extended attributes, devices, hard links."""

    def __init__(self) -> None:
        """Start with no file known."""
        self.copies: dict[tuple[int, int], str] = {}

    def copy_tree(self, source: str, target: str) -> None:
        """Make `target`, which must not be there, the same as the directory `source`. Raises OSError."""
        self.copy(source, target)
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self.copy_tree(entry.path, f"{target}/{entry.name}")
                else:
                    self.copy(entry.path, f"{target}/{entry.name}")
        copy_times(os.lstat(source), target)

    def copy(self, source: str, target: str) -> None:
        """Copy one name; a directory without what is in it; of a hard link's second name, the link."""
        status = os.lstat(source)
        identity = (status.st_dev, status.st_ino)
        if identity in self.copies:
            os.link(self.copies[identity], target, follow_symlinks=False)
            return
        make_like(source, status, target)
        copy_attributes(source, status, target)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            self.copies[identity] = target


def make_like(source: str, status: os.stat_result, target: str) -> None:
    """Make a file of the same type, with its data."""
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        copy_data(source, target)
    elif stat.S_ISSOCK(status.st_mode):
        os.mknod(target, stat.S_IFSOCK)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)


def copy_data(source: str, target: str) -> None:
    """Copy a file's bytes: shared blocks where the file system can (FICLONE), holes left out otherwise."""
    with open(source, "rb", opener=_open_no_link) as reading, open(target, "xb") as writing:
        try:
            fcntl.ioctl(writing, FICLONE, reading.fileno())
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
                raise
        size = os.fstat(reading.fileno()).st_size
        os.ftruncate(writing.fileno(), size)
        for start, end in data_ranges(reading.fileno(), size):
            os.lseek(reading.fileno(), start, os.SEEK_SET)
            os.lseek(writing.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(writing.fileno(), reading.fileno(), None, end - start) or end


def _open_no_link(path: str, flags: int) -> int:
    """Open a file that a moment ago was no symbolic link, and must not have become one."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file that are no holes, lseek(2)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position


def copy_attributes(source: str, status: os.stat_result, target: str) -> None:
    """Copy owner, mode, extended attributes and times; the owner first, for it clears set-user-ID."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(NOT_COPIED):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
    copy_times(status, target)


def copy_times(status: os.stat_result, target: str) -> None:
    """Give `target` the times of `status`."""
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


# %% notebooks/10b_drivers.ipynb#merge
def merge(upper: str, tree: str) -> None:
    """Lay the changes in `upper` (overlay's form) over `tree`, so that it looks as the two stacked would.

    Both belong to the caller alone: nobody changes them meanwhile. Raises OSError.
    """
    _merge(upper, tree, Copier())


def _merge(upper: str, tree: str, copier: Copier) -> None:
    """Lay one directory's changes over the one of the same name, and its attributes last."""
    if is_opaque(upper):
        for name in os.listdir(tree):
            remove(f"{tree}/{name}")
    with os.scandir(upper) as entries:
        for entry in entries:
            _merge_entry(entry, f"{tree}/{entry.name}", copier)
    copy_attributes(upper, os.lstat(upper), tree)


def _merge_entry(entry: os.DirEntry[str], target: str, copier: Copier) -> None:
    """Lay one entry over what has its name: a whiteout only removes."""
    status = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False):
        remove(target)
        if not is_whiteout(status):
            copier.copy(entry.path, target)
        return
    if not os.path.isdir(target) or os.path.islink(target):
        remove(target)
        os.mkdir(target)
    _merge(entry.path, target, copier)


def remove(path: str) -> None:
    """Remove a name with all below it; gone is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        remove_tree(path)


# %% notebooks/10b_drivers.ipynb#listing
def listing(directory_fd: int) -> dict[str, os.stat_result]:
    """Return the names in a directory with what lstat(2) says of them, without those that just vanished."""
    found = {}
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            try:
                found[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
    return found


class opened:  # noqa: N801 (reads as a statement)
    """A directory's descriptor, closed at the end; None for one that is gone or is a directory no more."""

    def __init__(self, name: str, parent_fd: int | None = None) -> None:
        """Open `name` in the directory `parent_fd`; a link that a container put in its place is refused."""
        try:
            self.fd: int | None = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        except (FileNotFoundError, NotADirectoryError):
            self.fd = None

    def __enter__(self) -> int | None:
        """Return the descriptor."""
        return self.fd

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self.fd is not None:
            os.close(self.fd)


# %% notebooks/10b_drivers.ipynb#upper-changes
def upper_changes(upper: str, lower: tuple[str, ...]) -> list[Change]:
    """Return what an overlay's upper directory changed of its layers (lowest first), sorted by path.

    A directory counts as changed where something in it is. Source: Docker's `diff`, overlayfs.rst.
    """
    with opened(upper) as upper_fd:
        found = list(_upper_changes(upper_fd, lower, "", alone=False))
    return sorted(found, key=lambda change: change.path)


def _upper_changes(
    upper_fd: int | None, lower: tuple[str, ...], path: str, alone: bool
) -> Iterator[Change]:
    """Yield the changes of one directory and those below; `alone`: an opaque one hides all its layers."""
    if upper_fd is None:
        return
    alone = alone or is_opaque(f"/proc/self/fd/{upper_fd}/.")
    below = names_below(lower)
    for name, status in listing(upper_fd).items():
        here, was = f"{path}/{name}", below.pop(name, None)
        if is_whiteout(status):
            yield Change("D", here)
            continue
        yield Change("A" if was is None else "C", here)
        if stat.S_ISDIR(status.st_mode):
            with opened(name, upper_fd) as child_fd:
                yield from _upper_changes(child_fd, was or (), here, alone)
    if alone:
        for name in below:
            yield Change("D", f"{path}/{name}")


def names_below(lower: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return each name that the layers show in a directory, with the directories of that name.

    A whiteout hides what lies below it, a file hides a directory, an opaque directory all lower ones.
    """
    found: dict[str, tuple[str, ...]] = {}
    for layer in lower:
        if is_opaque(layer):
            found.clear()
        with os.scandir(layer) as entries:
            for entry in entries:
                if is_whiteout(entry.stat(follow_symlinks=False)):
                    found.pop(entry.name, None)
                elif entry.is_dir(follow_symlinks=False):
                    found[entry.name] = (*found.get(entry.name, ()), entry.path)
                else:
                    found[entry.name] = ()
    return found


# %% notebooks/10b_drivers.ipynb#tree-changes
def tree_changes(before: str, after: str) -> list[Change]:
    """Return what makes the tree `after` differ from `before`, in the order and the words of `docker diff`.

    A file counts as changed where type, mode, owner, device, size, time or link differ; a directory where
    mode or owner do, or something in it. Source: Docker's `diff`.
    """
    with opened(before) as old_fd, opened(after) as new_fd:
        found = list(_tree_changes(old_fd, new_fd, ""))
    return sorted(found, key=lambda change: change.path)


def _tree_changes(old_fd: int | None, new_fd: int | None, path: str) -> Iterator[Change]:
    """Yield what differs in a directory and below; None stands for one that is not there."""
    old = {} if old_fd is None else listing(old_fd)
    new = {} if new_fd is None else listing(new_fd)
    for name in old.keys() - new.keys():
        yield Change("D", f"{path}/{name}")
    for name, status in new.items():
        here, was = f"{path}/{name}", old.get(name)
        inside: list[Change] = []
        if stat.S_ISDIR(status.st_mode):
            with _same(name, was, old_fd) as old_child, opened(name, new_fd) as new_child:
                inside = list(_tree_changes(old_child, new_child, here))
        if was is None:
            yield Change("A", here)
        elif inside or differ(was, status, (old_fd, new_fd), name):
            yield Change("C", here)
        yield from inside


def _same(name: str, was: os.stat_result | None, old_fd: int | None) -> opened:
    """Open the old directory of that name, or none where there was none: not /dev/null's fault."""
    directory = was is not None and stat.S_ISDIR(was.st_mode)
    return opened(name if directory else "/dev/null", old_fd)


def differ(
    was: os.stat_result, now: os.stat_result, fds: tuple[int | None, int | None], name: str
) -> bool:
    """Say whether two files of one name are not the same, without reading them."""
    if (was.st_mode, was.st_uid, was.st_gid) != (now.st_mode, now.st_uid, now.st_gid):
        return True
    if stat.S_ISDIR(now.st_mode):
        return False
    if stat.S_ISLNK(now.st_mode):
        one, other = (os.readlink(name, dir_fd=fd) for fd in fds)
        return one != other
    return (was.st_rdev, was.st_size, was.st_mtime_ns) != (
        now.st_rdev,
        now.st_size,
        now.st_mtime_ns,
    )


# %% notebooks/10b_drivers.ipynb#write-upper
def write_upper(changes: list[Change], after: str, upper: str) -> None:
    """Make the directory `upper` hold `changes` of the tree `after`, in overlay's form.

    The tree may belong to a running container: each name is reached by openat2(2), which follows no link.
    Raises OSError.
    """
    copier = Copier()
    with opened(after) as root_fd:
        assert root_fd is not None
        copier.copy(f"/proc/self/fd/{root_fd}/.", upper)
        for kind, path in changes:
            if kind == "D":
                os.mknod(upper + path, stat.S_IFCHR, 0)
            else:
                _copy_inside(root_fd, path, upper, copier)
    for _, path in reversed(changes):
        _set_directory_time(after, path, upper)


def _copy_inside(root_fd: int, path: str, upper: str, copier: Copier) -> None:
    """Copy one path of the tree into `upper`; what is gone meanwhile is left out."""
    parent, _, name = path.rpartition("/")
    try:
        parent_fd = openat2(root_fd, f".{parent}", DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
    except (FileNotFoundError, NotADirectoryError):
        return  # gone meanwhile, or a directory no more
    try:
        copier.copy(f"/proc/self/fd/{parent_fd}/{name}", upper + path)
    except FileNotFoundError:
        return
    finally:
        os.close(parent_fd)


def _set_directory_time(after: str, path: str, upper: str) -> None:
    """Set a directory's time again, which filling it has changed."""
    try:
        status, made = os.lstat(after + path), os.lstat(upper + path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(made.st_mode):
        copy_times(status, upper + path)
