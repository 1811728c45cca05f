# Exported from notebooks/12c_the_store.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12c_the_store.ipynb#catalog-module
"""What images there are: find, list, inspect, history, answered in Docker's JSON."""

from __future__ import annotations

import calendar
import fnmatch
import os
import re
import time
from collections import namedtuple

from mini_docker.images.compression import compression_of
from mini_docker.images.ingest import children
from mini_docker.images.layout import (
    Digest,
    ImageError,
    Layout,
    NoSuchImage,
    entry_name,
    full_name,
    this_platform,
)
from mini_docker.images.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any, NamedTuple

    from mini_docker.images.layout import Descriptor, Image

    class Record(NamedTuple):
        """An image and everything that index.json says of it."""

        image: Image
        names: tuple[str, ...]
        digests: tuple[str, ...]
        roots: tuple[str, ...]

else:
    Record = namedtuple("Record", ("image", "names", "digests", "roots"))


# %% notebooks/12c_the_store.ipynb#find
def records(layout: Layout) -> list[Record]:
    """Return all images, each once, with its names; a broken one is left out, and what is none.

    An index is the image for this machine, or where that is not here the first one that is.
    """
    found: dict[str, Record] = {}
    for entry in layout.entries():
        name = entry_name(entry)
        try:
            image = _open(layout, name or entry["digest"], entry)
        except ImageError:
            continue  # `run` and `inspect` of its name say what is wrong with it
        old = found.get(image.id, Record(image, (), (), ()))
        names, digests = old.names, old.digests
        if name and "@" in name:
            digests = (*digests, name)
        elif name:
            names = (*names, name)
        roots = (*old.roots, entry["digest"])
        found[image.id] = Record(old.image, tuple(sorted(names)), digests, roots)
    return sorted(found.values(), key=lambda one: (instant(one.image), one.image.id), reverse=True)


def _open(layout: Layout, name: str, entry: dict[str, Any]) -> Image:
    """Return the image that an entry leads to, for this machine or else for another. Raises ImageError."""
    try:
        return layout.open_image(name, entry, this_platform())
    except ImageError:
        document = layout.read_json(entry["digest"])
        inner = children(document, entry["digest"]) if "manifests" in document else []
        for one in inner:
            if layout.has(one["digest"]):
                return layout.open_image(name, one, this_platform())
        raise


def find(layout: Layout, reference: str) -> Record:
    """Return the image that a name, an id or the beginning of an id means. Raises NoSuchImage, ImageError."""
    every = records(layout)
    hexadecimal = reference.removeprefix("sha256:")
    try:
        wanted = full_name(reference)
    except ImageError:
        wanted = ""  # an id, perhaps
    for record in every:
        if reference in record.names or wanted in (*record.names, *record.digests):
            return record
    if is_id(reference):
        matching = [r for r in every if Digest(r.image.id).encoded.startswith(hexadecimal)]
        if len(matching) > 1:
            raise ImageError(
                f"multiple images have an ID that begins with {reference}; give more of it"
            )
        if matching:
            return matching[0]
    if not wanted and not is_id(reference):
        full_name(reference)
    if wanted in layout.names():
        layout.image(wanted)
    raise NoSuchImage(f"No such image: {wanted or reference}")


def is_id(reference: str) -> bool:
    """Return whether a text can be the beginning of an image's id."""
    hexadecimal = reference.removeprefix("sha256:")
    return 0 < len(hexadecimal) <= 64 and Digest.HEX.issuperset(hexadecimal)


NEVER = -62135596800  # the first of January of the year 1, as Go writes no time at all


def created(image: Image) -> int:
    """Return when an image was made, in seconds since 1970; NEVER where it does not say."""
    text = str(image.config.get("created") or "")[:19]
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return NEVER


def instant(image: Image) -> tuple[int, str]:
    """Return when an image was made, as something that can be compared: seconds, and what is behind them."""
    fraction = str(image.config.get("created") or "")[19:].rstrip("Z")
    return created(image), fraction


def tar_size(layout: Layout, layer: Descriptor) -> int:
    """Return the bytes of a layer's tar, near enough to show: gzip's trailer has them, modulo 4 GiB."""
    try:
        with layout.open_blob(layer.digest) as blob:
            if compression_of(blob.read(8)) != "gzip":
                return layer.size
            blob.seek(-4, os.SEEK_END)
            return int.from_bytes(blob.read(4), "little")
    except ImageError:
        return layer.size


# %% notebooks/12c_the_store.ipynb#list
def list_images(
    layout: Layout, filters: Mapping[str, Sequence[str]] | None = None, everything: bool = False
) -> list[dict[str, Any]]:
    """Return what GET /images/json returns, newest first. Filters: reference, label, dangling, before, since.

    Images that only others stand on, by `parent`, are shown with `everything`.
    """
    chosen = filters or {}
    check_filters(chosen, LIST_FILTERS)
    if any(re.search(r"\[[^]]*$", pattern) for pattern in chosen.get("reference", ())):
        raise ImageError("syntax error in pattern")
    every = records(layout)
    parents = {record.image.config.get("parent") for record in every}
    shown = [
        _only_named(record, chosen.get("reference", ()))
        for record in every
        if (everything or record.names or record.digests or record.image.id not in parents)
        and matches(layout, record, chosen)
    ]
    return [summary(layout, record) for record in shown]


def _only_named(record: Record, patterns: Sequence[str]) -> Record:
    """Return an image with those of its names that were asked for."""
    if not patterns:
        return record
    names, digests = (
        tuple(name for name in several if any(_named(name, pattern) for pattern in patterns))
        for several in (record.names, record.digests)
    )
    return record._replace(names=names, digests=digests)


