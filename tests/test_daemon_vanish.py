"""Clients that vanish, do not read, or are too many: nothing of theirs stays, nobody waits for them."""

from __future__ import annotations

import os
import pathlib
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import mini_docker.engine.streams as streams
from mini_docker.engine.container import Container
from mini_docker.engine.logs import LogWriter, log_path
from tests.daemons import Daemon, all_of
from tests.system import until
from tests.test_load import settles, size, use

pytestmark = [
    pytest.mark.root,
    pytest.mark.anywhere,
    pytest.mark.usefixtures("leak_free"),
]
UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: x",
)
TYPED = ("Content-Type: application/json", "Content-Length: 100")
ANSWERED: list[tuple[str, tuple[str, ...]]] = [
    ("GET /containers/loud/logs?stdout=1", ()),
    ("GET /containers/loud/logs?stdout=1&follow=1", ()),
    ("GET /events", ()),
    ("GET /containers/loud/stats", ()),
    ("POST /containers/loud/wait", ()),
    ("POST /containers/made/wait?condition=next-exit", ()),
    ("POST /containers/loud/attach?stream=1&stdout=1", UPGRADE),
    ("POST /containers/loud/attach?stream=1&stdout=1&logs=1", UPGRADE),
    ("POST /containers/loud/attach?stdout=1&logs=1", UPGRADE),
    ("POST /containers/made/attach?stream=1&stdout=1&stdin=1", UPGRADE),
    ("GET /containers/made/attach/ws?stream=1", WEBSOCKET),
    ("GET /containers/loud/attach/ws?stream=1", WEBSOCKET),
    ("GET /containers/loud/export", ()),
    ("GET /images/busybox/get", ()),
    ("GET /containers/loud/archive?path=/", ()),
    ("GET /containers/made/archive?path=/", ()),
]  # fmt: skip
UNANSWERED: list[tuple[str, tuple[str, ...]]] = [
    ("POST /images/load", ("Content-Length: 100000",)),
    ("POST /images/load", ("Transfer-Encoding: chunked",)),
    ("POST /images/create?fromSrc=-", ("Content-Length: 100000",)),
    ("PUT /containers/loud/archive?path=/", ("Content-Length: 100000",)),
    ("PUT /containers/made/archive?path=/", ("Content-Length: 100000",)),
    ("POST /containers/create", TYPED),
    ("POST /commit?container=made", TYPED),
]


def connect(daemon: Daemon, line: str = "", headers: tuple[str, ...] = ()) -> socket.socket:
    """Return a connection on which a request has been sent."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(240)
    client.connect(daemon.path)
    if line:
        client.sendall("\r\n".join([f"{line} HTTP/1.1", "Host: d", *headers, "", ""]).encode())
    return client


def files_below(root: pathlib.Path) -> set[str]:
    """Return the directories and files of a data root, but for containers' own."""
    found = (
        os.path.join(where, name) for where, *names in os.walk(root) for name in sum(names, [])
    )
    return {path for path in found if "/containers/" not in path}


def test_nothing_of_a_client_that_vanishes_stays(daemon: Daemon) -> None:
    """Before it has read the answer, in the middle of it, and in the middle of what it sends."""
    daemon.run("loud", "sh", "-c", "yes | head -c 1000000; echo end; sleep 1000")
    daemon.create("made", "cat", OpenStdin=True)
    until(lambda: daemon.logs("loud", "stdout=1&tail=1")[8:] == b"end\n")
    one = daemon.ask("POST", "/containers/loud/exec", {"Cmd": ["true"], "AttachStdout": True})[1]
    before, files = use(daemon.process.pid), files_below(daemon.root)
    for line, headers in [*ANSWERED, *UNANSWERED]:
        for _ in range(3):
            connect(daemon, line, headers).close()
    connect(daemon, f"POST /exec/{one['Id']}/start", UPGRADE).close()
    for line, headers in ANSWERED:
        with connect(daemon, line, headers) as client:
            assert client.recv(20)[:9] == b"HTTP/1.1 ", line
    for line, headers in UNANSWERED:
        with connect(daemon, line, headers) as client:
            body = bytes(20_000)
            client.sendall(b"4e20\r\n" + body if headers[0].startswith("Transfer") else body[:90])
    settles(daemon, before)
    until(lambda: files_below(daemon.root) <= files)
    assert "Traceback" not in daemon.words()
    for name in ("loud", "made"):
        assert daemon.ask("DELETE", f"/containers/{name}?force=1")[0] == 204


