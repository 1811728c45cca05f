# Exported from notebooks/13c_trust.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13c_trust.ipynb#client-module
"""One registry, as a client sees it: requests that log in, wait, try again, and explain what went wrong."""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from mini_docker.registry.credentials import Login
from mini_docker.registry.errors import (
    BadContent,
    RegistryError,
    Unauthorized,
    Unreachable,
    Untrusted,
    error_words,
    refusal,
    retry_after,
)
from mini_docker.registry.settings import Endpoint, Settings, endpoints, tls_context
from mini_docker.registry.tokens import Authenticator
from mini_docker.registry.transport import Connections, Request, Response, Transport

# %% notebooks/13c_trust.ipynb#client-words
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
TRANSIENT = (429, 500, 502, 503, 504)
ERROR_LIMIT = 64 << 10  # bytes of an error's body
CERTIFICATE_ALERTS = ("ALERT_CERTIFICATE", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA")
LONGEST_WAIT = 10.0  # seconds between two tries, unless the registry says otherwise
LoginOf = Callable[[str], Login | None]  # a registry's domain -> who we are there
Body = bytes | Callable[[], Iterable[bytes]]


# %% notebooks/13c_trust.ipynb#client
class Client:
    """A registry at one endpoint, as one user. Safe for several threads; `close` it."""

    def __init__(
        self,
        domain: str,
        endpoint: Endpoint,
        settings: Settings,
        login: Login | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Keep what there is to know; nothing is sent yet."""
        self.domain, self.endpoint, self.settings = domain, endpoint, settings
        self.stopped = threading.Event()
        self._transport = transport or Connections(
            lambda host: tls_context(host, endpoint.host(), settings), settings.timeout
        )
        self.auth = Authenticator(domain, self._ask_for_token, login)

    def close(self) -> None:
        """Close what is open, and let no waiting thread try again."""
        self.stopped.set()
        if isinstance(self._transport, Connections):
            self._transport.close()

    def request(
        self,
        method: str,
        path: str,
        what: str,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        allow: Sequence[int] = (),
        tries: int = 0,
    ) -> Response:
        """Send a request for `what` and return the answer: any 2xx, or a status in `allow`.

        Logs in, follows redirects and waits where the registry asks for it; `tries` bounds the attempts
        (0: as the settings say). Raises RegistryError, whose text names `what`.
        """
        url = urllib.parse.urljoin(self.endpoint.url, path)
        request = Request(method, url, dict(headers or {}), body)
        host = self.endpoint.host()
        return self._patiently(
            lambda: self._logged_in(request, scope, what), what, host, allow, tries
        )

    def _ask_for_token(self, request: Request, what: str) -> Response:
        """Send a request to a token server and return its answer: a 2xx, or a 401."""
        host = urllib.parse.urlsplit(request.url).netloc
        return self._patiently(lambda: self._transport.exchange(request), what, host, (401,))

    def _patiently(
        self,
        send: Callable[[], Response],
        what: str,
        host: str,
        allow: Sequence[int] = (),
        tries: int = 0,
    ) -> Response:
        """Return what `send` gets from `host`, waiting and trying again where that may help."""
        most = tries or max(1, int(self.settings.max_download_attempts))
        for attempt in range(1, most + 1):
            try:
                response = send()
            except (OSError, http.client.HTTPException) as error:
                failure: RegistryError = self._explained(error, what, host)
                if isinstance(failure, Untrusted) or attempt == most or _is_final(error):
                    raise failure from error
                self.wait(attempt)
                continue
            if response.status // 100 == 2 or response.status in allow:
                return response
            with response:
                if response.status not in TRANSIENT or attempt == most:
                    self._refuse(response, what)
                self._wait_as_told(response, attempt, what)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def wait(self, attempt: int, seconds: float | None = None) -> None:
        """Wait before the next try: twice as long each time, a little at random. Raises Unreachable."""
        backed_off = min(self.settings.back_off * 2 ** (attempt - 1), LONGEST_WAIT)
        if self.stopped.wait(backed_off * random.uniform(0.8, 1.2) if seconds is None else seconds):
            raise Unreachable(f"registry {self.domain}: given up, because another part failed")

    def speaks(self) -> bool:
        """Return whether a registry answers here in this scheme; a 400 is TLS that hears plain HTTP."""
        try:
            request = Request("GET", f"{self.endpoint.url}/v2/", {})
            with self._transport.exchange(request) as response:
                return response.status != 400
        except (OSError, http.client.HTTPException) as error:
            # it does speak TLS; whether we trust each other is decided when it matters
            return isinstance(error, ssl.SSLCertVerificationError) or _wants_certificate(error)

    def _logged_in(self, request: Request, scope: str, what: str) -> Response:
        """Send a request with what the registry wants to see; answer its challenges, twice at most."""
        for left in (2, 1, 0):
            sent = self.auth.header(scope, what)
            headers = {"Authorization": sent} if sent else {}
            response = self._followed(request, headers, what)
            if (
                response.status != 401
                or response.url.partition("?")[0] != request.url.partition("?")[0]
            ):
                return response
            challenge = response.header("WWW-Authenticate")
            if not left or not challenge:
                return response
            with response:
                words = error_words(response.read(ERROR_LIMIT))
            if not self.auth.challenged(challenge, request.url, scope, sent, what):
                raise refusal(self.domain, what, 401, words, response.headers)
        raise AssertionError("unreachable: the last answer is returned")

    def _followed(self, request: Request, secret: Mapping[str, str], what: str) -> Response:
        """Send a request and follow redirects of GET and HEAD; another host never sees `secret`."""
        url = request.url
        for _ in range(MOST_REDIRECTS + 1):
            own = _origin(url) == _origin(self.endpoint.url)
            headers = {**request.headers, **(secret if own else {})}
            response = self._transport.exchange(request._replace(url=url, headers=headers))
            target = response.header("Location")
            if (
                response.status not in REDIRECTS
                or not target
                or request.method not in ("GET", "HEAD")
            ):
                return response
            with response:
                response.read(ERROR_LIMIT)
            url = _safe_redirect(
                f"registry {self.domain}: {what}", url, urllib.parse.urljoin(url, target)
            )
        raise BadContent(f"registry {self.domain}: {what}: redirects in circles: refused")

    def _wait_as_told(self, response: Response, attempt: int, what: str) -> None:
        """Wait as long as Retry-After says; one that is longer than our patience ends the matter."""
        seconds = retry_after(response.header("Retry-After"), time.time())
        if seconds is not None and seconds > self.settings.patience:
            self._refuse(response, what)
        response.read(ERROR_LIMIT)
        self.wait(attempt, seconds)

    def _refuse(self, response: Response, what: str) -> NoReturn:
        """Raise the error for a status that is no success."""
        try:
            words = error_words(response.read(ERROR_LIMIT))
        except (OSError, http.client.HTTPException):
            words = ""  # docker-registry 2.8 sends wrong lengths with some of its errors
        raise refusal(self.domain, what, response.status, words, response.headers)

    def _explained(self, error: Exception, what: str, host: str) -> RegistryError:
        """Return the RegistryError that says what a failed conversation with `host` means."""
        about = f"registry {self.domain}: {what}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return Untrusted(
                f"{about}: TLS certificate of {host} is not trusted: {error.verify_message}; remedy: put the "
                f"CA's certificate at {self.settings.certificates[0]}/{self.domain}/ca.crt"
            )
        if _wants_certificate(error):
            return Unauthorized(
                f"{about}: {host} takes no client without a certificate that it knows; remedy: put yours at "
                f"{self.settings.certificates[0]}/{host}/client.cert, and its key beside it as client.key"
            )
        if isinstance(error, ssl.SSLError):
            return Unreachable(
                f"{about}: {host} does not speak TLS as we do ({error.reason or error}); remedy: "
                "if it speaks plain HTTP and you trust the network, name it in "
                "insecure-registries of daemon.json"
            )
        if isinstance(error, socket.gaierror):
            return Unreachable(f"{about}: no such host {host}; remedy: check the name, and DNS")
        if isinstance(error, ConnectionRefusedError):
            return Unreachable(
                f"{about}: nothing listens at {host} (connection refused); remedy: check the port, start it"
            )
        if isinstance(error, TimeoutError):
            return Unreachable(
                f"{about}: {host} does not answer; remedy: check the network, try again"
            )
        words = str(error) or type(error).__name__
        return Unreachable(f"{about}: the connection to {host} broke: {words}; remedy: try again")


# %% notebooks/13c_trust.ipynb#client-helpers
def _is_final(error: Exception) -> bool:
    """Return whether trying again is of no use: a name that is not there, a port where nobody listens."""
    return isinstance(error, (ConnectionRefusedError, ssl.SSLError)) or (
        isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
    )


def _wants_certificate(error: Exception) -> bool:
    """Return whether a server has ended TLS because of our certificate, or because there was none."""
    reason = getattr(error, "reason", None) or ""
    return isinstance(error, ssl.SSLError) and any(alert in reason for alert in CERTIFICATE_ALERTS)


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _safe_redirect(where: str, url: str, target: str) -> str:
    """Return a redirect's target. Raises BadContent where it leaves HTTP, or TLS."""
    was, becomes = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(target).scheme
    if becomes not in ("http", "https") or (was, becomes) == ("https", "http"):
        raise BadContent(f"{where}: redirects from {was} to {becomes or target}: refused")
    return target


# %% notebooks/13c_trust.ipynb#reach
def reach(domain: str, settings: Settings, login_of: LoginOf, mirrors: bool = True) -> list[Client]:
    """Return clients for a registry: its mirrors first, then itself over TLS, or in the clear where allowed.

    Raises RegistryError where `login_of` does.
    """
    places = endpoints(domain, settings, mirrors)
    found = [_client(place, place.host(), settings, login_of) for place in places if place.mirror]
    own = [place for place in places if not place.mirror]
    for place in own[:-1]:
        client = _client(place, domain, settings, login_of)
        if client.speaks():
            return [*found, client]
        client.close()
    return [*found, _client(own[-1], domain, settings, login_of)]


def _client(place: Endpoint, domain: str, settings: Settings, login_of: LoginOf) -> Client:
    return Client(domain, place, settings, login_of(domain))


def scope_of(path: str, actions: str) -> str:
    """Return a token's scope: "repository:library/busybox:pull"."""
    return f"repository:{path}:{actions}"
