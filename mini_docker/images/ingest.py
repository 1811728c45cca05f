# Exported from notebooks/12c_the_store.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12c_the_store.ipynb#ingest-module
"""Blobs on their way into a layout: hashed while written, visible when whole, and safe from collection."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os

from mini_docker.images.layout import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MEDIA_TYPE_MANIFEST,
    REMEDY,
    Descriptor,
    Digest,
    ImageError,
    checked_entry,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mini_docker.images.layout import Layout

BLOCK = 1 << 20
LARGEST_BLOB = 64 << 30  # bytes


# %% notebooks/12c_the_store.ipynb#ingest
class Ingest:
    """A blob that is being written into `layout`: a locked file below ingest/, renamed by `commit`.

    Without a digest in the descriptor ("" and size -1) the blob is named by what its bytes turn out to be.
    Leaving its `with` statement before `commit` abandons it.
    """

    def __init__(
        self, layout: Layout, descriptor: Descriptor, hold: Callable[[str], None] | None = None
    ) -> None:
        """Begin the blob, or go on where a broken attempt ended: `offset` bytes are here already.

        `hold` gets the digest of one that had none, before its name appears. Raises ImageError for a
        digest that is none and for a size beyond LARGEST_BLOB.
        """
        self.layout, self.descriptor, self.hold = layout, descriptor, hold
        if descriptor.digest:
            Digest.parse(descriptor.digest)
        if descriptor.size > LARGEST_BLOB:
            raise ImageError(
                f"{descriptor.digest}: {descriptor.size} bytes are more than {LARGEST_BLOB}"
            )
        self.limit = descriptor.size if descriptor.digest else LARGEST_BLOB
        self.hash = hashlib.new(Digest(descriptor.digest or "sha256:").algorithm)
        self.offset = 0
        self.here = bool(descriptor.digest) and layout.has(descriptor.digest)
        self.path, self.fd = "", -1
        if self.here:
            self.offset = descriptor.size
            return
        self.path, self.fd = _open_partial(layout, descriptor.digest)
        try:
            self._rehash()
        except BaseException:
            self.abandon(keep=True)
            raise

    def _rehash(self) -> None:
        """Hash what has come already; more than there should be is no beginning of this blob."""
        while block := os.read(self.fd, BLOCK):
            self.hash.update(block)
            self.offset += len(block)
        if self.offset > self.limit:
            self.restart()

    def restart(self) -> None:
        """Forget what is here: the other side cannot go on from the middle."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        os.ftruncate(self.fd, 0)
        self.hash, self.offset = hashlib.new(self.hash.name), 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises ImageError beyond the blob's size and where the disk is full."""
        self.offset += len(data)
        if self.offset > self.limit:
            raise ImageError(
                f"{self.descriptor.digest or 'blob'}: more than {self.limit} bytes came"
            )
        self.hash.update(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            raise _disk_error(self.layout, error) from error

    def commit(self) -> Descriptor:
        """Give the blob its name, if size and digest are right, and return its descriptor.

        Raises ImageError otherwise; a blob of the right size but another digest is thrown away.
        """
        media_type, digest, size = self.descriptor
        if not self.here:
            found = f"{self.hash.name}:{self.hash.hexdigest()}"
            if digest and self.offset != size:
                raise ImageError(f"{digest}: {self.offset} of {size} bytes came")
            if digest and found != digest:
                self.abandon(keep=False)
                raise ImageError(f"{digest}: the bytes that came have the digest {found}")
            digest, size = found, self.offset
            if self.hold is not None:
                self.hold(found)
            try:
                os.fsync(self.fd)
                os.rename(self.path, self.layout.blob_path(digest))
            except OSError as error:
                raise _disk_error(self.layout, error) from error
        self.abandon(keep=False)
        return Descriptor(media_type, digest, size)

    def abandon(self, keep: bool) -> None:
        """Stop; what has come is thrown away unless `keep`, so that another attempt can go on from it."""
        if self.fd < 0:
            return
        if not keep and not _is_renamed(self.path, self.fd):
            os.unlink(self.path)
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Ingest:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Abandon what was not committed."""
        self.abandon(keep=False)


def _open_partial(layout: Layout, digest: str) -> tuple[str, int]:
    """Open and lock the file of a blob that has begun; one of our own where somebody else is writing it."""
    directory = f"{layout.directory}/ingest"
    named = f"{directory}/{digest.replace(':', '-')}"
    with layout.lock(shared=True):  # so that no collector comes between open and lock
        fd = open_locked(named, os.O_CREAT) if digest else None
        if fd is not None:
            return named, fd
        own = f"{directory}/new-{os.urandom(8).hex()}"
        fd = open_locked(own, os.O_CREAT | os.O_EXCL)
    if fd is None:
        raise ImageError(f"{own}: somebody else holds it")
    return own, fd


def open_locked(path: str, flags: int = 0) -> int | None:
    """Open a file and lock it; None where somebody else holds it or has just renamed or removed it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if _is_renamed(path, fd):
        os.close(fd)
        return None
    return fd


def _is_renamed(path: str, fd: int) -> bool:
    """Return whether `path` is no longer the file that `fd` is."""
    try:
        return not os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return True


def _disk_error(layout: Layout, error: OSError) -> ImageError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ImageError(f"{layout.directory}: {error.strerror}" + f"; {REMEDY}" * full)


# %% notebooks/12c_the_store.ipynb#lease
class Lease:
    """What somebody is bringing into `layout`: none of it is garbage while the `with` statement lasts.

    At its end, whatever it or a dead one held that no image needs is removed. One that is `resumable` and
    ends by an exception is left for the next, which may go on with what has come.
    """

    def __init__(self, layout: Layout, resumable: bool = False) -> None:
        """Name the layout."""
        self.layout, self.resumable = layout, resumable

    def __enter__(self) -> Lease:
        """Make and lock the lease's file."""
        with self.layout.lock(shared=True):
            self.path = f"{self.layout.directory}/leases/{os.urandom(8).hex()}"
            fd = open_locked(self.path, os.O_CREAT | os.O_EXCL | os.O_APPEND)
        if fd is None:
            raise ImageError(f"{self.path}: somebody else holds it")
        self.fd = fd
        return self

    def hold(self, digest: str) -> None:
        """Keep the blob of `digest`, here or still to come."""
        line = f"{Digest.parse(digest)}\n".encode()
        try:
            with self.layout.lock(shared=True):
                os.write(self.fd, line)
        except OSError as error:
            raise _disk_error(self.layout, error) from error

    def has(self, digest: str) -> bool:
        """Return whether a blob is here, and stays."""
        self.hold(digest)
        return self.layout.has(digest)

    def ingest(self, descriptor: Descriptor) -> Ingest:
        """Begin, or go on with, a blob that stays."""
        if descriptor.digest:
            self.hold(descriptor.digest)
        return Ingest(self.layout, descriptor, self.hold)

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small blob that stays."""
        self.hold(Digest.of(data))
        return self.layout.put(data, media_type)

    def __exit__(self, kind: object, *_: object) -> None:
        """Let go, and clear away what nobody needs."""
        try:
            if kind is None or not self.resumable:
                with self.layout.lock():
                    sweep(self.layout, self.path)
        finally:
            os.close(self.fd)


# %% notebooks/12c_the_store.ipynb#collect
def reachable(layout: Layout, entries: list[dict[str, Any]]) -> set[str]:
    """Return the digests of all that `entries` lead to and that is here. Raises ImageError for damage."""
    marked: set[str] = set()
    waiting = list(entries)
    while waiting:
        entry = waiting.pop()
        digest = entry["digest"]
        if digest in marked or not layout.has(digest):
            continue
        marked.add(digest)
        if entry.get("mediaType", MEDIA_TYPE_MANIFEST) in INDEX_TYPES | MANIFEST_TYPES:
            waiting += children(layout.read_json(digest), digest)
    return marked


def children(document: dict[str, Any], digest: str) -> list[dict[str, Any]]:
    """Return the descriptors in a manifest or an index, whose `digest` an ImageError would name."""
    try:
        config = [document["config"]] if "config" in document else []
        inner = [*config, *document.get("layers", ()), *document.get("manifests", ())]
        return [checked_entry(entry) for entry in inner]
    except (KeyError, TypeError) as error:
        raise ImageError(f"manifest {digest}: {error!r} is no descriptor") from error


def is_whole(layout: Layout, entry: dict[str, Any]) -> bool:
    """Return whether `entry` and all that it leads to is here: of an index, the images of all platforms."""
    digest = entry["digest"]
    if not layout.has(digest):
        return False
    if entry.get("mediaType") not in INDEX_TYPES | MANIFEST_TYPES:
        return True
    return all(is_whole(layout, one) for one in children(layout.read_json(digest), digest))


def collect(layout: Layout) -> list[str]:
    """Remove every blob that neither an image nor a living lease needs; return their digests.

    Beginnings of blobs that nobody is writing go too. Raises ImageError, having removed nothing, for a
    manifest that cannot be read.
    """
    with layout.lock():
        return sweep(layout, "", everything=True)


def sweep(layout: Layout, own: str, everything: bool = False) -> list[str]:
    """Do what `collect` does for what dead leases and the lease `own` held, or for `everything`.

    The caller holds the layout's lock.
    """
    held, dead, ended = _read_leases(layout, own)
    try:
        needed = reachable(layout, layout.entries()) | held
        wanted = _all_blobs(layout) if everything else dead
        gone = sorted(digest for digest in wanted - needed if layout.has(digest))
        for digest in gone:
            os.unlink(layout.blob_path(digest))
        _remove_partials(layout, None if everything else dead - held)
        for path, _ in ended:
            os.unlink(path)
    finally:
        for _, fd in ended:
            os.close(fd)
    return gone


def _read_leases(layout: Layout, own: str) -> tuple[set[str], set[str], list[tuple[str, int]]]:
    """Return what the living hold, what the dead and `own` held, and (path, fd) of the latter's files."""
    held: set[str] = set()
    dead: set[str] = set()
    ended: list[tuple[str, int]] = []
    for name in os.listdir(f"{layout.directory}/leases"):
        path = f"{layout.directory}/leases/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path == own else open_locked(path)
        with open(path) as file:
            digests = {line[:-1] for line in file if line.endswith("\n")}
        if fd is None:
            held |= digests
        else:
            dead |= digests
            ended.append((path, fd))
    return held, dead, ended


def _all_blobs(layout: Layout) -> set[str]:
    return {
        f"{algorithm}:{name}"
        for algorithm, length in Digest.LENGTHS.items()
        for name in os.listdir(f"{layout.directory}/blobs/{algorithm}")
        if len(name) == length
    }


def _remove_partials(layout: Layout, digests: set[str] | None) -> None:
    """Remove the beginnings of `digests` (None: of all), and nameless ones, that nobody is writing."""
    for name in os.listdir(f"{layout.directory}/ingest"):
        path = f"{layout.directory}/ingest/{name}"
        known = digests is None or name.startswith("new-") or name.replace("-", ":", 1) in digests
        fd = open_locked(path) if known else None
        if fd is not None:
            os.unlink(path)
            os.close(fd)
    for name in os.listdir(layout.directory):
        # of an index.json whose writer died: writers hold the lock, and we do
        if name.endswith(".tmp"):
            os.unlink(f"{layout.directory}/{name}")
