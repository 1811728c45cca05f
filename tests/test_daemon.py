"""The daemon under a client of the tests' own: lives, deaths, bad requests, and what is left."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import threading
import time
from typing import Any

import pytest

from mini_docker.api.daemon import main
from mini_docker.engine.document import INITS
from mini_docker.linux.process import CLONE_NEWNET, unshare
from tests.conftest import cannot_run_here
from tests.daemons import WAIT, Daemon, UnixConnection, all_of, go
from tests.system import COMMAND, has_ended, until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]


def test_a_life(daemon: Daemon) -> None:
    container_id = daemon.create("web", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert daemon.state("web")["Status"] == "created"
    assert daemon.ask("POST", "/containers/web/start") == (204, "")
    assert daemon.ask("POST", "/containers/web/wait")[1] == {"Error": None, "StatusCode": 3}
    assert daemon.ask("POST", "/containers/web/stop") == (304, "")
    frames = [b"\1\0\0\0\0\0\0\4out\n", b"\2\0\0\0\0\0\0\4err\n"]
    assert sorted([daemon.logs("web")[:12], daemon.logs("web")[12:]]) == frames
    assert daemon.logs("web", "stderr=1") == frames[1]
    listed = daemon.ask("GET", '/containers/json?all=1&filters={"name":["^/web$"]}')[1]
    assert [found["Id"] for found in listed] == [container_id]
    assert listed[0]["Status"].startswith("Exited (3) ")
    assert daemon.ask("POST", f"/containers/{container_id[:12]}/rename?name=other")[0] == 204
    assert daemon.ask("DELETE", "/containers/other") == (204, "")
    assert daemon.ask("DELETE", "/containers/other")[0] == 404


def test_containers_and_exit_codes_outlive_the_daemon(daemon: Daemon) -> None:
    count = "i=0; while [ $i -lt 20 ]; do echo $i; i=$((i+1)); done; read x; exit 7"
    daemon.run("long", "sh", "-c", WAIT + count, OpenStdin=True)
    daemon.run("short", "sh", "-c", WAIT + "exit 5")
    daemon.run("gone", "sh", "-c", WAIT, HostConfig={"AutoRemove": True})
    pid, *short = (daemon.state(name)["Pid"] for name in ("long", "short", "gone"))
    daemon.kill()
    go(pid, *short)
    until(lambda: all(has_ended(one) for one in short))
    daemon.start()
    assert daemon.state("long")["Pid"] == pid and daemon.state("long")["Running"]
    until(lambda: daemon.state("short")["Status"] == "exited")
    assert daemon.state("short")["ExitCode"] == 5
    until(lambda: daemon.ask("GET", "/containers/gone/json")[0] == 404)
    stream = daemon.upgrade("/containers/long/attach?stream=1&stdin=1")
    stream.sendall(b"\n")
    stream.close()
    text = daemon.logs("long", "stdout=1&follow=1&tail=3")
    assert text.count(b"\n") >= 3 and text.endswith(b"19\n")
    assert daemon.ask("POST", "/containers/long/wait")[1]["StatusCode"] == 7
    assert daemon.logs("long").count(b"\n") == 20


def test_an_attached_client_does_not_notice_the_daemons_death(daemon: Daemon) -> None:
    daemon.create("cat", "cat", OpenStdin=True, StdinOnce=True)
    stream = daemon.upgrade("/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1")
    assert daemon.ask("POST", "/containers/cat/start")[0] == 204
    daemon.kill()
    stream.sendall(b"hello\n")
    frame = b"\1\0\0\0\0\0\0\6hello\n"
    assert stream.recv(len(frame), socket.MSG_WAITALL) == frame
    stream.shutdown(socket.SHUT_WR)
    assert all_of(stream) == b""
    daemon.start()
    assert daemon.state("cat")["ExitCode"] == 0


def test_policies_start_again_and_stop_ends_it(daemon: Daemon) -> None:
    always = {"RestartPolicy": {"Name": "always"}}
    daemon.run("again", "sh", "-c", "sleep 0.1; exit 1", HostConfig=always)
    daemon.run(
        "thrice",
        "false",
        HostConfig={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}},
    )
    daemon.run("fine", "true", HostConfig={"RestartPolicy": {"Name": "on-failure"}})
    until(lambda: daemon.ask("GET", "/containers/again/json")[1]["RestartCount"] >= 2)
    until(lambda: daemon.state("thrice")["Status"] == "exited")
    assert daemon.ask("GET", "/containers/thrice/json")[1]["RestartCount"] == 2
    assert daemon.ask("GET", "/containers/fine/json")[1]["RestartCount"] == 0
    assert daemon.ask("POST", "/containers/again/stop?t=1")[0] in (204, 304)
    time.sleep(0.5)
    assert daemon.state("again")["Status"] == "exited"


def test_pause_kill_stop_and_their_refusals(daemon: Daemon) -> None:
    daemon.run("one", "sleep", "1000")
    assert daemon.ask("POST", "/containers/one/start") == (304, "")
    assert daemon.ask("POST", "/containers/one/pause")[0] == 204
    assert daemon.ask("POST", "/containers/one/pause")[0] == 409
    assert daemon.ask("POST", "/containers/one/exec", {"Cmd": ["true"]})[0] == 409
    assert daemon.ask("POST", "/containers/one/unpause")[0] == 204
    assert daemon.ask("POST", "/containers/one/unpause")[0] == 500
    assert daemon.ask("POST", "/containers/one/kill?signal=BAD") == (
        400,
        {"message": "Invalid signal: BAD"},
    )
    assert daemon.ask("DELETE", "/containers/one")[0] == 409
    assert daemon.ask("POST", "/containers/one/pause")[0] == 204
    assert daemon.ask("POST", "/containers/one/kill")[0] == 204, "a frozen container can be killed"
    assert daemon.state("one")["ExitCode"] == 137
    assert daemon.ask("POST", "/containers/one/kill")[0] == 409


def test_exec_streams_codes_and_missing_commands(daemon: Daemon) -> None:
    daemon.run("host", "sleep", "1000")
    both = {"AttachStdout": True, "AttachStderr": True}

    def run(*words: str, **more: Any) -> tuple[bytes, int]:
        body = {"Cmd": list(words), **both, **more}
        exec_id = daemon.ask("POST", "/containers/host/exec", body)[1]["Id"]
        start = json.dumps({"Tty": bool(more.get("Tty"))}).encode()
        data = all_of(daemon.upgrade(f"/exec/{exec_id}/start", start))
        return data, daemon.ask("GET", f"/exec/{exec_id}/json")[1]["ExitCode"]

    assert run("sh", "-c", "echo hi; exit 9") == (b"\1\0\0\0\0\0\0\3hi\n", 9)
    assert run("id", "-u", User="daemon") == (b"\1\0\0\0\0\0\0\2" + b"1\n", 0)
    data, code = run("nosuch")
    assert code == 126 and b'exec: "nosuch": executable file not found in $PATH' in data
    assert run("sh", "-c", "tty >/dev/null && echo t", Tty=True) == (b"t\r\n", 0)
    assert daemon.ask("POST", "/containers/host/exec", {"Cmd": []})[0] == 400
    data, code = run("true", WorkingDir="x")  # no plan can be made of it: nothing is forked
    assert code == 126 and b"process.cwd: 'x' is not an absolute path" in data


def test_an_exec_stands_on_its_container_s_life_of_now(daemon: Daemon) -> None:
    """What execs have in common is found out once for each life of a container."""
    limit = {"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 100}]}
    daemon.run("host", "sleep", "1000", HostConfig=limit)  # fewer than the seats of a plan
    body = {"Cmd": ["sh", "-c", "ulimit -n; cat /proc/1/comm"], "AttachStdout": True, "Tty": True}
    for _ in range(2):
        for _ in range(2):
            exec_id = daemon.ask("POST", "/containers/host/exec", body)[1]["Id"]
            stream = daemon.upgrade(f"/exec/{exec_id}/start", b'{"Tty": true}')
            assert all_of(stream) == b"100\r\nsleep\r\n"
        assert daemon.ask("POST", "/containers/host/restart?t=0")[0] == 204


def test_an_exec_writes_no_file_and_outlives_its_daemon(daemon: Daemon) -> None:
    daemon.run("host", "sleep", "600")
    (directory,) = (daemon.root / "containers").iterdir()
    before = sorted(os.listdir(directory))
    body = {"Cmd": ["sh", "-c", "tty; cat"], "AttachStdin": True, "AttachStdout": True, "Tty": True}
    exec_id = daemon.ask("POST", "/containers/host/exec", body)[1]["Id"]
    stream = daemon.upgrade(f"/exec/{exec_id}/start", b'{"Tty": true}')
    assert stream.recv(100).startswith(b"/dev/pts/")
    assert daemon.ask("POST", f"/exec/{exec_id}/resize?h=10&w=20")[0] == 200
    assert sorted(os.listdir(directory)) == before
    daemon.kill()
    daemon.start()
    stream.sendall(b"still here\n\4")  # Ctrl-D: the end of what is typed
    assert b"still here\r\n" in all_of(stream)
    assert daemon.ask("GET", f"/exec/{exec_id}/json")[0] == 404


def test_a_command_that_is_not_there_leaves_it_created_with_127(daemon: Daemon) -> None:
    daemon.create("bad", "nosuch")
    status, answer = daemon.ask("POST", "/containers/bad/start")
    assert status == 400 and "executable file not found in $PATH" in answer["message"]
    assert (daemon.state("bad")["Status"], daemon.state("bad")["ExitCode"]) == ("created", 127)


def test_a_slow_client_stops_the_container_not_the_memory(daemon: Daemon) -> None:
    daemon.create(
        "yes", "sh", "-c", "head -c 30000000 /dev/zero", HostConfig={"LogConfig": {"Type": "none"}}
    )
    stream = daemon.upgrade("/containers/yes/attach?stream=1&stdout=1")
    daemon.ask("POST", "/containers/yes/start")
    time.sleep(1)
    assert daemon.state("yes")["Running"], "its output waits for the client"
    assert len(all_of(stream)) >= 30000000
    assert daemon.ask("POST", "/containers/yes/wait")[1]["StatusCode"] == 0


JSON_HEAD = b"Host: d\r\nContent-Type: application/json\r\n"


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("data", "first"),
    [
        (
            b"POST /containers/create HTTP/1.1\r\n" + JSON_HEAD + b"Content-Length: 2\r\n\r\n{[",
            b"500",
        ),
        (
            b"POST /containers/create HTTP/1.1\r\n" + JSON_HEAD + b"Content-Length: 2\r\n\r\n[]",
            b"400",
        ),
        (
            b"POST /containers/create HTTP/1.1\r\n" + JSON_HEAD + b"Content-Length: 0\r\n\r\n",
            b"500",
        ),
        (b"GET /containers/../../etc/passwd/json HTTP/1.1\r\nHost: d\r\n\r\n", b"301"),
        (b"GET /v1.99/info HTTP/1.1\r\nHost: d\r\n\r\n", b"400"),
        (b"GET /v1.11/info HTTP/1.1\r\nHost: d\r\n\r\n", b"400"),
        (b"GET /containers/json?filters=x HTTP/1.1\r\nHost: d\r\n\r\n", b"500"),
        (b'GET /containers/json?filters={"no":["x"]} HTTP/1.1\r\nHost: d\r\n\r\n', b"400"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: " + b"x" * (2 << 20), b"431"),
        (b"\x16\x03\x01 hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    ],
)
def test_bad_requests_get_their_answer_and_the_daemon_lives(
    daemon: Daemon, data: bytes, first: bytes
) -> None:
    got = daemon.raw(data)
    assert got.split(b" ")[1] == first, got[:200]
    assert daemon.ask("GET", "/_ping") == (200, "OK")


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "body",
    [
        {"Image": 7},
        {"Image": "busybox", "Cmd": {"a": 1}},
        {"Image": "busybox", "Cmd": ["true", 1]},
        {"Image": "busybox", "Env": "A=b"},
        {"Image": "busybox", "HostConfig": []},
        {"Image": "busybox", "HostConfig": {"Memory": "lots"}},
        {"Image": "busybox", "HostConfig": {"Binds": "/a:/b"}},
        {
            "Image": "busybox",
            "Cmd": ["true"],
            "HostConfig": {"RestartPolicy": {"Name": "sometimes"}},
        },
        {"Image": ""},
        {},
    ],
)
def test_wrong_types_are_refused_and_leave_nothing(daemon: Daemon, body: dict[str, Any]) -> None:
    status, answer = daemon.ask("POST", "/containers/create", body)
    assert status == 400 and answer["message"], answer
    assert daemon.ask("GET", "/containers/json?all=1") == (200, [])


@pytest.mark.anywhere
@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".", "-x", "a b", "%00x", "x" * 300])
def test_hostile_names(daemon: Daemon, name: str) -> None:
    quoted = name.replace(" ", "%20").replace("/", "%2F")
    status, answer = daemon.ask("POST", f"/containers/create?name={quoted}", {"Image": "busybox"})
    assert status == (201 if name == "" else 400), answer
    assert os.listdir(daemon.root / "names") == ([] if name else os.listdir(daemon.root / "names"))


def test_much_that_was_typed_before_the_start_arrives(daemon: Daemon) -> None:
    """It comes in one packet with the request's head, and travels with the order."""
    daemon.create("cat", "cat", OpenStdin=True, StdinOnce=True)
    streams = []
    for _ in range(4):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(120)
        client.connect(daemon.path)
        head = b"POST /containers/cat/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n"
        head += b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        client.sendall(head + b"\xff" * 60_000)
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        streams.append(client)
    assert daemon.ask("POST", "/containers/cat/start") == (204, "")
    for client in streams[1:]:
        client.close()
    got = b""
    while got.count(b"\xff") < 240_000:
        got += streams[0].recv(1 << 16)
    streams[0].close()