def summary(layout: Layout, record: Record) -> dict[str, Any]:
    """Return a row of GET /images/json."""
    size = sum(tar_size(layout, layer) for layer in record.image.layers)
    return {
        "Id": record.image.id,
        "ParentId": record.image.config.get("parent", ""),
        "RepoTags": list(record.names),
        "RepoDigests": repo_digests(record) or None,
        "Created": created(record.image),
        "Size": size,
        "VirtualSize": size,
        "SharedSize": -1,
        "Labels": labels(record.image) or None,
        "Containers": -1,
    }


def repo_digests(record: Record) -> list[str]:
    """Return "busybox@sha256:...", without the tag that a name may have too."""
    parts = [name.partition("@") for name in record.digests]
    return sorted({f"{repository_of(name)}@{digest}" for name, _, digest in parts})


def repository_of(name: str) -> str:
    """Return a name without its tag or digest."""
    return parse_reference(name).familiar_repository()


def labels(image: Image) -> dict[str, str]:
    """Return an image's labels; none for a config that has none."""
    config = image.config.get("config") or {}
    return dict(config.get("Labels") or {})


PRUNE_FILTERS = frozenset({"label", "label!", "dangling", "until"})
LIST_FILTERS = PRUNE_FILTERS | {"reference", "before", "since"}


def check_filters(filters: Mapping[str, Sequence[str]], known: Collection[str]) -> None:
    """Raise ImageError, in Docker's words, for a filter that there is not."""
    for key in filters:
        if key not in known:
            raise ImageError(f"Invalid filter '{key}'")


def matches(layout: Layout, record: Record, filters: Mapping[str, Sequence[str]]) -> bool:
    """Return whether an image passes all filters. Raises ImageError for a value that makes no sense."""
    return all(_matches(layout, record, key, values) for key, values in filters.items())


def _matches(layout: Layout, record: Record, key: str, values: Sequence[str]) -> bool:
    """Return whether an image passes one filter; of several values of `label` all must fit."""
    if key == "reference":
        return any(
            _named(name, value) for name in (*record.names, *record.digests) for value in values
        )
    if key == "label":
        return all(_labelled(record.image, value) for value in values)
    if key == "label!":
        return not any(_labelled(record.image, value) for value in values)
    if key == "dangling":
        return all((not record.names) == truth(key, value) for value in values)
    if key == "until":
        return all(created(record.image) <= int(value) for value in values)
    moment, mine = instant(find(layout, values[-1]).image), instant(record.image)
    return mine < moment if key == "before" else mine > moment


def _named(name: str, pattern: str) -> bool:
    """Return whether a name fits a pattern, with or without its tag. Source: reference.FamiliarMatch."""
    depth = pattern.count("/")
    return any(
        candidate.count("/") == depth and fnmatch.fnmatchcase(candidate, pattern)
        for candidate in (name, repository_of(name))
    )


def _labelled(image: Image, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    found = labels(image).get(key)
    return found is not None and (not equals or found == value)


def truth(key: str, value: str) -> bool:
    """Return what Docker reads in a filter. Raises ImageError for what is neither true nor false."""
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise ImageError(f"Invalid filter '{key}=[{value}]'")


# %% notebooks/12c_the_store.ipynb#inspect
# What the Config of an image says where it was told nothing. Source: Docker's own answers.
CONFIG_DEFAULTS: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None,
    "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip


def inspect(layout: Layout, reference: str) -> dict[str, Any]:
    """Return what GET /images/NAME/json returns. Raises NoSuchImage."""
    record = find(layout, reference)
    config = record.image.config
    size = sum(tar_size(layout, layer) for layer in record.image.layers)
    return {
        "Id": record.image.id,
        "RepoTags": list(record.names),
        "RepoDigests": repo_digests(record),
        "Parent": config.get("parent", ""),
        "Comment": config.get("comment", ""),
        "Container": config.get("container", ""),
        "ContainerConfig": {**CONFIG_DEFAULTS, **(config.get("container_config") or {})},
        "Created": config.get("created") or "0001-01-01T00:00:00Z",
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": {**CONFIG_DEFAULTS, **(config.get("config") or {})},
        "Architecture": config.get("architecture", ""),
        **({"Variant": config["variant"]} if config.get("variant") else {}),
        "Os": config.get("os", ""),
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(config["rootfs"]["diff_ids"])},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def history(layout: Layout, reference: str) -> list[dict[str, Any]]:
    """Return what GET /images/NAME/history returns: newest first. Raises NoSuchImage."""
    record = find(layout, reference)
    image = record.image
    sizes = [tar_size(layout, layer) for layer in image.layers]
    rows = []
    for step in image.config.get("history") or [{} for _ in sizes]:
        size = sizes.pop(0) if sizes and not step.get("empty_layer") else 0
        moment = created(image._replace(config={"created": step.get("created", "")}))
        rows.append({"Id": "<missing>", "Created": moment, "CreatedBy": step.get("created_by", ""),
                     "Tags": None, "Size": size, "Comment": step.get("comment", "")})  # fmt: skip
    rows.reverse()
    if rows:
        rows[0] |= {"Id": image.id, "Tags": list(record.names) or None}
    return rows


def stacks(layout: Layout) -> list[list[str]]:
    """Return the diff_ids of every image's layers, lowest first: what is to stay unpacked.

    Those of a broken image are not among them. Raises ImageError for an index that cannot be read.
    """
    return [list(record.image.config["rootfs"]["diff_ids"]) for record in records(layout)]
