# Exported from notebooks/12_images.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12_images.ipynb#unpack-module
"""A layer's tar unpacked into a directory that nothing in it can leave."""

from __future__ import annotations

import gzip
import hashlib
import os
import posixpath
import stat
import tarfile
import zlib

from mini_docker.images.layout import Descriptor, ImageError, Layout
from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any


# %% notebooks/12_images.ipynb#open-parent
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_FILES = 1_000_000
MAX_BYTES = 16 << 30
MAX_LINKS = 40
BLOCK = 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class LayerError(ImageError):
    """A layer that is refused: what it holds is damaged or tries to leave its tree."""


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
            return openat2(root_fd, "/".join(parts) or ".", DIRECTORY, RESOLVE_IN_ROOT)
        except FileNotFoundError:
            resolved = _make_directories(root_fd, parts)
            if resolved is not None:
                parts = resolved
    raise LayerError(f"layer entry below {'/'.join(parts)!r}: too many symbolic links")


def _make_directories(root_fd: int, parts: list[str]) -> list[str] | None:
    """Make the missing directories of a path; stop at a dangling link and return the path it means."""
    directory_fd = openat2(root_fd, ".", DIRECTORY, RESOLVE_IN_ROOT)
    try:
        for depth, part in enumerate(parts, start=1):
            try:
                child_fd = openat2(root_fd, "/".join(parts[:depth]), DIRECTORY, RESOLVE_IN_ROOT)
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o755, dir_fd=directory_fd)
                except FileExistsError:
                    target = os.readlink(part, dir_fd=directory_fd)
                    before = posixpath.join("/", *parts[: depth - 1], target)
                    return split_name(posixpath.normpath(posixpath.join(before, *parts[depth:])))
                child_fd = os.open(part, DIRECTORY | os.O_NOFOLLOW, dir_fd=directory_fd)
            os.close(directory_fd)
            directory_fd = child_fd
    finally:
        os.close(directory_fd)
    return None


# %% notebooks/12_images.ipynb#unpack-tar
def unpack_tar(stream: IO[bytes], root: str) -> None:
    """Unpack the tar in `stream` below the directory `root` as an overlay layer.

    Whiteouts become character devices 0:0, opaque markers the xattr trusted.overlay.opaque. Owners,
    modes, times and device numbers are kept; later entries replace earlier ones. Raises LayerError for
    entries that would leave the root or exceed MAX_FILES or MAX_BYTES. Source: OCI image-spec layer.md.
    """
    root_fd = os.open(root, DIRECTORY)
    times: dict[str, int] = {}
    count = total = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                count, total = count + 1, total + member.size
                if count > MAX_FILES or total > MAX_BYTES:
                    raise LayerError(
                        f"layer holds more than {MAX_FILES} files or {MAX_BYTES} bytes"
                    )
                if split_name(member.name):
                    _unpack_member(archive, member, root_fd)
                if member.isdir():
                    times[member.name] = int(member.mtime * 1e9)
        _set_directory_times(root_fd, times)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise LayerError(f"layer is not a tar archive, or a damaged one: {error}") from error
    except (ValueError, OverflowError) as error:
        raise LayerError(
            f"layer entry {member.name!r} has an impossible header: {error}"
        ) from error
    finally:
        os.close(root_fd)


def _set_directory_times(root_fd: int, times: dict[str, int]) -> None:
    """Set the directories' times last: each file that came into one has changed them."""
    for name, nanoseconds in times.items():
        path = "/".join(split_name(name)) or "."
        try:
            fd = openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, RESOLVE_IN_ROOT)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a later entry has replaced it
        try:
            os.utime(f"/proc/self/fd/{fd}", ns=(nanoseconds, nanoseconds))
        finally:
            os.close(fd)


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root_fd: int) -> None:
    parent_fd, name = open_parent(root_fd, member.name)
    try:
        if name == OPAQUE:
            _make_opaque(f"/proc/self/fd/{parent_fd}")
        elif name.startswith(WHITEOUT):
            _whiteout(member, parent_fd, name.removeprefix(WHITEOUT))
        else:
            _create(archive, member, root_fd, parent_fd, name)
    finally:
        os.close(parent_fd)


# %% notebooks/12_images.ipynb#whiteouts
def _make_opaque(path: str) -> None:
    """Hide all that lower layers have in this directory. Source: the kernel's overlayfs.rst."""
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def _whiteout(member: tarfile.TarInfo, parent_fd: int, name: str) -> None:
    """Hide `name` of the lower layers; what this layer itself has of that name stays."""
    if name in ("", ".", ".."):
        raise LayerError(f"layer entry {member.name!r} hides nothing that has a name")
    mode = _mode(parent_fd, name)
    if mode is None:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent_fd)
    elif stat.S_ISDIR(mode):
        _make_opaque(f"/proc/self/fd/{parent_fd}/{name}")


def _mode(parent_fd: int, name: str) -> int | None:
    """Return the mode of what has this name already, or None."""
    try:
        return os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


