# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#tars-module
"""A tree of a container becomes a tar, a tar becomes a tree: by descriptors, and never outside."""

from __future__ import annotations

import itertools
import lzma
import os
import stat
import tarfile
import zlib

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.remap import acting_as, to_container, to_host
from mini_docker.images.unpack import open_parent
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from mini_docker.engine.places import Maps
    from mini_docker.engine.remap import Mappings


# %% notebooks/14g_files.ipynb#read-tree
class _Pieces:
    """What tarfile writes to, and a generator takes from."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep a piece."""
        self.waiting.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        """Yield the pieces, and forget them."""
        waiting, self.waiting = self.waiting, []
        yield from waiting


def read_tree(
    fd: int, name: str, maps: Maps = None, empty: frozenset[str] = frozenset()
) -> Iterator[bytes]:
    """Yield a tar of the file or directory behind `fd` (O_PATH), under `name`. Symlinks are not followed.

    With `maps` its owners are the container's numbers for those on the host; what is in the directories
    `empty` ("./proc") is left out.
    """
    pieces = _Pieces()
    with tarfile.open(fileobj=pieces, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for entry in _entries(fd, name, empty):
            _add(archive, maps, *entry)
            yield from pieces.take()
    yield from pieces.take()


def _entries(fd: int, name: str, empty: frozenset[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (directory fd, name in it, name in the tar): the thing itself, then all below it."""
    found = os.fstat(fd)
    if not stat.S_ISDIR(found.st_mode):
        yield fd, "", name
        return
    top_fd = os.open(f"/proc/self/fd/{fd}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield top_fd, "", name
        for directory, names, files, directory_fd in os.fwalk(".", dir_fd=top_fd):
            prefix = name.rstrip("/") + directory[1:]
            for child in sorted([*names, *files]):
                yield directory_fd, child, f"{prefix}/{child}"
            names[:] = sorted(n for n in names if f"{directory}/{n}" not in empty)
    finally:
        os.close(top_fd)


class _Exactly:
    """A file that somebody may write to: who has promised a size gets it, with zeros for what is gone."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        """Return `size` bytes."""
        return self.file.read(size).ljust(size, b"\0")


def _add(archive: tarfile.TarFile, maps: Maps, dir_fd: int, child: str, name: str) -> None:
    """Add one entry; what has vanished meanwhile, and sockets, are left out."""
    try:
        found = os.stat(child, dir_fd=dir_fd, follow_symlinks=False) if child else os.fstat(dir_fd)
    except FileNotFoundError:
        return
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    if maps:
        info.uid, info.gid = (
            to_container(m, i) for m, i in zip(maps, (info.uid, info.gid), strict=True)
        )
    info.mtime = int(found.st_mtime)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG:
        path = child if child else f"/proc/self/fd/{dir_fd}"
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if child else 0)
        with open(os.open(path, flags, dir_fd=dir_fd if child else None), "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            archive.addfile(info, _Exactly(file))  # type: ignore[arg-type]
        return
    if kind == stat.S_IFLNK:
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(child, dir_fd=dir_fd)
    elif kind == stat.S_IFDIR:
        info.type = tarfile.DIRTYPE
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    elif kind == stat.S_IFIFO:
        info.type = tarfile.FIFOTYPE
    else:
        return
    archive.addfile(info)


# %% notebooks/14g_files.ipynb#write-tree
class _Stream:
    """What tarfile reads from: pieces of a request's body."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.rest = b""

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end."""
        while len(self.rest) < size and (piece := next(self.pieces, b"")):
            self.rest += piece
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


DAMAGES = {
    "TruncatedHeaderError": "unexpected EOF",
    "InvalidHeaderError": "archive/tar: invalid tar header",
}


class _Entry(tarfile.TarInfo):
    """An entry that tells of damage: tarfile takes a header that is cut off, or none, for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Entry:
        """Read the next entry. Raises tarfile.ReadError in Docker's words."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if words := DAMAGES.get(type(error).__name__):
                raise tarfile.ReadError(words) from None
            raise  # the end


def write_tree(
    directory_fd: int, pieces: Iterator[bytes], keep_kinds: bool, maps: Maps = None
) -> None:
    """Unpack a tar below a directory. Every name is resolved inside of it; symlinks lead nowhere else.

    `keep_kinds` refuses to replace a directory by something else, or the other way round; with `maps`
    the tar's owners are a container's numbers. Raises InvalidRequest, LayerError, OSError. A body
    without a byte is, as with Docker, an archive with nothing in it.
    """
    first = next(pieces, b"")
    if not first:
        return
    stream = _Stream(itertools.chain([first], pieces))
    try:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Entry) as archive, acting_as(maps):  # type: ignore[call-overload]
            for member in archive:
                if maps:
                    member.uid, member.gid = _mapped(maps, member)
                _write(archive, member, directory_fd, keep_kinds)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        words = str(error).replace("unexpected end of data", DAMAGES["TruncatedHeaderError"])
        raise InvalidRequest(f"Error processing tar file(exit status 1): {words}") from None


def _mapped(maps: tuple[Mappings, Mappings], member: tarfile.TarInfo) -> tuple[int, int]:
    """Return the host's numbers of an entry's owners. Raises InvalidRequest for those that have none."""
    try:
        return to_host(maps[0], member.uid), to_host(maps[1], member.gid)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _write(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root_fd: int, keep_kinds: bool
) -> None:
    if member.name.strip("/") in ("", "."):
        return
    parent_fd, name = open_parent(root_fd, member.name)
    try:
        if _make_room(member, parent_fd, name, keep_kinds):
            _make(archive, member, root_fd, parent_fd, name)
        if not member.issym() and not member.islnk():
            os.chown(name, member.uid, member.gid, dir_fd=parent_fd, follow_symlinks=False)
            _chmod(parent_fd, name, member.mode)
            os.utime(name, (member.mtime, member.mtime), dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _chmod(parent_fd: int, name: str, mode: int) -> None:
    """Change a mode without following a symlink: there is none, but somebody inside may be quick."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode & 0o7777)
    finally:
        os.close(fd)


def _make_room(member: tarfile.TarInfo, parent_fd: int, name: str, keep_kinds: bool) -> bool:
    """Remove what is in the way; return whether something is to be made. Raises InvalidRequest."""
    try:
        there = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return True
    is_directory = stat.S_ISDIR(there.st_mode)
    if is_directory and member.isdir():
        return False
    if keep_kinds and is_directory != member.isdir():
        kinds = "directory", "non-directory"
        words = f"cannot overwrite {kinds[not is_directory]} {name!r} with {kinds[is_directory]}"
        raise InvalidRequest(words)
    if is_directory:
        remove_tree(f"/proc/self/fd/{parent_fd}/{name}")
    else:
        os.unlink(name, dir_fd=parent_fd)
    return True


def _make(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root_fd: int, parent_fd: int, name: str
) -> None:
    if member.isdir():
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent_fd)
    elif member.islnk():
        source_fd, source = open_parent(root_fd, member.linkname)
        try:
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(source_fd)
    elif member.isfile():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent_fd), "wb") as file:
            data = archive.extractfile(member)
            while data is not None and (piece := data.read(1 << 18)):
                file.write(piece)
    elif member.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent_fd)
    else:
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = os.makedev(member.devmajor, member.devminor)
        os.mknod(name, kind | 0o600, device, dir_fd=parent_fd)
