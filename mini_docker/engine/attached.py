# Exported from notebooks/14d_shims.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14d_shims.ipynb#attached-module
"""Who is attached to a container: frames, a loop around poll(2), and the bytes that wait for each client."""

from __future__ import annotations

import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from mini_docker.engine.logs import Entry
    from mini_docker.engine.shim import Shim


# %% notebooks/14d_shims.ipynb#frames
STDOUT, STDERR = "stdout", "stderr"
NUMBER = {STDOUT: 1, STDERR: 2}
CHUNK = 1 << 16
# As in Docker a client that does not read stops the container's output once so much waits for it.
MOST_WAITING = 1 << 20
NOTICE = 2.0  # seconds that the end of a container is kept back for slow clients, as in Docker
PATIENCE = 10.0  # seconds that a client has, after the end, to read what it was sent


HEAD = struct.Struct(">BxxxL")


def frame(stream: str, data: bytes) -> bytes:
    """Return `data` as Docker multiplexes it: the stream's number, three zeros, the length, the bytes."""
    return HEAD.pack(NUMBER[stream], len(data)) + data


# %% notebooks/14d_shims.ipynb#loop
class Loop:
    """poll(2) with a function for each descriptor."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(what happened)` whenever one of `events` does; again changes the events."""
        self.poll.register(fd, events)
        self.handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching; one that is not watched is fine."""
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)

    def turn(self, seconds: float | None = None) -> bool:
        """Wait for something to happen and deal with all that has; False when nothing has."""
        happened = self.poll.poll(None if seconds is None else seconds * 1000)
        for fd, events in happened:
            if fd in self.handlers:
                self.handlers[fd](events)
        return bool(happened)


# %% notebooks/14d_shims.ipynb#client
class Client:
    """Somebody attached: bytes that wait for it, and what it types."""

    def __init__(self, shim: Shim, connection: socket.socket, wanted: dict[str, Any]) -> None:
        """Take over a connection; `wanted` says which streams, and which keys detach."""
        self.shim = shim
        self.connection = connection
        connection.setblocking(False)
        self.streams = [name for name in (STDOUT, STDERR) if wanted.get(name)]
        self.typing = bool(wanted.get("stdin"))
        self.keys = bytes(wanted.get("keys") or ()) if shim.streams.terminal else b""
        self.framed = bool(wanted.get("framed", not shim.streams.terminal))
        self.typed = b""  # the start of the detach keys, held back
        self.waiting = bytearray()
        self.listening = True
        self.rewatch()

    def rewatch(self) -> None:
        """Wait for what can be done now."""
        reading = self.listening and not (self.typing and self.shim.typed)
        events = select.POLLIN * reading | select.POLLOUT * bool(self.waiting)
        self.shim.loop.watch(self.connection.fileno(), events, self._happened)

    def send(self, stream: str, data: bytes) -> None:
        """Send output of the process, framed if that was asked for, or else unless there is a terminal."""
        self.give(((stream, data),))

    def give(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Send several pieces of output at once."""
        for stream, data in pieces:
            if stream in self.streams or self.shim.streams.terminal:
                self.waiting += frame(stream, data) if self.framed else data
        self._flush()

    def _happened(self, events: int) -> None:
        if events & select.POLLOUT:
            self._flush()
        if events & select.POLLIN and self.listening:
            self._read()
        elif events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            self.close()

    def _flush(self) -> None:
        try:
            while self.waiting:
                del self.waiting[: self.connection.send(self.waiting[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self.rewatch()
        self.shim.rewatch_outputs()

    def _read(self) -> None:
        """Take what the client typed; its end is the end of the process's input, if that was asked for."""
        try:
            data = self.connection.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.listening = False
            if self.typing:
                self.shim.input_ended()
            self.rewatch()
        elif self.typing:
            self._type(data)

    def _type(self, data: bytes) -> None:
        """Pass on what was typed, up to the detach keys. They may come one by one."""
        if not self.keys:
            self.shim.type(data)
            return
        data = self.typed + data
        before, found, _ = data.partition(self.keys)
        held = 0 if found else _held_back(data, self.keys)
        self.typed = data[len(data) - held :] if held else b""
        self.shim.type(before[: len(before) - held])
        if found:
            self.close()

    def close(self) -> None:
        """Let the client go."""
        self.shim.loop.forget(self.connection.fileno())
        self.connection.close()
        self.waiting.clear()
        if self in self.shim.clients:
            self.shim.clients.remove(self)
        self.shim.rewatch_outputs()


class Past:
    """A client that wants what the log has first: it is told a piece at a time, while it has room for it."""

    def __init__(self, client: Client, entries: Iterator[Entry], wanted: dict[str, Any]) -> None:
        """Tell `entries`. One that wants more than the past holds the output up until it knows the past."""
        self.client, self.entries, self.wanted = client, entries, wanted
        self.joins = bool(wanted.get("stream", True))
        self.told = False

    def tell(self) -> bool:
        """Send a piece; return whether there is more that the client has room for."""
        client = self.client
        if client.connection.fileno() < 0:
            self.told = True
        if self.told or len(client.waiting) > MOST_WAITING:
            return False
        piece, size = [], 0
        for entry in self.entries:
            piece.append((entry.stream, entry.data))
            size += len(entry.data)
            if size > CHUNK:
                break
        client.give(piece)
        if not piece:
            self.told = self.joins or not client.waiting
        return bool(piece)


def _held_back(data: bytes, keys: bytes) -> int:
    """Return how many bytes at the end of `data` may be the start of `keys`."""
    return next((size for size in range(len(keys) - 1, 0, -1) if data.endswith(keys[:size])), 0)
