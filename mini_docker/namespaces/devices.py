# Exported from notebooks/04_mnt.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/04_mnt.ipynb#devices-module
"""Devices of a container: the default ones, those of the document, the links in /dev, the console."""

from __future__ import annotations

import errno
import os
import stat
from collections import namedtuple

from mini_docker.linux.mount import (
    AT_EMPTY_PATH,
    OPEN_TREE_CLONE,
    RESOLVE_NO_SYMLINKS,
    open_tree,
)
from mini_docker.linux.step import Step
from mini_docker.namespaces.mnt import attach_in_root, mount_in_root
from mini_docker.namespaces.options import BINDS, has_own_mounts
from mini_docker.namespaces.places import Fd, open_mount_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NamedTuple

    class Device(NamedTuple):
        """A device file: its path in the container, type and permissions, device number, owner."""

        path: str
        mode: int
        number: int
        uid: int
        gid: int

else:
    Device = namedtuple("Device", ("path", "mode", "number", "uid", "gid"))


# %% notebooks/04_mnt.ipynb#devices
DEFAULT_DEVICES = tuple(
    Device(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor), 0, 0)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def plan_devices(spec: dict[str, Any]) -> list[Step]:
    """Plan the default devices, those of linux.devices, and the links in /dev.

    Where /dev is a directory of the host, bound, nothing is made in it. Raises ValueError.
    Source: OCI config-linux.md "Default Devices".
    """
    if not has_own_mounts(spec) or any(map(_is_host_dev, spec.get("mounts", ()))):
        return []
    root = spec["root"]["path"]
    asked = [
        parse_device(index, entry)
        for index, entry in enumerate(spec.get("linux", {}).get("devices") or ())
    ]
    own = {device.path for device in asked}
    standard = tuple(device for device in DEFAULT_DEVICES if device.path not in own)
    steps = [Step("make the devices null zero full ...", make_devices, (root, standard))]
    steps += [Step(f"make the device {d.path}", make_devices, (root, (d,))) for d in asked]
    return [*steps, Step("make the links in /dev", link_devices, (root, DEVICE_LINKS))]


def _is_host_dev(entry: dict[str, Any]) -> bool:
    bind = entry.get("type") == "bind" or not BINDS.keys().isdisjoint(entry.get("options") or ())
    return bind and os.path.normpath(entry["destination"]) == "/dev"


def parse_device(index: int, entry: dict[str, Any]) -> Device:
    """Return linux.devices[index] as a Device. Raises ValueError."""
    if entry.get("type") not in DEVICE_TYPES:
        raise ValueError(f"linux.devices[{index}].type: '{entry.get('type')}' is none of c u b p")
    mode = DEVICE_TYPES[entry["type"]] | (entry.get("fileMode") or 0o666) & 0o7777
    number = os.makedev(entry.get("major", 0), entry.get("minor", 0))
    return Device(entry["path"], mode, number, entry.get("uid") or 0, entry.get("gid") or 0)


def make_devices(root: str, devices: Sequence[Device]) -> None:
    """Make device files inside `root`, mknod(2); where that is not allowed, bind the host's.

    A user namespace may not make devices. Raises OSError, also if another file has the name.
    """
    umask = os.umask(0)
    try:
        with Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd:
            for device in devices:
                _make_device(root, root_fd, Device(*device))  # they may have come as plain tuples
    finally:
        os.umask(umask)


def _make_device(root: str, root_fd: int, device: Device) -> None:
    directory, name = os.path.split(device.path)
    with open_mount_point(root_fd, directory, True) as directory_fd:
        try:
            os.mknod(name, device.mode, device.number, dir_fd=directory_fd)
            os.chown(name, device.uid, device.gid, dir_fd=directory_fd, follow_symlinks=False)
        except PermissionError:
            mount_in_root(root, device.path, "bind", device.path, ("bind",))
        except FileExistsError:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            wanted = (stat.S_IFMT(device.mode), device.number)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) != wanted:
                text = f"{device.path} in this root is another file, not the device"
                raise FileExistsError(errno.EEXIST, text) from None


def link_devices(root: str, links: Sequence[tuple[str, str]]) -> None:
    """Make the symlinks `links`, pairs (name, target), in the /dev of `root`, symlink(2).

    One that is there stays, but for ptmx: it must be that of the container's own devpts. Raises OSError.
    """
    with (
        Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd,
        open_mount_point(root_fd, "/dev", True) as dev_fd,
    ):
        for name, target in links:
            try:
                os.symlink(target, name, dir_fd=dev_fd)
            except FileExistsError:
                if name == "ptmx":
                    os.unlink(name, dir_fd=dev_fd)
                    os.symlink(target, name, dir_fd=dev_fd)


def bind_console(root: str, slave_fd: int) -> None:
    """Bind the terminal behind `slave_fd` on /dev/console inside `root`, open_tree(2).

    Neither end is a path that a container could swap: the source is the descriptor itself, and a link in
    the way of the target is refused (CVE-2025-52565). Raises OSError.
    """
    flags = OPEN_TREE_CLONE | AT_EMPTY_PATH
    with Fd(open_tree("", flags, slave_fd)) as mount_fd:
        attach_in_root(mount_fd, root, "/dev/console", RESOLVE_NO_SYMLINKS)
