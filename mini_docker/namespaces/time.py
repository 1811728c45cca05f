# Exported from notebooks/07_user_cgroup_time.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/07_user_cgroup_time.ipynb#time-module
"""The time namespace: clocks that began at another moment, for what is started next."""

from __future__ import annotations

import os

from mini_docker.linux.process import CLONE_NEWTIME, setns, unshare
from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import new_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLOCKS = ("monotonic", "boottime")


def set_offsets(lines: str) -> None:
    """Write the offsets of the clocks of the namespace that children will be born in.

    Allowed only before the first process is in it. Source: time_namespaces(7). Raises OSError.
    """
    with open("/proc/self/timens_offsets", "w") as file:
        file.write(lines)


def enter() -> None:
    """Enter, with this very process, the time namespace that was made for children, setns(2)."""
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWTIME)
    finally:
        os.close(fd)


# %% notebooks/07_user_cgroup_time.ipynb#plan-time
def plan_time(spec: dict[str, Any]) -> list[Step]:
    """Plan a new time namespace with linux.timeOffsets. Raises ValueError for another clock.

    Source: OCI config-linux.md, time_namespaces(7).
    """
    offsets = spec.get("linux", {}).get("timeOffsets") or {}
    for clock, offset in offsets.items():
        if clock not in CLOCKS:
            raise ValueError(f"linux.timeOffsets.{clock}: only monotonic and boottime can be set")
        if not 0 <= offset.get("nanosecs", 0) < 10**9:
            raise ValueError(f"linux.timeOffsets.{clock}.nanosecs: not below one second")
    if not new_namespaces(spec) & CLONE_NEWTIME:
        if offsets:
            raise ValueError("linux.timeOffsets: needs a new time namespace in linux.namespaces")
        return []
    steps = [Step("new time namespace", unshare, (CLONE_NEWTIME,))]
    if offsets:
        lines = "".join(
            f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
            for clock, offset in offsets.items()
        )
        steps.append(Step("set the clocks' offsets", set_offsets, (lines,)))
    return [*steps, Step("enter the time namespace", enter, ())]
