# Exported from notebooks/03_net.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/03_net.ipynb#netns
"""Network namespaces: a new one as a descriptor, a netlink socket inside another, lo for a fresh one."""

from __future__ import annotations

import errno
import os

from mini_docker.linux import netlink as rtnetlink
from mini_docker.linux.process import CLONE_NEWNET, setns, unshare
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

# thread-self, not self: namespaces belong to threads, and /proc/self is the first thread's.
OWN_NETNS = "/proc/thread-self/ns/net"


def open_netns(path: str = OWN_NETNS) -> int:
    """Return a descriptor of a network namespace, by default the caller's own. Raises OSError.

    As long as it is open the namespace lives, with or without processes in it, namespaces(7).
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def new_netns() -> int:
    """Return a descriptor of a fresh network namespace; the caller is afterwards where it was before.

    Raises OSError; OSError(EBUSY) in a process with threads, see `refuse_threads`.
    """
    refuse_threads("make a network namespace")
    here_fd = open_netns()
    try:
        unshare(CLONE_NEWNET)
        try:
            return open_netns()
        finally:
            setns(here_fd, CLONE_NEWNET)
    finally:
        os.close(here_fd)


def refuse_threads(what: str) -> None:
    """Raise OSError(EBUSY) if this process has more than one thread.

    A namespace is entered by one thread, not by its process: should the way back fail, the threads of one
    program would live in two networks, and whatever that thread starts would be born in the wrong one.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError(errno.EBUSY, f"{what}: not in a process with threads")


def in_netns(netns_fd: int, call: Callable[..., T], *arguments: Any) -> T:
    """Return `call(*arguments)`, called inside the network namespace `netns_fd`; then come back.

    Only the calling thread goes there. A socket belongs for ever to the namespace it was made in: a visit
    is enough to get one, network_namespaces(7). Raises OSError.
    """
    here_fd = open_netns()
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            return call(*arguments)
        finally:
            setns(here_fd, CLONE_NEWNET)
    finally:
        os.close(here_fd)


def netlink_in(netns_fd: int) -> rtnetlink.Netlink:
    """Return a netlink socket of the network namespace `netns_fd`. Raises OSError."""
    return in_netns(netns_fd, rtnetlink.Netlink)


# %% notebooks/03_net.ipynb#plan
def raise_loopback() -> None:
    """Bring `lo` up in the caller's network namespace; with it come 127.0.0.1 and ::1. Raises OSError."""
    with rtnetlink.Netlink() as netlink:
        netlink.request(rtnetlink.link_set("lo", up=True))


def plan_net(spec: dict[str, Any]) -> list[Step]:
    """Plan the network of a new network namespace: `lo` up.

    Pure. A namespace that is joined (by a path) is somebody else's and gets nothing; without an entry
    the container is in its host's. Source: OCI config-linux.md, namespaces.
    """
    namespaces = spec.get("linux", {}).get("namespaces", ())
    fresh = any(entry["type"] == "network" and not entry.get("path") for entry in namespaces)
    return [Step("bring up lo", raise_loopback, ())] if fresh else []
