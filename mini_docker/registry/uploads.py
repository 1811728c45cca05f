# Exported from notebooks/13b_push.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13b_push.ipynb#uploads-module
"""Uploads: what the registry has is not sent, what it has elsewhere is mounted, a broken one goes on."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from mini_docker.images.layout import Descriptor
from mini_docker.images.reference import Reference
from mini_docker.registry.client import scope_of
from mini_docker.registry.errors import (
    BadContent,
    NotFound,
    RegistryError,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from mini_docker.registry.repository import Repository
from mini_docker.registry.transport import BLOCK, Response

# %% notebooks/13b_push.ipynb#upload
SMALL = 1 << 20  # bytes; a blob of at most this many is sent in the closing request itself
Open = Callable[[], IO[bytes]]
Report = Callable[[int], None]  # gets the bytes that the registry has, as they go


class Upload:
    """One blob on its way into one repository."""

    def __init__(
        self, repository: Repository, blob: Descriptor, open_blob: Open, report: Report
    ) -> None:
        """Keep what is to be sent; `open_blob` returns the blob's bytes from the start."""
        self.repository, self.blob = repository, blob
        self.open_blob, self.report = open_blob, report
        self.client = repository.client
        self.scope = scope_of(repository.reference.path, "pull,push")
        self.what = f"upload of {blob.digest} to {repository.name}"
        self.place = ""  # where the session is; the registry may move it with each answer
        self.chunk = int(self.client.settings.chunk_size)

    def run(self, elsewhere: Sequence[Reference] = ()) -> str:
        """Bring the blob there and return how: "Pushed", "Mounted from NAME" or "Layer already exists".

        `elsewhere` are repositories of the same registry that may have it. Raises RegistryError.
        """
        if self.repository.exists(self.blob.digest):
            return "Layer already exists"
        for other in elsewhere:
            if self._begin(other):
                return f"Mounted from {other.path}"
            if self.place:
                break  # the registry has opened a session instead
        if not self.place:
            self._begin()
        try:
            self._send()
        except NotFound:  # the session was lost with all that it had: once more from the beginning
            self._begin()
            self._send()
        return "Pushed"

    def _send(self) -> None:
        """Bring all bytes and end the session: a small blob in one request."""
        if self.blob.size <= SMALL and not self.chunk:
            self._close(self.open_blob)
        else:
            self._send_all()
            self._close()

    def _begin(self, other: Reference | None = None) -> bool:
        """Ask for a mount from `other`, or for an upload session; return whether it was mounted."""
        query, scope = "", self.scope
        if other:
            wanted = {"mount": self.blob.digest, "from": other.path}
            query = "?" + urllib.parse.urlencode(wanted)
            scope = f"{scope} {scope_of(other.path, 'pull')}"
        path = f"{self.repository.path}/blobs/uploads/{query}"
        allow = (401, 403, 404) if other else ()
        with self.client.request("POST", path, self.what, scope, allow=allow) as response:
            response.read(SMALL)
            if response.status == 202:
                self._moved(response)
                least = response.header("OCI-Chunk-Min-Length")
                if self.chunk and least.isdigit():
                    self.chunk = max(self.chunk, int(least))
            return response.status == 201

    def _moved(self, response: Response) -> None:
        """Note where the session goes on."""
        place = response.header("Location")
        if not place and not self.place:
            raise BadContent(
                f"registry {self.client.domain}: {self.what}: no Location; is this a registry?"
            )
        self.place = urllib.parse.urljoin(response.url, place) if place else self.place

    def _send_all(self) -> None:
        """Send the blob in chunks; when one breaks off, ask what has arrived and go on from there."""
        offset, failures = 0, 0
        while offset < self.blob.size:
            end = min(offset + (self.chunk or self.blob.size), self.blob.size)
            try:
                self._patch(offset, end)
                offset = end
            except (Unreachable, ServerError, TooManyRequests, OutOfStep) as error:
                failures += 1
                if failures >= max(1, int(self.client.settings.max_download_attempts)):
                    raise
                self.client.wait(failures)
                offset = self._arrived(error)
            self.report(offset)

    def _patch(self, start: int, end: int) -> None:
        """Send bytes `start` to `end`. Raises OutOfStep where the session is elsewhere, or gone."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Range": f"{start}-{end - 1}",
        }
        body = Piece(self.open_blob, start, end, self.report)
        with self.client.request(
            "PATCH", self.place, self.what, self.scope, headers, body, allow=(404, 416), tries=1
        ) as response:
            response.read(SMALL)
            if response.status in (404, 416):
                raise OutOfStep(
                    f"registry {self.client.domain}: {self.what}: the session is lost; remedy: push again"
                )
            self._moved(response)

    def _arrived(self, why: RegistryError) -> int:
        """Return how many bytes the registry has; a session that is gone, or has none, begins anew."""
        try:
            with self.client.request("GET", self.place, self.what, self.scope) as response:
                response.read(SMALL)
                self._moved(response)
                found = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.header("Range"))
        except NotFound:
            found = None
        last = int(found[1]) if found else 0
        if last == 0:  # "0-0" may mean one byte or none
            self.place = ""
            self._begin()
            return 0
        if last >= self.blob.size:
            raise BadContent(f"{why}; and it says that it has more bytes than there are") from why
        return last + 1

    def _close(self, open_blob: Open | None = None) -> None:
        """End the session: the registry compares the digest. With `open_blob` the bytes go along."""
        size = self.blob.size if open_blob else 0
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        body = Piece(open_blob, 0, size, self.report) if open_blob else b""
        mark = "&" if "?" in self.place else "?"
        path = f"{self.place}{mark}{urllib.parse.urlencode({'digest': self.blob.digest})}"
        with self.client.request("PUT", path, self.what, self.scope, headers, body) as response:
            response.read(SMALL)
            there = response.header("Docker-Content-Digest") or self.blob.digest
        if there != self.blob.digest:
            raise BadContent(
                f"registry {self.client.domain}: {self.what}: it kept {there} instead; remedy: push again"
            )


# %% notebooks/13b_push.ipynb#upload-piece
class OutOfStep(RegistryError):
    """The registry's upload session is not where ours is."""


class Piece:
    """A part of a blob as a request's body: each call reads it anew, so that it can be sent again."""

    def __init__(self, open_blob: Open, start: int, end: int, report: Report) -> None:
        """Keep the part's bounds, in bytes."""
        self.open_blob, self.start, self.end, self.report = open_blob, start, end, report

    def __call__(self) -> Iterator[bytes]:
        """Yield the bytes, a block at a time."""
        with self.open_blob() as file:
            file.seek(self.start)
            at = self.start
            while at < self.end and (data := file.read(min(BLOCK, self.end - at))):
                yield data
                at += len(data)
                self.report(at)
