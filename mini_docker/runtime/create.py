# Exported from notebooks/11d_state.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11d_state.ipynb#create-module
"""From a document and a bundle to a container that waits for its start, or to nothing at all."""

from __future__ import annotations

import os
import time
from collections import namedtuple

from mini_docker.linux.step import Step
from mini_docker.runtime.console import Console
from mini_docker.runtime.hooks import run_hooks
from mini_docker.runtime.idmap import open_idmapped
from mini_docker.runtime.init import Process, start
from mini_docker.runtime.jsontext import dumps
from mini_docker.runtime.lifecycle import PARENT, clean, new_cgroup, state_bytes
from mini_docker.runtime.plan import Resources, plan
from mini_docker.runtime.state import CREATING, KEPT, RuntimeFailure, Store, start_time
from mini_docker.runtime.talk import Talk
from mini_docker.security.seccomp import cached_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from mini_docker.cgroups.tree import Cgroup
    from mini_docker.runtime.state import Record

    class Request(NamedTuple):
        """What create is asked beside the document: where the bundle is, and who waits for what.

        `console_socket` is the path of a Unix socket for the terminal's master, `pid_file` of a file for
        init's pid, "" for none; `preserve_fds` descriptors after 2 are passed on; see Resources for
        `pivot` and `keyring`.
        """

        bundle: str
        console_socket: str = ""
        pid_file: str = ""
        preserve_fds: int = 0
        pivot: bool = True
        keyring: bool = True
        systemd: bool = False

else:
    Request = namedtuple(
        "Request",
        ("bundle", "console_socket", "pid_file", "preserve_fds", "pivot", "keyring", "systemd"),
        defaults=("", "", 0, True, True, False),
    )

GATE = ("report", "word")


# %% notebooks/11d_state.ipynb#create
def create(
    store: Store,
    container_id: str,
    spec: dict[str, Any],
    request: Request,
    console: Console | None = None,
) -> Process:
    """Make a container that waits for its start; on any error nothing of it is left.

    The record is written before each thing that it names, so that delete finds everything a killed maker
    left. Raises RuntimeFailure, StartError, OSError, ValueError. Source: OCI runtime.md "create".
    """
    spec["root"]["path"] = root_of(spec, request.bundle)
    bind_from_bundle(spec, request.bundle)
    if console is None:
        console = open_console_socket(spec, request.console_socket)
    record = new_record(container_id, spec, request)
    lock = store.claim(container_id)
    try:
        store.write(record)
        _write_document(f"{store.directory(container_id)}/config.json", spec)
        process = _create(store, record, spec, request, console)
        record["made"] = True
        store.write(record)
        if request.pid_file:
            write_pid_file(request.pid_file, process.pid)
        return process
    except BaseException:
        clean(store, record)
        raise
    finally:
        lock.release()


def new_record(container_id: str, spec: dict[str, Any], request: Request) -> Record:
    """Return what is known of a container before anything is made. Raises ValueError for a wrong group."""
    return {
        "id": container_id,
        "pid": 0,
        "started": 0,
        "made": False,
        "bundle": request.bundle,
        "annotations": spec.get("annotations") or {},
        "unit": unit_path(container_id, spec) if request.systemd else "",
        "cgroup": "" if request.systemd else cgroup_path(container_id, spec),
        "owner": os.geteuid(),
        "created": time.time(),
    }


def _create(
    store: Store, record: Record, spec: dict[str, Any], request: Request, console: Console | None
) -> Process:
    """Make the control group and the gate, and bear init."""
    cgroup_fd: int | None = None
    gate = make_gate(store.directory(record["id"]))
    mounts: dict[int, int] = {}
    cgroup = new_cgroup(record)
    try:
        mounts = open_idmapped(spec)
        enter, cgroup_fd = _create_cgroup(cgroup, record, spec)
        seccomp = (spec.get("linux") or {}).get("seccomp")
        program = cached_program(f"{store.root}/{KEPT}", seccomp, dumps) if seccomp else None
        resources = Resources(
            enter, None, None, console, gate, True, request.preserve_fds, program,
            mounts, request.pivot, request.keyring, os.geteuid() != 0,
        )  # fmt: skip
        steps = [planned.step for planned in plan(spec, resources)]

        def watch(pid: int) -> bytes:
            if not record["pid"]:
                record.update(pid=pid, started=start_time(pid))
                store.write(record)
                return state_bytes(store, record, CREATING)
            hooks = spec["hooks"]
            now = state_bytes(store, record, CREATING)
            run_hooks([*(hooks.get("prestart") or ()), *(hooks.get("createRuntime") or ())], now)
            return now

        return start(spec, steps, cgroup_fd, watch)
    finally:
        settle(cgroup)
        for fd in (*gate, *mounts.values(), cgroup_fd, console.socket_fd if console else None):
            if fd is not None:
                os.close(fd)


