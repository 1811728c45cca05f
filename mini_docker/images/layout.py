# Exported from notebooks/12_images.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12_images.ipynb#layout-module
"""The OCI image layout on disk: blobs named by their digest, and an index that gives them names."""

from __future__ import annotations

import json
import os
import re
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    class Descriptor(NamedTuple):
        """What a blob is, which one, and how many bytes. Source: OCI image-spec, descriptor.md."""

        media_type: str
        digest: str
        size: int

    class Image(NamedTuple):
        """A named image: its manifest's digest, its config, and its layers from the lowest up."""

        name: str
        digest: str
        config: dict[str, Any]
        layers: tuple[Descriptor, ...]

else:
    Descriptor = namedtuple("Descriptor", ("media_type", "digest", "size"))
    Image = namedtuple("Image", ("name", "digest", "config", "layers"))


# %% notebooks/12_images.ipynb#words
MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TYPE_LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
HEX = frozenset("0123456789abcdef")
# host[:port]/part/part:tag@digest, where only a first part with a dot or a colon, or localhost, is a host
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_HOST = rf"(?=[^/]*[.:]|localhost/)(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
NAME = re.compile(
    rf"(?P<path>(?:{_HOST}/)?{_PART}(?:/{_PART})*)"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)
HEX_NAME = re.compile(r"[0-9a-f]{64}")
LONGEST_NAME = 255


class ImageError(Exception):
    """An image that is not there or not what it says; the text names it and the remedy."""


class NoSuchImage(ImageError):
    """No image of that name in the layout."""


def full_name(name: str) -> str:
    """Return an image's name with its tag: "busybox" is "busybox:latest".

    Raises ImageError for what Docker does not take. Source: distribution's reference grammar.
    """
    found = NAME.fullmatch(name)
    if found is None or len(found["path"]) > LONGEST_NAME or HEX_NAME.fullmatch(name):
        raise ImageError(f"invalid reference format: {name!r} is no image name")
    return name if found["tag"] or found["digest"] else f"{name}:latest"


def sha256(data: bytes) -> str:
    """Return the digest of `data`, "sha256:" and 64 hex digits."""
    import hashlib  # only writers and verifiers need it: it costs a run 3 ms

    return "sha256:" + hashlib.sha256(data).hexdigest()


# %% notebooks/12_images.ipynb#write-atomically
def _checked_entry(entry: Any) -> dict[str, Any]:
    """Return an entry of the index that has the right shape. Raises TypeError, KeyError."""
    if not isinstance(entry, dict) or not isinstance(entry["digest"], str):
        raise TypeError(f"{entry!r} is no descriptor")
    if not isinstance(entry.get("annotations") or {}, dict):
        raise TypeError(f"annotations of {entry['digest']} are no object")
    return entry


def _entry_name(entry: dict[str, Any]) -> str | None:
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return name if isinstance(name, str) else None


def write_atomically(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is either whole or not there, whatever dies: temporary name, fsync, rename."""
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


# %% notebooks/12_images.ipynb#layout
class Layout:
    """An OCI image layout in `directory` (oci-layout, index.json, blobs/sha256/). Source: image-layout.md."""

    def __init__(self, directory: str) -> None:
        """Name the layout; `create` makes it."""
        self.directory = directory

    def create(self) -> None:
        """Make an empty layout where none is; one that is there stays as it is."""
        os.makedirs(f"{self.directory}/blobs/sha256", exist_ok=True)
        marker = f"{self.directory}/oci-layout"
        if not os.path.exists(marker):
            write_atomically(marker, b'{"imageLayoutVersion": "1.0.0"}')
        if not os.path.exists(self._index_path):
            self._write_index([])

    @property
    def _index_path(self) -> str:
        return f"{self.directory}/index.json"

    def blob_path(self, digest: str) -> str:
        """Return where the blob of `digest` lies. Raises ImageError for what is no sha256 digest."""
        algorithm, _, encoded = digest.partition(":")
        if algorithm != "sha256" or len(encoded) != 64 or not HEX.issuperset(encoded):
            raise ImageError(f"{digest!r} is not a sha256 digest")
        return f"{self.directory}/blobs/sha256/{encoded}"

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store a blob under its digest, durably, and describe it; one that is there is left alone."""
        digest = sha256(data)
        path = self.blob_path(digest)
        if not os.path.exists(path):
            write_atomically(path, data)
        return Descriptor(media_type, digest, len(data))

    def read_json(self, digest: str) -> dict[str, Any]:
        """Return the JSON object in the blob of `digest`. Raises ImageError."""
        try:
            with open(self.blob_path(digest), "rb") as file:
                document = json.loads(file.read())
        except (OSError, ValueError) as error:
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
                    _checked_entry(entry) for entry in list(json.loads(file.read())["manifests"])
                ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ImageError(f"{self._index_path} cannot be read: {error!r}") from error

    def names(self) -> list[str]:
        """Return the names in the index, sorted; a bare tag, as skopeo writes, is a name too."""
        return sorted(filter(None, map(_entry_name, self.entries())))

    def image(self, name: str) -> Image:
        """Return the image called `name`. Raises NoSuchImage, or ImageError for a broken layout."""
        wanted = full_name(name)
        for entry in self.entries():
            if _entry_name(entry) in (wanted, name):
                return self._read_image(wanted, entry["digest"])
        raise NoSuchImage(f"No such image: {wanted}")

    def _read_image(self, name: str, digest: str) -> Image:
        manifest = self.read_json(digest)
        try:
            config = self.read_json(manifest["config"]["digest"])
            layers = tuple(
                Descriptor(layer["mediaType"], layer["digest"], layer["size"])
                for layer in manifest["layers"]
            )
            diff_ids = config["rootfs"]["diff_ids"]
            for named in (*diff_ids, *(layer.digest for layer in layers)):
                self.blob_path(named)
        except (KeyError, TypeError, AttributeError) as error:
            raise ImageError(f"image {name}: its manifest or config lacks {error}") from error
        if len(diff_ids) != len(layers):
            raise ImageError(f"image {name}: {len(layers)} layers but {len(diff_ids)} diff_ids")
        return Image(name, digest, config, layers)

    def name_image(self, name: str, manifest: dict[str, Any]) -> Descriptor:
        """Store `manifest` and make `name` mean it, atomically, in place of what it meant before."""
        data = json.dumps(manifest, sort_keys=True).encode()
        descriptor = self.put(data, MEDIA_TYPE_MANIFEST)
        full = full_name(name)
        entry = {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
            "annotations": {REF_NAME: full},
        }
        others = [other for other in self.entries() if _entry_name(other) != full]
        self._write_index([*others, entry])
        return descriptor

    def _write_index(self, manifests: list[dict[str, Any]]) -> None:
        index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests}
        write_atomically(self._index_path, json.dumps(index, sort_keys=True).encode())
