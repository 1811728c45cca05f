# Exported from notebooks/11c_exec.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11c_exec.ipynb#birth-module
"""Birth: a process cloned into new namespaces, or inside ones that exist already."""

from __future__ import annotations

import errno
import os
import sys

from mini_docker.linux.process import CLONE_PARENT, clone3, pidfd_open
from mini_docker.linux.step import Step, apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


# %% notebooks/11c_exec.ipynb#bear
def bear(flags: int, cgroup_fd: int | None, before: Sequence[Step]) -> tuple[int, int]:
    """Return (pid, pidfd) of a new process, and (0, -1) in it; `flags` and `cgroup_fd` as for clone3.

    Where it has to be born inside a namespace that exists already, a process in between takes the steps
    `before`, which join it, and clones. With CLONE_PARENT among the flags the caller is one: it takes them
    itself. Raises OSError.
    """
    if flags & CLONE_PARENT and before:
        if cgroup_fd is not None:
            enter_group(cgroup_fd)
        sys.meta_path.clear()
        apply(before)
        return clone3(flags)
    if flags & CLONE_PARENT or not before:
        return clone3(flags, cgroup_fd)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    middle, middle_pidfd = clone3(0, cgroup_fd)
    if middle == 0:
        if _join_and_clone(flags, before, write_fd):
            return 0, -1
        os._exit(0)
    os.close(write_fd)
    answer = os.read(read_fd, 4096)
    os.close(read_fd)
    os.waitpid(middle, 0)
    os.close(middle_pidfd)
    pid, error, text = answer.decode().split(" ", 2) if answer else ("", errno.EINTR, "killed")
    if not pid:
        raise OSError(int(error), text)
    return int(pid), pidfd_open(int(pid))


def enter_group(cgroup_fd: int) -> None:
    """Go into a control group ourselves; what we clone is born in there.

    systemd mounts the tree with nsdelegate: from inside a control group namespace nobody moves, and nothing
    is born, across its root (ENOENT). So the way in comes before setns. Source: cgroups(7).
    """
    procs_fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
    try:
        os.write(procs_fd, b"0")
    finally:
        os.close(procs_fd)


def _join_and_clone(flags: int, before: Sequence[Step], answer_fd: int) -> bool:
    """Be the process in between; return True in the child, which is no child of ours but our sibling."""
    try:
        sys.meta_path.clear()  # the files of a joined mount namespace are the container's
        apply(before)
        pid, _ = clone3(flags | CLONE_PARENT)
        if pid == 0:
            return True
        os.write(answer_fd, b"%d 0 " % pid)
    except OSError as error:
        os.write(answer_fd, f" {error.errno} {error.strerror}".encode())
    return False
