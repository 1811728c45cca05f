# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#contexts-module
"""The commands about contexts: daemons that have a name."""

from __future__ import annotations

import json
import os

from mini_docker.cli.command import FORMAT, Command
from mini_docker.cli.context import (
    DEFAULT_CONTEXT,
    DEFAULT_HOST,
    TLS_FILES,
    context_id,
    context_name,
    read_context,
    save_config,
)
from mini_docker.cli.errors import CommandError
from mini_docker.cli.listing import quiet_or, rendered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#contexts
LS_FLAGS = """
    --format string  Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
-q, --quiet          Only show context names
"""
HEADS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "DockerEndpoint": "DOCKER ENDPOINT",
    "Error": "ERROR",
    "Current": "CURRENT",
}


def stored_contexts(directory: str) -> list[dict[str, Any]]:
    """Return the contexts on disk, by name."""
    found = []
    base = f"{directory}/contexts/meta"
    for identity in os.listdir(base) if os.path.isdir(base) else []:
        try:
            with open(f"{base}/{identity}/meta.json", encoding="utf-8") as file:
                found.append(json.load(file))
        except (OSError, ValueError) as error:
            raise CommandError(
                f"the context in {base}/{identity} cannot be read: {error}"
            ) from None
    return sorted(found, key=lambda one: str(one.get("Name")))


def default_context() -> dict[str, Any]:
    """Return what "default" means just now: DOCKER_HOST, or our own socket."""
    host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    return {
        "Name": DEFAULT_CONTEXT,
        "Metadata": {},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}},
    }


def context_ls(call: Call, parsed: Parsed) -> int:
    """List contexts; the one in use has a star."""
    current = context_name(call.settings.values, call.directory)
    rows = []
    for one in [default_context(), *stored_contexts(call.directory)]:
        usual = "Current DOCKER_HOST based configuration" if one["Name"] == DEFAULT_CONTEXT else ""
        rows.append(
            {
                "Name": one["Name"],
                "Description": (one.get("Metadata") or {}).get("Description") or usual,
                "DockerEndpoint": one["Endpoints"]["docker"].get("Host", ""),
                "Error": "",
                "Current": one["Name"] == current,
            }
        )
    if parsed.one("format") == "":
        for row in rows:
            row["Name"] += " *" if row["Current"] and not parsed.on("quiet") else ""
    usual = "table {{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
    form = quiet_or(parsed.one("format"), parsed.on("quiet"), usual, "Name")
    print(rendered(form, rows, HEADS, "*formatter.clientContextContext", usual), end="")
    return 0


def context_show(call: Call, parsed: Parsed) -> int:
    """Print the name of the context in use."""
    print(context_name(call.settings.values, call.directory))
    return 0


def context_use(call: Call, parsed: Parsed) -> int:
    """Make a context the one that is used from now on."""
    name = parsed.words[0]
    if name != DEFAULT_CONTEXT:
        read_context(name, call.directory)
    config = call.config()
    config["currentContext"] = name
    if name == DEFAULT_CONTEXT:
        del config["currentContext"]
    save_config(call.directory, config)
    print(f'{name}\nCurrent context is now "{name}"')
    return 0


CREATE_FLAGS = """
    --description string  Description of the context
    --docker string       The daemon: "host=tcp://a:2376,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=true"
"""


def context_create(call: Call, parsed: Parsed) -> int:
    """Store a daemon's address and TLS files under a name."""
    import re

    name = parsed.words[0]
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+", name) or name == DEFAULT_CONTEXT:
        raise CommandError(f'context name "{name}" is invalid, or reserved')
    words = dict(word.partition("=")[::2] for word in parsed.one("docker").split(",") if word)
    if unknown := sorted(set(words) - {"host", *TLS_FILES, "skip-tls-verify"}):
        raise CommandError(f"unrecognized config key: {unknown[0]}")
    meta = f"{call.directory}/contexts/meta/{context_id(name)}"
    if os.path.exists(meta):
        raise CommandError(f'context "{name}" already exists')
    metadata = {"Description": parsed.one("description")} if parsed.one("description") else {}
    skip = words.get("skip-tls-verify", "false") in ("1", "true")
    docker = {"Host": words.get("host", DEFAULT_HOST), "SkipTLSVerify": skip}
    files = {key: _read(words[key]) for key in TLS_FILES if key in words}
    os.makedirs(meta, mode=0o700)
    with open(f"{meta}/meta.json", "w", encoding="utf-8") as file:
        json.dump({"Name": name, "Metadata": metadata, "Endpoints": {"docker": docker}}, file)
    _store_tls(f"{call.directory}/contexts/tls/{context_id(name)}/docker", files)
    print(f'{name}\nSuccessfully created context "{name}"')
    return 0


def _read(path: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read()
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None


def _store_tls(where: str, files: dict[str, bytes]) -> None:
    if files:
        os.makedirs(where, mode=0o700)
    for key, data in files.items():
        with open(os.open(f"{where}/{key}.pem", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(data)


def context_rm(call: Call, parsed: Parsed) -> int:
    """Forget contexts; the one in use only with --force."""
    from shutil import rmtree

    current = context_name(call.settings.values, call.directory)
    for name in parsed.words:
        if name == DEFAULT_CONTEXT:
            raise CommandError('default: context "default" cannot be removed')
        if name == current and not parsed.on("force"):
            raise CommandError(f"context {name} is in use, set -f flag to force remove")
        read_context(name, call.directory)
        for kind in ("meta", "tls"):
            rmtree(f"{call.directory}/contexts/{kind}/{context_id(name)}", ignore_errors=True)
        if name == current:
            config = call.config()
            config.pop("currentContext", None)
            save_config(call.directory, config)
        print(name)
    return 0


def context_inspect(call: Call, parsed: Parsed) -> int:
    """Print what is stored about contexts."""
    from mini_docker.cli.inspect import show_objects

    if not parsed.words:
        parsed.words = [context_name(call.settings.values, call.directory)]

    def find(name: str) -> dict[str, Any]:
        return default_context() if name == DEFAULT_CONTEXT else read_context(name, call.directory)

    return show_objects(parsed, find)


# %% notebooks/G_object_commands.ipynb#contexts-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "context ls", "[OPTIONS]", "List contexts", LS_FLAGS, context_ls, 0, 0, ("context ls",)
    ),
    Command(
        "context show",
        "",
        "Print the name of the current context",
        "",
        context_show,
        0,
        0,
        ("context show",),
    ),
    Command(
        "context use",
        "CONTEXT",
        "Set the current context",
        "",
        context_use,
        1,
        1,
        ("context use far",),
    ),
    Command(
        "context create",
        "[OPTIONS] CONTEXT",
        "Create a context",
        CREATE_FLAGS,
        context_create,
        1,
        1,
        ("context create far --docker host=tcp://far:2376,ca=ca.pem,cert=cert.pem,key=key.pem",),
    ),
    Command(
        "context rm",
        "CONTEXT [CONTEXT...]",
        "Remove one or more contexts",
        "-f, --force  Force the removal of a context in use",
        context_rm,
        1,
        None,
        ("context rm far",),
    ),
    Command(
        "context inspect",
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Display detailed information on one or more contexts",
        FORMAT,
        context_inspect,
        0,
        None,
        ("context inspect far",),
    ),
)
