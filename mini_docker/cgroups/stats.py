# Exported from notebooks/08c_measure.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08c_measure.ipynb#stats-module
"""What a group uses: processor time, memory, processes, disks, pressure; and word of an OOM kill."""

from __future__ import annotations

import ctypes
import os
from collections import namedtuple

from mini_docker.cgroups.files import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple, Protocol

    class Group(Protocol):
        """What is read of a Cgroup here."""

        def read(self, name: str) -> str:
            """Return the text of a control file, or ""."""

        def read_unified(self, name: str) -> str:
            """Return that of one in the v2 tree, or ""."""

        def has(self, name: str) -> bool:
            """Say whether there is one of that name."""

        def file(self, name: str) -> str:
            """Return its path."""

        def oom_kills(self) -> int:
            """Return how often the kernel killed a member."""

    class Cpu(NamedTuple):
        """Nanoseconds of processor time; periods of a quota, and those in which it ran out, and for how long.

        `per_cpu` are nanoseconds of each processor, where v1 counts them.
        """

        usage: int
        user: int
        system: int
        periods: int
        throttled_periods: int
        throttled: int
        per_cpu: Sequence[int]

    class Memory(NamedTuple):
        """Bytes in use, at most so far, allowed (0: no limit), swapped; times the limit was met.

        `stat` is the kernel's own memory.stat.
        """

        usage: int
        max_usage: int
        limit: int
        swap: int
        limit_met: int
        stat: dict[str, int]

    class Pids(NamedTuple):
        """Processes and threads now, and allowed (0: no limit)."""

        current: int
        limit: int

    class Io(NamedTuple):
        """What one disk did for the group: `op` is read, write, sync, async, discard or total."""

        major: int
        minor: int
        op: str
        bytes: int
        operations: int

    class Pressure(NamedTuple):
        """Time lost by waiting: percent of the last 10, 60, 300 seconds, and microseconds in all.

        `some`: at least one member waited; `full`: all of them did.
        """

        some: tuple[float, float, float, int]
        full: tuple[float, float, float, int]

    class Stats(NamedTuple):
        """All of it; `pressure` is by "cpu", "memory", "io", and empty where nobody measures it."""

        cpu: Cpu
        memory: Memory
        pids: Pids
        io: Sequence[Io]
        oom_kills: int
        pressure: dict[str, Pressure]

else:
    Cpu = namedtuple(
        "Cpu",
        ("usage", "user", "system", "periods", "throttled_periods", "throttled", "per_cpu"),
    )
    Memory = namedtuple("Memory", ("usage", "max_usage", "limit", "swap", "limit_met", "stat"))
    Pids = namedtuple("Pids", ("current", "limit"))
    Io = namedtuple("Io", ("major", "minor", "op", "bytes", "operations"))
    Pressure = namedtuple("Pressure", ("some", "full"))
    Stats = namedtuple("Stats", ("cpu", "memory", "pids", "io", "oom_kills", "pressure"))


# %% notebooks/08c_measure.ipynb#read-words
# v1 says "no limit" with a number near 2**63, rounded to pages
UNLIMITED = 1 << 62


def table(text: str) -> dict[str, int]:
    """Return the lines `name number` of a control file; others are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def number_after(name: str, text: str) -> int:
    """Return the number of the line that begins with `name`, 0 if there is none."""
    return table(text).get(name, 0)


def whole(text: str) -> int:
    """Return the number that a control file holds; "max", nothing, and v1's "no limit" are 0."""
    number = int(text) if text.isdigit() else 0
    return number if number < UNLIMITED else 0


# %% notebooks/08c_measure.ipynb#read-stats
def read_stats(group: Group) -> Stats:
    """Return what `group` uses, the same for v1 and v2. What its trees do not count is 0 or empty.

    Source: cgroup-v1/*.rst and cgroup-v2.rst of the kernel; Docker's GET /containers/ID/stats.
    """
    return Stats(
        read_cpu(group),
        read_memory(group),
        Pids(whole(group.read("pids.current")), whole(group.read("pids.max"))),
        read_io(group),
        group.oom_kills(),
        read_pressure(group),
    )


