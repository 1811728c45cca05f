# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#launch-module
"""All that is done outside before a container's first process is cloned, in one order for everybody."""

from __future__ import annotations

import os
import signal
import time
from collections import namedtuple

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine.document import (
    InvalidRequest,
    check_host_config,
    command,
    document,
    resources,
)
from mini_docker.engine.explain import Done, man_page
from mini_docker.engine.modes import cgroup_path, donor, share
from mini_docker.engine.remap import donors, fetch_root, remapped, root_of
from mini_docker.engine.store import Store
from mini_docker.engine.wishes import discard
from mini_docker.images.layout import full_name
from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2
from mini_docker.namespaces.user import resolve_groups, resolve_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple, TypeVar

    from mini_docker.engine.connect import Wiring
    from mini_docker.engine.zygote import Zygote
    from mini_docker.images.layout import Image
    from mini_docker.namespaces.user import User

    T = TypeVar("T")

    class Ready(NamedTuple):
        """What init needs from outside: its document, and descriptors (None for what it does not use)."""

        spec: dict[str, Any]
        rootfs_fd: int
        cgroup_fd: int | None
        netns_fd: int | None
        userns_fd: int | None = None
        shm_fd: int | None = None

else:
    Ready = namedtuple(
        "Ready",
        ("spec", "rootfs_fd", "cgroup_fd", "netns_fd", "userns_fd", "shm_fd"),
        defaults=(None, None),
    )


# %% notebooks/14_containers.ipynb#helpers
CREATED, RUNNING, EXITED = "created", "running", "exited"


class shielded:  # noqa: N801 (reads as a statement)
    """Hold back every signal that can be held back, for a clean-up that must not stop half way."""

    def __enter__(self) -> None:
        """Block the signals."""
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def __exit__(self, *_: object) -> None:
        """Let them come."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


def wiring_of(store: Store) -> Wiring:
    """Return the networks and volumes of a store, for whoever has no daemon."""
    from mini_docker.engine.connect import Wiring

    return Wiring(store.root, store.find)


def cgroup_of(container_id: str, host: dict[str, Any] | None = None) -> Cgroup:
    """Return the control group of a container with this HostConfig, whether it is there or not."""
    return Cgroup(hierarchies(), cgroup_path(container_id, host or {}))


def remove_cgroup(cgroup: Cgroup) -> None:
    """Kill what is in a group and remove it, and the parent that --cgroup-parent made, if it is empty."""
    cgroup.kill()
    cgroup.remove()
    for root, directory in cgroup.directories.items():
        parent = os.path.dirname(directory)
        if os.path.basename(parent) != "mini_docker" and parent != root:
            try:
                os.rmdir(parent)
            except OSError:  # others use it, or it is not there
                continue


def clean(store: Store, container_id: str, cgroup: Cgroup) -> None:
    """Remove what a container has outside its own directory: members, control group, network."""
    cgroup.kill()
    cgroup.remove()
    wiring_of(store).detach({"Id": container_id})  # its cables went with its network namespace


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


# %% notebooks/14_containers.ipynb#record
def new_record(request: dict[str, Any], image: Image, container_id: str) -> dict[str, Any]:
    """Return the record of a new container, from the body of Docker's POST /containers/create.

    Raises InvalidRequest. The name comes later: it must be claimed.
    """
    host = {"NetworkMode": "default", "AutoRemove": False, **(request.get("HostConfig") or {})}
    if (host["NetworkMode"] or "default") == "default":
        host |= {"NetworkMode": "bridge", "NetworkModeAsked": "default"}
    check_host_config(host, request.get("Hostname") or "")
    try:
        host, warnings = discard(host, resources(host))
    except ValueError as error:  # of the control groups' module: a number that no file takes
        raise InvalidRequest(str(error)) from None
    if host.get("Memory") and not host.get("MemorySwap"):
        host["MemorySwap"] = 2 * host["Memory"]
    config = merged(request, image.config.get("config") or {})
    config["Hostname"] = request.get("Hostname") or _hostname(host, container_id)
    check_health(config.get("Healthcheck") or {})
    for entry in config.get("Env") or ():
        if not entry or entry.startswith("="):
            raise InvalidRequest(f"invalid environment variable: {entry}")
    return {
        "Id": container_id,
        "Name": "",
        "Image": full_name(request["Image"]),
        "ImageConfig": image.config.get("config") or {},
        "Layers": [diff_id.rpartition(":")[2] for diff_id in image.config["rootfs"]["diff_ids"]],
        "Command": command(request, image.config.get("config") or {}),
        "Created": time.time(),
        "Config": config,
        "HostConfig": host,
        "State": {"Status": CREATED, "Pid": 0, "ExitCode": 0},
        "Warnings": warnings,
    }


def check_health(wanted: dict[str, Any]) -> None:
    """Refuse times of a health check that are shorter than a millisecond; 0 is the default's sign.

    Raises InvalidRequest.
    """
    for key in ("Interval", "Timeout", "StartPeriod"):
        if wanted.get(key) and wanted[key] < 1_000_000:
            raise InvalidRequest(f"{key} in Healthcheck cannot be less than 1ms")
    if (wanted.get("Retries") or 0) < 0:
        raise InvalidRequest("Retries in Healthcheck cannot be negative")


NOT_CONFIG = ("HostConfig", "NetworkingConfig", "Name", "name")


def merged(request: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a container: the request's, and what it leaves to its image."""
    config = {key: value for key, value in request.items() if key not in NOT_CONFIG}
    if config.get("Entrypoint") is None:
        config["Entrypoint"] = image.get("Entrypoint")
        config["Cmd"] = config.get("Cmd") or image.get("Cmd")
    elif config["Entrypoint"] == [""]:
        config["Entrypoint"] = None
    for key in ("User", "WorkingDir", "StopSignal", "Healthcheck"):
        if not config.get(key) and image.get(key):
            config[key] = image[key]
    for key in ("Labels", "ExposedPorts", "Volumes"):
        config[key] = {**(image.get(key) or {}), **(config.get(key) or {})}
    config["Volumes"] = config["Volumes"] or None
    given = [entry.partition("=")[0] for entry in config.get("Env") or ()]
    inherited = [entry for entry in image.get("Env") or () if entry.partition("=")[0] not in given]
    config["Env"] = [*(config.get("Env") or ()), *inherited]
    return config


