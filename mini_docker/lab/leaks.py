# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#leaks-head
"""The leak detector: what of mounts, links, network namespaces, cgroups, nft tables, processes is new.

`before = snapshot()`, experiments, `report_leaks(before)`. What is compared belongs to the whole machine,
so things that its other programs make all the time (systemd's units, sessions) are left out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from mini_docker.lab.experiment import stretched

CLEAN = (
    "Nothing left behind: mounts, links, network namespaces, control groups, "
    "nft tables, loop devices, descriptors, processes; the host's names and queues are as they were."
)
MARKER = "MINI_DOCKER_LAB"
PF_KTHREAD = 0x00200000  # linux/sched.h
OURS = re.compile(rb"mini_docker|mini_runc")

# What other programs of the machine mount at any time: a login, an automounter, iproute2's own directory.
NOT_OURS = re.compile(
    r"/run/user/\d+(/.*)?|/run/netns|/proc/sys/fs/binfmt_misc|/run/credentials/.*"
)
SYSTEMD_UNIT = re.compile(r".*\.(service|scope|slice|socket|mount|swap|target)")


class Process(NamedTuple):
    """A process: pid and start time (clock ticks since boot) identify it for ever."""

    pid: int
    start: int
    parent: int
    session: int
    state: str
    command: str


@dataclass(frozen=True)
class Snapshot:
    """What exists at one moment, as seen from the calling process' namespaces."""

    mounts: frozenset[tuple[str, str]]  # (mount point, file system type)
    links: frozenset[str]  # network interfaces of this network namespace
    named_netns: frozenset[str]  # /run/netns, ip netns list
    cgroups: frozenset[str]  # directories of every hierarchy
    nft_tables: frozenset[str]  # "inet filter"
    loops: frozenset[str]  # "loop0: backing file"
    descriptors: frozenset[str]  # namespaces this process keeps open
    processes: frozenset[Process]
    globals: frozenset[str] = frozenset()  # "host name web", "System V msg 0x1538": the host's own


# %% notebooks/A_lab_kit.ipynb#leaks-api
def snapshot() -> Snapshot:
    """Return what exists now. What this process starts from now on carries a mark in its environment."""
    os.environ.setdefault(MARKER, secrets.token_hex(8))
    return take()


def report_leaks(before: Snapshot, patience: float = 2.0) -> None:
    """Print that nothing is left behind since `before`, or name each thing that is.

    The kernel destroys namespaces and cgroups a little after their last process: a leak is one that is
    still there after `patience` seconds (`stretched`).
    """
    leaked = find_leaks(before, stretched(patience))
    print(CLEAN if not leaked else "\n".join(["Left behind:", *(f"  {leak}" for leak in leaked)]))


def find_leaks(before: Snapshot, patience: float = 2.0) -> list[str]:
    """Return the names of what is new since `before` and stays for `patience` seconds."""
    end = time.monotonic() + patience
    leaked = compare(before, take())
    while leaked and time.monotonic() < end:
        time.sleep(0.05)
        leaked = compare(before, take())
    return leaked


def compare(before: Snapshot, after: Snapshot) -> list[str]:
    """Return one line for each thing in `after` that was not in `before` and is not another program's."""
    new = {f.name: getattr(after, f.name) - getattr(before, f.name) for f in fields(Snapshot)}
    lines = [f"mount {point} ({kind})" for point, kind in sorted(new["mounts"]) if kind != "nsfs"]
    held = [point for point, kind in new["mounts"] if kind == "nsfs"]
    spaces = {f"/run/netns/{name}" for name in new["named_netns"]} | set(held)
    lines += [f"network link {name}" for name in sorted(new["links"])]
    lines += [f"namespace kept by a file {path}" for path in sorted(spaces)]
    lines += [f"control group {path}" for path in topmost(new["cgroups"])]
    lines += [f"nft table {name}" for name in sorted(new["nft_tables"])]
    lines += [f"loop device {name}" for name in sorted(new["loops"])]
    lines += [f"open descriptor of a namespace {name}" for name in sorted(new["descriptors"])]
    lines += [f"changed: {text}" for text in sorted(new["globals"])]
    return lines + leaked_processes(before.processes, after.processes)


def topmost(paths: Iterable[str]) -> list[str]:
    """Return the paths that have no parent among `paths`, sorted."""
    known = set(paths)
    return sorted(path for path in known if os.path.dirname(path) not in known)


# %% notebooks/A_lab_kit.ipynb#leaks-processes
def leaked_processes(before: frozenset[Process], after: frozenset[Process]) -> list[str]:
    """Return the processes that appeared since `before` and are ours, children after parents."""
    known = {(process.pid, process.start) for process in before}
    fresh = [process for process in after if (process.pid, process.start) not in known]
    parents = {os.getpid()} | {process.pid for process in fresh if is_ours(process)}
    family = parents.union(*(descendants(pid, after) for pid in parents))
    return [
        f"process {process.pid} ({process.command}{', a zombie' if process.state == 'Z' else ''})"
        for process in sorted(fresh)
        if process.pid in family
    ]


