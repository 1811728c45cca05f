# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#explain-module
"""`--explain`: the plan of a container as a table, each step with its chapter, man page and time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


# %% notebooks/19_command_line.ipynb#explain
# the chapter of a module is that of the longest name here that it starts with
CHAPTERS = {
    "mini_docker.linux": "1 system calls",
    "mini_docker.namespaces.pid": "2 pid",
    "mini_docker.namespaces.kinds": "2 pid",
    "mini_docker.namespaces.net": "3 net",
    "mini_docker.engine.bridge": "3b nat",
    "mini_docker.namespaces.mnt": "4 mnt",
    "mini_docker.namespaces.devices": "4 mnt",
    "mini_docker.namespaces.ipc": "5 ipc",
    "mini_docker.namespaces.uts": "6 uts",
    "mini_docker.namespaces.user": "7 user",
    "mini_docker.namespaces.cgroup": "7 cgroup",
    "mini_docker.namespaces.time": "7 time",
    "mini_docker.cgroups": "8 cgroups",
    "mini_docker.cgroups.devices": "8b devices",
    "mini_docker.security": "9 privileges",
    "mini_docker.security.seccomp": "9b seccomp",
    "mini_docker.storage": "10 layers",
    "mini_docker.runtime": "11 runtime",
    "mini_docker.runtime.listener": "11g listener",
    "mini_docker.images": "12 images",
    "mini_docker.engine": "14 containers",
    "mini_docker.engine.networks": "15 networks",
    "mini_docker.engine.connect": "15 networks",
    "mini_docker.engine.volumes": "16 volumes",
}


def chapter(module: str) -> str:
    """Return the chapter that a module belongs to, as "4 mnt"; "" for a module of none."""
    names = [name for name in CHAPTERS if module == name or module.startswith(name + ".")]
    return CHAPTERS[max(names, key=len)] if names else ""


def table(steps: Iterable[dict[str, Any]]) -> str:
    """Return the table of what was done to start a container, as the daemon tells it, and its sum."""
    lines = [f"{'WHERE':8} {'CHAPTER':14} {'STEP':44} {'CALL':22} {'TIME':>9}"]
    total = 0
    for step in steps:
        total += step["Nanoseconds"]
        time = f"{step['Nanoseconds'] / 1e6:.3f} ms"
        name = step["Step"] if len(step["Step"]) <= 44 else step["Step"][:43] + "…"
        where, call = step["Where"], step["Call"]
        lines.append(f"{where:8} {chapter(step['Module']):14} {name:44} {call:22} {time:>9}")
    lines.append(f"{'':8} {'':14} {'all steps':44} {'':22} {total / 1e6:6.3f} ms")
    return "\n".join(lines) + "\n"
