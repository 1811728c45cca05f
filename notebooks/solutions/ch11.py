"""Solutions of chapter 11, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from exercises.ch11 import check_plan_umask, check_verdict_of
from mini_docker.lab import Exercise
from mini_docker.linux.step import Step


def plan_umask_blank(spec: dict[str, Any]) -> list[Step]:
    """The untouched exercise."""
    return []


def plan_umask(spec: dict[str, Any]) -> list[Step]:
    """Plan process.user.umask, umask(2)."""
    value = spec["process"]["user"].get("umask")
    return [] if value is None else [Step(f"set umask {value:04o}", os.umask, (value,))]


def plan_umask_acts(spec: dict[str, Any]) -> list[Step]:
    """Wrong: it does it instead of planning it."""
    os.umask(spec["process"]["user"].get("umask", 0o22))
    return []


def plan_umask_always(spec: dict[str, Any]) -> list[Step]:
    """Wrong: it plans a default that nobody asked for."""
    return [Step("set umask", os.umask, (spec["process"]["user"].get("umask", 0o22),))]


def verdict_of_blank(report: bytes) -> str:
    """The untouched exercise."""
    return ""


def verdict_of(report: bytes) -> str:
    """Return "started", "killed", or the name of the step that failed."""
    if not report:
        return "killed"
    if report[:1] == b"!":
        (count,) = struct.unpack_from("=I", report, 1)
        report = report[5 + 8 * count :]
    return json.loads(report[1:])["step"] if report else "started"


def verdict_of_first_byte(report: bytes) -> str:
    """Wrong: it stops reading at READY."""
    if report[:1] == b"!":
        return "started"
    return json.loads(report[1:])["step"] if report else "killed"


def verdict_of_end(report: bytes) -> str:
    """Wrong: it takes every end without a failure for a start."""
    return json.loads(report[1:])["step"] if report[:1] == b"E" else "started"


EXERCISES = [
    Exercise(
        "plan_umask",
        check_plan_umask,
        blank=plan_umask_blank,
        solution=plan_umask,
        wrong=[(plan_umask_acts, "changed while planning"), (plan_umask_always, "without the key")],
    ),
    Exercise(
        "verdict_of",
        check_verdict_of,
        blank=verdict_of_blank,
        solution=verdict_of,
        wrong=[(verdict_of_first_byte, "execve was refused"), (verdict_of_end, "killed before")],
    ),
]
