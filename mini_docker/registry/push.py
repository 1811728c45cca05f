# Exported from notebooks/13b_push.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13b_push.ipynb#push-module
"""Push: first the blobs, then what refers to them, and the name last of all."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import Any

from mini_docker.images.ingest import children, is_whole
from mini_docker.images.layout import (
    INDEX_TYPES,
    MEDIA_TYPE_INDEX,
    Descriptor,
    ImageError,
    Layout,
    NoSuchImage,
    as_descriptor,
    as_json,
    choose,
    entry_name,
    this_platform,
)
from mini_docker.images.reference import InvalidReference, Reference, parse_reference
from mini_docker.registry.client import Client, reach, scope_of
from mini_docker.registry.credentials import Credentials
from mini_docker.registry.errors import BadContent, NotFound
from mini_docker.registry.repository import MANIFEST_LIMIT, Repository, digest_of
from mini_docker.registry.settings import Settings
from mini_docker.registry.together import Progress, Voice, side_by_side
from mini_docker.registry.uploads import Upload

# %% notebooks/13b_push.ipynb#push
Tell = Callable[..., None]


def push(
    store: Layout,
    reference: Reference,
    *,
    credentials: Credentials | None = None,
    settings: Settings | None = None,
    progress: Progress = lambda message: None,
) -> Descriptor:
    """Give an image of `store` to its registry; return what its name means there now.

    An index goes with all its images, if all of them are here; otherwise the one for this machine goes alone.
    `progress` gets Docker's progress messages as dicts. Raises NoSuchImage, RegistryError, ImageError.
    """
    settings, login_of = settings or Settings(), (credentials or Credentials()).get
    top = find(store, reference)
    client = reach(reference.domain, settings, login_of, mirrors=False)[-1]
    try:
        return _Push(store, reference, client, progress).run(top)
    finally:
        client.close()


def find(store: Layout, reference: Reference) -> Descriptor:
    """Return the descriptor that a name means in a store. Raises NoSuchImage in Docker's words."""
    for entry in store.entries():
        if entry_name(entry) == reference.familiar():
            return as_descriptor(entry)
    raise NoSuchImage(
        f"An image does not exist locally with the tag: {reference.familiar_repository()}"
        + (f":{reference.tag}" if reference.tag else "")
    )


