"""Solutions of chapter 8d, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import re

from exercises.ch08d import check_cpu_list, check_slice_path
from mini_docker.lab import Exercise


def slice_path_blank(name: str) -> str:
    """The untouched exercise."""
    return ""


def slice_path(name: str) -> str:
    """Return the path of a slice's control group."""
    if name == "-.slice":
        return "/"
    if not re.fullmatch(r"[^-/]+(-[^-/]+)*\.slice", name):
        raise ValueError(f"{name!r} is no slice")
    words = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(words[: n + 1])}.slice" for n in range(len(words)))


def slice_path_dashes(name: str) -> str:
    """Wrong: a dash is a slash."""
    return "/" + name.replace("-", "/")


def slice_path_trusting(name: str) -> str:
    """Wrong: it believes every name."""
    words = name.removesuffix(".slice").split("-")
    if name == "-.slice":
        return "/"
    return "".join(f"/{'-'.join(words[: n + 1])}.slice" for n in range(len(words)))


def cpu_list_blank(mask: bytes) -> str:
    """The untouched exercise."""
    return "?"


def cpu_list(mask: bytes) -> str:
    """Return the list of the processors in a bit mask."""
    bits = int.from_bytes(mask, "little")
    runs: list[list[int]] = []
    for number in (n for n in range(bits.bit_length()) if bits >> n & 1):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def cpu_list_single(mask: bytes) -> str:
    """Wrong: no runs."""
    bits = int.from_bytes(mask, "little")
    return ",".join(str(n) for n in range(bits.bit_length()) if bits >> n & 1)


def cpu_list_big(mask: bytes) -> str:
    """Wrong: the most significant byte first."""
    return cpu_list(bytes(reversed(mask)))


EXERCISES = [
    Exercise(
        "slice_path",
        check_slice_path,
        blank=slice_path_blank,
        solution=slice_path,
        wrong=[(slice_path_dashes, "full name"), (slice_path_trusting, "is no slice")],
    ),
    Exercise(
        "cpu_list",
        check_cpu_list,
        blank=cpu_list_blank,
        solution=cpu_list,
        wrong=[(cpu_list_single, "with a dash"), (cpu_list_big, "the mask 87 00")],
    ),
]
