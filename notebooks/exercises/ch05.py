"""Checks of chapter 5: real queues, segments and mounts, in namespaces that are thrown away."""

from __future__ import annotations

import copy
import ctypes
import os
import pickle
import random
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.mount import mount
from mini_docker.linux.process import CLONE_NEWIPC, clone3, unshare
from mini_docker.linux.step import apply
from mini_docker.namespaces.kinds import new_namespaces, plan_joins
from mini_docker.namespaces.mnt import plan_mounts

Spec = dict[str, Any]
IPC_CREAT, IPC_NOWAIT = 0o1000, 0o4000
LONG = ctypes.sizeof(ctypes.c_long)
MEGABYTE = 1 << 20
ROOT, SHARED = "/mnt/root", "/mnt/shm-of-the-first"

libc = ctypes.CDLL(None, use_errno=True)
libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmat.restype = ctypes.c_void_p
libc.msgsnd.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
libc.msgrcv.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int]


def born(flags: int, work: Callable[[], Any], stays: bool = True) -> tuple[int, Any]:
    """Start a process in new namespaces; return its pid and what `work` returned or, as text, raised."""
    read_fd, write_fd = os.pipe()
    pid, _ = clone3(flags)
    if pid == 0:
        try:
            value = work()
        except Exception as error:
            value = f"{type(error).__name__}: {error}"
        os.write(write_fd, pickle.dumps(value))
        os.close(write_fd)
        while stays:
            signal.pause()
        os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        value = pickle.loads(file.read())
    if not stays:
        os.waitpid(pid, 0)
    return pid, value


