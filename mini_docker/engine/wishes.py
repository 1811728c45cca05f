# Exported from notebooks/14b_documents.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14b_documents.ipynb#wishes-module
"""What a create request may wish for, looked at before anything is made: refused, or taken with a warning."""

from __future__ import annotations

import os

from mini_docker.cgroups.resources import controller_of, files_for, unheard
from mini_docker.cgroups.tree import hierarchies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cgroups.resources import File
    from mini_docker.cgroups.tree import Hierarchies


# %% notebooks/14b_documents.ipynb#wishes
RUNTIMES = ("mini_runc", "runc", "io.containerd.runc.v2")  # three names, one runtime
LONGEST_PART = 200  # bytes of a group's name, from which others are made
WINDOWS_ONLY = {"IOMaximumIOps": "IOPs", "IOMaximumBandwidth": "bandwidth"}


def check_wishes(host: dict[str, Any]) -> None:
    """Refuse what this engine or this machine does not have. Raises ValueError in Docker's words."""
    if (host.get("Runtime") or RUNTIMES[0]) not in RUNTIMES:
        raise ValueError(f"Unknown runtime specified {host['Runtime']}")
    isolation = host.get("Isolation") or "default"
    if isolation != "default":
        raise ValueError(f"Invalid isolation: \"{isolation}\" - linux only supports 'default'")
    if host.get("StorageOpt"):
        words = "overlay over xfs with 'pquota' mount option"
        raise ValueError(f"--storage-opt is supported only for {words}")
    for key, what in WINDOWS_ONLY.items():
        if host.get(key):
            words = f"linux does not support configuration of maximum {what}"
            raise ValueError(f"Invalid QoS settings: {words}")
    for part in (host.get("CgroupParent") or "").split("/"):
        if len(part.encode()) > LONGEST_PART:
            raise ValueError(f"invalid cgroup parent: {part[:20]}...: file name too long")
    if (host.get("CpuShares") or 0) < 0:
        raise ValueError("shares: invalid argument")
    if (host.get("ShmSize") or 0) < 0:
        raise ValueError("SHM size can not be less than 0")
    check_numbers(host.get("CpusetCpus") or "", "cpus", "Requested CPUs")
    check_numbers(host.get("CpusetMems") or "", "mems", "Requested memory nodes")


def check_devices(host: dict[str, Any]) -> None:
    """Refuse --gpus when a container starts: there is no driver that would find any. Raises ValueError."""
    for wish in host.get("DeviceRequests") or ():
        groups = " ".join(f"[{' '.join(group)}]" for group in wish.get("Capabilities") or ())
        driver = wish.get("Driver") or ""
        raise ValueError(f'could not select device driver "{driver}" with capabilities: [{groups}]')


# %% notebooks/14b_documents.ipynb#wish-numbers
ONLINE = {"cpus": "/sys/devices/system/cpu/online", "mems": "/sys/devices/system/node/online"}


HIGHEST_NUMBER = 8192