def test_a_client_that_waits_for_the_past_holds_nobody_up(daemon: Daemon) -> None:
    """It does not read what the log has: others hear and type meanwhile, and it can be killed."""
    script = f"yes {'x' * 999} | head -c 3000000; echo end; while read x; do echo got $x; done"
    daemon.run("loud", "sh", "-c", script, OpenStdin=True)
    until(lambda: daemon.logs("loud", "stdout=1&tail=1")[8:] == b"end\n", 600)
    deaf = [daemon.upgrade("/containers/loud/attach?stdout=1&logs=1") for _ in range(3)]
    with daemon.upgrade("/containers/loud/attach?stream=1&stdout=1&stdin=1") as client:
        client.sendall(b"word\n")
        assert client.recv(100)[8:] == b"got word\n"
    assert daemon.ask("POST", "/containers/loud/kill")[0] == 204
    until(lambda: not daemon.state("loud")["Running"])
    assert [all_of(client) for client in deaf] == [daemon.logs("loud")] * 3, "its past came whole"


def test_the_past_and_what_follows_are_one_stream(daemon: Daemon) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; sleep 1000"
    daemon.run("counts", "sh", "-c", script)
    wanted = b"".join(b"%d\n" % number for number in range(20_000))
    for _ in range(3):
        with daemon.upgrade("/containers/counts/attach?stream=1&stdout=1&logs=1") as client:
            got = b""
            while not got.endswith(b"19999\n"):
                head = client.recv(8, socket.MSG_WAITALL)
                got += client.recv(int.from_bytes(head[4:], "big"), socket.MSG_WAITALL)
            assert got == wanted


def test_a_stopped_containers_past_is_sent_under_its_lock_but_not_for_ever(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.05)
    record = {"Id": "c" * 64, "State": {"Status": "exited"}, "Config": {"Tty": False}}
    log = LogWriter(log_path(str(tmp_path), record["Id"]))  # type: ignore[arg-type]
    log.write("stdout", b"x\n" * 500_000, 0)
    log.close(0)
    store = SimpleNamespace(directory=lambda identity: str(tmp_path))
    containers: Any = SimpleNamespace(store=store, tell=lambda *about: None)
    container = Container(record)
    ours, deaf = socket.socketpair()
    wanted = {"logs": True, "stream": True, "stdout": True}
    with deaf:
        assert streams.attach(containers, container, lambda: (ours, ""), wanted) is None
        assert ours.fileno() == -1 and container.clients == []


def test_more_clients_than_descriptors(daemon: Daemon) -> None:
    """Those who are too many wait; one line says so; when others have gone, all is as before."""
    pid = daemon.process.pid
    before, limits = use(pid), resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before.descriptors + 8, limits[1]))
    clients = [connect(daemon) for _ in range(40)]
    until(lambda: "no client can connect now: Too many open files" in daemon.words())
    last = connect(daemon, "GET /_ping")
    for client in clients:
        client.close()
    with last:
        assert last.recv(100).startswith(b"HTTP/1.1 200 OK")
    settles(daemon, before)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert daemon.words().count("no client can connect now") < 10
    daemon.run("one", "true")


def test_many_idle_clients_stop_nobody(daemon: Daemon) -> None:
    count, before = size(3000, 300), use(daemon.process.pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    clients = [connect(daemon) for _ in range(count)]
    until(lambda: use(daemon.process.pid).descriptors >= before.descriptors + count)
    full = use(daemon.process.pid)
    assert daemon.ask("GET", "/_ping") == (200, "OK")
    daemon.run("one", "sh", "-c", "ulimit -n")
    assert daemon.ask("POST", "/containers/one/wait")[1]["StatusCode"] == 0
    assert int(daemon.logs("one")[8:]) == soft, (
        "a container has the limit that the daemon was given"
    )
    for client in clients:
        client.close()
    settles(daemon, before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    each = (full.private - before.private) / count
    print(f"\n{count} idle clients: {each / 1024:.0f} KB each")


def test_who_waits_for_a_start_in_vain_is_let_go(daemon: Daemon) -> None:
    daemon.create("made", "sh", "-c", "echo said", OpenStdin=True)
    before = use(daemon.process.pid)
    path = "/containers/made/attach?stream=1&stdout=1"
    with ThreadPoolExecutor(8) as pool:
        waiting = list(pool.map(lambda _: daemon.upgrade(path), range(200)))
    with connect(daemon, f"POST {path}", UPGRADE) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 409 ")
    kept, rest = waiting[:70], waiting[70:]
    for client in rest:
        client.close()
    until(lambda: use(daemon.process.pid).descriptors <= before.descriptors + 70)
    assert daemon.ask("POST", "/containers/made/start")[0] == 204
    assert {all_of(client)[8:] for client in kept} == {b"said\n"}
    settles(daemon, before)
