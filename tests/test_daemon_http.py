"""Requests that no client of Docker's sends, byte by byte, to dockerd and to ours: both answer the same.

Behind each goes an ordinary one on the same connection: what is answered to it says whether both found the
same end of the first. OTHERWISE is what ours answers in its own way; docs/differences.md says why.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from mini_docker.api.faults import NoJson, _innermost, decoded
from mini_docker.engine.accidents import log
from tests.daemons import Daemon, Dockerd

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]

PING = "GET /_ping"
CREATE = "POST /volumes/create"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


def request(line: str, *headers: str, body: str = "", host: str | None = "Host: d") -> bytes:
    """Return a request; a line that names no version is of HTTP/1.1."""
    first = line if "HTTP/" in line.upper() else f"{line} HTTP/1.1"
    lines = [first, *([host] if host is not None else []), *headers, "", body]
    return "\r\n".join(lines).encode("latin-1")


def sized(line: str, body: str, *headers: str) -> bytes:
    """Return a request with JSON."""
    return request(line, JSON, f"Content-Length: {len(body)}", *headers, body=body)


def chunked(body: str, *headers: str) -> bytes:
    """Return a request with JSON in chunks."""
    return request(CREATE, JSON, CHUNKED, *headers, body=body)


LAST = request(PING)
SAME = [
    # the first line
    request(PING), b"GET /_ping\r\n\r\n", request("GET /_ping HTTP/1.2"), request("GET /_ping HTTP/2.0"),
    request("GET /_ping http/1.1"), request("G@T /_ping"), request("get /_ping"), request("GET  /_ping"),
    request("GET /_ping x"), request("GET /_pi\1ng"), request("GET /_ping%zz"), request("GET _ping"),
    request("GET /_ping#x"), request("OPTIONS *"), request("GET *"), request("OPTIONS /_ping"),
    request("TRACE /_ping"), request("GET http://d/_ping"), request("GET http://other:99/_ping"),
    b"GET /_ping HTTP/1.1\nHost: d\n\n", b"\r\n\r\n" + LAST, b"\x16\x03\x01 hello\r\n\r\n",
    b"\0\0\0\0\r\n\r\n",
    # paths and queries
    request("GET /"), request("GET /_ping/"), request("GET //_ping"), request("GET /./_ping"),
    request("GET /a/../_ping"), request("GET /containers/../../etc/passwd/json"),
    request("GET /images/..%2f..%2fetc/json"), request("GET //a%20b%2fc?x=%41"),
    request("POST //containers/create", "Content-Length: 0"), request("GET /_ping?x=//../y"),
    request("GET /images/json?all=%zz"), request("GET /images/json?all=1;b=2"),
    request("GET /containers/a%2fb/json"), request("GET /containers/json?limit=1&limit=x"),
    request("GET /vx.1/_ping"), request("GET /v1.41.0/_ping"), request("GET /v1.041/_ping"),
    request("GET /v1.41"), request("GET /v99999999999999999999.1/_ping"), request("HEAD /nosuch"),
    request("GET /containers/json?filters=%7Bx"), request("GET /containers/json?filters=[]"),
    request('GET /containers/json?filters={"a":"b"}'), request("GET /containers/json?filters={"),
    # headers
    request(PING, host=None), request(PING, "Host: b"), request(PING, host="Host: a b"),
    request(PING, host="Host:"), request("GET http://d/_ping", host=None), request(PING, "X: a", " b"),
    b"GET /_ping HTTP/1.1\r\n X: a\r\nHost: d\r\n\r\n", request(PING, "X : y"), request(PING, "novalue"),
    request(PING, "X@Y: y"), request(PING, "X: a\1b"), request(PING, "X: a\0b"), request(PING, "X: \xff"),
    request(PING, "Connection: Close"), request(PING, "Connection: Upgrade", "Upgrade: tcp"),
    request(PING, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
    request(PING, *(f"X-{number}: y" for number in range(5000))), request(PING, f"X: {'x' * 900_000}"),
    request(PING, f"X: {'x' * ((1 << 20) + 8192)}"), request(f"GET /_ping?{'x' * 500_000}"),
    # where a body ends
    request(PING, "Content-Length: -1"), request(PING, "Content-Length: +1", body="x"),
    request(PING, "Content-Length: x"), request(PING, "Content-Length: 0x1"),
    request(PING, "Content-Length: 99999999999999999999"), request(PING, f"Content-Length: {'1' * 5000}"),
    request(PING, "Content-Length: 1", "Content-Length: 2", body="xx"),
    request(PING, "Content-Length: 1", "Content-Length: 1", body="x"),
    request(PING, "Content-Length: 5", CHUNKED, body="0\r\n\r\n"),
    request("POST /nosuch", "Content-Length: 9", CHUNKED, body="0\r\n\r\n") + request("GET /nosuch"),
    request(PING, "Transfer-Encoding: gzip"), request(PING, "Transfer-Encoding: gzip, chunked"),
    request(PING, CHUNKED, CHUNKED, body="0\r\n\r\n"), request(PING, "Transfer-Encoding: identity"),
    request(PING, "Transfer-Encoding: Chunked", body="0\r\n\r\n"),
    request(PING, "Transfer-Encoding: xchunked"), request(PING, "Transfer-Encoding:"),
    request(PING, "Content-Length: 5", body="hello"),
    request("POST /nosuch", "Content-Length: 5", body="hello"), request(PING, "Expect: 100-continue"),
    sized(CREATE, "{x", "Expect: 100-continue"), sized(CREATE, "{x", "Expect: 100-Continue"),
    request("POST /nosuch", "Expect: 100-continue", "Content-Length: 5", body="hello"),
    request("POST /nosuch", "Expect: 100-continue", "Content-Length: 33"),
    request(PING, "Expect: the-unexpected"), chunked("zz\r\n{}\r\n0\r\n\r\n"),
    chunked("-2\r\n{}\r\n0\r\n\r\n"), chunked("2;a=b\r\n{]\r\n0\r\n\r\n"),
    chunked("2\r\n{]\r\n0\r\nX: y\r\n\r\n", "Trailer: X"),
    request(PING) + request("GET /nosuch") + request("HEAD /_ping"), request(PING) + b"garbage\r\n\r\n",
    # JSON
    request(CREATE, "Content-Length: 2", body="{}"), request(CREATE, JSON, "Content-Length: 0"),
    request(CREATE, "Content-Type: ;;", "Content-Length: 2", body="{}"),
    request(CREATE, "Content-Type: Application/JSON; charset=x", "Content-Length: 2", body="{]"),
    *(sized(CREATE, body) for body in ("{x", "{'", '{"Name', "  ")),
    *(sized("POST /containers/create", body) for body in ("{x", '{"Name', "  ")),
    sized(CREATE, '{"Name": NaN }'), sized(CREATE, "{\0}\0"), sized(CREATE, '{"Name": "a" "b"}'),
    sized(CREATE, '{"Name": tru}'), sized(CREATE, '{"Name" 1}'), sized(CREATE, '{"a": [1 2]}'),
    sized(CREATE, '{"Name": "\\x"}'), sized(CREATE, '{"Name": "\\u12x"}'), sized(CREATE, '{"Name": "\n"}'),
    sized(CREATE, "[" * 40_000), sized(CREATE, '{"a": {"b": 1}, }'), sized(CREATE, '{"a": 01}'),
]  # fmt: skip
OTHERWISE = [
    (request("GET /_ping HTTP/1.0"), "HTTP/1.1 200 OK"),
    (request("GET /_ping HTTP/1.0", "Connection: keep-alive"), "HTTP/1.1 200 OK"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported"),
    (request("CONNECT d:80"), "HTTP/1.1 400 Bad Request"),
    (request("GET /\xff"), "HTTP/1.1 400 Bad Request"),
    (request(PING, ": y"), "HTTP/1.1 400 Bad Request"),
    (request(PING, "Content-Length:"), "HTTP/1.1 400 Bad Request"),
    (request(PING, "Content-Length: 1, 1", body="x"), "HTTP/1.1 200 OK"),
    (request(PING, f"X: {'x' * (2 << 20)}"), "HTTP/1.1 431 Request Header Fields Too Large"),
    (chunked("fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), "HTTP/1.1 400 Bad Request"),
    (chunked("9\r\n{]"), "HTTP/1.1 400 Bad Request"),
    (sized(CREATE, "{}{}"), "HTTP/1.1 400 Bad Request"),
    (request("POST /session", "Connection: Upgrade", "Upgrade: x"), "HTTP/1.1 501 Not Implemented"),
    (request("POST /grpc", "Connection: Upgrade", "Upgrade: h2c"), "HTTP/1.1 404 Not Found"),
]


class Answer(NamedTuple):
    """What is compared of an answer; the end of the connection is one, too."""

    first: str
    headers: tuple[str, ...]
    body: str


def answers(data: bytes) -> list[Answer]:
    """Take apart what came back until the end."""
    found = []
    for part in re.split(r"(?=HTTP/1\.[01] \d)", data.decode("utf-8")):
        head, _, body = part.partition("\r\n\r\n")
        first, *headers = head.split("\r\n")
        kept = re.compile(
            "(connection|location|upgrade|transfer-encoding|content-type): ", re.IGNORECASE
        )
        found.append(Answer(first, tuple(sorted(filter(kept.match, headers))), body))
    return found[1:]


def shown(data: bytes) -> str:
    """Return a request for an error's text."""
    return repr(data if len(data) < 300 else data[:300] + b"...")


