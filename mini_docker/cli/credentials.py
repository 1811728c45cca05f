# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#credentials-module
"""Who we are to a registry: config.json, helpers, and the header that carries it through the daemon."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode

from mini_docker.cli.context import load_config, save_config
from mini_docker.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/G_object_commands.ipynb#credentials
HUB = "https://index.docker.io/v1/"


def registry_of(image: str) -> str:
    """Return the registry that an image's name means, as config.json names it."""
    first, slash, _ = image.partition("/")
    if not slash or (first != "localhost" and "." not in first and ":" not in first):
        return HUB
    return HUB if first in ("docker.io", "index.docker.io") else first


def credentials(directory: str, registry: str) -> dict[str, str]:
    """Return username, password and serveraddress for a registry; {} when nothing is stored."""
    config = load_config(directory)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper:
        return _ask_helper(str(helper), registry)
    stored = config.get("auths") or {}
    found = stored.get(registry) or stored.get(f"https://{registry}") or {}
    try:
        user, _, password = b64decode(found.get("auth", "")).decode().partition(":")
    except ValueError:
        raise CommandError(f"config.json holds no readable credentials for {registry}") from None
    answer = {"username": user, "password": password.strip("\0"), "serveraddress": registry}
    if found.get("identitytoken"):
        answer["identitytoken"] = found["identitytoken"]
    return answer if user or found.get("identitytoken") else {}


def _ask_helper(helper: str, registry: str, verb: str = "get", text: str = "") -> dict[str, str]:
    """Return what docker-credential-HELPER answers; {} when it knows nothing or is not there."""
    import subprocess

    command = [f"docker-credential-{helper}", verb]
    try:
        done = subprocess.run(
            command, input=text or registry, capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout) if verb == "get" else {}
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {}
    user, secret = found.get("Username", ""), found.get("Secret", "")
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": registry}
    return {"username": user, "password": secret, "serveraddress": registry} if user else {}


def registry_header(directory: str, image: str) -> dict[str, str]:
    """Return the X-Registry-Auth header for an image."""
    found = credentials(directory, registry_of(image))
    return {"X-Registry-Auth": urlsafe_b64encode(json.dumps(found).encode()).decode()}


def store_credentials(directory: str, registry: str, found: dict[str, str]) -> str:
    """Keep credentials where config.json says, and return a warning when that is the file itself."""
    config = load_config(directory)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    user, secret = found["username"], found["password"]
    if helper:
        text = json.dumps({"ServerURL": registry, "Username": user, "Secret": secret})
        _ask_helper(str(helper), registry, "store", text)
        return ""
    entry: dict[str, Any] = {"auth": b64encode(f"{user}:{secret}".encode()).decode()}
    if found.get("identitytoken"):
        entry = {
            "auth": b64encode(f"{user}:".encode()).decode(),
            "identitytoken": found["identitytoken"],
        }
    config.setdefault("auths", {})[registry] = entry
    save_config(directory, config)
    return f"WARNING! Your credentials are stored unencrypted in '{directory}/config.json'."


def forget_credentials(directory: str, registry: str) -> None:
    """Remove what is stored for a registry; when there is nothing, that is what was wanted."""
    config = load_config(directory)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper:
        _ask_helper(str(helper), registry, "erase")
    elif registry in (config.get("auths") or {}):
        del config["auths"][registry]
        save_config(directory, config)
