# Exported from notebooks/14b_documents.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14b_documents.ipynb#modes-module
"""What a container shares: HostConfig's ...Mode words become namespaces that are made, joined or left out."""

from __future__ import annotations

import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Find = Callable[[str], dict[str, Any]]

# HostConfig's key: the namespace, the words that it takes beside "" and container:X, Docker's name for it
MODES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "NetworkMode": ("network", (), "network"),
    "IpcMode": ("ipc", ("private", "shareable", "host", "none"), "IPC"),
    "PidMode": ("pid", ("host",), "PID"),
    "UTSMode": ("uts", ("host",), "UTS"),
    "CgroupnsMode": ("cgroup", ("private", "host"), "cgroup namespace"),
}
JOINED = ("NetworkMode", "IpcMode", "PidMode")
NAMESPACES = ("pid", "mount", "ipc", "uts", "cgroup")
SHM = "/dev/shm"


# %% notebooks/14b_documents.ipynb#check-modes
def check_modes(host: dict[str, Any], hostname: str) -> None:
    """Refuse words that are no modes, and a name for a host that keeps its own. Raises ValueError."""
    for key, (_, words, name) in MODES.items():
        mode = host.get(key) or ""
        kind, colon, other = mode.partition(":")
        joins = key in JOINED and kind == "container" and colon and other
        if mode == "container:" and key == "NetworkMode":
            shape = "invalid container format container:<name|id>"
            raise ValueError(f"Invalid network mode: {shape}")
        if words and mode and mode not in words and not joins:
            raise ValueError(f"{'Invalid' if key == 'IpcMode' else 'invalid'} {name} mode: {mode}")
    if host.get("UTSMode") == "host" and hostname:
        raise ValueError("conflicting options: hostname and the UTS mode")


def namespaces(host: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the namespaces to make: all, but those that a ...Mode says are the host's."""
    left_out = {kind for key, (kind, _, _) in MODES.items() if host.get(key) == "host"}
    return [{"type": name} for name in (*NAMESPACES, "network") if name not in left_out]


# %% notebooks/14b_documents.ipynb#join-modes
def by_id(host: dict[str, Any], id_of: Callable[[str], str]) -> dict[str, Any]:
    """Return HostConfig with ids for the names in container:NAME, because names change."""
    found = dict(host)
    for key in JOINED:
        kind, _, name = (host.get(key) or "").partition(":")
        if kind == "container" and name:
            found[key] = f"container:{id_of(name)}"
    return found


def donor(host: dict[str, Any], key: str, find: Find) -> dict[str, Any] | None:
    """Return the record of the container whose IPC or PID namespace is to be shared, if one is.

    Raises ValueError in Docker's words where that one does not run, or does not share.
    """
    kind, _, container_id = (host.get(key) or "").partition(":")
    if kind != "container":
        return None
    where = f"can't join IPC of container {container_id}: " if key == "IpcMode" else ""
    other = find(container_id)
    if not other["State"].get("Pid"):
        raise ValueError(f"{where}container {other['Id']} is not running")
    if key == "IpcMode" and (other["HostConfig"].get("IpcMode") or "private") in (
        "private",
        "none",
    ):
        hint = "(hint: use IpcMode:shareable for the donor container)"
        raise ValueError(f"{where}non-shareable IPC {hint}")
    return other


def share(spec: dict[str, Any], host: dict[str, Any], find: Find) -> dict[str, Any]:
    """Return the document with the namespaces of other containers that it joins. Raises ValueError."""
    joined = {}
    for key, kind in (("IpcMode", "ipc"), ("PidMode", "pid")):
        other = donor(host, key, find)
        if other:
            joined[kind] = f"/proc/{other['State']['Pid']}/ns/{kind}"
    linux = spec["linux"]
    listed = [
        {**entry, "path": joined[entry["type"]]} if entry["type"] in joined else entry
        for entry in linux["namespaces"]
    ]
    return {**spec, "linux": {**linux, "namespaces": listed}}


# %% notebooks/14b_documents.ipynb#shm-mode
def shared_memory(mounts: list[dict[str, Any]], mode: str) -> list[dict[str, Any]]:
    """Return the mounts with /dev/shm as IpcMode wants it: its own, none, or one that is bound.

    POSIX shared memory is files there (shm_overview(7)): who shares the namespace but not the files
    shares half. What is bound for container:X is that one's mount, which its starter has as a descriptor.
    """
    if mode == "none":
        return [entry for entry in mounts if entry["destination"] != SHM]
    if mode != "host" and not mode.startswith("container:"):
        return mounts
    bound = {"destination": SHM, "type": "bind", "source": SHM, "options": ["rbind", "rprivate"]}
    return [bound if entry["destination"] == SHM else entry for entry in mounts]


# %% notebooks/14b_documents.ipynb#cgroup-parent
def cgroup_path(container_id: str, host: dict[str, Any]) -> str:
    """Return where a container's control group is: below ours, or below --cgroup-parent, never outside."""
    parent = posixpath.normpath("/" + (host.get("CgroupParent") or "/mini_docker").lstrip("/"))
    return f"{parent.rstrip('/')}/{container_id}"
