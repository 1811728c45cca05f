"""Checks of chapter 12b: names that try to leave the tree, and data that tries to fill the disk."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

LIMIT = 1 << 20


@check
def check_safe_name(answer: Callable[[str], list[str] | None]) -> Verdict:
    """Check the cleaning of an entry's name."""
    for name in ("../x", "a/../../x", "a/..", ".."):
        if answer(name) is not None:
            return failed(f"'{name}' is let through: '..' walks up, wherever it stands")
    for name in ("/etc/passwd", "//etc//passwd", "./etc/passwd", "etc/./passwd", "etc/passwd/"):
        if answer(name) != ["etc", "passwd"]:
            return failed(f"'{name}' should become etc, passwd: empty parts and '.' mean nothing")
    if answer("a/..b/c..") != ["a", "..b", "c.."]:
        return failed("'a/..b/c..' is refused or changed, and its dots are only part of names")
    for name in ("", "/", "./", "a\0b"):
        if answer(name) is not None:
            return failed(f"{name!r} names no file and is let through")
    return passed("what stays is kept, what leaves is refused")


@check
def check_bounded(answer: Callable[[bytes, int], bytes]) -> Verdict:
    """Check a bounded expansion: its result, its refusals, and the memory that the refusal took."""
    data = os.urandom(50_000)
    if answer(gzip.compress(data), LIMIT) != data:
        return failed("honest data of 50 kB does not come out as it went in")
    if _outcome(answer, gzip.compress(data), 50_000) != "returned":
        return failed("exactly `limit` bytes are refused, and are allowed")
    if _outcome(answer, gzip.compress(data)[:-9], LIMIT) != "refused":
        return failed("data that ends in the middle is returned as if it were whole")
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    outcome = _outcome(answer, bomb, LIMIT)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if outcome != "refused":
        return failed("the bomb went off: 64 MB came out of 64 kB, and the limit was 1 MB")
    if memory > 8 << 20:
        return failed(
            "the bomb is refused, but only after it went off: it was expanded first and measured then"
        )
    return passed("what is honest comes out, and a bomb is refused before it is big")


def _outcome(answer: Callable[[bytes, int], bytes], data: bytes, limit: int) -> str:
    try:
        answer(data, limit)
    except ValueError:
        return "refused"
    except (EOFError, OSError):
        return "failed"
    return "returned"