def read_cpu(group: Group) -> Cpu:
    """Return processor times: v2's cpu.stat is in every group, controller or not; v1 has two trees."""
    quota = table(group.read("cpu.stat"))
    basic = table(group.read_unified("cpu.stat"))
    per_cpu: Sequence[int] = ()
    if group.has("cpuacct.usage"):
        usage = whole(group.read("cpuacct.usage"))
        user, system = (whole(group.read(f"cpuacct.usage_{who}")) for who in ("user", "sys"))
        per_cpu = tuple(map(int, group.read("cpuacct.usage_percpu").split()))
    else:
        names = ("usage_usec", "user_usec", "system_usec")
        usage, user, system = (basic.get(name, 0) * 1000 for name in names)
    throttled = quota.get("throttled_time", 0) or quota.get("throttled_usec", 0) * 1000
    counts = (quota.get("nr_periods", 0), quota.get("nr_throttled", 0))
    return Cpu(usage, user, system, *counts, throttled, per_cpu)


def read_memory(group: Group) -> Memory:
    """Return bytes of memory."""
    met = number_after("max", group.read("memory.events")) or whole(group.read("memory.failcnt"))
    if group.has("memory.current"):
        names = ["memory.current", "memory.peak", "memory.max", "memory.swap.current"]
    else:
        short = ("usage", "max_usage", "limit", "memsw.usage")
        names = [f"memory.{name}_in_bytes" for name in short]
    usage, peak, limit, swap = (whole(group.read(name)) for name in names)
    if not group.has("memory.current"):
        swap = max(0, swap - usage)  # v1's includes the memory
    return Memory(usage, peak, limit, swap, met, table(group.read("memory.stat")))


def read_io(group: Group) -> list[Io]:
    """Return what each disk did: lines `8:0 rbytes=1 ...` of io.stat, or `8:0 Read 1` of two v1 files."""
    found = []
    for line in group.read("io.stat").splitlines():
        device, *words = line.split()
        numbers = {name: int(value) for name, _, value in (word.partition("=") for word in words)}
        for op in ("read", "write", "discard"):
            counts = (numbers.get(f"{op[0]}bytes", 0), numbers.get(f"{op[0]}ios", 0))
            found.append(Io(*_device(device), op, *counts))
    operations = dict(_v1_io(group.read("blkio.throttle.io_serviced_recursive")))
    for (device, op), count in _v1_io(group.read("blkio.throttle.io_service_bytes_recursive")):
        found.append(Io(*_device(device), op, count, operations.get((device, op), 0)))
    return found


def _v1_io(text: str) -> list[tuple[tuple[str, str], int]]:
    lines = (line.split() for line in text.splitlines())
    return [((w[0], w[1].lower()), int(w[2])) for w in lines if len(w) == 3]


def _device(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


# %% notebooks/08c_measure.ipynb#pressure
def parse_pressure(text: str) -> Pressure:
    """Return a pressure file: `some avg10=0.12 avg60=... avg300=... total=123` and `full ...`, PSI."""
    found = {"some": (0.0, 0.0, 0.0, 0), "full": (0.0, 0.0, 0.0, 0)}
    for line in text.splitlines():
        kind, ten, sixty, three_hundred, total = (word.rpartition("=")[2] for word in line.split())
        found[kind] = (float(ten), float(sixty), float(three_hundred), int(total))
    return Pressure(found["some"], found["full"])


def read_pressure(group: Group) -> dict[str, Pressure]:
    """Return the group's pressure by resource. The v2 tree measures it, also for v1's controllers.

    Empty without such a tree, and on a kernel that was told not to measure (psi=0). Source: psi.rst.
    """
    texts = {name: group.read_unified(f"{name}.pressure") for name in ("cpu", "memory", "io")}
    return {name: parse_pressure(text) for name, text in texts.items() if text}


# %% notebooks/08c_measure.ipynb#watch-oom
IN_MODIFY = 2  # sys/inotify.h
IN_CLOEXEC = os.O_CLOEXEC


def watch_oom(group: Group) -> int:
    """Return a descriptor that poll(2) finds readable when `oom_kills` may have changed.

    v2: inotify(7) on memory.events. v1: an eventfd(2) that cgroup.event_control ties to
    memory.oom_control. Read it (8 bytes or more), then ask `oom_kills`. Raises OSError.
    """
    if group.has("memory.events"):
        return _watch_file(group.file("memory.events"))
    event_fd = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        control_fd = os.open(group.file("memory.oom_control"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            directory = os.path.dirname(group.file("memory.oom_control"))
            write_file(f"{directory}/cgroup.event_control", f"{event_fd} {control_fd}")
        finally:
            os.close(control_fd)
    except OSError:
        os.close(event_fd)
        raise
    return event_fd


def _watch_file(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(IN_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), IN_MODIFY) < 0:
        error = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise OSError(error, f"inotify: {os.strerror(error)}")
    return fd
