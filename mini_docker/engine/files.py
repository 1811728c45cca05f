# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#files-module
"""Files in and out of a container: cp, export, diff. The container owns its names, we follow none out."""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
import threading
from collections import namedtuple

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.remap import acting_as, mappings_of, to_container, to_host
from mini_docker.images.unpack import open_parent
from mini_docker.linux.mount import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
)
from mini_docker.linux.process import CLONE_NEWNS, unshare
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO, NamedTuple

    from mini_docker.engine.container import Container
    from mini_docker.engine.remap import Mappings
    from mini_docker.engine.store import Store

    Maps = tuple[Mappings, Mappings] | None

    class Place(NamedTuple):
        """A path of a container: a descriptor of the root it is resolved in, and the path in there.

        `maps` translate the owners that are seen there, where they are not the container's own numbers;
        `mounts_fd` keeps what is mounted in that root, -1 where nothing has to be kept; `kernels` are
        directories below the path that hold the kernel's files, and none of the container.
        """

        root_fd: int
        path: str
        maps: Maps
        mounts_fd: int = -1
        kernels: frozenset[str] = frozenset()

else:
    Place = namedtuple(
        "Place", ("root_fd", "path", "maps", "mounts_fd", "kernels"), defaults=(-1, frozenset())
    )


# %% notebooks/14g_files.ipynb#roots
IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
OPEN_PATH = os.O_PATH | os.O_CLOEXEC


class NoSuchPath(Exception):
    """A path that is not in the container."""


def stacked(store: Store, container: Container) -> int:
    """Return a descriptor of a container's files, stacked anew and only to be read. Raises OSError.

    Its own changes are one more layer: so nothing is written to the directories of one that runs.
    """
    return store.roots.open(store.roots.plan_look(container.record))


def writable(store: Store, container: Container) -> int:
    """Return a descriptor of a stopped container's files, to be changed. Raises OSError."""
    return store.roots.open(store.roots.plan(container.record))


def locate(store: Store, container: Container, path: str, write: bool = False) -> Place:
    """Return where a path of a container is, its volumes mounted. Raises InvalidRequest, OSError.

    A running container is looked at through /proc/PID/root, which has its mounts. The caller closes.
    """
    clean = posixpath.normpath("/" + path.lstrip("/"))  # of two slashes it would keep both
    points = [p for p in container.record.get("MountPoints") or () if p["Source"]]
    inside = [p for p in points if below(clean, p["Destination"])]
    if write:
        refuse_read_only(container, inside)
    maps = mappings_of(container.record)
    if container.alive:
        root_fd = os.open(f"/proc/{container.state['Pid']}/root", OPEN_PATH)
        return Place(root_fd, clean, maps, kernels=kernels_own(clean))
    root_fd = writable(store, container) if write else stacked(store, container)
    for point in inside[-1:]:
        # one that never ran has no mount points yet; with a user namespace, volumes have other owners
        if maps or not has(root_fd, point["Destination"]):
            os.close(root_fd)
            within = clean[len(point["Destination"]) :] or "/"
            return Place(os.open(point["Source"], OPEN_PATH), within, maps)
    kept = mount_volumes(root_fd, points, store.root) if points and not maps else -1
    return Place(root_fd, clean, None, kept)


KERNEL_TREES = ("/dev", "/proc", "/sys")


def kernels_own(path: str) -> frozenset[str]:
    """Return the directories below `path`, seen from there, whose files are the kernel's: "./proc"."""
    top = path.rstrip("/")
    return frozenset(f".{tree[len(top) :]}" for tree in KERNEL_TREES if tree.startswith(f"{top}/"))


def below(path: str, directory: str) -> bool:
    """Say whether a path is a directory or below it, as text."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def has(root_fd: int, path: str) -> bool:
    """Say whether a path exists in a root."""
    try:
        os.close(openat2(root_fd, path, OPEN_PATH, IN_ROOT))
    except OSError:
        return False
    return True


def refuse_read_only(container: Container, points: list[dict[str, Any]]) -> None:
    """Refuse to write where the container may not; `points` contain the path. Raises InvalidRequest."""
    if points and not points[-1]["RW"]:
        raise InvalidRequest("mounted volume is marked read-only")
    if not points and container.record["HostConfig"].get("ReadonlyRootfs"):
        raise InvalidRequest("container rootfs is marked read-only")


# %% notebooks/14g_files.ipynb#volumes
def mount_volumes(root_fd: int, points: list[dict[str, Any]], covered: str) -> int:
    """Mount volumes inside a root that is attached nowhere; return the descriptor that keeps them.

    The kernel attaches mounts only inside the caller's mount namespace. A thread may have one of its own
    (unshare(2)), and the namespace lives as long as its descriptor. `covered` is any directory: in there,
    and there alone, the root is mounted over it. Raises OSError.
    """
    result: list[int | OSError] = []

    def in_thread() -> None:
        try:
            unshare(CLONE_NEWNS)
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            copies = [(point, volume_mount(point)) for point in points]
            move_mount(root_fd, covered)
            for point, copy_fd in copies:
                attach_volume(root_fd, point["Destination"], copy_fd)
            result.append(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def volume_mount(point: dict[str, Any]) -> int:
    """Return a detached copy of the mount of a volume's source, read-only where the container has it so."""
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if point["recursive"] else 0)
    source_fd = os.open(point["Source"], OPEN_PATH)
    try:
        inside_fd = openat2(source_fd, point["subpath"] or "/", OPEN_PATH, IN_ROOT)
    finally:
        os.close(source_fd)
    try:
        copy_fd = open_tree("", flags | AT_EMPTY_PATH, inside_fd)
    finally:
        os.close(inside_fd)
    if not point["RW"]:
        mount_setattr(copy_fd, MOUNT_ATTR_RDONLY)
    return copy_fd


