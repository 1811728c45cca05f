# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#pack-module
"""Files of ours as a tar archive that is made while it is sent: what `cp` and `build` need."""

from __future__ import annotations

import io
import os
import stat
import tarfile

from mini_docker.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PIECE = 1 << 16  # bytes


# %% notebooks/F_container_commands.ipynb#pack
def packed(
    files: Iterable[tuple[str, str]], see: Callable[[tarfile.TarInfo], object]
) -> Iterator[bytes]:
    """Yield an archive of files, each (path, name in the archive), in pieces of PIECE bytes or little more.

    `see` is shown each header, and may change it. Sockets are left out: tar cannot hold one. Raises
    CommandError, OSError.
    """
    waiting = b""
    for part in _parts(files, see):
        waiting += part
        if len(waiting) >= PIECE:
            yield waiting
            waiting = b""
    yield waiting


def _parts(
    files: Iterable[tuple[str, str]], see: Callable[[tarfile.TarInfo], object]
) -> Iterator[bytes]:
    """Yield headers, files' bytes and fillings; the last are the two empty blocks of the end."""
    describer = tarfile.open(fileobj=io.BytesIO(), mode="w")  # it knows a file's second name
    for path, name in files:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            continue
        info = describer.gettarinfo(path, name)
        info.uname = info.gname = ""
        see(info)
        yield info.tobuf(tarfile.PAX_FORMAT)
        if info.isreg():
            yield from _contents(path, info.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _contents(path: str, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file, and the filling of the last block. Raises CommandError."""
    left = size
    with open(path, "rb") as file:
        while left and (data := file.read(min(left, PIECE))):
            left -= len(data)
            yield data
    if left:
        raise CommandError(f"{path} became shorter while it was read")
    yield bytes(-size % tarfile.BLOCKSIZE)
