# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#preflight-head
"""Judge the facts: which checks pass, which chapters can run here, and what to do where they cannot."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from mini_docker.lab.facts import CONTROLLERS, PROGRAMS, Facts, gather_facts
from mini_docker.lab.verdict import CannotRun

OLDEST_KERNEL = (5, 10)
NEEDED_BYTES = 1 << 30
NEEDED_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21}
AS_ROOT = "start the notebooks as root: sudo make lab"
USE_VM = "use the virtual machine of the book (vagrant up), or a machine of your own with systemd"


class Check(NamedTuple):
    """One line of the doctor: `ok` is None where it does not decide, or could not be tried."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


class Chapter(NamedTuple):
    """A chapter and the names of the checks that it needs."""

    number: str
    title: str
    needs: tuple[str, ...]


class Readiness(NamedTuple):
    """Whether a chapter can run here; if not, why (after "because") and what to do."""

    chapter: Chapter
    ok: bool
    reason: str = ""
    remedy: str = ""


# %% notebooks/A_lab_kit.ipynb#chapters
BASE = ("root", "kernel", "architecture", "pid namespace", "mnt namespace")
RUNTIME = (
    *BASE,
    *(f"{kind} namespace" for kind in ("net", "ipc", "uts")),
    "control groups",
    "mqueue",
    "seccomp",
)
ENGINE = (*RUNTIME, "overlay", "veth and bridge", "nftables", "disk")
CHAPTERS = (
    Chapter("0", "Start here", ()),
    Chapter("1", "System calls", BASE),
    Chapter("2", "PID namespaces", BASE),
    Chapter("3", "Network namespaces", (*BASE, "net namespace", "veth and bridge")),
    Chapter("3b", "NAT", (*BASE, "net namespace", "veth and bridge", "nftables")),
    Chapter("4", "Mount namespaces", BASE),
    Chapter("5", "IPC namespaces", (*BASE, "ipc namespace", "mqueue")),
    Chapter("6", "UTS namespaces", (*BASE, "uts namespace")),
    Chapter(
        "7",
        "User, cgroup and time namespaces",
        (*BASE, *(f"{kind} namespace" for kind in ("user", "cgroup", "time"))),
    ),
    Chapter("8", "Control groups", (*BASE, "control groups")),
    Chapter("9", "Privileges", (*BASE, "seccomp")),
    Chapter("9d", "Remapping", (*BASE, "user namespace", "overlay")),
    Chapter("10", "Layers", (*BASE, "overlay")),
    Chapter("10b", "Drivers", (*BASE, "overlay", "btrfs")),
    Chapter("11", "The runtime", RUNTIME),
    Chapter("11b", "Create and start", RUNTIME),
    Chapter("11c", "Exec", RUNTIME),
    Chapter("11d", "State", RUNTIME),
    Chapter("11e", "mini_runc", RUNTIME),
    Chapter("11f", "Owners translated", RUNTIME),
    Chapter("11g", "Somebody to ask", RUNTIME),
    Chapter("12", "Images", (*BASE, "disk")),
    Chapter("13", "Registries", ("root", "disk")),
    Chapter("13b", "Push", ("root", "disk")),
    Chapter("13c", "Trust", ("root", "disk")),
    Chapter("14", "Containers", ENGINE),
    Chapter("14d", "Shims", ENGINE),
    Chapter("14e", "Logs", BASE),
    Chapter("14f", "States", ENGINE),
    Chapter("14g", "Files and numbers", ENGINE),
    Chapter("14h", "Asking", ENGINE),
    Chapter("15", "Networks", (*BASE, "net namespace", "veth and bridge", "nftables")),
    Chapter("15b", "Ports", (*BASE, "net namespace", "veth and bridge", "nftables")),
    Chapter("15c", "Names", (*BASE, "net namespace", "veth and bridge", "nftables")),
    Chapter("16", "Volumes", (*BASE, "overlay")),
    Chapter("18", "The HTTP API", ENGINE),
    Chapter("18b", "Streams over HTTP", ENGINE),
    Chapter("18c", "Objects over HTTP", ENGINE),
    Chapter("19", "The command line", ENGINE),
)