# %% notebooks/12_images.ipynb#unpack-members
def _create(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root_fd: int, parent_fd: int, name: str
) -> None:
    """Make the file, directory, link or device `name` of `member` in `parent_fd`, and set its attributes."""
    hides_lower = _clear_the_way(member, parent_fd, name)
    if member.isdir():
        _make_directory(parent_fd, name)
        if hides_lower:
            _make_opaque(f"/proc/self/fd/{parent_fd}/{name}")
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent_fd)
    elif member.islnk():
        _link(member, root_fd, parent_fd, name)
        return
    elif member.isreg():
        _write_file(archive, member, parent_fd, name)
    else:
        _make_special(member, parent_fd, name)
    os.chown(name, member.uid, member.gid, dir_fd=parent_fd, follow_symlinks=False)
    if not member.issym():
        _chmod(parent_fd, name, member.mode)
    times = (int(member.mtime * 1e9),) * 2
    os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)


def _clear_the_way(member: tarfile.TarInfo, parent_fd: int, name: str) -> bool:
    """Remove an earlier entry of that name, unless both are directories; return if it was a whiteout."""
    mode = _mode(parent_fd, name)
    if mode is None:
        return False
    if stat.S_ISDIR(mode):
        if not member.isdir():
            raise LayerError(f"layer entry {member.name!r} would replace a directory")
        return False
    os.unlink(name, dir_fd=parent_fd)
    return stat.S_ISCHR(mode)


def _make_directory(parent_fd: int, name: str) -> None:
    try:
        os.mkdir(name, dir_fd=parent_fd)
    except FileExistsError:
        pass


def _link(member: tarfile.TarInfo, root_fd: int, parent_fd: int, name: str) -> None:
    source_fd, source = open_parent(root_fd, member.linkname)
    try:
        os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(source_fd)


def _write_file(
    archive: tarfile.TarFile, member: tarfile.TarInfo, parent_fd: int, name: str
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    content = archive.extractfile(member)
    with open(os.open(name, flags, 0o600, dir_fd=parent_fd), "wb") as file:
        while content and (block := content.read(1 << 20)):
            file.write(block)


def _make_special(member: tarfile.TarInfo, parent_fd: int, name: str) -> None:
    kinds = {tarfile.CHRTYPE: 0o020000, tarfile.BLKTYPE: 0o060000, tarfile.FIFOTYPE: 0o010000}
    if member.type not in kinds:
        raise LayerError(f"layer entry {member.name!r} has the unknown type {member.type!r}")
    device = os.makedev(member.devmajor, member.devminor)
    os.mknod(name, kinds[member.type] | member.mode, device, dir_fd=parent_fd)


def _chmod(parent_fd: int, name: str, mode: int) -> None:
    """chmod(2) without following a link: through a path descriptor of the file itself."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode & 0o7777)
    finally:
        os.close(fd)


# %% notebooks/12_images.ipynb#unpack-layer
def unpack_layer(layout: Layout, layer: Descriptor, diff_id: str, layers_directory: str) -> str:
    """Return the directory of the unpacked `layer`, unpacked now if it is not there yet.

    The blob's digest and size are checked first and the tar's `diff_id` too; a half-done directory never
    has the final name. Raises LayerError.
    """
    try:
        name = os.path.basename(layout.blob_path(diff_id))
    except ImageError as error:
        raise LayerError(f"layer {layer.digest}: diff_id {error}") from error
    final = f"{layers_directory}/{name}"
    if os.path.isdir(final):
        return final
    blob = layout.blob_path(layer.digest)
    check_blob(blob, layer)
    temporary = f"{final}.{os.getpid()}.tmp"
    umask = os.umask(0)
    try:
        remove_tree(temporary)
        os.makedirs(temporary, 0o755)
        _unpack_checked(blob, diff_id, temporary)
        os.rename(temporary, final)
    except OSError as error:
        if not os.path.isdir(final):  # another process may have been faster
            raise LayerError(f"layer {layer.digest}: {error}") from error
    finally:
        os.umask(umask)
        remove_tree(temporary)
    return final


def check_blob(path: str, layer: Descriptor) -> None:
    """Compare a blob's size and digest with its descriptor. Raises LayerError with the remedy."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise LayerError(
            f"layer {layer.digest} cannot be read: {error}; load the image again"
        ) from error
    if size != layer.size or f"sha256:{digest.hexdigest()}" != layer.digest:
        raise LayerError(
            f"layer {layer.digest}: the blob's bytes do not match its digest; remove and load it again"
        )


def _unpack_checked(blob: str, diff_id: str, directory: str) -> None:
    with open(blob, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    opener: Callable[[str], Any] = gzip.open if compressed else _open
    digest = hashlib.sha256()
    try:
        with opener(blob) as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LayerError(f"layer {blob.rpartition('/')[2]} is damaged: {error}") from error
    if f"sha256:{digest.hexdigest()}" != diff_id:
        raise LayerError(f"layer unpacks to sha256:{digest.hexdigest()}, its image says {diff_id}")
    with opener(blob) as stream:
        unpack_tar(stream, directory)


def _open(path: str) -> IO[bytes]:
    return open(path, "rb")
