# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#strict-module
"""What is no HTTP: refused as Go's net/http does it, with a line of text and the end of the connection."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    import h11


class NoHttp(Exception):
    """A request that no route is to see: the status, and Go's words where it has some."""

    def __init__(self, status: int, words: str = "") -> None:
        """Keep both."""
        super().__init__(words or STATUS_WORDS[status])
        self.status, self.words = status, words

    def answer(self) -> bytes:
        """Return the whole answer."""
        first = f"{self.status} {STATUS_WORDS[self.status]}" + (
            f": {self.words}" if self.words else ""
        )
        body = OWN_TEXTS.get(self.status, first)
        kind = ["Content-Type: text/plain; charset=utf-8"] if body else []
        lines = [f"HTTP/1.1 {first}", *kind, "Connection: close", "", body]
        return "\r\n".join(lines).encode()


STATUS_WORDS = {
    400: "Bad Request", 417: "Expectation Failed", 431: "Request Header Fields Too Large",
    501: "Not Implemented", 505: "HTTP Version Not Supported",
}  # fmt: skip
OWN_TEXTS = {417: "", 501: "Unsupported transfer encoding"}


# %% notebooks/18_http_api.ipynb#strict-head
TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
HOST_HEADER = re.compile(rb"[-!$%&'()*+,.:;=\[\]_~0-9A-Za-z]*")
CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
TARGET = re.compile(rb"(/|https?://|\*$)", re.IGNORECASE)
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
MOST = (1 << 63) - 1
LONGEST_HEAD = (1 << 20) + 4096  # as Go's net/http, and so dockerd


def check_head(head: h11.Request) -> None:
    """Look at what h11 lets through. Raises NoHttp."""
    if sum(len(name) + len(value) + 4 for name, value in head.headers) > LONGEST_HEAD:
        raise NoHttp(431)
    if not head.http_version.startswith(b"1."):
        raise NoHttp(505, "unsupported protocol version")
    path = head.target.partition(b"?")[0].decode("latin-1")
    if not TARGET.match(head.target) or BAD_ESCAPE.search(path):
        raise NoHttp(400)
    for name, value in head.headers:
        if CONTROL.search(value):
            raise NoHttp(400, "invalid header value")
        if name == b"host" and not HOST_HEADER.fullmatch(value):
            raise NoHttp(400, "malformed Host header")
        if name == b"content-length" and int(value) > MOST:
            raise NoHttp(400)
        if name == b"expect" and value.lower() != b"100-continue":
            raise NoHttp(417)


def refusal(error: Exception) -> NoHttp:
    """Return what a head that h11 does not take is answered with."""
    text, status = str(error), getattr(error, "error_status_hint", 400)
    if text.startswith("Missing mandatory Host"):
        return NoHttp(400, "missing required Host header")
    line = re.match(r"illegal header line: bytearray\(b['\"]([^:]+):", text)
    if line and status == 400:
        right = TOKEN.fullmatch(line[1].encode("latin-1", "replace"))
        return NoHttp(400, "invalid header value" if right else "invalid header name")
    return NoHttp(status if status in STATUS_WORDS else 400)


def body_fault(error: Exception) -> str:
    """Return Go's words for a body that does not hold what its head promised."""
    text = str(error)
    if text.startswith("illegal chunk header"):
        return "invalid byte in chunk length"
    return "unexpected EOF" if text.startswith("peer closed") else "malformed chunked encoding"