# %% notebooks/A_lab_kit.ipynb#preflight-api
def require(chapter: int | str) -> None:
    """Print whether a chapter can run on this machine; its predictions are filed under its number.

    Raises CannotRun, with the remedy, when it cannot, and ValueError for a chapter that is not there.
    """
    os.environ["MINI_DOCKER_CHAPTER"] = str(chapter)
    known = {ready.chapter.number: ready for ready in readiness(checks(gather_facts()))}
    if str(chapter) not in known:
        raise ValueError(f"no chapter {chapter}; there are {', '.join(known)}")
    ready = known[str(chapter)]
    if not ready.ok:
        error = CannotRun(ready.reason, ready.remedy)
        print(error)
        raise error
    print("This chapter can run here.")


def readiness(results: Sequence[Check]) -> list[Readiness]:
    """Return one Readiness a chapter: the first check that it needs and that failed is the reason."""
    by_name = {result.name: result for result in results}
    return [judge(chapter, [by_name[name] for name in chapter.needs]) for chapter in CHAPTERS]


def judge(chapter: Chapter, needed: Sequence[Check]) -> Readiness:
    """Return whether `chapter` can run, given the checks it needs."""
    for result in needed:
        if result.ok is False:
            named = result.name in ("root", "kernel", "architecture")
            reason = result.detail if named else f"{result.name}: {result.detail}"
            return Readiness(chapter, False, reason, result.remedy)
    return Readiness(chapter, True)


def checks(facts: Facts) -> list[Check]:
    """Return every check of `facts`; pure, so that any machine can be imagined in a test."""
    found = [check_root(facts), check_kernel(facts), check_architecture(facts)]
    found += [check_namespace(facts, kind) for kind in facts.namespaces]
    found += [check_cgroups(facts), check_overlay(facts), check_disk(facts)]
    found += [check_links(facts), check_nftables(facts), check_mqueue(facts)]
    found.append(check_btrfs(facts))
    found.append(tried("seccomp", facts.seccomp, "filters of system calls", "use a stock kernel"))
    found = [only_as_root(result, facts) for result in found]
    return [*found, check_ordinary_user(facts), check_container(facts), *check_programs(facts)]


def tried(name: str, error: str, detail: str, remedy: str) -> Check:
    """Return the check of something that was tried: `error` is "" where it worked."""
    return Check(name, False, error, remedy) if error else Check(name, True, detail)


def only_as_root(result: Check, facts: Facts) -> Check:
    """Return `result`, undecided where it failed only because we are not root."""
    static = ("root", "kernel", "architecture", "disk", "seccomp")
    if facts.uid == 0 or result.name in static or result.ok:
        return result
    return Check(result.name, None, "not tried: needs root", AS_ROOT)


