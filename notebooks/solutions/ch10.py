"""Solutions of chapter 10, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os
import stat

from exercises.ch10 import check_diff, check_lower_option
from mini_docker.lab import Exercise


def diff_blank(upper: str, lower: list[str]) -> list[str]:
    """The untouched exercise."""
    return []


def diff(upper: str, lower: list[str]) -> list[str]:
    """Return "A name", "C name" or "D name" for each entry of the upper directory, sorted."""
    lines = []
    for name in os.listdir(upper):
        status = os.lstat(f"{upper}/{name}")
        below = any(os.path.lexists(f"{layer}/{name}") for layer in lower)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            lines.append(f"D {name}")
        else:
            lines.append(f"{'C' if below else 'A'} {name}")
    return sorted(lines)


def diff_no_whiteouts(upper: str, lower: list[str]) -> list[str]:
    """Wrong: a whiteout looks like a change."""
    return sorted(
        f"{'C' if any(os.path.lexists(f'{layer}/{name}') for layer in lower) else 'A'} {name}"
        for name in os.listdir(upper)
    )


def diff_any_device(upper: str, lower: list[str]) -> list[str]:
    """Wrong: it takes every device for a whiteout."""
    lines = []
    for name in os.listdir(upper):
        deleted = stat.S_ISCHR(os.lstat(f"{upper}/{name}").st_mode)
        below = any(os.path.lexists(f"{layer}/{name}") for layer in lower)
        lines.append(f"{'D' if deleted else 'C' if below else 'A'} {name}")
    return sorted(lines)


def diff_first_layer(upper: str, lower: list[str]) -> list[str]:
    """Wrong: it looks into the first lower layer only."""
    return diff(upper, lower[:1])


def lower_option_blank(layers: list[str]) -> str:
    """The untouched exercise."""
    return ""


def lower_option(layers: list[str]) -> str:
    """Return the value of lowerdir for `layers`, lowest first."""
    return ":".join(layer.replace("\\", "\\\\").replace(":", "\\:") for layer in reversed(layers))


def lower_option_in_order(layers: list[str]) -> str:
    """Wrong: the image's order."""
    return ":".join(layers)


def lower_option_plain(layers: list[str]) -> str:
    """Wrong: no escaping."""
    return ":".join(reversed(layers))


EXERCISES = [
    Exercise(
        "diff",
        check_diff,
        blank=diff_blank,
        solution=diff,
        wrong=[
            (diff_no_whiteouts, "do not say D"),
            (diff_any_device, "not 0,0"),
            (diff_first_layer, "second lower layer"),
        ],
    ),
    Exercise(
        "lower_option",
        check_lower_option,
        blank=lower_option_blank,
        solution=lower_option,
        wrong=[
            (lower_option_in_order, "the first name is the top"),
            (lower_option_plain, "two layers"),
        ],
    ),
]