@pytest.mark.parametrize("what", ["exec", "missing", "attach"])
def test_nothing_comes_together_with_the_head_of_a_stream(daemon: Daemon, what: str) -> None:
    """Docker's SDK for Python loses what does: it reads the head through a buffer, the stream past it."""
    daemon.run("talks", "sh", "-c", "while echo word; do sleep 0.02; done", OpenStdin=True)
    while True:
        path, body = "/containers/talks/attach?stream=1&stdout=1", b""
        if what != "attach":
            asked = {"Cmd": ["echo" if what == "exec" else "nosuch"], "AttachStdout": True}
            made = daemon.ask("POST", "/containers/talks/exec", asked)[1]["Id"]
            path, body = f"/exec/{made}/start", b"{}"
        head = f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(120)
            client.connect(daemon.path)
            began = time.monotonic()
            client.sendall(head.encode() + body)
            time.sleep(0.3)
            got = client.recv(65536)
            in_time = time.monotonic() - began < 1.5  # it waits for two seconds
            assert client.recv(65536) or not in_time, "and then it comes"
        if in_time:
            break
    assert got.endswith(b"\r\n\r\n") and got.startswith(b"HTTP/1.1 101")


def test_a_second_daemon_on_the_same_data_root_is_refused(daemon: Daemon) -> None:
    words = [COMMAND, "daemon", "--data-root", str(daemon.root), "-H", "unix:///run/other.sock"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "another daemon serves the data root" in done.stderr


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-H", "tcp://127.0.0.1:1"], "--tlsverify"),
        (["-H", "nonsense"], "is no unix://PATH"),
        (["--what"], "unknown option --what"),
        (["-H"], "needs a value"),
        (["--tlsverify"], "--tlscacert"),
    ],
)
def test_options_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.anywhere
def test_the_description_is_what_is_served(daemon: Daemon) -> None:
    status, described = daemon.ask("GET", "/v1.41/openapi.json")
    assert status == 200 and len(described["paths"]) > 60
    for path, methods in described["paths"].items():
        for method in methods:
            if path in ("/events", "/session") or method == "head":
                continue
            asked = (
                path.replace("{id}", "nosuch")
                .replace("{name}", "nosuch")
                .replace("{rest}", "nosuch")
            )
            status, answer = daemon.ask(method.upper(), f"/v1.41{asked}")
            assert answer != {"message": "page not found"}, (method, path)
            assert status < 400 or answer["message"], (method, path, answer)
            if status == 404 and path != "/commit":
                assert "nosuch" in answer["message"], (method, path, answer)


