"""Bad input: bodies against the description, slow and half-open clients, names, ports, upgrades."""

from __future__ import annotations

import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mini_docker.api.http as http
import mini_docker.api.server as server_module
from mini_docker.api.openapi import describe
from mini_docker.api.server import Server, tcp_listener, unix_listener
from mini_docker.api.table import TABLE
from tests.daemons import Daemon, UnixConnection
from tests.system import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.anywhere,
    pytest.mark.usefixtures("leak_free"),
]

# ---- bodies, by the description that the daemon serves ----------------------------------------------

WRONG: dict[str, list[Any]] = {
    "string": [7, True, [], {}, "a\0b"],
    "integer": ["text", 1.5, True, [], {}, 1 << 63],
    "boolean": ["yes", 1, [], {}],
    "array": ["text", 7, True, {}, [None]],
    "object": ["text", 7, True, []],
}


def wrong_values(schema: dict[str, Any], depth: int = 0) -> Iterator[Any]:
    """Yield values that a schema forbids, and right ones with one wrong thing inside."""
    if "anyOf" in schema:
        yield from (7, True, {}, [1], [None])
        return
    yield from WRONG[schema["type"]]
    if depth > 3:
        return
    if schema["type"] == "array":
        yield from ([inner] for inner in wrong_values(schema["items"], depth + 1))
    inside = schema.get("additionalProperties")
    if inside:
        yield from ({"key": inner} for inner in wrong_values(inside, depth + 1))
    needed = dict.fromkeys(schema.get("required", ()), "x")
    for name, field in schema.get("properties", {}).items():
        if field["type"] in ("string", "integer", "boolean"):
            yield {**needed, name: WRONG[field["type"]][0]}
    if needed:
        yield {}


def requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what makes each route's body with one field wrong."""
    described = describe(TABLE.routes)
    schemas = described["components"]["schemas"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"][
                    "$ref"
                ]
                yield method.upper(), path, schemas[reference.rpartition("/")[2]]