@pytest.mark.peers
def test_what_no_client_sends_is_answered_as_by_dockerd(daemon: Daemon, dockerd: Dockerd) -> None:
    differing = []
    for data in SAME:
        wanted, found = (answers(one.raw(data + LAST)) for one in (dockerd, daemon))
        if wanted != found:
            differing.append(f"{shown(data)}\n  dockerd {wanted}\n  ours    {found}")
    assert not differing, "\n".join(differing)


def test_what_is_answered_otherwise(daemon: Daemon) -> None:
    found = [answers(daemon.raw(data + LAST))[0].first for data, _ in OTHERWISE]
    assert [first.partition(":")[0] for first in found] == [first for _, first in OTHERWISE]


def test_each_is_one_line_of_the_log(daemon: Daemon) -> None:
    daemon.raw(request(PING, host=None))
    daemon.raw(b"GET /" + b"x" * 100_000 + b"\r\n\r\n")
    daemon.raw(sized("POST /containers/create", "{"))
    assert daemon.ask("GET", "/_ping") == (200, "OK")
    lines = daemon.words().splitlines()
    of_http = [line for line in lines if line.startswith("a request was no HTTP: ")]
    assert len(of_http) == 2 and max(map(len, lines)) <= 1000
    assert "POST /containers/create: HttpError: unexpected EOF" in lines


