"""Checks of chapters 18 and 18b."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_match_route(answer: Callable[[str, str], dict[str, str] | None]) -> Verdict:
    """Check the matching of a path with a route (chapter 18)."""
    one, many = "/containers/{id}/json", "/images/{name:.*}/json"
    if answer(one, "/containers/web/json") != {"id": "web"}:
        return failed(f"{one} does not find 'web' in /containers/web/json")
    if answer(one, "/containers/a/b/json") is not None:
        return failed("{id} took 'a/b': a hole without ':.*' is one part of the path")
    if answer(one, "/containers/web/json/more") is not None:
        return failed("'/containers/web/json/more' goes on after the route's end, and was taken")
    if answer(many, "/images/host:5000/a/b/json") != {"name": "host:5000/a/b"}:
        return failed("{name:.*} must take 'host:5000/a/b', slashes and all")
    if answer("/info", "/info") != {}:
        return failed("a route without holes that matches has no holes: {} and not None")
    if answer("/v1.41/info", "/v1x41/info") is not None:
        return failed("the dot of a route is a dot, and '/v1x41/info' was taken")
    return passed("holes with and without slashes, and nothing else")


@check
def check_read_filters(answer: Callable[[str], dict[str, list[str]]]) -> Verdict:
    """Check the reading of filters in both encodings (chapter 18)."""
    if answer('{"label":["a=b"]}') != {"label": ["a=b"]}:
        return failed("the list of values, as docker-py sends it, is not read")
    if answer('{"label":{"a=b":true}}') != {"label": ["a=b"]}:
        return failed(
            "the object of values, as Go's clients send it, is not read: its keys are the values"
        )
    if answer('{"status":{"exited":false,"running":true}}') != {"status": ["running"]}:
        return failed("'exited' is false, so it is no filter")
    for bad in ("", "x", "[]", '{"label":1}', '{"label":"a"}', "null"):
        try:
            found = answer(bad)
        except ValueError:
            continue
        return failed(
            f"{bad!r} is neither encoding, and gave {found!r}: a string is no list, though it has parts"
        )
    return passed("both encodings, and nothing else")


@check
def check_head(answer: Callable[[bytes], tuple[int, bytes] | None]) -> Verdict:
    """Check the parting of head and stream (chapter 18b)."""
    head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: x\r\nUpgrade: tcp\r\n\r\n"
    if answer(head[:-2]) is not None:
        return failed("the head's last, empty line is not there yet: the answer is None")
    if answer(head) != (101, b""):
        return failed("a whole head and nothing after it: (101, b'')")
    if answer(head + b"\r\n\r\nmore") != (101, b"\r\n\r\nmore"):
        return failed("the stream may have empty lines of its own: part at the first one")
    if answer(b"HTTP/1.1 404 Not Found\r\n\r\n{}") != (404, b"{}"):
        return failed("a status of 404 is a number too, and its body follows")
    return passed("the head is HTTP, the rest is not")


@check
def check_detach_keys(answer: Callable[[str], bytes]) -> Verdict:
    """Check the reading of detach keys (chapter 18b)."""
    for text, wanted in (
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,b", b"ab"),
        ("ctrl-@", b"\0"),
        ("ctrl-[", b"\x1b"),
    ):
        if answer(text) != wanted:
            return failed(f"'{text}' sends {wanted!r}, and not {answer(text)!r}")
    for bad in ("", "ctrl-", "ctrl-pp", "alt-x", "ctrl-p,,q", "ctrl-!"):
        try:
            found = answer(bad)
        except ValueError:
            continue
        return failed(f"'{bad}' gave {found!r}: it is no key")
    return passed("keys to bytes")


@check
def check_progress(answer: Callable[[bytes], tuple[dict[str, str], str | None]]) -> Verdict:
    """Check the reading of a progress stream (chapter 18c)."""
    lines = b'{"status":"Waiting","id":"a"}\r\n{"status":"Downloading","id":"a"}\n{"status":"Digest: x"}\n'
    if answer(b"") != ({}, None):
        return failed("no lines, no layers, no error")
    if answer(lines) != ({"a": "Downloading"}, None):
        return failed(f"layer a is Downloading, the digest is of no layer: {answer(lines)}")
    bad = lines + b'{"errorDetail":{"message":"m"},"error":"reset"}\n{"status":"Done","id":"a"}\n'
    if answer(bad)[1] != "reset":
        return failed("a line with 'error' is the end: 200 was said before it was known")
    if answer(bad)[0] != {"a": "Downloading"}:
        return failed("after an error nothing counts any more")
    return passed("progress, and the error that came late")


@check
def check_path_stat(answer: Callable[[str], tuple[str, bool, str]]) -> Verdict:
    """Check the decoding of X-Docker-Container-Path-Stat (chapter 18c)."""
    import base64
    import json

    def header(name: str, mode: int, target: str = "") -> str:
        stat = {
            "name": name,
            "size": 1,
            "mode": mode,
            "mtime": "2026-11-23T19:24:46Z",
            "linkTarget": target,
        }
        return base64.b64encode(json.dumps(stat).encode()).decode()

    if answer(header("passwd", 0o644)) != ("passwd", False, ""):
        return failed("an ordinary file is not read")
    if answer(header("etc", 2147484141)) != ("etc", True, ""):
        return failed(
            "2147484141 is Go's mode of a directory: look at bit 31, not at stat's 0o40000"
        )
    if answer(header("sh", 134218239, "/bin/busybox")) != ("sh", False, "/bin/busybox"):
        return failed("a symlink is no directory, and has a target")
    if answer(header("odd", 0o040000)) != ("odd", False, ""):
        return failed("0o40000 is a directory to stat(2), and nothing of the kind in Go's bits")
    return passed("base64, JSON, and Go's bits")
