"""Solutions of chapter 4, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import os

from exercises.ch04 import check_enter_root, check_readonly_bind
from mini_docker.lab import Exercise
from mini_docker.linux.mount import (
    MNT_DETACH,
    MS_BIND,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    umount2,
)


def readonly_bind_blank(source: str, target: str) -> None:
    """The untouched exercise."""


def readonly_bind(source: str, target: str) -> None:
    """Bind first; then change the new mount alone, and name again what it shall keep."""
    mount(source, target, None, MS_BIND)
    kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def readonly_bind_in_one_step(source: str, target: str) -> None:
    """Wrong: a new bind mount takes no flag but MS_REC."""
    mount(source, target, None, MS_BIND | MS_RDONLY)


def readonly_bind_everywhere(source: str, target: str) -> None:
    """Wrong: without MS_BIND it is the file system that becomes read-only."""
    mount(source, target, None, MS_BIND)
    mount(None, target, None, MS_REMOUNT | MS_RDONLY)


def readonly_bind_forgetful(source: str, target: str) -> None:
    """Wrong: a remount replaces all flags."""
    mount(source, target, None, MS_BIND)
    mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def readonly_bind_of_nothing(source: str, target: str) -> None:
    """Wrong: read-only, and empty."""
    mount("none", target, "tmpfs", MS_RDONLY)


def enter_root_blank(path: str) -> None:
    """The untouched exercise."""


def enter_root(path: str) -> None:
    """Make the directory a mount point, swap the roots, let go of the old one."""
    mount(path, path, None, MS_BIND | MS_REC)
    os.chdir(path)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")


def enter_root_by_chroot(path: str) -> None:
    """Wrong: root in a chroot makes the next one."""
    os.chroot(path)
    os.chdir("/")


def enter_root_without_chdir(path: str) -> None:
    """Wrong: the working directory is above the root."""
    os.chroot(path)


def enter_root_of_a_directory(path: str) -> None:
    """Wrong: pivot_root takes mount points."""
    os.chdir(path)
    pivot_root(".", ".")


def enter_root_and_keep_the_old(path: str) -> None:
    """Wrong: the host's tree is in /old."""
    mount(path, path, None, MS_BIND | MS_REC)
    os.mkdir(f"{path}/old")
    pivot_root(path, f"{path}/old")
    os.chdir("/")


def enter_root_under_the_old(path: str) -> None:
    """Wrong: the host's tree lies on top of the new one."""
    mount(path, path, None, MS_BIND | MS_REC)
    os.chdir(path)
    pivot_root(".", ".")
    os.chdir("/")


def enter_root_with_a_descriptor(path: str) -> None:
    """Wrong: a way back was opened, and left open."""
    os.open("/", os.O_PATH | os.O_DIRECTORY)
    enter_root(path)


EXERCISES = [
    Exercise(
        "readonly_bind",
        check_readonly_bind,
        blank=readonly_bind_blank,
        solution=readonly_bind,
        wrong=[
            (readonly_bind_in_one_step, "written through the target"),
            (readonly_bind_everywhere, "whole file system became read-only"),
            (readonly_bind_forgetful, "has lost"),
            (readonly_bind_of_nothing, "does not show the source's files"),
        ],
    ),
    Exercise(
        "enter_root",
        check_enter_root,
        blank=enter_root_blank,
        solution=enter_root,
        wrong=[
            (enter_root_by_chroot, "classic escape"),
            (enter_root_without_chdir, "working directory stayed outside"),
            (enter_root_of_a_directory, "not a mount of its own"),
            (enter_root_and_keep_the_old, "still mounted inside"),
            (enter_root_under_the_old, "still mounted inside"),
            (enter_root_with_a_descriptor, "open descriptor"),
        ],
    ),
]
