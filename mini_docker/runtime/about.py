# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#about-module
"""What the runtime says of itself and of a container: features, numbers, an example of a document."""

from __future__ import annotations

import os

from mini_docker.namespaces.kinds import FLAGS as NAMESPACES
from mini_docker.namespaces.mnt import DEFAULT_MOUNTS
from mini_docker.namespaces.options import ATTRIBUTES, BINDS, OURS, PROPAGATION, TREE_ATTRIBUTES
from mini_docker.runtime.schema import HOOK_POINTS
from mini_docker.security.capabilities import DEFAULT, NAMES
from mini_docker.security.compiler import ACTIONS, ARCHITECTURES, OPERATORS
from mini_docker.security.paths import MASKED, READONLY
from mini_docker.security.seccomp import FLAGS, has_seccomp_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cgroups.stats import Stats


# %% notebooks/11e_mini_runc.ipynb#features
def features() -> dict[str, Any]:
    """Return the features structure. Source: OCI features.md, features-linux.md."""
    options = {*ATTRIBUTES, *TREE_ATTRIBUTES, *PROPAGATION, *BINDS, *OURS, "defaults"}
    has_apparmor = os.path.isdir("/sys/kernel/security/apparmor")
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": list(HOOK_POINTS),
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False},
            "seccomp": seccomp_features(),
            "apparmor": {"enabled": has_apparmor},
            "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }


def seccomp_features() -> dict[str, Any]:
    """Return what of linux.seccomp is obeyed; flags that this kernel refuses are known, not supported."""
    return {
        "enabled": True,
        "actions": list(ACTIONS),
        "operators": list(OPERATORS),
        "archs": list(ARCHITECTURES),
        "knownFlags": list(FLAGS),
        "supportedFlags": [name for name, bit in FLAGS.items() if has_seccomp_flag(bit)],
    }


# %% notebooks/11e_mini_runc.ipynb#stats-event
def stats_event(container_id: str, stats: Stats) -> dict[str, Any]:
    """Return one event of `events`, in the form that runc gave it (types/events.go)."""
    cpu, memory = stats.cpu, stats.memory
    throttling = {
        "periods": cpu.periods,
        "throttledPeriods": cpu.throttled_periods,
        "throttledTime": cpu.throttled,
    }
    usage = {"total": cpu.usage, "percpu": cpu.per_cpu, "kernel": cpu.system, "user": cpu.user}
    return {
        "type": "stats",
        "id": container_id,
        "data": {
            "cpu": {"usage": usage, "throttling": throttling},
            "memory": {
                "usage": {
                    "usage": memory.usage,
                    "max": memory.max_usage,
                    "limit": memory.limit,
                    "failcnt": memory.limit_met,
                },
                "raw": memory.stat,
            },
            "pids": {"current": stats.pids.current, "limit": stats.pids.limit},
            "blkio": {
                "ioServiceBytesRecursive": [
                    {"major": io.major, "minor": io.minor, "op": io.op, "value": io.bytes}
                    for io in stats.io
                ]
            },
        },
    }


# %% notebooks/11e_mini_runc.ipynb#example
def example(rootless: bool) -> dict[str, Any]:
    """Return a document for a shell in ./rootfs: Docker's mounts and capabilities, six namespaces."""
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    document: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                name: list(DEFAULT) for name in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "mini_runc",
        "mounts": [dict(mount) for mount in DEFAULT_MOUNTS],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }
    if rootless:
        _without_root(document)
    return document


def _without_root(document: dict[str, Any]) -> None:
    """Change a document for a user without privileges: one id, no limits, no group of a terminal."""
    linux = document["linux"]
    linux["namespaces"].append({"type": "user"})
    del linux["resources"]
    for key, number in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
        linux[key] = [{"containerID": 0, "hostID": number, "size": 1}]
    for mount in document["mounts"]:
        mount["options"] = [option for option in mount["options"] if option != "gid=5"]
