# Exported from notebooks/02_pid.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/02_pid.ipynb#kinds-module
"""The eight kinds of namespace: their names in the OCI document, in clone3 and under /proc/PID/ns."""

from __future__ import annotations

import os

from mini_docker.linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    setns,
)
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/02_pid.ipynb#kinds
FLAGS = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "time": CLONE_NEWTIME,
    "cgroup": CLONE_NEWCGROUP,
    "mount": CLONE_NEWNS,
}
PROC_NAMES = {kind: {"network": "net", "mount": "mnt"}.get(kind, kind) for kind in FLAGS}


def entries(spec: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return (type, path or None) of each entry of linux.namespaces.

    Raises ValueError, with the JSON path, for an unknown type or one given twice. Source: OCI
    config-linux.md.
    """
    found: dict[str, str | None] = {}
    for index, entry in enumerate(spec.get("linux", {}).get("namespaces", ())):
        kind = entry.get("type")
        if kind not in FLAGS:
            raise ValueError(f"linux.namespaces[{index}].type: unknown namespace {kind!r}")
        if kind in found:
            raise ValueError(f"linux.namespaces[{index}].type: '{kind}' stands there twice")
        found[kind] = entry.get("path") or None
    return list(found.items())


def new_namespaces(spec: dict[str, Any]) -> int:
    """Return the CLONE_NEW* flags of the namespaces that are to be made, not joined, clone(2)."""
    flags = 0
    for kind, path in entries(spec):
        if path is None:
            flags |= FLAGS[kind]
    return flags


# %% notebooks/02_pid.ipynb#joins
def join(path: str, flag: int) -> None:
    """Join the namespace behind the file `path`, which must be of the kind `flag`, setns(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, flag)
    finally:
        os.close(fd)


# setns(2) into a pid namespace counts for the children alone; into a user namespace it takes away the
# right to clone as the host's root. A process is born in these two, and enters the others by itself.
BORN_INSIDE = ("user", "pid")


def plan_births(spec: dict[str, Any]) -> list[Step]:
    """Plan, for the process that clones, the namespaces by path in which its child is to be born."""
    return _plan_joins(spec, BORN_INSIDE)


def plan_joins(spec: dict[str, Any]) -> list[Step]:
    """Plan the namespaces by path that a process enters by itself, in the order of FLAGS.

    The mount namespace comes last: the paths of all others are gone with it. Source: OCI
    config-linux.md, setns(2).
    """
    return _plan_joins(spec, tuple(kind for kind in FLAGS if kind not in BORN_INSIDE))


def _plan_joins(spec: dict[str, Any], kinds: tuple[str, ...]) -> list[Step]:
    paths = dict(entries(spec))
    return [
        Step(f"join {kind} namespace", join, (str(paths[kind]), FLAGS[kind]))
        for kind in kinds
        if paths.get(kind)
    ]
