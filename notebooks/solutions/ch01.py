"""Solutions of chapter 1, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time

from exercises.ch01 import check_gettid, check_wait_for

from mini_docker.lab import Exercise

libc = ctypes.CDLL(None, use_errno=True)
GETTID = {"x86_64": 186, "aarch64": 178}


def gettid_blank() -> int:
    """The untouched exercise."""
    return 0


def gettid() -> int:
    """Return the thread id of the caller, gettid(2)."""
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(GETTID[os.uname().machine])))


def gettid_getpid() -> int:
    """Wrong: the process."""
    return os.getpid()




def wait_for_blank(pid: int, seconds: float) -> int | None:
    """The untouched exercise."""
    return 0


def wait_for(pid: int, seconds: float) -> int | None:
    """Return the exit code of the child `pid`, or None if it has not ended in time."""
    pidfd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([pidfd], [], [], seconds)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if ready else None


def wait_for_kill(pid: int, seconds: float) -> int | None:
    """Wrong: the timeout kills."""
    result = wait_for(pid, seconds)
    if result is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return result


def wait_for_poll(pid: int, seconds: float) -> int | None:
    """Wrong: it burns a CPU."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
    return None




EXERCISES = [
    Exercise(
        "gettid",
        check_gettid,
        blank=gettid_blank,
        solution=gettid,
        wrong=[(gettid_getpid, "that is getpid")],
    ),
    Exercise(
        "wait_for",
        check_wait_for,
        blank=wait_for_blank,
        solution=wait_for,
        wrong=[
            (wait_for_kill, "left alone"),
            (wait_for_poll, "polling loop"),
        ],
    ),
]
