# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#commit-module
"""An image made of a container: its changes become one more layer."""

from __future__ import annotations

import json
import shlex

from mini_docker import __version__
from mini_docker.engine.document import InvalidRequest
from mini_docker.images import catalog
from mini_docker.images.layout import (
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    as_json,
)
from mini_docker.images.pack import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.engine.container import Container
    from mini_docker.engine.store import Store


# %% notebooks/14g_files.ipynb#instructions
LISTS = {"CMD": "Cmd", "ENTRYPOINT": "Entrypoint"}
WORDS = {"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}
SETS = {"EXPOSE": "ExposedPorts", "VOLUME": "Volumes"}
INSTRUCTIONS = {*LISTS, *WORDS, *SETS, "ENV", "LABEL", "ONBUILD"}


def changed(config: dict[str, Any], instructions: Sequence[str]) -> dict[str, Any]:
    """Return an image's config after instructions of a Dockerfile (CMD, ENV ...). Raises InvalidRequest."""
    new = dict(config)
    for instruction in instructions:
        word, _, rest = instruction.strip().partition(" ")
        key, rest = word.upper(), rest.strip()
        if key not in INSTRUCTIONS:
            raise InvalidRequest(f"{word.lower()} is not a valid change command")
        if not rest:
            raise InvalidRequest(f"{word} requires at least one argument")
        if key in LISTS:
            new[LISTS[key]] = _command(rest)
        elif key in WORDS:
            new[WORDS[key]] = rest
        elif key in SETS:
            values = json.loads(rest) if rest.startswith("[") else rest.split()
            for value in values if key == "EXPOSE" else ():
                if not value.partition("/")[0].replace("-", "").isdigit():
                    raise InvalidRequest(f"Invalid containerPort: {value}")
            ports = [v if "/" in v or key == "VOLUME" else f"{v}/tcp" for v in values]
            new[SETS[key]] = {**(new.get(SETS[key]) or {}), **{value: {} for value in ports}}
        elif key == "ENV":
            given = dict(_pairs(rest))
            kept = [e for e in new.get("Env") or () if e.partition("=")[0] not in given]
            new["Env"] = [*kept, *(f"{name}={value}" for name, value in given.items())]
        elif key == "LABEL":
            new["Labels"] = {**(new.get("Labels") or {}), **dict(_pairs(rest))}
        else:
            new["OnBuild"] = [*(new.get("OnBuild") or ()), rest]
    return new


def _command(text: str) -> list[str]:
    """Return the words of the exec form, or the shell's command line."""
    if text.startswith("["):
        try:
            return [str(word) for word in json.loads(text)]
        except ValueError:
            pass
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return NAME=value pairs, or the one pair of the old form `NAME value`. Raises InvalidRequest."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidRequest(f"{text}: {error}") from None
    if "=" not in words[0]:
        return [(words[0], text.partition(" ")[2].strip())]
    return [(word.partition("=")[0], word.partition("=")[2]) for word in words]


# %% notebooks/14g_files.ipynb#commit
def commit(
    store: Store,
    container: Container,
    name: str,
    config: dict[str, Any],
    about: dict[str, str],
) -> str:
    """Make an image of a container's changes on top of its image; return its id. Raises ImageError, OSError.

    `config` is what it runs; `about` has created (RFC 3339), comment and author; `name` may be empty.
    """
    layout, base = store.layout, catalog.find(store.layout, container.record["ImageID"]).image
    with store.roots.diff(container.record) as changes, layout.lease() as lease:
        with lease.ingest(Descriptor(MEDIA_TYPE_LAYER, "", -1)) as ingest:
            for piece in pack(changes, overlay=True):
                ingest.write(piece)
            layer = ingest.commit()
        entry = {
            "created": about["created"],
            "created_by": " ".join(container.record["Command"]),
            "comment": about["comment"],
        }
        document = {
            "architecture": base.config.get("architecture", ""),
            "os": base.config.get("os", ""),
            "created": about["created"],
            "author": about["author"],
            "comment": about["comment"],
            "parent": base.id,
            "container": container.id,
            "container_config": container.record["Config"],
            "docker_version": __version__,
            "config": config,
            "rootfs": {
                "type": "layers",
                "diff_ids": [*base.config["rootfs"]["diff_ids"], layer.digest],
            },
            "history": [*(base.config.get("history") or ()), entry],
        }
        described = lease.put(json.dumps(document, sort_keys=True).encode(), MEDIA_TYPE_CONFIG)
        layers = [*map(as_json, base.layers), as_json(layer)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": as_json(described),
            "layers": layers,
        }
        stored = lease.put(json.dumps(manifest, sort_keys=True).encode(), MEDIA_TYPE_MANIFEST)
        layout.tag(name, stored) if name else layout.keep(stored)
    return str(described.digest)
