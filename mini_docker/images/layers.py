# Exported from notebooks/12b_layers_as_tars.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12b_layers_as_tars.ipynb#layers-module
"""Layers in a directory, each unpacked once, under the name of its diff_id, and checked while it is."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import queue
import threading

from mini_docker.images.compression import PIECE, expand
from mini_docker.images.layout import LAYER_TYPES, REMEDY, Digest, ImageError
from mini_docker.images.tar import LayerError
from mini_docker.images.unpack import OPEN_DIRECTORY, unpack_pieces
from mini_docker.linux.syscall import libc
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from mini_docker.images.layout import Descriptor, Layout


# %% notebooks/12b_layers_as_tars.ipynb#ahead
AHEAD = 8  # pieces of at most PIECE bytes that wait to be unpacked


class Ahead:
    """Pieces that a thread makes while their reader is busy with earlier ones, at most AHEAD of them waiting.

    An exception of the maker comes up in the reader. `close` ends the thread, whatever it is doing.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Start the thread."""
        self.queue: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        self.closed = False
        self.thread = threading.Thread(target=self._run, args=(pieces,), daemon=True)
        self.thread.start()

    def _run(self, pieces: Iterator[bytes]) -> None:
        try:
            for piece in pieces:
                if self.closed:
                    return
                self.queue.put(piece)
            self.queue.put(None)
        except BaseException as error:
            self.queue.put(error)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        while (piece := self.queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        """Stop the thread and wait for it; what it has made is lost."""
        self.closed = True
        while self.thread.is_alive():
            try:
                self.queue.get(timeout=0.01)
            except queue.Empty:
                pass


# %% notebooks/12b_layers_as_tars.ipynb#unpack-layer
def unpack_layer(layout: Layout, layer: Descriptor, diff_id: str, layers_directory: str) -> str:
    """Return the directory of the unpacked `layer`, unpacked now if it is not there yet.

    It is read, hashed, expanded, hashed again and unpacked in one pass; the directory gets its name only
    if the blob's digest and size and the tar's `diff_id` were right, and once it is on the disk. Raises
    LayerError.
    """
    try:
        name = Digest.parse(diff_id).encoded
    except ImageError as error:
        raise LayerError(f"layer {layer.digest}: diff_id {error}") from error
    if layer.media_type not in LAYER_TYPES:
        raise LayerError(f"layer {layer.digest}: {layer.media_type!r} is no file system layer")
    final = f"{layers_directory}/{name}"
    if os.path.isdir(final):
        return final
    temporary, lock_fd = _temporary_directory(layers_directory, name)
    try:
        _unpack_checked(layout, layer, diff_id, temporary)
        sync_file_system(lock_fd)
        os.rename(temporary, final)
    except OSError as error:
        if not os.path.isdir(final):  # another process may have been faster
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise LayerError(f"layer {layer.digest}: {error}" + f"; {REMEDY}" * full) from error
    finally:
        remove_tree(temporary)
        os.close(lock_fd)
    return final


def sync_file_system(fd: int) -> None:
    """Have all of the file system behind `fd` on the disk, syncfs(2): one wait, not one for each file."""
    if libc.syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"syncfs: {os.strerror(error)}")


def _temporary_directory(layers_directory: str, name: str) -> tuple[str, int]:
    """Make a directory, locked as long as its maker lives; remove those of the dead."""
    os.makedirs(layers_directory, 0o700, exist_ok=True)
    directory_fd = os.open(layers_directory, OPEN_DIRECTORY)
    try:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)
        remove_dead(layers_directory)
        temporary = f"{layers_directory}/{name}.{os.urandom(6).hex()}.tmp"
        os.mkdir(temporary, 0o755)
        os.chmod(temporary, 0o755)
        lock_fd = os.open(temporary, OPEN_DIRECTORY)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        return temporary, lock_fd
    finally:
        os.close(directory_fd)


def remove_dead(layers_directory: str) -> None:
    """Remove the directories of unpackers that died. The caller holds the lock of `layers_directory`."""
    for name in os.listdir(layers_directory):
        if not name.endswith(".tmp"):
            continue
        try:
            fd = os.open(f"{layers_directory}/{name}", OPEN_DIRECTORY)
        except FileNotFoundError:
            continue  # it has just got its name
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(f"{layers_directory}/{name}")
        except BlockingIOError:
            pass  # its maker lives
        finally:
            os.close(fd)


def remove_layers(layers_directory: str, kept: Collection[str]) -> list[str]:
    """Remove the unpacked layers whose names (hex digits) are not `kept`; return the names of those gone."""
    directory_fd = os.open(layers_directory, OPEN_DIRECTORY)
    try:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)
        gone = [n for n in os.listdir(layers_directory) if n not in kept and not n.endswith(".tmp")]
        for name in gone:  # first another name, so that half a layer never has the whole one's
            os.rename(f"{layers_directory}/{name}", f"{layers_directory}/{name}.gone.tmp")
        remove_dead(layers_directory)
    finally:
        os.close(directory_fd)
    return sorted(gone)


def _unpack_checked(layout: Layout, layer: Descriptor, diff_id: str, directory: str) -> None:
    """Unpack a blob, hashing what is read and what comes out of it. Raises LayerError with the remedy."""
    with layout.open_blob(layer.digest) as blob:
        packed = Hashed(iter(lambda: blob.read(PIECE), b""), layer.digest)
        plain = Hashed(expand(packed), diff_id)
        ahead = Ahead(iter(plain))
        try:
            unpack_pieces(ahead, directory)
        except ImageError as error:
            check_blob(layout, layer)  # a damaged one is called so, whatever its damage looked like
            raise LayerError(f"layer {layer.digest}: {error}") from error
        finally:
            ahead.close()
    _compare(packed, layer)
    if plain.found != diff_id:
        raise LayerError(f"layer unpacks to {plain.found}, its image says {diff_id}")


def check_blob(layout: Layout, layer: Descriptor) -> None:
    """Compare a blob's size and digest with its descriptor. Raises LayerError with the remedy."""
    with layout.open_blob(layer.digest) as blob:
        packed = Hashed(iter(lambda: blob.read(PIECE), b""), layer.digest)
        for _ in packed:
            pass
    _compare(packed, layer)


def _compare(packed: Hashed, layer: Descriptor) -> None:
    if (packed.size, packed.found) != (layer.size, layer.digest):
        raise LayerError(
            f"layer {layer.digest}: the blob's bytes do not match its digest; remove and load it again"
        )


def chain_id(diff_ids: Sequence[str]) -> str:
    """Return the name of a stack of layers, lowest first. Source: OCI image-spec config.md."""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain


class Hashed:
    """Pieces that pass by and are hashed and counted."""

    def __init__(self, pieces: Iterable[bytes], digest: str) -> None:
        """Name the digest that is expected at the end."""
        self.pieces, self.expected = pieces, Digest.parse(digest)
        self.hash, self.size = hashlib.new(self.expected.algorithm), 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        for piece in self.pieces:
            self.hash.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def found(self) -> str:
        """The digest of what has passed."""
        return f"{self.expected.algorithm}:{self.hash.hexdigest()}"
