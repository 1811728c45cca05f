# Exported from notebooks/09_privileges.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09_privileges.ipynb#labels-module
"""AppArmor profiles and SELinux labels: who a program will be for the kernel's other judges."""

from __future__ import annotations

import errno
import os

from mini_docker.linux.mount import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    file_system_type,
    openat2,
)
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROC_SUPER_MAGIC, PROC_ROOT_INO = 0x9FA0, 1  # linux/magic.h, linux/proc_fs.h
MODULES = {"apparmor": "/sys/kernel/security/apparmor", "selinux": "/sys/fs/selinux/enforce"}
# proc_pid_attr(5): AppArmor's own file is newer, the shared one may be another module's
APPARMOR = ("attr/apparmor/exec", "attr/exec")
SELINUX = ("attr/exec",)


def enabled(module: str) -> bool:
    """Return whether this kernel has "apparmor" or "selinux", and judges by it."""
    return os.path.exists(MODULES[module])


# %% notebooks/09_privileges.ipynb#open-attribute
def open_proc(path: str = "/proc") -> int:
    """Return a descriptor of the root of a proc file system, checked by type and inode number.

    What lies on /proc may be made by a container. Raises PermissionError, OSError.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if file_system_type(fd) != PROC_SUPER_MAGIC or os.fstat(fd).st_ino != PROC_ROOT_INO:
        os.close(fd)
        raise PermissionError(errno.EPERM, f"{path} is not the kernel's own: refused")
    return fd


def open_attribute(paths: tuple[str, ...], proc: str = "/proc") -> int:
    """Open the first of `paths` that is there, below our own thread's directory of /proc, for writing.

    No symlink and no mount may lie on the way: a label could be written into any file by the first
    (CVE-2019-16884), and into /proc/sysrq-trigger by the second, which is procfs as well
    (CVE-2025-52881). Raises OSError.
    """
    proc_fd = open_proc(proc)
    try:
        own = os.readlink("thread-self", dir_fd=proc_fd)
        rules = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
        for path in paths:
            try:
                return openat2(proc_fd, f"{own}/{path}", os.O_WRONLY, rules)
            except FileNotFoundError:
                continue
    finally:
        os.close(proc_fd)
    raise FileNotFoundError(errno.ENOENT, f"{proc} has no {paths[-1]}")


# %% notebooks/09_privileges.ipynb#plan-labels
def set_label(paths: tuple[str, ...], text: str) -> None:
    """Say as what the next execve(2) runs, by /proc/thread-self/attr, proc_pid_attr(5). Raises OSError."""
    fd = open_attribute(paths)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def plan_labels(spec: dict[str, Any]) -> list[Step]:
    """Plan process.apparmorProfile and process.selinuxLabel.

    Raises ValueError where this kernel cannot obey: a container that was meant to be confined must not
    run without. Source: OCI config.md, aa_change_onexec(2), selinux(8).
    """
    process, steps = spec["process"], []
    wishes = (
        ("apparmorProfile", "apparmor", APPARMOR, "exec {}"),
        ("selinuxLabel", "selinux", SELINUX, "{}"),
    )
    for key, module, paths, text in wishes:
        label = process.get(key)
        if not label:
            continue
        if not enabled(module):
            raise ValueError(f"process.{key}: '{label}' cannot be set: this kernel has no {module}")
        steps.append(Step(f"run as {label}", set_label, (paths, text.format(label))))
    return steps
