"""Checks of chapter 12: a store on disk, and names that try to leave it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_put(answer: Callable[[str, bytes], str]) -> Verdict:
    """Check a content-addressed write."""
    data = os.urandom(1000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with tempfile.TemporaryDirectory() as root:
        blobs = Path(root, "blobs", "sha256")
        blobs.mkdir(parents=True)
        if answer(root, data) != digest:
            return failed("what you return is not sha256: and the 64 hex digits of the bytes' hash")
        blob = blobs / digest.partition(":")[2]
        if not blob.is_file():
            return failed("there is no file of that name in blobs/sha256")
        if blob.read_bytes() != data:
            return failed("the file's bytes are not the bytes that were put")
        first = blob.stat()
        answer(root, data)
        again = blob.stat()
        if (again.st_ino, again.st_mtime_ns) != (first.st_ino, first.st_mtime_ns):
            return failed(
                "the same bytes were written a second time: the name had already said that they are there"
            )
        if len(list(blobs.iterdir())) != 1:
            return failed("something else was left in blobs/sha256")
        if not _renamed(answer, root, blobs):
            return failed(
                "the blob grew under its final name: a reader, or a crash, can see half of it"
            )
    return passed("named by content, written once, and whole from its first moment")


def _renamed(answer: Callable[[str, bytes], str], root: str, blobs: Path) -> bool:
    """Return whether the final name appeared by a rename: it is not the file that was opened for writing."""
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(str(root)):
            opened.append(os.path.basename(str(arguments[0])))

    watching = True
    import sys

    sys.addaudithook(watch)
    data = os.urandom(1000)
    answer(root, data)
    watching = False
    return hashlib.sha256(data).hexdigest() not in opened


@check
def check_fits(answer: Callable[[dict[str, Any], bytes], str]) -> Verdict:
    """Check the comparison of bytes with a descriptor."""
    data = os.urandom(1000)
    for algorithm in ("sha256", "sha512"):
        good = {"digest": f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}", "size": 1000}
        if answer(good, data) != "":
            return failed(f"bytes that have the right size and {algorithm} are not let through")
        if answer(good, data[:-1] + bytes([data[-1] ^ 1])) != "digest":
            return failed(
                "one changed byte is let through: compare the hash of what came with the digest"
            )
        if answer({**good, "size": 999}, data) != "size":
            return failed("a descriptor of 999 bytes takes 1000: the size is part of the promise")
    for digest in ("md5:" + hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest(), ""):
        if answer({"digest": digest, "size": 1000}, data) != "digest":
            return failed(f"{digest[:8]!r}... is taken, and is no sha256 or sha512 digest")
    if answer({"digest": "sha256:" + "0" * 64, "size": 5}, data) != "size":
        return failed("bytes of the wrong length were hashed before their length was looked at")
    return passed("size first, then the digest, of two algorithms and no other")
