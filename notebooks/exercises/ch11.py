"""Checks of chapters 11 to 11g: they look at the state of a process, and say what is wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.process import (
    CLONE_NEWIPC,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    clone3,
    set_process_name,
    unshare,
)
from mini_docker.linux.step import Step
from mini_docker.runtime.init import start
from mini_docker.runtime.plan import Resources, plan

Planner = Callable[[dict[str, Any]], list[Step]]


def _umask() -> int:
    current = os.umask(0o22)
    os.umask(current)
    return current


@check
def check_plan_umask(answer: Planner) -> Verdict:
    """Check a planner of process.user.umask: pure, silent without the key, right when applied."""
    original = _umask()
    document = {"process": {"user": {"uid": 0, "gid": 0, "umask": 0o27}}}
    try:
        steps = answer(document)
        if _umask() != original:
            return failed(
                "the umask changed while planning: a planner returns steps, it does not take them"
            )
        if not steps:
            return failed("the document asks for umask 0027 and the plan is empty")
        if not all(isinstance(step, Step) for step in steps):
            return failed("the plan holds something that is not a Step")
        for step in steps:
            step.call(*step.arguments)
        reached = _umask()
    finally:
        os.umask(original)
    if reached != 0o27:
        return failed(f"after the steps the umask is {reached:04o}, the document says 0027")
    if answer({"process": {"user": {"uid": 0, "gid": 0}}}):
        return failed(
            "without the key there is still a step: the container would lose its inherited umask"
        )
    return passed("pure, silent without the key, and the kernel agrees")


def _failure(step: str) -> bytes:
    return b"E" + json.dumps({"step": step, "errno": 2, "text": "gone"}).encode()


@check
def check_verdict_of(answer: Callable[[bytes], str]) -> Verdict:
    """Check a reader of init's report against all the ends that a report can have."""
    ready = b"!" + struct.pack("=I2Q", 2, 1000, 0x45)
    if answer(b"") != "killed":
        return failed("an empty report means that init was killed before it could say anything")
    if answer(ready) != "started":
        return failed(
            "READY and then the end of the pipe means that execve closed it: the command runs"
        )
    if answer(_failure("mount proc on /proc")) != "mount proc on /proc":
        return failed("a FAILED record names its step in the JSON after the first byte")
    if answer(ready + _failure("exec")) != "exec":
        return failed("READY was followed by FAILED: the steps were done, but execve was refused")
    return passed("three ends, told apart; and the fourth, a refused execve after READY")


# ---- 11b and 11c: containers for experiments --------------------------------------------------------


def make_root() -> str:
    """Return a directory with a busybox in it, enough to run a shell."""
    root = tempfile.mkdtemp(prefix="mini_docker_11_")
    os.chmod(root, 0o755)
    install = f"mkdir -p {root}/bin && cp $(command -v busybox) {root}/bin/"
    os.system(f"{install} && chroot {root} /bin/busybox --install -s /bin")
    return root


