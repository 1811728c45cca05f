# Exported from notebooks/18b_streams.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18b_streams.ipynb#websocket-module
"""Attach over a WebSocket, RFC 6455: for browsers, which cannot take a connection over."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading

from mini_docker.api.containers import found
from mini_docker.api.http import CHUNK, HttpError
from mini_docker.api.routes import Route
from mini_docker.api.streams import attach_wanted
from mini_docker.engine.streams import attach, wait_for_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from mini_docker.api.http import Request
    from mini_docker.api.routes import Call


# %% notebooks/18b_streams.ipynb#websocket-frames
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LAST, MASKED = 0x80, 0x80
NORMAL_END, PROTOCOL_ERROR = 1000, 1002
ANSWER_TO_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT_VERSIONS = ("1.24", "1.25", "1.26", "1.27")  # Docker sends them text, whatever it is


class Violation(Exception):
    """A frame that RFC 6455 forbids; the text names it."""


def message(kind: int, data: bytes) -> bytes:
    """Return a whole message in one frame, as a server sends it: without a mask."""
    length, first = len(data), LAST | kind
    if length < 126:
        return struct.pack(">BB", first, length) + data
    if length < 1 << 16:
        return struct.pack(">BBH", first, 126, length) + data
    return struct.pack(">BBQ", first, 127, length) + data


def unmasked(data: bytes, mask: bytes) -> bytes:
    """Return data under their mask of four bytes, repeated: XOR over one long number is a single step."""
    length = len(data)
    repeated = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")


class Frames:
    """Reads a client's frames from a connection, after what has already come on it."""

    def __init__(self, stream: socket.socket, early: bytes) -> None:
        """Read nothing yet."""
        self.stream, self.early = stream, early

    def exactly(self, count: int) -> bytes:
        """Return that many bytes. Raises EOFError, OSError."""
        data, self.early = self.early[:count], self.early[count:]
        while len(data) < count:
            piece = self.stream.recv(min(count - len(data), CHUNK))
            if not piece:
                raise EOFError
            data += piece
        return data

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield (kind, data); long data come in pieces. Raises Violation, EOFError, OSError."""
        while True:
            first, second = self.exactly(2)
            kind, left = first & 0x0F, second & 0x7F
            if first & 0x70 or kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
                raise Violation(f"a frame begins with {first:#04x}")
            if not second & MASKED:
                raise Violation("a client's frame has no mask")
            if kind >= CLOSE and (left > 125 or not first & LAST):
                raise Violation("a control frame is long, or in parts")
            if left > 125:
                size, code = (2, ">H") if left == 126 else (8, ">Q")
                left = struct.unpack(code, self.exactly(size))[0]
            mask = self.exactly(4)
            while True:  # CHUNK is a multiple of the mask's length
                piece = self.exactly(min(left, CHUNK))
                left -= len(piece)
                yield kind, unmasked(piece, mask)
                if not left:
                    break


# %% notebooks/18b_streams.ipynb#websocket-talk
class Talk:
    """A WebSocket on one side, a container's plain streams on the other."""

    def __init__(
        self, client: socket.socket, early: bytes, inside: socket.socket, kind: int
    ) -> None:
        """Connect the two; `early` is what the client has already sent, `kind` that of our messages."""
        self.client, self.inside, self.kind = client, inside, kind
        self.frames = Frames(client, early)
        self.sending = threading.Lock()

    def send(self, kind: int, data: bytes) -> None:
        """Send a message: both threads do. Raises OSError."""
        with self.sending:
            self.client.sendall(message(kind, data))

    def run(self, framed: bool) -> None:
        """Copy both ways until one side ends."""
        speaker = threading.Thread(target=self.outward, args=(framed,), daemon=True)
        speaker.start()
        try:
            self.inward()
        finally:
            for side in (self.client, self.inside):  # the client first: no second Close is sent
                end(side)
            speaker.join()
            self.inside.close()
            self.client.close()

    def inward(self) -> None:
        """Give the client's data to the container; a Close is answered, and ends both directions."""
        code = NORMAL_END
        try:
            for kind, data in self.frames:
                if kind == CLOSE:
                    break
                if kind == PING:
                    self.send(PONG, data)
                elif kind != PONG:
                    self.inside.sendall(data)
        except (Violation, EOFError, OSError) as error:
            code = PROTOCOL_ERROR if isinstance(error, Violation) else code
        self.bye(code)

    def outward(self, framed: bool) -> None:
        """Give the container's words to the client, a message for each piece of them."""
        source = self.inside.makefile("rb")
        try:
            while data := next_piece(source, framed):
                self.send(self.kind, data)
        except OSError:
            pass
        self.bye(NORMAL_END)
        end(self.client, socket.SHUT_WR)  # the client's Close may still come

    def bye(self, code: int) -> None:
        """Send a Close, if there is still a way to; a second one finds the connection ended."""
        try:
            self.send(CLOSE, struct.pack(">H", code))
        except OSError:
            pass


def end(side: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """End a connection, so that whoever waits for it wakes up."""
    try:
        side.shutdown(how)
    except OSError:
        pass


def next_piece(source: BufferedReader, framed: bool) -> bytes:
    """Return the next piece of a container's words without Docker's header; nothing at the end."""
    if not framed:
        return source.read1(CHUNK)
    head = source.read(8)
    return source.read(struct.unpack(">4xI", head)[0]) if len(head) == 8 else b""


# %% notebooks/18b_streams.ipynb#websocket-route
def handshake(request: Request) -> str:
    """Return what proves that we understood the client's key, RFC 6455 section 4.2. Raises HttpError."""
    key = request.headers.get("sec-websocket-key", "")
    if request.headers.get("upgrade", "").lower() != "websocket" or not request.upgrades:
        raise HttpError(400, "not websocket protocol")
    if request.headers.get("sec-websocket-version") != "13" or not key:
        raise HttpError(400, "missing or bad WebSocket Version")
    return base64.b64encode(hashlib.sha1((key + ANSWER_TO_KEY).encode("latin-1")).digest()).decode()


def answer_websocket(call: Call) -> None:
    """GET /containers/{id}/attach/ws: attach for browsers. Before API 1.42 all three streams are meant."""
    container = found(call)
    opened = bool(container.record["Config"].get("OpenStdin"))
    wanted = {**attach_wanted(call, container), "stdin": opened, "stdout": True, "stderr": True}
    accept = handshake(call.request)
    kind = TEXT if call.request.version in TEXT_VERSIONS else BINARY
    talks: list[Talk] = []

    def take() -> tuple[socket.socket, str]:
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        client, early = call.reply.take_over([*lines, f"Sec-WebSocket-Accept: {accept}"])
        inside, outside = socket.socketpair()
        talks.append(Talk(call.engine.plain(client), early, inside, kind))
        return outside, ""

    kept = attach(call.engine.containers, container, take, wanted)
    talks[0].run(framed=not container.record["Config"].get("Tty"))
    if kept:
        wait_for_start(container, kept)


WEBSOCKET_ROUTES = (Route("GET", "/containers/{id}/attach/ws", answer_websocket, "Container"),)
