# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#commit-module
"""An image made of a container: its changes become one more layer."""

from __future__ import annotations

import json
import posixpath
import re
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
    from mini_docker.images.ingest import Lease
    from mini_docker.images.layout import Image

    Config = dict[str, Any]


# %% notebooks/14g_files.ipynb#instructions
def changed(config: Config, instructions: Sequence[str]) -> Config:
    """Return an image's config after instructions of a Dockerfile (CMD, ENV ...). Raises InvalidRequest."""
    new, has_command = dict(config), False
    for instruction in lines_of(instructions):
        word, _, rest = instruction.partition(" ")
        change = INSTRUCTIONS.get(word.upper())
        if not change:
            raise InvalidRequest(f"{word.lower()} is not a valid change command")
        if not rest.strip():
            most = "exactly" if word.upper() in ("USER", "WORKDIR") else "at least"
            raise InvalidRequest(f"{word.upper()} requires {most} one argument")
        new |= change(new, rest.strip())
        has_command = has_command or word.upper() == "CMD"
        if word.upper() == "ENTRYPOINT" and not has_command:
            new["Cmd"] = None  # it was for another program
    return new


def lines_of(instructions: Sequence[str]) -> list[str]:
    """Return the instructions of a Dockerfile: no comments, continued lines as one. Raises InvalidRequest."""
    text = re.sub(r"\\[ \t]*(\n|$)", "", "\n".join(instructions))
    found = [line.strip() for line in text.splitlines()]
    found = [line for line in found if line and not line.startswith("#")]
    if instructions and not found:
        raise InvalidRequest("file with no instructions")
    return found


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


VARIABLE = re.compile(r"\\\$|'[^']*'|\$(\w+)|\$\{(\w+)(?::([-+])([^}]*))?\}")
FIRST_PLACE = 0xE000  # of the characters that no text has


def expanded(config: Config, text: str) -> str:
    """Return a text with the values of the image's variables for $NAME, ${NAME:-x} and ${NAME:+x}."""
    text, values = set_aside(config, text)
    return put_back(text, values)


def set_aside(config: Config, text: str) -> tuple[str, list[str]]:
    """Return a text with a character in place of each variable, and their values, which are one word each."""
    known = dict(entry.split("=", 1) for entry in config.get("Env") or ())
    values: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[0].startswith("'"):
            return found[0]
        name, sign = found[1] or found[2], found[3]
        value = known.get(name, "") if name else "$"
        if sign:
            value = (found[4] if value else "") if sign == "+" else value or found[4]
        values.append(value)
        return chr(FIRST_PLACE + len(values) - 1)

    return VARIABLE.sub(place, text), values


def put_back(text: str, values: list[str]) -> str:
    """Return a text with the values where their characters are."""
    return text.translate({FIRST_PLACE + at: value for at, value in enumerate(values)})


def exposed(config: Config, text: str) -> Config:
    """EXPOSE 80 443/tcp 5000-5010/udp."""
    text = expanded(config, text)
    ports = words_of(text) or text.split()
    for port in ports:
        number, slash, protocol = port.partition("/")
        if not number.replace("-", "").isdigit():
            raise InvalidRequest(f"Invalid containerPort: {port}")
        if slash and protocol.lower() not in ("tcp", "udp", "sctp"):
            raise InvalidRequest(f"Invalid proto: {protocol}")
    named: Config = {}
    for port in ports:
        number, _, protocol = port.partition("/")
        first, _, last = number.partition("-")
        for one in range(int(first), int(last or first) + 1):
            named[f"{one}/{protocol or 'tcp'}"] = {}
    return {"ExposedPorts": (config.get("ExposedPorts") or {}) | named}


def volumes(config: Config, text: str) -> Config:
    """VOLUME /data /more, or as a JSON array."""
    text = expanded(config, text)
    named: Config = {path.strip(): {} for path in words_of(text) or text.split()}
    if "" in named:
        raise InvalidRequest("VOLUME specified can not be an empty string")
    return {"Volumes": (config.get("Volumes") or {}) | named}


