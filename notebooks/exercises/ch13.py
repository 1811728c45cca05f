"""Checks of chapter 13: names, and downloads that break."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator

from mini_docker.lab import Verdict, check, failed, passed

HEX = "0123456789abcdef" * 4
NAMES = (
    (
        "busybox",
        ("docker.io", "library/busybox", "latest"),
        "a single word is one of Docker Hub's own images: library/",
    ),
    ("busybox:1.36", ("docker.io", "library/busybox", "1.36"), "the tag stands after the colon"),
    (
        "team/app",
        ("docker.io", "team/app", "latest"),
        "'team' has no dot and no colon: it is a user of Docker Hub, no server",
    ),
    (
        "localhost/app",
        ("localhost", "app", "latest"),
        "localhost is a server although it has no dot",
    ),
    (
        "reg.example/app",
        ("reg.example", "app", "latest"),
        "a first part with a dot is a server, and nothing is put before its images",
    ),
    (
        "reg.example:5000/a/b:2",
        ("reg.example:5000", "a/b", "2"),
        "the first colon is the port's; the tag's colon comes after the last slash",
    ),
    (
        "reg:5000/app",
        ("reg:5000", "app", "latest"),
        "a colon before the first slash makes the first part a server",
    ),
    (
        f"app@sha256:{HEX}",
        ("docker.io", "library/app", f"sha256:{HEX}"),
        "what follows @ is a digest, with a colon of its own",
    ),
    (
        f"r.example/app:1@sha256:{HEX}",
        ("r.example", "app", f"sha256:{HEX}"),
        "where there are a tag and a digest, the digest decides",
    ),
    (
        "docker.io/busybox",
        ("docker.io", "library/busybox", "latest"),
        "Docker Hub may be named, and means the same",
    ),
)


@check
def check_split(answer: Callable[[str], tuple[str, str, str]]) -> Verdict:
    """Check the reading of image names."""
    for text, wanted, words in NAMES:
        found = answer(text)
        if tuple(found) != wanted:
            return failed(f"'{text}' became {tuple(found)}: {words}")
    return passed("as Docker reads them")


class Blob:
    """A blob behind a connection that breaks after each of `breaks` bytes."""

    def __init__(self, data: bytes, breaks: list[int]) -> None:
        self.data, self.breaks = data, breaks
        self.asked: list[int] = []

    def read(self, offset: int) -> Iterator[bytes]:
        """Yield pieces from `offset` on."""
        self.asked.append(offset)
        if len(self.asked) > 50:
            raise RuntimeError("asked fifty times")
        end = offset + self.breaks.pop(0) if self.breaks else len(self.data)
        for start in range(offset, min(end, len(self.data)), 100):
            yield self.data[start : min(start + 100, end)]
        if end < len(self.data):
            raise ConnectionError("broke off")


@check
def check_fetch(answer: Callable[..., bytes]) -> Verdict:
    """Check a download over connections that break."""
    data = os.urandom(1000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if answer(Blob(data, []).read, 1000, digest) != data:
        return failed("even over a good connection, what you return is not the blob")
    blob = Blob(data, [300, 300, 150, 150])
    try:
        found = answer(blob.read, 1000, digest)
    except ConnectionError:
        return failed(
            "the connection broke once, after some bytes, and you gave up: ask for the rest"
        )
    if blob.asked == [0] * len(blob.asked):
        return failed(
            "after a break you begin anew: the bytes that came were good, ask from their end on"
        )
    if found != data:
        return failed(
            "after a break the bytes are not the blob's: is the piece before the break counted?"
        )
    refusal = _refusals(answer, data, digest)
    return passed("what broke goes on, what is wrong is refused") if refusal is None else refusal


def _refusals(answer: Callable[..., bytes], data: bytes, digest: str) -> Verdict | None:
    for wrong, words in (
        (
            data[:-1] + bytes([data[-1] ^ 1]),
            "one byte of the blob was changed, and you returned it: compare the digest",
        ),
        (data + b"more", "more bytes came than the manifest had promised, and you took them"),
    ):
        try:
            answer(Blob(wrong, []).read, 1000, digest)
            return failed(words)
        except ValueError:
            pass
    dead = Blob(data, [0] * 60)
    try:
        answer(dead.read, 1000, digest)
    except ConnectionError:
        return None
    except RuntimeError:
        return failed(
            "a connection that never brings a byte is asked for ever: `tries` is the limit"
        )
    return failed("the connection never brought a byte, and you returned something")
