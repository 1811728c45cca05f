# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#places-module
"""Where a path of a container is, and what stands there. It owns its names, we follow none out."""

from __future__ import annotations

import os
import posixpath
import stat
import threading
from collections import namedtuple

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.remap import mappings_of
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

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
