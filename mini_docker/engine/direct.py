# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#direct-module
"""A container that the command itself looks after: no daemon, no shim, the user's own streams."""

from __future__ import annotations

import os
import time
from collections import namedtuple

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine.launch import (
    EXITED,
    RUNNING,
    Done,
    Launch,
    cgroup_of,
    clean,
    forget,
    new_record,
    shielded,
    unpack_layers,
    wiring_of,
)
from mini_docker.engine.names import valid_name
from mini_docker.engine.networks import network_mode
from mini_docker.engine.privileges import kept_program
from mini_docker.engine.store import Claim, Conflict, Store
from mini_docker.namespaces.net import new_netns
from mini_docker.runtime.console import Console
from mini_docker.runtime.init import start
from mini_docker.runtime.plan import Resources, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    class Streams(NamedTuple):
        """The container's ends of its streams, ours are the others; `console` replaces all three."""

        stdin: int
        stdout: int
        stderr: int
        console: Console | None

else:
    Streams = namedtuple("Streams", ("stdin", "stdout", "stderr", "console"))


# %% notebooks/14_containers.ipynb#direct-container
class Container:
    """A container and this process's claim to look after it."""

    def __init__(self, launch: Launch, claim: Claim) -> None:
        """Hold what `Direct.create` made; nothing runs yet."""
        self.launch = launch
        self.store, self.record = launch.store, launch.record
        self.directory = launch.directory
        self.cgroup = launch.cgroup
        self.done = launch.done
        self.claim = claim
        self.pid = 0
        self.pidfd = -1
        self.finished = False

    def start(self, streams: Streams) -> None:
        """Start the container's command on `streams`. Raises StartError, ImageError, OSError, ValueError."""
        ready = self.launch.outside(connect)
        try:
            stdio = streams[:3] if streams.console is None else None
            enter = self.cgroup.plan_enter(born_inside=ready.cgroup_fd is not None)
            program = kept_program(self.store.root, ready.spec)
            resources = Resources(enter, ready.rootfs_fd, stdio, streams.console, seccomp=program)
            planned = plan(ready.spec, resources)
            process = start(ready.spec, [item.step for item in planned], ready.cgroup_fd)
        finally:
            for fd in ready[1:]:
                if fd is not None:
                    os.close(fd)
        self.pid, self.pidfd = process.pid, process.pidfd
        self.done += map(Done, ["init"] * len(planned), planned, process.times)
        self._set_state(RUNNING, pid=process.pid)

    def _set_state(self, status: str, pid: int = 0, exit_code: int = 0) -> None:
        state = {"Status": status, "Pid": pid, "ExitCode": exit_code, "At": time.time()}
        self.record["State"] = state
        if not self.record["HostConfig"]["AutoRemove"]:
            self.store.write(self.record)

    def finish(self, exit_code: int, keep: bool) -> None:
        """Clean up after the container: processes, control group, address, and, unless `keep`, its files.

        Defined by its result: repeating it, or having another process do it, comes to the same.
        """
        if self.finished:
            return
        self.finished = True
        with shielded():
            self.cgroup.kill()
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1
            clean(self.store, self.record["Id"], self.cgroup)
            if keep:
                self._set_state(EXITED, exit_code=exit_code)
            else:
                forget(self.store, self.record["Id"], self.record["Name"])
            self.claim.release()


def connect(launch: Launch, spec: dict[str, Any]) -> int | None:
    """Give the container its networks; return the network namespace to keep until init has joined it."""
    launch.wiring.join(launch.record, spec)
    if network_mode(launch.record["HostConfig"]) in ("host", "none"):
        return launch.wiring.attach(launch.record, new_netns)
    netns_fd = launch.step(
        "connect it to its networks", launch.wiring.attach, launch.record, new_netns
    )
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "network" and netns_fd is not None:
            namespace["path"] = f"/proc/self/fd/{netns_fd}"
    return netns_fd