def test_nothing_in_a_line_of_the_log_writes_over_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log("POST /\x1b[31m\r\nready: \u202e" + "x" * 2000)
    said = capsys.readouterr().err
    assert said.startswith("POST / [31m  ready:  xx") and len(said) == 1001


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": "', "unexpected EOF"),
        ('{"a": nul', "unexpected EOF"),
        ('{"a": nult', "invalid character 't' in literal null (expecting 'l')"),
        ('{"a": [1, 2', "unexpected EOF"),
        ('["]}", {"a": 1 2', "invalid character '2' after object key:value pair"),
        ('{"a": "{", "b": [1 2', "invalid character '2' after array element"),
        ('"\\u12"', "invalid character '\"' in \\u hexadecimal character escape"),
        ("[-Infinity]", "invalid character 'I' in numeric literal"),
        ("'", "invalid character '\\'' looking for beginning of value"),
        ("{} x", "unexpected content after JSON"),
    ],
)
def test_what_is_no_json_is_told_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(NoJson) as caught:
        decoded(text)
    assert str(caught.value) == words


def test_json_is_read_as_go_reads_it() -> None:
    assert decoded(b' {"a": "\xff"}\n') == {"a": "\ufffd"}
    found = decoded(r'{"\ud800": ["a\uDC00b", 1, "\ud83d\ude00"]}')
    assert found == {"\ufffd": ["a\ufffdb", 1, "\U0001f600"]}


def test_the_bracket_that_is_open_is_found_in_one_pass() -> None:
    """At a pass for each level this would take an hour."""
    depth = 100_000
    assert _innermost("[{" * depth + "}]" * (depth - 1)) == "{"
    assert _innermost('{"]": "}"' * depth) == "{"
    assert _innermost("]" * depth) == ""
