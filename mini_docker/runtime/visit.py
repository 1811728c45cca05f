# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#visit-module
"""exec as a command: from its words to a process object, and into the container."""

from __future__ import annotations

import os
from collections import namedtuple

from mini_docker.cgroups.tree import hierarchies
from mini_docker.linux.step import Step
from mini_docker.runtime.console import Console
from mini_docker.runtime.enter import enter
from mini_docker.runtime.init import Process
from mini_docker.runtime.lifecycle import open_init, state_bytes, status_of
from mini_docker.runtime.plan import Resources
from mini_docker.runtime.state import CREATED, RUNNING, RuntimeFailure, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NamedTuple

    class Change(NamedTuple):
        """How a visitor differs from the container's own process; what is empty stays as it is there."""

        args: Sequence[str]
        env: Sequence[str] = ()
        cwd: str = ""
        user: str = ""
        additional_gids: Sequence[str] = ()
        capabilities: Sequence[str] = ()
        terminal: bool = False
        no_new_privileges: bool = False
        apparmor: str = ""
        label: str = ""

else:
    Change = namedtuple(
        "Change",
        (
            "args",
            "env",
            "cwd",
            "user",
            "additional_gids",
            "capabilities",
            "terminal",
            "no_new_privileges",
            "apparmor",
            "label",
        ),
        defaults=((), "", "", (), (), False, False, "", ""),
    )


# %% notebooks/11e_mini_runc.ipynb#process-object
def process_object(spec: dict[str, Any], change: Change) -> dict[str, Any]:
    """Return the OCI process object of a visitor. Pure. Raises RuntimeFailure for a user not in numbers."""
    process = {**spec["process"], "args": list(change.args), "terminal": change.terminal}
    process["env"] = [*(process.get("env") or ()), *change.env]
    user = {**(process.get("user") or {})}
    if change.user:
        uid, _, gid = change.user.partition(":")
        if not (uid.isdigit() and (gid or "0").isdigit()):
            raise RuntimeFailure(f"--user {change.user}: not uid[:gid] in numbers")
        user = {"uid": int(uid), "gid": int(gid or 0)}
    if change.additional_gids:
        user["additionalGids"] = [int(gid) for gid in change.additional_gids]
    if change.capabilities:
        sets = process.get("capabilities") or {}
        process["capabilities"] = {
            name: sorted({*(sets.get(name) or ()), *change.capabilities})
            for name in ("bounding", "effective", "permitted")
        }
    process["user"] = user
    for key, value in (
        ("cwd", change.cwd),
        ("noNewPrivileges", change.no_new_privileges),
        ("apparmorProfile", change.apparmor),
        ("selinuxLabel", change.label),
    ):
        if value:
            process[key] = value
    return process


# %% notebooks/11e_mini_runc.ipynb#group-of
def enter_group(directory: str) -> None:
    """Move the caller, of one thread, into the v1 group at `directory`, cgroups(7). Raises OSError."""
    fd = os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def group_of(pid: int) -> tuple[list[Step], int | None]:
    """Return the steps into the control groups of `pid`, and a descriptor of its v2 group to be born in.

    Trees in which it is where we are need no step. Source: /proc/PID/cgroup of cgroups(7).
    """
    mounts = hierarchies().mounts
    ours, theirs = _groups("self"), _groups(str(pid))
    steps, unified_fd = [], None
    for names, path in theirs.items():
        mount = mounts.get(names.split(",")[0].removeprefix("name="))
        if mount is None or ours.get(names) == path:
            continue
        directory = (mount + path).rstrip("/")
        if names:
            steps.append(Step(f"enter control group {directory}", enter_group, (directory,)))
        else:
            unified_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return steps, unified_fd


def _groups(pid: str) -> dict[str, str]:
    """Return {controllers: path} of a process; the v2 tree has no controllers in that file."""
    with open(f"/proc/{pid}/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    return {names: path for _, names, path in lines}


# %% notebooks/11e_mini_runc.ipynb#visit
def visit(
    store: Store,
    container_id: str,
    process: dict[str, Any],
    console: Console | None = None,
    detached: bool = False,
    preserve_fds: int = 0,
) -> Process:
    """Start a process object in a running container. Raises RuntimeFailure, StartError, OSError."""
    record = store.read(container_id)
    status = status_of(store, record)
    if status not in (CREATED, RUNNING):
        raise RuntimeFailure(f"cannot exec in a {status} container")
    spec = store.document(container_id)
    pidfd = open_init(record)
    if pidfd is None:
        raise RuntimeFailure("cannot exec in a stopped container")
    cgroup_fd: int | None = None
    try:
        steps, cgroup_fd = group_of(record["pid"])
        resources = Resources(
            steps, None, None, console, None, detached, preserve_fds, rootless=os.geteuid() != 0
        )
        now = state_bytes(store, record, status)
        return enter(record["pid"], spec, process, resources, cgroup_fd, watch=lambda pid: now)
    finally:
        for fd in (pidfd, cgroup_fd, console.socket_fd if console else None):
            if fd is not None:
                os.close(fd)
