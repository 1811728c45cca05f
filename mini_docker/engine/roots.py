# Exported from notebooks/10b_drivers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10b_drivers.ipynb#roots-module
"""The roots of a data root's containers, on whichever storage driver it has."""

from __future__ import annotations

import os
import stat

from mini_docker.storage.overlay import open_overlay, plan_overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from mini_docker.storage.overlay import Overlay
    from mini_docker.storage.tree import Change

MARK = "storage-driver"  # the file in a data root that names its driver


# %% notebooks/10b_drivers.ipynb#roots
class Roots:
    """The roots of containers, each known by its record: on overlay, and what all drivers share."""

    name = "overlay2"
    opener: Callable[[Any], int] = staticmethod(open_overlay)

    def __init__(self, home: str) -> None:
        """Use the data root `home`."""
        self.home = home

    def plan(self, record: dict[str, Any]) -> Overlay | str:
        """Return a container's root as data, for `opener`, with its own part made. Raises OSError."""
        directory = self.directory(record)
        self._make(directory, "upper", "work")
        volatile = bool(record["HostConfig"].get("AutoRemove"))
        return plan_overlay(self.layers(record), directory, volatile)

    def plan_look(self, record: dict[str, Any]) -> Overlay | str:
        """Return the root as data, only to be read: its changes are one more layer, which stays as it is."""
        directory = self.directory(record)
        self._make(directory, "upper", "reading", "reading/upper", "reading/work")
        layers = [*self.layers(record), f"{directory}/upper"]
        return plan_overlay(layers, f"{directory}/reading")

    def open(self, plan: Overlay | str) -> int:
        """Return a descriptor of a planned root, a mount that is attached nowhere. Raises OSError."""
        return self.opener(plan)

    def changes(self, record: dict[str, Any]) -> list[Change]:
        """Return what the container changed, sorted by path."""
        from mini_docker.storage.tree import upper_changes

        self.plan(record)
        return upper_changes(f"{self.directory(record)}/upper", self.layers(record))

    def diff(self, record: dict[str, Any]) -> AbstractContextManager[str]:
        """Lend a directory with the changes in overlay's form, for a layer's tar."""
        from contextlib import nullcontext

        self.plan(record)
        return nullcontext(f"{self.directory(record)}/upper")

    def size(self, record: dict[str, Any]) -> int:
        """Return how many bytes the files have that the container added or changed."""
        changed = [change.path for change in self.changes(record) if change.kind != "D"]
        root_fd = os.open(self.changed(record), os.O_PATH | os.O_CLOEXEC)
        try:
            return sum(_size_in(root_fd, path) for path in changed)
        finally:
            os.close(root_fd)

    def changed(self, record: dict[str, Any]) -> str:
        """Return the directory that has the container's changed files."""
        return f"{self.directory(record)}/upper"

    def remove(self, container_id: str) -> None:
        """Remove what lies outside of the container's directory; gone is fine."""

    def remove_layers(self, needed: Iterable[Sequence[str]]) -> None:
        """Remove what the driver made of layers, but of these stacks of diff_ids; overlay makes nothing."""

    def data(self, record: dict[str, Any]) -> dict[str, str] | None:
        """Return GraphDriver.Data as `docker inspect` shows it."""
        directory = self.directory(record)
        return {
            "LowerDir": ":".join(reversed(self.layers(record))),
            "MergedDir": f"{directory}/rootfs",
            "UpperDir": f"{directory}/upper",
            "WorkDir": f"{directory}/work",
        }

    def status(self) -> list[list[str]] | None:
        """Return DriverStatus as `docker info` shows it."""
        return [
            ["Backing Filesystem", file_system_name(self.home)],
            ["Supports d_type", "true"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "false"],
        ]

    def trouble(self) -> str:
        """Return why this driver cannot work here, "" if it can."""
        from mini_docker.storage.overlay import remove_tree

        trial = f"{self.home}/trial.{os.getpid()}"
        os.makedirs(trial, exist_ok=True)
        self._make(trial, "lower", "upper", "work")
        try:
            os.close(self.open(plan_overlay([f"{trial}/lower"], trial)))
        except OSError as error:
            return f"{self.home} does not take overlay's changes ({error.strerror})"
        finally:
            remove_tree(trial)
        return ""

    def directory(self, record: dict[str, Any]) -> str:
        """Return the container's own directory."""
        return f"{self.home}/containers/{record['Id']}"

    def layers(self, record: dict[str, Any]) -> tuple[str, ...]:
        """Return the unpacked layers of the container's image, lowest first."""
        return tuple(f"{self.home}/layers/{name}" for name in record["Layers"])

    @staticmethod
    def _make(directory: str, *names: str) -> None:
        for name in (*names, "rootfs"):
            try:
                os.mkdir(f"{directory}/{name}")  # and not the directory: it may have been removed
            except FileExistsError:
                pass


# %% notebooks/10b_drivers.ipynb#choose-roots
CHOICES = ("overlay2", "btrfs", "vfs")  # as Docker would have them, best first


def file_system_name(path: str) -> str:
    """Return Docker's word for the file system that `path` lies on, statfs(2)."""
    from mini_docker.linux.mount import file_system_type

    names = {0xEF53: "extfs", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs"}
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return names.get(file_system_type(fd), "<unknown>")
    finally:
        os.close(fd)


def _size_in(root_fd: int, path: str) -> int:
    """Return the size of a file of a container, which may change it meanwhile; directories have none."""
    from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2

    try:
        fd = openat2(root_fd, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, RESOLVE_IN_ROOT)
    except OSError:
        return 0
    status = os.fstat(fd)
    os.close(fd)
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_size


def make_roots(home: str, name: str) -> Roots:
    """Return the roots on the driver called `name`, one of CHOICES."""
    if name == Roots.name:
        return Roots(home)
    from mini_docker.engine.trees import TreeRoots

    return TreeRoots(home, name)


def open_roots(home: str) -> Roots:
    """Return the roots on the driver that the data root `home` has; a new one has overlay2."""
    return make_roots(home, read_mark(home) or Roots.name)


def read_mark(home: str) -> str:
    """Return the name of a data root's driver, "" where nobody has chosen yet."""
    try:
        with open(f"{home}/{MARK}") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def choose_roots(home: str, wanted: str = "") -> Roots:
    """Return the roots on the driver `wanted`, else on the data root's own, else on the first that works.

    The choice is written down. Raises ValueError for a driver that is unknown, cannot work here, or is
    not the one that the data root was made with.
    """
    name = {"overlay": Roots.name}.get(wanted, wanted)
    if name and name not in CHOICES:
        raise ValueError(
            f"storage driver {wanted}: driver not supported; there are {', '.join(CHOICES)}"
        )
    before = read_mark(home) or (Roots.name if _in_use(home) else "")
    if name and before and name != before:
        raise ValueError(
            f"storage driver {wanted}: {home} was made with {before}; remedy: --storage-driver {before}, "
            "or another --data-root"
        )
    troubles = []
    for choice in [name or before] if name or before else CHOICES:
        roots = make_roots(home, choice)
        if trouble := roots.trouble():
            troubles.append(f"storage driver {choice}: {trouble}")
            continue
        with open(f"{home}/{MARK}", "w") as file:
            file.write(f"{choice}\n")
        return roots
    raise ValueError("; ".join(troubles))


def _in_use(home: str) -> bool:
    """Say whether a data root has containers: from a time before its driver was written down."""
    try:
        return bool(os.listdir(f"{home}/containers"))
    except FileNotFoundError:
        return False
