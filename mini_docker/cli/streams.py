# Exported from notebooks/19d_streams_and_terminals.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19d_streams_and_terminals.ipynb#streams-module
"""Bytes between a container and the user: frames taken apart, keys watched, signals passed on."""

from __future__ import annotations

import os
import select

from mini_docker.cli.errors import CommandError
from mini_docker.cli.http import PIECE, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
    from typing import Any

    from mini_docker.cli.http import Connection, Response
else:
    import _signal as signal  # the C half: the Python half imports enum


# %% notebooks/19d_streams_and_terminals.ipynb#frames
HEADER = 8  # bytes: stream, three zeros, length (big-endian)
STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3


class Frames:
    """Takes the two streams of a container apart that one connection carries."""

    def __init__(self) -> None:
        """Begin between two frames."""
        self.rest = b""
        self.stream = 0
        self.left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return (stream, bytes) for what has come, neighbours of one stream joined.

        Raises ProtocolError for what is no frame, and CommandError for the daemon's own error.
        """
        data = self.rest + data
        at, end = 0, len(data)
        found: list[tuple[int, list[bytes]]] = []
        while at < end:
            if not self.left:
                if end - at < HEADER:
                    break
                self._open(data[at : at + HEADER])
                at += HEADER
                continue
            piece = data[at : at + self.left]
            at += len(piece)
            self.left -= len(piece)
            if found and found[-1][0] == self.stream:
                found[-1][1].append(piece)
            else:
                found.append((self.stream, [piece]))
        self.rest = data[at:]
        return [_whole(stream, b"".join(pieces)) for stream, pieces in found]

    def _open(self, header: bytes) -> None:
        self.stream = header[0]
        if self.stream > SYSTEM_ERROR:
            raise ProtocolError(f"Unrecognized input header: {self.stream}")
        self.left = int.from_bytes(header[4:], "big")


def _whole(stream: int, data: bytes) -> tuple[int, bytes]:
    if stream == SYSTEM_ERROR:
        raise CommandError(f"error from daemon in stream: {data.decode('utf-8', 'replace')}")
    return (STDERR if stream == STDERR else STDOUT), data


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, write(2). Raises CommandError in Docker's words when there is no room."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        where = {1: "/dev/stdout", 2: "/dev/stderr"}.get(fd, f"descriptor {fd}")
        raise CommandError(f"write {where}: {(error.strerror or '').lower()}") from None


class Screen:
    """Where a container's output goes: raw from a terminal, in frames otherwise."""

    def __init__(self, tty: bool) -> None:
        """Expect raw bytes if the container has a terminal."""
        self.frames = None if tty else Frames()

    def show(self, data: bytes) -> None:
        """Write what came to the user's two streams."""
        if self.frames is None:
            write_all(1, data)
            return
        for stream, piece in self.frames.feed(data):
            write_all(2 if stream == STDERR else 1, piece)

    def show_all(self, pieces: Iterable[bytes]) -> None:
        """Write a body to its end."""
        for piece in pieces:
            self.show(piece)


# %% notebooks/19d_streams_and_terminals.ipynb#detach-keys
DETACH_KEYS = "ctrl-p,ctrl-q"


class Detached(Exception):  # noqa: N818 (no error: the user wants to leave)
    """The user pressed the detach keys."""


