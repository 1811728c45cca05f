"""Solutions of chapter 12b, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import gzip
import zlib

from exercises.ch12b import check_bounded, check_safe_name
from mini_docker.lab import Exercise


def safe_name_blank(name: str) -> list[str] | None:
    """The untouched exercise."""
    return name.split("/")


def safe_name(name: str) -> list[str] | None:
    """Return the parts of an entry's name, or None to refuse it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if not parts or ".." in parts or "\0" in name else parts


def safe_name_prefix(name: str) -> list[str] | None:
    """Wrong: it looks for dots at the beginning only."""
    return None if name.startswith("..") else safe_name(name.replace("..", "_"))


def safe_name_anywhere(name: str) -> list[str] | None:
    """Wrong: it takes any two dots for a way up."""
    return None if ".." in name else safe_name(name)


def bounded_blank(data: bytes, limit: int) -> bytes:
    """The untouched exercise."""
    return gzip.decompress(data)


def bounded(data: bytes, limit: int) -> bytes:
    """Return what the gzip `data` expands to. Raises ValueError beyond `limit` bytes."""
    stream = zlib.decompressobj(31)
    plain = stream.decompress(data, limit + 1)
    if len(plain) > limit:
        raise ValueError(f"more than {limit} bytes")
    if not stream.eof:
        raise ValueError("the data ends in the middle")
    return plain


def bounded_afterwards(data: bytes, limit: int) -> bytes:
    """Wrong: it measures the bomb after it went off."""
    try:
        plain = gzip.decompress(data)
    except EOFError as error:
        raise ValueError from error
    if len(plain) > limit:
        raise ValueError(f"more than {limit} bytes")
    return plain


def bounded_cut(data: bytes, limit: int) -> bytes:
    """Wrong: it returns the beginning of what is too much, or of what is broken."""
    return zlib.decompressobj(31).decompress(data, limit)


EXERCISES = [
    Exercise(
        "safe_name",
        check_safe_name,
        blank=safe_name_blank,
        solution=safe_name,
        wrong=[(safe_name_prefix, "walks up"), (safe_name_anywhere, "only part of names")],
    ),
    Exercise(
        "bounded",
        check_bounded,
        blank=bounded_blank,
        solution=bounded,
        wrong=[(bounded_afterwards, "expanded first"), (bounded_cut, "as if it were whole")],
    ),
]
