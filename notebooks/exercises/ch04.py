"""Checks of chapter 4: mountinfo, writes that must fail and escapes that must not succeed decide."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount
from mini_docker.linux.process import CLONE_NEWNS, unshare

FLAGS = {"nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}


def mounts(pid: int | str = "self") -> dict[str, set[str]]:
    """Return {mount point: its options} of a process; of mounts on top of each other the last counts."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return {line.split(" ")[4]: set(line.split(" ")[5].split(",")) for line in lines}


def _can_write(path: str) -> bool:
    try:
        Path(path).write_text("new")
    except OSError:
        return False
    return True


def _bind(answer: Callable[[str, str], object], root: str, flags: list[str]) -> dict[str, Any]:
    """Let the answer bind a directory of a tmpfs with `flags`, and collect what is true afterwards."""
    source, target = f"{root}/base/source", f"{root}/target"
    os.mkdir(f"{root}/base")
    os.mkdir(target)
    mount("none", f"{root}/base", "tmpfs", sum(FLAGS[flag] for flag in flags))
    os.mkdir(source)
    Path(source, "file").write_text("old")
    answer(source, target)
    return {
        "options": mounts().get(target),
        "same": os.path.exists(f"{target}/file")
        and os.path.samefile(f"{target}/file", f"{source}/file"),
        "target written": _can_write(f"{target}/file"),
        "source written": _can_write(f"{source}/file"),
    }


@check
def check_readonly_bind(answer: Callable[[str, str], object]) -> Verdict:
    """Check that `answer(source, target)` makes a read-only bind mount, and nothing else read-only."""
    flags = sorted(random.sample(sorted(FLAGS), 2))
    with tempfile.TemporaryDirectory() as root:
        outcome = run_in_child(_bind, answer, root, flags)
    facts = outcome.value
    if facts is None:
        return failed(f"your function raised {outcome.error or outcome.output.strip()}")
    if facts["options"] is None:
        return failed("nothing is mounted on the target: mountinfo has no line for it")
    if not facts["same"]:
        return failed("something is mounted on the target, but it does not show the source's files")
    if facts["target written"]:
        shown = "rw" if "rw" in facts["options"] else "ro"
        return failed(
            f"a file was written through the target: the bind is there, mountinfo says {shown}"
        )
    if not facts["source written"]:
        return failed(
            "the source cannot be written any more: its whole file system became read-only"
        )
    if lost := sorted(set(flags) - facts["options"]):
        return failed(
            f"the source's mount is {','.join(flags)}, the target's has lost {','.join(lost)}"
        )
    return passed("read-only through the target, writable at the source, no other flag lost")


def _climbs_out(directory_fd: int, root: os.stat_result) -> bool:
    """Return whether going up from a directory ends anywhere else than at `root`."""
    for _ in range(64):
        directory_fd = os.open("..", os.O_PATH, dir_fd=directory_fd)
    return not os.path.samestat(os.stat(directory_fd), root)


def _open_directories() -> list[int]:
    """Return the descriptors of this process that are directories, without looking into /proc."""
    found = []
    for fd in range(256):
        with contextlib.suppress(OSError):
            os.close(os.open(".", os.O_PATH, dir_fd=fd))
            found.append(fd)
    return found


def _attack() -> dict[str, bool]:
    """Try to get out of the root, in three ways."""
    root = os.stat("/")
    facts = {"descriptor": any(_climbs_out(fd, root) for fd in _open_directories())}
    facts["working directory"] = _climbs_out(os.open(".", os.O_PATH), root)
    os.chdir("/")
    os.mkdir("x")
    os.chroot("x")
    facts["chroot"] = _climbs_out(os.open(".", os.O_PATH), root)
    return facts


def _inside(answer: Callable[[str], object], root: str, report_fd: int, go_fd: int) -> None:
    """Be the process that enters: answer, let the other one look, attack; report all in lines of JSON."""
    report: dict[str, Any] = {}
    try:
        unshare(CLONE_NEWNS)
        answer(root)
        report = {"entered": os.path.exists("/inside")}
    except OSError as error:
        report = {"errno": error.errno, "error": str(error)}
    except BaseException as error:
        report = {"error": f"{type(error).__name__}: {error}"}
    os.write(report_fd, json.dumps(report).encode())
    os.read(go_fd, 1)
    if report.get("entered"):
        os.write(report_fd, json.dumps(_attack()).encode())


def _enter(answer: Callable[[str], object], root: str) -> dict[str, Any]:
    """Let a child enter `root` and attack; add what its mountinfo shows, seen from outside."""
    (report_fd, child_report_fd), (child_go_fd, go_fd) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for fd in (report_fd, go_fd):
                os.close(fd)
            _inside(answer, root, child_report_fd, child_go_fd)
        finally:
            os._exit(0)
    os.close(child_report_fd)
    facts: dict[str, Any] = json.loads(os.read(report_fd, 65536) or b"{}")
    lines = Path(f"/proc/{child}/mountinfo").read_text().splitlines()
    facts["mounts"] = [line.split(" ")[4] for line in lines]
    os.write(go_fd, b"!")
    if attacked := os.read(report_fd, 65536):
        facts |= json.loads(attacked)
    os.waitpid(child, 0)
    return facts


@check
def check_enter_root(answer: Callable[[str], object]) -> Verdict:
    """Check that after `answer(path)` the directory is the root, and that nothing leads out of it."""
    with tempfile.TemporaryDirectory() as host:
        root = f"{host}/root"
        os.mkdir(root)
        Path(root, "inside").touch()
        outcome = run_in_child(_enter, answer, root)
    facts = outcome.value
    if facts is None:
        return failed(f"your function ended its process: {outcome.output.strip() or outcome.error}")
    if facts.get("errno") in (errno.EINVAL, errno.EBUSY):
        return failed(f"{facts['error']}: to the kernel the directory is not a mount of its own")
    if "error" in facts:
        return failed(f"your function raised {facts['error']}")
    if not facts.get("entered"):
        return failed("the process's root is not the directory: / does not hold its file 'inside'")
    if others := sorted(facts["mounts"], key=len)[1:]:  # the shortest is /
        where = others[0]
        return failed(
            f"the host's tree is still mounted inside: besides the root mountinfo lists {where}"
        )
    if facts.get("working directory"):
        return failed(
            "the working directory stayed outside: going up from it reaches the host's files"
        )
    if facts.get("descriptor"):
        return failed(
            "an open descriptor is a directory of the host: going up from it reaches its files"
        )
    if facts.get("chroot", True):
        return failed(
            "the classic escape works: mkdir, chroot, and up; a file of the host was found"
        )
    return passed("one mount, no way up: the escapes end at the root of the directory")
