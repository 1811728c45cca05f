# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#registries-module
"""Pull, push, search, login: the registry's functions, told to whom it concerns."""

from __future__ import annotations

import json

from mini_docker.images.child import unpack_beside
from mini_docker.images.layout import NoSuchImage, as_json
from mini_docker.images.reference import DEFAULT_DOMAIN, OLD_DOMAIN
from mini_docker.registry.account import try_login
from mini_docker.registry.credentials import Credentials, Login
from mini_docker.registry.errors import Denied, NotFound, Unauthorized
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
from mini_docker.registry.queries import open_repository, search, tags
from mini_docker.registry.settings import load_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from mini_docker.engine.store import Store
    from mini_docker.images.layout import Descriptor
    from mini_docker.images.reference import Reference


# %% notebooks/18c_objects.ipynb#registries
class Registries:
    """What the engine does with registries."""

    def __init__(
        self,
        store: Store,
        hold: Callable[[list[str]], AbstractContextManager[None]],
        publish: Callable[[str, str, str, dict[str, str]], None],
    ) -> None:
        """Hold the store that images come into, what keeps their layers meanwhile, and what tells of it."""
        self.store, self.hold, self.publish = store, hold, publish

    def pull(
        self,
        target: Reference,
        platform: str | None,
        who: Login | None,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """Bring an image and unpack it. Raises RegistryError, ImageError."""
        store, unpacked = self.store, list[str]()

        def unpack(layer: Descriptor, diff_id: str) -> None:
            unpacked.append(diff_id)
            unpack_beside(store.layout, layer, diff_id, f"{store.root}/layers")

        with self.hold(unpacked):
            got = pull(store.layout, target, platform=platform, credentials=Given(who),
                       settings=load_settings(), progress=tell, unpack=unpack)  # fmt: skip
        self._note(target, got)
        name = target.familiar()
        self.publish("image", "pull", name, {"name": target.familiar_repository()})

    def pull_all(
        self,
        target: Reference,
        platform: str | None,
        who: Login | None,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """Bring every image of a repository. Raises RegistryError, ImageError."""
        for tag in tags(target, Given(who), load_settings()):
            self.pull(target._replace(tag=tag), platform, who, tell)

    def here(self, target: Reference) -> list[Reference]:
        """Return the images of a repository that the store has. Raises NoSuchImage for none."""
        prefix = f"{target.familiar_repository()}:"
        names = [name for name in self.store.layout.names() if name.startswith(prefix)]
        if not names:
            words = f"An image does not exist locally with the tag: {prefix[:-1]}"
            raise NoSuchImage(words)
        return [target._replace(tag=name[len(prefix) :]) for name in names]

    def push(
        self, target: Reference, who: Login | None, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        """Send an image to its registry. Raises NoSuchImage, RegistryError, ImageError."""
        sent = push(
            self.store.layout,
            target,
            credentials=Given(who),
            settings=load_settings(),
            progress=tell,
        )
        self._note(target, sent)
        self.publish("image", "push", target.familiar(), {"name": target.familiar()})

    def _note(self, target: Reference, there: Descriptor) -> None:
        """Note under which digest a registry has an image: the RepoDigests of `docker inspect`."""
        if self.store.layout.has(there.digest):
            self.store.layout.tag(f"{target.familiar_repository()}@{there.digest}", there)

    def search(self, term: str, limit: int, who: Login | None) -> list[dict[str, Any]]:
        """Return what a registry finds, as Docker shows it. Raises RegistryError."""
        found = search(term, limit, Given(who), load_settings())
        return [
            {
                "name": one.name,
                "description": one.description,
                "star_count": one.stars,
                "is_official": one.official,
                "is_automated": False,
            }
            for one in found
        ]

    def try_login(self, body: dict[str, Any]) -> str:
        """Try a login at a registry; return the token that stands for the password from now on, or "".

        Raises RegistryError.
        """
        address = str(body.get("serveraddress") or DEFAULT_DOMAIN)
        domain = (address.partition("://")[2] or address).partition("/")[0]
        who = Login(str(body.get("username") or ""), str(body.get("password") or ""))
        domain = DEFAULT_DOMAIN if domain == OLD_DOMAIN else domain
        return try_login(domain, who, load_settings()).identity_token

    @staticmethod
    def registry_status(error: Exception) -> int:
        """Return the HTTP status that a registry's refusal becomes."""
        for kind, status in (
            (NotFound, 404),
            (NoSuchImage, 404),
            (Unauthorized, 500),
            (Denied, 404),
        ):
            if isinstance(error, kind):
                return status
        return 500

    @staticmethod
    def distribution(target: Reference, who: Login | None) -> dict[str, Any]:
        """Return what GET /distribution/NAME/json answers. Raises RegistryError."""
        with open_repository(target, Given(who), load_settings()) as repository:
            fetched = repository.manifest(target.target())
            entries = fetched.document.get("manifests") or []
            platforms = [entry["platform"] for entry in entries if entry.get("platform")]
            if not entries:
                digest = fetched.document["config"]["digest"]
                with repository.blob(digest) as response:
                    config = json.loads(response.read(1 << 22))
                platforms = [{"architecture": config.get("architecture"), "os": config.get("os")}]
        return {"Descriptor": as_json(fetched.descriptor), "Platforms": platforms}


class Given(Credentials):
    """The credentials that came with one request, and no others."""

    def __init__(self, who: Login | None) -> None:
        """Hold a login."""
        super().__init__()
        self.who = who

    def get(self, domain: str) -> Login | None:
        """Return the login, whatever the registry: the client chose it for this one."""
        return self.who
