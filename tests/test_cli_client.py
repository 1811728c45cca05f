"""The client against a daemon that says what a test wants: framings, errors, half-closes, lies."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import socket
import ssl
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_docker.cli.client import Client, filters, query_string
from mini_docker.cli.context import Endpoint, endpoint, normal_host
from mini_docker.cli.daemon import start_daemon
from mini_docker.cli.errors import CommandError, DaemonError
from mini_docker.cli.gotext import TemplateError
from mini_docker.cli.http import Connection, ProtocolError
from mini_docker.cli.jsontext import dumps, loads
from mini_docker.cli.messages import bar, plain_message
from mini_docker.cli.streams import Detached, Frames, Keys
from mini_docker.cli.template import Template
from mini_docker.cli.text import quoted
from mini_docker.engine import upkeep
from tests.conftest import ROOT, cannot_run_here

OURS = f"{ROOT}/labs/bin/mini_docker"


class Fake:
    """A daemon on a unix socket: each answer is bytes to send, or a function that speaks."""

    def __init__(self, path: Path, answers: list[bytes | Callable[[socket.socket], None]]) -> None:
        """Listen, and answer one connection after the other."""
        self.host = f"unix://{path}"
        self.seen: list[bytes] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, args=(answers,))
        self.thread.start()

    def _serve(self, answers: list[bytes | Callable[[socket.socket], None]]) -> None:
        for answer in answers:
            peer, _ = self.listener.accept()
            with peer:
                if callable(answer):
                    answer(peer)
                    continue
                self.seen.append(peer.recv(65536))
                peer.sendall(answer)
        self.listener.close()

    def client(self) -> Client:
        """Return a client of this daemon."""
        return Client(Endpoint(self.host, (), False, "default"), "/nonexistent")

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this daemon."""
        environment = {
            **os.environ,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": "/nonexistent",
            **more,
        }
        done = subprocess.run([OURS, *words], capture_output=True, text=True, env=environment)
        self.thread.join(120)
        return done


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[..., Fake]]:
    made: list[Fake] = []

    def make(*answers: bytes | Callable[[socket.socket], None]) -> Fake:
        made.append(Fake(tmp_path / f"{len(made)}.sock", list(answers)))
        return made[-1]

    yield make
    for one in made:
        one.thread.join(120)
        assert not one.thread.is_alive()


def said(value: object, status: str = "200 OK", *headers: str) -> bytes:
    """Return an answer with a JSON body."""
    body = json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


BODIES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", b"abc"),
    (b"HTTP/1.1 200 OK\r\n\r\nabcd", b"abcd"),
    (b"HTTP/1.0 200 OK\nContent-Length: 1\n\na", b"a"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nA\r\n012345678\n\r\n0\r\n\r\n",
     b"a012345678\n"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", b""),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nxxxxx", b""),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "body"), BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_body_ends_where_its_framing_says(raw: bytes, body: bytes, step: int) -> None:
    ours, theirs = socket.socketpair()

    def send() -> None:
        for at in range(0, len(raw), step):
            theirs.sendall(raw[at : at + step])
        theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    with ours:
        assert Connection(ours).response("GET").read() == body
        thread.join()


BROKEN = [
    b"",
    b"HTTP/1.1 200",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"Y: z\r\n" * 5000,
    b"HTTP/1.1 200 OK\r\n" + b"X" * 200_000,
]


@pytest.mark.parametrize("raw", BROKEN, ids=range(len(BROKEN)))
def test_what_is_not_http_is_an_error_and_never_half_an_answer(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=pour, args=(theirs, raw))
    thread.start()
    with ours, pytest.raises(ProtocolError):
        Connection(ours).response("GET").read()
    ours.close()
    thread.join()


def pour(peer: socket.socket, raw: bytes) -> None:
    """Send all, unless the other side has heard enough."""
    with peer, contextlib.suppress(OSError):
        peer.sendall(raw)


