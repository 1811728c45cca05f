# Exported from notebooks/12b_layers_as_tars.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12b_layers_as_tars.ipynb#unpack-module
"""A layer's tar unpacked into a directory that nothing in it can leave."""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from mini_docker.images.compression import PIECE, CompressionError, expand
from mini_docker.images.tar import (
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
    Source,
    read_members,
)
from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO


# %% notebooks/12b_layers_as_tars.ipynb#open-parent
MAX_FILES = 1_000_000
MAX_BYTES = 16 << 30  # of the tar, uncompressed
MAX_LINKS = 40
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_parent(root_fd: int, path: str) -> tuple[int, str]:
    """Return a descriptor of the directory that `path` lies in, made where missing, and the last name.

    Symlinks are resolved inside the root, openat2(2). Raises LayerError for a path that has `..` in it
    or no name.
    """
    parts = split_name(path)
    if not parts or ".." in parts or "\0" in path:
        raise LayerError(f"layer entry {path!r} does not name a file inside the image")
    return _open_directory(root_fd, parts[:-1]), parts[-1]


def split_name(path: str) -> list[str]:
    """Return the parts of an entry's name; none for the root itself, which is "./" or "/"."""
    return [part for part in path.split("/") if part not in ("", ".")]


def _open_directory(root_fd: int, parts: list[str]) -> int:
    """Open a directory below the root; make it, and what dangling links on the way mean, where missing."""
    for _ in range(MAX_LINKS):
        try:
            return openat2(root_fd, "/".join(parts) or ".", OPEN_DIRECTORY, RESOLVE_IN_ROOT)
        except FileNotFoundError:
            resolved = _make_directories(root_fd, parts)
            if resolved is not None:
                parts = resolved
    raise LayerError(f"layer entry below {'/'.join(parts)!r}: too many symbolic links")


def _make_directories(root_fd: int, parts: list[str]) -> list[str] | None:
    """Make the missing directories of a path; stop at a dangling link and return the path it means."""
    directory_fd = openat2(root_fd, ".", OPEN_DIRECTORY, RESOLVE_IN_ROOT)
    try:
        for depth, part in enumerate(parts, start=1):
            try:
                child_fd = openat2(
                    root_fd, "/".join(parts[:depth]), OPEN_DIRECTORY, RESOLVE_IN_ROOT
                )
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o755, dir_fd=directory_fd)
                except FileExistsError:
                    target = os.readlink(part, dir_fd=directory_fd)
                    before = posixpath.join("/", *parts[: depth - 1], target)
                    return split_name(posixpath.normpath(posixpath.join(before, *parts[depth:])))
                child_fd = os.open(part, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory_fd)
                os.fchmod(child_fd, 0o755)  # whatever the umask, which belongs to all threads
            os.close(directory_fd)
            directory_fd = child_fd
    finally:
        os.close(directory_fd)
    return None


