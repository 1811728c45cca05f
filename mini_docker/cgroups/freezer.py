# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#freezer
"""All members of a group stand still, or go on: v2's cgroup.freeze, v1's freezer."""

from __future__ import annotations

import errno
import time

from mini_docker.cgroups.files import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cgroups.tree import Cgroup


def is_frozen(group: Cgroup) -> bool:
    """Say whether all members of a group stand still."""
    if group.has("cgroup.freeze"):
        return "frozen 1" in group.read("cgroup.events")
    return group.read("freezer.state") == "FROZEN"


def set_frozen(group: Cgroup, frozen: bool) -> None:
    """Stop all members or let them go on, and return when it is so: a fork may slip through v1's order.

    Raises TimeoutError after ten seconds (they run again then), FileNotFoundError without a freezer.
    """
    if group.has("cgroup.freeze"):
        name, words = "cgroup.freeze", ("0", "1")
    elif group.has("freezer.state"):
        name, words = "freezer.state", ("THAWED", "FROZEN")
    else:
        raise FileNotFoundError(2, f"control group {group.path} has no freezer in its trees")
    deadline = time.monotonic() + 10
    write_file(group.file(name), words[frozen])
    while is_frozen(group) != frozen:
        if time.monotonic() > deadline:
            write_file(group.file(name), words[False])
            raise TimeoutError(errno.ETIMEDOUT, f"control group {group.path} does not freeze")
        time.sleep(0.001)
        if name == "freezer.state":
            write_file(group.file(name), words[frozen])
