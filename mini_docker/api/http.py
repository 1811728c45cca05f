# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#http-module
"""One HTTP/1.1 connection: requests in, answers out, and the moment at which it becomes a plain stream."""

from __future__ import annotations

import json
import re
import socket
import time
from email.utils import formatdate
from functools import cached_property
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from mini_docker.api.faults import ENDED, NoJson, decoded
from mini_docker.api.strict import BAD_ESCAPE, LONGEST_HEAD, body_fault, check_head, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


# %% notebooks/18_http_api.ipynb#limits
CHUNK = 1 << 16
LONGEST_JSON = 1 << 24
HEAD_SECONDS = (
    30.0  # from the first byte of a request to the end of its head, and between pieces of a body
)
IDLE_SECONDS = 300.0  # between two requests


class HttpError(Exception):
    """An answer that is an error: its status, and the sentence for the user."""

    def __init__(self, status: int, text: str, plain: bool = False) -> None:
        """Keep the status and the text; `plain` is for clients too old for JSON."""
        super().__init__(text)
        self.status = status
        self.plain = plain


class Gone(Exception):
    """The client went away."""


class Slow(Gone):
    """The client sends what it has begun too slowly."""


# %% notebooks/18_http_api.ipynb#request
class Request:
    """A request: its head is here, its body is read when somebody asks for it."""

    def __init__(self, connection: Connection, head: h11.Request) -> None:
        """Take the head apart."""
        self.connection = connection
        self.method = head.method.decode("latin-1")
        target = head.target.decode("latin-1")
        if not target.startswith("/"):  # a proxy's: http://host/path
            target = urlsplit(target)._replace(scheme="", netloc="").geturl()
        path, _, self.query_text = target.partition("?")
        self.path = unquote(path)
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers
        }
        self.version = ""

    @cached_property
    def query_lists(self) -> list[tuple[str, str]]:
        """The names and values of the query. Raises HttpError, in Go's words."""
        if wrong := BAD_ESCAPE.search(self.query_text):
            raise HttpError(400, f'invalid URL escape "{wrong[0]}"')
        if ";" in self.query_text:
            raise HttpError(400, "invalid semicolon separator in query")
        return parse_qsl(self.query_text, keep_blank_values=True)

    @cached_property
    def query(self) -> dict[str, str]:
        """The query; of several values of a name, the first. Raises HttpError."""
        return dict(reversed(self.query_lists))

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value of the query, read as Docker does: "0", "no", "false", "none" are false."""
        text = self.query.get(name, "").strip().lower()
        if name not in self.query:
            return default
        return text not in ("", "0", "no", "false", "none")

    def number(self, name: str) -> int | None:
        """Return a number of the query, None where it is not there. Raises HttpError."""
        text = self.query.get(name, "")
        if not text:
            return None
        right = re.fullmatch(r"[-+]?[0-9]+", text)
        if not right or len(text) > 20 or abs(int(text)) >> 63:
            wrong = "value out of range" if right else "invalid syntax"
            raise HttpError(400, f'strconv.Atoi: parsing "{text}": {wrong}')
        return int(text)

    def filters(self, broken: int = 500) -> dict[str, list[str]]:
        """Return `filters`: {"label": {"a=b": true}} (Go's clients) or {"label": ["a=b"]} (all others).

        What is no JSON has the status `broken`. Raises HttpError.
        """
        text = self.query.get("filters", "")
        if not text:
            return {}
        try:
            found = decoded(text)
        except NoJson as error:
            words = str(error).replace(ENDED, "unexpected end of JSON input")
            raise HttpError(broken, words) from None
        if not isinstance(found, dict):
            raise unfit(found, "map[string]map[string]bool")
        for values in found.values():
            if not isinstance(values, (dict, list)):
                raise unfit(values, "map[string]bool")
        return {str(key): [str(value) for value in values] for key, values in found.items()}

    def body(self) -> Iterator[bytes]:
        """Yield the pieces of the body. Raises Gone."""
        return self.connection.body()

    def raw(self) -> bytes:
        """Return the whole body, which must be short, and come soon. Raises HttpError(413), Slow, Gone."""
        data, deadline = bytearray(), time.monotonic() + HEAD_SECONDS
        for piece in self.body():
            if time.monotonic() > deadline:
                raise Slow("its body is not here in time")
            data += piece
            if len(data) > LONGEST_JSON:
                raise HttpError(413, "request body is too large")
        return bytes(data)

    def json(self, required: bool = True, broken: int = 400) -> dict[str, Any]:
        """Return the body's JSON object. Raises HttpError, with Docker's words.

        What is no JSON has the status `broken`: Docker's oldest routes say 500 to it.
        """
        kind = self.headers.get("content-type", "")
        data = self.raw()
        if not data and not required:
            return {}
        nothing = "EOF" if broken == 500 else "got EOF while reading request body"
        if not data and not kind:
            raise HttpError(broken, nothing)
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise HttpError(400, f"Content-Type specified ({kind}) must be 'application/json'")
        if not data.strip():
            raise HttpError(broken, nothing)
        try:
            found = decoded(data)
        except NoJson as error:
            raise HttpError(broken, str(error)) from None
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise HttpError(
                400, f"json: cannot unmarshal {kind_of(found)} into Go value of an object"
            )
        return found

    @property
    def upgrades(self) -> bool:
        """Whether the client asks for a plain stream after the answer's head."""
        return "upgrade" in self.headers.get("connection", "").lower() and "upgrade" in self.headers


def unfit(value: object, kind: str) -> HttpError:
    """Return the error of filters that are JSON, and no filters."""
    return HttpError(500, f"json: cannot unmarshal {kind_of(value)} into Go value of type {kind}")


def kind_of(value: object) -> str:
    """Return what Go's decoder calls a JSON value."""
    kinds = {
        bool: "bool",
        int: "number",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return kinds.get(type(value), "null")


# %% notebooks/18_http_api.ipynb#connection
class Connection:
    """An HTTP connection on a socket: one request after the other, until somebody takes the socket over."""

    def __init__(self, stream: socket.socket, headers: list[tuple[str, str]]) -> None:
        """Serve on `stream`; `headers` go into every answer."""
        self.stream = stream
        self.common = headers
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self.answered = False
        self.hijacked = False
        self.body_follows = False

    # --- in

    def next_request(self) -> Request | None:
        """Return the next request, or None at the end. Raises Gone, NoHttp."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        if self.http.our_state is not h11.IDLE:
            return None
        self.answered = False
        try:
            event = self._next_event(IDLE_SECONDS)
        except (h11.RemoteProtocolError, ValueError) as error:
            # a ValueError: of a length with more digits than int() takes
            raise refusal(error) from error
        if not isinstance(event, h11.Request):
            return None
        check_head(event)
        lengths = dict(event.headers)
        self.body_follows = (
            lengths.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in lengths
        )
        return Request(self, event)

    def _next_event(self, first_wait: float = 0.0) -> Any:
        """Return h11's next event. A head that comes byte by byte has HEAD_SECONDS for all of them."""
        deadline = None
        while (event := self.http.next_event()) is h11.NEED_DATA:
            now = time.monotonic()
            wait = (first_wait or HEAD_SECONDS) if deadline is None else deadline - now
            self.stream.settimeout(max(wait, 0.001))
            try:
                data = self.stream.recv(CHUNK)
            except TimeoutError:
                begun = deadline is not None or not first_wait
                raise (Slow if begun else Gone)("the rest does not come") from None
            except OSError as error:
                raise Gone(str(error)) from None
            deadline = deadline or time.monotonic() + HEAD_SECONDS
            self.http.receive_data(data)
        return event

    def body(self) -> Iterator[bytes]:
        """Yield the pieces of the request's body. Raises Gone, HttpError for one that is no body."""
        if self.http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while self.http.their_state is h11.SEND_BODY:
            try:
                event = self._next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(400, body_fault(error)) from None
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                raise Gone("the body ended early")

    def unread(self) -> bool:
        """Say whether the client may still be sending a body that nobody is going to read."""
        return not self.hijacked and self.http.their_state in (h11.SEND_BODY, h11.ERROR)

    def gone(self) -> bool:
        """Return whether the client has closed the connection, without waiting for it.

        A client that has only closed its sending side still reads: it is not gone.
        """
        import select

        poll = select.poll()
        poll.register(self.stream, 0)
        return bool(poll.poll(0))

    # --- out

    def _send(self, *events: Any) -> None:
        data = b"".join(self.http.send(event) or b"" for event in events)
        if data:
            try:
                self.stream.settimeout(None)
                self.stream.sendall(data)
            except OSError as error:
                raise Gone(str(error)) from None

    def head(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an answer's head, at once: whoever waits for a stream must not wait for its first word."""
        self._send(self._head(status, headers))

    def _head(self, status: int, headers: list[tuple[str, str]]) -> h11.Response:
        self.answered = True
        kept = self.http.they_are_waiting_for_100_continue and self.body_follows
        last = kept or self.http.their_state is h11.ERROR  # what follows may be no request
        more = [("Connection", "close")] if last else []
        lines = [*self.common, *headers, ("Date", formatdate(usegmt=True)), *more]
        return h11.Response(status_code=status, headers=lines, reason=REASONS.get(status, ""))

    def piece(self, data: bytes) -> None:
        """Send a piece of a body, as one chunk where there are chunks."""
        self._send(h11.Data(data=data))

    def end(self) -> None:
        """Send the end of the body; what is left of the request's is read, to keep the connection."""
        self._send(h11.EndOfMessage())
        left = 0
        if self.http.our_state is h11.MUST_CLOSE:
            return
        try:
            for piece in self.body():
                left += len(piece)
                if left > LONGEST_JSON:
                    raise Gone("the client sends a body that nobody wants")
        except HttpError as error:
            raise Gone(str(error)) from None

    def empty(self, status: int, headers: list[tuple[str, str]] | None = None) -> None:
        """Answer without a body."""
        length = [] if status in (204, 304) else [("Content-Length", "0")]
        self.head(status, [*(headers or ()), *length])
        self.end()

    def send_json(self, status: int, value: object) -> None:
        """Answer with a JSON value and a newline."""
        self.send_bytes(
            status, "application/json", json.dumps(value, separators=(",", ":")).encode() + b"\n"
        )

    def send_bytes(
        self, status: int, kind: str, data: bytes, more: list[tuple[str, str]] | None = None
    ) -> None:
        """Answer with a body of known length, in one piece: two would wake the client twice."""
        lines = [("Content-Type", kind), ("Content-Length", str(len(data))), *(more or ())]
        self._send(self._head(status, lines), h11.Data(data=data))
        self.end()

    def stream_out(
        self, kind: str | None, headers: list[tuple[str, str]] | None = None
    ) -> Callable[[bytes], None]:
        """Send the head of a chunked answer; return the function that sends a piece."""
        kinds = [("Content-Type", kind)] if kind else []
        self.head(200, [*kinds, *(headers or ()), ("Transfer-Encoding", "chunked")])
        return self.piece

    def hijack(self, upgrade: bool, common: bool, kind: str) -> tuple[socket.socket, bytes]:
        """Send the head of a raw stream; return the socket, and what the client has already sent in it.

        With `upgrade` it is Docker's 101, else a 200 without a length, whose end is the connection's.
        """
        first = "HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK"
        lines = [first, f"Content-Type: {kind}"]
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
        lines += [f"{name}: {value}" for name, value in self.common] if common else []
        return self.take_over(lines)

    def take_over(self, lines: list[str]) -> tuple[socket.socket, bytes]:
        """Send the head that ends HTTP; return the socket, and what has come on it already. Raises Gone."""
        self.answered = True
        try:
            self.stream.settimeout(None)
            self.stream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        except OSError as error:
            raise Gone(str(error)) from None
        self.hijacked = True
        return self.stream, self.http.trailing_data[0]


REASONS = {
    200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 413: "Request Entity Too Large",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable",
}  # fmt: skip
