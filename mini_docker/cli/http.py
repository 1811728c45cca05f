# Exported from notebooks/19c_a_client_by_hand.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19c_a_client_by_hand.ipynb#http-module
"""HTTP/1.1 as a client speaks it: a request, a head, a body in one of three framings, a hijack."""

from __future__ import annotations

from mini_docker.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable, Iterator


# %% notebooks/19c_a_client_by_hand.ipynb#http-reader
PIECE = 1 << 16  # bytes that one recv(2) asks for
LONGEST_LINE = 1 << 16  # bytes of a head's line
MOST_HEADERS = 200


class ProtocolError(CommandError):
    """The other side does not speak HTTP, or stopped in the middle of a word."""


class Reader:
    """Bytes of a socket, and those that came with them and are not wanted yet."""

    def __init__(self, sock: _socket.socket) -> None:
        """Begin with nothing read."""
        self.sock = sock
        self.data = b""

    def fill(self) -> bool:
        """Wait for more bytes; return whether any came, recv(2)."""
        more = self.sock.recv(PIECE)
        self.data += more
        return bool(more)

    def line(self) -> bytes:
        """Return the bytes up to the next newline, without their ending. Raises ProtocolError."""
        while b"\n" not in self.data:
            if len(self.data) > LONGEST_LINE:
                raise ProtocolError("a line of the answer's head is too long")
            if not self.fill():
                raise ProtocolError("unexpected EOF")
        line, _, self.data = self.data.partition(b"\n")
        return line.removesuffix(b"\r")

    def take(self, most: int) -> bytes:
        """Return what is there, at most `most` bytes, waiting only when nothing is; b"" at the end."""
        if not self.data:
            self.fill()
        taken, self.data = self.data[:most], self.data[most:]
        return taken


# %% notebooks/19c_a_client_by_hand.ipynb#http-response
class Response:
    """An answer: status, headers, and a body to be read as it comes."""

    def __init__(self, status: int, headers: dict[str, str], reader: Reader, method: str) -> None:
        """Take the head apart, and see from it how the body will end."""
        self.status = status
        self.headers = headers
        self.reader = reader
        self.done: Callable[[], None] = _nothing
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.left = _length(status, headers, method)
        self.ended = self.left == 0
        self.closes = self.left is None and not self.chunked

    def piece(self) -> bytes:
        """Return the next piece of the body, as soon as there is one; b"" at its end.

        Raises ProtocolError when the connection breaks before.
        """
        if self.ended:
            return b""
        found = self._chunks() if self.chunked else self._plain()
        if self.ended or not found:
            self.ended = True
            self.done()
        return found

    def _plain(self) -> bytes:
        found = self.reader.take(PIECE if self.left is None else self.left)
        if self.left is not None:
            if not found:
                raise ProtocolError("unexpected EOF")
            self.left -= len(found)
            self.ended = self.left == 0
        return found

    def _chunks(self) -> bytes:
        """Return the bytes of all chunks that are here, waiting for the first."""
        found: list[bytes] = []
        while True:
            if not self.left:
                if found and b"\n" not in self.reader.data:
                    break
                self.left = _chunk_size(self.reader.line())
                if self.left == 0:
                    while self.reader.line():
                        pass  # trailers, which Docker never sends
                    self.ended = True
                    break
            elif found and not self.reader.data:
                break
            data = self.reader.take(self.left)
            if not data:
                raise ProtocolError("unexpected EOF")
            found.append(data)
            self.left -= len(data)
            if self.left == 0:
                self._after_chunk()
        return b"".join(found)

    def _after_chunk(self) -> None:
        if self.reader.line():
            raise ProtocolError("malformed chunked encoding")

    def pieces(self) -> Iterator[bytes]:
        """Yield the body's pieces as they come."""
        while found := self.piece():
            yield found

    def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join(self.pieces())

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines as they come, without their endings: JSON messages are framed so."""
        rest = b""
        for found in self.pieces():
            *lines, rest = (rest + found).split(b"\n")
            yield from lines
        if rest.strip():
            yield rest


def _nothing() -> None:
    """Nobody waits for the end of this body."""


def _length(status: int, headers: dict[str, str], method: str) -> int | None:
    """Return the length of a body in bytes, RFC 9112 section 6.3; None if only its end will tell."""
    if method == "HEAD" or status in (204, 304):
        return 0
    if "content-length" not in headers or "transfer-encoding" in headers:
        return None
    text = headers["content-length"]
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError(f"bad Content-Length {text!r}")
    return int(text)


def _chunk_size(line: bytes) -> int:
    try:
        size = int(line.partition(b";")[0].strip(), 16)
    except ValueError:
        size = -1
    if size < 0:
        raise ProtocolError("malformed chunked encoding")
    return size


# %% notebooks/19c_a_client_by_hand.ipynb#http-connection
class Connection:
    """A connection to a daemon: one request after the other."""

    def __init__(self, sock: _socket.socket) -> None:
        """Speak on a connected socket."""
        self.sock = sock
        self.reader = Reader(sock)

    def request(
        self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] = b""
    ) -> Response:
        """Send a request, its body chunked unless it is bytes, and return the head of the answer."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        whole = isinstance(body, bytes)
        if isinstance(body, bytes):
            lines += [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT") else []
        else:
            lines.append("Transfer-Encoding: chunked")
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"
        try:
            if isinstance(body, bytes):
                self.sock.sendall(head + body)
            else:
                self._send_chunked(head, body)
        except (BrokenPipeError, ConnectionResetError):
            if whole:
                raise
            # a refusal may have come before the body was through: it says why
        return self.response(method)

    def _send_chunked(self, head: bytes, body: Iterable[bytes]) -> None:
        self.sock.sendall(head)
        for piece in body:
            if piece:
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.sock.sendall(b"0\r\n\r\n")

    def response(self, method: str) -> Response:
        """Return the head of the next answer. Raises ProtocolError for what is not HTTP."""
        version, _, rest = self.reader.line().partition(b" ")
        code = rest[:3]
        if not version.startswith(b"HTTP/1.") or not code.isdigit():
            raise ProtocolError("malformed HTTP response")
        headers: dict[str, str] = {}
        while line := self.reader.line():
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or len(headers) > MOST_HEADERS:
                raise ProtocolError("malformed header of the answer")
            headers[name.strip().lower()] = value.strip()
        return Response(int(code), headers, self.reader, method)

    def has_news(self) -> bool:
        """Say whether anything has come that nobody asked for, such as the end of the connection, poll(2)."""
        import select

        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading, shutdown(2)."""
        try:
            self.sock.shutdown(1)
        except OSError:
            pass  # it is closed already, which says the same

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()