def bad_bodies(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, field in schema["properties"].items():
        for value in wrong_values(field):
            yield {name: value}
    for name, field in schema["properties"].get("HostConfig", {}).get("properties", {}).items():
        for value in wrong_values(field):
            yield {"HostConfig": {name: value}}


def test_every_field_of_every_body_has_its_type(daemon: Daemon) -> None:
    """A thousand bodies, each wrong in one field: all get Go's sentence, and nothing is made."""
    daemon.run("web", "sleep", "1000")
    exec_id = daemon.ask("POST", "/containers/web/exec", {"Cmd": ["true"]})[1]["Id"]
    tried, taken = 0, []
    connection = UnixConnection(daemon.path)
    for method, path, schema in requests():
        place = path.replace("/exec/{id}", f"/exec/{exec_id}").replace("{id}", "web")
        place += "?container=web" if path == "/commit" else ""
        for body in bad_bodies(schema):
            base = {"Image": "busybox", "Cmd": ["true"]} if path.endswith("create") else {}
            status, answer = ask(connection, method, place, {**base, **body})
            tried += 1
            if status != 400 or not answer.get("message"):
                taken.append((method, path, body, status, answer))
    connection.close()
    assert tried > 1000 and taken == [], taken[:5]
    assert [one["Names"] for one in daemon.ask("GET", "/containers/json?all=1")[1]] == [["/web"]]
    assert "Traceback" not in daemon.words()


def ask(connection: UnixConnection, method: str, path: str, body: Any) -> tuple[int, Any]:
    """Ask on a connection that is kept: it must survive all these errors."""
    import json

    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


# ---- clients that are slow, or half there -----------------------------------------------------------


class Quick:
    """A server without an engine."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path / "quick.sock")
        self.server = Server(None, TABLE)  # type: ignore[arg-type]
        self.server.listen(unix_listener(self.path))

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(240)
        client.connect(self.path)
        return client

    def ping(self) -> bytes:
        with self.connect() as client:
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: client.recv(4096), b""))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers lose their patience soon: with a normal client too, on a busy machine."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS", 1.0)


@pytest.fixture
def quick(tmp_path: pathlib.Path) -> Iterator[Quick]:
    before = threading.active_count()
    made = Quick(tmp_path)
    yield made
    for listener in made.server.listeners:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
    made.server.close()
    until(lambda: threading.active_count() <= before)


def ended(client: socket.socket) -> bool:
    """Return whether the other side has closed."""
    try:
        return client.recv(4096) == b""
    except ConnectionError:
        return True


@pytest.mark.usefixtures("impatient")
def test_two_hundred_slow_clients_do_not_stop_a_normal_one(quick: Quick) -> None:
    """A header now and then, for ever: after a second (30 in the daemon) all are let go."""
    slow = [quick.connect() for _ in range(200)]
    for client in slow:
        client.sendall(b"GET /_ping HTTP/1.1\r\n")
    end = time.monotonic() + 240
    while waiting := [client for client in slow if still_heard(client)]:
        assert time.monotonic() < end, len(waiting)
        until(lambda: quick.ping().endswith(b"OK"))
    assert all(ended(client) for client in slow)
    for client in slow:
        client.close()


def still_heard(client: socket.socket) -> bool:
    """Send one more header; say whether the other side still listens."""
    try:
        client.sendall(b"X-More: y\r\n")
    except ConnectionError:
        return False
    return True


@pytest.mark.usefixtures("impatient")
def test_a_body_that_comes_byte_by_byte(quick: Quick, capsys: pytest.CaptureFixture[str]) -> None:
    with quick.connect() as client:
        client.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\n"
        )
        with pytest.raises(OSError):  # noqa: PT012 (each send may be the one)
            while True:
                client.sendall(b" ")
                time.sleep(0.1)
    until(lambda: "a client was too slow" in capsys.readouterr().err)


def test_a_client_that_closes_its_half_early_gets_its_answer(quick: Quick) -> None:
    with quick.connect() as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"OK")
    with quick.connect() as client:
        client.sendall(b"GET /_ping HT")
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(4096), b""))[:13] in (b"", b"HTTP/1.1 400 ")
    assert quick.ping().endswith(b"OK")


def test_a_peer_that_vanishes_is_noticed() -> None:
    listener = tcp_listener("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"200 OK"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET http://d/_ping HTTP/1.1\r\nHost: d\r\n\r\n", b"200 OK"),
        (b"OPTIONS /_ping HTTP/1.1\r\nHost: d\r\n\r\n", b"200 OK"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"GET /%ff%fe/\xff HTTP/1.1\r\nHost: d\r\n\r\n", b"400"),
    ],
)  # fmt: skip
def test_odd_requests_get_an_answer(quick: Quick, data: bytes, first: bytes) -> None:
    with quick.connect() as client:
        client.sendall(data)
        client.settimeout(240)
        got = client.recv(4096)
    assert got.startswith(b"HTTP/1.1 " + first), got
    assert quick.ping().endswith(b"OK")


# ---- what is in use, or overlaps --------------------------------------------------------------------


def test_conflicts_are_refused_in_dockers_words(daemon: Daemon) -> None:
    published = {"PortBindings": {"80/tcp": [{"HostPort": "38081"}]}, "NetworkMode": "bridge"}
    daemon.run("first", "sleep", "1000", HostConfig=published)
    daemon.create("second", "sleep", "1000", HostConfig=published)
    status, answer = daemon.ask("POST", "/containers/second/start")
    assert status == 500 and "port is already allocated" in answer["message"]
    pool = {"IPAM": {"Config": [{"Subnet": "10.55.0.0/16"}]}}
    assert daemon.ask("POST", "/networks/create", {"Name": "one", **pool})[0] == 201
    inside = {"IPAM": {"Config": [{"Subnet": "10.55.7.0/24"}]}}
    status, answer = daemon.ask("POST", "/networks/create", {"Name": "two", **inside})
    assert status == 403 and "overlaps" in answer["message"].lower()
    for name in ("", " ", "x\0"):  # "../x" is a name like any other: no file is called so
        status, answer = daemon.ask("POST", "/networks/create", {"Name": name})
        assert status == 400 and answer["message"], name
    for name in ("../x", "a/b"):
        status, answer = daemon.ask("POST", "/volumes/create", {"Name": name})
        assert status == 400 and answer["message"], name
    for path in ("/images/..%2f..%2fetc/json", "/containers/..%2f..%2fetc/json", "/volumes/..%2fx"):
        assert daemon.raw(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())[9:12] == b"301", path
    assert not (daemon.root.parent / "x").exists()


def test_a_stopped_reader_of_logs_holds_nobody_up(daemon: Daemon) -> None:
    daemon.run("loud", "sh", "-c", "yes | head -c 3000000; sleep 1000")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(daemon.path)
        deaf.sendall(b"GET /containers/loud/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        for _ in range(20):
            assert daemon.ask("GET", "/containers/loud/json")[0] == 200
    assert daemon.ask("POST", "/containers/loud/kill")[0] == 204