def _hostname(host: dict[str, Any], container_id: str) -> str:
    """Docker's choice: the short id, or the host's own name with the host's network."""
    return os.uname().nodename if host["NetworkMode"] == "host" else container_id[:12]


def unpack_layers(store: Store, image: Image) -> None:
    """Have each layer of an image as a directory; those that are there already cost nothing.

    Raises ImageError, OSError.
    """
    for layer, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
        if not os.path.isdir(f"{store.root}/layers/{diff_id.rpartition(':')[2]}"):
            from mini_docker.images.layers import unpack_layer

            unpack_layer(store.layout, layer, diff_id, f"{store.root}/layers")


# %% notebooks/14_containers.ipynb#files
def read_in(root_fd: int, path: str) -> str:
    """Return the text of a file of the image, resolved inside its root; "" where there is none."""
    try:
        fd = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, RESOLVE_IN_ROOT)
    except OSError:
        return ""
    with open(fd, errors="surrogateescape") as file:
        return file.read(1 << 20)


def look_up_user(root_fd: int, text: str, more_groups: Sequence[str] = ()) -> User:
    """Return the user that `text` means in the root file system behind `root_fd`, and in more groups.

    Raises ValueError.
    """
    passwd, group = (read_in(root_fd, f"etc/{name}") for name in ("passwd", "group"))
    user = resolve_user(text, passwd, group)
    groups = (*user.additional_gids, *resolve_groups(more_groups, group))
    return user._replace(additional_gids=tuple(dict.fromkeys(groups)))


