# Exported from notebooks/19c_a_client_by_hand.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19c_a_client_by_hand.ipynb#client-module
"""Requests to a daemon: versions, JSON, errors, streams. What http.py is to bytes, this is to Docker."""

from __future__ import annotations

import os

from mini_docker.cli.context import connect
from mini_docker.cli.errors import CommandError, DaemonError
from mini_docker.cli.http import Connection, ProtocolError
from mini_docker.cli.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from mini_docker.cli.context import Endpoint
    from mini_docker.cli.http import Response


# %% notebooks/19c_a_client_by_hand.ipynb#client-query
SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


def quote(text: str, safe: str = "") -> str:
    """Return a text percent-encoded for a URL, RFC 3986; urllib.parse costs 5 ms to import."""
    keep = SAFE | set(safe.encode())
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in data)


def container_path(name: str) -> str:
    """Return "/containers/NAME" for the user's word for a container."""
    return f"/containers/{quote(name)}"


def query_string(query: dict[str, Any]) -> str:
    """Return "?a=1&b=x" of what is set: True is 1, lists repeat, dictionaries are JSON; "" of nothing."""
    pairs = []
    for name, value in query.items():
        if value is None or value is False or value == "":
            continue
        for one in value if isinstance(value, list) else [value]:
            text = dumps(one) if isinstance(one, dict) else "1" if one is True else str(one)
            pairs.append(f"{name}={quote(text)}")
    return f"?{'&'.join(pairs)}" if pairs else ""


def filters(words: list[str]) -> dict[str, Any]:
    """Return the `filters` of a query, {"label": {"a=b": true}}, from the command line's name=value."""
    found: dict[str, dict[str, bool]] = {}
    for word in words:
        name, _, value = word.partition("=")
        if word:
            found.setdefault(name.strip().lower(), {})[value.strip()] = True
    return found


# %% notebooks/19c_a_client_by_hand.ipynb#client
VERSION = "1.41"  # what this client was written against
OLDEST = "1.24"


