# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#containers-module
"""Containers: created from an image, started by the runtime, cleaned up whatever happened to whom."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections import namedtuple

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine.document import command, document
from mini_docker.engine.names import random_name, valid_name
from mini_docker.engine.store import DEFAULT_ROOT, Claim, Store
from mini_docker.images.layout import Image, full_name
from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2
from mini_docker.linux.step import Step
from mini_docker.namespaces.user import resolve_user
from mini_docker.runtime.console import Console
from mini_docker.runtime.init import start
from mini_docker.runtime.plan import Planned, Resources, plan
from mini_docker.storage.overlay import open_overlay, plan_overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple, TypeVar

    from mini_docker.engine.bridge import BridgeNetwork
    from mini_docker.namespaces.user import User

    T = TypeVar("T")

    class Done(NamedTuple):
        """One line of --explain: where ("outside" or "init"), what was planned by whom, nanoseconds."""

        where: str
        planned: Planned
        nanoseconds: int

    class Streams(NamedTuple):
        """The container's ends of its streams, ours are the others; `console` replaces all three."""

        stdin: int
        stdout: int
        stderr: int
        console: Console | None

else:
    Done = namedtuple("Done", ("where", "planned", "nanoseconds"))
    Streams = namedtuple("Streams", ("stdin", "stdout", "stderr", "console"))


# %% notebooks/14_containers.ipynb#errors
CREATED, RUNNING, EXITED = "created", "running", "exited"


class Conflict(Exception):
    """A name or an operation that another container stands in the way of."""


class NoSuchContainer(Exception):
    """No container of that id or name."""


# %% notebooks/14_containers.ipynb#helpers
class shielded:  # noqa: N801 (reads as a statement)
    """Hold back every signal that can be held back, for a clean-up that must not stop half way."""

    def __enter__(self) -> None:
        """Block the signals."""
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def __exit__(self, *_: object) -> None:
        """Let them come."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


def bridge_network(store: Store) -> BridgeNetwork:
    """Return the default network of a store: another data root has another bridge, table and subnet."""
    from mini_docker.engine.bridge import BridgeNetwork

    if store.root == DEFAULT_ROOT:
        return BridgeNetwork()
    number = f"{zlib.crc32(store.root.encode()):08x}"
    return BridgeNetwork(f"md-{number}", None, f"mini_docker_{number}")


def clean(store: Store, container_id: str, cgroup: Cgroup) -> None:
    """Remove what a container has outside its own directory: members, control group, network."""
    cgroup.kill()
    cgroup.remove()
    if os.path.isdir(f"{store.root}/network/leases"):
        # its cable went with its network namespace
        bridge_network(store).release(container_id, f"{store.root}/network")


def forget(store: Store, container_id: str, name: str | None) -> None:
    """Remove a container's files and its name."""
    names = f"{store.root}/names"
    for entry in [name] if name else os.listdir(names):
        try:
            if os.readlink(f"{names}/{entry}") == container_id:
                os.unlink(f"{names}/{entry}")
        except FileNotFoundError:
            continue
    store.remove(container_id)


# %% notebooks/14_containers.ipynb#files
def _read_in(root_fd: int, path: str) -> str:
    """Return the text of a file of the image, resolved inside its root; "" where there is none."""
    try:
        fd = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_IN_ROOT)
    except OSError:
        return ""
    with open(fd, errors="surrogateescape") as file:
        return file.read(1 << 20)


def _ensure_source(path: str) -> None:
    """Make the directory of a volume where nothing is there yet, as Docker's -v does."""
    if not os.path.exists(path):
        os.makedirs(path, exist_ok=True)


