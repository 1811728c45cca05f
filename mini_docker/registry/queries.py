# Exported from notebooks/13b_push.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13b_push.ipynb#queries-module
"""Questions to a registry: which images, which tags, what refers to one; and the deletion of one."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mini_docker.images.reference import (
    DEFAULT_DOMAIN,
    OFFICIAL,
    OLD_DOMAIN,
    Reference,
    split_domain,
)
from mini_docker.registry.client import Client, reach
from mini_docker.registry.credentials import Credentials
from mini_docker.registry.errors import BadContent
from mini_docker.registry.repository import PAGE_LIMIT, Repository
from mini_docker.registry.settings import Endpoint, Settings


# %% notebooks/13b_push.ipynb#queries
class Found(NamedTuple):
    """One line of a search."""

    name: str
    description: str
    stars: int
    official: bool


@contextmanager
def open_repository(
    reference: Reference, credentials: Credentials | None = None, settings: Settings | None = None
) -> Iterator[Repository]:
    """Talk to a repository inside a `with` statement."""
    login_of = (credentials or Credentials()).get
    client = reach(reference.domain, settings or Settings(), login_of, mirrors=False)[-1]
    try:
        yield Repository(client, reference)
    finally:
        client.close()


def tags(
    reference: Reference, credentials: Credentials | None = None, settings: Settings | None = None
) -> list[str]:
    """Return the tags of a repository. Raises RegistryError."""
    with open_repository(reference, credentials, settings) as repository:
        return repository.tags()


def delete(
    reference: Reference, credentials: Credentials | None = None, settings: Settings | None = None
) -> str:
    """Delete an image from its registry; return its digest. Raises RegistryError."""
    with open_repository(reference, credentials, settings) as repository:
        return repository.delete(reference.target())


def referrers(
    reference: Reference, credentials: Credentials | None = None, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """Return descriptors of what refers to an image. Raises RegistryError."""
    with open_repository(reference, credentials, settings) as repository:
        digest = reference.digest or repository.head(reference.target())
        return repository.referrers(digest)


# %% notebooks/13b_push.ipynb#search
def search(
    term: str,
    limit: int = 25,
    credentials: Credentials | None = None,
    settings: Settings | None = None,
) -> list[Found]:
    """Return what a registry finds for "term" or "registry/term", at most `limit`. Raises RegistryError.

    Docker Hub and those like it search by /v1/search. Others list their catalogue, of which we pick.
    """
    domain, rest = split_domain(term)
    words = rest.removeprefix(OFFICIAL)
    settings, login_of = settings or Settings(), (credentials or Credentials()).get
    if domain == DEFAULT_DOMAIN:
        client = Client(domain, Endpoint(f"https://{OLD_DOMAIN}"), settings, login_of(domain))
    else:
        client = reach(domain, settings, login_of)[-1]
    try:
        query = urllib.parse.urlencode({"q": words, "n": limit})
        document = _json(client, f"/v1/search?{query}", f"search for {words!r}")
        if document is not None:
            return [_found(one) for one in document.get("results") or []][:limit]
        document = _json(client, "/v2/_catalog?n=1000", "catalogue") or {}
        names = [str(name) for name in document.get("repositories") or [] if words in str(name)]
        return [Found(f"{domain}/{name}", "", 0, False) for name in names][:limit]
    finally:
        client.close()


def _json(client: Client, path: str, what: str) -> dict[str, Any] | None:
    """Return the JSON object at a path; None where there is no such path."""
    scope = "registry:catalog:*" if "_catalog" in path else ""
    with client.request("GET", path, what, scope, allow=(404,)) as response:
        data = response.read(PAGE_LIMIT)
        if response.status == 404:
            return None
    try:
        document = json.loads(data)
        if isinstance(document, dict):
            return document
    except (ValueError, RecursionError):
        pass
    raise BadContent(
        f"registry {client.domain}: {what}: the answer is no list; remedy: is this a registry?"
    )


def _found(entry: dict[str, Any]) -> Found:
    """Return a line of a search's answer, whatever it lacks."""
    stars = entry.get("star_count")
    return Found(
        str(entry.get("name") or ""),
        str(entry.get("description") or ""),
        stars if isinstance(stars, int) else 0,
        bool(entry.get("is_official")),
    )