def small_document(root: str, *command: str) -> dict[str, Any]:
    """Return the smallest OCI document that makes a container: that of chapter 11."""
    kinds = ("pid", "mount", "uts", "ipc", "network")
    return {
        "ociVersion": "1.2.0",
        "hostname": "web",
        "root": {"path": root},
        "process": {"args": list(command), "env": ["PATH=/bin"], "cwd": "/", "user": {}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }


@contextmanager
def running(spec: dict[str, Any]) -> Iterator[int]:
    """Run a container for a while; yield its init's pid."""
    steps = [step for _, step in plan(spec, Resources((), None, None, None))]
    process = start(spec, steps)
    try:
        yield process.pid
    finally:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        os.close(process.pidfd)


# ---- 11b --------------------------------------------------------------------------------------------


@contextmanager
def _child(action: Callable[[], object]) -> Iterator[int]:
    """Fork a child that does `action`, says so, and then sleeps; yield its pid."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        kept = action()  # a descriptor, perhaps, that has to stay open
        os.write(write_fd, b"!")
        time.sleep(60 if kept is not None else 0)
        os._exit(0)
    os.close(write_fd)
    os.read(read_fd, 1)
    os.close(read_fd)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _become_zombie() -> None:
    os._exit(0)


@check
def check_status_of(answer: Callable[[int, str], str]) -> Verdict:
    """Check a reader of a container's state against processes that wait, run, and have ended."""
    with tempfile.TemporaryDirectory() as directory:
        fifo = f"{directory}/word"
        os.mkfifo(fifo)
        with _child(lambda: os.open(fifo, os.O_RDWR)) as pid:
            if answer(pid, fifo) != "created":
                return failed("a process has the gate open and waits: that container is created")
        with _child(lambda: "runs") as pid:
            if answer(pid, fifo) == "created":
                return failed(
                    "the FIFO is still there, but nobody has it open: execve closed it, it is running"
                )
            if answer(pid, fifo) != "running":
                return failed("a live process that does not wait at the gate is running")
        with _child(_become_zombie) as pid:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            if answer(pid, fifo) != "stopped":
                return failed("a zombie still has a pid, and runs nothing: that is stopped")
        if answer(pid, fifo) != "stopped":
            return failed("there is no process of that pid any more: that is stopped")
    return passed("created, running, stopped: all asked of the kernel, none remembered")


POINTS = {
    "prestart": ("create", "runtime"),
    "createRuntime": ("create", "runtime"),
    "createContainer": ("create", "container"),
    "startContainer": ("start", "container"),
    "poststart": ("start", "runtime"),
    "poststop": ("delete", "runtime"),
}


@check
def check_where(answer: Callable[[str], tuple[str, str]]) -> Verdict:
    """Check a table of the six hook points."""
    for point, (operation, namespaces) in POINTS.items():
        given = tuple(answer(point))
        if len(given) != 2 or given[0] != operation:
            return failed(f"{point}: which of create, start and delete calls it? Not {given[0]!r}")
        if given[1] != namespaces:
            return failed(f"{point}: whose namespaces does it see? Not the {given[1]}'s")
    return passed("six points, three operations, two places")


# ---- 11c --------------------------------------------------------------------------------------------


def _differing(answer: Callable[[int], set[str]]) -> set[str] | str:
    unshare(CLONE_NEWUTS)
    with _child(lambda: unshare(CLONE_NEWUTS | CLONE_NEWIPC) or "there") as pid:
        return set(answer(pid))


@check
def check_kinds_to_join(answer: Callable[[int], set[str]]) -> Verdict:
    """Check a comparison of namespaces, against a child that has its own uts and ipc."""
    found = run_in_child(_differing, answer).value
    if found is None:
        return failed("your function raised an error")
    if "user" in found:
        return failed(
            "user is not among them: to join the user namespace in which one is, is EINVAL"
        )
    if missing := {"uts", "ipc"} - found:
        return failed(f"{' and '.join(sorted(missing))} differ, and are not in your answer")
    if extra := found - {"uts", "ipc"}:
        return failed(f"{' and '.join(sorted(extra))}: the child shares that with you")
    return passed("exactly those that differ")


def _inside(answer: Callable[[int], int]) -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    pid, pidfd = clone3(CLONE_NEWPID)
    if pid == 0:
        os.write(write_fd, b"!")
        time.sleep(60)
    os.read(read_fd, 1)
    given = answer(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pidfd)
    return given, pid


@check
def check_pid_inside(answer: Callable[[int], int]) -> Verdict:
    """Check a translation of pids, against the first process of a pid namespace."""
    result = run_in_child(_inside, answer).value
    if result is None:
        return failed("your function raised an error")
    given, outside = result
    if given == outside:
        return failed("that is its pid as we count; the process itself calls itself 1")
    if given != 1:
        return failed(f"the first process of a pid namespace is 1 in there, not {given}")
    return passed("NSpid lists its pids from the outermost namespace to its own")


# ---- 11d --------------------------------------------------------------------------------------------


def _half_way(answer: Callable[[str, str], None], path: str) -> None:
    """Let a write fail after 10 bytes, as a full disk would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    try:
        answer(path, "new " * 100)
    except OSError:
        pass


@check
def check_write_whole(answer: Callable[[str, str], None]) -> Verdict:
    """Check a writer: the new text arrives, and a write that fails half way leaves the old one."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/state.json"
        with open(path, "w") as file:
            file.write("old")
        answer(path, "new")
        with open(path) as file:
            if (text := file.read()) != "new":
                return failed(f"after writing 'new' the file holds {text!r}")
        if len(os.listdir(directory)) > 1:
            return failed("another file stays beside it after a write that went well")
        run_in_child(_half_way, answer, path)
        with open(path) as file:
            if (text := file.read()) != "new":
                return failed(
                    f"the disk was full half way, and the file now begins {text[:10]!r}: the old text is lost"
                )
    return passed("old or new, never half: write beside it, then rename")


@check
def check_same_process(answer: Callable[[int, int], bool]) -> Verdict:
    """Check a comparison of processes: one that runs, one of another time, a zombie, an odd name."""
    with _child(lambda: set_process_name(b"a) Z 1 (b") or "runs") as pid:
        with open(f"/proc/{pid}/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19])
        if not answer(pid, started):
            return failed("the process runs, and was started then; its name has brackets in it")
        if answer(pid, started - 5):
            return failed("a process started at another time has the same pid: it is another one")
    if answer(pid, started):
        return failed("the process is gone")
    with _child(_become_zombie) as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with open(f"/proc/{pid}/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19])
        if answer(pid, started):
            return failed("a zombie has ended; it only waits to be asked for its status")
    return passed("pid and start time together name a process for ever")


# ---- 11e --------------------------------------------------------------------------------------------

SENTENCES = {
    'exec: "nosuch": executable file not found in $PATH': 127,
    'exec: "./x": stat ./x: no such file or directory': 127,
    'exec: "./data": permission denied': 126,
    'exec: "/etc": is a directory': 126,
    "root.path: no directory /bundle/rootfs": 125,
    "write '5' to pids.max: Invalid argument": 125,
}


@check
def check_status_for(answer: Callable[[str], int]) -> Verdict:
    """Check a reader of error texts."""
    for text, status in SENTENCES.items():
        if (given := answer(text)) != status:
            why = {
                127: "was not found",
                126: "is there but cannot be executed",
                125: "is not at fault",
            }
            return failed(f"{text!r}: the command {why[status]}, so {status}, not {given}")
    return passed("docker would agree")


@check
def check_form(form: dict[str, Any], holds: Callable[[Any, Any, str], None]) -> Verdict:
    """Check a form by good and bad values."""
    good: list[Any] = [
        {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        {"mode": "MPOL_DEFAULT"},
    ]
    bad: list[tuple[Any, str]] = [
        ({"nodes": "0"}, "without a mode"),
        ({"mode": "MPOL_MOON"}, "with a mode that does not exist"),
        ({"mode": "MPOL_BIND", "nodes": 0}, "with a number as nodes"),
        ({"mode": "MPOL_BIND", "flags": "x"}, "with a string as flags"),
        ({"mode": "MPOL_BIND", "flags": [1]}, "with a number among the flags"),
    ]
    for value in good:
        try:
            holds(value, form, "process.memoryPolicy")
        except ValueError as error:
            return failed(f"a good value is refused: {error}")
    for value, words in bad:
        try:
            holds(value, form, "process.memoryPolicy")
        except ValueError:
            continue
        return failed(f"a value {words} is let through")
    return passed("good values pass, bad ones have a path")


# ---- 11f --------------------------------------------------------------------------------------------


@check
def check_translate(answer: Callable[[int, list[dict[str, int]]], int | None]) -> Verdict:
    """Check a translation of ids: several ranges, their ends, and numbers outside."""
    mappings = [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100_000, "size": 10},
    ]
    for number, expected in ((0, 1000), (1, 100_000), (5, 100_004), (10, 100_009)):
        if (given := answer(number, mappings)) != expected:
            return failed(
                f"{number} is {expected} on the host, not {given}: "
                "the first range has one id, 0 alone, and the second begins at 1"
            )
    for number in (11, 100_000):
        if (given := answer(number, mappings)) is not None:
            return failed(f"{number} is in no range and has no number out there; you say {given}")
    return passed("each id by its own range, and none where there is none")


# ---- 11g --------------------------------------------------------------------------------------------

CONTINUE = 1


@check
def check_reply(answer: Callable[[int, int | str], bytes]) -> Verdict:
    """Check the packing of struct seccomp_notif_resp: a value, an error, or neither and a flag."""
    for number, decision, wanted in (
        (7, 0, (7, 0, 0, 0)),
        (8, 42, (8, 42, 0, 0)),
        (9, "EPERM", (9, 0, -1, 0)),
        (10, "ENOSYS", (10, 0, -38, 0)),
        (11, "continue", (11, 0, 0, CONTINUE)),
    ):
        packed = answer(number, decision)
        if len(packed) != 24:
            return failed(
                f"{len(packed)} bytes: u64, s64, s32 and u32 are 24, which struct packs as =QqiI"
            )
        found = struct.unpack("=QqiI", packed)
        if found[0] != number:
            return failed("the answer names another question: the number is the first field")
        if found[2] == -wanted[2] != 0:
            return failed(f"{decision}: the error is positive; the kernel wants -errno here")
        if found != wanted:
            return failed(f"{decision!r} was packed as (id, val, error, flags) = {found}")
    return passed("value, error and flag: never two of them together")
