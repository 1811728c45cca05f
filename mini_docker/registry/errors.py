# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#errors-module
"""What can go wrong with a registry.

ImageError
  RegistryError       names registry and repository, and says what to do
    Unreachable       no such host, closed port, no answer, a connection that broke once too often
    Untrusted         TLS: nobody we know vouches for this server
    Unauthorized      401: it wants a login
    Denied            403: it knows us, and says no
    NotFound          404: no such repository, tag or blob; or no image for our platform
    TooManyRequests   429: a rate limit
    ServerError       5xx
    BadContent        what came is not what was promised: digest, size, media type, length
"""

from __future__ import annotations

import email.utils
import http.client
import json
import time
from collections.abc import Mapping
from typing import Any

from mini_docker.images.layout import ImageError

Headers = Mapping[str, str] | http.client.HTTPMessage


class RegistryError(ImageError):
    """A registry that does not do what was asked; the text names it, the repository and the remedy."""


class Unreachable(RegistryError):
    """No conversation came about, or it broke off."""


class Untrusted(RegistryError):
    """The server's certificate is vouched for by nobody we trust."""


class Unauthorized(RegistryError):
    """The registry wants a login."""


class Denied(RegistryError):
    """The registry knows us and refuses."""


class NotFound(RegistryError):
    """There is no such thing in the registry."""


class TooManyRequests(RegistryError):
    """A rate limit is reached."""


class ServerError(RegistryError):
    """The registry itself has failed."""


class BadContent(RegistryError):
    """What was sent is not what was promised. Nothing of it was kept."""


# %% notebooks/13_registry.ipynb#refusal
def error_words(data: bytes) -> str:
    """Return what an error's body says: the protocol's {"errors": [{"code", "message"}]}, or {"details"}."""
    try:
        document: Any = json.loads(data)
        if "errors" in document:
            first = document["errors"][0]
            code, message = str(first.get("code") or ""), str(first.get("message") or "")
            return ": ".join(filter(None, (code.lower().replace("_", " "), message)))[:300]
        return str(document.get("details") or document.get("message") or "")[:300]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def retry_after(header: str, now: float) -> float | None:
    """Return the seconds that a Retry-After asks for, a number or a date; None where it says nothing."""
    try:
        return max(0.0, float(int(header)))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except (TypeError, ValueError, IndexError):
        return None


def refusal(domain: str, what: str, status: int, words: str, headers: Headers) -> RegistryError:
    """Return the error for an HTTP status, in plain words and with what to do."""
    about, said = f"registry {domain}: {what}", f": {words}" if words else ""
    if status == 401:
        return Unauthorized(f"{about}: login needed{said}; remedy: mini_docker login {domain}")
    if status == 403:
        return Denied(
            f"{about}: denied{said}; remedy: log in as a user who may (mini_docker login {domain})"
        )
    if status == 404:
        return NotFound(
            f"{about}: not found{said}; remedy: check the name and the tag; a private one needs a login"
        )
    if status == 429:
        return TooManyRequests(
            f"{about}: too many requests (HTTP 429){said}; {_limit_words(headers)}"
        )
    if status >= 500:
        return ServerError(f"{about}: the registry failed (HTTP {status}){said}; remedy: try later")
    return RegistryError(
        f"{about}: unexpected answer (HTTP {status}){said}; remedy: is this a registry?"
    )


def _limit_words(headers: Headers) -> str:
    """Return what the registry says of its limit ("100;w=21600": 100 in 6 hours), and the remedy."""
    number, _, window = (headers.get("RateLimit-Limit") or "").partition(";w=")
    limit = ""
    if number.isdigit() and window.isdigit():
        limit = f"the limit is {number} pulls in {int(window) / 3600:g} hours; "
    seconds = retry_after(headers.get("Retry-After") or "", time.time())
    wait = f"wait {seconds:.0f} seconds" if seconds is not None else "wait"
    return f"{limit}remedy: {wait}, log in (users have higher limits), or use a mirror (registry-mirrors)"
