"""Solutions of chapter 16, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os

from exercises.ch16 import check_kind, check_open_inside
from mini_docker.lab import Exercise
from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2


def kind_blank(text: str) -> str:
    """The untouched exercise."""
    return ""


def kind(text: str) -> str:
    """Return what a value of -v asks for."""
    parts = text.split(":")
    places = parts[:2] if len(parts) > 1 else ["", *parts]
    if len(parts) > 3 or not places[1].startswith("/") or (len(parts) > 1 and not places[0]):
        raise ValueError(f"invalid volume specification: '{text}'")
    if not places[0]:
        return "anonymous"
    return "bind" if places[0].startswith("/") else "volume"


def kind_by_slash(text: str) -> str:
    """Wrong: looks at the first letter alone."""
    if not text:
        raise ValueError(text)
    return "bind" if text.startswith("/") else "volume"


def kind_lax(text: str) -> str:
    """Wrong: any word is a place."""
    source, _, rest = text.partition(":")
    if not text:
        raise ValueError(text)
    if not rest:
        return "anonymous"
    return "bind" if source.startswith("/") else "volume"


def inside_blank(root_fd: int, path: str) -> int:
    """The untouched exercise."""
    return -1


def inside(root_fd: int, path: str) -> int:
    """Return a descriptor of `path` inside `root_fd`."""
    while True:
        try:
            return openat2(root_fd, path, os.O_PATH, RESOLVE_IN_ROOT)
        except BlockingIOError:  # a rename beside it: the kernel cannot vouch for a ".."
            continue


def inside_plain(root_fd: int, path: str) -> int:
    """Wrong: symlinks and .. lead out."""
    return os.open(path, os.O_PATH, dir_fd=root_fd)


def inside_no_links(root_fd: int, path: str) -> int:
    """Wrong: refuses what a container may have."""
    fd = os.open(path.replace("../", ""), os.O_PATH | os.O_NOFOLLOW, dir_fd=root_fd)
    if os.readlink(f"/proc/self/fd/{fd}").endswith("climbing"):
        raise OSError(40, "a symlink")
    return fd


def inside_checked(root_fd: int, path: str) -> int:
    """Wrong: checks, then uses."""
    top = os.readlink(f"/proc/self/fd/{root_fd}")
    while path.startswith("../"):
        path = path[3:]
    place = f"{top}/{path}"
    for link, leads in (("absolute", "logs"), ("climbing", "host")):
        place = place.replace(f"{top}/{link}", f"{top}/{leads}")
    if not os.path.realpath(place).startswith(top):
        raise OSError(1, "leads elsewhere")
    return os.open(place, os.O_PATH)


EXERCISES = [
    Exercise(
        "kind",
        check_kind,
        blank=kind_blank,
        solution=kind,
        wrong=[(kind_by_slash, "'/data' is of the kind"), (kind_lax, "'store' mounts nothing")],
    ),
    Exercise(
        "open_inside",
        check_open_inside,
        blank=inside_blank,
        solution=inside,
        wrong=[
            (inside_plain, "it left the volume"),
            (inside_no_links, "is a directory in here"),
            (inside_checked, "somebody swapped"),
        ],
    ),
]
