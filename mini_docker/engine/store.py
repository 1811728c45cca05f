# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#store-module
"""What the engine keeps on disk, and how the next command finds what a killed one left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os

from mini_docker.engine.names import random_name
from mini_docker.engine.roots import open_roots
from mini_docker.images.layout import Layout
from mini_docker.linux.files import sweep, temporary_name, write_atomically
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


# %% notebooks/14_containers.ipynb#errors
class Conflict(Exception):
    """A name or an operation that another container, or this one's state, stands in the way of."""


class NoSuchContainer(Exception):
    """No container of that id or name."""


# %% notebooks/14_containers.ipynb#locks
class Lock:
    """An exclusive flock(2) on a file, held inside a `with` statement."""

    def __init__(self, path: str) -> None:
        """Name the file; it is made when first locked."""
        self.path = path

    def __enter__(self) -> None:
        """Wait for the lock."""
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        os.close(self.fd)


class Claim:
    """A file that is locked as long as the process lives that looks after a container.

    The descriptor closes on exec, and init's copy ends with its execve: only this process holds it.
    """

    def __init__(self, path: str) -> None:
        """Name the file; `take` makes and locks it."""
        self.path = path
        self.fd = -1

    def take(self, flags: int = 0) -> bool:
        """Lock the file without waiting; False if another process holds it or has just removed it."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return False
        self.fd = fd
        return True

    def release(self) -> None:
        """Remove the file: nothing is left to clean."""
        os.unlink(self.path)
        os.close(self.fd)


# %% notebooks/14_containers.ipynb#store
DEFAULT_ROOT = "/var/lib/mini_docker"
RECORD = "container.json"
ORDER = "order.json"
LIFE = "life.json"


# DATA ROOT
#   images/             an OCI image layout: index.json, blobs/sha256/
#   layers/HEX/         a layer, unpacked, named by its diff_id
#   containers/ID/      container.json, upper/, work/, rootfs/, hosts, hostname, resolv.conf, and of the
#                       last run order.json (the OCI document in it), life.json, shim.sock, the log
#   storage-driver      the name of the driver; btrfs/ or vfs/ has its trees (chapter 10b)
#   names/NAME          a link that says ID
#   running/ID          locked by the process that looks after the container; a lock that can be had
#                       means that process is dead, and whatever it made is to be cleaned
#   network/            leases of addresses
#   lock                held for the short moments in which names and ids are claimed


def replace_file(path: str, data: bytes) -> None:
    """Write a file whole, for readers that come at any moment, but not for those after a power cut."""
    temporary = temporary_name(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_whole(fd, data)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def write_whole(fd: int, data: bytes) -> None:
    """Write all of `data`, which a disk that is nearly full takes in part. Raises OSError (ENOSPC)."""
    while data:
        data = data[os.write(fd, data) :]


class Store:
    """The data root of one engine."""

    def __init__(self, root: str) -> None:
        """Open the data root, made where missing. Raises OSError."""
        self.root = os.path.abspath(root)
        for name in ("layers", "containers", "names", "running", "network"):
            os.makedirs(f"{self.root}/{name}", mode=0o700, exist_ok=True)
        self.layout = Layout(f"{self.root}/images")
        self.layout.create()
        self.roots = open_roots(self.root)

    def lock(self) -> Lock:
        """Return the lock of the whole store, for a `with` statement."""
        return Lock(f"{self.root}/lock")

    def directory(self, container_id: str) -> str:
        """Return where a container's files are."""
        return f"{self.root}/containers/{container_id}"

    def ids(self) -> list[str]:
        """Return the ids of all containers, running or not."""
        return sorted(os.listdir(f"{self.root}/containers"))

    def read(self, container_id: str) -> dict[str, Any] | None:
        """Return a container's record, or None for a half-made one."""
        try:
            with open(f"{self.directory(container_id)}/{RECORD}", "rb") as file:
                record: dict[str, Any] = json.loads(file.read())
                return record
        except (OSError, ValueError):
            return None

    def read_exit(self, container_id: str) -> dict[str, Any] | None:
        """Return how a container's last run ended, as its shim wrote it down.

        {"ExitCode": , "At": nanoseconds since 1970, "Lived": seconds}, or None where nobody could.
        """
        life = self._read_life(container_id)
        return life if "ExitCode" in life else None

    def read_pid(self, container_id: str) -> int:
        """Return the pid that a container's shim wrote down when it had started it, or 0."""
        return int(self._read_life(container_id).get("Pid", 0))

    def _read_life(self, container_id: str) -> dict[str, Any]:
        try:
            with open(f"{self.directory(container_id)}/{LIFE}", "rb") as file:
                life: dict[str, Any] = json.loads(file.read())
                return life
        except (OSError, ValueError):
            return {}

    def forget_run(self, container_id: str) -> None:
        """Forget the last run: its process and how it ended; nothing to forget is fine."""
        try:
            os.unlink(f"{self.directory(container_id)}/{LIFE}")
        except FileNotFoundError:
            pass

    def write(self, record: dict[str, Any]) -> None:
        """Write a container's record, whole or not at all."""
        path, data = f"{self.directory(record['Id'])}/{RECORD}", json.dumps(record).encode()
        # what goes with its end need not outlive the power; the rest is worth an fsync(2)
        temporary = record.get("HostConfig", {}).get("AutoRemove")
        replace_file(path, data) if temporary else write_atomically(path, data, 0o600)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all whole records."""
        for container_id in self.ids():
            record = self.read(container_id)
            if record is not None:
                yield record

    def find(self, reference: str) -> dict[str, Any]:
        """Return the record of the container with this id, name or unique start of an id.

        Raises NoSuchContainer, Conflict.
        """
        records = list(self.records())
        for record in records:
            if reference in (record["Id"], record["Name"]):
                return record
        matches = [record for record in records if reference and record["Id"].startswith(reference)]
        if len(matches) > 1:
            raise Conflict(f"Multiple IDs found with provided prefix: {reference}")
        if not matches:
            raise NoSuchContainer(f"No such container: {reference}")
        return matches[0]

    def claim(self, container_id: str) -> Claim:
        """Say that this process looks after the container from now on (call it under `lock`)."""
        claim = Claim(f"{self.root}/running/{container_id}")
        if not claim.take(os.O_CREAT | os.O_EXCL):
            raise BlockingIOError(errno.EBUSY, f"container {container_id} is being looked after")
        return claim

    def claim_name(self, name: str, container_id: str) -> str:
        """Make `name` (or a random one) mean this container. Raises Conflict, in Docker's words."""
        for retry in range(1000):
            chosen = name or random_name(retry)
            try:
                os.symlink(container_id, f"{self.root}/names/{chosen}")
                return chosen
            except FileExistsError:
                if not name:
                    continue
                holder = os.readlink(f"{self.root}/names/{name}")
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                ) from None
        raise Conflict("no free name was found; give one with --name")

    def release_name(self, name: str, container_id: str) -> None:
        """Make `name` free, if it means this container."""
        try:
            if os.readlink(f"{self.root}/names/{name}") == container_id:
                os.unlink(f"{self.root}/names/{name}")
        except FileNotFoundError:
            pass

    def release_claim(self, container_id: str) -> None:
        """Say that nothing of a container is left to clean; repeating it is fine."""
        try:
            os.unlink(f"{self.root}/running/{container_id}")
        except FileNotFoundError:
            pass

    def is_abandoned(self, container_id: str) -> bool:
        """Return whether no process looks after a container: nobody does, or the one that did has died."""
        claim = Claim(f"{self.root}/running/{container_id}")
        if claim.take():
            os.close(claim.fd)
            return True
        return container_id not in self.running()

    def is_left(self, container_id: str) -> bool:
        """Return whether a process that has died has left something of a container to clean."""
        return os.path.exists(f"{self.root}/running/{container_id}") and self.is_abandoned(
            container_id
        )

    def has_order(self, container_id: str) -> bool:
        """Return whether a shim was told to run this container."""
        return os.path.exists(f"{self.directory(container_id)}/{ORDER}")

    def write_order(self, container_id: str, order: dict[str, Any]) -> None:
        """Write what a shim is told to do, for who comes later: a daemon that looks for it, an exec."""
        replace_file(f"{self.directory(container_id)}/{ORDER}", json.dumps(order).encode())

    def read_order(self, container_id: str) -> dict[str, Any]:
        """Return what the shim of a container that runs was told to do. Raises OSError."""
        with open(f"{self.directory(container_id)}/{ORDER}", "rb") as file:
            order: dict[str, Any] = json.loads(file.read())
            return order

    def sweep(self) -> None:
        """Remove what killed processes have half written, anywhere in the data root."""
        for name in (".", "images", "containers", "volumes", "network"):
            sweep(f"{self.root}/{name}")
        for kind in ("containers", "volumes", "network"):
            if os.path.isdir(f"{self.root}/{kind}"):
                for name in os.listdir(f"{self.root}/{kind}"):
                    sweep(f"{self.root}/{kind}/{name}")

    def half_made(self) -> list[str]:
        """Return the ids of containers without a whole record: their maker was killed, or their remover."""
        return [found for found in self.ids() if self.read(found) is None]

    def abandoned(self) -> list[tuple[str, Claim]]:
        """Return (id, claim) of each container whose process died; the claims are now the caller's.

        Under `lock`, because a claim that is being made is a file before it is locked.
        """
        if not self.running():
            return []
        with self.lock():
            claims = [(name, Claim(f"{self.root}/running/{name}")) for name in self.running()]
            return [(name, claim) for name, claim in claims if claim.take()]

    def running(self) -> set[str]:
        """Return the ids of the containers that a living process looks after (or that await recovery)."""
        return set(os.listdir(f"{self.root}/running"))

    def remove_root(self, container_id: str) -> None:
        """Remove a container's record, so that a half removed one is not seen, and its root."""
        try:
            os.unlink(f"{self.directory(container_id)}/{RECORD}")
        except FileNotFoundError:
            pass
        self.roots.remove(container_id)

    def remove(self, container_id: str) -> None:
        """Remove a container's files. Raises OSError; repeating it is fine."""
        self.remove_root(container_id)
        remove_tree(self.directory(container_id))