# %% notebooks/13b_push.ipynb#one-push
class _Push:
    """One push to one registry."""

    def __init__(
        self, store: Layout, reference: Reference, client: Client, progress: Progress
    ) -> None:
        self.store, self.reference, self.client = store, reference, client
        self.repository = Repository(client, reference)
        self.voice = Voice(progress)

    def run(self, top: Descriptor) -> Descriptor:
        """Send blobs, then manifests, the one with the name last; return its descriptor."""
        self.voice.say({"status": f"The push refers to repository [{self.reference.repository()}]"})
        manifests = self._manifests(top)
        blobs: dict[str, Descriptor] = {}
        configs = set()
        for manifest in manifests:
            document = self.store.read_json(manifest.digest)
            if manifest.media_type not in INDEX_TYPES:
                for entry in children(document, manifest.digest):
                    blobs[entry["digest"]] = as_descriptor(entry)
                configs.add(document["config"]["digest"])
        self._all_blobs(list(blobs.values()), configs)
        for manifest in manifests[:-1]:
            self._put_manifest(manifest, manifest.digest)
        top = manifests[-1]
        self._put_manifest(top, self.reference.target())
        tag = self.reference.tag or self.reference.digest or ""
        self.voice.say({"status": f"{tag}: digest: {top.digest} size: {top.size}"})
        aux = {"Tag": tag, "Digest": top.digest, "Size": top.size}
        self.voice.say({"progressDetail": {}, "aux": aux})
        return top

    def _manifests(self, top: Descriptor) -> list[Descriptor]:
        """Return the manifests to send, those that others refer to first."""
        if top.media_type not in INDEX_TYPES:
            return [top]
        entries = self.store.read_json(top.digest)["manifests"]
        inner = [as_descriptor(entry) for entry in entries]
        if is_whole(self.store, as_json(top)):
            return [*(found for one in inner for found in self._manifests(one)), top]
        chosen = as_descriptor(choose(entries, this_platform(), self.reference.familiar()))
        return self._manifests(chosen)

    def _all_blobs(self, blobs: list[Descriptor], configs: set[str]) -> None:
        """Upload side by side."""
        shown = [blob for blob in blobs if blob.digest not in configs]
        for blob in shown:
            self.voice.tell(blob, "Preparing")
        neighbours = self._neighbours()
        tasks = [
            partial(self._upload, blob, neighbours.get(blob.digest, []), blob in shown)
            for blob in blobs
        ]
        side_by_side(self.client, self.client.settings.max_concurrent_uploads, tasks)

    def _upload(self, blob: Descriptor, elsewhere: list[Reference], shown: bool) -> None:
        tell: Tell = partial(self.voice.tell, blob) if shown else lambda status, current=0: None
        open_blob = partial(self.store.open_blob, blob.digest)
        upload = Upload(self.repository, blob, open_blob, lambda at: tell("Pushing", at))
        tell(upload.run(elsewhere))

    def _neighbours(self) -> dict[str, list[Reference]]:
        """Return, for each blob here, other repositories of the same registry that should have it too."""
        found: dict[str, list[Reference]] = {}
        for entry in self.store.entries():
            try:
                other = parse_reference(entry_name(entry) or "")
                same = other.domain == self.reference.domain and other.path != self.reference.path
                parts = children(self.store.read_json(entry["digest"]), "") if same else []
            except (InvalidReference, ImageError):
                continue  # what cannot be read is no help, and no harm
            for part in parts:
                found.setdefault(part["digest"], []).append(other)
        return found

    def _put_manifest(self, manifest: Descriptor, target: str) -> None:
        """Send a manifest under a tag or its digest; the registry must have kept these very bytes."""
        with self.store.open_blob(manifest.digest) as file:
            data = file.read(MANIFEST_LIMIT + 1)
        if digest_of(data, manifest.digest.partition(":")[0]) != manifest.digest:
            raise ImageError(
                f"{manifest.digest} is damaged in the store; remedy: pull or load it again"
            )
        headers = {"Content-Type": manifest.media_type, "Content-Length": str(len(data))}
        subject = json.loads(data).get("subject")
        kept, knows_subject = self._put(target, headers, data)
        if kept not in ("", manifest.digest):
            raise BadContent(
                f"registry {self.client.domain}: {self.repository.name}:{target}: it kept {kept}, "
                f"and not {manifest.digest}; remedy: push again"
            )
        if subject and not knows_subject:
            self._note_referrer(str(subject["digest"]), manifest, json.loads(data))

    def _put(self, target: str, headers: dict[str, str], data: bytes) -> tuple[str, bool]:
        path = f"{self.repository.path}/manifests/{urllib.parse.quote(target, safe=':')}"
        what, scope = f"{self.repository.name}:{target}", scope_of(self.reference.path, "pull,push")
        with self.client.request("PUT", path, what, scope, headers, data) as response:
            response.read(MANIFEST_LIMIT)
            digest = response.header("Docker-Content-Digest")
            return digest, bool(response.header("OCI-Subject"))

    def _note_referrer(self, subject: str, manifest: Descriptor, document: dict[str, Any]) -> None:
        """Keep the list of referrers ourselves, in a tag, where the registry does not.

        Source: distribution-spec 1.1, "Referrers Tag Schema".
        """
        tag = subject.replace(":", "-", 1)
        try:
            entries = self.repository.manifest(tag).document.get("manifests", [])
        except NotFound:
            entries = []
        media_type, digest, size = manifest
        kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
        entry = {"mediaType": media_type, "digest": digest, "size": size, "artifactType": kind}
        others = [one for one in entries if one.get("digest") != digest]
        index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": [*others, entry]}
        data = json.dumps(index, sort_keys=True).encode()
        self._put(tag, {"Content-Type": MEDIA_TYPE_INDEX, "Content-Length": str(len(data))}, data)
