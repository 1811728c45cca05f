# Exported from notebooks/11d_state.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11d_state.ipynb#state-module
"""A runtime's memory: a directory a container; what the kernel knows is asked of the kernel."""

from __future__ import annotations

import errno
import fcntl
import os

from mini_docker.runtime.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Record = dict[str, Any]

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"


class RuntimeFailure(Exception):
    """What a user or an engine is told in one line; `status` is the exit status of the command."""

    def __init__(self, text: str, status: int = 1) -> None:
        """Keep the line and the status."""
        super().__init__(text)
        self.status = status


class NoSuchContainer(RuntimeFailure):
    """No container has this id."""

    def __init__(self, container_id: str) -> None:
        """Say it in runc's words, which containerd looks for."""
        super().__init__(f'container "{container_id}" does not exist')


# %% notebooks/11d_state.ipynb#processes
def start_time(pid: int) -> int:
    """Return when `pid` was started, in clock ticks since boot; 0 once it has ended, proc_pid_stat(5).

    A zombie has ended. Pid and start time together are never used twice.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_waited_at(fifo: str) -> bool:
    """Return whether some process has `fifo` open for reading: init, until execve closes it, fifo(7)."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except (FileNotFoundError, OSError) as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    return True


# %% notebooks/11d_state.ipynb#claim
ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
LONGEST_ID = 1024


def check_id(container_id: str) -> None:
    """Refuse an id that is no plain file name. Raises RuntimeFailure in runc's words."""
    plain = ID_CHARACTERS.issuperset(container_id) and container_id.strip(".")
    if not container_id or not plain or len(container_id) > LONGEST_ID or container_id[0] == ".":
        raise RuntimeFailure(f"invalid container ID format: {container_id!r}")


class Lock:
    """The right to change a container, as long as this object and its process live, fcntl_locking(2).

    A child does not inherit it, unlike flock(2): init must not hold the lock of its own container.
    """

    def __init__(self, directory: str, wait: bool = True, make: bool = False) -> None:
        """Take the lock of `directory`; with `make` its file is made where it is missing.

        Raises BlockingIOError if it is taken and we do not `wait`, FileNotFoundError.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
        self.fd = os.open(f"{directory}/lock", flags, 0o600)
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(self.fd)
            raise

    def is_of(self, directory: str) -> bool:
        """Return whether the locked file is still the one in `directory`, not that of a predecessor."""
        try:
            found, ours = os.stat(f"{directory}/lock"), os.fstat(self.fd)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Let go."""
        os.close(self.fd)


# %% notebooks/11d_state.ipynb#store
KEPT = ".seccomp"  # in the state directory: compiled filters, see security/seccomp.py


class Store:
    """The containers of a state directory `root` (mini_runc --root), each a directory named by its id.

    state.json  the record        config.json  the document as it was at create
    word, report  the FIFOs of its gate        lock  held by the command that changes it
    """

    def __init__(self, root: str) -> None:
        """Use `root`; it is made when the first container is."""
        self.root = root

    def directory(self, container_id: str) -> str:
        """Return the directory of a container, there or not. Raises RuntimeFailure for a bad id."""
        check_id(container_id)
        return f"{self.root}/{container_id}"

    def claim(self, container_id: str) -> Lock:
        """Make the directory of a new container, locked from the first moment it has its name.

        Raises RuntimeFailure if the id is taken.
        """
        directory = self.directory(container_id)
        os.makedirs(self.root, 0o700, exist_ok=True)
        while True:
            unborn = f"{self.root}/.{os.urandom(8).hex()}"
            os.mkdir(unborn, 0o700)
            try:
                lock = Lock(unborn, make=True)
                os.rename(unborn, directory)
                return lock
            except FileNotFoundError:
                continue  # somebody took us for dead before we had the lock
            except OSError as error:
                remove_directory(unborn)
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                text = f'container with id "{container_id}" already exists'
                raise RuntimeFailure(text) from None

    def lock(self, container_id: str, wait: bool = True) -> Lock:
        """Take the lock of a container. Raises NoSuchContainer, BlockingIOError."""
        directory = self.directory(container_id)
        while True:
            if not os.path.isdir(directory):
                raise NoSuchContainer(container_id)
            try:
                lock = Lock(directory, wait, make=True)
            except FileNotFoundError:
                continue
            if lock.is_of(directory):
                return lock
            lock.release()

    def write(self, record: Record) -> None:
        """Write the record of a container: whole or not at all. Raises OSError."""
        path = f"{self.directory(record['id'])}/state.json"
        with open(f"{path}.new", "w") as file:
            file.write(dumps(record))
        os.rename(f"{path}.new", path)

    def read(self, container_id: str) -> Record:
        """Return the record of a container. Raises NoSuchContainer.

        A maker that was killed very early left a directory without one: that is a container too, one
        that has stopped, so that delete finds it.
        """
        directory = self.directory(container_id)
        try:
            with open(f"{directory}/state.json") as file:
                record: Record = loads(file.read())
                return record
        except FileNotFoundError:
            if not os.path.isdir(directory):
                raise NoSuchContainer(container_id) from None
            return {"id": container_id, "pid": 0, "made": False, "bundle": "", "cgroup": None}

    def document(self, container_id: str) -> dict[str, Any]:
        """Return the document with which a container was created. Raises NoSuchContainer."""
        try:
            with open(f"{self.directory(container_id)}/config.json") as file:
                document: dict[str, Any] = loads(file.read())
                return document
        except FileNotFoundError:
            raise NoSuchContainer(container_id) from None

    def ids(self) -> list[str]:
        """Return the ids of all containers; remove what makers left that were killed in their first step."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        for name in names:
            if name.startswith(".") and name != KEPT:
                self._remove_unborn(f"{self.root}/{name}")
        return [name for name in names if not name.startswith(".")]

    def _remove_unborn(self, directory: str) -> None:
        try:
            lock = Lock(directory, wait=False, make=True)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            return
        remove_directory(directory)
        lock.release()

    def records(self) -> Iterator[Record]:
        """Yield the record of each container; one that is removed meanwhile is left out."""
        for container_id in self.ids():
            try:
                yield self.read(container_id)
            except NoSuchContainer:
                continue

    def status(self, record: Record, locked: bool = False) -> str:
        """Return the OCI status, asked of the kernel: no record of it could survive every crash.

        A container whose maker died half way has stopped, whatever is left of it; the maker holds the
        lock, unless we have it `locked`. PAUSED is for the control group to say, see lifecycle.
        """
        directory = self.directory(record["id"])
        if not record["made"] and not locked:
            try:
                Lock(directory, wait=False).release()
            except BlockingIOError:
                return CREATING
            except FileNotFoundError:
                pass
        if not record["made"] or start_time(record["pid"]) != record["started"]:
            return STOPPED
        return CREATED if is_waited_at(f"{directory}/word") else RUNNING


def remove_directory(directory: str) -> None:
    """Remove a container's directory and the files in it; what is gone is fine. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in sorted(names, key=lambda name: name in ("state.json", "lock")):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
