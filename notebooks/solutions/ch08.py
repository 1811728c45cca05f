"""Solutions of chapter 8, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import re

from exercises.ch08 import check_cpu_max, check_group_of
from mini_docker.lab import Exercise


def cpu_max_blank(cpus: float | None) -> str:
    """The untouched exercise."""
    return ""


def cpu_max(cpus: float | None) -> str:
    """Return the content of cpu.max for a number of CPUs; raise ValueError for too few."""
    if cpus is None:
        return "max 100000"
    quota = round(cpus * 100_000)
    if quota < 1000:
        raise ValueError(f"{cpus} CPUs are too few: the kernel's least is 0.01")
    return f"{quota} 100000"


def cpu_max_percent(cpus: float | None) -> str:
    """Wrong: percent of a CPU."""
    return "max 100000" if cpus is None else f"{round(cpus * 100)} 100000"


def cpu_max_silent(cpus: float | None) -> str:
    """Wrong: it leaves the refusal to the kernel."""
    return "max 100000" if cpus is None else f"{round(cpus * 100_000)} 100000"


def group_of_blank(text: str) -> str | None:
    """The untouched exercise."""
    return None


def group_of(text: str) -> str | None:
    """Return the container id in the text of /proc/PID/cgroup, or None."""
    found = re.search(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", text)
    return found.group() if found else None


def group_of_last(text: str) -> str | None:
    """Wrong: the last part of the first line."""
    return text.splitlines()[0].rpartition("/")[2] or None


def group_of_any(text: str) -> str | None:
    """Wrong: any run of hex digits."""
    found = re.search(r"[0-9a-f]{12,64}", text)
    return found.group() if found else None


EXERCISES = [
    Exercise(
        "cpu_max",
        check_cpu_max,
        blank=cpu_max_blank,
        solution=cpu_max,
        wrong=[
            (cpu_max_percent, "150000 microseconds"),
            (cpu_max_silent, "refuses less than 1000"),
        ],
    ),
    Exercise(
        "group_of",
        check_group_of,
        blank=group_of_blank,
        solution=group_of,
        wrong=[(group_of_last, "you read"), (group_of_any, "git commit")],
    ),
]
