# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#upkeep-module
"""Upkeep of a data root, with or without a daemon: recover, remove, set up, reset. A program as well."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine.launch import EXITED, cgroup_of, clean, forget, shielded, wiring_of
from mini_docker.engine.store import DEFAULT_ROOT, Conflict, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


# %% notebooks/14_containers.ipynb#recover
NAME = b"mini_dockerd"  # of the daemon's process, as in ps(1)
PATIENCE = 10.0  # seconds that a keeper or a daemon has to end


def recover(store: Store) -> list[str]:
    """Clean what dead processes left: kill, remove, and keep what was not meant to be removed."""
    recovered = []
    for container_id, claim in store.abandoned():
        with shielded():
            clean(store, container_id, cgroup_of(container_id))
            record = store.read(container_id)
            if record is None or record["HostConfig"]["AutoRemove"]:
                forget(store, container_id, record["Name"] if record else None)
            else:
                code = (store.read_exit(container_id) or {}).get("ExitCode", 137)
                state = {"Status": EXITED, "Pid": 0, "ExitCode": code, "At": time.time()}
                store.write({**record, "State": state})
            claim.release()
        recovered.append(container_id)
    return recovered


def remove(store: Store, reference: str, force: bool = False) -> str:
    """Remove a container, a running one only by `force`; return its id.

    Raises NoSuchContainer, Conflict.
    """
    record = store.find(reference)
    container_id: str = record["Id"]
    if container_id in store.running():
        if not force:
            raise Conflict(
                f"You cannot remove a running container {container_id}. "
                "Stop the container before attempting removal or force remove"
            )
        _stop_the_keeper(store, container_id)
    forget(store, container_id, record["Name"])
    return container_id


def _stop_the_keeper(store: Store, container_id: str) -> None:
    """Kill a running container, wait until the process that looks after it has ended, and clean up."""
    cgroup_of(container_id).kill()
    deadline = time.monotonic() + PATIENCE
    while container_id in store.running():
        recover(store)
        if time.monotonic() > deadline:
            raise Conflict(f"container {container_id} is being looked after and does not end")
        time.sleep(0.01)


# %% notebooks/14_containers.ipynb#serving
def serve(root: str, patience: float = 0.0) -> int:
    """Return a descriptor that says: this process is the daemon of the data root; its number is inside.

    Raises BlockingIOError where another still is after `patience` seconds.
    """
    fd = os.open(f"{root}/daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock_soon(fd, patience)
    except BaseException:
        os.close(fd)
        raise
    os.pwrite(fd, f"{os.getpid():<20}\n".encode(), 0)
    return fd


def _lock_soon(fd: int, patience: float) -> None:
    """Lock a file within `patience` seconds, flock(2). Raises BlockingIOError."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def end_daemon(root: str) -> int:
    """End the daemon of a data root, its containers run on; return its pid, 0 where there was none.

    Only a process that holds the lock is sent a signal: a number in a file may be anybody's by now.
    """
    try:
        fd = os.open(f"{root}/daemon.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        _lock_soon(fd, 0)
        return 0
    except BlockingIOError:
        pid = int(os.pread(fd, 20, 0))
        if _name_of(pid) == NAME:
            os.kill(pid, signal.SIGTERM)
        _lock_soon(fd, PATIENCE)
        return pid
    finally:
        os.close(fd)


def _name_of(pid: int) -> bytes:
    """Return a process's name, proc_pid_comm(5); b"" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, before it was read
        return b""


# %% notebooks/14_containers.ipynb#reset
def reset(root: str) -> list[str]:
    """End the daemon of a data root, remove its containers, networks, control groups; images stay.

    Returns what was removed, as lines for the user; repeating it removes nothing.
    """
    removed = []
    for one in [*remapped_roots(root), os.path.abspath(root)]:
        removed += _reset(Store(one))
    for directory in Cgroup(hierarchies(), "/mini_docker").directories.values():
        try:
            os.rmdir(directory)
            removed.append(f"control group {directory}")
        except OSError:
            continue  # not there, or in use by the containers of another data root
    return removed


def remapped_roots(root: str) -> list[str]:
    """Return the data roots below a data root that daemons with --userns-remap have, DATA_ROOT/UID.GID."""
    names = os.listdir(root) if os.path.isdir(root) else []
    return [f"{os.path.abspath(root)}/{name}" for name in names if name.replace(".", "").isdigit()]


def _reset(store: Store) -> list[str]:
    pid = end_daemon(store.root)
    removed = [f"daemon (process {pid})"] if pid else []
    removed += [f"recovered container {container_id[:12]}" for container_id in recover(store)]
    for record in list(store.records()):
        remove(store, record["Id"], force=True)
        removed.append(f"container {record['Name']}")
    for container_id in store.ids():
        forget(store, container_id, None)
        removed.append(f"half-made container {container_id[:12]}")
    return removed + wiring_of(store).networks.reset()


def setup(root: str) -> str:
    """Make the embedded image, and unpack it, so that the first run is as fast as the second.

    Returns its digest. Raises ImageError, OSError.
    """
    from mini_docker.images.busybox import install_busybox
    from mini_docker.images.layers import unpack_layer

    store = Store(root)
    with store.lock():
        install_busybox(store.layout)
        image = store.layout.image("busybox")
        for layer, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
            unpack_layer(store.layout, layer, diff_id, f"{store.root}/layers")
    return str(image.digest)


def main(words: Sequence[str]) -> int:
    """Run `setup [DATA_ROOT]` or `reset [DATA_ROOT]`; return the exit status."""
    from mini_docker.images.layout import ImageError

    action, root = words[0], (words[1] if len(words) > 1 else "") or DEFAULT_ROOT
    if os.geteuid() != 0:
        print(f"mini_docker: only root may; remedy: sudo mini_docker {action}", file=sys.stderr)
        return 1
    os.umask(0o022)
    try:
        if action == "setup":
            print(f"image busybox:latest is ready in {root} ({setup(root)[7:19]})")
        else:
            lines = [f"removed {line}\n" for line in reset(root)]
            print("".join(lines) or "nothing to remove\n", end="")
    except (ImageError, Conflict, OSError) as error:
        where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        print(f"mini_docker: {text}{where}", file=sys.stderr)
        return 1
    return 0