def environment(config: Config, text: str) -> Config:
    """ENV A=1 B="2 3", or the old form ENV A 1."""
    old = dict(entry.split("=", 1) for entry in config.get("Env") or ())
    new = old | dict(pairs(config, text, "ENV"))
    return {"Env": [f"{name}={value}" for name, value in new.items()]}


def labelled(config: Config, text: str) -> Config:
    """LABEL a=b "c d"=e, or the old form LABEL a b."""
    return {"Labels": (config.get("Labels") or {}) | dict(pairs(config, text, "LABEL"))}


def pairs(config: Config, text: str, of: str) -> list[tuple[str, str]]:
    """Return NAME=value pairs, or the one pair of the old form `NAME value`. Raises InvalidRequest."""
    kept, values = set_aside(config, text)
    try:
        words = [put_back(word, values) for word in shlex.split(kept)]
    except ValueError as error:
        raise InvalidRequest(f"{text}: {error}") from None
    if "=" not in text.split()[0]:
        if len(words) < 2:
            raise InvalidRequest(f"{of} must have two arguments")
        return [(words[0], put_back(kept.partition(" ")[2].strip(), values))]
    found = [(word.partition("=")[0], word.partition("=")[2]) for word in words]
    if "" in dict(found):
        raise InvalidRequest(f"{of} names can not be blank")
    return found


def directory(config: Config, text: str) -> Config:
    """WORKDIR /srv, or from where the last one led."""
    place = posixpath.join("/", config.get("WorkingDir") or "", expanded(config, text))
    return {"WorkingDir": posixpath.normpath(place)}


def trigger(config: Config, text: str) -> Config:
    """ONBUILD RUN make: what a build upon this image begins with."""
    word = text.split()[0].upper()
    if word == "ONBUILD":
        raise InvalidRequest("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidRequest(f"{word} isn't allowed as an ONBUILD trigger")
    return {"OnBuild": [*(config.get("OnBuild") or ()), text]}


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
        if 0 < found[key] < MILLISECOND and key != "Retries":
            raise InvalidRequest(f'Interval "{name}" cannot be less than 1ms')
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        if command.strip():
            raise InvalidRequest("HEALTHCHECK NONE takes no arguments")
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
    if not text.removeprefix("-").isdigit():
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


MILLISECOND = 1_000_000
HEALTH_FLAGS: dict[str, tuple[str, Callable[[str], int]]] = {
    "interval": ("Interval", nanoseconds),
    "timeout": ("Timeout", nanoseconds),
    "start-period": ("StartPeriod", nanoseconds),
    "retries": ("Retries", retries),
}
INSTRUCTIONS: dict[str, Callable[[Config, str], Config]] = {
    "CMD": lambda _, text: {"Cmd": command_of(text)},
    "ENTRYPOINT": lambda _, text: {"Entrypoint": command_of(text)},
    "USER": lambda config, text: {"User": expanded(config, text)},
    "WORKDIR": directory,
    "EXPOSE": exposed,
    "VOLUME": volumes,
    "ENV": environment,
    "LABEL": labelled,
    "ONBUILD": trigger,
    "HEALTHCHECK": health_check,
}


# %% notebooks/14g_files.ipynb#commit
def commit(
    store: Store, container: Container, name: str, config: Config, about: dict[str, str]
) -> str:
    """Make an image of a container's changes on top of its image; return its id.

    Raises ImageError, NoSuchContainer, OSError.

    `config` is what it runs; `about` has created (RFC 3339), comment and author; `name` may be empty.
    """
    layout, base = store.layout, catalog.find(store.layout, container.record["ImageID"]).image
    with layout.lease() as lease:
        layer = container.look(lambda: ingest_changes(store, container, lease))
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


def ingest_changes(store: Store, container: Container, lease: Lease) -> Descriptor:
    """Bring a container's changes into the store, as a layer. Raises OSError."""
    with lease.ingest(Descriptor(MEDIA_TYPE_LAYER, "", -1)) as ingest:
        with store.roots.diff(container.record) as changes:
            for piece in pack(changes, overlay=True):
                ingest.write(piece)
        return ingest.commit()


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
