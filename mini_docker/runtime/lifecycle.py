# Exported from notebooks/11d_state.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11d_state.ipynb#lifecycle-module
"""The life of a container as commands, each a process of its own: create, start, kill, delete."""

from __future__ import annotations

import os
import select
import time
from collections import namedtuple

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.linux.process import pidfd_open, pidfd_send_signal
from mini_docker.linux.step import Step
from mini_docker.runtime.console import Console
from mini_docker.runtime.hooks import run_hooks
from mini_docker.runtime.idmap import open_idmapped
from mini_docker.runtime.init import Process, release, start
from mini_docker.runtime.jsontext import dumps
from mini_docker.runtime.listener import take_listener
from mini_docker.runtime.plan import Resources, plan
from mini_docker.runtime.state import (
    CREATED,
    CREATING,
    KEPT,
    PAUSED,
    RUNNING,
    STOPPED,
    NoSuchContainer,
    RuntimeFailure,
    Store,
    remove_directory,
    start_time,
)
from mini_docker.runtime.talk import Talk
from mini_docker.security.seccomp import cached_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

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

VERSION = "1.2.0"  # of the runtime specification
DEATH = 10  # seconds that a killed process may take to be gone
GATE = ("report", "word")
PARENT = "/mini_runc"  # of the control groups whose path the document leaves to us


# %% notebooks/11d_state.ipynb#state-object
def state(store: Store, record: Record, status: str = "") -> dict[str, Any]:
    """Return the OCI state of a container: what `state` prints and hooks get.

    Source: OCI runtime.md "State". A stopped container has no pid.
    """
    status = status or status_of(store, record)
    return {
        "ociVersion": VERSION,
        "id": record["id"],
        "status": status,
        "pid": 0 if status == STOPPED else record["pid"],
        "bundle": record["bundle"],
        "annotations": record.get("annotations") or {},
    }


def state_bytes(store: Store, record: Record, status: str) -> bytes:
    """Return the state as the JSON that a hook reads."""
    return dumps(state(store, record, status)).encode()


def status_of(store: Store, record: Record, locked: bool = False) -> str:
    """Return the status of a container: that of its init, and whether its control group is frozen."""
    status = store.status(record, locked)
    if status in (RUNNING, CREATED):
        cgroup = cgroup_of(record)
        if cgroup is not None and cgroup.is_frozen():
            return PAUSED
    return status


def cgroup_of(record: Record) -> Cgroup | None:
    """Return the control group of a container, or None if it has none of its own, or not any more."""
    try:
        if record.get("unit"):
            from mini_docker.cgroups.systemd import Scope

            return Scope.find(hierarchies(), record["unit"])
        return Cgroup.find(hierarchies(), record["cgroup"]) if record.get("cgroup") else None
    except FileNotFoundError:
        return None


def new_cgroup(record: Record) -> Cgroup:
    """Return the control group that a container is to have; nothing is made yet. Raises ValueError."""
    if record["unit"]:
        from mini_docker.cgroups.systemd import Scope

        return Scope(hierarchies(), record["unit"])
    return Cgroup(hierarchies(), record["cgroup"])


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
    unit = unit_path(container_id, spec) if request.systemd else ""
    cgroup = "" if request.systemd else cgroup_path(container_id, spec)
    lock = store.claim(container_id)
    record: Record = {
        "id": container_id,
        "pid": 0,
        "started": 0,
        "made": False,
        "bundle": request.bundle,
        "annotations": spec.get("annotations") or {},
        "unit": unit,
        "cgroup": cgroup,
        "owner": os.geteuid(),
        "created": time.time(),
    }
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


# %% notebooks/11d_state.ipynb#start
def start_container(store: Store, container_id: str) -> None:
    """Let a created container run its command; return once it runs.

    Raises RuntimeFailure for a container in another state, StartError for a refused execve. A failing
    hook of poststart stops the container. Source: OCI runtime.md "start".
    """
    lock = store.lock(container_id)
    try:
        record = store.read(container_id)
        status = store.status(record, locked=True)
        if status != CREATED:
            words = (
                "an already running container"
                if status == RUNNING
                else f"a container that is {status}"
            )
            raise RuntimeFailure(f"cannot start {words}")
        spec = store.document(container_id)
        seccomp = (spec.get("linux") or {}).get("seccomp") or {}
        hooks = spec.get("hooks") or {}
        report_fd, word_fd = _open_gate(store.directory(container_id))
        try:
            now = state_bytes(store, record, CREATED)
            release(
                word_fd,
                report_fd,
                now,
                lambda: take_listener(report_fd, record["pid"], seccomp, now),
            )
            run_hooks(hooks.get("poststart") or (), state_bytes(store, record, RUNNING))
        except OSError:
            kill_init(record)
            raise
        finally:
            os.close(report_fd)
            os.close(word_fd)
    finally:
        lock.release()


