"""Attach over a WebSocket: a real client, frames by hand, and what RFC 6455 forbids."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from mini_docker.api.websocket import BINARY, CLOSE, PING, PONG, TEXT, message, unmasked
from tests.conftest import cannot_run_here
from tests.daemons import Daemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.anywhere,
    pytest.mark.usefixtures("leak_free"),
]

HANDSHAKE = (
    b"GET /v1.41/containers/cat/attach/ws?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(kind: int, data: bytes, first: int = 0x80) -> bytes:
    """Return a client's frame."""
    whole = bytearray(message(kind, data))
    head = len(whole) - len(data)
    whole[0] = first | kind
    whole[1] |= 0x80
    mask = b"\x01\x02\x03\x04"
    return bytes(whole[:head]) + mask + unmasked(data, mask)


def payloads(got: bytes) -> Iterator[bytes]:
    """Yield what the short frames after a head hold: a terminal's line may come in several."""
    rest = got.partition(b"\r\n\r\n")[2]
    while len(rest) > 1:
        yield rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]


def opened(daemon: Daemon, early: bytes = b"") -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(120)
    client.connect(daemon.path)
    client.sendall(HANDSHAKE + early)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455's example
    return client


def cat(daemon: Daemon, **more: Any) -> None:
    daemon.run("cat", "cat", OpenStdin=True, StdinOnce=True, **more)


def test_a_real_client(daemon: Daemon) -> None:
    try:
        import websocket
    except ImportError:
        cannot_run_here("there is no websocket-client (remedy: labs/provision.sh --peers)")
    daemon.create("cat", "cat", OpenStdin=True)
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(daemon.path)
    url = "ws://d/v1.41/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&stderr=1&logs=1"
    client = websocket.create_connection(url, socket=plain, timeout=120)
    assert daemon.ask("POST", "/containers/cat/start")[0] == 204
    client.send("typed\n")
    assert client.recv_data() == (BINARY, b"typed\n")
    client.ping("are you there")
    assert client.recv_data(control_frame=True) == (PONG, b"are you there")
    large = os.urandom(300_000)
    client.send_binary(large)
    got = b""
    while len(got) < len(large):
        got += client.recv_data()[1]
    assert got == large
    assert daemon.ask("POST", "/containers/cat/kill")[0] == 204
    assert client.recv_data(control_frame=True) == (CLOSE, struct.pack(">H", 1000))
    client.close()


def test_a_terminal_and_an_old_version(daemon: Daemon) -> None:
    cat(daemon, Tty=True)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(120)
    client.connect(daemon.path)
    client.sendall(HANDSHAKE.replace(b"v1.41", b"v1.24") + masked(TEXT, b"x\r"))
    got = b""
    while b"".join(payloads(got)).count(b"x\r\n") < 2:  # the terminal's echo, and cat's
        got += client.recv(100)
    assert got[got.index(b"\r\n\r\n") + 4] == 0x80 | TEXT
    client.sendall(masked(BINARY, b"\x10\x11"))  # the detach keys
    while piece := client.recv(100):
        got += piece
    assert got.endswith(message(CLOSE, struct.pack(">H", 1000)))
    assert daemon.state("cat")["Running"]
    client.close()


def test_parts_early_frames_and_a_clients_close(daemon: Daemon) -> None:
    cat(daemon)
    early = masked(BINARY, b"one ", 0) + masked(PING, b"p") + masked(0, b"two\n")
    client = opened(daemon, early)
    wanted = [message(PONG, b"p"), message(BINARY, b"one two\n"), message(BINARY, b"one ")]
    got = b""
    while b"two\n" not in got or wanted[0] not in got:
        got += client.recv(100)
    client.sendall(masked(CLOSE, struct.pack(">H", 1000)))
    rest = b"".join(iter(lambda: client.recv(100), b""))
    assert rest == message(CLOSE, struct.pack(">H", 1000))
    assert daemon.ask("POST", "/containers/cat/wait")[1]["StatusCode"] == 0
    client.close()


@pytest.mark.parametrize(
    "frame",
    [
        message(BINARY, b"without a mask"),
        masked(3, b""),
        masked(BINARY, b"", 0xC0),
        masked(PING, b"x" * 126),
        masked(PING, b"", 0),
    ],
)
def test_what_the_standard_forbids_ends_the_conversation(daemon: Daemon, frame: bytes) -> None:
    cat(daemon)
    client = opened(daemon, frame)
    assert b"".join(iter(lambda: client.recv(100), b""))[-4:] == b"\x88\x02" + struct.pack(
        ">H", 1002
    )
    client.close()
    assert daemon.ask("GET", "/_ping") == (200, "OK")


@pytest.mark.parametrize("broken", [b"Upgrade: websocket\r\n", b"Sec-WebSocket-Key", b": 13"])
def test_what_is_no_websocket_gets_an_answer(daemon: Daemon, broken: bytes) -> None:
    cat(daemon)
    replaced = {b": 13": b": 12", b"Sec-WebSocket-Key": b"X-Key"}.get(broken, b"")
    answer = daemon.raw(HANDSHAKE.replace(broken, replaced))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
