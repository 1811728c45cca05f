# Exported from notebooks/10b_drivers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10b_drivers.ipynb#driver-module
"""What every storage driver can do; which ones there are; how one is chosen."""

from __future__ import annotations

import fcntl
import os
from collections import namedtuple

from mini_docker.linux.mount import OPEN_TREE_CLONE, open_tree
from mini_docker.storage.overlay import open_overlay, plan_overlay, remove_tree
from mini_docker.storage.subvolume import (
    FIRST_INODE,
    create_subvolume,
    destroy_subvolume,
    make_subvolume_readonly,
    snapshot_subvolume,
)
from mini_docker.storage.tree import Change, Copier, merge, tree_changes, upper_changes, write_upper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    class Root(NamedTuple):
        """A container's root as data: its key, the layers below it (lowest first), how it may be lost."""

        key: str
        layers: tuple[str, ...]
        volatile: bool

else:
    Root = namedtuple("Root", ("key", "layers", "volatile"))


class held:  # noqa: N801 (reads as a statement)
    """The lock that says that something is being made in a driver's home, flock(2)."""

    def __init__(self, home: str, kind: int) -> None:
        """Name the lock; `kind` is LOCK_SH for those who make, LOCK_EX for who clears up."""
        self.path, self.kind = f"{home}/lock", kind

    def __enter__(self) -> bool:
        """Take it; return whether it was had."""
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.fd, self.kind)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        os.close(self.fd)


class lent:  # noqa: N801 (reads as a statement)
    """A directory with a container's changes in overlay's form, for as long as the `with` statement lasts."""

    def __init__(self, driver: Driver, root: Root) -> None:
        """Name the container."""
        self.driver, self.root = driver, root

    def __enter__(self) -> str:
        """Return the upper directory itself, or make one."""
        self.lock = self.driver.lock()
        self.lock.__enter__()
        self.scratch = self.driver.making()
        own = f"{self.driver.root_path(self.root.key)}/upper"
        if self.driver.keeps_upper:
            return own
        try:
            changes = self.driver.changes(self.root)
            write_upper(changes, self.driver.root_path(self.root.key), self.scratch)
        except BaseException:
            self.__exit__()
            raise
        return self.scratch

    def __exit__(self, *_: object) -> None:
        """Remove what was made."""
        remove_tree(self.scratch)
        self.lock.__exit__()


# HOME
#   layers/KEY/    what one layer needs: with overlay its own files, with the others the whole tree so far
#   roots/KEY/     what one container needs: its changes, or its tree
#   making/        what is being made; whatever lies here after a crash is nobody's
class Driver:
    """Keeps trees in the directory `home`: layers, which never change, and containers' roots, which do.

    A layer's key names the layer *and all below it* (a chain id). Every driver gives the same answers;
    they differ in what they copy, and when. A method's result is defined, not its way: repeating is safe.
    """

    name = ""
    keeps_upper = False  # whether a container's changes lie in a directory of their own

    def __init__(self, home: str) -> None:
        """Use `home`, made where it is missing; what a killed process was making is removed."""
        self.home = home
        for part in ("layers", "roots", "making"):
            os.makedirs(f"{home}/{part}", mode=0o700, exist_ok=True)
        with self.lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as nobody_is_making:
            if nobody_is_making:
                for left in os.listdir(f"{home}/making"):
                    self.delete(f"{home}/making/{left}")

    def lock(self, kind: int = fcntl.LOCK_SH) -> held:
        """Return the lock that says that something is being made, for a `with` statement."""
        return held(self.home, kind)

    def diff(self, root: Root) -> lent:
        """Lend a directory with the container's changes in overlay's form, for a layer's tar."""
        return lent(self, root)

    def making(self) -> str:
        """Return a new name for something that is being made."""
        return f"{self.home}/making/{os.urandom(8).hex()}"

    def trouble(self) -> str:
        """Return why this driver cannot work in `home`, "" if it can."""
        return ""

    def has_layer(self, key: str) -> bool:
        """Say whether the layer is there, whole."""
        return os.path.isdir(self.layer_path(key))

    def layer_path(self, key: str) -> str:
        """Return where a layer lies."""
        return f"{self.home}/layers/{key}"

    def root_path(self, key: str) -> str:
        """Return where a container's part lies."""
        return f"{self.home}/roots/{key}"

    def add_layer(self, key: str, below: Sequence[str], diff: str) -> None:
        """Make the layer `key` of the directory `diff` (overlay's form) on `below`, lowest first.

        The driver may take `diff` over. Raises OSError; nothing is half made then.
        """
        if self.has_layer(key):
            return
        making = self.making()
        with self.lock():
            try:
                self.make_layer(making, below, diff)
                os.rename(making, self.layer_path(key))
                self.close_layer(self.layer_path(key))
            except OSError:  # another process was faster, or the disk is full
                if os.path.isdir(making):
                    self.delete(making)
                if not self.has_layer(key):
                    raise

    def remove_layer(self, key: str) -> None:
        """Remove a layer that nothing stands on; gone is fine."""
        self._remove(self.layer_path(key))

    def remove_root(self, key: str) -> None:
        """Remove a container's part; gone is fine."""
        self._remove(self.root_path(key))

    def _remove(self, path: str) -> None:
        """Move it aside first: a kill in the middle leaves nothing that looks whole."""
        aside = self.making()
        with self.lock():
            try:
                os.rename(path, aside)
            except FileNotFoundError:
                return
            self.delete(aside)

    def usage(self, key: str) -> int:
        """Return how many bytes on disk belong to a container's part, shared ones included."""
        return disk_usage(self.root_path(key))

    def make_layer(self, making: str, below: Sequence[str], diff: str) -> None:
        """Make the directory `making` what the layer is to be."""
        raise NotImplementedError(self.name)

    def close_layer(self, path: str) -> None:
        """Do what is to be done when a layer is whole and in its place."""

    def make_root(self, root: Root) -> None:
        """Make the container's part, where it is not there yet."""
        raise NotImplementedError(self.name)

    def open_root(self, root: Root) -> int:
        """Return a descriptor of a mount of the root that is attached nowhere. Raises OSError."""
        raise NotImplementedError(self.name)

    def changes(self, root: Root) -> list[Change]:
        """Return what the container changed, sorted by path."""
        raise NotImplementedError(self.name)

    def delete(self, path: str) -> None:
        """Remove a directory with all below it."""
        remove_tree(path)