class Keys:
    """What the user types, watched for the sequence that means: leave, and let it run."""

    def __init__(self, names: str) -> None:
        """Parse "ctrl-p,ctrl-q" or "a,ctrl-x". Raises CommandError."""
        self.sequence = bytes(_key(name) for name in (names or DETACH_KEYS).split(","))
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what to pass on; keys that may begin the sequence are held. Raises Detached."""
        passed = b""
        for byte in data:
            self.held += bytes([byte])
            if self.held == self.sequence:
                raise Detached
            while self.held and not self.sequence.startswith(self.held):
                passed, self.held = passed + self.held[:1], self.held[1:]
        return passed


def _key(name: str) -> int:
    """Return the byte of "a" or "ctrl-a"."""
    if len(name) == 1 and ord(name) < 128:
        return ord(name)
    last = name.removeprefix("ctrl-")
    if name != last and len(last) == 1 and (last in "@[\\]^_" or "a" <= last <= "z"):
        return ord(last.upper()) & 0x1F
    raise CommandError(f"Unknown character: '{last if name != last else name}'")


# %% notebooks/19d_streams_and_terminals.ipynb#signals
PASSED_ON = tuple(
    getattr(signal, f"SIG{name}")
    for name in "HUP INT QUIT USR1 USR2 ALRM TERM CONT TSTP WINCH XCPU XFSZ VTALRM PROF IO SYS".split()
)
FATAL = (signal.SIGHUP, signal.SIGTERM)


class Signals:
    """Signals as bytes in a pipe inside a `with` statement, so that one poll(2) waits for them too."""

    def __init__(self, numbers: Iterable[int]) -> None:
        """Name the signals."""
        self.numbers = tuple(numbers)
        self.saved: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Begin to catch, signal(2); the handler only lets Python write the number into the pipe."""
        self.fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.before = signal.set_wakeup_fd(self.write_fd, warn_on_full_buffer=False)
        self.saved = {number: signal.signal(number, _caught) for number in self.numbers}
        return self

    def take(self) -> list[int]:
        """Return the signals that came."""
        try:
            return list(os.read(self.fd, 64))
        except BlockingIOError:
            return []

    def __exit__(self, *_: object) -> None:
        """Put every signal back as it was."""
        for number, handler in self.saved.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.before)
        os.close(self.fd)
        os.close(self.write_fd)


def _caught(number: int, frame: object) -> None:
    """Do nothing: the number is in the pipe."""


# %% notebooks/19d_streams_and_terminals.ipynb#session
READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Session:
    """A user at a container: a hijacked connection, keys in, output out, until the output ends."""

    def __init__(
        self,
        connection: Connection,
        screen: Screen,
        signals: Signals,
        stdin: int | None,
        keys: Keys | None,
    ) -> None:
        """Put the ends together; `keys` only where the user types at a terminal."""
        self.connection = connection
        self.screen = screen
        self.signals = signals
        self.stdin = stdin
        self.keys = keys
        self.poll = select.poll()
        self.poll.register(connection.sock, select.POLLIN)
        self.poll.register(signals.fd, select.POLLIN)
        if stdin is None:
            connection.half_close()
        else:
            self.poll.register(stdin, select.POLLIN)

    def run(self, obey: Callable[[int], None], other: Response | None = None) -> None:
        """Carry bytes until the container's side ends, or `other` has an answer. Raises Detached.

        `obey` is called for each signal.
        """
        if self.connection.reader.data:
            self.screen.show(self.connection.reader.take(PIECE))
        if other is not None:
            self.poll.register(other.reader.sock, select.POLLIN)
        while True:
            ready = {fd for fd, event in self.poll.poll() if event & READABLE}
            if self.signals.fd in ready:
                for number in self.signals.take():
                    obey(number)
            if self.stdin in ready:
                self._input(os.read(self.stdin or 0, PIECE))
            if self.connection.sock.fileno() in ready:
                data = self._receive()
                if not data:
                    return
                self.screen.show(data)
            elif other is not None and other.reader.sock.fileno() in ready:
                return

    def _receive(self) -> bytes:
        try:
            return self.connection.reader.take(PIECE)
        except ConnectionResetError:
            return b""

    def _input(self, data: bytes) -> None:
        """Pass on what the user typed; at its end close our half of the connection."""
        passed = self.keys.feed(data) if self.keys and data else data
        try:
            if passed:
                self.connection.sock.sendall(passed)
            if not data:
                self.poll.unregister(self.stdin or 0)
                self.connection.half_close()
        except (BrokenPipeError, ConnectionResetError):
            self.poll.unregister(self.stdin or 0)  # it ended; its last words are still to be read
            self.stdin = None