def parse_numbers(text: str) -> set[int]:
    """Return the numbers of a list such as "0-2,7", cpuset(7). Raises ValueError in Docker's words."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if (
            not first.isdecimal()
            or dash
            and not last.isdecimal()
            or int(last or first) < int(first)
        ):
            raise ValueError(f"invalid format: {text}")
        if int(last or first) >> 63:
            raise ValueError(f"invalid format: {text}")
        if int(last or first) > HIGHEST_NUMBER:
            raise ValueError(f"value of out range, maximum is {HIGHEST_NUMBER}")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def check_numbers(text: str, kind: str, what: str) -> None:
    """Refuse processors or memory nodes that this machine does not have. Raises ValueError."""
    if not text:
        return
    try:
        wanted = parse_numbers(text)
    except ValueError as error:
        raise ValueError(f"Invalid value {text} for cpuset {kind}: {error}") from None
    try:
        with open(ONLINE[kind]) as file:
            available = file.read().strip()
    except OSError:
        available = "0"
    if not wanted <= parse_numbers(available):
        raise ValueError(f"{what} are not available - requested {text}, available: {available}")


# %% notebooks/14b_documents.ipynb#warnings
NO_MEMORY_LIMIT = (
    "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
    "running out of resources."
)
OF_THE_KERNEL = (
    # keys of linux.resources, those of HostConfig that ask for them, Docker's words for want of them
    (("memory.limit",), ("Memory", "MemorySwap"),
     "memory limit capabilities or the cgroup is not mounted. Limitation"),
    (("memory.reservation",), ("MemoryReservation",),
     "memory soft limit capabilities or the cgroup is not mounted. Limitation"),
    (("memory.swappiness",), ("MemorySwappiness",),
     "memory swappiness capabilities or the cgroup is not mounted. Memory swappiness"),
    (("memory.disableOOMKiller",), ("OomKillDisable",), "OomKillDisable. OomKillDisable"),
    (("pids.limit",), ("PidsLimit",),
     "PIDs limit capabilities or the cgroup is not mounted. PIDs limit"),
    (("cpu.shares",), ("CpuShares",), "CPU shares or the cgroup is not mounted. Shares"),
    (("cpu.realtimePeriod", "cpu.realtimeRuntime"), ("CpuRealtimePeriod", "CpuRealtimeRuntime"),
     "CPU real-time scheduler. Real-time settings"),
    (("cpu.cpus", "cpu.mems"), ("CpusetCpus", "CpusetMems"),
     "cpuset or the cgroup is not mounted. Cpuset"),
    (("blockIO.weight",), ("BlkioWeight",),
     "Block I/O weight or the cgroup is not mounted. Weight"),
    (("blockIO.weightDevice",), ("BlkioWeightDevice",),
     "Block I/O weight_device or the cgroup is not mounted. Weight-device"),
)  # fmt: skip


def discard(
    host: dict[str, Any], limits: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return HostConfig without what this kernel cannot do, and what to warn of, in Docker's words.

    `limits` is what it becomes in linux.resources.
    """
    kept, warnings = dict(host), []
    missing = lacking(hierarchies(), limits) if limits else set()
    for keys, asked, words in OF_THE_KERNEL:
        if missing.intersection(keys):
            warnings.append(f"Your kernel does not support {words} discarded.")
            kept |= {key: None for key in asked if key in host}
    if host.get("KernelMemory"):
        warnings.append(
            "Specifying a kernel memory limit is deprecated and will be removed in a future release."
        )
        kept["KernelMemory"] = 0
    if host.get("CpuPercent"):
        warnings.append("linux does not support CPU percent. Percent discarded.")
        kept["CpuPercent"] = 0
    if kept.get("OomKillDisable") and not host.get("Memory"):
        warnings.append(NO_MEMORY_LIMIT)
    if host.get("NetworkMode") == "host" and host.get("PortBindings"):
        warnings.append("Published ports are discarded when using host network mode")
    return kept, warnings


def lacking(trees: Hierarchies, limits: dict[str, Any]) -> set[str]:
    """Return the keys of linux.resources that this machine has no word for, no controller or no file."""
    found = [file.key for file in files_for(trees, limits) if not _offers(trees, file)]
    return {key.partition("[")[0] for key in (*unheard(trees, limits), *found)}


def _offers(trees: Hierarchies, file: File) -> bool:
    """Say whether a file is there, as far as its controller does not tell; some are in no root."""
    controller = controller_of(file.name)
    if file.optional:
        return True
    if trees.tree_of(controller) is None:
        return False
    if file.other is None and (trees.speaks_v2(controller) or controller == "pids"):
        return True
    names = (file.name, file.other[0]) if file.other else (file.name,)
    return has_file(trees, names)


def has_file(trees: Hierarchies, names: tuple[str, ...]) -> bool:
    """Say whether a control group of ours has one of these files; the root's own has fewer in v2."""
    for tree in set(trees.mounts.values()):
        for place in (tree, f"{tree}/mini_docker", *_first_groups(tree)):
            if any(os.path.exists(f"{place}/{name}") for name in names):
                return True
    return False


def _first_groups(tree: str) -> list[str]:
    """Return a group of a tree, if it has one."""
    try:
        with os.scandir(tree) as entries:
            return [next(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))]
    except (OSError, StopIteration):
        return []
