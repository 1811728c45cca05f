# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#priority-module
"""How soon a process gets its turn: scheduling policy, priority of its disk access, its processors."""

from __future__ import annotations

import ctypes
import os

from mini_docker.linux.step import Step
from mini_docker.linux.syscall import system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# linux/sched.h, linux/ioprio.h
SCHEDULING_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13

_sched_setattr = system_call("sched_setattr", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_ioprio_set = system_call("ioprio_set", ctypes.c_int, ctypes.c_int, ctypes.c_int)


class sched_attr(ctypes.Structure):  # noqa: N801 (the kernel's name)
    """struct sched_attr of sched_setattr(2)."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


# %% notebooks/11e_mini_runc.ipynb#plan-priority
def set_scheduler(
    policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    """Set the calling thread's policy and its numbers (nanoseconds), sched_setattr(2). Raises OSError."""
    size = ctypes.sizeof(sched_attr)
    attributes = sched_attr(size, policy, flags, nice, priority, runtime, deadline, period)
    _sched_setattr(0, ctypes.byref(attributes), 0)


def set_io_priority(io_class: int, level: int) -> None:
    """Set class and level (0 to 7, 0 first) of the caller's disk access, ioprio_set(2). Raises OSError."""
    _ioprio_set(IOPRIO_WHO_PROCESS, 0, io_class << IOPRIO_CLASS_SHIFT | level)


def plan_priority(spec: dict[str, Any]) -> list[Step]:
    """Plan process.scheduler and process.ioPriority, while it may still be raised.

    Raises ValueError with the JSON path. Source: OCI config.md, sched(7).
    """
    process, steps = spec["process"], []
    if scheduler := process.get("scheduler"):
        flags = 0
        for index, name in enumerate(scheduler.get("flags") or ()):
            if name not in SCHEDULER_FLAGS:
                raise ValueError(f"process.scheduler.flags[{index}]: unknown flag {name!r}")
            flags |= SCHEDULER_FLAGS[name]
        keys = ("nice", "priority", "runtime", "deadline", "period")
        numbers = [scheduler.get(key) or 0 for key in keys]
        policy = scheduler["policy"]
        if policy not in SCHEDULING_POLICIES:
            raise ValueError(f"process.scheduler.policy: unknown policy {policy!r}")
        steps.append(
            Step(f"policy {policy}", set_scheduler, (SCHEDULING_POLICIES[policy], flags, *numbers))
        )
    if wanted := process.get("ioPriority"):
        level = wanted.get("priority") or 0
        if not 0 <= level <= 7:
            raise ValueError(f"process.ioPriority.priority: {level} is not between 0 and 7")
        arguments = (IO_CLASSES[wanted["class"]], level)
        steps.append(Step(f"disk access {wanted['class']}", set_io_priority, arguments))
    return steps


# %% notebooks/11e_mini_runc.ipynb#plan-affinity
def plan_affinity(spec: dict[str, Any], when: str) -> list[Step]:
    """Plan process.execCPUAffinity of a visitor: `when` is "initial" or "final", in the control group.

    Raises ValueError with the JSON path. Source: OCI config.md, sched_setaffinity(2).
    """
    text = (spec["process"].get("execCPUAffinity") or {}).get(when)
    if not text:
        return []
    processors = parse_list(text, f"process.execCPUAffinity.{when}")
    return [Step(f"run on processors {text}", os.sched_setaffinity, (0, processors))]


def parse_list(text: str, where: str) -> frozenset[int]:
    """Return the numbers of "0-3,7". Raises ValueError, naming `where`. Source: cpuset(7), list format."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() if dash else True)):
            raise ValueError(f"{where}: {text!r} is no list of processors")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(numbers)
