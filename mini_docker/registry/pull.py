# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#pull-module
"""Pull: a name becomes verified blobs in the store. What is not checked gets no name and is not unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from mini_docker.images.ingest import Lease
from mini_docker.images.layout import (
    DOCKER_CONFIG,
    INDEX_TYPES,
    LAYER_TYPES,
    MEDIA_TYPE_CONFIG,
    Descriptor,
    ImageError,
    Layout,
    as_descriptor,
    checked_entry,
    choose,
    entry_name,
    platform_of,
    this_platform,
)
from mini_docker.images.reference import Reference
from mini_docker.registry.client import Client, reach
from mini_docker.registry.credentials import Credentials
from mini_docker.registry.download import Download
from mini_docker.registry.errors import BadContent, NotFound, RegistryError, Unreachable
from mini_docker.registry.repository import Fetched, Repository
from mini_docker.registry.settings import Settings
from mini_docker.registry.together import Progress, Voice, side_by_side

# %% notebooks/13_registry.ipynb#pull
Unpack = Callable[[Descriptor, str], object]  # (layer, its diff_id), once the blob is verified
CONFIG_LIMIT = 8 << 20  # bytes
CONFIG_TYPES = (MEDIA_TYPE_CONFIG, DOCKER_CONFIG)
MOST_LAYERS = 500
MOST_INDEXES = 2  # an index may lead to an index, and no further


def pull(
    store: Layout,
    reference: Reference,
    *,
    platform: str | None = None,
    credentials: Credentials | None = None,
    settings: Settings | None = None,
    progress: Progress = lambda message: None,
    unpack: Unpack | None = None,
) -> Descriptor:
    """Bring an image into `store` and name it there; return what its name means in the registry.

    `platform` is "os/architecture[/variant]"; `progress` gets Docker's progress messages as dicts. Each layer
    goes to `unpack` as soon as its blob is verified. Raises RegistryError, ImageError: the store then has the
    names and blobs that it had before, and where a connection broke the beginnings, for the next pull.
    """
    settings = settings or Settings()
    clients = reach(reference.domain, settings, (credentials or Credentials()).get)
    try:
        for client in clients[:-1]:
            try:
                return _Pull(store, reference, client, progress, unpack).run(platform)
            except RegistryError as error:
                progress({"status": f"{error}; going on without this mirror"})
        return _Pull(store, reference, clients[-1], progress, unpack).run(platform)
    finally:
        for client in clients:
            client.close()


# %% notebooks/13_registry.ipynb#one-pull
class _Pull:
    """One pull from one registry."""

    def __init__(
        self,
        store: Layout,
        reference: Reference,
        client: Client,
        progress: Progress,
        unpack: Unpack | None,
    ) -> None:
        self.store, self.reference, self.client = store, reference, client
        self.repository = Repository(client, reference)
        self.unpack, self.voice = unpack, Voice(progress)
        self.where = f"registry {client.domain}: {reference.familiar()}"

    def run(self, platform: str | None) -> Descriptor:
        """Bring all in, and return what the name means; a broken pull leaves what another can go on from."""
        top = self.repository.manifest(self.reference.target())
        tag = self.reference.digest or self.reference.tag or ""
        self.voice.say({"status": f"Pulling from {self.reference.path}", "id": tag})
        with self.store.lease() as lease:
            lease.resumable = True
            try:
                fresh = self._bring_all(lease, top, platform)
            except (Unreachable, KeyboardInterrupt):
                raise
            except BaseException:
                lease.resumable = False  # what came is of no use
                raise
        self.voice.say({"status": f"Digest: {top.descriptor.digest}"})
        words = "Downloaded newer image" if fresh else "Image is up to date"
        self.voice.say({"status": f"Status: {words} for {self.reference.familiar()}"})
        return top.descriptor

    def _bring_all(self, lease: Lease, top: Fetched, platform: str | None) -> bool:
        """Bring the image and name it; return whether the name meant another one before."""
        chosen = self._choose(top, platform or this_platform())
        self._bring(lease, chosen, platform)
        for fetched in (chosen, top):
            Download(lease, self.repository, fetched.descriptor, lambda *_: None).take(fetched.data)
        name, kept = self.reference.familiar(), (chosen if platform else top).descriptor
        before = {entry_name(entry): entry["digest"] for entry in self.store.entries()}
        self.store.tag(name, kept)
        return before.get(name) != kept.digest

    def _choose(self, top: Fetched, platform: str) -> Fetched:
        """Return the manifest for a platform, through indexes."""
        chosen, depth = top, 0
        while chosen.descriptor.media_type in INDEX_TYPES:
            depth += 1
            if depth > MOST_INDEXES:
                raise BadContent(f"{self.where}: an index in an index in an index: refused")
            try:
                entries = [checked_entry(entry) for entry in chosen.document["manifests"]]
                entry = as_descriptor(choose(entries, platform, self.reference.familiar()))
            except (KeyError, TypeError) as error:
                raise BadContent(f"{self.where}: its index lacks {error}: refused") from error
            except ImageError as error:
                raise NotFound(
                    f"{self.where}: {error}; remedy: --platform with one of those"
                ) from error
            chosen = self.repository.manifest(entry.digest, entry)
        return chosen

    def _bring(self, lease: Lease, image: Fetched, platform: str | None) -> None:
        """Bring config and layers into the store, several at once."""
        config, layers = self._parts(image)
        diff_ids = self._config(lease, config, platform)
        if len(diff_ids) != len(layers) or len(layers) > MOST_LAYERS:
            raise BadContent(
                f"{self.where}: {len(layers)} layers, {len(diff_ids)} diff_ids: refused"
            )
        missing = {layer.digest: layer for layer in layers if not lease.has(layer.digest)}
        self._check_room(sum(layer.size for layer in missing.values()))
        for layer in layers:
            self.voice.tell(
                layer, "Pulling fs layer" if layer.digest in missing else "Already exists"
            )
        wanted = {layer.digest: (layer, name) for layer, name in zip(layers, diff_ids, strict=True)}
        self._all_layers(lease, list(wanted.values()), set(missing))

    def _parts(self, image: Fetched) -> tuple[Descriptor, list[Descriptor]]:
        """Return the config and the layers that a manifest names, of kinds and sizes that can be."""
        try:
            config = as_descriptor(checked_entry(image.document["config"]))
            layers = [as_descriptor(checked_entry(one)) for one in image.document["layers"]]
        except (KeyError, TypeError, ImageError) as error:
            raise BadContent(f"{self.where}: its manifest lacks {error}: refused") from error
        kind = image.document.get("artifactType") or config.media_type
        if kind not in CONFIG_TYPES:
            raise BadContent(
                f"{self.where}: an artifact of type {str(kind)[:100]!r}, no image; "
                "remedy: other programs read it"
            )
        for layer in layers:
            if layer.media_type not in LAYER_TYPES:
                raise BadContent(
                    f"{self.where}: a layer of the unknown media type {layer.media_type!r}: refused"
                )
        if config.size > CONFIG_LIMIT:
            raise BadContent(f"{self.where}: a config of {config.size} bytes: refused")
        return config, layers

    def _config(self, lease: Lease, config: Descriptor, platform: str | None) -> list[str]:
        """Bring the config into the store and return its diff_ids."""
        if not lease.has(config.digest):
            with self.repository.blob(config.digest) as response:
                data = self.repository.read_all(response, CONFIG_LIMIT, self.reference.familiar())
            Download(lease, self.repository, config, lambda *_: None).take(data)
        try:
            document = self.store.read_json(config.digest)
            diff_ids = [str(one) for one in document["rootfs"]["diff_ids"]]
            have = platform_of({"platform": document})
        except (KeyError, TypeError, ImageError) as error:
            raise BadContent(
                f"{self.where}: its config is none of an image: {error}: refused"
            ) from error
        if platform and platform.split("/")[:2] != have.split("/")[:2]:
            raise NotFound(
                f"{self.where}: image with reference {self.reference.familiar()} was found but does "
                f"not match the specified platform: wanted {platform}, actual: {have}; "
                f"remedy: --platform {have}"
            )
        return diff_ids

    def _check_room(self, size: int) -> None:
        """Refuse before the first byte what cannot fit. Raises RegistryError."""
        room = os.statvfs(self.store.directory)
        free = room.f_bavail * room.f_frsize
        if size > free:
            raise RegistryError(
                f"{self.where}: no space left on device: {size} bytes are to come, {free} are free at "
                f"{self.store.directory}; remedy: make room, for instance with: mini_docker image prune"
            )

    def _all_layers(
        self, lease: Lease, parts: list[tuple[Descriptor, str]], missing: set[str]
    ) -> None:
        """Download and unpack side by side."""
        tasks = [partial(self._layer, lease, *part, part[0].digest in missing) for part in parts]
        side_by_side(self.client, self.client.settings.max_concurrent_downloads, tasks)

    def _layer(self, lease: Lease, layer: Descriptor, diff_id: str, missing: bool) -> None:
        """Download a layer where it is missing, unpack it where that is asked for, and say so."""
        if missing:
            Download(lease, self.repository, layer, partial(self.voice.tell, layer)).run()
            self.voice.tell(layer, "Download complete")
        if self.unpack:
            self.voice.tell(layer, "Extracting")
            try:
                self.unpack(layer, diff_id)
            except ImageError as error:
                remedy = "" if "remedy:" in str(error) else "; remedy: tell the image's maker"
                raise BadContent(f"{self.where}: {error}{remedy}") from error
        if missing:
            self.voice.tell(layer, "Pull complete")
