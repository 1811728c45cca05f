# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#facts-head
"""Facts about this machine, each found by trying it in a throw-away child; no judgement yet."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mini_docker.lab.experiment import fork, new_namespaces, write_maps
from mini_docker.lab.verdict import describe
from mini_docker.linux.mount import MS_PRIVATE, MS_REC, fsopen, mount
from mini_docker.linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    prctl,
    unshare,
)

NAMESPACES = {
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "mnt": CLONE_NEWNS,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
PROGRAMS = ("unshare", "nsenter", "mount", "ip", "nft", "dot", "busybox")
SYSCTLS = (
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/unprivileged_userns_clone",
    "user/max_user_namespaces",
)
CONTROLLERS = ("cpu", "memory", "pids")
NOBODY = 65534


@dataclass(frozen=True)
class Facts:
    """What was found. Where something was tried, the text is the error, and "" means that it worked."""

    machine: str  # uname -m
    kernel: str  # uname -r
    uid: int
    capabilities: int  # effective, a bit mask
    container: str  # how it shows that this is a container, or ""
    namespaces: Mapping[str, str]  # kind: error
    ordinary_user: str  # a user namespace made by nobody: error
    sysctls: Mapping[str, str]  # name: value, only those that exist
    data_dir: str  # the existing directory that will hold images and containers
    overlay: str  # an overlay mount on that directory: error
    free_bytes: int  # of that directory's file system
    cgroup_version: str  # "v2", "v1", "hybrid" or ""
    controllers: frozenset[str]
    cgroups: str  # making a control group: error
    nftables: str  # a table, through libnftables, in a fresh network namespace: error
    links: Mapping[str, str]  # "veth", "bridge": error, in a fresh network namespace
    mqueue: str  # mounting mqueue in a fresh IPC namespace: error
    btrfs: str  # the file system and its mkfs: error
    seccomp: str
    programs: frozenset[str]  # those of PROGRAMS that are installed


# %% notebooks/A_lab_kit.ipynb#attempt
def attempt(function: Callable[[], object], seconds: int = 5) -> str:
    """Call `function` in a child that is thrown away; return "" or the error as one line."""
    read_fd, write_fd = os.pipe()
    child = fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            function()
            status = 0
        except BaseException as error:
            os.write(write_fd, describe(error).encode())
        finally:
            os._exit(status)
    os.close(write_fd)
    with open(read_fd, errors="replace") as file:
        words = file.read()
    _, ended = os.waitpid(child, 0)
    return "" if ended == 0 else words or "the attempt did not end in time"


# %% notebooks/A_lab_kit.ipynb#facts-tries
def make_user_namespace_as_nobody() -> None:
    """Make a user namespace as an ordinary user would, and use the powers it should give."""
    uid = os.geteuid()
    if uid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(PR_SET_DUMPABLE, 1)  # or /proc/self would belong to root
        uid = NOBODY
    gid = os.getegid()
    unshare(CLONE_NEWUSER)
    write_maps(uid, gid)
    unshare(CLONE_NEWUTS)  # AppArmor lets the namespace come to be, and takes its powers


def mount_mqueue() -> None:
    """Mount a fresh IPC namespace's message queues, mq_overview(7)."""
    unshare(CLONE_NEWIPC)
    new_namespaces()
    mount("mqueue", "/tmp", "mqueue")


def try_btrfs() -> str:
    """Return "" where btrfs file systems can be made and mounted, or what is missing."""
    if shutil.which("mkfs.btrfs", path=search_path()) is None:
        return "there is no mkfs.btrfs"
    return attempt(lambda: os.close(fsopen("btrfs")))


def try_overlay(data_dir: str) -> str:
    """Mount an overlay whose layers lie in `data_dir`; return "" or the error."""
    if os.geteuid() != 0:
        return "not tried: needs root"
    try:
        scratch = tempfile.mkdtemp(prefix=".mini_docker_doctor_", dir=data_dir)
    except OSError as error:
        return describe(error)
    try:
        return attempt(lambda: mount_overlay(scratch))
    finally:
        shutil.rmtree(scratch)


