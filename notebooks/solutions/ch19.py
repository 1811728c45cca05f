"""Solutions of chapter 19, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import errno

from exercises.ch19 import check_duration, check_exit_status
from mini_docker.lab import Exercise


def exit_status_blank(error: int | None) -> int:
    """The untouched exercise."""
    return 1


def exit_status(error: int | None) -> int:
    """Return 125, 126 or 127 for what went wrong."""
    if error is None:
        return 125
    return 127 if error in (errno.ENOENT, errno.ENOTDIR) else 126


def exit_status_shell(error: int | None) -> int:
    """Wrong: as a shell, which has no 125."""
    return 127 if error in (None, errno.ENOENT, errno.ENOTDIR) else 126


def exit_status_rough(error: int | None) -> int:
    """Wrong: everything but ENOENT is the tool's fault."""
    return {errno.ENOENT: 127, errno.EACCES: 126}.get(error or 0, 125)


def duration_blank(seconds: float) -> str:
    """The untouched exercise."""
    return ""


def duration(seconds: float) -> str:
    """Return a length of time in Docker's words."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return f"{whole} second{'s' * (whole != 1)}"
    if whole < 120:
        return "About a minute"
    if whole < 3600:
        return f"{whole // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"


def duration_exact(seconds: float) -> str:
    """Wrong: it counts one minute."""
    return "1 minute" if 60 <= seconds < 120 else duration(seconds)


def duration_day(seconds: float) -> str:
    """Wrong: days from the first one on."""
    return f"{int(seconds) // 86400} days" if seconds >= 86400 else duration(seconds)


EXERCISES = [
    Exercise(
        "exit_status",
        check_exit_status,
        blank=exit_status_blank,
        solution=exit_status,
        wrong=[(exit_status_shell, "that is 125"), (exit_status_rough, "no program")],
    ),
    Exercise(
        "duration",
        check_duration,
        blank=duration_blank,
        solution=duration,
        wrong=[(duration_exact, "'About a minute' to Docker"), (duration_day, "'47 hours'")],
    ),
]