def test_a_pool_of_one_connection_serves_requests_in_turn(fake: Callable[..., Fake]) -> None:
    def twice(peer: socket.socket) -> None:
        for _ in range(2):
            peer.recv(65536)
            peer.sendall(said([1]))

    client = fake(twice).client()
    assert client.json("GET", "/a") == client.json("GET", "/b") == [1]


@pytest.mark.parametrize(("method", "asked"), [("GET", 2), ("POST", 1), ("DELETE", 1)])
def test_only_a_question_is_asked_again_when_an_idle_connection_breaks(
    fake: Callable[..., Fake], method: str, asked: int
) -> None:
    """A daemon that dies with a request in hand may have obeyed: what changes something is not said twice."""
    heard: list[bytes] = []

    def dies_in_the_middle(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(said({}))
        heard.append(peer.recv(65536))

    def obeys(peer: socket.socket) -> None:
        heard.append(peer.recv(65536))
        peer.sendall(said({}))

    daemon = fake(dies_in_the_middle, *[obeys] * (asked - 1))
    client = daemon.client()
    client.json("GET", "/info")
    if asked == 1:
        with pytest.raises(CommandError, match="error during connect"):
            client.json(method, "/containers/a")
    else:
        assert client.json(method, "/containers/a") == {}
    daemon.thread.join(120)
    assert len(heard) == asked


def test_an_idle_connection_that_was_closed_is_replaced(fake: Callable[..., Fake]) -> None:
    client = fake(said([1]), said([2])).client()
    assert (client.json("GET", "/a"), client.json("GET", "/b")) == ([1], [2])


TOO_NEW = said(
    {"message": "client version 1.41 is too new."}, "400 Bad Request", "Api-Version: 1.38"
)
TOO_OLD = said(
    {
        "message": "client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade"
    },
    "400 Bad Request",
    "Api-Version: 1.52",
)


@pytest.mark.parametrize(("refusal", "version"), [(TOO_NEW, b"1.38"), (TOO_OLD, b"1.44")])
def test_a_daemon_of_another_version_is_asked_again(
    fake: Callable[..., Fake], refusal: bytes, version: bytes
) -> None:
    daemon = fake(refusal, said([]))
    assert daemon.client().json("GET", "/images/json") == []
    assert [line.split(b" ")[1] for line in daemon.seen] == [
        b"/v1.41/images/json", b"/v" + version + b"/images/json",
    ]  # fmt: skip


def test_a_refusal_is_the_daemons_sentence(fake: Callable[..., Fake]) -> None:
    plain = b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nplain"
    client = fake(
        said({"message": "no"}, "409 Conflict"), plain, said([], "404 Not Found")
    ).client()
    for status, text in ((409, "no"), (500, "plain"), (404, "[]")):
        with pytest.raises(DaemonError, match="^Error response from daemon: ") as caught:
            client.json("GET", "/x")
        assert (caught.value.http_status, caught.value.message) == (status, text)


@pytest.mark.parametrize(
    "text", ["{}", " [1, -2.5e3, null, true]\r\n", '{"a": {"\u00fc": "\\u00e9"}}', '"x"', "NaN"]
)
def test_the_c_half_reads_and_writes_json_as_the_module_does(text: str) -> None:
    value = loads(text.encode())
    assert repr(value) == repr(json.loads(text))
    assert dumps(value) == json.dumps(value)


@pytest.mark.parametrize(
    "data", [b"", b" ", b"{", b"[1] 2", b"{'a': 1}", b'"\n"', b'"\xff"', b"nul"]
)
def test_what_is_no_json_is_refused_in_the_module_s_words(data: bytes) -> None:
    with pytest.raises(ValueError) as theirs:
        json.loads(data)
    with pytest.raises(ValueError, match=f"^{re.escape(str(theirs.value))}$"):
        loads(data)


NOT_JSON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n[{"
SPEAKS = {
    "no JSON": (NOT_JSON, "the daemon's answer is no JSON: '<html>'"),
    "half": (HALF, "unexpected EOF"),
    "silent": (b"", "error during connect: GET /v1.41/containers/json: unexpected EOF"),
    "nested": (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000, "the daemon's answer is no JSON"),
}


@pytest.mark.parametrize("case", SPEAKS)
def test_a_daemon_that_breaks_off_is_one_line(fake: Callable[..., Fake], case: str) -> None:
    raw, line = SPEAKS[case]
    done = fake(raw).run("ps")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert line in done.stderr and "Traceback" not in done.stderr


def test_nobody_there_is_dockers_sentence(tmp_path: Path) -> None:
    for host in (f"unix://{tmp_path}/none", "tcp://127.0.0.1:1"):
        done = subprocess.run([OURS, "-H", host, "ps"], capture_output=True, text=True)
        line = f"Cannot connect to the Docker daemon at {host}. Is the docker daemon running?\n"
        assert (done.returncode, done.stderr) == (1, line)


def test_hostile_words_reach_the_terminal_quoted(fake: Callable[..., Fake]) -> None:
    one = {
        "Id": "a" * 64, "Names": ["/x"], "Image": "i", "Command": "\x1b[2J\r\n\u202e\x07", "Created": 1,
        "Status": "Up", "State": "running", "Ports": [], "Mounts": [], "Labels": None, "ImageID": "",
        "NetworkSettings": {"Networks": {}},
    }  # fmt: skip
    done = fake(said([one])).run("ps", "--format", "{{.Command}}")
    assert done.stdout == '"\\x1b[2J\\r\\n\\u202e\\a"\n'
    assert quoted('a"b\\') == '"a\\"b\\\\"'


def test_streams_are_told_apart_and_a_broken_one_is_said(fake: Callable[..., Fake]) -> None:
    body = b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    inspected = said({"Id": "x", "Config": {"Tty": False}})
    done = fake(inspected, head + chunks + b"0\r\n\r\n").run("logs", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    done = fake(inspected, head + chunks).run("logs", "x")
    assert done.returncode != 0 and done.stdout == "out\n" and "unexpected EOF" in done.stderr
    done = fake(inspected, head + b"8\r\n\x09\0\0\0\0\0\0\x01\r\n").run("logs", "x")
    assert done.returncode != 0 and "Unrecognized input header: 9" in done.stderr


def test_frames_may_come_in_any_pieces() -> None:
    data = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02de\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01f"
    for step in range(1, len(data)):
        frames, found = Frames(), {1: b"", 2: b""}
        for at in range(0, len(data), step):
            for stream, piece in frames.feed(data[at : at + step]):
                found[stream] += piece
        assert found == {1: b"abcf", 2: b"de"}
    with pytest.raises(CommandError, match="error from daemon in stream: boom"):
        Frames().feed(b"\x03\0\0\0\0\0\0\x04boom")


def half_closer(heard: list[bytes]) -> Callable[[socket.socket], None]:
    """Return an exec that echoes what it heard once the client has closed its half."""

    def speak(peer: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += peer.recv(65536)
        peer.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        rest = b""
        while more := peer.recv(65536):
            rest += more
        heard.append(rest.partition(b"}")[2] or rest)
        answer = b"got %d" % len(heard[-1])
        peer.sendall(b"\x01\0\0\0" + len(answer).to_bytes(4, "big") + answer)

    return speak


def test_the_end_of_the_input_closes_half_and_the_answer_still_comes(
    fake: Callable[..., Fake],
) -> None:
    heard: list[bytes] = []
    inspected = said({"ExitCode": 4})
    daemon = fake(said({"Id": "e"}, "201 Created"), half_closer(heard), inspected)
    environment = {**os.environ, "DOCKER_HOST": daemon.host}
    done = subprocess.run(
        [OURS, "exec", "-i", "x", "cat"], input=b"x" * 100_000, capture_output=True, env=environment
    )
    assert (done.returncode, done.stdout) == (4, b"got 100000")


def test_keys() -> None:
    keys = Keys("ctrl-a,b")
    assert [keys.feed(piece) for piece in (b"x\x01", b"y", b"\x01\x01")] == [
        b"x",
        b"\x01y",
        b"\x01",
    ]
    with pytest.raises(Detached):
        keys.feed(b"b")
    for bad in ("ctrl-", "ctrl-é", "word", "ctrl-aa"):
        with pytest.raises(CommandError, match="Unknown character"):
            Keys(bad)


def test_a_terminal_is_given_back_when_the_client_is_terminated(fake: Callable[..., Fake]) -> None:
    """exec -t on a terminal, and SIGTERM in the middle: the echo is on again."""
    raw = threading.Event()

    def speak(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\nready")
        raw.set()
        while peer.recv(65536):
            pass

    daemon = fake(said({"Id": "e"}, "201 Created"), speak)
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    environment = {**os.environ, "DOCKER_HOST": daemon.host}
    command = [OURS, "exec", "-it", "x", "sh"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    assert raw.wait(240)
    text = b""
    while b"ready" not in text:
        text += os.read(master, 100)
    assert not termios.tcgetattr(slave)[3] & termios.ECHO
    process.terminate()
    assert process.wait(240) == 143
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_queries_and_filters() -> None:
    query = {
        "a": True,
        "b": False,
        "c": None,
        "d": "",
        "e": ["x", "y z"],
        "f": {"l": {"a=b": True}},
        "n": 0,
    }
    assert (
        query_string(query)
        == "?a=1&e=x&e=y%20z&f=%7B%22l%22%3A%20%7B%22a%3Db%22%3A%20true%7D%7D&n=0"
    )
    assert filters(["label=a=b", "Label = c", "status=x"]) == {
        "label": {"a=b": True, "c": True}, "status": {"x": True},
    }  # fmt: skip


HOSTS = {
    "far": "tcp://far:2375", "far:1": "tcp://far:1", "tcp://": "tcp://localhost:2375", "unix:///x": "unix:///x",
    "tcp://[::1]": "tcp://[::1]:2375",
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host: str) -> None:
    assert normal_host(host) == HOSTS[host]


def test_a_daemon_is_named_in_dockers_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    config = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    for name in ("one", "two"):
        command = [OURS, "context", "create", name, "--docker", f"host=tcp://{name}:1"]
        subprocess.run(command, env=config, check=True, capture_output=True)
    where = str(tmp_path)
    assert endpoint({}, where).host == "unix:///run/mini_docker.sock"
    subprocess.run([OURS, "context", "use", "one"], env=config, check=True, capture_output=True)
    assert endpoint({}, where).host == "tcp://one:1"
    monkeypatch.setenv("DOCKER_CONTEXT", "two")
    assert endpoint({}, where).host == "tcp://two:1"
    monkeypatch.setenv("DOCKER_HOST", "tcp://three:1")
    assert endpoint({}, where).host == "tcp://three:1"
    assert endpoint({"context": ["one"]}, where).host == "tcp://one:1"
    assert endpoint({"host": ["far"]}, where).host == "tcp://far:2375"
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert endpoint({"host": ["far"]}, where).tls == tuple(
        f"{where}/{n}.pem" for n in ("ca", "cert", "key")
    )
    listed = subprocess.run(
        [OURS, "context", "ls", "-q"], env=config, capture_output=True, text=True
    )
    assert listed.stdout == "default\none\ntwo\n"
    subprocess.run(
        [OURS, "context", "rm", "-f", "one", "two"], env=config, check=True, capture_output=True
    )


TEMPLATES = [
    ("{{.A}}", {"A": 1}, "1"),
    ("{{ .A.B }}-{{.A}}", {"A": {"B": "x"}}, "x-map[B:x]"),
    ("{{range .L}}{{.}},{{end}}", {"L": [1, True, None, 1.5]}, "1,true,<no value>,1.5,"),
    ("{{range $i, $e := .L}}{{$i}}{{$e}}{{else}}none{{end}}", {"L": []}, "none"),
    ("a {{- .A -}} b", {"A": 1}, "a1b"),
    ("{{/* no */}}{{if .A}}y{{else if .B}}z{{else}}n{{end}}", {"A": "", "B": [0]}, "z"),
    ("{{with .A}}{{.}}{{end}}{{with .B}}{{.}}{{else}}-{{end}}", {"A": 1, "B": 0}, "1-"),
    ('{{printf "%s %q %5d %-4s| %v" .A .A .N .A .L}}', {"A": "x", "N": 3, "L": ["a"]},
     'x "x"     3 x   | [a]'),
    ("{{json .}}", {"a": "<&é"}, '{"a":"<&é"}'),
    ('{{join .L "-"}} {{upper "a"}} {{truncate "abc" 2}}', {"L": ["x", "y"]}, "x-y A ab"),
    ('{{"}}"}} {{`{{`}}', {}, "}} {{"),
    ("{{and 1 0 2}}{{or 0 3}}{{not 1}}{{eq 1 1}}{{lt 1 2}}", {}, "03falsetruetrue"),
    ('{{index .M "k" 0}} {{slice "abcd" 1 3}}', {"M": {"k": ["v"]}}, "v bc"),
    ("{{$x := 1}}{{range .L}}{{$x = .}}{{end}}{{$x}}", {"L": [5, 6]}, "6"),
    ("{{range .L}}{{if eq . 2}}{{continue}}{{end}}{{.}}{{end}}", {"L": [1, 2, 3]}, "13"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "result"), TEMPLATES, ids=[t[0][:30] for t in TEMPLATES])
def test_templates(text: str, value: object, result: str) -> None:
    assert Template(text).apply(value) == result


WRONG = [
    ("{{", "unclosed action"), ("{{end}}", "unexpected {{end}}"), ("{{if .A}}", "unexpected EOF"),
    ("{{nothing}}", 'function "nothing" not defined'), ("{{.A.B}}", "can't evaluate field B"),
    ("{{.C}}", 'map has no entry for key "C"'), ("{{index .L 9}}", "index out of range"),
    ("{{}}", "missing value"),
    ("{{(1}}", "unclosed left paren"), ("{{1 | }}", "missing value"), ("{{len 1}}", "len of type int"),
    ("{{$y}}", 'undefined variable "$y"'), ("{{range 5}}{{end}}", "range can't iterate"),
    ("{{" + "(" * 9999 + "1" + ")" * 9999 + "}}", "too many brackets"), ("{{join 1 2}}", ""),
    ("{{lt 1}}", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[w[0][:20] for w in WRONG])
def test_a_wrong_template_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text).apply({"A": 1, "L": [1]})
    assert words in str(caught.value)


def test_progress_as_lines_and_as_bars(fake: Callable[..., Fake]) -> None:
    assert plain_message({"status": "Pulling", "id": "latest"}) == "latest: Pulling\n"
    assert plain_message({"stream": "Step 1"}) == "Step 1"
    assert bar({"current": 5}, 200) == "      5B" and bar({}, 200) == ""
    assert bar({"current": 5, "total": 10}, 80) == "      5B/10B"
    messages = [{"status": "a"}, {"errorDetail": {"message": "boom", "code": 3}, "error": "boom"}]
    body = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    done = fake(b"HTTP/1.1 200 OK\r\n\r\n" + body).run("pull", "x:1")
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\n", "boom\n")


def test_an_image_made_in_1970_is_old_in_a_list_and_of_no_age_in_a_history(
    fake: Callable[..., Fake],
) -> None:
    """As Docker's client says it: the lab's own image is made to be the same on every machine."""
    image = {"Id": "sha256:" + "a" * 64, "Created": 0, "RepoTags": ["busybox:latest"], "Size": 1}
    listed = fake(said([image])).run("images", "--format", "{{.CreatedSince}}").stdout
    assert re.fullmatch(r"\d+ years ago\n", listed)
    step = {"Id": "<missing>", "Created": 0, "CreatedBy": "sh", "Size": 1, "Comment": ""}
    told = fake(said([step])).run("history", "--format", "{{.CreatedSince}}", "busybox").stdout
    assert told == "N/A\n"


def test_a_pull_before_a_run_tells_only_its_image(fake: Callable[..., Fake]) -> None:
    missing = said({"message": "No such image: x:latest"}, "404 Not Found")
    pulled = b'HTTP/1.1 200 OK\r\n\r\n{"status":"Status: Downloaded"}\n'
    made = said({"Id": "abc", "Warnings": ["careful"]}, "201 Created")
    daemon = fake(missing, pulled, made)
    done = daemon.run("create", "x")
    assert (done.returncode, done.stdout) == (0, "abc\n")
    assert done.stderr.splitlines() == [
        "Unable to find image 'x:latest' locally", "Status: Downloaded", "WARNING: careful",
    ]  # fmt: skip
    assert daemon.seen[1].startswith(b"POST /v1.41/images/create?fromImage=x&tag=latest HTTP/1.1")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Make an authority, and certificates of a daemon and of a client, as Docker's manual says."""
    if not shutil.which("openssl"):
        cannot_run_here("there is no openssl (remedy: apt-get install openssl)")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    openssl(*new, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    signed = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    for name, key in (("server", "server-key"), ("cert", "key")):
        openssl(
            *new, "-subj", f"/CN={name}", *signed, "-keyout", f"{key}.pem", "-out", f"{name}.pem"
        )
    return tmp_path


def test_over_tcp_both_sides_prove_who_they_are(certificates: Path) -> None:
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    settings.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    settings.load_verify_locations(certificates / "ca.pem")
    settings.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(3):
            peer, _address = listener.accept()
            with (
                peer,
                contextlib.suppress(OSError),
                settings.wrap_socket(peer, server_side=True) as tls,
            ):
                tls.recv(65536)
                tls.sendall(said([]))

    thread = threading.Thread(target=serve)
    thread.start()
    host = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    known = {
        **os.environ,
        "DOCKER_HOST": host,
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(certificates),
    }
    good, nobody, plain = (
        subprocess.run([OURS, *words, "ps", "-q"], capture_output=True, text=True, env=environment)
        for words, environment in (
            ([], known),
            (["--tlscert", "/none", "--tlskey", "/none"], known),
            ([], {**known, "DOCKER_TLS_VERIFY": ""}),
        )
    )
    thread.join()
    listener.close()
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    for done in (nobody, plain):
        assert done.returncode == 1 and "error during connect" in done.stderr
        assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_draw(fake: Callable[..., Fake]) -> None:
    member = {"Name": 'a"b', "IPv4Address": "10.0.0.2/24"}
    network = {
        "Id": "n",
        "Name": "lan",
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]},
    }
    answers = (said([network]), said({**network, "Containers": {"c": member}}))
    assert fake(*answers).run("draw", "networks").stdout == (
        '┌─ lan bridge 10.0.0.0/24 ─┐\n│ a"b  10.0.0.2            │\n└──────────────────────────┘\n'
    )
    graph = fake(*answers).run("draw", "networks", "--dot").stdout
    assert '  "lan bridge 10.0.0.0/24" -- "a\\"b" [label="10.0.0.2"]\n' in graph
    missing = fake(said([network])).run("draw", "networks", "moon")
    assert (missing.returncode, missing.stderr) == (1, "network moon not found\n")
    history = [
        {"CreatedBy": "RUN \x1b[2J\n" + "x" * 99, "Size": 5},
        {"CreatedBy": "", "Size": 1000},
    ]
    layers = fake(said(history)).run("draw", "layers", "me/x:1").stdout.splitlines()
    assert layers[1].startswith("│ RUN \\x1b[2J\\nxxx") and layers[2].startswith("│ -  ")
    config = {"NetworkMode": "host", "PidMode": "container:0123456789abcdef", "IpcMode": "private"}
    one = said({"Id": "f" * 64, "Name": "/web", "HostConfig": config})
    drawn = fake(one).run("draw", "namespaces", "web").stdout
    assert "┌─ web ffffffffffff ─" in drawn and "│ network  the host's" in drawn
    assert "│ pid      that of 0123456789ab" in drawn and "│ ipc      its own" in drawn
    assert fake().run("draw", "moon").stderr.startswith("cannot draw 'moon'; there are: networks")


def end_daemon(root: Path) -> int:
    """End the daemon of a data root, a child of ours if we started it; return its pid."""
    pid = upkeep.end_daemon(str(root))
    if pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return pid


@pytest.mark.root
@pytest.mark.anywhere
def test_a_command_starts_the_daemon_that_it_misses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Endpoint(f"unix://{tmp_path}/d.sock", (), False, "default", str(tmp_path / "data"))
    (tmp_path / "json.py").write_text("raise SystemExit('a module of somebody else')")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as stale:  # what a killed daemon leaves
        stale.bind(f"{tmp_path}/d.sock")
    client = Client(where, "/nonexistent")
    try:
        assert client.json("GET", "/version")["ApiVersion"]
        said = f"mini_docker: no daemon was running; started one (its log: {tmp_path}/d.log)\n"
        assert capfd.readouterr() == ("", said)
        start_daemon(where.host, where.root)
        assert capfd.readouterr() == ("", "")  # it is there: nothing to do, nothing to say
    finally:
        end_daemon(tmp_path / "data")
    assert not Path(f"{tmp_path}/d.sock").exists()


@pytest.mark.root
@pytest.mark.anywhere
def test_of_commands_that_miss_the_daemon_at_once_one_starts_it(tmp_path: Path) -> None:
    words = [OURS, "--data-root", str(tmp_path), "ps", "-q"]
    started = [subprocess.Popen(words, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    ends = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert "".join(err for _, err in ends).count("started one") == 1
    assert end_daemon(tmp_path) != 0 == end_daemon(tmp_path)


@pytest.mark.root
@pytest.mark.anywhere
def test_a_daemon_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    data, place = tmp_path / "data", f"unix://{tmp_path}/x.sock"
    data.write_text("a file")
    with pytest.raises(CommandError, match="the daemon ended at once: .*: File exists: .*/data$"):
        start_daemon(place, str(data))
    with pytest.raises(CommandError, match="the daemon cannot be started: .*/data: File exists$"):
        start_daemon(f"unix://{data}/x.sock", str(data))
    done = subprocess.run(
        [OURS, "--data-root", "/proc/no/such", "ps"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def idle_daemon(root: Path, client: Client) -> subprocess.Popen[bytes]:
    """Return a daemon that ends after a second without a client; ours has a connection, which stays."""
    words = [OURS, "--data-root", str(root), "daemon", "--idle", "1"]
    daemon = subprocess.Popen(words, stderr=subprocess.PIPE)
    assert daemon.stderr is not None
    while b"ready" not in (line := daemon.stderr.readline()):
        assert line, "it has ended"
    try:
        client.json("GET", "/version")
    except CommandError:  # this process slept for more than a second
        daemon.communicate(timeout=240)
        return idle_daemon(root, client)
    return daemon


@pytest.mark.root
@pytest.mark.anywhere
def test_an_idle_daemon_ends_itself_and_a_busy_one_does_not(tmp_path: Path) -> None:
    client = Client(
        Endpoint(f"unix://{tmp_path}/daemon.sock", (), False, "default"), "/nonexistent"
    )
    daemon = idle_daemon(tmp_path, client)
    assert daemon.stderr is not None
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.wait(2.5)
    client.idle.clear()
    assert daemon.wait(240) == 0
    assert b"ended; containers run on" in daemon.stderr.read()
    daemon.stderr.close()
    wrong = subprocess.run([OURS, "daemon", "--idle", "soon"], capture_output=True, text=True)
    assert wrong.stderr == "mini_docker daemon: --idle soon: a number of seconds is wanted\n"


def test_the_module_runs_without_a_launcher() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from mini_docker.cli.main import main; main(['-v'])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0 and done.stdout.startswith("mini_docker version")
