# Exported from notebooks/12_images.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12_images.ipynb#layout-module
"""The OCI image layout on disk: blobs named by their digest, and an index that gives them names."""

from __future__ import annotations

import json
import os
from collections import namedtuple

from mini_docker.images.reference import InvalidReference, parse_reference
from mini_docker.linux.files import Guard, sync_directory, write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Any, NamedTuple

    from mini_docker.images.ingest import Ingest, Lease

    class Descriptor(NamedTuple):
        """What a blob is, which one, and how many bytes. Source: OCI image-spec, descriptor.md."""

        media_type: str
        digest: str
        size: int

    class Image(NamedTuple):
        """A named image: its manifest's digest, its config, its layers from the lowest up.

        `id` is the config's digest: what `docker images` calls the image's ID.
        """

        name: str
        digest: str
        config: dict[str, Any]
        layers: tuple[Descriptor, ...]
        id: str

else:
    Descriptor = namedtuple("Descriptor", ("media_type", "digest", "size"))
    Image = namedtuple("Image", ("name", "digest", "config", "layers", "id"))


# %% notebooks/12_images.ipynb#words
MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TYPE_EMPTY = "application/vnd.oci.empty.v1+json"
MEDIA_TYPE_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEX_TYPES = frozenset({MEDIA_TYPE_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({MEDIA_TYPE_MANIFEST, DOCKER_MANIFEST})
LAYER_TYPES = frozenset(
    {DOCKER_LAYER, f"{DOCKER_LAYER}.gzip", f"{DOCKER_LAYER}.zstd"}
    | {f"{MEDIA_TYPE_LAYER}{how}" for how in ("", "+gzip", "+zstd")}
)
REF_NAME = "org.opencontainers.image.ref.name"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
REMEDY = "remedy: free some space, for instance with: mini_docker image prune"  # of a full disk
LARGEST_DOCUMENT = 8 << 20  # bytes; registries refuse manifests of more than 4 MiB


class ImageError(Exception):
    """An image that is not there or not what it says; the text names it and the remedy."""


class NoSuchImage(ImageError):
    """No image of that name in the layout."""


def full_name(name: str) -> str:
    """Return an image's name as the store keeps it, with its tag: "docker.io/busybox" is "busybox:latest".

    Raises ImageError for what Docker does not take. Chapter 13 has the grammar.
    """
    try:
        return parse_reference(name).familiar()
    except InvalidReference as error:
        words = str(error).removeprefix("invalid reference format: ")
        raise ImageError(f"invalid reference format: {words}") from None


# %% notebooks/12_images.ipynb#digest-type
class Digest(str):
    """A blob's name: algorithm, colon, hex digits of its bytes' hash. Source: OCI descriptor.md."""

    __slots__ = ()
    LENGTHS = {"sha256": 64, "sha512": 128}
    HEX = frozenset("0123456789abcdef")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return `text` as a digest. Raises ImageError for what is none, and for unknown algorithms."""
        algorithm, _, encoded = text.partition(":")
        if len(encoded) != cls.LENGTHS.get(algorithm) or not cls.HEX.issuperset(encoded):
            raise ImageError(f"{text[:200]!r} is not a sha256 or sha512 digest")
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of `data`."""
        import hashlib  # only writers and verifiers need it: it costs a run 3 ms

        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The part before the colon: "sha256"."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The part after the colon: hex digits."""
        return self.partition(":")[2]


# %% notebooks/12_images.ipynb#entries
def checked_entry(entry: Any) -> dict[str, Any]:
    """Return a descriptor in JSON that has the right shape. Raises TypeError, KeyError."""
    if not isinstance(entry, dict) or not isinstance(entry["digest"], str):
        raise TypeError(f"{entry!r} is no descriptor")
    for key in ("annotations", "platform"):
        if not isinstance(entry.get(key) or {}, dict):
            raise TypeError(f"{key} of {entry['digest']} are no object")
    checked: dict[str, Any] = entry
    return checked


def entry_name(entry: dict[str, Any]) -> str | None:
    """Return what an entry of index.json calls its image; None for one that has lost its name."""
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return name if isinstance(name, str) else None


def as_json(descriptor: Descriptor) -> dict[str, Any]:
    """Return a descriptor as it stands in a manifest."""
    media_type, digest, size = descriptor
    return {"mediaType": media_type, "digest": digest, "size": size}


def as_descriptor(entry: dict[str, Any]) -> Descriptor:
    """Return the descriptor of an entry. Raises ImageError, KeyError, TypeError for one that is none."""
    size = entry["size"]
    if not isinstance(size, int) or size < 0:
        raise TypeError(f"size {size!r} of {entry['digest']}")
    return Descriptor(str(entry.get("mediaType", "")), Digest.parse(entry["digest"]), size)


def this_platform() -> str:
    """Return what this machine runs, as Docker writes it: "linux/amd64"."""
    machine = os.uname().machine
    return f"linux/{ARCHITECTURE.get(machine, machine)}"


def platform_of(entry: dict[str, Any]) -> str:
    """Return the platform of an index's entry, "linux/arm64/v8"; "" where it says none."""
    platform = entry.get("platform") or {}
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(str(part) for part in parts if part).replace("arm64/v8", "arm64")


def choose(entries: list[dict[str, Any]], wanted: str, name: str) -> dict[str, Any]:
    """Return the entry for the platform `wanted`: the exact one, one with a variant, one that says nothing.

    Raises ImageError, which lists the platforms that there are.
    """
    wanted = wanted.replace("arm64/v8", "arm64")
    by_platform: dict[str, dict[str, Any]] = {
        platform_of(entry): entry for entry in reversed(entries)
    }
    for platform in (wanted, *sorted(by_platform), ""):
        fits = platform in (wanted, "") or platform.startswith(f"{wanted}/")
        if fits and platform in by_platform:
            return by_platform[platform]
    known = ", ".join(map(platform_of, entries)) or "none at all"
    raise ImageError(f"image {name} is not made for {wanted}, only for: {known}")


# %% notebooks/12_images.ipynb#layout
class Layout:
    """An OCI image layout in `directory` (oci-layout, index.json, blobs/sha256/). Source: image-layout.md."""

    def __init__(self, directory: str) -> None:
        """Name the layout; `create` makes it."""
        self.directory = directory

    def create(self) -> None:
        """Make an empty layout where none is; one that is there stays as it is."""
        for name in (*(f"blobs/{algorithm}" for algorithm in Digest.LENGTHS), "ingest", "leases"):
            os.makedirs(f"{self.directory}/{name}", exist_ok=True)
        if os.path.exists(self._index_path) and os.path.exists(f"{self.directory}/oci-layout"):
            return
        with self.lock():
            write_atomically(f"{self.directory}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            if not os.path.exists(self._index_path):
                self.write_index([])

    @property
    def _index_path(self) -> str:
        return f"{self.directory}/index.json"

    def lock(self, shared: bool = False) -> Guard:
        """Return the lock of index.json and of who holds what, for a `with` statement; held shortly."""
        return Guard(f"{self.directory}/lock", shared)

    def blob_path(self, digest: str) -> str:
        """Return where the blob of `digest` lies. Raises ImageError for what is no digest."""
        parsed = Digest.parse(digest)
        return f"{self.directory}/blobs/{parsed.algorithm}/{parsed.encoded}"

    def has(self, digest: str) -> bool:
        """Return whether the blob is here: whole, because it got its name only then."""
        return os.path.exists(self.blob_path(digest))

    def read_json(self, digest: str) -> dict[str, Any]:
        """Return the JSON object in the blob of `digest`. Raises ImageError, also beyond 8 MB."""
        try:
            with open(self.blob_path(digest), "rb") as file:
                data = file.read(LARGEST_DOCUMENT)
            document = json.loads(data)
        except (OSError, ValueError, RecursionError) as error:
            raise ImageError(
                f"blob {digest} of {self.directory} cannot be read: {error}"
            ) from error
        if not isinstance(document, dict):
            raise ImageError(f"blob {digest} of {self.directory} is not a JSON object")
        return document

    def entries(self) -> list[dict[str, Any]]:
        """Return the index's descriptors as they stand in index.json; none where there is no index.

        Raises ImageError, naming the file, for an index that is damaged.
        """
        try:
            with open(self._index_path, "rb") as file:
                return [
                    checked_entry(entry) for entry in list(json.loads(file.read())["manifests"])
                ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ImageError(f"{self._index_path} cannot be read: {error!r}") from error

    def stamp(self) -> tuple[int, ...]:
        """Return what is another with each writing of the index; nothing where there is none."""
        try:
            found = os.stat(self._index_path)
        except FileNotFoundError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def write_index(self, manifests: list[dict[str, Any]]) -> None:
        """Replace index.json, atomically. The caller holds `lock` since it read the old one.

        The blobs' own names are on the disk before: a power cut leaves no name that leads nowhere.
        """
        for path in (f"{self.directory}/blobs/{algorithm}" for algorithm in Digest.LENGTHS):
            if os.path.isdir(path):
                sync_directory(path)
        index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests}
        write_atomically(self._index_path, json.dumps(index, sort_keys=True).encode())

    def names(self) -> list[str]:
        """Return the names in the index, sorted; a bare tag, as skopeo writes, is a name too."""
        return sorted(set(filter(None, map(entry_name, self.entries()))))

    def image(self, name: str) -> Image:
        """Return the image called `name` for this machine. Raises NoSuchImage, or ImageError if broken."""
        return self.resolve(name, this_platform())

    def resolve(self, name: str, platform: str) -> Image:
        """Return the image called `name` for `platform` ("linux/arm64"), by its index if it has one.

        Raises NoSuchImage; ImageError for a broken layout or an image that is not made for `platform`.
        """
        wanted = full_name(name)
        found = [entry for entry in self.entries() if entry_name(entry) in (wanted, name)]
        if not found:
            raise NoSuchImage(f"No such image: {wanted}")
        return self.open_image(wanted, choose(found, platform, wanted), platform)

    def open_image(self, name: str, entry: dict[str, Any], platform: str) -> Image:
        """Return the image that `entry`, of the index or of an image's own index, leads to."""
        document = self.read_json(entry["digest"])
        try:
            if "manifests" in document:
                inner = choose([checked_entry(e) for e in document["manifests"]], platform, name)
                return self._read_image(name, inner["digest"], self.read_json(inner["digest"]))
            return self._read_image(name, entry["digest"], document)
        except (KeyError, TypeError, AttributeError) as error:
            raise ImageError(f"image {name}: its manifest or config lacks {error}") from error

    def _read_image(self, name: str, digest: str, manifest: dict[str, Any]) -> Image:
        """Return the image of a manifest. Raises ImageError, and KeyError or TypeError for what it lacks."""
        if manifest.get("schemaVersion") == 1:
            raise ImageError(
                f"image {name}: a manifest of schema 1; push it again with a Docker of today"
            )
        config_digest = manifest["config"]["digest"]
        kind = manifest.get("artifactType") or manifest["config"].get(
            "mediaType", MEDIA_TYPE_CONFIG
        )
        if kind not in (MEDIA_TYPE_CONFIG, DOCKER_CONFIG):
            raise ImageError(f"{name} is an artifact of type {kind[:100]}, no image that can run")
        config = self.read_json(config_digest)
        layers = tuple(map(as_descriptor, manifest["layers"]))
        diff_ids = config["rootfs"]["diff_ids"]
        for diff_id in diff_ids:
            Digest.parse(diff_id)
        if len(diff_ids) != len(layers):
            raise ImageError(f"image {name}: {len(layers)} layers but {len(diff_ids)} diff_ids")
        return Image(name, digest, config, layers, config_digest)

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Make `name` mean `descriptor`, atomically; what it meant before stays, without a name.

        Raises ImageError for a descriptor whose blob is not here.
        """
        full = full_name(name)
        if not self.has(descriptor.digest):
            raise ImageError(f"{full}: its manifest {descriptor.digest} is not in the store")
        with self.lock():
            old = self.entries()
            kept = [entry for entry in old if entry_name(entry) != full]
            self.write_index(
                [*without_twins(old, kept, descriptor.digest), name_entry(descriptor, full)]
            )

    def untag(self, name: str) -> None:
        """Take the name away, atomically; the image stays, without a name. Raises NoSuchImage."""
        full = full_name(name)
        with self.lock():
            old = self.entries()
            kept = [entry for entry in old if entry_name(entry) not in (full, name)]
            if len(kept) == len(old):
                raise NoSuchImage(f"No such image: {full}")
            self.write_index(without_twins(old, kept, ""))

    def keep(self, descriptor: Descriptor) -> None:
        """Let an image stay without a name. Raises ImageError for one that is not here."""
        if not self.has(descriptor.digest):
            raise ImageError(f"manifest {descriptor.digest} is not in the store")
        with self.lock():
            old = self.entries()
            if descriptor.digest not in [entry["digest"] for entry in old]:
                self.write_index([*old, as_json(descriptor)])

    def forget(self, digests: Sequence[str]) -> None:
        """Let go of the images that are kept without a name: the next collection removes them."""
        with self.lock():
            old = self.entries()
            kept = [e for e in old if entry_name(e) or e["digest"] not in digests]
            self.write_index(kept)

    def name_image(self, name: str, manifest: dict[str, Any]) -> Descriptor:
        """Store `manifest` and make `name` mean it."""
        data = json.dumps(manifest, sort_keys=True).encode()
        descriptor = self.put(data, manifest.get("mediaType", MEDIA_TYPE_MANIFEST))
        self.tag(name, descriptor)
        return descriptor

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small blob under its digest, durably, and describe it; one that is there is left alone."""
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        with self.ingest(descriptor) as ingest:
            if ingest.offset < len(data):
                ingest.write(data[ingest.offset :])
            ingest.commit()
        return descriptor

    def ingest(self, descriptor: Descriptor) -> Ingest:
        """Begin, or go on with, the blob of `descriptor`. Raises ImageError."""
        from mini_docker.images import ingest  # writers only, for it imports hashlib; chapter 12c

        begin: Any = ingest.Ingest
        begun: Ingest = begin(self, descriptor)
        return begun

    def open_blob(self, digest: str) -> IO[bytes]:
        """Open a blob for reading. Raises ImageError for one that is not here."""
        try:
            return open(self.blob_path(digest), "rb")
        except OSError as error:
            raise ImageError(f"blob {digest} cannot be read: {error}") from error

    def lease(self, resumable: bool = False) -> Lease:
        """Return a lease, for a `with` statement: what it holds, no garbage collection removes."""
        from mini_docker.images import ingest

        begin: Any = ingest.Lease
        lease: Lease = begin(self, resumable)
        return lease


def name_entry(descriptor: Descriptor, name: str) -> dict[str, Any]:
    """Return the entry of index.json that calls `descriptor` by `name`."""
    return {**as_json(descriptor), "annotations": {REF_NAME: name}}


def without_twins(
    old: list[dict[str, Any]], kept: list[dict[str, Any]], named: str
) -> list[dict[str, Any]]:
    """Return `kept`, and without a name each image of `old` that would be lost; drop it where it has one.

    `named` is the digest of the image that is about to get a name.
    """
    known = {named} | {entry["digest"] for entry in kept if entry_name(entry)}
    nameless = {entry["digest"]: entry for entry in old if entry["digest"] not in known}
    for entry in nameless.values():
        annotations = entry.get("annotations") or {}
        entry["annotations"] = {k: v for k, v in annotations.items() if k != REF_NAME}
    return [*(entry for entry in kept if entry_name(entry)), *nameless.values()]
