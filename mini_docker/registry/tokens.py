# Exported from notebooks/13c_trust.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13c_trust.ipynb#tokens-module
"""Answers to a registry's "who are you?": WWW-Authenticate, and the tokens that it sends us to fetch."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import NamedTuple

from mini_docker.registry.credentials import Login
from mini_docker.registry.errors import RegistryError, error_words, refusal
from mini_docker.registry.transport import Request, Response, is_loopback

# %% notebooks/13c_trust.ipynb#challenge
PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
SCHEME = re.compile(r"\s*,?\s*([A-Za-z0-9-]+)(?:[\s,]+|$)(?!=)")


class Challenge(NamedTuple):
    """One way to say who we are: Basic, or Bearer with the place where tokens are made."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges of a WWW-Authenticate header, in its order. Source: RFC 9110, 11.6.1."""
    found, at = [], 0
    while match := SCHEME.match(header, at):
        at, parameters = match.end(), {}
        while parameter := PARAMETER.match(header, at):
            name, quoted, bare = parameter.groups()
            parameters[name.lower()] = bare or re.sub(r"\\(.)", r"\1", quoted or "")
            at = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
    return found


# %% notebooks/13c_trust.ipynb#tokens
CLIENT_ID = "mini_docker"
SHORTEST_LIFE = (
    60.0  # seconds; what a token without expires_in lives, and the least that Docker assumes
)
MARGIN = 5.0  # seconds before its end in which a token is no longer used
ANSWER_LIMIT = 1 << 20  # bytes of a token server's answer


Ask = Callable[[Request, str], Response]  # (request, what it is about) -> a 2xx, or a 401


class Token(NamedTuple):
    """What to send as Authorization, and until when (time.monotonic)."""

    header: str
    ends: float


class Authenticator:
    """What one registry accepts from us, for each scope; safe for several threads.

    `identity_token` is what a token server gives to one who logs in (`lasting`), in place of the password.
    """

    def __init__(self, registry: str, ask: Ask, login: Login | None) -> None:
        """Keep who we are; nothing is sent before a challenge asks for it, tokens are then got by `ask`."""
        self.registry, self.login = registry, login
        self.lasting, self.identity_token = False, ""
        self._ask = ask
        self._tokens: dict[str, Token] = {}
        self._challenge: Challenge | None = None
        self._lock = threading.Lock()

    def header(self, scope: str, what: str) -> str:
        """Return the Authorization for a scope, fetched anew where it is about to end; "" for none yet."""
        with self._lock:
            token = self._tokens.get(scope)
            if token and token.ends > time.monotonic() + MARGIN:
                return token.header
            return self._answer(self._challenge, scope, what) if self._challenge else ""

    def challenged(self, header: str, url: str, scope: str, refused: str, what: str) -> bool:
        """Learn from a 401 what is wanted; False if `refused`, what was sent, is all that we have.

        Raises Unauthorized, Denied or RegistryError where the token server does not help.
        """
        with self._lock:
            current = self._tokens.get(scope)
            if current and current.header != refused:
                return True  # another thread was here meanwhile
            self._tokens.pop(scope, None)
            self._challenge = self._choose(header, url, what)
            if self._challenge is None:
                return False
            return self._answer(self._challenge, scope, what) != refused

    def _choose(self, header: str, url: str, what: str) -> Challenge | None:
        """Return the challenge that we can answer: Bearer before Basic."""
        known = {one.scheme: one for one in parse_challenges(header)}
        if "bearer" in known and known["bearer"].parameters.get("realm"):
            check_realm(
                f"registry {self.registry}: {what}", known["bearer"].parameters["realm"], url
            )
            return known["bearer"]
        return known.get("basic") if self.login and not self.login.identity_token else None

    def _answer(self, challenge: Challenge, scope: str, what: str) -> str:
        if challenge.scheme == "basic":
            token = Token(self.login.basic() if self.login else "", float("inf"))
        else:
            token = self._fetch(
                challenge.parameters, scope or challenge.parameters.get("scope", ""), what
            )
        self._tokens[scope] = token
        return token.header

    def _fetch(self, parameters: dict[str, str], scope: str, what: str) -> Token:
        """Ask the token server. Source: distribution's docs/spec/auth/token.md and oauth.md."""
        began = time.monotonic()
        fields = [("service", parameters["service"])] if "service" in parameters else []
        fields += [("scope", one) for one in scope.split(" ") if one]
        if self.lasting and self.login and not self.login.identity_token:
            fields += [("offline_token", "true"), ("client_id", CLIENT_ID)]
        request = _token_request(parameters["realm"], fields, self.login)
        where = f"{what}: the token server at {parameters['realm']}"
        with self._ask(request, where) as response:
            data = response.read(ANSWER_LIMIT)
            if response.status == 401:
                words = error_words(data) or "incorrect username or password"
                raise refusal(self.registry, where, response.status, words, response.headers)
        try:
            answer = json.loads(data)
            text = str(answer.get("token") or answer["access_token"])
            life = max(float(answer.get("expires_in") or 0), SHORTEST_LIFE)
            self.identity_token = str(answer.get("refresh_token") or "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(
                f"registry {self.registry}: {where} sent no token; "
                "remedy: try later, or tell the registry's owner"
            ) from error
        return Token(f"Bearer {text}", began + life)


def check_realm(where: str, realm: str, url: str) -> None:
    """Refuse to carry a password in the clear when the registry itself speaks TLS. Raises RegistryError."""
    parts = urllib.parse.urlsplit(realm)
    plain = parts.scheme == "http" and not is_loopback(parts.hostname or "")
    if parts.scheme not in ("http", "https") or (plain and url.startswith("https:")):
        raise RegistryError(
            f"{where}: tokens are to be fetched from {realm}, which is not safe: refused"
        )


def _token_request(realm: str, fields: list[tuple[str, str]], login: Login | None) -> Request:
    """Return the request for a token: by a form with an identity token, else by a query."""
    if login and login.identity_token:
        fields += [("grant_type", "refresh_token"), ("client_id", CLIENT_ID)]
        fields += [("refresh_token", login.identity_token)]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", realm, form, urllib.parse.urlencode(fields).encode())
    headers = {"Authorization": login.basic()} if login else {}
    if login:
        fields += [("account", login.user)]
    query = urllib.parse.urlencode(fields)
    return Request("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers)
