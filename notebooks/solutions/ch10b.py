"""Solutions of chapter 10b, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os
import shutil
import stat

from exercises.ch10b import check_ioctl_number, check_lay_over
from mini_docker.lab import Exercise


def lay_over_blank(upper: str, tree: str) -> None:
    """The untouched exercise."""


def lay_over(upper: str, tree: str) -> None:
    """Make `tree` look as `upper` stacked over it would."""
    for name in os.listdir(upper):
        source, target = f"{upper}/{name}", f"{tree}/{name}"
        if os.path.lexists(target):
            os.unlink(target)
        status = os.lstat(source)
        if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
            shutil.copy2(source, target, follow_symlinks=False)


def lay_over_through(upper: str, tree: str) -> None:
    """Wrong: it writes into what is there, wherever that leads."""
    for name in os.listdir(upper):
        status = os.lstat(f"{upper}/{name}")
        if stat.S_ISCHR(status.st_mode):
            if os.path.lexists(f"{tree}/{name}"):
                os.unlink(f"{tree}/{name}")
        else:
            shutil.copy2(f"{upper}/{name}", f"{tree}/{name}", follow_symlinks=False)


def lay_over_no_whiteouts(upper: str, tree: str) -> None:
    """Wrong: it skips what is no file, and so does not obey."""
    for name in os.listdir(upper):
        if stat.S_ISCHR(os.lstat(f"{upper}/{name}").st_mode):
            continue
        if os.path.lexists(f"{tree}/{name}"):
            os.unlink(f"{tree}/{name}")
        shutil.copy2(f"{upper}/{name}", f"{tree}/{name}", follow_symlinks=False)


def lay_over_copied_marks(upper: str, tree: str) -> None:
    """Wrong: it copies whiteouts like any other device."""
    for name in os.listdir(upper):
        status = os.lstat(f"{upper}/{name}")
        if os.path.lexists(f"{tree}/{name}"):
            os.unlink(f"{tree}/{name}")
        if stat.S_ISCHR(status.st_mode):
            os.mknod(f"{tree}/{name}", status.st_mode, status.st_rdev)
        else:
            shutil.copy2(f"{upper}/{name}", f"{tree}/{name}", follow_symlinks=False)


def lay_over_followed(upper: str, tree: str) -> None:
    """Wrong: a symlink of the layer is followed."""
    for name in os.listdir(upper):
        source, target = f"{upper}/{name}", f"{tree}/{name}"
        if os.path.lexists(target):
            os.unlink(target)
        if not stat.S_ISCHR(os.lstat(source).st_mode):
            shutil.copy2(source, target)


def ioctl_number_blank(direction: int, size: int, kind: int, command: int) -> int:
    """The untouched exercise."""
    return 0


def ioctl_number(direction: int, size: int, kind: int, command: int) -> int:
    """Return the number that ioctl(2) wants."""
    return direction << 30 | size << 16 | kind << 8 | command


def ioctl_number_no_size(direction: int, size: int, kind: int, command: int) -> int:
    """Wrong: the size is forgotten."""
    return direction << 30 | kind << 8 | command


def ioctl_number_swapped(direction: int, size: int, kind: int, command: int) -> int:
    """Wrong: kind and command change places."""
    return direction << 30 | size << 16 | command << 8 | kind


def ioctl_number_low(direction: int, size: int, kind: int, command: int) -> int:
    """Wrong: the direction is one bit too low."""
    return direction << 29 | size << 16 | kind << 8 | command


EXERCISES = [
    Exercise(
        "lay_over",
        check_lay_over,
        blank=lay_over_blank,
        solution=lay_over,
        wrong=[
            (lay_over_through, "went through it"),
            (lay_over_no_whiteouts, "it was ignored"),
            (lay_over_copied_marks, "it was copied"),
            (lay_over_followed, "must stay one"),
        ],
    ),
    Exercise(
        "ioctl_number",
        check_ioctl_number,
        blank=ioctl_number_blank,
        solution=ioctl_number,
        wrong=[
            (ioctl_number_no_size, "another size"),
            (ioctl_number_swapped, "the lowest 8 bits"),
            (ioctl_number_low, "the size takes 14 bits"),
        ],
    ),
]
