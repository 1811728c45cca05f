# Exported from notebooks/14e_logs.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14e_logs.ipynb#rotated
"""The files of a log that are not written to any more, as they are or compressed."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

ENDS = ("", ".gz")
HEAD = 10  # bytes of a gzip file before the name, RFC 1952


def shift(path: str, max_file: int) -> None:
    """Move PATH to PATH.1, PATH.1 to PATH.2 and so on; the oldest goes. Raises OSError."""
    if max_file == 1:
        remove(path)
        return
    for end in ENDS:
        remove(f"{path}.{max_file - 1}{end}")
    for number in range(max_file - 2, 0, -1):
        for end in ENDS:
            if os.path.exists(f"{path}.{number}{end}"):
                os.rename(f"{path}.{number}{end}", f"{path}.{number + 1}{end}")
    if os.path.exists(path):
        os.rename(path, f"{path}.1")


def remove(path: str) -> None:
    """Remove a file; one that is not there is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def compress(path: str) -> None:
    """Put PATH.gz in the place of PATH, with its inode as the name inside. Raises OSError."""
    import gzip
    import shutil

    half = f"{path}.gz.half"
    try:
        with open(path, "rb") as file, open(half, "wb") as raw:
            os.fchmod(raw.fileno(), 0o640)
            inode = str(os.fstat(file.fileno()).st_ino)
            with gzip.GzipFile(inode, "wb", fileobj=raw, mtime=0) as packed:
                shutil.copyfileobj(file, packed)
        os.rename(half, f"{path}.gz")
    except BaseException:
        remove(half)
        raise
    os.unlink(path)


def inode_of(name: str) -> int:
    """Return the inode that a file of a log had when it was written to. Raises OSError."""
    try:
        return os.stat(name).st_ino
    except FileNotFoundError:
        with open(f"{name}.gz", "rb") as file:
            return int(file.read(64)[HEAD:].partition(b"\0")[0])


def open_rotated(name: str) -> tuple[IO[bytes], int]:
    """Open a file of a log; return it and its inode. What is compressed is unpacked to a file without a name.

    Raises OSError.
    """
    try:
        file = open(name, "rb")
        return file, os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return _unpacked(f"{name}.gz"), inode_of(name)


def _unpacked(name: str) -> IO[bytes]:
    import gzip
    import shutil
    import tempfile

    with gzip.open(name) as packed:
        file: IO[bytes] = tempfile.TemporaryFile(dir=os.path.dirname(name))
        shutil.copyfileobj(packed, file)
    file.seek(0)
    return file