def settle(cgroup: Cgroup) -> None:
    """Let the process go that keeps a scope of systemd's alive until somebody else is in it."""
    let_go = getattr(cgroup, "settle", None)
    if let_go is not None:
        let_go()


def make_gate(directory: str) -> Talk:
    """Make the two FIFOs of a gate and open them; O_RDWR does not wait for the other side, fifo(7)."""
    fds = []
    for name in GATE:
        os.mkfifo(f"{directory}/{name}", 0o600)
        fds.append(os.open(f"{directory}/{name}", os.O_RDWR | os.O_CLOEXEC))
    return Talk(*fds)


def _create_cgroup(
    cgroup: Cgroup, record: Record, spec: dict[str, Any]
) -> tuple[list[Step], int | None]:
    """Make the control group; return the steps into it and a descriptor to be born by.

    A document that says nothing of devices means the default ones, and no other. Without root, with
    nothing to limit and no path asked for, a container does without a group. Raises RuntimeFailure.
    """
    linux = spec.get("linux") or {}
    limits = linux.get("resources") or {}
    if os.geteuid() == 0:
        limits = {"devices": [], **limits}
    try:
        cgroup.create(limits, everywhere=True)  # engines read numbers of trees that limit nothing
    except PermissionError:
        if os.geteuid() == 0 or linux.get("cgroupsPath"):
            raise
        if limited := [key for key, value in limits.items() if value and key != "devices"]:
            words = "this user may make no control group"
            raise RuntimeFailure(f"linux.resources.{limited[0]}: {words}") from None
        record["cgroup"] = ""
        return [], None
    cgroup_fd = cgroup.open_unified()
    return cgroup.plan_enter(born_inside=cgroup_fd is not None), cgroup_fd


# %% notebooks/11d_state.ipynb#create-helpers
def root_of(spec: dict[str, Any], bundle: str) -> str:
    """Return the absolute path of root.path, which a relative one has in the bundle.

    Raises RuntimeFailure if there is no such directory.
    """
    path = os.path.realpath(os.path.join(bundle, spec["root"]["path"]))
    if not os.path.isdir(path):
        raise RuntimeFailure(f"root.path: no directory {path}")
    return path


def bind_from_bundle(spec: dict[str, Any], bundle: str) -> None:
    """Make the relative sources of bind mounts absolute: they lie in the bundle. Source: OCI config.md."""
    for mount in spec.get("mounts") or ():
        bound = {"bind", "rbind"}.intersection(mount.get("options") or ())
        if (bound or mount.get("type") == "bind") and mount.get("source"):
            mount["source"] = os.path.join(bundle, mount["source"])


def cgroup_path(container_id: str, spec: dict[str, Any]) -> str:
    """Return the group's path below each tree: linux.cgroupsPath, or one of our own choice.

    Raises ValueError for a path that climbs. Source: OCI config-linux.md "Control groups".
    """
    path: str = (spec.get("linux") or {}).get("cgroupsPath") or f"{PARENT}/{container_id}"
    if ".." in path.split("/"):
        raise ValueError(f"linux.cgroupsPath: '{path}' climbs with '..'")
    return "/" + path.strip("/") if path.startswith("/") else f"{PARENT}/{path.strip('/')}"


def unit_path(container_id: str, spec: dict[str, Any]) -> str:
    """Return `slice:prefix:name` of the scope: linux.cgroupsPath, or one of our own choice.

    Raises ValueError for what names no scope, before there is a record that delete could not read.
    """
    from mini_docker.cgroups.systemd import parse_unit

    path = (spec.get("linux") or {}).get("cgroupsPath") or f"system.slice:mini_runc:{container_id}"
    parse_unit(path)
    return path


def open_console_socket(spec: dict[str, Any], path: str) -> Console | None:
    """Connect to the socket that is to get the terminal's master; None for a document without one.

    Raises RuntimeFailure where only one of the two is there.
    """
    process = spec["process"]
    if not process.get("terminal"):
        if path:
            raise RuntimeFailure("cannot use console socket: process.terminal is not set")
        return None
    if not path:
        raise RuntimeFailure("cannot allocate tty: process.terminal needs --console-socket")
    import _socket

    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        end.connect(path)
    except OSError as error:
        end.close()
        raise RuntimeFailure(f"console socket {path}: {error.strerror}") from None
    size = process.get("consoleSize") or {}
    return Console(end.detach(), size.get("height", 0), size.get("width", 0))


def write_pid_file(path: str, pid: int) -> None:
    """Write the bare number, whole or not at all: engines watch for the file."""
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    with open(new, "w") as file:
        file.write(str(pid))
    os.rename(new, path)


def _write_document(path: str, spec: dict[str, Any]) -> None:
    with open(path, "w") as file:
        file.write(dumps(spec))
