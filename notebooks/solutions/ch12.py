"""Solutions of chapter 12, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import hashlib
import os

from exercises.ch12 import check_put, check_safe_name
from mini_docker.lab import Exercise


def put_blank(directory: str, data: bytes) -> str:
    """The untouched exercise."""
    return ""


def put(directory: str, data: bytes) -> str:
    """Store `data` by its digest, atomically; return "sha256:..."."""
    name = hashlib.sha256(data).hexdigest()
    final = f"{directory}/blobs/sha256/{name}"
    if not os.path.exists(final):
        temporary = f"{directory}/blobs/new"
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, final)
    return f"sha256:{name}"


def put_in_place(directory: str, data: bytes) -> str:
    """Wrong: the final name exists while the bytes are still coming."""
    name = hashlib.sha256(data).hexdigest()
    final = f"{directory}/blobs/sha256/{name}"
    if not os.path.exists(final):
        with open(final, "wb") as file:
            file.write(data)
    return f"sha256:{name}"


def put_always(directory: str, data: bytes) -> str:
    """Wrong: it writes what is already there."""
    name = hashlib.sha256(data).hexdigest()
    temporary = f"{directory}/blobs/new"
    with open(temporary, "wb") as file:
        file.write(data)
    os.rename(temporary, f"{directory}/blobs/sha256/{name}")
    return f"sha256:{name}"


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


EXERCISES = [
    Exercise(
        "put",
        check_put,
        blank=put_blank,
        solution=put,
        wrong=[(put_in_place, "grew under its final name"), (put_always, "a second time")],
    ),
    Exercise(
        "safe_name",
        check_safe_name,
        blank=safe_name_blank,
        solution=safe_name,
        wrong=[(safe_name_prefix, "walks up"), (safe_name_anywhere, "only part of names")],
    ),
]