def document() -> Spec:
    """Return the document of the first container."""
    shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=1048576"]
    kinds = ("ipc", "mount", "uts")
    return {
        "hostname": "first",
        "root": {"path": ROOT},
        "mounts": [
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": shm},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }


def first_container(key: int, words: str) -> None:
    """Send a message, and leave a file in the directory that is this container's shared memory."""
    queue = libc.msgget(key, IPC_CREAT | 0o600)
    libc.msgsnd(queue, bytes(ctypes.c_long(1)) + words.encode(), len(words), IPC_NOWAIT)
    with open(f"{SHARED}/cache", "w") as file:
        file.write(words)


def second_container(spec: Spec, key: int) -> dict[str, Any]:
    """Be the sidecar: obey its document, then look for the message and the file."""
    apply(plan_joins(spec) + plan_mounts(spec))
    buffer = ctypes.create_string_buffer(LONG + 100)
    queue = libc.msgget(key, IPC_CREAT | 0o600)
    size = libc.msgrcv(queue, buffer, 100, 0, IPC_NOWAIT)
    cache = f"{ROOT}/dev/shm/cache"
    return {
        "message": buffer.raw[LONG : LONG + size].decode() if size >= 0 else "",
        "cache": os.path.exists(cache) and open(cache).read(),
        "run": os.path.ismount(f"{ROOT}/run"),
        "uts": os.readlink("/proc/self/ns/uts"),
        "ipc": os.readlink("/proc/self/ns/ipc"),
    }


def talk(answer: Callable[[Spec, int, str], Spec], key: int, words: str) -> dict[str, Any]:
    """Start both containers; return what the sidecar saw, and what became of the first's document."""
    unshare(CLONE_NEWIPC)  # the machine's own table is not touched, whatever the answer says
    mount("none", "/mnt", "tmpfs")
    for directory in (ROOT, SHARED):
        os.mkdir(directory)
    pid, _ = born(CLONE_NEWIPC, lambda: first_container(key, words))
    given = document()
    original = copy.deepcopy(given)
    spec = answer(given, pid, SHARED)
    if given != original:
        return {"changed": True}
    here = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("ipc", "uts")}
    _, seen = born(new_namespaces(spec), lambda: second_container(spec, key))
    return {"seen": seen, "here": here, "hostname": spec.get("hostname")}


@check
def check_sidecar(answer: Callable[[Spec, int, str], Spec]) -> Verdict:
    """Check a sidecar's document by starting it beside a container."""
    words = random.choice(("one coffee", "two teas", "no sugar"))
    outcome = run_in_child(talk, answer, random.randrange(1, 1 << 20), words)
    if outcome.value is None:
        return failed(f"your document cannot be started: {outcome.error or outcome.output.strip()}")
    if outcome.value.get("changed"):
        return failed(
            "the document you were given has changed: the container would lose what was its own"
        )
    seen, here = outcome.value["seen"], outcome.value["here"]
    if isinstance(seen, str):
        return failed(f"your document is refused by the planners: {seen}")
    if seen["ipc"] == here["ipc"]:
        return failed("the sidecar is in the IPC namespace of the host")
    if seen["message"] != words:
        return failed(
            "the first container's message did not arrive: the sidecar has an IPC namespace of its own"
        )
    if seen["cache"] != words:
        return failed(
            "the message arrived, but the first container's file is not in the sidecar's /dev/shm"
        )
    if seen["uts"] == here["uts"] or not seen["run"] or outcome.value["hostname"] != "first":
        return failed(
            "more has changed than was asked for: another namespace, another mount or the host name"
        )
    return passed("the message and the memory arrive, and nothing else is shared")


@check
def check_shm_options(answer: Callable[[str], list[str]]) -> Verdict:
    """Check the options of /dev/shm."""
    fixed = {"nosuid", "noexec", "nodev", "mode=1777"}
    for text, size in (("64m", 64 << 20), ("1g", 1 << 30), ("2048", 2048), ("512K", 512 << 10)):
        options = answer(text)
        if f"size={size}" not in options:
            return failed(f"'{text}' is {size} bytes; your options are {options}")
        if set(options) - {f"size={size}"} != fixed:
            return failed("nosuid, noexec, nodev and mode=1777 belong to every /dev/shm")
    if any(option.startswith("size") for option in answer("0")):
        return failed(
            "'0' means no limit of ours, and size=0 or a size of 0 bytes says something else"
        )
    for text in ("", "m", "-1m", "64q", "64 m x"):
        try:
            answer(text)
        except ValueError:
            continue
        return failed(f"'{text}' is no size, and no ValueError was raised")
    return passed("four sizes, none, and five refusals")


def segment(size: int) -> int:
    """Make a System V shared memory segment; return its id."""
    made: int = libc.shmget(0, size, IPC_CREAT | 0o600)
    return made


def attach(shmid: int) -> None:
    """Attach a segment; it stays attached as long as the process lives."""
    if libc.shmat(shmid, None, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "shmat")


def lost_property(
    answer: Callable[[str], list[int]],
) -> tuple[list[list[int]], list[int], list[int]]:
    """Return the answers to the kernel's table and to an empty one, the ids that nobody has attached,
    and those whose makers have ended."""
    unshare(CLONE_NEWIPC)
    lost, dead = [], []
    for _ in range(random.randint(2, 4)):
        _, lonely = born(
            0, partial(segment, 4096), stays=False
        )  # never attached, its maker has ended
        _, kept = born(0, partial(segment, 4096))  # its maker lives, and has never attached it
        _, used = born(
            0, partial(segment, 8192), stays=False
        )  # its maker has ended, and another uses it
        born(0, partial(attach, used))
        lost += [lonely, kept]
        dead += [lonely, used]
    with open("/proc/sysvipc/shm") as file:
        table = file.read()
    titles = table.splitlines(keepends=True)[0]
    return [answer(table), answer(titles)], sorted(lost), sorted(dead)


@check
def check_orphans(answer: Callable[[str], list[int]]) -> Verdict:
    """Check the reading of /proc/sysvipc/shm against segments whose story is known."""
    outcome = run_in_child(lost_property, answer)
    if outcome.value is None:
        return failed(f"your function raised {outcome.error or outcome.output.strip()}")
    (said, of_nothing), lost, dead = outcome.value
    if said == []:
        return failed("there are segments that nobody has attached, and you find none")
    if said == dead:
        return failed("you return the segments whose makers have ended; some of them are in use")
    if set(said) - set(lost):
        return failed(
            "you return segments that a process has attached: removing them would hurt it"
        )
    if set(lost) - set(said):
        return failed("a segment that nobody has attached is missing from your list")
    if said != lost:
        return failed("the ids are not in ascending order")
    if of_nothing != []:
        return failed("a table of titles alone has no segments")
    return passed("what nobody uses, and nothing else")
