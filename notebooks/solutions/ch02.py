"""Solutions of chapter 2, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os

from exercises.ch02 import check_first_process, check_reaper
from mini_docker.lab import Exercise
from mini_docker.linux.process import CLONE_NEWPID, clone3, unshare


def _ask(pid: int, read_fd: int, write_fd: int, wait: bool = True) -> tuple[int, int]:
    """In the child, write both pids; in the parent, read them."""
    if pid == 0:
        os.write(write_fd, f"{os.getpid()} {os.getppid()}".encode())
        os._exit(0)
    os.close(write_fd)
    own, parent = map(int, os.read(read_fd, 100).split())
    os.close(read_fd)
    if wait:
        os.waitpid(pid, 0)
    return own, parent


def first_process_blank() -> tuple[int, int]:
    """The untouched exercise."""
    return os.getpid(), os.getppid()


def first_process() -> tuple[int, int]:
    """Return (pid, parent's pid) as seen by a child in a pid namespace of its own."""
    pipe = os.pipe()
    pid, pidfd = clone3(CLONE_NEWPID)
    if pid:
        os.close(pidfd)
    return _ask(pid, *pipe)


def first_process_no_fork() -> tuple[int, int]:
    """Wrong: it unshares and asks itself."""
    unshare(CLONE_NEWPID)
    return os.getpid(), os.getppid()


def first_process_plain_fork() -> tuple[int, int]:
    """Wrong: an ordinary child."""
    pipe = os.pipe()
    return _ask(os.fork(), *pipe)


def first_process_unshare() -> tuple[int, int]:
    """Wrong: the caller's later children are moved, too."""
    pipe = os.pipe()
    unshare(CLONE_NEWPID)
    return _ask(os.fork(), *pipe)


def first_process_zombie() -> tuple[int, int]:
    """Wrong: nobody waits."""
    pipe = os.pipe()
    pid, _ = clone3(CLONE_NEWPID)
    return _ask(pid, *pipe, wait=False)


def reaper_blank(main: int) -> int:
    """The untouched exercise."""
    return 0


def reaper(main: int) -> int:
    """Reap every child until `main` has ended; return its exit code."""
    while True:
        pid, status = os.wait()
        if pid == main:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def reaper_main_only(main: int) -> int:
    """Wrong: orphans are nobody's business."""
    return os.waitstatus_to_exitcode(os.waitpid(main, 0)[1])


def reaper_first(main: int) -> int:
    """Wrong: the first that ends, and then the rest."""
    first = os.waitstatus_to_exitcode(os.wait()[1])
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return first


def reaper_raw(main: int) -> int:
    """Wrong: Python's negative code for a signal."""
    while True:
        pid, status = os.wait()
        if pid == main:
            return os.waitstatus_to_exitcode(status)


EXERCISES = [
    Exercise(
        "first_process",
        check_first_process,
        blank=first_process_blank,
        solution=first_process,
        wrong=[
            (first_process_no_fork, "unshared but did not fork"),
            (first_process_plain_fork, "born in its parent's namespace"),
            (first_process_unshare, "the caller was changed"),
            (first_process_zombie, "nobody waited"),
        ],
    ),
    Exercise(
        "reaper",
        check_reaper,
        blank=reaper_blank,
        solution=reaper,
        wrong=[
            (reaper_main_only, "zombies are left"),
            (reaper_first, "whose code is that"),
            (reaper_raw, "a shell says"),
        ],
    ),
]