def _host_file(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


# %% notebooks/14_containers.ipynb#container
class Container:
    """A container and this process's claim to look after it."""

    def __init__(self, store: Store, record: dict[str, Any], image: Image, claim: Claim) -> None:
        """Hold what `Engine.create` made; nothing runs yet."""
        self.store = store
        self.record = record
        self.image = image
        self.claim = claim
        self.directory = store.directory(record["Id"])
        self.cgroup = Cgroup(hierarchies(), f"/mini_docker/{record['Id']}")
        self.done: list[Done] = []
        self.pid = 0
        self.pidfd = -1
        self.finished = False

    def start(self, streams: Streams) -> None:
        """Start the container's command on `streams`. Raises StartError, ImageError, OSError, ValueError."""
        rootfs_fd = self._outside("stack the layers", open_overlay, self._overlay())
        cgroup_fd: int | None = None
        netns_fd: int | None = None
        try:
            spec = self._document(rootfs_fd)
            resources = spec["linux"]["resources"]
            self._outside("make the control group", self.cgroup.create, resources)
            cgroup_fd = self.cgroup.open_unified()
            netns_fd = self._connect(spec)
            self._write_files(spec)
            stdio = streams[:3] if streams.console is None else None
            enter = self.cgroup.plan_enter(born_inside=cgroup_fd is not None)
            planned = plan(spec, Resources(enter, rootfs_fd, stdio, streams.console))
            process = start(spec, [item.step for item in planned], cgroup_fd)
        finally:
            for fd in (rootfs_fd, cgroup_fd, netns_fd):
                if fd is not None:
                    os.close(fd)
        self.pid, self.pidfd = process.pid, process.pidfd
        self.done += map(Done, ["init"] * len(planned), planned, process.times)
        self._set_state(RUNNING, pid=process.pid)

    def _outside(self, name: str, call: Callable[..., T], *arguments: Any) -> T:
        """Do one thing in the parent, and note it as a step with its time."""
        began = time.perf_counter_ns()
        result = call(*arguments)
        planned = Planned(call.__module__, Step(name, call, arguments))
        self.done.append(Done("outside", planned, time.perf_counter_ns() - began))
        return result

    def _overlay(self) -> Any:
        layers = self._layers()
        for name in ("upper", "work", "rootfs"):
            os.mkdir(f"{self.directory}/{name}")
        return plan_overlay(layers, self.directory, self.record["HostConfig"]["AutoRemove"])

    def _layers(self) -> list[str]:
        """Return the directories of the image's unpacked layers; unpack those that are not there yet."""
        paths = []
        diff_ids = self.image.config["rootfs"]["diff_ids"]
        for layer, diff_id in zip(self.image.layers, diff_ids, strict=True):
            path = f"{self.store.root}/layers/{diff_id.rpartition(':')[2]}"
            if not os.path.isdir(path):
                from mini_docker.images.unpack import unpack_layer

                unpack_layer(self.store.layout, layer, diff_id, f"{self.store.root}/layers")
            paths.append(path)
        return paths

    def _document(self, rootfs_fd: int) -> dict[str, Any]:
        """Return the OCI document; the user is looked up in the image's own /etc/passwd."""
        image_config = self.image.config.get("config") or {}
        user = self._user(
            rootfs_fd, self.record["Config"].get("User") or image_config.get("User") or ""
        )
        request = {**self.record["Config"], "HostConfig": self.record["HostConfig"]}
        for bind in request["HostConfig"].get("Binds") or ():
            source = bind.partition(":")[0]
            if source.startswith("/"):
                _ensure_source(source)
        return document(request, image_config, self.record["Id"], self.directory, user)

    @staticmethod
    def _user(rootfs_fd: int, text: str) -> User:
        passwd, group = (_read_in(rootfs_fd, f"etc/{name}") for name in ("passwd", "group"))
        return resolve_user(text, passwd, group)

    def _connect(self, spec: dict[str, Any]) -> int | None:
        """Give the container its network; return the network namespace to keep until init has joined it."""
        if self.record["HostConfig"]["NetworkMode"] != "bridge":
            return None
        from mini_docker.namespaces.net import new_netns

        network, state = bridge_network(self.store), f"{self.store.root}/network"
        netns_fd: int = self._outside("make a network namespace", new_netns)
        self._outside("have the bridge ready", network.ensure, state)
        endpoint = self._outside(
            "connect it to the bridge", network.attach, netns_fd, self.record["Id"], state
        )
        self.record["NetworkSettings"] = {"IPAddress": endpoint.ip, "Gateway": endpoint.gateway}
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/self/fd/{netns_fd}"
        return netns_fd

    def _write_files(self, spec: dict[str, Any]) -> None:
        """Write the files that Docker binds over the image's: hostname, hosts, resolv.conf."""
        from mini_docker.engine.bridge import hosts_file, resolv_conf

        address = self.record.get("NetworkSettings", {}).get("IPAddress")
        host_network = self.record["HostConfig"]["NetworkMode"] == "host"
        texts = {
            "hostname": spec["hostname"] + "\n",
            "hosts": _host_file("/etc/hosts")
            if host_network
            else hosts_file(spec["hostname"], address),
            "resolv.conf": _host_file("/etc/resolv.conf")
            if host_network
            else resolv_conf(_host_file("/etc/resolv.conf")),
        }
        for name, text in texts.items():
            with open(f"{self.directory}/{name}", "w") as file:
                file.write(text)

    def _set_state(self, status: str, pid: int = 0, exit_code: int = 0) -> None:
        self.record["State"] = {
            "Status": status,
            "Pid": pid,
            "ExitCode": exit_code,
            "At": time.time(),
        }
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


# %% notebooks/14_containers.ipynb#engine
class Engine:
    """The manager of containers; it looks after those that this process started."""

    def __init__(self, root: str) -> None:
        """Open the data root and clean up after processes that died. Raises OSError."""
        self.store = Store(root)
        self.recover()

    def recover(self) -> list[str]:
        """Clean what dead processes left: kill, remove, and keep what was not meant to be removed."""
        recovered = []
        for container_id, claim in self.store.abandoned():
            with shielded():
                clean(
                    self.store, container_id, Cgroup(hierarchies(), f"/mini_docker/{container_id}")
                )
                record = self.store.read(container_id)
                if record is None or record["HostConfig"]["AutoRemove"]:
                    forget(self.store, container_id, record["Name"] if record else None)
                else:
                    record["State"] = {
                        "Status": EXITED,
                        "Pid": 0,
                        "ExitCode": 137,
                        "At": time.time(),
                    }
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
        record: dict[str, Any] = {
            "Id": container_id,
            "Name": valid_name(name) if name else "",
            "Image": full_name(request["Image"]),
            "Command": command(request, image.config.get("config") or {}),
            "Created": time.time(),
            "Config": {k: v for k, v in request.items() if k != "HostConfig"},
            "HostConfig": {
                "NetworkMode": "bridge",
                "AutoRemove": False,
                **request.get("HostConfig", {}),
            },
            "State": {"Status": CREATED, "Pid": 0, "ExitCode": 0},
        }
        record["Config"]["Hostname"] = request.get("Hostname") or self._hostname(record)
        with shielded(), self.store.lock():
            claim = self.store.claim(container_id)
            try:
                record["Name"] = self._claim_name(record["Name"], container_id)
            except BaseException:
                claim.release()
                raise
        container = Container(self.store, record, image, claim)
        try:
            os.mkdir(container.directory, 0o710)
            self.store.write(record)
        except BaseException:
            container.finish(0, keep=False)
            raise
        return container

    @staticmethod
    def _hostname(record: dict[str, Any]) -> str:
        """Docker's choice: the short id, or the host's own name with the host's network."""
        if record["HostConfig"]["NetworkMode"] == "host":
            return os.uname().nodename
        return str(record["Id"])[:12]

    def _claim_name(self, name: str, container_id: str) -> str:
        """Make `name` (or a random one) mean this container. Raises Conflict."""
        for retry in range(1000):
            chosen = name or random_name(retry)
            try:
                os.symlink(container_id, f"{self.store.root}/names/{chosen}")
                return chosen
            except FileExistsError:
                if not name:
                    continue
                holder = os.readlink(f"{self.store.root}/names/{name}")
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                ) from None
        raise Conflict("no free name was found; give one with --name")

    def find(self, reference: str) -> dict[str, Any]:
        """Return the record of the container with this id, name or unique start of an id.

        Raises NoSuchContainer.
        """
        records = list(self.store.records())
        for record in records:
            if reference in (record["Id"], record["Name"]):
                return record
        matches = [record for record in records if reference and record["Id"].startswith(reference)]
        if len(matches) > 1:
            raise Conflict(f"Multiple IDs found with provided prefix: {reference}")
        if not matches:
            raise NoSuchContainer(f"No such container: {reference}")
        return matches[0]

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
        Cgroup(hierarchies(), f"/mini_docker/{container_id}").kill()
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
        removed += bridge_network(self.store).reset(f"{self.store.root}/network")
        for directory in Cgroup(hierarchies(), "/mini_docker").directories.values():
            try:
                os.rmdir(directory)
                removed.append(f"control group {directory}")
            except OSError:
                continue  # not there, or in use by the containers of another data root
        return removed