def _open_gate(directory: str) -> tuple[int, int]:
    """Open the other ends of a gate: the report first, so that not a byte of it is lost."""
    report_fd = os.open(f"{directory}/report", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(report_fd, True)
    return report_fd, os.open(f"{directory}/word", os.O_WRONLY | os.O_CLOEXEC)


# %% notebooks/11d_state.ipynb#kill
def kill(store: Store, container_id: str, number: int, every: bool = False) -> None:
    """Send a signal to a container's init, or to every process in it.

    Raises RuntimeFailure for a container that does not run, in the words that engines know. Source: OCI
    runtime.md "kill".
    """
    record = store.read(container_id)
    if store.status(record) not in (CREATED, RUNNING) and not every:
        raise RuntimeFailure("container not running")
    cgroup = cgroup_of(record)
    if every and cgroup is not None:
        for pid in cgroup.members():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return
    pidfd = open_init(record)
    if pidfd is None:
        raise RuntimeFailure("container not running")
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise RuntimeFailure("container not running") from None
    finally:
        os.close(pidfd)


def members(record: Record) -> list[int]:
    """Return the pids of all processes of a container, by its control group."""
    cgroup = cgroup_of(record)
    if cgroup is None:
        return [record["pid"]] if start_time(record["pid"]) == record["started"] else []
    return cgroup.members()


def pause(store: Store, container_id: str) -> None:
    """Freeze every process of a container. Raises RuntimeFailure, also without a control group."""
    lock = store.lock(container_id)
    try:
        record = store.read(container_id)
        status = status_of(store, record, locked=True)
        if status not in (RUNNING, CREATED):
            raise RuntimeFailure(f"cannot pause a container that is {status}")
        group_needed(record).freeze()
    finally:
        lock.release()


def resume(store: Store, container_id: str) -> None:
    """Let a paused container go on. Raises RuntimeFailure."""
    lock = store.lock(container_id)
    try:
        record = store.read(container_id)
        status = status_of(store, record, locked=True)
        if status != PAUSED:
            raise RuntimeFailure(f"cannot resume a container that is {status}, not paused")
        group_needed(record).thaw()
    finally:
        lock.release()


def group_needed(record: Record) -> Cgroup:
    """Return the control group of a container. Raises RuntimeFailure if it has none."""
    cgroup = cgroup_of(record)
    if cgroup is None:
        raise RuntimeFailure(f"container {record['id']} has no control group of its own")
    return cgroup


def open_init(record: Record) -> int | None:
    """Return a pidfd of a container's init, or None if it has ended: its pid may be somebody else's now."""
    if not record["pid"]:
        return None
    try:
        pidfd = pidfd_open(record["pid"])
    except ProcessLookupError:
        return None
    if start_time(record["pid"]) == record["started"]:
        return pidfd
    os.close(pidfd)
    return None


def kill_init(record: Record) -> None:
    """Kill a container's init and wait until it has ended. Raises RuntimeFailure if it does not."""
    pidfd = open_init(record)
    if pidfd is None:
        return
    try:
        pidfd_send_signal(pidfd, 9)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(DEATH * 1000):
            raise RuntimeFailure(f"init, process {record['pid']}, does not die")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


# %% notebooks/11d_state.ipynb#delete
def delete(store: Store, container_id: str, force: bool = False) -> None:
    """Remove a container that has stopped, or was never started; a running one only by `force`.

    With `force` a container that is not there is fine, and one half made or half removed is removed
    whole. Raises RuntimeFailure. Source: OCI runtime.md "delete".
    """
    try:
        lock = store.lock(container_id)
    except NoSuchContainer:
        if force:
            return
        raise
    try:
        record = store.read(container_id)
        status = status_of(store, record, locked=True)
        if status in (RUNNING, PAUSED) and not force:
            raise RuntimeFailure(
                f"cannot delete container {container_id} that is not stopped: {status}"
            )
        clean(store, record)
    finally:
        lock.release()


def clean(store: Store, record: Record) -> None:
    """Remove all there is of a container: processes, control group, hooks' leavings, directory.

    Each part is defined by its result: repeating it after a crash comes to the same.
    """
    cgroup = cgroup_of(record)
    if cgroup is not None and cgroup.is_frozen():
        cgroup.thaw()
    kill_init(record)
    if cgroup is not None:
        cgroup.kill()
        cgroup.remove()
        remove_parents(cgroup)
    if record["made"]:
        try:
            hooks = store.document(record["id"]).get("hooks") or {}
            run_hooks(hooks.get("poststop") or (), state_bytes(store, record, STOPPED))
        except NoSuchContainer:
            pass  # a removal that was killed had come so far
        except OSError as error:
            os.write(2, f"mini_runc: warning: poststop {error.strerror}\n".encode())
    remove_directory(store.directory(record["id"]))


def remove_parents(cgroup: Cgroup) -> None:
    """Remove our own parent of control groups, if this was the last one below it."""
    for directory in cgroup.directories.values():
        parent = os.path.dirname(directory)
        if parent.endswith(PARENT):
            try:
                os.rmdir(parent)
            except OSError:
                continue  # in use, or gone
