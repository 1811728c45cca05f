# Exported from notebooks/12b_layers_as_tars.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12b_layers_as_tars.ipynb#pack-module
"""A directory, or the upper one of an overlay, packed as a tar: a layer is made."""

from __future__ import annotations

import errno
import os
import stat

from mini_docker.images.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    OPAQUE,
    SYMLINK,
    WHITEOUT,
    LayerError,
    Member,
    end_of_archive,
    header_blocks,
)
from mini_docker.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


# %% notebooks/12b_layers_as_tars.ipynb#pack
INSIDE = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
KINDS = {stat.S_IFREG: FILE, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCK_DEVICE,
         stat.S_IFDIR: DIRECTORY, stat.S_IFIFO: FIFO}  # fmt: skip
NOT_CARRIED = ("trusted.", "system.", "security.selinux")  # an overlay's own, ACLs, labels


def pack(directory: str, overlay: bool = False, time: int | None = None) -> Iterator[bytes]:
    """Yield a tar of what is below `directory`: sorted, no user names, whole seconds, or all of it `time`.

    With `overlay` the directory is an overlay's upper one: whiteouts and opaque directories are written
    as OCI's layer.md has them. Sockets are left out. Raises OSError, LayerError.
    """
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    seen: dict[tuple[int, int], str] = {}
    try:
        for path in _sorted_paths(root_fd):
            yield from _pack_entry(root_fd, path, seen, overlay, time)
    finally:
        os.close(root_fd)
    yield end_of_archive()


def _sorted_paths(root_fd: int) -> Iterator[str]:
    """Yield all paths below a directory, each directory before what is in it."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        if path:
            yield path
        try:
            fd = openat2(root_fd, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, INSIDE)
        except (NotADirectoryError, FileNotFoundError):
            continue  # no directory, or just gone
        except OSError as error:
            if error.errno == errno.ELOOP:
                continue  # a symbolic link
            raise
        try:
            names = sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
        finally:
            os.close(fd)
        waiting += [os.path.join(path, os.fsdecode(name)) for name in names]


def _pack_entry(
    root_fd: int, path: str, seen: dict[tuple[int, int], str], overlay: bool, time: int | None
) -> Iterator[bytes]:
    """Yield the header and the data of one path; nothing for a socket, or for what has just gone."""
    try:
        fd = openat2(root_fd, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, INSIDE)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(fd)
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        if overlay and kind == CHAR and status.st_rdev == 0:
            parent, _, name = path.rpartition("/")
            hidden = Member(os.path.join(parent, WHITEOUT + name), FILE, 0)
            hidden.mtime_ns = _time(status, time)
            yield header_blocks(hidden)
            return
        member = _describe(fd, path, kind, status, seen, time)
        yield header_blocks(member)
        if member.kind == FILE:
            yield from _contents(fd, member.size)
        if overlay and kind == DIRECTORY and _overlay_marks(fd, path):
            yield header_blocks(Member(os.path.join(path, OPAQUE), FILE, 0))
    finally:
        os.close(fd)


def _time(status: os.stat_result, time: int | None) -> int:
    """Return the time to write, in whole seconds but counted in nanoseconds."""
    return (status.st_mtime_ns // 10**9 if time is None else time) * 10**9


def _describe(
    fd: int,
    path: str,
    kind: bytes,
    status: os.stat_result,
    seen: dict[tuple[int, int], str],
    time: int | None,
) -> Member:
    """Return the entry of the file behind a path descriptor; of its second name, a hard link."""
    member = Member(path, kind, stat.S_IMODE(status.st_mode))
    member.uid, member.gid, member.mtime_ns = status.st_uid, status.st_gid, _time(status, time)
    identity = (status.st_dev, status.st_ino)
    if kind == DIRECTORY:
        member.name += "/"
    elif identity in seen:
        member.kind, member.linkname = LINK, seen[identity]
        return member
    elif status.st_nlink > 1:
        seen[identity] = path
    if kind == SYMLINK:
        member.linkname = os.readlink("", dir_fd=fd)
        return member
    if kind in (CHAR, BLOCK_DEVICE):
        member.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    member.size = status.st_size if kind == FILE else 0
    for name in os.listxattr(f"/proc/self/fd/{fd}"):
        if not name.startswith(NOT_CARRIED):
            member.xattrs[name] = os.getxattr(f"/proc/self/fd/{fd}", name)
    return member


def _overlay_marks(fd: int, path: str) -> bool:
    """Return whether a directory of an upper layer is opaque. Raises LayerError for one that was renamed."""
    marks = [name for name in os.listxattr(f"/proc/self/fd/{fd}") if ".overlay." in name]
    if any(name.endswith(".redirect") for name in marks):
        raise LayerError(
            f"{path!r} was renamed by an overlay with redirect_dir: no layer can say that"
        )
    opaque = [name for name in marks if name.endswith(".opaque")]
    return any(os.getxattr(f"/proc/self/fd/{fd}", name) == b"y" for name in opaque)


def _contents(fd: int, size: int) -> Iterator[bytes]:
    """Yield a file's bytes and the filling of its last block; one that shrinks meanwhile is filled up."""
    left = size
    with open(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:
        while left and (data := file.read(min(left, 1 << 18))):
            left -= len(data)
            yield data
    for start in range(0, left, 1 << 18):
        yield bytes(min(left - start, 1 << 18))
    yield bytes(-size % BLOCK)
