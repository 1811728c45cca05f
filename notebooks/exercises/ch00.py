"""Checks of chapter 0: who shares which namespace, read from /proc."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence

from mini_docker.lab import Verdict, check, failed, namespaces_of, passed, run_in_child
from mini_docker.lab.facts import NAMESPACES
from mini_docker.linux.process import CLONE_NEWPID, unshare

SharedNamespaces = Callable[[int, int], "set[str]"]
CountPidNamespaces = Callable[[], int]


@check
def check_shared_namespaces(answer: SharedNamespaces) -> Verdict:
    """Two children that differ in kinds chosen at random: the answer must name what they share."""
    for kinds in ((), ("uts",), tuple(random.sample(["cgroup", "ipc", "mnt", "net", "uts"], 3))):
        outcome = run_in_child(see_two_children, answer, kinds)
        if outcome.error:
            return failed(f"your function raised {outcome.error}")
        given, truth = outcome.value
        if wrong := diagnose_shared(given, truth, kinds):
            return failed(wrong)
    return passed("your function tells shared namespaces from separate ones")


def diagnose_shared(given: object, truth: set[str], apart: Sequence[str]) -> str:
    """Return what is wrong with `given`, or ""."""
    scene = f"two processes, the second with a new {', '.join(apart)}" if apart else "two twins"
    if not isinstance(given, set):
        return f"your function returned {given!r}, not a set of names"
    if strange := sorted(given - set(NAMESPACES)):
        return f"{', '.join(strange)} is not a namespace that a process is in"
    if extra := sorted(given - truth):
        return f"{scene}: you say that they share {', '.join(extra)}, and they do not"
    if lacking := sorted(truth - given):
        return f"{scene}: they share {', '.join(lacking)}, and you do not say so"
    return ""


def see_two_children(answer: SharedNamespaces, kinds: Sequence[str]) -> tuple[object, set[str]]:
    """Start two children of which the second has new namespaces of `kinds`; ask about them."""
    first, second = sleeper([]), sleeper(kinds)
    spaces = [namespaces_of(first), namespaces_of(second)]
    truth = {kind for kind in spaces[0] if spaces[0][kind] == spaces[1][kind]}
    return answer(first, second), truth


def sleeper(kinds: Sequence[str]) -> int:
    """Fork a child that makes new namespaces of `kinds` and then sleeps; return its pid."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        for kind in kinds:
            unshare(NAMESPACES[kind])
        os.write(write_fd, b"!")
        signal.pause()
    os.read(read_fd, 1)
    return pid


@check
def check_count_pid_namespaces(answer: CountPidNamespaces) -> Verdict:
    """A /proc with a random number of pid namespaces, some with several processes."""
    for sizes in ([], [1], [random.randint(2, 4) for _ in range(random.randint(2, 4))]):
        outcome = run_in_child(count_among, answer, sizes)
        if outcome.error:
            return failed(f"your function raised {outcome.error}")
        given, truth = outcome.value
        if given != truth:
            others = " and ".join(f"one with {size} processes" for size in sizes) or "no other"
            scene = f"/proc shows its own pid namespace and {others}"
            return failed(f"{scene}: that makes {truth}, you counted {given!r}")
    return passed("you counted namespaces, not processes")


def count_among(answer: CountPidNamespaces, sizes: Sequence[int]) -> tuple[object, int]:
    """Make one pid namespace with so many processes for each of `sizes`, and ask for the number of all."""
    for size in sizes:
        crowd(size)
    return answer(), 1 + len(sizes)


def crowd(size: int) -> None:
    """Fork a child that makes a pid namespace and fills it with `size` sleeping processes."""
    before = len([name for name in os.listdir("/proc") if name.isdigit()])
    if os.fork() == 0:
        unshare(CLONE_NEWPID)
        for _ in range(size):
            if os.fork() == 0:
                signal.pause()
        signal.pause()
    while len([name for name in os.listdir("/proc") if name.isdigit()]) < before + 1 + size:
        time.sleep(0.001)
