"""Solutions of chapters 14, 14b and 14c, and the wrong answers that their checks must recognise."""

from __future__ import annotations

import os
import posixpath

from exercises.ch14 import check_bind, check_find, check_reclaim, check_split
from mini_docker.lab import Exercise


def find_blank(reference: str, containers: dict[str, str]) -> str:
    """The untouched exercise."""
    return ""


def find(reference: str, containers: dict[str, str]) -> str:
    """Return the id of the container meant by `reference`, among {id: name}."""
    for container_id, name in containers.items():
        if reference in (container_id, name):
            return container_id
    matches = [
        container_id
        for container_id in containers
        if reference and container_id.startswith(reference)
    ]
    if len(matches) > 1:
        raise ValueError(f"{reference} is the start of {len(matches)} ids")
    if not matches:
        raise LookupError(f"no such container: {reference}")
    return matches[0]


def find_first(reference: str, containers: dict[str, str]) -> str:
    """Wrong: the first that starts so."""
    for container_id, name in containers.items():
        if reference == name or container_id.startswith(reference):
            return container_id
    raise LookupError(reference)


def find_prefix_first(reference: str, containers: dict[str, str]) -> str:
    """Wrong: ids before names."""
    matches = [container_id for container_id in containers if container_id.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    return find(reference, containers)


def reclaim_blank(directory: str, ids: set[str]) -> list[str]:
    """The untouched exercise."""
    return []


def reclaim(directory: str, ids: set[str]) -> list[str]:
    """Remove the dangling names in `directory`; return them sorted."""
    removed = []
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        if os.path.islink(path) and os.readlink(path) not in ids:
            os.unlink(path)
            removed.append(name)
    return removed


def reclaim_all(directory: str, ids: set[str]) -> list[str]:
    """Wrong: every name whose target does not exist as a path, which is every name."""
    gone = [
        name for name in sorted(os.listdir(directory)) if not os.path.exists(f"{directory}/{name}")
    ]
    for name in gone:
        os.unlink(f"{directory}/{name}")
    return gone


def reclaim_files(directory: str, ids: set[str]) -> list[str]:
    """Wrong: it takes strangers' files along."""
    gone = []
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        if not os.path.islink(path) or os.readlink(path) not in ids:
            os.unlink(path)
            gone.append(name)
    return gone


def split_blank(data: bytes) -> tuple[list[bytes], bytes]:
    """The untouched exercise."""
    return [], b""


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole lines of `data`, with their ends, and what follows the last one."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines], rest


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Wrong: an unfinished line passes for a line."""
    return data.splitlines(keepends=True), b""


def split_text(data: bytes) -> tuple[list[bytes], bytes]:
    """Wrong: it decodes, and loses what is no text."""
    return split(data.decode(errors="ignore").encode())


def bind_blank(text: str) -> tuple[str, str, bool]:
    """The untouched exercise."""
    return "", "", False


def bind(text: str) -> tuple[str, str, bool]:
    """Return (source, destination, read-only) of HOST:CONTAINER[:ro|rw]; raise ValueError."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(text)
    source, destination, mode = (*parts, "rw")[:3]
    if (
        not destination.startswith("/")
        or posixpath.normpath(destination) == "/"
        or mode not in ("ro", "rw")
    ):
        raise ValueError(text)
    return source, destination, mode == "ro"


def bind_trusting(text: str) -> tuple[str, str, bool]:
    """Wrong: it takes whatever comes."""
    source, destination, *mode = text.split(":")
    return source, destination, mode == ["ro"]


def bind_textual(text: str) -> tuple[str, str, bool]:
    """Wrong: it knows the root by one name only."""
    source, destination, read_only = bind(text.replace("/../..", "/dots"))
    return source, destination, read_only


EXERCISES = [
    Exercise(
        "find",
        check_find,
        blank=find_blank,
        solution=find,
        wrong=[(find_first, "'77' is somebody's name"), (find_prefix_first, "exact name wins")],
    ),
    Exercise(
        "reclaim",
        check_reclaim,
        blank=reclaim_blank,
        solution=reclaim,
        wrong=[(reclaim_all, "its container exists"), (reclaim_files, "README was no symlink")],
    ),
    Exercise(
        "split",
        check_split,
        blank=split_blank,
        solution=split,
        wrong=[(split_lines, "two whole lines"), (split_text, "nothing may be decoded")],
    ),
    Exercise(
        "bind",
        check_bind,
        blank=bind_blank,
        solution=bind,
        wrong=[(bind_trusting, "a relative path"), (bind_textual, "in other words")],
    ),
]
