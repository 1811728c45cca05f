# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#download-module
"""One blob on its way in: asked for from where the last try broke off, counted, and hashed as it comes."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mini_docker.images.ingest import Ingest, Lease
from mini_docker.images.layout import Descriptor, ImageError
from mini_docker.registry.errors import BadContent, RegistryError, Unreachable
from mini_docker.registry.repository import Repository
from mini_docker.registry.transport import BLOCK, Response

# %% notebooks/13_registry.ipynb#download
ENOUGH = 64 << 10  # bytes; a try that brought this many does not count as a failure
Tell = Callable[[str, int], None]


class Download:
    """A blob of a repository on its way into the store."""

    def __init__(self, lease: Lease, repository: Repository, blob: Descriptor, tell: Tell) -> None:
        """Keep what is to come; `tell(status, bytes so far)` hears how it goes."""
        self.lease, self.repository, self.blob, self.tell = lease, repository, blob, tell
        self.client = repository.client
        self.where = f"registry {self.client.domain}: {repository.name}: blob {blob.digest}"

    def run(self) -> None:
        """Fetch a blob, going on where a connection broke; each try that brings something earns new ones."""
        most = max(1, int(self.client.settings.max_download_attempts))
        with self._ingest() as ingest:
            failures, mark = 0, ingest.offset
            while ingest.offset < self.blob.size:
                try:
                    self._fetch_rest(ingest)
                except Unreachable:
                    failures = 1 if ingest.offset >= mark + ENOUGH else failures + 1
                    mark = ingest.offset
                    if failures >= most or self.client.stopped.is_set():
                        raise
                    self.client.wait(failures)
            self.tell("Verifying Checksum", 0)
            ingest.commit()

    def take(self, data: bytes) -> None:
        """Keep a blob that has come as a whole."""
        with self._ingest() as ingest:
            ingest.write(data[ingest.offset :])
            ingest.commit()

    def _fetch_rest(self, ingest: Ingest) -> None:
        """Ask for what is missing and write it. Raises Unreachable where the answer breaks off."""
        with self.repository.blob(self.blob.digest, ingest.offset) as response:
            skip = self._skip(response, ingest.offset)
            buffer = memoryview(bytearray(BLOCK))
            while count := self._read(response, buffer):
                data = buffer[min(skip, count) : count]
                skip -= count - len(data)
                if ingest.offset + len(data) > self.blob.size:
                    raise BadContent(f"{self.where} is longer than {self.blob.size} bytes: refused")
                ingest.write(data)
                self.tell("Downloading", ingest.offset)
        if ingest.offset < self.blob.size:
            raise Unreachable(
                f"{self.where} broke off after {ingest.offset} of {self.blob.size} bytes; "
                "remedy: pull again, it goes on from there"
            )

    def _skip(self, response: Response, offset: int) -> int:
        """Return how many bytes of an answer we have. Raises BadContent for another part or length."""
        part = response.header("Content-Range")
        begins = offset if response.status == 206 else 0
        if response.status == 206 and not part.startswith(f"bytes {offset}-"):
            raise BadContent(
                f"{self.where}: asked for bytes from {offset} on, got {part!r}: refused"
            )
        length = response.header("Content-Length")
        if response.status == 416 or (length.isdigit() and int(length) != self.blob.size - begins):
            raise BadContent(
                f"{self.where} has {length or 'fewer'} bytes, its manifest says "
                f"{self.blob.size}: refused"
            )
        return offset - begins

    def _read(self, response: Response, buffer: memoryview) -> int:
        if self.client.stopped.is_set():
            raise Unreachable(f"{self.where}: given up, because another part failed")
        try:
            return response.readinto(buffer)
        except (OSError, http.client.HTTPException):
            return 0  # as a connection that was closed: what is missing tells

    @contextmanager
    def _ingest(self) -> Iterator[Ingest]:
        """Hold a blob that is on its way in: a good beginning is kept for the next pull, a bad one is not."""
        try:
            ingest = self.lease.ingest(self.blob)
        except ImageError as error:
            raise BadContent(f"{self.where}: {error}: refused") from error
        keep = False
        try:
            yield ingest
        except (Unreachable, KeyboardInterrupt):
            keep = True
            raise
        except RegistryError:
            raise
        except ImageError as error:
            raise BadContent(f"{self.where}: {error}") from error
        finally:
            ingest.abandon(keep)