def test_health_checks(daemon: Daemon) -> None:
    check = {"Interval": 100_000_000, "Retries": 2, "Timeout": 120_000_000_000}
    script = WAIT + "test -e /tmp/ok || { echo not yet; exit 1; }"
    words = ("sleep", "1000")
    daemon.run("patient", *words, Healthcheck={**check, "Test": ["CMD-SHELL", script]})
    hang = {"Test": ["CMD", *words], "Timeout": 300_000_000, "Retries": 1}
    daemon.run("slow", *words, Healthcheck={**check, **hang})

    def health(name: str) -> str:
        return str(daemon.state(name)["Health"]["Status"])

    assert health("patient") == "starting"
    pid = daemon.state("patient")["Pid"]
    go(pid)
    until(lambda: health("patient") == "unhealthy")
    pathlib.Path(f"/proc/{pid}/root/tmp/ok").touch()
    until(lambda: health("patient") == "healthy")
    until(lambda: health("slow") != "starting")
    assert health("slow") == "unhealthy"
    assert "exceeded timeout" in daemon.state("slow")["Health"]["Log"][0]["Output"]
    assert len(daemon.ask("GET", '/containers/json?filters={"health":["healthy"]}')[1]) == 1


def test_a_socket_that_somebody_else_opened(tmp_path: pathlib.Path) -> None:
    """What systemd does: the socket is descriptor 3, and two variables say so."""
    path = str(tmp_path / "passed.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    words = [
        "sh",
        "-c",
        f'LISTEN_FDS=1 LISTEN_PID=$$ exec "{COMMAND}" daemon -H fd:// --data-root "{tmp_path}"',
    ]

    def third() -> None:
        unshare(CLONE_NEWNET)
        os.dup2(listener.fileno(), 3)

    process = subprocess.Popen(words, preexec_fn=third, close_fds=False, stderr=subprocess.DEVNULL)
    try:
        connection = UnixConnection(path)
        connection.request("GET", "/_ping")
        assert connection.getresponse().read() == b"OK"
        connection.close()
    finally:
        process.terminate()
        assert process.wait(120) == 0
        listener.close()