def attach_volume(root_fd: int, destination: str, copy_fd: int) -> None:
    """Attach a detached mount at a place of the root, resolved inside; a place that is not there has none."""
    try:
        place_fd = openat2(root_fd, destination, OPEN_PATH, IN_ROOT)
        try:
            move_mount(copy_fd, "", place_fd)
        finally:
            os.close(place_fd)
    except (FileNotFoundError, NotADirectoryError):
        pass
    finally:
        os.close(copy_fd)


# %% notebooks/14g_files.ipynb#stat
GO_DIRECTORY, GO_SYMLINK, GO_DEVICE, GO_PIPE, GO_SOCKET = (
    1 << 31,
    1 << 27,
    1 << 26,
    1 << 25,
    1 << 24,
)
GO_SETUID, GO_SETGID, GO_CHARACTER, GO_STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
GO_KINDS = {
    stat.S_IFDIR: GO_DIRECTORY,
    stat.S_IFLNK: GO_SYMLINK,
    stat.S_IFIFO: GO_PIPE,
    stat.S_IFSOCK: GO_SOCKET,
    stat.S_IFBLK: GO_DEVICE,
    stat.S_IFCHR: GO_DEVICE | GO_CHARACTER,
}
GO_BITS = ((stat.S_ISUID, GO_SETUID), (stat.S_ISGID, GO_SETGID), (stat.S_ISVTX, GO_STICKY))


def go_mode(mode: int) -> int:
    """Return a file's mode in Go's bits, which are not those of stat(2)."""
    bits = mode & 0o777 | GO_KINDS.get(stat.S_IFMT(mode), 0)
    return bits | sum(go for ours, go in GO_BITS if mode & ours)


def open_place(place: Place, what: str, follow: bool = False) -> int:
    """Return an O_PATH descriptor of a place, resolved inside its root. Raises NoSuchPath, OSError."""
    try:
        flags = OPEN_PATH | (0 if follow else os.O_NOFOLLOW)
        return openat2(place.root_fd, place.path, flags, IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchPath(what) from None


MOST_LINKS = 40  # as the kernel


def final_target(place: Place) -> str:
    """Return the path in the container that a symlink leads to in the end, be there something or not."""
    path = place.path
    for _ in range(MOST_LINKS):
        try:
            fd = openat2(place.root_fd, path, OPEN_PATH | os.O_NOFOLLOW, IN_ROOT)
        except OSError:
            break
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                break
            target = os.readlink("", dir_fd=fd)
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        finally:
            os.close(fd)
    return path


def path_stat(fd: int, name: str, place: Place) -> dict[str, Any]:
    """Return Docker's description of a file: name, size, Go's mode, mtime, linkTarget."""
    from mini_docker.engine.moments import moment

    found = os.fstat(fd)
    target = final_target(place) if stat.S_ISLNK(found.st_mode) else ""
    return {
        "name": name,
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime": moment(found.st_mtime_ns),
        "linkTarget": target,
    }


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


def write_tree(
    directory_fd: int, pieces: Iterator[bytes], keep_kinds: bool, maps: Maps = None
) -> None:
    """Unpack a tar below a directory. Every name is resolved inside of it; symlinks lead nowhere else.

    `keep_kinds` refuses to replace a directory by something else, or the other way round; with `maps`
    the tar's owners are a container's numbers. Raises InvalidRequest, LayerError, OSError. What is no
    tar at all is, as with Docker, nothing.
    """
    try:
        archive = tarfile.open(fileobj=_Stream(pieces), mode="r|*")  # type: ignore[call-overload]
    except tarfile.ReadError:
        return
    with archive, acting_as(maps):
        try:
            for member in archive:
                if maps:
                    member.uid, member.gid = _mapped(maps, member)
                _write(archive, member, directory_fd, keep_kinds)
        except tarfile.TarError as error:
            raise InvalidRequest(f"the archive is damaged: {error}") from None


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


# %% notebooks/14g_files.ipynb#changes
# What a start itself makes in the upper directory: mount points.
MOUNT_POINTS = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
KINDS = {"C": 0, "A": 1, "D": 2}


def changes(store: Store, container: Container) -> list[dict[str, Any]] | None:
    """Return what `docker diff` shows; None where nothing has changed."""
    found = store.roots.changes(container.record)
    ours = set(MOUNT_POINTS)
    shown = [change for change in found if not _is_ours(change.path, ours)]
    dropped = {posixpath.dirname(change.path) for change in found if _is_ours(change.path, ours)}
    kept = [
        {"Path": change.path, "Kind": KINDS[change.kind]}
        for change in shown
        if change.path not in dropped
        or any(other.path.startswith(f"{change.path}/") for other in shown)
    ]
    return kept or None


def _is_ours(path: str, ours: set[str]) -> bool:
    return any(path == point or path.startswith(f"{point}/dev-null") for point in ours) or (
        path.startswith(("/dev/", "/proc/", "/sys/"))
    )


def at_place(
    store: Store, container: Container, path: str, write: bool, use: Callable[[Place], Any]
) -> Any:
    """Return `use(place)` of a path in a container, and close its root."""
    place = locate(store, container, path, write)
    try:
        return use(place)
    finally:
        os.close(place.root_fd)
        if place.mounts_fd >= 0:
            os.close(place.mounts_fd)