# %% notebooks/10b_drivers.ipynb#overlay-driver
class OverlayDriver(Driver):
    """Copies a file when it is first written to. A layer is what was unpacked, moved into place."""

    name = "overlay"
    keeps_upper = True

    def make_layer(self, making: str, below: Sequence[str], diff: str) -> None:
        """Take the directory over; it must be on the same file system."""
        os.rename(diff, making)

    def make_root(self, root: Root) -> None:
        """Make the two directories for the changes."""
        for part in ("upper", "work"):
            os.makedirs(f"{self.root_path(root.key)}/{part}", mode=0o755, exist_ok=True)

    def open_root(self, root: Root) -> int:
        """Stack the layers, fsopen(2)."""
        layers = [self.layer_path(key) for key in root.layers]
        return open_overlay(plan_overlay(layers, self.root_path(root.key), root.volatile))

    def changes(self, root: Root) -> list[Change]:
        """Read them off the upper directory."""
        layers = tuple(self.layer_path(key) for key in root.layers)
        return upper_changes(f"{self.root_path(root.key)}/upper", layers)


# %% notebooks/10b_drivers.ipynb#tree-drivers
class TreeDriver(Driver):
    """What drivers share that keep whole trees."""

    def make_layer(self, making: str, below: Sequence[str], diff: str) -> None:
        """Copy the tree below, and lay the layer's changes over it."""
        self.copy_layer(below[-1] if below else None, making)
        merge(diff, making)

    def make_root(self, root: Root) -> None:
        """Copy the highest layer's tree; under another name first, so that there is all of it or nothing."""
        if os.path.isdir(self.root_path(root.key)):
            return
        making = self.making()
        with self.lock():
            try:
                self.copy_layer(root.layers[-1] if root.layers else None, making)
                os.rename(making, self.root_path(root.key))
            except OSError:
                if os.path.isdir(making):
                    self.delete(making)
                raise

    def open_root(self, root: Root) -> int:
        """Clone the mount at that directory, open_tree(2)."""
        return open_tree(self.root_path(root.key), OPEN_TREE_CLONE)

    def changes(self, root: Root) -> list[Change]:
        """Compare two whole trees."""
        return tree_changes(self.layer_path(root.layers[-1]), self.root_path(root.key))

    def copy_layer(self, key: str | None, path: str) -> None:
        """Make the directory `path` a copy of a layer's tree, or an empty one."""
        raise NotImplementedError(self.name)


class VfsDriver(TreeDriver):
    """Copies everything, always: slow and large, and works on every file system."""

    name = "vfs"

    def copy_layer(self, key: str | None, path: str) -> None:
        """Copy file by file."""
        if key is None:
            os.mkdir(path, 0o755)
        else:
            Copier().copy_tree(self.layer_path(key), path)


class BtrfsDriver(TreeDriver):
    """Copies a tree by a snapshot, and a block when it is first written to."""

    name = "btrfs"

    def trouble(self) -> str:
        """Try to make a subvolume."""
        path = self.making()
        try:
            create_subvolume(path)
            destroy_subvolume(path)
        except OSError as error:
            return (
                f"{self.home} does not lie on btrfs ({error.strerror}); remedy: mkfs.btrfs, mount"
            )
        return ""

    def copy_layer(self, key: str | None, path: str) -> None:
        """Take a snapshot."""
        if key is None:
            create_subvolume(path)
        else:
            snapshot_subvolume(self.layer_path(key), path)

    def close_layer(self, path: str) -> None:
        """Let the kernel refuse every write to a whole layer, its removal by another name included."""
        make_subvolume_readonly(path)

    def _remove(self, path: str) -> None:
        """Destroy the subvolume: that is one step, and one that is read-only cannot be moved aside."""
        destroy_subvolume(path)

    def delete(self, path: str) -> None:
        """Destroy a subvolume; scratch directories are none."""
        if os.stat(path).st_ino == FIRST_INODE:
            destroy_subvolume(path)
        else:
            remove_tree(path)


# %% notebooks/10b_drivers.ipynb#drivers
DRIVERS: dict[str, type[Driver]] = {
    driver.name: driver for driver in (OverlayDriver, BtrfsDriver, VfsDriver)
}


def open_driver(name: str, home: str) -> Driver:
    """Return the driver called `name`. Raises ValueError for an unknown one or one that cannot work there."""
    if name not in DRIVERS:
        raise ValueError(f"no storage driver {name!r}: there are {', '.join(DRIVERS)}")
    driver = DRIVERS[name](home)
    if trouble := driver.trouble():
        raise ValueError(f"storage driver {name}: {trouble}")
    return driver


def disk_usage(path: str) -> int:
    """Return the bytes on disk of what is below `path`, each file once however many names it has, stat(2)."""
    seen, total, waiting = set(), 0, [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return total
