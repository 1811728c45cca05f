"""Solutions of chapter 1, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable

from exercises.ch01 import check_gettid, check_wait_for
from mini_docker.lab import Exercise
from mini_docker.linux.process import exit_code, pidfd_open

NUMBERS = {"x86_64": 186, "aarch64": 178}


def gettid_blank(machine: str, call: Callable[[int], int]) -> int:
    """The untouched exercise."""
    return 0


def gettid(machine: str, call: Callable[[int], int]) -> int:
    """Return the calling thread's id, by number; raise OSError where the number is not known."""
    if machine not in NUMBERS:
        raise OSError(errno.ENOSYS, f"no number of gettid for {machine}")
    return call(NUMBERS[machine])


def gettid_getpid(machine: str, call: Callable[[int], int]) -> int:
    """Wrong: the id of the process."""
    return os.getpid()


def gettid_one_number(machine: str, call: Callable[[int], int]) -> int:
    """Wrong: the number of one machine on all."""
    return call(186)


def gettid_guess(machine: str, call: Callable[[int], int]) -> int:
    """Wrong: whatever is not x86_64 is taken for aarch64."""
    return call(186 if machine == "x86_64" else 178)


def gettid_key_error(machine: str, call: Callable[[int], int]) -> int:
    """Wrong: a stranger gets a KeyError, which says nothing to whoever catches OSError."""
    return call(NUMBERS[machine])


def wait_for_blank(pid: int, seconds: float) -> int | None:
    """The untouched exercise."""
    return None


def wait_for(pid: int, seconds: float) -> int | None:
    """Wait at most `seconds` for the child `pid`; return its exit code as a shell shows it, or None."""
    pidfd = pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ended = poll.poll(seconds * 1000)
    finally:
        os.close(pidfd)
    return exit_code(os.waitpid(pid, 0)[1]) if ended else None


def wait_for_ever(pid: int, seconds: float) -> int | None:
    """Wrong: no limit."""
    return exit_code(os.waitpid(pid, 0)[1])


def wait_for_status(pid: int, seconds: float) -> int | None:
    """Wrong: the status of waitpid is not the exit code."""
    return os.waitpid(pid, 0)[1]


def wait_for_minus(pid: int, seconds: float) -> int | None:
    """Wrong: Python's own way to say "by signal 9"."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for_busy(pid: int, seconds: float) -> int | None:
    """Wrong: asks again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return exit_code(status)
    return None


def wait_for_leaky(pid: int, seconds: float) -> int | None:
    """Wrong: the pidfd stays open."""
    poll = select.poll()
    poll.register(pidfd_open(pid), select.POLLIN)
    return exit_code(os.waitpid(pid, 0)[1]) if poll.poll(seconds * 1000) else None


def wait_for_killer(pid: int, seconds: float) -> int | None:
    """Wrong: kills whoever takes too long."""
    code = wait_for(pid, seconds)
    if code is None:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return code


def wait_for_milliseconds(pid: int, seconds: float) -> int | None:
    """Wrong: poll(2) takes milliseconds."""
    return wait_for(pid, seconds / 1000)


def wait_for_zombie(pid: int, seconds: float) -> int | None:
    """Wrong: looks at how it ended and leaves it unreaped."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


EXERCISES = [
    Exercise(
        "gettid",
        check_gettid,
        blank=gettid_blank,
        solution=gettid,
        wrong=[
            (gettid_getpid, "no system call was made"),
            (gettid_one_number, "on aarch64 you made call number 186"),
            (gettid_guess, "for machine 'riscv64' there was no error"),
            (gettid_key_error, "raised KeyError, which is not an OSError"),
        ],
    ),
    Exercise(
        "wait_for",
        check_wait_for,
        blank=wait_for_blank,
        solution=wait_for,
        wrong=[
            (wait_for_ever, "waits for ever"),
            (wait_for_status, "a shell would show 7 for it; you returned 1792"),
            (wait_for_minus, "a shell would show 137 for it; you returned -9"),
            (wait_for_busy, "the processor was busy"),
            (wait_for_leaky, "more descriptors are open"),
            (wait_for_killer, "waiting must not kill"),
            (wait_for_milliseconds, "you gave up earlier"),
            (wait_for_zombie, "never reaped"),
        ],
    ),
]
