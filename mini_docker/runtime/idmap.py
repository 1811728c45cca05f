# Exported from notebooks/11f_idmap.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11f_idmap.ipynb#idmap-module
"""Mounts whose owners are translated: made by the parent, for only the host's root may."""

from __future__ import annotations

import os

from mini_docker.linux.mount import (
    AT_RECURSIVE,
    MOUNT_ATTR_IDMAP,
    OPEN_TREE_CLONE,
    mount_setattr,
    open_tree,
)
from mini_docker.linux.process import CLONE_NEWUSER, clone3
from mini_docker.namespaces.kinds import entries
from mini_docker.namespaces.mnt import is_idmapped, open_mount
from mini_docker.namespaces.options import parse_options
from mini_docker.namespaces.user import write_id_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/11f_idmap.ipynb#idmap
def open_user_namespace(linux: dict[str, Any]) -> int:
    """Return a descriptor of a user namespace with the id maps of `linux`, which nobody lives in.

    A child is born in it, and ends as soon as we have it open. Raises OSError, ValueError.
    """
    wait_fd, end_fd = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone3(CLONE_NEWUSER)
    if pid == 0:
        os.close(end_fd)
        os.read(wait_fd, 1)
        os._exit(0)
    try:
        write_id_maps(pid, {"linux": linux})
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (wait_fd, end_fd, pidfd):
            os.close(fd)
        os.waitpid(pid, 0)


def open_idmapped(spec: dict[str, Any]) -> dict[int, int]:
    """Return a detached mount for each entry of mounts that wants its ids mapped, by its index.

    An entry without mappings of its own has those of the container. Raises ValueError with the JSON path,
    OSError. Source: OCI config.md "mounts", mount_setattr(2) MOUNT_ATTR_IDMAP.
    """
    found: dict[int, int] = {}
    for index, entry in enumerate(spec.get("mounts") or ()):
        if is_idmapped(entry):
            found[index] = _open_idmapped(spec["linux"], entry, f"mounts[{index}]")
    return found


def open_sources(spec: dict[str, Any]) -> dict[int, int]:
    """Return a detached mount for each bind mount of a container with a user namespace, by its index.

    Its root is nobody on the host, and may not pass through the directories that lead to the source. So
    the parent opens it. Raises OSError, ValueError.
    """
    if "user" not in dict(entries(spec)):
        return {}
    found: dict[int, int] = {}
    try:
        for index, entry in enumerate(spec.get("mounts") or ()):
            options = entry.get("options") or ()
            wanted = parse_options(("bind", *options) if entry.get("type") == "bind" else options)
            if wanted.bind:
                subpath = entry.get("subpath", "")
                found[index] = open_mount("bind", entry["source"], wanted, subpath)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def _open_idmapped(linux: dict[str, Any], entry: dict[str, Any], where: str) -> int:
    """Return the detached, mapped mount of one entry. Raises ValueError, and OSError where it cannot map."""
    options = entry.get("options") or ()
    if not {"bind", "rbind"}.intersection(options) and entry.get("type") != "bind":
        raise ValueError(f"{where}.uidMappings: only a bind mount can have its ids mapped")
    own = entry if entry.get("uidMappings") or entry.get("gidMappings") else linux
    maps = {key: own.get(key) for key in ("uidMappings", "gidMappings")}
    if not all(maps.values()):
        raise ValueError(f"{where}.uidMappings: uidMappings and gidMappings are needed, both")
    userns_fd = open_user_namespace(maps)
    below = AT_RECURSIVE if "rbind" in options else 0
    try:
        mount_fd = open_tree(entry["source"], OPEN_TREE_CLONE | below)
        try:
            mount_setattr(mount_fd, MOUNT_ATTR_IDMAP, 0, "ridmap" in options, userns_fd)
        except OSError as error:
            os.close(mount_fd)
            raise OSError(error.errno, f"{where}: this file system cannot map ids") from None
        return mount_fd
    finally:
        os.close(userns_fd)
