"""Checks of chapter 2: the kernel's own tables decide."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.mount import mount
from mini_docker.linux.process import CLONE_NEWNS, CLONE_NEWPID, clone3


def _first(answer: Callable[[], tuple[int, int]]) -> tuple[tuple[int, int], int, bool, int]:
    """Return the answer, our pid, whether our children would be born elsewhere now, and who is left."""
    result = answer()
    try:
        moved = os.readlink("/proc/self/ns/pid") != os.readlink("/proc/self/ns/pid_for_children")
    except FileNotFoundError:  # a namespace that has had no first process yet
        moved = True
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return result, os.getpid(), moved, len(children)


@check
def check_first_process(answer: Callable[[], tuple[int, int]]) -> Verdict:
    """Check that a child was PID 1 of a namespace of its own."""
    outcome = run_in_child(_first, answer)
    if outcome.value is None:
        return failed(f"your function did not come back: {outcome.error or outcome.output.strip()}")
    (pid, parent), own, changed, left = outcome.value
    if pid == own:
        what = "you unshared but did not fork" if changed else "no child was asked"
        return failed(f"the pid you return is your own: {what}")
    if pid != 1:
        return failed(f"the child was number {pid}: it was born in its parent's namespace")
    if parent != 0:
        return failed(
            f"the child saw its parent as {parent}; from inside, a parent outside has no number but 0"
        )
    if changed:
        return failed(
            "right, but all your later children would be born in that namespace: the caller was changed"
        )
    if left:
        return failed("right, but the child is still there: nobody waited for it")
    return passed("number 1, with a parent that has no number")


def _family(code: int, by_signal: bool) -> int:
    """Start the main child and, by way of a parent that dies, three orphans; return main's pid."""
    go_fd, parent_go_fd = os.pipe()
    main = os.fork()
    if main == 0:
        os.read(go_fd, 1)  # all are born
        time.sleep(0.6)
        while _others_live():
            time.sleep(0.05)
        if by_signal:
            os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(code)
    for _ in range(3):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.1)
                os._exit(9)
            os._exit(8)
    os.write(parent_go_fd, b"!")
    return main


def _others_live() -> bool:
    """Return whether somebody in this pid namespace but PID 1 and the caller has not ended yet."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if stat.parent.name not in ("1", str(os.getpid())):
            with contextlib.suppress(OSError):
                if stat.read_text().rpartition(") ")[2][0] != "Z":
                    return True
    return False


def _zombies() -> int:
    stats = (Path(f"/proc/{pid}/stat") for pid in os.listdir("/proc") if pid.isdigit())
    return sum(stat.read_text().rpartition(")")[2].split()[0] == "Z" for stat in stats)


def _as_init(answer: Callable[[int], int], code: int, by_signal: bool) -> str:
    """Run the answer as PID 1; return "result zombies" as it saw them at its end."""
    read_fd, write_fd = os.pipe()
    pid, _ = clone3(CLONE_NEWPID | CLONE_NEWNS)
    if pid == 0:
        try:
            mount("proc", "/proc", "proc")
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            result = answer(_family(code, by_signal))
            time.sleep(0.2)  # whoever was about to end has ended, and waits to be reaped
            os.write(write_fd, f"{result} {_zombies()}".encode())
        except BaseException as error:
            os.write(write_fd, f"raised {type(error).__name__}".encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    return os.read(read_fd, 100).decode()


@check
def check_reaper(answer: Callable[[int], int]) -> Verdict:
    """Check an init's loop in a family with orphans."""
    for code, by_signal, wanted in ((7, False, 7), (0, True, 128 + signal.SIGUSR1)):
        outcome = run_in_child(_as_init, answer, code, by_signal, timeout=20)
        words = str(outcome.value or "").split()
        if outcome.timed_out or not words:
            return failed("your function did not come back within 20 seconds")
        if words[0] == "raised":
            return failed(f"your function raised {words[1]}")
        result, zombies = map(int, words)
        if zombies:
            return failed("zombies are left: orphans are your children too, wait for any child")
        if result in (8, 9) or result != wanted and not by_signal:
            return failed(f"main ended with {wanted} and you return {result}: whose code is that?")
        if result != wanted:
            return failed(
                f"main was ended by signal {int(signal.SIGUSR1)}; a shell says {wanted}, you say {result}"
            )
    return passed("main's code, and not one zombie")
