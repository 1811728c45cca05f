"""Solutions of chapter 0, and the wrong answers that its checks must tell apart."""

from __future__ import annotations

import os

from exercises.ch00 import check_count_pid_namespaces, check_shared_namespaces
from mini_docker.lab import Exercise


def shared_namespaces_blank(pid_a: int, pid_b: int) -> set[str]:
    return set()


def shared_namespaces(pid_a: int, pid_b: int) -> set[str]:
    """Two processes are in one namespace when their links in /proc/PID/ns read the same."""
    kinds = [kind for kind in os.listdir(f"/proc/{pid_a}/ns") if not kind.endswith("_for_children")]
    return {
        kind
        for kind in kinds
        if os.readlink(f"/proc/{pid_a}/ns/{kind}") == os.readlink(f"/proc/{pid_b}/ns/{kind}")
    }


def compare_names(pid_a: int, pid_b: int) -> set[str]:
    kinds = set(os.listdir(f"/proc/{pid_a}/ns")) & set(os.listdir(f"/proc/{pid_b}/ns"))
    return {kind for kind in kinds if not kind.endswith("_for_children")}


def forget_the_second(pid_a: int, pid_b: int) -> set[str]:
    return shared_namespaces(pid_a, os.getpid())


def keep_for_children(pid_a: int, pid_b: int) -> set[str]:
    directories = f"/proc/{pid_a}/ns", f"/proc/{pid_b}/ns"
    a, b = ({(kind, os.stat(f"{d}/{kind}").st_ino) for kind in os.listdir(d)} for d in directories)
    return {kind for kind, _ in a & b}


def say_what_differs(pid_a: int, pid_b: int) -> set[str]:
    return compare_names(pid_a, pid_b) - shared_namespaces(pid_a, pid_b)


def count_pid_namespaces_blank() -> int:
    return 0


def count_pid_namespaces() -> int:
    """Count the distinct links; a process may end between the listing and the look."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/pid"))
        except OSError:
            continue
    return len(found)


def count_processes() -> int:
    return len([pid for pid in os.listdir("/proc") if pid.isdigit()])


def count_only_others() -> int:
    return count_pid_namespaces() - 1


def count_the_wrong_kind() -> int:
    pids = filter(str.isdigit, os.listdir("/proc"))
    return len({os.readlink(f"/proc/{pid}/ns/uts") for pid in pids})


EXERCISES = [
    Exercise(
        "shared_namespaces",
        check_shared_namespaces,
        blank=shared_namespaces_blank,
        solution=shared_namespaces,
        wrong=[
            (compare_names, "you say that they share uts, and they do not"),
            (forget_the_second, "you say that they share uts"),
            (keep_for_children, "pid_for_children"),
            (say_what_differs, "and you do not say so"),
            (lambda a, b: sorted(shared_namespaces(a, b)), "not a set of names"),
            (lambda a, b: {os.readlink(f"/proc/{a}/ns/pid")}, "is not a namespace"),
        ],
    ),
    Exercise(
        "count_pid_namespaces",
        check_count_pid_namespaces,
        blank=count_pid_namespaces_blank,
        solution=count_pid_namespaces,
        wrong=[
            (count_processes, "you counted"),
            (count_only_others, "that makes 1, you counted 0"),
            (count_the_wrong_kind, "that makes 2, you counted 1"),
            (lambda: os.listdir("/nowhere"), "FileNotFoundError"),
        ],
    ),
]