class Client:
    """A daemon, as a command sees it."""

    def __init__(self, endpoint: Endpoint, directory: str) -> None:
        """Speak to `endpoint`; credentials are in `directory`. Nothing is connected yet."""
        self.endpoint = endpoint
        self.directory = directory
        self.pinned = os.environ.get("DOCKER_API_VERSION", "").removeprefix("v")
        self.version = self.pinned or VERSION
        self.idle: list[Connection] = []

    def open(self) -> Connection:
        """Return a fresh connection. Raises CommandError in Docker's words when nobody answers."""
        try:
            return Connection(connect(self.endpoint))
        except PermissionError:
            where = f"{self.endpoint.host}: dial {self.endpoint.host.replace('://', ' ')}"
            raise CommandError(
                "permission denied while trying to connect to the Docker daemon socket at "
                f"{where}: connect: permission denied (remedy: sudo mini_docker ..., or be a member of "
                "the group mini_docker)"
            ) from None
        except (OSError, ValueError) as error:
            if self.endpoint.root:
                return self._started()
            raise CommandError(self._unreachable(error)) from None

    def start_nothing(self) -> None:
        """Let a daemon that is not there be: some commands only want to know."""
        self.endpoint.root = ""

    def _started(self) -> Connection:
        """Return a connection to a daemon of ours that this command starts."""
        from mini_docker.cli.daemon import start_daemon

        start_daemon(self.endpoint.host, self.endpoint.root)
        self.start_nothing()
        return self.open()

    def _unreachable(self, error: Exception) -> str:
        if type(error).__module__ in ("ssl", "_ssl"):
            return f"error during connect: {getattr(error, 'reason', '') or error}: {self.endpoint.host}"
        return f"Cannot connect to the Docker daemon at {self.endpoint.host}. Is the docker daemon running?"

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request and return its answer, the body unread. Raises DaemonError for a refusal.

        `body` is sent as it is when it is bytes or an iterator of bytes, and as JSON otherwise.
        """
        raw = isinstance(body, bytes) or hasattr(body, "__next__")
        if hasattr(body, "__next__"):
            self.negotiate()  # what is sent while it is read can be sent only once
        data = b"" if body is None else body if raw else dumps(body).encode()
        send = {"Host": "docker", "User-Agent": "mini_docker", **(headers or {})}
        if not raw and body is not None:
            send["Content-Type"] = "application/json"
        target = path + query_string(query or {})
        response = self._exchange(method, target, send, data)
        if response.status == 400 and self._other_version(response):
            response = self._exchange(method, target, send, data)
        if response.status >= 400:
            raise _refusal(response)
        return response

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes]
    ) -> Response:
        """Send on a connection that is idle, or on a new one when the daemon has closed that.

        When it breaks off only a question is asked again: what changes something may have been obeyed.
        """
        versioned = f"/v{self.version}{target}"
        idle = self._idle_connection()
        connection = idle or self.open()
        try:
            response = connection.request(method, versioned, headers, body)
        except (OSError, ProtocolError) as error:
            connection.close()
            if idle and method in ("GET", "HEAD"):
                return self._exchange(method, target, headers, body)
            raise CommandError(f"error during connect: {method} {versioned}: {error}") from None
        if response.ended:
            self.idle.append(connection)
        elif not response.closes:
            response.done = lambda: self.idle.append(connection)
        return response

    def _idle_connection(self) -> Connection | None:
        """Return an idle connection on which nothing has come, not even its end, if there is one."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.has_news():
                return connection
            connection.close()
        return None

    def _other_version(self, response: Response) -> bool:
        """Take the daemon's API version if it refused ours, and return whether to ask again."""
        theirs = response.headers.get("api-version", "")
        refused = self.version
        if self.pinned or not theirs or theirs == refused:
            return False
        if version_key(theirs) < version_key(refused):
            self.version = theirs
        else:
            text = response.read()
            if b"is too old. Minimum supported API version is " not in text:
                raise _refused_with(response.status, text)
            self.version = text.partition(b"API version is ")[2][:4].decode().strip(",. ")
        return self.version != refused

    def negotiate(self) -> None:
        """Ask which API version the daemon speaks, before a request that cannot be sent twice."""
        if self.idle or self.pinned:
            return
        response = self._exchange("HEAD", "/_ping", {"Host": "docker"}, b"")
        self._other_version(response) if response.status == 400 else None

    def json(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Send a request and return what the answer's JSON says; None when there is none."""
        text = self.call(method, path, query, body).read()
        return parse_json(text) if text.strip() else None

    def messages(self, response: Response) -> Iterator[dict[str, Any]]:
        """Yield the JSON messages of a stream as they come."""
        for line in response.lines():
            if line.strip():
                yield parse_json(line)

    def hijack(self, path: str, query: dict[str, Any], body: Any = None) -> Connection:
        """Send a request that turns its connection into a stream of bytes both ways, and return that.

        Raises DaemonError.
        """
        connection = self.open()
        headers = {
            "Host": "docker",
            "User-Agent": "mini_docker",
            "Connection": "Upgrade",
            "Upgrade": "tcp",
        }
        data = b""
        if body is not None:
            headers["Content-Type"], data = "application/json", dumps(body).encode()
        target = f"/v{self.version}{path}{query_string(query)}"
        response = connection.request("POST", target, headers, data)
        if response.status not in (101, 200):
            raise _refusal(response)
        return connection


def version_key(text: str) -> tuple[int, ...]:
    """Return "1.41" as numbers that can be compared."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text. Raises CommandError for what is none."""
    try:
        return loads(text)
    except (ValueError, RecursionError):
        start = text[:60].decode("utf-8", "replace")
        raise CommandError(f"the daemon's answer is no JSON: {start!r}") from None


def _refusal(response: Response) -> DaemonError:
    return _refused_with(response.status, response.read())


def _refused_with(status: int, text: bytes) -> DaemonError:
    try:
        message = str(loads(text)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        message = text.decode("utf-8", "replace").strip()
    return DaemonError(message or f"HTTP status {status}", status)
