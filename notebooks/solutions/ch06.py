"""Solutions of chapter 6, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os

from exercises.ch06 import check_short_name, check_two_names
from mini_docker.lab import Exercise
from mini_docker.linux.process import CLONE_NEWUTS, sethostname, unshare


def _names(in_child: bool, in_parent: bool, rename: bool) -> tuple[str, str]:
    """Fork a child that reports its name through a pipe; unshare in the child, the parent, or not at all."""
    read_fd, write_fd = os.pipe()
    if in_parent:
        unshare(CLONE_NEWUTS)
        sethostname(b"inner")
    if os.fork() == 0:
        if in_child:
            unshare(CLONE_NEWUTS)
        if rename:
            sethostname(b"inner")
        os.write(write_fd, os.uname().nodename.encode())
        os._exit(0)
    os.wait()
    return os.uname().nodename, os.read(read_fd, 100).decode()


def two_names_blank() -> tuple[str, str]:
    """The untouched exercise."""
    return "", ""


def two_names() -> tuple[str, str]:
    """Return our own host name and that of a child that calls itself inner."""
    return _names(in_child=True, in_parent=False, rename=True)


def two_names_parent() -> tuple[str, str]:
    """Wrong: the parent moves too."""
    return _names(in_child=False, in_parent=True, rename=False)


def two_names_shared() -> tuple[str, str]:
    """Wrong: nobody has a namespace of his own."""
    return _names(in_child=False, in_parent=False, rename=True)


def two_names_copy() -> tuple[str, str]:
    """Wrong: a namespace, but no name."""
    return _names(in_child=True, in_parent=False, rename=False)


def short_name_blank(container_id: str, wanted: str, host: bool) -> str | None:
    """The untouched exercise."""
    return ""


def short_name(container_id: str, wanted: str, host: bool) -> str | None:
    """Return the host name that Docker would set."""
    if host and wanted:
        raise ValueError("conflicting options: hostname and the UTS mode")
    if len(wanted.encode()) > 64:
        raise ValueError("a host name has 64 bytes at most")
    return None if host else wanted or container_id[:12]


def short_name_whole(container_id: str, wanted: str, host: bool) -> str | None:
    """Wrong: the whole id."""
    return short_name(container_id, wanted or ("" if host else container_id), host)


def short_name_letters(container_id: str, wanted: str, host: bool) -> str | None:
    """Wrong: it counts letters."""
    if len(wanted) > 64 or (host and wanted):
        raise ValueError(wanted)
    return None if host else wanted or container_id[:12]


def short_name_host(container_id: str, wanted: str, host: bool) -> str | None:
    """Wrong: it renames the host."""
    return short_name(container_id, wanted, False)


EXERCISES = [
    Exercise(
        "two_names",
        check_two_names,
        blank=two_names_blank,
        solution=two_names,
        wrong=[
            (two_names_parent, "is now 'inner'"),
            (two_names_shared, "is now 'inner'"),
            (two_names_copy, "begins as a copy"),
        ],
    ),
    Exercise(
        "short_name",
        check_short_name,
        blank=short_name_blank,
        solution=short_name,
        wrong=[
            (short_name_whole, "first twelve digits"),
            (short_name_letters, "counts bytes"),
            (short_name_host, "none may be set"),
        ],
    ),
]