@pytest.mark.anywhere
def test_eight_clients_at_once_lose_nothing(daemon: Daemon) -> None:
    """Attach and start come close upon each other: whoever has the answer to the one asks for the other."""

    def life(number: int) -> None:
        name = f"many{number}"
        daemon.create(name, "echo", name)
        stream = daemon.upgrade(f"/containers/{name}/attach?stream=1&stdout=1&stderr=1")
        status, answer = daemon.ask("POST", f"/containers/{name}/start")
        outcomes.append((status, all_of(stream)[8:] == f"{name}\n".encode(), answer))
        daemon.ask("DELETE", f"/containers/{name}?force=1")

    outcomes: list[tuple[int, bool, Any]] = []
    for turn in range(6):
        threads = [threading.Thread(target=life, args=(turn * 8 + n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
    assert outcomes == [(204, True, "")] * 48


def test_an_init_reaps_what_the_command_leaves(daemon: Daemon) -> None:
    if not any(os.path.exists(path) for path in INITS):
        cannot_run_here("there is no tini (remedy: apt-get install tini)")
    show = ("sh", "-c", "cat /proc/1/comm; echo $$ >/dev/null; exit 4")
    daemon.run("small", *show, HostConfig={"Init": True})
    assert daemon.ask("POST", "/containers/small/wait")[1]["StatusCode"] == 4
    assert daemon.logs("small")[8:] == b"docker-init\n"