def mount_overlay(scratch: str) -> None:
    """Mount an overlay of four new directories of `scratch`, in a private mount namespace."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    lower, upper, work, merged = (f"{scratch}/{name}" for name in "luwm")
    for directory in (lower, upper, work, merged):
        os.mkdir(directory)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount("overlay", merged, "overlay", 0, options)
    with open(f"{merged}/written", "w"):
        pass


def try_cgroups(hierarchies: Mapping[str, str]) -> str:
    """Make and remove a control group in the hierarchy of each controller we use; return "" or the error."""
    for root in {hierarchies[name] for name in CONTROLLERS if name in hierarchies}:
        directory = f"{root}/mini_docker_doctor_{os.getpid()}"
        try:
            os.mkdir(directory)
            os.rmdir(directory)
        except OSError as error:
            return describe(error)
    return ""


def make_nft_table() -> None:
    """Make an nftables table in a fresh network namespace, by libnftables(3)."""
    unshare(CLONE_NEWNET)
    nft = ctypes.CDLL("libnftables.so.1")
    nft.nft_ctx_new.restype = ctypes.c_void_p
    nft.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    nft.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    nft.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    nft.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    context = nft.nft_ctx_new(0)
    nft.nft_ctx_buffer_error(context)
    if nft.nft_run_cmd_from_buffer(context, b"add table ip mini_docker_doctor"):
        raise OSError(nft.nft_ctx_get_error_buffer(context).decode())


def make_link(kind: str) -> None:
    """Make a network link of `kind` in a fresh network namespace, RTM_NEWLINK of rtnetlink(7)."""
    unshare(CLONE_NEWNET)

    def attribute(number: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)

    newlink, request_create_excl_ack = 16, 0x1 | 0x400 | 0x200 | 0x4
    ifname, linkinfo, info_kind = 3, 18, 1
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    body += attribute(ifname, b"probe0\0")
    body += attribute(linkinfo, attribute(info_kind, kind.encode()))
    header = struct.pack("=IHHII", 16 + len(body), newlink, request_create_excl_ack, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(header + body)
        (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error))


# %% notebooks/A_lab_kit.ipynb#facts-read
def read(path: str) -> str:
    """Return a small file's text without the last newline, or "" when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def effective_capabilities() -> int:
    """Return the effective capabilities of this process, a bit mask, capabilities(7)."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", read("/proc/self/status"), re.MULTILINE)
    return int(found[1], 16) if found else 0


def container_sign() -> str:
    """Return the sign by which this looks like the inside of a container, or ""."""
    for path in ("/.dockerenv", "/run/.containerenv"):
        if os.path.exists(path):
            return f"{path} exists"
    for path in ("/run/systemd/container", "/proc/1/environ"):
        if found := re.search(
            r"(?:^|\0)(?:container=)?(docker|podman|lxc|systemd-nspawn|oci)\b", read(path)
        ):
            return f"{path} says {found[1]}"
    groups = re.search(r"docker|kubepods|libpod|lxc", read("/proc/1/cgroup"))
    return f"pid 1 is in a control group of {groups[0]}" if groups else ""


def existing_parent(path: str) -> str:
    """Return `path` or the nearest directory above it that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def cgroup_hierarchies() -> tuple[str, dict[str, str]]:
    """Return ("v2" | "v1" | "hybrid" | "", {controller: mount point}), cgroups(7)."""
    v1: dict[str, str] = {}
    v2: dict[str, str] = {}
    versions = set()
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        point, (kind, _, options) = left.split(" ")[4], right.split(" ")[:3]
        if kind == "cgroup2":
            versions.add("v2")
            v2.update(dict.fromkeys(read(f"{point}/cgroup.controllers").split(), point))
        elif kind == "cgroup":
            versions.add("v1")
            v1.update(dict.fromkeys(options.split(","), point))
    version = "hybrid" if len(versions) == 2 else "".join(versions)
    return version, {name: (v1 | v2)[name] for name in (v1 | v2) if name.isalpha() and name != "rw"}


def search_path() -> str:
    """Return PATH with the sbin directories that an ordinary user's lacks."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


# %% notebooks/A_lab_kit.ipynb#gather-facts
def gather_facts() -> Facts:
    """Try everything once. Never raises; what the kernel refuses becomes a text."""
    data_dir = existing_parent(os.environ.get("MINI_DOCKER_ROOT", "/var/lib/mini_docker"))
    version, hierarchies = cgroup_hierarchies()
    return Facts(
        machine=os.uname().machine,
        kernel=os.uname().release,
        uid=os.geteuid(),
        capabilities=effective_capabilities(),
        container=container_sign(),
        namespaces={kind: attempt(partial(unshare, flag)) for kind, flag in NAMESPACES.items()},
        ordinary_user=attempt(make_user_namespace_as_nobody),
        sysctls={name: value for name in SYSCTLS if (value := read(f"/proc/sys/{name}"))},
        data_dir=data_dir,
        overlay=try_overlay(data_dir),
        free_bytes=shutil.disk_usage(data_dir).free,
        cgroup_version=version,
        controllers=frozenset(hierarchies),
        cgroups=try_cgroups(hierarchies),
        nftables=attempt(make_nft_table),
        links={kind: attempt(partial(make_link, kind)) for kind in ("veth", "bridge")},
        mqueue=attempt(mount_mqueue),
        btrfs=try_btrfs(),
        seccomp="" if read("/proc/sys/kernel/seccomp/actions_avail") else "not in this kernel",
        programs=frozenset(name for name in PROGRAMS if shutil.which(name, path=search_path())),
    )
