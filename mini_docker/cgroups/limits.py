# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#limits-module
"""Limits obeyed: the files of a group that is there get what a document asks for."""

from __future__ import annotations

import errno

from mini_docker.cgroups.files import pass_down, write_file
from mini_docker.cgroups.resources import controller_of, files_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.cgroups.devices import Rule
    from mini_docker.cgroups.resources import File
    from mini_docker.cgroups.tree import Cgroup, Hierarchies


# %% notebooks/08_control_groups.ipynb#limits
# said by Linux 5.16 to 6.5 of memory.kmem.limit_in_bytes; the C library has no such errno
ENOTSUPP = 524
# what v2 counts for every group of ours, limited or not; it costs a start nothing
COUNTED = ("cpu", "io", "memory", "pids")


class Limits:
    """What linux.resources asks of this machine: `files` to write, device `rules`, `controllers` needed."""

    def __init__(self, trees: Hierarchies, resources: dict[str, Any]) -> None:
        """Check them all; nothing is written yet. Raises ValueError, FileNotFoundError, with the key."""
        self.files = files_for(trees, resources)
        self.rules = _device_rules(resources)
        self.controllers = {controller_of(file.name) for file in self.files}
        for file in self.files:
            _check_offered(trees, file)

    def write(self, group: Cgroup) -> None:
        """Write them into the files of a group; what is refused is tried once more after the rest.

        Two files may bound each other (memory and memory with swap, quota and burst), and which of them
        must be first depends on what they hold now. Raises OSError, with the key.
        """
        _pass_down(group, self.controllers)
        refused = []
        for file in self.files:
            try:
                _write(group, file)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
                refused.append(file)
        for file in refused:
            _write(group, file)
        if self.rules is not None:
            from mini_docker.cgroups.devices import obey

            obey(group, self.rules)


def _device_rules(resources: dict[str, Any]) -> Sequence[Rule] | None:
    """Return the checked device rules; None where the document has none, and all stays allowed."""
    if resources.get("devices") is None:
        return None
    from mini_docker.cgroups.devices import parse_rules

    return parse_rules(resources["devices"])


def _check_offered(trees: Hierarchies, file: File) -> None:
    controller = controller_of(file.name)
    if trees.tree_of(controller) is None and not file.optional:
        raise FileNotFoundError(
            2,
            f"linux.resources.{file.key}: this kernel offers no cgroup controller "
            f"'{controller}' ({file.name})",
        )


def _pass_down(group: Cgroup, asked: set[str]) -> None:
    """Have what is asked in the v2 group, or an OSError; and what is counted, where it can be had."""
    unified = group.trees.unified
    if unified is None or unified not in group.directories:
        return
    own = {name for name, root in group.trees.mounts.items() if root == unified}
    pass_down(unified, group.path, asked & own)
    try:
        pass_down(unified, group.path, own.intersection(COUNTED))
    except OSError:
        pass  # a number less, inside another container, is no reason not to start


def _write(group: Cgroup, file: File) -> None:
    name, text = file.name, file.text
    if file.other and not group.has(name):
        name, text = file.other
    if file.optional and not group.has(name):
        return  # as Docker warns: a kernel without it, and the container runs without
    try:
        write_file(group.file(name), text)
    except OSError as error:
        if file.optional and error.errno == ENOTSUPP:
            return
        words = error.strerror
        if error.errno == errno.ENOENT:
            words = f"this kernel has no {' or '.join(dict.fromkeys((file.name, name)))}"
        raise OSError(error.errno, f"linux.resources.{file.key}: {words}") from None


# %% notebooks/08_control_groups.ipynb#update
def with_what_holds(group: Cgroup, resources: dict[str, Any]) -> dict[str, Any]:
    """Add to an update what the kernel wants to hear in one breath with it, as it stands now.

    Raises OSError(EBUSY) by memory.checkBeforeUpdate for a limit that is used up already.
    """
    memory, cpu = dict(resources.get("memory") or {}), dict(resources.get("cpu") or {})
    if memory.get("checkBeforeUpdate") and 0 < (memory.get("limit") or 0) < _usage(group):
        raise OSError(
            errno.EBUSY,
            f"linux.resources.memory.limit: {memory['limit']} is less than what is used now",
        )
    if memory.get("swap") and not memory.get("limit") and group.has("memory.max"):
        memory["limit"] = int(group.read("memory.max").replace("max", "-1"))
    if cpu.get("period") and not cpu.get("quota") and group.has("cpu.max"):
        cpu["quota"] = int(group.read("cpu.max").split()[0].replace("max", "-1"))
    return {**resources, "memory": memory, "cpu": cpu}


def _usage(group: Cgroup) -> int:
    """Return the bytes of memory in use; 0 where nobody counts."""
    names = ("memory.current", "memory.usage_in_bytes")
    return next((int(group.read(name)) for name in names if group.has(name)), 0)
