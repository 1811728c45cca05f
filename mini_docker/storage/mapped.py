# Exported from notebooks/09d_remap.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09d_remap.ipynb#mapped-module
"""A root whose owners are translated: on disk the image's ids, in the container's root the host's others."""

from __future__ import annotations

import errno
import os

from mini_docker.linux.mount import (
    MOUNT_ATTR_IDMAP,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
)
from mini_docker.linux.process import (
    CLONE_NEWNS,
    PR_SET_KEEPCAPS,
    capget,
    capset,
    prctl,
    unshare,
)
from mini_docker.storage.overlay import Overlay, open_overlay


# %% notebooks/09d_remap.ipynb#mapped
def open_mapped(plan: Overlay | str, userns_fd: int, root: tuple[int, int]) -> int:
    """Return a descriptor of a detached mount of a planned root, as the user namespace's ids see it.

    An overlay cannot be mapped, but what it is made of can (Linux 5.19): each layer gets a mapped mount
    of its own, and upper and work one together. Overlay makes its copies as who mounted it, so that is
    `root`, the container's root (uid, gid). The caller is a child with one thread that ends soon: it keeps
    its new mount namespace and ids. Raises OSError. Source: mount_setattr(2), overlayfs.rst.
    """
    if isinstance(plan, str):
        return map_mount(plan, userns_fd)
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    own = os.path.dirname(plan.upper)
    places = f"{own}/rootfs"
    mount("tmpfs", places, "tmpfs")
    lower = tuple(_place(path, f"{places}/{n}", userns_fd) for n, path in enumerate(plan.lower))
    mapped = _place(own, f"{places}/own", userns_fd)
    upper, work = (f"{mapped}/{os.path.basename(path)}" for path in (plan.upper, plan.work))
    become(*root)
    return open_overlay(Overlay(lower, upper, work, plan.volatile))


def become(uid: int, gid: int) -> None:
    """Take the ids of the host's user `uid` and group `gid`, and keep all capabilities, capabilities(7)."""
    effective, permitted, inheritable = capget()
    prctl(PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    capset(effective, permitted, inheritable)


def map_mount(path: str, userns_fd: int) -> int:
    """Return a detached mount of `path` whose owners a user namespace translates. Raises OSError."""
    mount_fd = open_tree(path, OPEN_TREE_CLONE)
    try:
        mount_setattr(mount_fd, MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    except OSError as error:
        os.close(mount_fd)
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EINVAL, f"{path}: this file system cannot map ids") from None
    return mount_fd


def _place(path: str, target: str, userns_fd: int) -> str:
    """Attach the mapped `path` at `target`: older kernels take no detached mount for a layer."""
    os.mkdir(target)
    mount_fd = map_mount(path, userns_fd)
    move_mount(mount_fd, target)
    os.close(mount_fd)
    return target
