# Exported from notebooks/09d_remap.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09d_remap.ipynb#errands-module
"""What a child of the zygote does for the daemon's threads, which must not enter namespaces."""

from __future__ import annotations

import os

from mini_docker.linux.mount import AT_EMPTY_PATH, AT_RECURSIVE, OPEN_TREE_CLONE, open_tree
from mini_docker.linux.process import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, setns, unshare
from mini_docker.namespaces.net import open_netns
from mini_docker.runtime.idmap import open_user_namespace
from mini_docker.storage.mapped import open_mapped
from mini_docker.storage.overlay import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# %% notebooks/09d_remap.ipynb#errands
def make_userns(arguments: dict[str, Any], fds: list[int]) -> int:
    """Return a fresh user namespace with the id maps `uidMappings` and `gidMappings`."""
    return open_user_namespace(arguments)


def make_netns(arguments: dict[str, Any], fds: list[int]) -> int:
    """Return a fresh network namespace that belongs to the user namespace fds[0].

    Its owner decides who may set its addresses and mount its sysfs, user_namespaces(7).
    """
    setns(fds[0], CLONE_NEWUSER)
    unshare(CLONE_NEWNET)
    return open_netns()


def map_root(arguments: dict[str, Any], fds: list[int]) -> int:
    """Return a container's root, seen with the ids of the user namespace fds[0]."""
    plan = arguments["plan"]
    made = plan if isinstance(plan, str) else Overlay(tuple(plan[0]), *plan[1:])
    uid, gid = arguments["root"]
    return open_mapped(made, fds[0], (uid, gid))


def copy_mount(arguments: dict[str, Any], fds: list[int]) -> int:
    """Return a copy of what is mounted at `path` inside the container whose mount namespace is fds[0]."""
    setns(fds[0], CLONE_NEWNS)
    found_fd = os.open(arguments["path"], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    return open_tree("", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE, found_fd)


ERRANDS: dict[str, Callable[[dict[str, Any], list[int]], int]] = {
    "userns": make_userns,
    "netns": make_netns,
    "root": map_root,
    "mount": copy_mount,
}