# %% notebooks/14_containers.ipynb#direct-engine
class Direct:
    """The containers of a data root, for a command that has no daemon."""

    def __init__(self, root: str) -> None:
        """Open the data root and clean up after processes that died. Raises OSError."""
        self.store = Store(root)
        self.recover()

    def recover(self) -> list[str]:
        """Clean what dead processes left: kill, remove, and keep what was not meant to be removed."""
        recovered = []
        for container_id, claim in self.store.abandoned():
            with shielded():
                clean(self.store, container_id, cgroup_of(container_id))
                record = self.store.read(container_id)
                if record is None or record["HostConfig"]["AutoRemove"]:
                    forget(self.store, container_id, record["Name"] if record else None)
                else:
                    code = (self.store.read_exit(container_id) or {}).get("ExitCode", 137)
                    at = time.time()
                    record["State"] = {"Status": EXITED, "Pid": 0, "ExitCode": code, "At": at}
                    self.store.write(record)
                claim.release()
            recovered.append(container_id)
        return recovered

    def create(self, request: dict[str, Any], name: str | None = None) -> Container:
        """Create a container from the body of Docker's POST /containers/create.

        Raises NoSuchImage, Conflict, InvalidRequest (a bad name), OSError; nothing is half made then.
        """
        image = self.store.layout.image(request["Image"])
        container_id = os.urandom(32).hex()
        wanted = valid_name(name) if name else ""
        record = new_record(request, image, container_id)
        wiring = wiring_of(self.store)
        unpack_layers(self.store, image)
        record |= wiring.create(request, record["ImageConfig"])
        with shielded(), self.store.lock():
            claim = self.store.claim(container_id)
            try:
                record["Name"] = self.store.claim_name(wanted, container_id)
            except BaseException:
                claim.release()
                raise
        container = Container(Launch(self.store, record, wiring), claim)
        try:
            os.mkdir(container.directory, 0o710)
            self.store.write(record)
        except BaseException:
            container.finish(0, keep=False)
            raise
        return container

    def find(self, reference: str) -> dict[str, Any]:
        """Return the record of a container, as `Store.find` does."""
        return self.store.find(reference)

    def remove(self, reference: str, force: bool = False) -> str:
        """Remove a container, a running one only by `force`; return its id.

        Raises NoSuchContainer, Conflict.
        """
        record = self.find(reference)
        container_id: str = record["Id"]
        if container_id in self.store.running():
            if not force:
                raise Conflict(
                    f"You cannot remove a running container {container_id}. "
                    "Stop the container before attempting removal or force remove"
                )
            self._stop_the_keeper(container_id)
        forget(self.store, container_id, record["Name"])
        return container_id

    def _stop_the_keeper(self, container_id: str) -> None:
        """Kill a running container and wait until the process that looks after it has cleaned up."""
        cgroup_of(container_id).kill()
        deadline = time.monotonic() + 10
        while container_id in self.store.running():
            self.recover()
            if time.monotonic() > deadline:
                raise Conflict(f"container {container_id} is being looked after and does not end")
            time.sleep(0.01)

    def reset(self) -> list[str]:
        """Remove every container, bridge, table and control group of this data root; images stay.

        Returns what was removed, as lines for the user; repeating it removes nothing.
        """
        removed = [f"recovered container {container_id[:12]}" for container_id in self.recover()]
        for record in list(self.store.records()):
            self.remove(record["Id"], force=True)
            removed.append(f"container {record['Name']}")
        for container_id in self.store.ids():
            forget(self.store, container_id, None)
            removed.append(f"half-made container {container_id[:12]}")
        removed += wiring_of(self.store).networks.reset()
        for directory in Cgroup(hierarchies(), "/mini_docker").directories.values():
            try:
                os.rmdir(directory)
                removed.append(f"control group {directory}")
            except OSError:
                continue  # not there, or in use by the containers of another data root
        return removed
