"""Checks of chapter 12c: damage in a store, and what is garbage in it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from mini_docker.lab import Verdict, check, failed, passed


def _blob(root: str, algorithm: str, data: bytes) -> tuple[str, Path]:
    """Write a blob, and return its digest and its path."""
    name = hashlib.new(algorithm, data).hexdigest()
    path = Path(root, "blobs", algorithm, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{algorithm}:{name}", path


@check
def check_damaged(answer: Callable[[str], list[str]]) -> Verdict:
    """Check a search for damaged blobs."""
    with tempfile.TemporaryDirectory() as root:
        blobs = [_blob(root, "sha256", b"%d" % number * 1000) for number in range(5)]
        other = _blob(root, "sha512", b"long" * 1000)
        if answer(root):
            return failed("a blob whose bytes are right is called damaged")
        flipped, emptied = blobs[3], blobs[1]
        flipped[1].write_bytes(flipped[1].read_bytes()[:-1] + b"x")
        if flipped[0] not in answer(root):
            return failed("one byte of a blob has changed, its size has not, and you do not see it")
        emptied[1].write_bytes(b"")
        if emptied[0] not in answer(root):
            return failed("a blob is empty now, as after a power cut, and you do not see it")
        other[1].write_bytes(b"short")
        if other[0] not in answer(root):
            return failed("a blob in blobs/sha512 is damaged, and you looked in blobs/sha256 only")
        if answer(root) != sorted(name for name, _ in (flipped, emptied, other)):
            return failed("return whole digests, algorithm and all, sorted")
    return passed("what a name promises, somebody must look after from time to time")


@check
def check_garbage(
    answer: Callable[[dict[str, list[str]], list[str], list[str]], set[str]],
) -> Verdict:
    """Check a mark and sweep."""
    edges = {"index": ["amd", "arm"], "amd": ["config", "base", "top"], "config": [], "base": [],
             "top": [], "old": ["base", "older"], "older": []}  # fmt: skip
    found = answer(edges, ["index"], [])
    if found & {"config", "top"}:
        return failed(
            "a blob two steps from its name is called garbage: an index leads to manifests, they to layers"
        )
    if "base" in found:
        return failed("'base' is called garbage because garbage names it; an image names it too")
    if found != {"old", "older"}:
        return failed(f"of two blobs that nobody needs you find {sorted(found & {'old', 'older'})}")
    if answer(edges, ["index"], ["older"]) != {"old"}:
        return failed("a pull holds 'older' by a lease, and you throw it away under its hands")
    if answer(edges, ["index"], ["old"]) != {"older"}:
        return failed("a lease holds exactly what it lists: 'old' is held, and 'older' is not")
    circle = {"a": ["b"], "b": ["a"], "image": []}
    if answer(circle, ["image"], []) != {"a", "b"}:
        return failed("two blobs that name each other are kept for ever: nobody else leads to them")
    return passed("what is reached stays, the rest goes")
