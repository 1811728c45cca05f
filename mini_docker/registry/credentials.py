# Exported from notebooks/13c_trust.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13c_trust.ipynb#credentials-module
"""Who we are at each registry: Docker's config.json and its credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import subprocess
from typing import Any, NamedTuple

from mini_docker.images.reference import DEFAULT_DOMAIN
from mini_docker.linux.files import write_atomically
from mini_docker.registry.errors import RegistryError

# %% notebooks/13c_trust.ipynb#login
HUB_KEY = "https://index.docker.io/v1/"  # Docker's key for docker.io, older than its domain
TOKEN_USER = "<token>"  # a helper's user name when its secret is an identity token
HELPER_TIMEOUT = 60.0  # seconds; a helper may ask its user
NOT_FOUND = "credentials not found in native keychain"


class Login(NamedTuple):
    """A user with a password, or an identity token, which is exchanged for access tokens."""

    user: str
    password: str = ""
    identity_token: str = ""

    def basic(self) -> str:
        """Return the value of an Authorization header of the scheme Basic, RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def key_of(domain: str) -> str:
    """Return the name under which config.json keeps a registry's login."""
    return HUB_KEY if domain == DEFAULT_DOMAIN else domain


# %% notebooks/13c_trust.ipynb#config-file
class Credentials:
    """The logins in a config.json, or with the helper programs that it names."""

    def __init__(self, directory: str = "") -> None:
        """Use `directory`/config.json; without one $DOCKER_CONFIG, or else ~/.docker, as Docker does."""
        chosen = directory or os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        self.path = f"{chosen}/config.json"

    def get(self, domain: str) -> Login | None:
        """Return who we are at a registry; None is anonymous. Raises RegistryError."""
        document, key = self._read(), key_of(domain)
        helper = _helper(document, key)
        return _ask_helper(helper, key) if helper else _from_file(self.path, document, key)

    def put(self, domain: str, login: Login) -> str:
        """Keep a login, and return where: the file's path, or the helper's name. Raises RegistryError."""
        document, key = self._read(), key_of(domain)
        if helper := _helper(document, key):
            user = TOKEN_USER if login.identity_token else login.user
            secret = login.identity_token or login.password
            message = {"ServerURL": key, "Username": user, "Secret": secret}
            _run_helper(helper, "store", json.dumps(message))
            entry = {}
        else:
            entry = _as_entry(login)
        self._write({**document, "auths": {**document.get("auths", {}), key: entry}})
        return f"docker-credential-{helper}" if helper else self.path

    def remove(self, domain: str) -> bool:
        """Forget a login, and return whether there was one. Raises RegistryError."""
        document, key = self._read(), key_of(domain)
        if helper := _helper(document, key):
            _run_helper(helper, "erase", key)
        auths = dict(document.get("auths", {}))
        known = [name for name in auths if _same_registry(name, key)]
        for name in known:
            del auths[name]
        if known:
            self._write({**document, "auths": auths})
        return bool(known)

    def _read(self) -> dict[str, Any]:
        """Return config.json; {} where there is none. Raises RegistryError with the remedy."""
        try:
            with open(self.path, "rb") as file:
                document = json.loads(file.read())
            for part in (document, document.get("auths", {}), document.get("credHelpers", {})):
                if not isinstance(part, dict):
                    raise TypeError("not the JSON object that Docker writes")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RegistryError(
                f"{self.path} cannot be used: {error}; remedy: correct it, or move it away"
            ) from error
        return dict(document)

    def _write(self, document: dict[str, Any]) -> None:
        """Write the file whole or not at all, for its owner only; a link to it stays a link."""
        path = os.path.realpath(self.path)
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            write_atomically(path, json.dumps(document, indent="\t").encode(), 0o600)
        except OSError as error:
            raise RegistryError(f"{path} cannot be written: {error.strerror}") from error


def _helper(document: dict[str, Any], key: str) -> str:
    """Return the helper in charge of a registry, or "": credHelpers for one, credsStore for the rest."""
    helper = document.get("credHelpers", {}).get(key) or document.get("credsStore") or ""
    if not isinstance(helper, str) or "/" in helper:
        raise RegistryError(f"config.json: {helper!r} is no name of a credential helper")
    return helper


def _same_registry(name: str, key: str) -> bool:
    """Return whether a key of `auths` means this registry; old ones are URLs."""
    bare = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return name == key or (key != HUB_KEY and bare == key)


def _as_entry(login: Login) -> dict[str, str]:
    text = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    return {"auth": text} | (
        {"identitytoken": login.identity_token} if login.identity_token else {}
    )


def _from_file(path: str, document: dict[str, Any], key: str) -> Login | None:
    """Return the login in `auths`. Raises RegistryError for an entry that is none."""
    entries = document.get("auths", {})
    names = sorted((name for name in entries if _same_registry(name, key)), key=lambda n: n != key)
    if not names or not entries[names[0]]:
        return None
    entry = entries[names[0]]
    try:
        user, colon, password = (
            base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        )
        if not colon:
            raise ValueError("no colon")
        return Login(user, password.rstrip("\0"), entry.get("identitytoken") or "")
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise RegistryError(
            f"{path}: the login for {key} cannot be read; remedy: mini_docker login {key}"
        ) from error


# %% notebooks/13c_trust.ipynb#helpers
def _ask_helper(helper: str, key: str) -> Login | None:
    """Return what a credential helper knows of a registry, or None. Raises RegistryError."""
    answer = _run_helper(helper, "get", key)
    if answer is None:
        return None
    try:
        found = json.loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(
            f"docker-credential-{helper} gave no login for {key}, but something else"
        ) from error
    return Login(user, "", secret) if user == TOKEN_USER else Login(user, secret)


def _run_helper(helper: str, verb: str, text: str) -> str | None:
    """Run docker-credential-HELPER VERB with `text` on its stdin; None where it knows no login.

    Raises RegistryError. Source: github.com/docker/docker-credential-helpers.
    """
    name = f"docker-credential-{helper}"
    if shutil.which(name) is None:
        raise RegistryError(f"{name} is not here, but config.json names it; remedy: install it")
    try:
        done = subprocess.run(
            [name, verb], input=text, capture_output=True, text=True, timeout=HELPER_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"{name} {verb} failed: {error}") from error
    if done.returncode == 0:
        return done.stdout
    words = (done.stdout.strip() or done.stderr.strip())[:200]
    if NOT_FOUND in words:
        return None
    raise RegistryError(f"{name} {verb} failed: {words or f'status {done.returncode}'}")
