# Exported from notebooks/13c_trust.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13c_trust.ipynb#transport-module
"""HTTP as a registry client needs it: connections that are kept, answers that are read piece by piece.

One method, `exchange(request) -> response`: a registry without a network is a class that has it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from mini_docker import __version__


# %% notebooks/13c_trust.ipynb#request
class Request(NamedTuple):
    """One HTTP request. A body that is a callable is called for each try, and returns its bytes anew."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | Callable[[], Iterable[bytes]] = b""


class Response:
    """An answer whose body is still on its way; `close` it, or use `with`."""

    def __init__(
        self, raw: http.client.HTTPResponse, url: str, done: Callable[[bool], None]
    ) -> None:
        """Wrap `raw`; `done(reusable)` gets the connection back."""
        self.status, self.headers, self.url = raw.status, raw.headers, url
        self._raw, self._done = raw, done

    def header(self, name: str, default: str = "") -> str:
        """Return a header's value."""
        return self.headers.get(name) or default

    def read(self, limit: int) -> bytes:
        """Return at most `limit` bytes of the body; b"" at its end. Raises IncompleteRead if it broke off."""
        return self._raw.read(limit)

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with body and return how much of it; 0 at the end, or where it broke off."""
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the connection: it is kept if the body was read to its end."""
        self._done(self._raw.isclosed() and not self._raw.will_close)

    def __enter__(self) -> Response:
        """Return the answer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class Transport(Protocol):
    """What carries requests."""

    def exchange(self, request: Request) -> Response:
        """Send one request and return the answer, of whatever status. Raises OSError, HTTPException."""
        ...


# %% notebooks/13c_trust.ipynb#connections
USER_AGENT = f"mini_docker/{__version__}"
BLOCK = 1 << 17  # bytes read or written at once
TIMEOUT = 60.0  # seconds without a byte
CONNECT_TIMEOUT = 15.0
TlsFor = Callable[[str], ssl.SSLContext]


class Connections:
    """A transport over TCP and TLS. Connections that are free again are used again, by any thread."""

    def __init__(self, tls_for: TlsFor, timeout: float = TIMEOUT) -> None:
        """Keep `tls_for(host)`, which returns whom to trust there, and the seconds of silence to bear."""
        self._tls_for, self._timeout = tls_for, timeout
        self._free: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def exchange(self, request: Request) -> Response:
        """Send one request; a kept connection that was closed meanwhile is replaced by a new one."""
        parts = urllib.parse.urlsplit(request.url)
        key = (parts.scheme, parts.netloc)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        while connection := self._take(key):
            try:
                return self._send(connection, key, target, request)
            except (ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine):
                connection.close()
        return self._send(self._connect(*key), key, target, request)

    def close(self) -> None:
        """Close all connections; a thread that is reading from one finds that it broke off."""
        with self._lock:
            free, self._free = self._free, {}
            for connection in self._busy:
                _shut_down(connection.sock)
        for connection in (one for several in free.values() for one in several):
            connection.close()

    def _take(self, key: tuple[str, str]) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._free[key].pop() if self._free.get(key) else None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        key: tuple[str, str],
        target: str,
        request: Request,
    ) -> Response:
        """Send a request by one connection; it is kept when the answer was read to its end."""

        def done(reusable: bool) -> None:
            with self._lock:
                self._busy.discard(connection)
                if reusable:
                    self._free.setdefault(key, []).append(connection)
            if not reusable:
                connection.close()

        with self._lock:
            self._busy.add(connection)
        body = request.body if isinstance(request.body, bytes) else request.body()
        headers = {"User-Agent": USER_AGENT, **request.headers}
        try:
            connection.request(request.method, target, body or None, headers)
            return Response(connection.getresponse(), request.url, done)
        except BaseException as error:
            try:
                if isinstance(error, ssl.SSLEOFError):
                    connection.sock.recv(1)  # raises what it said before it hung up
            finally:
                done(False)
            raise

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        """Return a new connection, through the proxy of the environment where there is one for `netloc`."""
        host, port = split_host(netloc, 443 if scheme == "https" else 80)
        proxy = proxy_for(scheme, host)
        where, at = split_host(proxy, 80) if proxy else (host, port)
        connection: http.client.HTTPConnection
        if scheme == "https":
            tls = self._tls_for(netloc)
            connection = http.client.HTTPSConnection(
                where, at, timeout=CONNECT_TIMEOUT, context=tls
            )
        else:
            connection = http.client.HTTPConnection(where, at, timeout=CONNECT_TIMEOUT)
        if proxy:
            connection.set_tunnel(host, port)
        connection.connect()
        sock: socket.socket = connection.sock
        sock.settimeout(self._timeout)
        return connection


# %% notebooks/13c_trust.ipynb#hosts
def _shut_down(sock: socket.socket | None) -> None:
    """End a connection that another thread is using, shutdown(2)."""
    try:
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already


def split_host(netloc: str, default_port: int) -> tuple[str, int]:
    """Return (host, port) of "host", "host:port" or "[::1]:port". Raises OSError for what is no port."""
    parts = urllib.parse.urlsplit(f"//{netloc}")
    try:
        return parts.hostname or "", parts.port or default_port
    except ValueError as error:
        raise OSError(f"{netloc} is no host and port: {error}") from error


def proxy_for(scheme: str, host: str) -> str:
    """Return host:port of the proxy that http_proxy, https_proxy and no_proxy ask for, or ""."""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    proxy = urllib.request.getproxies().get(scheme, "")
    return urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself: localhost, 127.0.0.0/8, ::1."""
    return host in ("localhost", "::1") or host.startswith("127.")
