# Exported from notebooks/12c_the_store.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12c_the_store.ipynb#archive-module
"""Images in one stream: `docker save` and `load`, OCI layouts in a tar or a directory, bare root trees."""

from __future__ import annotations

import json
import os
import posixpath
from collections import namedtuple

from mini_docker.images.compression import PIECE, CompressionError, compression_of, expand
from mini_docker.images.ingest import LARGEST_BLOB, Lease, is_whole, reachable
from mini_docker.images.layers import Hashed
from mini_docker.images.layout import (
    ARCHITECTURE,
    INDEX_TYPES,
    LARGEST_DOCUMENT,
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_INDEX,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    REF_NAME,
    Descriptor,
    Digest,
    ImageError,
    Layout,
    as_descriptor,
    as_json,
    checked_entry,
    entry_name,
    full_name,
    this_platform,
)
from mini_docker.images.pack import pack
from mini_docker.images.reference import parse_reference
from mini_docker.images.tar import (
    DIRECTORY,
    FILE,
    LINK,
    SYMLINK,
    Member,
    Source,
    end_of_archive,
    header_blocks,
    read_members,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, NamedTuple

    from mini_docker.images.layout import Image

    class Loaded(NamedTuple):
        """An image that came out of an archive: its id, and the names that it brought."""

        id: str
        names: tuple[str, ...]

else:
    Loaded = namedtuple("Loaded", ("id", "names"))

CONTAINERD_NAME = "io.containerd.image.name"
MOST_DOCUMENTS = 64 << 20  # bytes of JSON in one archive


# %% notebooks/12c_the_store.ipynb#save
def save(layout: Layout, images: Sequence[tuple[Image, Sequence[str]]]) -> Iterator[bytes]:
    """Yield a tar of images and their names that Docker of any version loads, and that is an OCI layout too.

    `manifest.json` and `repositories` are Docker's tables of contents, index.json is OCI's; all mean the
    same blobs. An index whose images are all here goes along with them. A layer in zstd is there a second
    time, expanded, for Dockers before 23.
    """
    entries = [one for image, tags in images for one in _index_entries(layout, image, tags)]
    names = sorted(reachable(layout, entries))
    yield from _folders(sorted({f"blobs/{Digest(name).algorithm}/" for name in names}))
    for name in names:
        with layout.open_blob(name) as blob:
            size = os.fstat(blob.fileno()).st_size
            yield from _file(_blob_name(name), size, iter(lambda: blob.read(PIECE), b""))
    table = []
    expanded: set[str] = set(names)
    for image, tags in images:
        paths = []
        for layer, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
            plain = diff_id if layer.media_type.endswith("zstd") else layer.digest
            if plain not in expanded:
                expanded.add(plain)
                yield from _expanded(layout, layer, plain)
            paths.append(_blob_name(plain))
        tagged = [tag for tag in tags if "@" not in tag]
        table.append({"Config": _blob_name(image.id), "RepoTags": tagged or None, "Layers": paths})
    yield from _tables(entries, table)
    yield end_of_archive()


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _folders(names: Iterable[str]) -> Iterator[bytes]:
    for name in ("blobs/", *names):
        yield header_blocks(Member(name, DIRECTORY, 0o755))


def _file(name: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a file's header, data and filling; its time is 1970, so that equal images are equal archives."""
    member = Member(name, FILE)
    member.size = size
    yield header_blocks(member)
    yield from pieces
    yield bytes(-size % 512)


def _expanded(layout: Layout, layer: Descriptor, diff_id: str) -> Iterator[bytes]:
    """Yield a layer's tar: it is expanded twice, because a header says the size before the data come."""
    with layout.open_blob(layer.digest) as blob:
        plain = Hashed(expand(iter(lambda: blob.read(PIECE), b"")), diff_id)
        for _ in plain:
            pass
        if plain.found != diff_id:
            raise ImageError(f"layer {layer.digest} is {plain.found}, its image says {diff_id}")
        blob.seek(0)
        again = expand(iter(lambda: blob.read(PIECE), b""))
        yield from _file(_blob_name(diff_id), plain.size, again)


def _tables(entries: list[dict[str, Any]], table: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the files that say what the blobs mean."""
    repositories: dict[str, dict[str, str]] = {}
    for row in table:
        top = (row["Layers"] or [row["Config"]])[-1].rpartition("/")[2]
        for tag in row["RepoTags"] or ():
            repository, _, version = tag.rpartition(":")
            repositories.setdefault(repository, {})[version] = top
    index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": entries}
    files: dict[str, Any] = {"index.json": index, "manifest.json": table}
    files |= {"oci-layout": {"imageLayoutVersion": "1.0.0"}}
    files |= {"repositories": repositories} if repositories else {}
    for name, document in sorted(files.items()):
        data = json.dumps(document, sort_keys=True).encode()
        yield from _file(name, len(data), [data])


def _index_entries(layout: Layout, image: Image, tags: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield an entry of index.json for each name: of the name's index, if it is whole, or of the image."""
    named = {entry_name(entry): entry for entry in layout.entries()}
    with layout.open_blob(image.digest) as blob:
        data = blob.read()
    media_type = json.loads(data).get("mediaType", MEDIA_TYPE_MANIFEST)
    alone = as_json(Descriptor(media_type, image.digest, len(data)))
    for tag in tags or [""]:
        found = named.get(tag, alone)
        entry = as_json(as_descriptor(found)) if is_whole(layout, found) else alone
        if tag:
            name = parse_reference(tag).canonical()  # podman would take a short one for its own
            entry = {**entry, "annotations": {REF_NAME: name, CONTAINERD_NAME: name}}
        yield entry


# %% notebooks/12c_the_store.ipynb#load
class Archive:
    """What has come out of an archive: small documents, blobs by their path, links between paths."""

    def __init__(self, layout: Layout, lease: Lease) -> None:
        """Begin; blobs go into `layout`, held by `lease`."""
        self.layout, self.lease = layout, lease
        self.documents: dict[str, bytes] = {}
        self.blobs: dict[str, Descriptor] = {}
        self.links: dict[str, str] = {}

    def read(self, pieces: Iterable[bytes]) -> None:
        """Take in a whole tar, in whatever order its members come. Raises ImageError."""
        room = MOST_DOCUMENTS
        for member, data in read_members(Source(pieces, LARGEST_BLOB)):
            path = posixpath.normpath(member.name)
            if member.kind in (SYMLINK, LINK):
                base = posixpath.dirname(path) if member.kind == SYMLINK else ""
                self.links[path] = posixpath.normpath(posixpath.join(base, member.linkname))
            elif member.kind == FILE and _is_document(path):
                room -= member.size
                if room < 0 or member.size > LARGEST_DOCUMENT:
                    raise ImageError(
                        f"archive: {path} has {member.size} bytes, too many for a document"
                    )
                self.documents[path] = b"".join(data)
            elif member.kind == FILE:
                self.blobs[path] = self._ingest(path, member, data)

    def _ingest(self, path: str, member: Member, data: Iterable[memoryview]) -> Descriptor:
        """Store a file as a blob: under the digest that its path promises, or that its bytes have."""
        folder, _, name = path.rpartition("/")
        promised = folder.startswith("blobs/")
        wanted = f"{folder.removeprefix('blobs/')}:{name}" if promised else ""
        with self.lease.ingest(Descriptor("", wanted, member.size if promised else -1)) as ingest:
            beginning = b""
            if promised and not self.layout.has(wanted):
                ingest.restart()  # what a dead loader left cannot be gone on with: this stream has it all
            for piece in data:
                beginning = beginning or bytes(piece[:8])
                if ingest.fd >= 0:
                    ingest.write(piece)
            descriptor = ingest.commit()
        kind = compression_of(beginning)
        return descriptor._replace(media_type=MEDIA_TYPE_LAYER + (f"+{kind}" if kind else ""))

    def blob(self, path: str) -> Descriptor:
        """Return the blob at a path, through links. Raises ImageError."""
        path = posixpath.normpath(path)
        for _ in range(9):
            if path in self.blobs:
                return self.blobs[path]
            path = self.links.get(path, path)
        raise ImageError(f"archive: its table of contents names {path!r}, which is not in it")

    def document(self, path: str) -> Any:
        """Return the JSON of a document. Raises ImageError."""
        try:
            return json.loads(self.documents[path])
        except (KeyError, ValueError, RecursionError) as error:
            raise ImageError(f"archive: {path} is missing or damaged: {error}") from error


def _is_document(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    tables = ("index.json", "manifest.json", "repositories", "oci-layout")
    return (not folder and name in tables) or (
        not folder.startswith("blobs") and name in ("json", "VERSION")
    )


def load(layout: Layout, pieces: Iterable[bytes]) -> list[Loaded]:
    """Bring in the images of an archive, compressed or not: docker save's, old and new, or an OCI layout's.

    All or none: names are given when everything is here and every digest was right. Raises ImageError.
    """
    try:
        with Lease(layout) as lease:
            archive = Archive(layout, lease)
            archive.read(expand(pieces))
            found = _contents(archive)
            for entry, _ in found:
                _check_whole(layout, entry)
            return [_name(layout, entry, names) for entry, names in found]
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"archive: its table of contents is damaged: {error!r}") from error
    except CompressionError as error:
        raise ImageError(f"archive: {error}") from error


def load_directory(layout: Layout, directory: str) -> list[Loaded]:
    """Bring in the images of an OCI layout in a directory."""
    return load(layout, pack(directory, time=0))


def _contents(archive: Archive) -> list[tuple[Descriptor, list[str]]]:
    """Return each image's manifest and names, by the best table of contents that there is."""
    if "index.json" in archive.documents:
        return _from_index(archive)
    if "manifest.json" in archive.documents:
        return [_from_table(archive, row) for row in archive.document("manifest.json")]
    if "repositories" in archive.documents:
        return _from_repositories(archive)
    raise ImageError(
        "archive: no index.json, manifest.json or repositories in it; is it from docker save?"
    )


def _from_index(archive: Archive) -> list[tuple[Descriptor, list[str]]]:
    found: dict[str, tuple[Descriptor, list[str]]] = {}
    for entry in map(checked_entry, archive.document("index.json")["manifests"]):
        annotations = entry.get("annotations") or {}
        name = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME) or ""
        descriptor = as_descriptor(entry)
        names = found.setdefault(descriptor.digest, (descriptor, []))[1]
        names += [full_name(name)] if name else []
    return list(found.values())


def _from_table(archive: Archive, row: dict[str, Any]) -> tuple[Descriptor, list[str]]:
    """Return a row of Docker's manifest.json as a manifest: Docker's archives have none."""
    config = archive.blob(row["Config"])
    layers = [archive.blob(path) for path in row["Layers"]]
    names = [full_name(name) for name in row.get("RepoTags") or ()]
    return _store_manifest(archive, config, layers), names


def _store_manifest(archive: Archive, config: Descriptor, layers: list[Descriptor]) -> Descriptor:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": as_json(config._replace(media_type=MEDIA_TYPE_CONFIG)),
        "layers": [as_json(layer) for layer in layers],
    }
    return archive.lease.put(json.dumps(manifest, sort_keys=True).encode(), MEDIA_TYPE_MANIFEST)


# %% notebooks/12c_the_store.ipynb#legacy
def _from_repositories(archive: Archive) -> list[tuple[Descriptor, list[str]]]:
    """Return the images of an archive from before Docker 1.10: a folder a layer, with a json and a parent."""
    found: dict[str, list[str]] = {}
    for repository, tags in archive.document("repositories").items():
        for tag, top in tags.items():
            found.setdefault(top, []).append(full_name(f"{repository}:{tag}"))
    return [(_from_chain(archive, top), names) for top, names in found.items()]


def _from_chain(archive: Archive, top: str) -> Descriptor:
    """Make a config and a manifest of a chain of old layers."""
    chain: list[dict[str, Any]] = []
    layers: list[Descriptor] = []
    at = top
    while at:
        if len(chain) > 200:
            raise ImageError(f"archive: the layers below {top} never end")
        chain.insert(0, archive.document(f"{at}/json"))
        layers.insert(0, archive.blob(f"{at}/layer.tar"))
        at = chain[0].get("parent", "")
    keys = ("architecture", "os", "created", "author", "config")
    config = {key: chain[-1][key] for key in keys if key in chain[-1]}
    config["history"] = [
        {
            "created": old.get("created", ""),
            "created_by": " ".join((old.get("container_config") or {}).get("Cmd") or ()),
        }
        for old in chain
    ]
    config["rootfs"] = {
        "type": "layers",
        "diff_ids": [diff_id_of(archive.layout, d) for d in layers],
    }
    data = json.dumps(config, sort_keys=True).encode()
    return _store_manifest(archive, archive.lease.put(data, MEDIA_TYPE_CONFIG), layers)


def diff_id_of(layout: Layout, layer: Descriptor) -> str:
    """Return the digest of what a layer's blob expands to, for an archive that does not say it."""
    with layout.open_blob(layer.digest) as blob:
        plain = Hashed(expand(iter(lambda: blob.read(PIECE), b"")), "sha256:" + "0" * 64)
        for _ in plain:
            pass
    return plain.found


# %% notebooks/12c_the_store.ipynb#check-whole
def _check_whole(layout: Layout, manifest: Descriptor) -> None:
    """Raise ImageError unless everything that a manifest leads to is here and readable as an image.

    Of an index, one image at least must be here.
    """
    document = layout.read_json(manifest.digest)
    if manifest.media_type in INDEX_TYPES or "manifests" in document:
        inner = [as_descriptor(checked_entry(entry)) for entry in document["manifests"]]
        present = [descriptor for descriptor in inner if layout.has(descriptor.digest)]
        if not present:
            raise ImageError(f"archive: none of the images of {manifest.digest} is in it")
        for descriptor in present:
            _check_whole(layout, descriptor)
        return
    if document.get("artifactType"):
        return
    image = layout.open_image(manifest.digest, {"digest": manifest.digest}, this_platform())
    missing = [layer.digest for layer in image.layers if not layout.has(layer.digest)]
    if missing:
        raise ImageError(f"archive: layer {missing[0]} is not in it")


def _name(layout: Layout, manifest: Descriptor, names: list[str]) -> Loaded:
    """Give a manifest its names, or keep it without one; return what Docker would print of it."""
    for name in names:
        layout.tag(name, manifest)
    if not names:
        layout.keep(manifest)
    document = layout.read_json(manifest.digest)
    if "manifests" in document:
        return Loaded(manifest.digest, tuple(names))
    return Loaded(document["config"]["digest"], tuple(names))


# %% notebooks/12c_the_store.ipynb#import
def import_tree(
    layout: Layout,
    pieces: Iterable[bytes],
    name: str,
    config: dict[str, Any],
    created: str,
    message: str = "",
) -> str:
    """Make an image of one layer from a tar of a root file system, compressed or not; return its id.

    `config` is what it runs by default (Cmd, Env ...); `name` may be empty; `created` is RFC 3339.
    Raises ImageError for what is no tar.
    """
    with Lease(layout) as lease:
        with lease.ingest(Descriptor(MEDIA_TYPE_LAYER, "", -1)) as ingest:
            for _ in read_members(Source(_written(ingest, expand(pieces)), LARGEST_BLOB)):
                pass
            layer = ingest.commit()
        document = {
            "architecture": ARCHITECTURE.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "created": created,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            **({"comment": message} if message else {}),
            "history": [{"created": created, "comment": message}],
        }
        described = lease.put(json.dumps(document, sort_keys=True).encode(), MEDIA_TYPE_CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": as_json(described),
                    "layers": [as_json(layer)]}  # fmt: skip
        stored = lease.put(json.dumps(manifest, sort_keys=True).encode(), MEDIA_TYPE_MANIFEST)
        if name:
            layout.tag(name, stored)
        else:
            layout.keep(stored)
    return described.digest


def _written(ingest: Any, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        ingest.write(piece)
        yield piece