# %% notebooks/14_containers.ipynb#launch
class Launch:
    """The start of one container, outside: each thing that is made is a line of `done`."""

    def __init__(
        self,
        store: Store,
        record: dict[str, Any],
        wiring: Wiring,
        everywhere: bool = False,
        zygote: Zygote | None = None,
    ) -> None:
        """Hold what is known; nothing is made yet.

        `everywhere` wants the control group in all trees: for who measures and freezes. The `zygote` makes
        user namespaces, for records that have IDMappings.
        """
        self.store = store
        self.record = record
        self.wiring = wiring
        self.directory = store.directory(record["Id"])
        self.cgroup = cgroup_of(record["Id"], record["HostConfig"])
        self.everywhere = everywhere
        self.zygote = zygote
        self.userns_fd: int | None = None
        self.done: list[Done] = []

    def outside(self, connect: Callable[[Launch, dict[str, Any]], int | None]) -> Ready:
        """Make all that init needs from outside. Raises ImageError, OSError, ValueError.

        `connect(self, spec)` gives the container its network and returns the network namespace, if it
        made one. The caller closes the descriptors.
        """
        made: list[int | None] = []
        try:
            self.userns_fd = self._open_userns()
            made.append(self.userns_fd)
            rootfs_fd = self._open_root()
            made.append(rootfs_fd)
            spec = self._document(rootfs_fd)
            limits = spec["linux"]["resources"]
            self.step("make the control group", self.cgroup.create, limits, self.everywhere)
            cgroup_fd = self.cgroup.open_unified()
            made.append(cgroup_fd)
            shm_fd = self._open_shm()
            made.append(shm_fd)
            netns_fd = connect(self, spec)
            self._write_files(spec)
        except BaseException:
            for fd in made:
                if fd is not None:
                    os.close(fd)
            raise
        return Ready(spec, rootfs_fd, cgroup_fd, netns_fd, self.userns_fd, shm_fd)

    def _open_userns(self) -> int | None:
        """Return a user namespace with the record's mappings: a new one, or the one of who shares another."""
        mappings = self.record.get("IDMappings")
        if not mappings or self.zygote is None:
            return None
        for other in donors(self.record, self.wiring.find):
            path = f"/proc/{other['State'].get('Pid') or 0}/ns/user"
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self.zygote.errand("userns", mappings)

    def _open_root(self) -> int:
        roots = self.store.roots
        root = roots.plan(self.record)
        if self.userns_fd is None or self.zygote is None:
            return self.step("stack the layers", roots.opener, root)
        return fetch_root(self.zygote, root, root_of(self.record), self.userns_fd)

    def step(self, name: str, call: Callable[..., T], *arguments: Any) -> T:
        """Do one thing in the parent, and note it as a step with its time."""
        began = time.perf_counter_ns()
        result = call(*arguments)
        spent = time.perf_counter_ns() - began
        self.done.append(Done("outside", call.__module__, name, man_page(call), spent))
        return result

    def _document(self, rootfs_fd: int) -> dict[str, Any]:
        """Return the OCI document; the user is looked up in the image's own /etc/passwd."""
        image_config = self.record["ImageConfig"]
        self.record["Config"] |= self.wiring.shared_names(self.record["HostConfig"])
        name = self.record["Config"].get("User") or image_config.get("User") or ""
        groups = self.record["HostConfig"].get("GroupAdd") or ()
        user = look_up_user(rootfs_fd, name, groups)
        volumes = self.wiring.mounts(self.record, rootfs_fd)
        request = {**self.record["Config"], "HostConfig": self.record["HostConfig"]}
        request["VolumeMounts"] = volumes
        spec = document(request, image_config, self.record["Id"], self.directory, user)
        return share(remapped(spec, self.record), self.record["HostConfig"], self.wiring.find)

    def _open_shm(self) -> int | None:
        """Return a copy of the /dev/shm of the container whose IPC this one shares, if it shares one's."""
        other = donor(self.record["HostConfig"], "IpcMode", self.wiring.find)
        if other is None or self.zygote is None:
            return None
        path = f"/proc/{other['State']['Pid']}/ns/mnt"
        mntns_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.zygote.errand("mount", {"path": "/dev/shm"}, mntns_fd)
        finally:
            os.close(mntns_fd)

    def _write_files(self, spec: dict[str, Any]) -> None:
        """Write the files that Docker binds over the image's: hostname, hosts, resolv.conf."""
        for name, content in self.wiring.files(
            self.record, self.record["Config"]["Hostname"]
        ).items():
            with open(f"{self.directory}/{name}", "w") as file:
                file.write(content)
                os.fchown(file.fileno(), *root_of(self.record))
        linked = self.wiring.link_variables(self.record)
        own = {text.partition("=")[0] for text in spec["process"]["env"]}
        spec["process"]["env"] += [text for text in linked if text.partition("=")[0] not in own]