def descendants(pid: int, processes: Iterable[Process]) -> set[int]:
    """Return the pids of all children, grandchildren, ... of `pid`."""
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    found, queue = set[int](), [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found.update(below)
        queue += below
    return found


def is_ours(process: Process) -> bool:
    """Say whether an orphan came from this process: it has our mark, our session or our command line.

    A mark that is not ours is another learner's on the same machine.
    """
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return False  # gone, or another user's
    marks = [entry for entry in environment if entry.startswith(MARKER.encode() + b"=")]
    if marks:
        return marks[0] == f"{MARKER}={os.environ.get(MARKER)}".encode()
    forked = bool(command) and command == Path("/proc/self/cmdline").read_bytes()
    return forked or process.session == os.getsid(0)


# %% notebooks/A_lab_kit.ipynb#leaks-take
def take() -> Snapshot:
    """Read everything once."""
    mounts = frozenset(read_mounts())
    return Snapshot(
        mounts=frozenset(pair for pair in mounts if not NOT_OURS.fullmatch(pair[0])),
        links=frozenset(name for _, name in socket.if_nameindex()),
        named_netns=frozenset(names("/run/netns")),
        cgroups=frozenset(read_cgroups(mounts)),
        nft_tables=frozenset(read_nft_tables()),
        loops=frozenset(read_loops()),
        descriptors=frozenset(read_descriptors()),
        processes=frozenset(read_processes()),
        globals=frozenset(read_globals()),
    )


def read_globals() -> Iterator[str]:
    """Yield what an experiment without a UTS or IPC namespace of its own would change for everybody."""
    yield f"host name {os.uname().nodename}"
    yield f"domain name {Path('/proc/sys/kernel/domainname').read_text().strip()}"
    for kind in names("/proc/sysvipc"):
        for line in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]:
            key, number = line.split()[:2]
            yield f"System V {kind} {number}, key {int(key):#x}"


def names(directory: str) -> list[str]:
    """Return the names in a directory; one that is not there has none."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def read_mounts() -> Iterator[tuple[str, str]]:
    """Yield (mount point, file system type) of this mount namespace, proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), left.split(" ")[4])
        yield point, right.split(" ")[0]


def read_cgroups(mounts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the directories of every mounted cgroup hierarchy, without systemd's units."""
    for root in (point for point, kind in mounts if kind in ("cgroup", "cgroup2")):
        for directory, below, _ in os.walk(root):
            below[:] = [
                name for name in below if not SYSTEMD_UNIT.fullmatch(name) or is_named_ours(name)
            ]
            yield from (os.path.join(directory, name) for name in below)


def is_named_ours(name: str) -> bool:
    """Say whether a name is one that this project gives."""
    return bool(OURS.search(os.fsencode(name)))


# %% notebooks/A_lab_kit.ipynb#leaks-read
def read_nft_tables() -> Iterator[str]:
    """Yield the nftables tables of this network namespace as "family name"; none for an ordinary user."""
    nft = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if nft is None or os.geteuid() != 0:
        return
    listing = subprocess.run([nft, "-j", "list", "tables"], capture_output=True)
    for entry in json.loads(listing.stdout or b"{}").get("nftables", []):
        if "table" in entry:
            yield f"{entry['table']['family']} {entry['table']['name']}"


def read_loops() -> Iterator[str]:
    """Yield the loop devices in use, loop(4), without those of snap packages."""
    for device in names("/sys/block"):
        try:
            backing = Path(f"/sys/block/{device}/loop/backing_file").read_text().strip()
        except OSError:
            continue
        if not backing.startswith("/var/lib/snapd/"):
            yield f"{device}: {backing}"


def read_descriptors() -> Iterator[str]:
    """Yield the namespaces that this process keeps alive by an open descriptor: "3 net"."""
    for fd in names("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the listing's own descriptor
        kind, colon, _ = target.partition(":[")
        if colon and kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"):
            yield f"{fd} ({kind})"


def read_processes() -> Iterator[Process]:
    """Yield all processes but the kernel's own threads, proc_pid_stat(5)."""
    for pid in filter(str.isdigit, names("/proc")):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            continue  # ended meanwhile
        command = stat[stat.index("(") + 1 : stat.rindex(")")]
        state, *numbers = stat[stat.rindex(")") + 2 :].split()
        parent, _, session, _, _, flags = map(int, numbers[:6])
        if not flags & PF_KTHREAD:
            yield Process(int(pid), int(numbers[18]), parent, session, state, command)