# %% notebooks/12b_layers_as_tars.ipynb#unpacker
class Unpacker:
    """A layer being unpacked: it keeps the last entry's directory open, and directories' times."""

    def __init__(self, root: str, devices: bool = True) -> None:
        """Open the root; without `devices` a layer that holds some is refused."""
        self.root_fd = os.open(root, OPEN_DIRECTORY)
        self.devices = devices
        self.parent_path, self.parent_fd = "", -1
        self.times: dict[str, int] = {}

    def close(self) -> None:
        """Close the descriptors."""
        self._forget_parent()
        os.close(self.root_fd)

    def unpack(self, source: Source) -> None:
        """Unpack a whole tar. Raises LayerError, OSError."""
        for count, (member, data) in enumerate(read_members(source)):
            if count >= MAX_FILES:
                raise LayerError(f"layer holds more than {MAX_FILES} files")
            try:
                self._unpack_member(member, data)
            except (OSError, OverflowError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise LayerError(f"layer entry {member.name!r}: {error}") from error
        self._set_directory_times()

    def _unpack_member(self, member: Member, data: Iterator[memoryview]) -> None:
        """Make one entry true: what it hides is hidden, all else is made."""
        if member.kind == DIRECTORY:
            self.times[member.name] = member.mtime_ns
            if not split_name(member.name):
                return
        parent_fd, name = self._parent(member.name)
        if name == OPAQUE:
            make_opaque(f"/proc/self/fd/{parent_fd}")
        elif name.startswith(WHITEOUT):
            _whiteout(member, parent_fd, name.removeprefix(WHITEOUT))
        else:
            self._create(member, data, parent_fd, name)

    def _parent(self, path: str) -> tuple[int, str]:
        """Return the entry's directory, from the last time if it is the same, and its name in there."""
        before, _, name = path.rpartition("/")
        if self.parent_fd >= 0 and before == self.parent_path and name not in ("", ".", ".."):
            return self.parent_fd, name
        parent_fd, name = open_parent(self.root_fd, path)
        self._forget_parent()
        self.parent_path, self.parent_fd = before, parent_fd
        return parent_fd, name

    def _forget_parent(self) -> None:
        """Close the kept directory: a link or directory that changes may give its path another meaning."""
        if self.parent_fd >= 0:
            os.close(self.parent_fd)
        self.parent_fd = -1

    def _create(
        self, member: Member, data: Iterator[memoryview], parent_fd: int, name: str
    ) -> None:
        """Make the file, directory, link or device `name` in `parent_fd`, and set its attributes."""
        if member.kind == FILE:
            self._create_file(member, data, parent_fd, name)
            return
        hides_lower = _clear_the_way(member, parent_fd, name)
        if member.kind == LINK:
            self._link(member, parent_fd, name)
            return
        if member.kind == DIRECTORY:
            _make_directory(parent_fd, name, hides_lower)
        elif member.kind == SYMLINK:
            os.symlink(member.linkname, name, dir_fd=parent_fd)
        else:
            self._make_special(member, parent_fd, name)
        _set_attributes(member, parent_fd, name)
        if member.kind in (DIRECTORY, SYMLINK):
            self._forget_parent()

    def _create_file(
        self, member: Member, data: Iterator[memoryview], parent_fd: int, name: str
    ) -> None:
        """Write a file by a descriptor of its own, which no link can lead elsewhere."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent_fd)
        except FileExistsError:
            _clear_the_way(member, parent_fd, name)
            fd = os.open(name, flags, 0o600, dir_fd=parent_fd)
        try:
            _write_data(fd, member, data)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
            if member.xattrs:
                _set_xattrs(member, f"/proc/self/fd/{fd}")
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _link(self, member: Member, parent_fd: int, name: str) -> None:
        source_fd, source = open_parent(self.root_fd, member.linkname)
        try:
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(source_fd)

    def _make_special(self, member: Member, parent_fd: int, name: str) -> None:
        kinds = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
        if member.kind not in kinds:
            raise LayerError(f"layer entry {member.name!r} has the unknown type {member.kind!r}")
        if member.kind != FIFO and not self.devices:
            raise LayerError(f"layer entry {member.name!r} is a device, and none are allowed here")
        device = 0 if member.kind == FIFO else os.makedev(*member.device)
        os.mknod(name, kinds[member.kind] | 0o600, device, dir_fd=parent_fd)

    def _set_directory_times(self) -> None:
        """Set the directories' times last: each file that came into one has changed them."""
        for name, nanoseconds in self.times.items():
            path = "/".join(split_name(name)) or "."
            try:
                fd = openat2(self.root_fd, path, os.O_PATH | os.O_DIRECTORY, RESOLVE_IN_ROOT)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry has replaced it
            try:
                os.utime(f"/proc/self/fd/{fd}", ns=(nanoseconds, nanoseconds))
            finally:
                os.close(fd)


def unpack_tar(stream: IO[bytes], root: str, devices: bool = True) -> None:
    """Unpack the tar in `stream`, compressed or not, below the directory `root` as an overlay layer.

    Whiteouts become character devices 0:0, opaque markers the xattr trusted.overlay.opaque. Owners,
    modes, times, xattrs and device numbers are kept; later entries replace earlier ones. Raises
    LayerError for entries that would leave the root or exceed MAX_FILES or MAX_BYTES. Source: OCI layer.md.
    """
    unpack_pieces(expand(iter(lambda: stream.read(PIECE), b"")), root, devices)


def unpack_pieces(pieces: Iterable[bytes], root: str, devices: bool = True) -> None:
    """Do as `unpack_tar` does with a tar that comes in pieces, not compressed."""
    unpacker = Unpacker(root, devices)
    try:
        unpacker.unpack(Source(pieces, MAX_BYTES))
    except CompressionError as error:
        raise LayerError(f"layer: {error}") from error
    finally:
        unpacker.close()


# %% notebooks/12b_layers_as_tars.ipynb#whiteouts
def make_opaque(path: str) -> None:
    """Hide all that lower layers have in this directory. Source: the kernel's overlayfs.rst."""
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def _whiteout(member: Member, parent_fd: int, name: str) -> None:
    """Hide `name` of the lower layers; what this layer itself has of that name stays."""
    if name in ("", ".", ".."):
        raise LayerError(f"layer entry {member.name!r} hides nothing that has a name")
    mode = _mode(parent_fd, name)
    if mode is None:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent_fd)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)
    elif stat.S_ISDIR(mode):
        make_opaque(f"/proc/self/fd/{parent_fd}/{name}")


