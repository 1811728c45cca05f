# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#repository-module
"""One repository of a registry: its manifests, blobs, tags and referrers, each checked as it comes in."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mini_docker.images.layout import INDEX_TYPES, MANIFEST_TYPES, MEDIA_TYPE_INDEX, Descriptor
from mini_docker.images.reference import DIGEST_LENGTHS, Reference
from mini_docker.registry.client import Client, scope_of
from mini_docker.registry.errors import BadContent, RegistryError
from mini_docker.registry.transport import Response

# %% notebooks/13_registry.ipynb#repository-words
SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
ACCEPTED = sorted(MANIFEST_TYPES | INDEX_TYPES)
MANIFEST_LIMIT = 4 << 20  # bytes; the least that registries must take, and the most that we do
PAGE_LIMIT = 4 << 20
MOST_PAGES = 1000
NEXT_PAGE = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


class Fetched(NamedTuple):
    """A manifest or index: what describes it, its bytes as the registry keeps them, and what they say."""

    descriptor: Descriptor
    data: bytes
    document: dict[str, Any]


# %% notebooks/13_registry.ipynb#repository
class Repository:
    """A repository as a client sees it. All methods raise RegistryError."""

    def __init__(self, client: Client, reference: Reference) -> None:
        """Keep the client of the registry, and the reference whose repository this is."""
        self.client, self.reference = client, reference
        self.name = reference.familiar_repository()
        self.path = f"/v2/{reference.path}"

    def manifest(self, target: str, expected: Descriptor | None = None) -> Fetched:
        """Return the manifest or index of a tag or digest; `expected` is what an index has said of it."""
        what = self._about(target)
        headers = {"Accept": ", ".join(ACCEPTED)}
        path = f"{self.path}/manifests/{target}"
        with self.client.request(
            "GET", path, what, scope_of(self.reference.path, "pull"), headers
        ) as response:
            media_type = response.header("Content-Type").partition(";")[0].strip()
            data = self.read_all(response, MANIFEST_LIMIT, what)
        digest = target if ":" in target else response.header("Docker-Content-Digest")
        digest = digest if digest.partition(":")[0] in DIGEST_LENGTHS else digest_of(data, "sha256")
        if digest_of(data, digest.partition(":")[0]) != digest:
            raise BadContent(
                f"{self._where(what)}: its bytes are not those of {digest}: refused; remedy: pull "
                "again; if it stays so, the registry, or something on the way, is not to be trusted"
            )
        descriptor = Descriptor(media_type, digest, len(data))
        return Fetched(descriptor, data, self._document(what, descriptor, data, expected))

    def _document(
        self, what: str, found: Descriptor, data: bytes, expected: Descriptor | None
    ) -> dict[str, Any]:
        """Return what a manifest's bytes say, once size and media type are what they should be."""
        where = self._where(what)
        try:
            document = json.loads(data)
            stated = document.get("mediaType") or found.media_type
            schema = document["schemaVersion"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadContent(
                f"{where}: what was sent is no manifest; remedy: is this a registry?"
            ) from error
        if schema == 1 or found.media_type in SCHEMA_1:
            raise BadContent(
                f"{where}: a manifest of schema 1, which nobody has written since 2017; "
                "remedy: push the image again with a newer Docker"
            )
        if found.media_type not in ACCEPTED or stated != found.media_type:
            raise BadContent(
                f"{where}: media type {found.media_type or 'of no name'!r} (its text says {stated!r}) is "
                "none of an image; remedy: other programs read such artifacts"
            )
        if expected and (expected.size, expected.media_type) != (found.size, found.media_type):
            raise BadContent(
                f"{where}: size or media type are not what the index has promised: refused"
            )
        assert isinstance(document, dict)
        return document

    def exists(self, digest: str) -> bool:
        """Return whether the repository has a blob."""
        path = f"{self.path}/blobs/{digest}"
        scope = scope_of(self.reference.path, "pull,push")
        with self.client.request(
            "HEAD", path, self._about(digest), scope, allow=(404,)
        ) as response:
            return response.status == 200

    def blob(self, digest: str, offset: int = 0) -> Response:
        """Return the answer that carries a blob from `offset` on: 206, or 200 with all of it, or 416."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path, scope = f"{self.path}/blobs/{digest}", scope_of(self.reference.path, "pull")
        return self.client.request("GET", path, self._about(digest), scope, headers, allow=(416,))

    def tags(self) -> list[str]:
        """Return all tags, page by page."""
        return list(self._paged(f"{self.path}/tags/list?n=1000", "tags", "its tags"))

    def head(self, target: str) -> str:
        """Return the digest that a tag means now."""
        what, headers = self._about(target), {"Accept": ", ".join(ACCEPTED)}
        path, scope = f"{self.path}/manifests/{target}", scope_of(self.reference.path, "pull")
        with self.client.request("HEAD", path, what, scope, headers) as response:
            digest = response.header("Docker-Content-Digest")
        return digest or self.manifest(target).descriptor.digest

    def delete(self, target: str) -> str:
        """Delete the manifest that a tag or digest means, and with it all its tags; return its digest."""
        digest = target if ":" in target else self.head(target)
        path, scope = (
            f"{self.path}/manifests/{digest}",
            scope_of(self.reference.path, "delete,pull"),
        )
        allow = (405, 400)
        with self.client.request(
            "DELETE", path, self._about(target), scope, allow=allow
        ) as response:
            if response.status in allow:
                raise RegistryError(
                    f"{self._where(self._about(target))}: this registry does not delete; "
                    "remedy: its owner can allow it (storage.delete.enabled)"
                )
        return digest

    def referrers(self, digest: str, artifact_type: str = "") -> list[dict[str, Any]]:
        """Return descriptors of what refers to a manifest: signatures, SBOMs and the like.

        From the referrers API, or where the registry is older from the tag that stands in for it.
        Source: distribution-spec 1.1, "Listing Referrers".
        """
        what, path = f"referrers of {self._about(digest)}", f"{self.path}/referrers/{digest}"
        headers = {"Accept": MEDIA_TYPE_INDEX}
        for place in (path, f"{self.path}/manifests/{digest.replace(':', '-', 1)}"):
            with self.client.request(
                "GET", place, what, scope_of(self.reference.path, "pull"), headers, allow=(404,)
            ) as response:
                if response.status == 200:
                    document = self._listing(response, what)
                    found = [one for one in document.get("manifests", []) if isinstance(one, dict)]
                    return [
                        one for one in found if artifact_type in ("", one.get("artifactType", ""))
                    ]
        return []

    def _paged(self, path: str, key: str, what: str) -> Iterator[str]:
        """Yield the strings under `key` of a listing and of the pages that its Link headers name."""
        scope = scope_of(self.reference.path, "pull")
        for _ in range(MOST_PAGES):
            with self.client.request("GET", path, self._about(what), scope) as response:
                yield from (str(one) for one in self._listing(response, what).get(key) or [])
                following = NEXT_PAGE.search(response.header("Link"))
            if following is None:
                return
            path = following[1]
        raise BadContent(f"{self._where(what)}: more than {MOST_PAGES} pages")

    def _listing(self, response: Response, what: str) -> dict[str, Any]:
        """Return the JSON object of a listing. Raises BadContent."""
        try:
            document: dict[str, Any] = json.loads(self.read_all(response, PAGE_LIMIT, what))
            document.get("")
        except (ValueError, AttributeError, RecursionError) as error:
            raise BadContent(
                f"{self._where(what)}: the answer is no list; is this a registry?"
            ) from error
        return document

    def read_all(self, response: Response, limit: int, what: str) -> bytes:
        """Return a whole body of at most `limit` bytes. Raises BadContent for more, or less than promised."""
        promised = response.header("Content-Length")
        try:
            data = (
                b"" if promised.isdigit() and int(promised) > limit else _read(response, limit + 1)
            )
        except (OSError, http.client.HTTPException) as error:
            raise BadContent(
                f"{self._where(what)}: the answer broke off; remedy: try again"
            ) from error
        if len(data) > limit or (promised.isdigit() and int(promised) > limit):
            raise BadContent(f"{self._where(what)}: larger than {limit >> 20} MiB: refused")
        if promised.isdigit() and len(data) < int(promised):
            raise BadContent(
                f"{self._where(what)}: broke off after {len(data)} of {promised} bytes; remedy: try again"
            )
        return data

    def _about(self, target: str) -> str:
        if " " in target:
            return f"{self.name}, {target}"
        return f"{self.name}{'@' if ':' in target else ':'}{target}"

    def _where(self, what: str) -> str:
        return f"registry {self.client.domain}: {what}"


# %% notebooks/13_registry.ipynb#repository-helpers
def digest_of(data: bytes, algorithm: str) -> str:
    """Return the digest of bytes by one of the algorithms that image names may use."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _read(response: Response, limit: int) -> bytes:
    parts, left = [], limit
    while left > 0 and (data := response.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)
