# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#measure-module
"""What a container uses, in the shape of Docker's stats; and its processes, as ps shows them."""

from __future__ import annotations

import os
import time

from mini_docker.engine.launch import cgroup_of
from mini_docker.engine.moments import moment
from mini_docker.engine.store import NoSuchContainer
from mini_docker.engine.views import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cgroups.stats import Stats
    from mini_docker.engine.container import Container


# %% notebooks/14g_files.ipynb#stats
IO_KINDS = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive",
    "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive",
    "sectors_recursive",
)  # fmt: skip
NO_THROTTLING = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
NO_CPU = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}


def stats(container: Container, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return one sample of Docker's stats; `before` is the one before it, if there was one."""
    about = {"name": f"/{container.name}", "id": container.id}
    old = before or {
        "read": NEVER,
        "cpu_stats": {"cpu_usage": NO_CPU, "throttling_data": NO_THROTTLING},
    }
    past = {"preread": old["read"], "precpu_stats": old["cpu_stats"]}
    if not container.alive:
        return {"read": NEVER, **past, **_nothing(), **about}
    try:
        found = cgroup_of(container.id, container.host).stats()
    except OSError:
        return {"read": NEVER, **past, **_nothing(), **about}
    return {
        "read": moment(time.time_ns()),
        **past,
        "pids_stats": _without_zeros({"current": found.pids.current, "limit": found.pids.limit}),
        "blkio_stats": {**{name: [] for name in IO_KINDS}, **_disks(found)},
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(found),
        "memory_stats": {
            "usage": found.memory.usage,
            "max_usage": found.memory.max_usage,
            "stats": found.memory.stat,
            "limit": found.memory.limit or _machine_memory(),
        },
        **about,
        **({"networks": links} if (links := _network(container)) else {}),
    }


def _nothing() -> dict[str, Any]:
    empty = {"cpu_usage": NO_CPU, "throttling_data": NO_THROTTLING}
    blank = {"pids_stats": {}, "blkio_stats": dict.fromkeys(IO_KINDS), "num_procs": 0}
    return {**blank, "storage_stats": {}, "cpu_stats": empty, "memory_stats": {}}


def _without_zeros(numbers: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number}


def _cpu(found: Stats) -> dict[str, Any]:
    usage = {
        "total_usage": found.cpu.usage,
        "usage_in_kernelmode": found.cpu.system,
        "usage_in_usermode": found.cpu.user,
        **({"percpu_usage": list(found.cpu.per_cpu)} if found.cpu.per_cpu else {}),
    }
    throttled = {
        "periods": found.cpu.periods,
        "throttled_periods": found.cpu.throttled_periods,
        "throttled_time": found.cpu.throttled,
    }
    whole = {"system_cpu_usage": _machine_time(), "online_cpus": os.cpu_count() or 1}
    return {"cpu_usage": usage, **whole, "throttling_data": throttled}


def _disks(found: Stats) -> dict[str, list[dict[str, Any]]]:
    named = [(one, {"major": one.major, "minor": one.minor, "op": one.op}) for one in found.io]
    return {
        "io_service_bytes_recursive": [{**about, "value": one.bytes} for one, about in named],
        "io_serviced_recursive": [{**about, "value": one.operations} for one, about in named],
    }


def _machine_time() -> int:
    """Return the nanoseconds that all processors together have spent, proc_stat(5)."""
    with open("/proc/stat") as file:
        ticks = sum(int(word) for word in file.readline().split()[1:9])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


NET_FIELDS = (
    "rx_bytes rx_packets rx_errors rx_dropped _ _ _ _ tx_bytes tx_packets tx_errors tx_dropped"
).split()


def _network(container: Container) -> dict[str, dict[str, int]]:
    """Return the counters of a container's own links, proc_net_dev(5)."""
    try:
        with open(f"/proc/{container.state['Pid']}/net/dev") as file:
            lines = file.readlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            pairs = zip(NET_FIELDS, map(int, numbers.split()), strict=False)
            found[name.strip()] = {field: number for field, number in pairs if field != "_"}
    return found


# %% notebooks/14g_files.ipynb#top
class PsFailed(Exception):
    """What ps said about its arguments."""


def top(container: Container, arguments: str) -> dict[str, Any]:
    """Return a container's processes as `ps ARGUMENTS` of the host shows them. Raises PsFailed.

    The table must have a column PID, by which the container's own lines are known.
    """
    import subprocess

    members = set(cgroup_of(container.id, container.host).members())
    words = arguments.split() or ["-ef"]
    try:
        done = subprocess.run(["ps", *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoSuchContainer(f"ps: {error}; remedy: apt-get install procps") from None
    if done.returncode:
        raise PsFailed(f"ps: {done.stderr.partition(chr(10))[0]}")
    head, *lines = done.stdout.splitlines()
    titles = head.split()
    if "PID" not in titles:
        raise PsFailed("Couldn't find PID field in ps output")
    at = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines]
    shown = [row for row in rows if len(row) > at and row[at].isdigit() and int(row[at]) in members]
    return {"Titles": titles, "Processes": shown}