def _mode(parent_fd: int, name: str) -> int | None:
    """Return the mode of what has this name already, or None."""
    try:
        return os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _clear_the_way(member: Member, parent_fd: int, name: str) -> bool:
    """Remove an earlier entry of that name, unless both are directories; return if it was a whiteout."""
    mode = _mode(parent_fd, name)
    if mode is None:
        return False
    if stat.S_ISDIR(mode):
        if member.kind != DIRECTORY:
            raise LayerError(f"layer entry {member.name!r} would replace a directory")
        return False
    os.unlink(name, dir_fd=parent_fd)
    return stat.S_ISCHR(mode)


# %% notebooks/12b_layers_as_tars.ipynb#attributes
def _make_directory(parent_fd: int, name: str, hides_lower: bool) -> None:
    try:
        os.mkdir(name, dir_fd=parent_fd)
    except FileExistsError:
        return
    if hides_lower:
        make_opaque(f"/proc/self/fd/{parent_fd}/{name}")


def _write_data(fd: int, member: Member, data: Iterator[memoryview]) -> None:
    """Write a file's bytes; a sparse one's where its map says, with holes between."""
    if member.sparse is None:
        for piece in data:
            _write_all(fd, piece)
        return
    rest = memoryview(b"")
    for offset, length in member.sparse:
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            rest = rest or next(data)
            _write_all(fd, rest[:length])
            length, rest = max(0, length - len(rest)), rest[length:]
    os.ftruncate(fd, member.real_size)


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _set_attributes(member: Member, parent_fd: int, name: str) -> None:
    """Set owner, mode, extended attributes and times, following no link."""
    os.chown(name, member.uid, member.gid, dir_fd=parent_fd, follow_symlinks=False)
    if member.kind != SYMLINK:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            os.chmod(f"/proc/self/fd/{fd}", member.mode & 0o7777)
            _set_xattrs(member, f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    times = (member.mtime_ns, member.mtime_ns)
    os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)


def _set_xattrs(member: Member, path: str) -> None:
    """Set extended attributes. Raises LayerError for an overlay's own, which would steer the mount."""
    for name, value in member.xattrs.items():
        if name.startswith(("trusted.", "user.overlay.")):
            raise LayerError(f"layer entry {member.name!r} brings the attribute {name!r}")
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
