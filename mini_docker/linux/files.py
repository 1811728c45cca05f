# Exported from notebooks/12_images.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12_images.ipynb#files-module
"""Files that are whole or not there, whoever dies: temporary names, fsync(2), rename(2), flock(2)."""

from __future__ import annotations

import fcntl
import os


# %% notebooks/12_images.ipynb#write-atomically
def write_atomically(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is either whole or not there, whatever dies: temporary name, fsync, rename."""
    temporary = temporary_name(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def sync_directory(path: str) -> None:
    """Have the names in a directory on the disk, fsync(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temporary_name(path: str) -> str:
    """Return the name of a file that is to become `path`; it says who writes it."""
    return f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"


def sweep(directory: str) -> None:
    """Remove the temporary files of processes that have died over them; no directory is fine."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        writer = name.split(".")[-2].partition("-")[0] if name.endswith(".tmp") else ""
        if writer.isdigit() and not os.path.exists(f"/proc/{writer}"):
            os.unlink(f"{directory}/{name}")


class Guard:
    """A flock(2) on a file, held inside a `with` statement; any number may hold it `shared`."""

    def __init__(self, path: str, shared: bool = False) -> None:
        """Name the file; it is made when first locked."""
        self.path = path
        self.operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX

    def __enter__(self) -> None:
        """Wait for the lock."""
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, self.operation)

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        os.close(self.fd)
