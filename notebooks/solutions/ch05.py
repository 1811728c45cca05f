"""Solutions of chapter 5, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os
import re
from typing import Any

from exercises.ch05 import check_orphans, check_shm_options, check_sidecar
from mini_docker.lab import Exercise

Spec = dict[str, Any]
FIXED = ["nosuid", "noexec", "nodev", "mode=1777"]


def shm_options_blank(text: str) -> list[str]:
    """The untouched exercise."""
    return []


def shm_options(text: str) -> list[str]:
    """Return the mount options of /dev/shm for a value of --shm-size."""
    found = re.fullmatch(r"(\d+)([kmg]?)", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"invalid size: {text!r}")
    size = int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]
    return FIXED + ([f"size={size}"] if size else [])


def shm_options_text(text: str) -> list[str]:
    """Wrong: tmpfs knows letters too, but nobody has checked them."""
    return [*FIXED, f"size={text}"]


def shm_options_zero(text: str) -> list[str]:
    """Wrong: zero is written down."""
    options = shm_options(text)
    return options if len(options) > len(FIXED) else [*FIXED, "size=0"]


def sidecar_blank(spec: Spec, pid: int, shm: str) -> Spec:
    """The untouched exercise."""
    return spec


def bind(shm: str) -> dict[str, Any]:
    """Return the bind mount of somebody's shared memory."""
    return {
        "destination": "/dev/shm",
        "type": "bind",
        "source": shm,
        "options": ["rbind", "rprivate"],
    }


def sidecar(spec: Spec, pid: int, shm: str) -> Spec:
    """Return a document like `spec` that shares IPC with the process `pid`, whose /dev/shm is `shm`."""
    join = {"type": "ipc", "path": f"/proc/{pid}/ns/ipc"}
    spaces = [join if entry["type"] == "ipc" else entry for entry in spec["linux"]["namespaces"]]
    mounts = [
        bind(shm) if entry["destination"] == "/dev/shm" else entry for entry in spec["mounts"]
    ]
    return {**spec, "mounts": mounts, "linux": {**spec["linux"], "namespaces": spaces}}


def sidecar_no_mount(spec: Spec, pid: int, shm: str) -> Spec:
    """Wrong: it believes in the name of the namespace."""
    return {**sidecar(spec, pid, shm), "mounts": spec["mounts"]}


def sidecar_host(spec: Spec, pid: int, shm: str) -> Spec:
    """Wrong: no namespace of one's own is not the container's."""
    spaces = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "ipc"]
    return {**sidecar(spec, pid, shm), "linux": {"namespaces": spaces}}


def sidecar_twice(spec: Spec, pid: int, shm: str) -> Spec:
    """Wrong: it adds an entry and leaves the old one."""
    spaces = [*spec["linux"]["namespaces"], {"type": "ipc", "path": f"/proc/{pid}/ns/ipc"}]
    return {**sidecar(spec, pid, shm), "linux": {"namespaces": spaces}}


def sidecar_in_place(spec: Spec, pid: int, shm: str) -> Spec:
    """Wrong: it edits the container's own document."""
    spec.update(sidecar(spec, pid, shm))
    return spec


def sidecar_only(spec: Spec, pid: int, shm: str) -> Spec:
    """Wrong: it keeps nothing but what was named."""
    return {**sidecar(spec, pid, shm), "mounts": [bind(shm)]}


def orphans_blank(table: str) -> list[int]:
    """The untouched exercise."""
    return []


def orphans(table: str) -> list[int]:
    """Return the ids (shmid) of the segments in `table` that nobody has attached, ascending."""
    titles, *rows = (line.split() for line in table.splitlines())
    shmid, nattch = titles.index("shmid"), titles.index("nattch")
    return sorted(int(row[shmid]) for row in rows if row[nattch] == "0")


def orphans_all(table: str) -> list[int]:
    """Wrong: every segment."""
    return sorted(int(line.split()[1]) for line in table.splitlines()[1:])


def orphans_makers(table: str) -> list[int]:
    """Wrong: it asks whether the maker lives."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return sorted(int(row[1]) for row in rows if not os.path.exists(f"/proc/{row[4]}"))


def orphans_reversed(table: str) -> list[int]:
    """Wrong: the newest first."""
    return orphans(table)[::-1]


EXERCISES = [
    Exercise(
        "shm_options",
        check_shm_options,
        blank=shm_options_blank,
        solution=shm_options,
        wrong=[(shm_options_text, "bytes; your options"), (shm_options_zero, "no limit of ours")],
    ),
    Exercise(
        "sidecar",
        check_sidecar,
        blank=sidecar_blank,
        solution=sidecar,
        wrong=[
            (sidecar_no_mount, "not in the sidecar's /dev/shm"),
            (sidecar_host, "of the host"),
            (sidecar_twice, "stands there twice"),
            (sidecar_in_place, "has changed"),
            (sidecar_only, "more has changed"),
        ],
    ),
    Exercise(
        "orphans",
        check_orphans,
        blank=orphans_blank,
        solution=orphans,
        wrong=[
            (orphans_all, "would hurt it"),
            (orphans_makers, "makers have ended"),
            (orphans_reversed, "ascending"),
        ],
    ),
]
