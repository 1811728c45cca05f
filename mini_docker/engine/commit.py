# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#commit-module
"""An image made of a container: its changes become one more layer."""

from __future__ import annotations

import json
import shlex

from mini_docker import __version__
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.moments import parse_duration
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
    from collections.abc import Callable, Sequence
    from typing import Any

    from mini_docker.engine.container import Container
    from mini_docker.engine.store import Store
    from mini_docker.images.layout import Image

    Config = dict[str, Any]


# %% notebooks/14g_files.ipynb#instructions
def changed(config: Config, instructions: Sequence[str]) -> Config:
    """Return an image's config after instructions of a Dockerfile (CMD, ENV ...). Raises InvalidRequest."""
    new = dict(config)
    for instruction in instructions:
        word, _, rest = instruction.strip().partition(" ")
        change = INSTRUCTIONS.get(word.upper())
        if not change:
            raise InvalidRequest(f"{word.lower()} is not a valid change command")
        if not rest.strip():
            raise InvalidRequest(f"{word} requires at least one argument")
        new |= change(new, rest.strip())
    return new


def command_of(text: str) -> list[str]:
    """Return the words of the exec form, or the shell's command line."""
    return words_of(text) or ["/bin/sh", "-c", text]


def words_of(text: str) -> list[str]:
    """Return the words of a JSON array; none of what is no such array."""
    try:
        found = json.loads(text) if text.startswith("[") else []
    except ValueError:
        return []
    return [str(word) for word in found]


def exposed(config: Config, text: str) -> Config:
    """EXPOSE 80 443/tcp 5000-5010/udp."""
    ports = words_of(text) or text.split()
    for port in ports:
        if not port.partition("/")[0].replace("-", "").isdigit():
            raise InvalidRequest(f"Invalid containerPort: {port}")
    named: Config = {port if "/" in port else f"{port}/tcp": {} for port in ports}
    return {"ExposedPorts": (config.get("ExposedPorts") or {}) | named}


def volumes(config: Config, text: str) -> Config:
    """VOLUME /data /more, or as a JSON array."""
    named: Config = {path: {} for path in words_of(text) or text.split()}
    return {"Volumes": (config.get("Volumes") or {}) | named}


def environment(config: Config, text: str) -> Config:
    """ENV A=1 B="2 3", or the old form ENV A 1."""
    given = dict(pairs(text))
    kept = [entry for entry in config.get("Env") or () if entry.partition("=")[0] not in given]
    return {"Env": [*kept, *(f"{name}={value}" for name, value in given.items())]}


def pairs(text: str) -> list[tuple[str, str]]:
    """Return NAME=value pairs, or the one pair of the old form `NAME value`. Raises InvalidRequest."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidRequest(f"{text}: {error}") from None
    if "=" not in words[0]:
        return [(words[0], text.partition(" ")[2].strip())]
    return [(word.partition("=")[0], word.partition("=")[2]) for word in words]


def health_check(config: Config, text: str) -> Config:
    """HEALTHCHECK --interval=5s --retries=2 CMD curl localhost, or HEALTHCHECK NONE."""
    found: Config = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag[2:].partition("=")
        if name not in HEALTH_FLAGS:
            raise InvalidRequest(f"Unknown flag: {name}")
        key, parse = HEALTH_FLAGS[name]
        found[key], text = parse(value), text.strip()
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        return {"Healthcheck": {"Test": ["NONE"]}}
    if kind.upper() != "CMD":
        raise InvalidRequest(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    if not command.strip():
        raise InvalidRequest("Missing command after HEALTHCHECK CMD")
    words = words_of(command.strip())
    test = ["CMD", *words] if words else ["CMD-SHELL", command.strip()]
    return {"Healthcheck": {"Test": test, **found}}


def retries(text: str) -> int:
    """--retries=3: at least one. Raises InvalidRequest."""
    if not text.isdigit():
        raise InvalidRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if int(text) < 1:
        raise InvalidRequest(f"--retries must be at least 1 (not {text})")
    return int(text)


def nanoseconds(text: str) -> int:
    """--interval=1m30s. Raises InvalidRequest."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


HEALTH_FLAGS: dict[str, tuple[str, Callable[[str], int]]] = {
    "interval": ("Interval", nanoseconds),
    "timeout": ("Timeout", nanoseconds),
    "start-period": ("StartPeriod", nanoseconds),
    "retries": ("Retries", retries),
}
INSTRUCTIONS: dict[str, Callable[[Config, str], Config]] = {
    "CMD": lambda _, text: {"Cmd": command_of(text)},
    "ENTRYPOINT": lambda _, text: {"Entrypoint": command_of(text)},
    "USER": lambda _, text: {"User": text},
    "WORKDIR": lambda _, text: {"WorkingDir": text},
    "EXPOSE": exposed,
    "VOLUME": volumes,
    "ENV": environment,
    "LABEL": lambda config, text: {"Labels": (config.get("Labels") or {}) | dict(pairs(text))},
    "ONBUILD": lambda config, text: {"OnBuild": [*(config.get("OnBuild") or ()), text]},
    "HEALTHCHECK": health_check,
}


# %% notebooks/14g_files.ipynb#commit
def commit(
    store: Store, container: Container, name: str, config: Config, about: dict[str, str]
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
        document = image_config(base, container, config, about, layer.digest)
        described = lease.put(json.dumps(document, sort_keys=True).encode(), MEDIA_TYPE_CONFIG)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": as_json(described),
            "layers": [*map(as_json, base.layers), as_json(layer)],
        }
        stored = lease.put(json.dumps(manifest, sort_keys=True).encode(), MEDIA_TYPE_MANIFEST)
        layout.tag(name, stored) if name else layout.keep(stored)
    return str(described.digest)


def image_config(
    base: Image, container: Container, config: Config, about: dict[str, str], diff_id: str
) -> Config:
    """Return the configuration of an image with one layer more than its base. Source: OCI config.md."""
    diff_ids, history = base.config["rootfs"]["diff_ids"], base.config.get("history") or ()
    words = " ".join(container.record["Command"])
    entry = {"created": about["created"], "created_by": words, "comment": about["comment"]}
    return {
        "architecture": base.config.get("architecture", ""),
        "os": base.config.get("os", ""),
        **about,
        "parent": base.id,
        "container": container.id,
        "container_config": container.record["Config"],
        "docker_version": __version__,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, diff_id]},
        "history": [*history, entry],
    }
