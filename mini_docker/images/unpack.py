"""A layer's tar unpacked into a directory that nothing in it can leave."""

from __future__ import annotations

import os
import posixpath
import tarfile

from mini_docker.images.layout import Descriptor, ImageError, Layout, sha256
from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_FILES = 1_000_000
MAX_BYTES = 16 << 30
MAX_LINKS = 40
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class LayerError(ImageError):
    """A layer that is refused: what it holds is damaged or tries to leave its tree."""


def open_parent(root_fd: int, path: str) -> tuple[int, str]:
    """Return a descriptor of the directory that `path` lies in, made where missing, and the last name.

    Symlinks are resolved inside the root, openat2(2). Raises LayerError for a path that has `..` in it
    or no name.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in path:
        raise LayerError(f"layer entry {path!r} does not name a file inside the image")
    return _open_directory(root_fd, parts[:-1]), parts[-1]


def _open_directory(root_fd: int, parts: list[str], links: int = 0) -> int:
    """Open a directory below the root; make it, and what a dangling link on the way means, where missing."""
    try:
        return openat2(root_fd, "/".join(parts) or ".", DIRECTORY, RESOLVE_IN_ROOT)
    except FileNotFoundError:
        parent_fd = _open_directory(root_fd, parts[:-1], links)
    try:
        os.mkdir(parts[-1], 0o755, dir_fd=parent_fd)
    except FileExistsError:
        if links == MAX_LINKS:
            raise LayerError(
                f"layer entry below {'/'.join(parts)!r}: too many symbolic links"
            ) from None
        target = os.readlink(parts[-1], dir_fd=parent_fd)
        resolved = posixpath.normpath(posixpath.join("/", *parts[:-1], target))
        return _open_directory(root_fd, resolved.strip("/").split("/"), links + 1)
    finally:
        os.close(parent_fd)
    return openat2(root_fd, "/".join(parts), DIRECTORY, RESOLVE_IN_ROOT)


def unpack_tar(stream: IO[bytes], root: str) -> None:
    """Unpack the tar in `stream` below the directory `root` as an overlay layer.

    Whiteouts become character devices 0:0, opaque markers the xattr trusted.overlay.opaque. Owners,
    modes, times and device numbers are kept; later entries replace earlier ones. Raises LayerError for
    entries that would leave the root or exceed MAX_FILES or MAX_BYTES. Source: OCI image-spec layer.md.
    """
    root_fd = os.open(root, DIRECTORY | os.O_CLOEXEC)
    count = total = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                count, total = count + 1, total + member.size
                if count > MAX_FILES or total > MAX_BYTES:
                    raise LayerError(
                        f"layer holds more than {MAX_FILES} files or {MAX_BYTES} bytes"
                    )
                if member.name.strip("./"):
                    _unpack_member(archive, member, root_fd)
    except tarfile.TarError as error:
        raise LayerError(f"layer is not a tar archive: {error}") from error
    finally:
        os.close(root_fd)


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root_fd: int) -> None:
    parent_fd, name = open_parent(root_fd, member.name)
    try:
        if name == OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent_fd}", "trusted.overlay.opaque", b"y")
        elif name.startswith(WHITEOUT):
            os.mknod(name.removeprefix(WHITEOUT), 0o020000, os.makedev(0, 0), dir_fd=parent_fd)
        else:
            _create(archive, member, root_fd, parent_fd, name)
    finally:
        os.close(parent_fd)


def _create(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root_fd: int, parent_fd: int, name: str
) -> None:
    """Make the file, directory, link or device `name` of `member` in `parent_fd`, and set its attributes."""
    _clear_the_way(member, parent_fd, name)
    if member.isdir():
        _make_directory(parent_fd, name)
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


def _clear_the_way(member: tarfile.TarInfo, parent_fd: int, name: str) -> None:
    """Remove an earlier entry of that name, unless both are directories."""
    try:
        old_is_directory = (
            os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode & 0o170000 == 0o040000
        )
    except FileNotFoundError:
        return
    if not old_is_directory:
        os.unlink(name, dir_fd=parent_fd)
    elif not member.isdir():
        raise LayerError(f"layer entry {member.name!r} would replace a directory")


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


def unpack_layer(layout: Layout, layer: Descriptor, diff_id: str, layers_directory: str) -> str:
    """Return the directory of the unpacked `layer`, unpacked now if it is not there yet.

    The blob's digest and size are checked first and the tar's `diff_id` too; a half-done directory never
    has the final name. Raises LayerError.
    """
    final = f"{layers_directory}/{diff_id.rpartition(':')[2]}"
    if os.path.isdir(final):
        return final
    with open(layout.blob_path(layer.digest), "rb") as file:
        data = file.read()
    if len(data) != layer.size or sha256(data) != layer.digest:
        raise LayerError(
            f"layer {layer.digest}: the blob's bytes do not match its digest; remove and load it again"
        )
    temporary = f"{final}.{os.getpid()}.tmp"
    remove_tree(temporary)
    os.makedirs(temporary)
    try:
        _unpack_checked(layout.blob_path(layer.digest), diff_id, temporary)
        os.rename(temporary, final)
    except FileExistsError:
        remove_tree(temporary)
    except OSError as error:
        remove_tree(temporary)
        if os.path.isdir(final):
            return final
        raise LayerError(f"layer {layer.digest}: {error}") from error
    except BaseException:
        remove_tree(temporary)
        raise
    return final


def _unpack_checked(blob: str, diff_id: str, directory: str) -> None:
    import gzip
    import hashlib

    with open(blob, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    opener = gzip.open if compressed else open
    with opener(blob, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    if f"sha256:{digest.hexdigest()}" != diff_id:
        raise LayerError(f"layer unpacks to sha256:{digest.hexdigest()}, its image says {diff_id}")
    with opener(blob, "rb") as stream:
        unpack_tar(stream, directory)  # type: ignore[arg-type]
