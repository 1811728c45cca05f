"""Solutions of chapter 12, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from exercises.ch12 import check_fits, check_put
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


def fits_blank(descriptor: dict[str, Any], data: bytes) -> str:
    """The untouched exercise."""
    return ""


def fits(descriptor: dict[str, Any], data: bytes) -> str:
    """Return "" if `data` is what the descriptor says, else "size" or "digest"."""
    if len(data) != descriptor["size"]:
        return "size"
    algorithm = descriptor["digest"].partition(":")[0]
    if algorithm not in ("sha256", "sha512"):
        return "digest"
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    return "" if found == descriptor["digest"] else "digest"


def fits_any_algorithm(descriptor: dict[str, Any], data: bytes) -> str:
    """Wrong: whoever wrote the descriptor chooses the algorithm, for instance a broken one."""
    if len(data) != descriptor["size"]:
        return "size"
    algorithm, _, encoded = descriptor["digest"].partition(":")
    try:
        return "" if hashlib.new(algorithm, data).hexdigest() == encoded else "digest"
    except ValueError:
        return "digest"


def fits_hash_first(descriptor: dict[str, Any], data: bytes) -> str:
    """Wrong: it hashes whatever comes, however long."""
    algorithm = descriptor["digest"].partition(":")[0]
    if algorithm not in ("sha256", "sha512"):
        return "digest"
    if f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != descriptor["digest"]:
        return "digest"
    return "" if len(data) == descriptor["size"] else "size"


def fits_size_only(descriptor: dict[str, Any], data: bytes) -> str:
    """Wrong: a tampered layer is as long as the honest one."""
    return "" if len(data) == descriptor["size"] else "size"


EXERCISES = [
    Exercise(
        "put",
        check_put,
        blank=put_blank,
        solution=put,
        wrong=[(put_in_place, "grew under its final name"), (put_always, "a second time")],
    ),
    Exercise(
        "fits",
        check_fits,
        blank=fits_blank,
        solution=fits,
        wrong=[
            (fits_any_algorithm, "no sha256 or sha512 digest"),
            (fits_hash_first, "hashed before"),
            (fits_size_only, "one changed byte"),
        ],
    ),
]
