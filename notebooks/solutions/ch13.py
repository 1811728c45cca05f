"""Solutions of chapter 13, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from exercises.ch13 import check_fetch, check_split
from mini_docker.lab import Exercise

Read = Callable[[int], Iterator[bytes]]


def split_blank(text: str) -> tuple[str, str, str]:
    """The untouched exercise."""
    repository, _, version = text.partition(":")
    return "docker.io", repository, version


def split(text: str) -> tuple[str, str, str]:
    """Return (registry, repository, version) of an image name."""
    rest, _, digest = text.partition("@")
    registry, slash, inside = rest.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, inside = "docker.io", rest
    repository, _, tag = inside.partition(":")
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository, digest or tag or "latest"


def split_every_first_part(text: str) -> tuple[str, str, str]:
    """Wrong: whatever stands before a slash is taken for a server."""
    registry, slash, _ = text.partition("/")
    found = split(text)
    return (registry, found[1].removeprefix(f"{registry}/"), found[2]) if slash else found


def split_last_colon(text: str) -> tuple[str, str, str]:
    """Wrong: the last colon is always the tag's."""
    if "@" in text:
        rest, _, version = text.rpartition(":")
        return "docker.io", f"library/{rest}", version
    return split(text)


def fetch_blank(read: Read, size: int, digest: str, tries: int = 3) -> bytes:
    """The untouched exercise."""
    return b"".join(read(0))


def fetch(read: Read, size: int, digest: str, tries: int = 3) -> bytes:
    """Return the bytes of a blob, or raise ValueError or ConnectionError."""
    data, failures = bytearray(), 0
    while len(data) < size:
        before = len(data)
        try:
            for piece in read(len(data)):
                data += piece
                if len(data) > size:
                    raise ValueError("too many bytes")
        except ConnectionError:
            failures = 0 if len(data) > before else failures + 1
            if failures >= tries:
                raise
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise ValueError("other bytes")
    return bytes(data)


def fetch_anew(read: Read, size: int, digest: str, tries: int = 3) -> bytes:
    """Wrong: it begins from the start after each break."""
    for _ in range(20):
        try:
            return b"".join(read(0))
        except ConnectionError:
            pass
    raise ConnectionError


def fetch_unchecked(read: Read, size: int, digest: str, tries: int = 3) -> bytes:
    """Wrong: whatever comes is believed."""
    data = b""
    while len(data) < size:
        try:
            for piece in read(len(data)):
                data += piece
        except ConnectionError:
            pass
    return data


def fetch_for_ever(read: Read, size: int, digest: str, tries: int = 3) -> bytes:
    """Wrong: it never gives up."""
    data = fetch_unchecked(read, size, digest)
    if len(data) != size or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise ValueError
    return data


EXERCISES = [
    Exercise(
        "split",
        check_split,
        blank=split_blank,
        solution=split,
        wrong=[
            (split_every_first_part, "it is a user of Docker Hub, no server"),
            (split_last_colon, "what follows @ is a digest"),
        ],
    ),
    Exercise(
        "fetch",
        check_fetch,
        blank=fetch_blank,
        solution=fetch,
        wrong=[
            (fetch_blank, "you gave up"),
            (fetch_anew, "ask from their end on"),
            (fetch_unchecked, "compare the digest"),
            (fetch_for_ever, "`tries` is the limit"),
        ],
    ),
]
