# Exported from notebooks/11d_state.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11d_state.ipynb#lifecycle-module
"""The life of a container that was created, each command a process of its own: start, kill, delete."""

from __future__ import annotations

import os
import select

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.linux.process import pidfd_open, pidfd_send_signal
from mini_docker.runtime.hooks import run_hooks
from mini_docker.runtime.init import release
from mini_docker.runtime.jsontext import dumps
from mini_docker.runtime.listener import take_listener
from mini_docker.runtime.state import (
    CREATED,
    PAUSED,
    RUNNING,
    STOPPED,
    NoSuchContainer,
    RuntimeFailure,
    Store,
    remove_directory,
    start_time,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.runtime.state import Record

VERSION = "1.2.0"  # of the runtime specification
DEATH = 10  # seconds that a killed process may take to be gone
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