# %% notebooks/A_lab_kit.ipynb#preflight-checks
def check_root(facts: Facts) -> Check:
    """Root is uid 0 with the capabilities that namespaces, networks and mounts need."""
    if facts.uid != 0:
        return Check("root", False, f"you are not root but user {facts.uid}", AS_ROOT)
    held = facts.capabilities
    missing = [name for name, bit in NEEDED_CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        return Check("root", False, f"you are root, but without {', '.join(missing)}", USE_VM)
    return Check("root", True, "uid 0, with its capabilities")


def check_kernel(facts: Facts) -> Check:
    """5.10 is the oldest kernel the book runs on (close_range, pidfd, time namespaces, mount API)."""
    numbers = re.match(r"(\d+)\.(\d+)", facts.kernel)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if version < OLDEST_KERNEL:
        return Check("kernel", False, f"Linux {facts.kernel} is older than 5.10", USE_VM)
    return Check("kernel", True, f"Linux {facts.kernel}")


def check_architecture(facts: Facts) -> Check:
    """The book knows the system call numbers of two architectures."""
    known = facts.machine in ("x86_64", "aarch64")
    detail = facts.machine if known else f"this is {facts.machine}, not x86_64 or aarch64"
    return Check("architecture", known, detail, "" if known else USE_VM)


def check_namespace(facts: Facts, kind: str) -> Check:
    """A namespace kind is there when unshare(2) makes one."""
    remedy = f"a kernel built with {kind} namespaces; {USE_VM}"
    return tried(f"{kind} namespace", facts.namespaces[kind], "can be made", remedy)


def check_cgroups(facts: Facts) -> Check:
    """Control groups need the three controllers and a hierarchy we may write to."""
    missing = [name for name in CONTROLLERS if name not in facts.controllers]
    if not facts.cgroup_version:
        return Check("control groups", False, "no cgroup file system is mounted", USE_VM)
    if missing:
        detail = f"no controller {', '.join(missing)} ({facts.cgroup_version})"
        remedy = "boot with cgroup_enable=memory, and look for cgroup_disable= in /proc/cmdline"
        return Check("control groups", False, detail, remedy)
    detail = f"{facts.cgroup_version}, with {', '.join(CONTROLLERS)}"
    return tried("control groups", facts.cgroups, detail, USE_VM)


def check_overlay(facts: Facts) -> Check:
    """Layers need an overlay mount on the file system of the data directory."""
    remedy = "set MINI_DOCKER_ROOT to a directory on ext4, xfs or btrfs, not on another overlay"
    return tried("overlay", facts.overlay, f"works on {facts.data_dir}", remedy)


def check_disk(facts: Facts) -> Check:
    """Images and containers want a gigabyte."""
    detail = f"{facts.free_bytes / (1 << 30):.1f} GiB free in {facts.data_dir}"
    enough = facts.free_bytes >= NEEDED_BYTES
    remedy = "free 1 GiB, or set MINI_DOCKER_ROOT to a larger disk"
    return Check("disk", enough, detail, "" if enough else remedy)


# %% notebooks/A_lab_kit.ipynb#preflight-more
def check_links(facts: Facts) -> Check:
    """Container networks are made of veth pairs and bridges."""
    errors = [f"{kind}: {error}" for kind, error in facts.links.items() if error]
    remedy = "sudo modprobe veth bridge (in Debian's cloud kernels: install the full kernel)"
    return tried("veth and bridge", "; ".join(errors), "can be made", remedy)


def check_nftables(facts: Facts) -> Check:
    """Addresses are translated by nftables, which we reach through libnftables."""
    remedy = (
        "install the library (Debian: libnftables1) and load the module: sudo modprobe nf_tables"
    )
    return tried("nftables", facts.nftables, "libnftables.so.1 makes tables", remedy)


def check_mqueue(facts: Facts) -> Check:
    """POSIX message queues are files of a file system of their own."""
    remedy = f"a kernel built with POSIX message queues; {USE_VM}"
    return tried("mqueue", facts.mqueue, "message queues can be mounted", remedy)


def check_btrfs(facts: Facts) -> Check:
    """One of the storage drivers makes snapshots; only its own chapter needs it."""
    remedy = (
        "sudo apt-get install btrfs-progs, and a kernel that has btrfs, as Debian's and Ubuntu's"
    )
    return tried("btrfs", facts.btrfs, "can be made and mounted", remedy)


def check_ordinary_user(facts: Facts) -> Check:
    """Whether a user who is not root may make namespaces; no chapter stops without."""
    if not facts.ordinary_user:
        return Check("ordinary users", True, "may make user namespaces")
    blocks = {
        "kernel/apparmor_restrict_unprivileged_userns": "1",
        "kernel/unprivileged_userns_clone": "0",
        "user/max_user_namespaces": "0",
    }
    found = [name for name, value in blocks.items() if facts.sysctls.get(name) == value]
    if not found:
        return Check("ordinary users", None, f"no user namespaces: {facts.ordinary_user}", AS_ROOT)
    name, value = found[0], facts.sysctls[found[0]]
    remedy = f"{AS_ROOT} (or sysctl {name.replace('/', '.')}, if you know why it is set)"
    detail = f"no user namespaces: {name.replace('/', '.')} is {value}"
    return Check("ordinary users", None, detail, remedy)


def check_container(facts: Facts) -> Check:
    """Inside a container the kernel is shared and half of it is closed: a warning, not a failure."""
    if not facts.container:
        return Check("own machine", True, "not inside a container")
    return Check("own machine", None, f"inside a container: {facts.container}", USE_VM)


def check_programs(facts: Facts) -> list[Check]:
    """Programs make experiments by hand and pictures; a chapter does without, less well."""
    packages = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}
    packages |= {"nft": "nftables", "dot": "graphviz", "busybox": "busybox-static"}
    missing = [name for name in PROGRAMS if name not in facts.programs]
    if not missing:
        return [Check("programs", True, ", ".join(PROGRAMS))]
    wanted = " ".join(sorted({packages.get(name, name) for name in missing}))
    return [Check("programs", None, f"no {', '.join(missing)}", f"sudo apt install {wanted}")]
