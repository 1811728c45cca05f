# Exported from notebooks/05_ipc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/05_ipc.ipynb#ipc-module
"""The IPC namespace: kernel parameters of a container's own, and the size of its shared memory."""

from __future__ import annotations

from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/05_ipc.ipynb#shm-mount
def shm_mount(size: int) -> dict[str, Any]:
    """Return the OCI mount of a /dev/shm of `size` bytes, shm_overview(7)."""
    options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"]
    return {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options}


# %% notebooks/05_ipc.ipynb#sysctl-keys
IPC_KEYS = tuple(
    f"kernel.{name}"
    for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
# a key, or the start of one ending in "." -> the namespace without which it would change the host
NAMESPACED = {
    **dict.fromkeys(IPC_KEYS, "ipc"),
    "fs.mqueue.": "ipc",
    "net.": "network",
    "kernel.domainname": "uts",
}
SWAPPED = str.maketrans("./", "/.")


def sysctl_path(key: str) -> str:
    """Return the file below /proc/sys of a key in either spelling: kernel.sem or kernel/sem.

    The first separator decides which one it is; the other character belongs to a name (eth0.100).
    Raises ValueError for a path with empty parts, or dots that would climb. Source: sysctl.d(5).
    """
    first = next((character for character in key if character in "./"), ".")
    path = key.translate(SWAPPED) if first == "." else key
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"linux.sysctl: {key!r} is no name of a kernel parameter")
    return path


def owner_of(path: str) -> str | None:
    """Return the kind of namespace that owns the file `path` of /proc/sys; None for the whole host."""
    key = path.translate(SWAPPED)
    for known, kind in NAMESPACED.items():
        if key == known or (known.endswith(".") and key.startswith(known)):
            return kind
    return None


# %% notebooks/05_ipc.ipynb#plan-sysctls
def write_sysctl(path: str, value: str) -> None:
    """Write the file `path` of /proc/sys as the caller's namespaces have it, proc_sys(5). Raises OSError."""
    with open(f"/proc/sys/{path}", "w") as file:
        file.write(value)


def plan_sysctls(spec: dict[str, Any]) -> list[Step]:
    """Plan linux.sysctl. Raises ValueError for a key that would change the host.

    Source: OCI config-linux.md, ipc_namespaces(7), network_namespaces(7); the keys are runc's.
    """
    kinds = {kind for kind, _ in entries(spec)}
    steps = []
    for key, value in spec.get("linux", {}).get("sysctl", {}).items():
        path = sysctl_path(key)
        kind = owner_of(path)
        if kind is None:
            raise ValueError(f"linux.sysctl: {key} is not namespaced: it would change the host")
        if kind not in kinds:
            raise ValueError(f"linux.sysctl: {key} needs its own namespace of type {kind}")
        steps.append(Step(f"set {key} to {value}", write_sysctl, (path, str(value))))
    return steps
