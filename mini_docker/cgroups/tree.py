# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#tree-module
"""Control groups: find the trees of this machine, make a group, limit it, enter, freeze, kill, remove."""

from __future__ import annotations

import os
import time
from collections import namedtuple

from mini_docker.cgroups.files import make_directory, read_file, write_file
from mini_docker.cgroups.freezer import is_frozen, set_frozen
from mini_docker.cgroups.limits import Limits, with_what_holds
from mini_docker.cgroups.resources import controller_of
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cgroups.stats import Stats


# %% notebooks/08_control_groups.ipynb#find-trees
UNIFIED = ""
# what stands among the controllers in a v1 mount's options and is none
NO_CONTROLLERS = {
    "rw",
    "ro",
    "all",
    "none",
    "xattr",
    "noprefix",
    "clone_children",
    "cpuset_v2_mode",
}
# what v1 has a controller for and v2 another one, or a file in every group ("cgroup")
V2_NAMES = {"blkio": "io", "cpuacct": "cpu", "freezer": "cgroup"}


class Hierarchies(namedtuple("Hierarchies", ("version", "mounts"))):
    """The control group trees of a machine.

    `version` is "v1", "hybrid" or "v2"; `mounts` maps a controller to the directory of its tree, and
    UNIFIED ("") to the v2 tree where there is one. Source: cgroups(7).
    """

    __slots__ = ()
    version: str
    mounts: dict[str, str]

    @property
    def unified(self) -> str | None:
        """The directory of the v2 tree, or None."""
        return self.mounts.get(UNIFIED)

    def tree_of(self, controller: str) -> str | None:
        """Return the directory of a controller's tree, or None; the core's own files ("cgroup") are v2's."""
        return self.mounts.get(UNIFIED if controller == "cgroup" else controller)

    def speaks_v2(self, controller: str) -> bool:
        """Say whether a controller, by its name in either version, is to be told in the words of v2."""
        if self.unified is None or self.mounts.get(controller, self.unified) != self.unified:
            return False
        return (
            self.version == "v2" or self.tree_of(V2_NAMES.get(controller, controller)) is not None
        )


def unescape(text: str) -> str:
    """Return a path of mountinfo with its escapes undone: a space is written \\040, proc_pid_mountinfo(5)."""
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def parse_hierarchies(mountinfo: str, unified_controllers: str | None = None) -> Hierarchies:
    """Read the trees out of the text of /proc/self/mountinfo, proc_pid_mountinfo(5).

    `unified_controllers` is the text of the v2 root's cgroup.controllers (None: read that file).
    """
    mounts: dict[str, str] = {}
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        fstype, _, super_options = tail.split(" ", 2)
        directory = unescape(fields.split(" ")[4])
        if fstype == "cgroup2":
            mounts.setdefault(UNIFIED, directory)
        elif fstype == "cgroup":
            for option in super_options.split(","):
                name = option.removeprefix("name=")
                if name not in NO_CONTROLLERS and "=" not in name:
                    mounts.setdefault(name, directory)
    if UNIFIED not in mounts:
        return Hierarchies("v1", mounts)
    if unified_controllers is None:
        unified_controllers = read_file(f"{mounts[UNIFIED]}/cgroup.controllers")
    own = unified_controllers.split()
    mounts.update((controller, mounts[UNIFIED]) for controller in own)
    legacy = any(directory != mounts[UNIFIED] for directory in mounts.values())
    return Hierarchies("hybrid" if legacy else "v2", mounts)


def hierarchies() -> Hierarchies:
    """Return this machine's control group trees. Raises OSError(ENOENT) where none is mounted."""
    found = parse_hierarchies(read_file("/proc/self/mountinfo"))
    if not found.mounts:
        raise FileNotFoundError(
            2,
            "no control group file system is mounted; remedy: mount -t cgroup2 none /sys/fs/cgroup",
        )
    return found


# %% notebooks/08_control_groups.ipynb#cgroup
class Cgroup:
    """One group, a directory of the same name in each tree it needs.

    `directories` maps tree directory -> the group's directory in it.
    """

    def __init__(self, trees: Hierarchies, path: str) -> None:
        """Name the group at `path` ("/mini_docker/ID"); nothing is made yet. Raises ValueError."""
        if not path.strip("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"linux.cgroupsPath: {path!r} is no path of a control group")
        self.trees = trees
        self.path = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        self.directories = {root: root + self.path for root in dict.fromkeys(trees.mounts.values())}

    @classmethod
    def find(cls, trees: Hierarchies, path: str) -> Cgroup:
        """Return the group that another process made, to read, limit or kill it.

        Raises FileNotFoundError where no tree has it.
        """
        group = cls(trees, path)
        there = {root: name for root, name in group.directories.items() if os.path.isdir(name)}
        if not there:
            raise FileNotFoundError(2, f"there is no control group {path}")
        group.directories = there
        return group

    def create(self, resources: dict[str, Any], everywhere: bool = False) -> None:
        """Make the group and write its limits; repeating it changes nothing.

        v1 costs a directory and a move for each tree, so only those that a limit needs are used; with
        `everywhere` all, and `stats` knows all numbers there too. What cannot be made is an OSError, a
        wrong value a ValueError; either names the key, and leaves nothing.
        """
        limits = Limits(self.trees, resources)
        self._use_only(set(self.trees.mounts) if everywhere else limits.controllers)
        made = [
            directory
            for root, directory in self.directories.items()
            if make_directory(self.trees, root, self.path)
        ]
        try:
            limits.write(self)
        except BaseException:
            for directory in made:
                _remove_group(directory)
            raise

    def update(self, resources: dict[str, Any]) -> None:
        """Write the limits of a group that is there, and only those that are given; members follow.

        Raises as `create` does; memory.checkBeforeUpdate refuses a limit that is used up already.
        """
        limits = Limits(self.trees, with_what_holds(self, resources))
        for controller in limits.controllers:
            self.join_tree(controller)
        limits.write(self)

    def _use_only(self, controllers: set[str]) -> None:
        """Keep the trees of `controllers`, and one tree to find, freeze and kill the members by."""
        mounts = self.trees.mounts
        tracker = next(
            (mounts[name] for name in (UNIFIED, "freezer", "pids") if name in mounts),
            next(iter(mounts.values())),
        )
        wanted = {self.trees.tree_of(controller) for controller in controllers} | {tracker}
        self.directories = {root: root + self.path for root in wanted if root is not None}

    def join_tree(self, controller: str) -> None:
        """Have the group in that controller's tree too, with the members it has by now. Raises OSError."""
        root = self.trees.tree_of(controller)
        if root is None or os.path.isdir(self.directories.get(root, "")):
            return
        members = self.members()
        make_directory(self.trees, root, self.path)
        self.directories[root] = root + self.path
        for pid in members:
            try:
                write_file(f"{root}{self.path}/cgroup.procs", str(pid))
            except ProcessLookupError:
                continue

    def file(self, name: str) -> str:
        """Return the path of the group's control file `name`, in the tree of its controller."""
        root = self.trees.tree_of(controller_of(name))
        return f"{root}{self.path}/{name}" if root else "/dev/null/no such tree"

    def read_unified(self, name: str) -> str:
        """Return a file that v2's own accounting has in every group, also where the controller is v1's."""
        directory = self.directories.get(self.trees.unified or "/")
        try:
            return read_file(f"{directory}/{name}") if directory else ""
        except OSError:
            return ""

    def has(self, name: str) -> bool:
        """Say whether the group has a control file of that name."""
        return os.path.exists(self.file(name))

    def read(self, name: str) -> str:
        """Return the text of a control file, "" where the group has none of that name."""
        try:
            return read_file(self.file(name)).strip()
        except OSError:
            return ""

    def settle(self) -> None:
        """Hear that a process of the container is in the group by now. Here nothing waits for that."""

    def delegate(self, uid: int, gid: int) -> None:
        """Give the v2 group to a user, who may then make groups in it, and not loosen its limits.

        Source: OCI config-linux.md, "cgroup ownership"; cgroups(7), "delegation".
        """
        directory = self.directories.get(self.trees.unified or "/")
        if directory is None:
            return
        os.chown(directory, uid, gid)
        for name in read_file("/sys/kernel/cgroup/delegate").split():
            if os.path.exists(f"{directory}/{name}"):
                os.chown(f"{directory}/{name}", uid, gid)

    def open_unified(self) -> int | None:
        """Return a descriptor of the group in the v2 tree, for a clone right into it, or None.

        To be born in a group is cheap; to move there makes the kernel wait for every CPU, 10 ms and more.
        """
        directory = self.directories.get(self.trees.mounts.get(UNIFIED, ""))
        return (
            os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if directory else None
        )

    def plan_enter(self, born_inside: bool = False) -> list[Step]:
        """Return the steps by which a process of one thread moves itself into the group (0 means the writer).

        In a v1 tree it writes to `tasks`: a thread that moves itself waits for nobody, where cgroup.procs
        waits for every CPU (7 ms against 0.1 on Linux 6.18). `born_inside` leaves out the v2 tree: the
        clone has put it there already.
        """
        return [
            Step(f"enter control group {path}", write_file, (f"{path}/{door}", "0"))
            for tree, path in self.directories.items()
            for door in ["cgroup.procs" if tree == self.trees.unified else "tasks"]
            if not (born_inside and tree == self.trees.unified)
        ]

    def members(self) -> list[int]:
        """Return the pids in the group and the groups below it, in all trees; one that is gone has none.

        A process of a pid namespace that we do not see is shown as 0, and left out: it is nobody's name.
        """
        pids: set[int] = set()
        for top in self.directories.values():
            for directory, _, _ in os.walk(top):
                try:
                    pids.update(
                        int(line) for line in read_file(f"{directory}/cgroup.procs").split()
                    )
                except OSError:
                    continue
        return sorted(pids - {0})

    def freeze(self) -> None:
        """Stop all members where they are, and return when all stand still. Raises as `set_frozen`."""
        set_frozen(self, True)

    def thaw(self) -> None:
        """Let all members go on. Raises as `set_frozen`."""
        set_frozen(self, False)

    def is_frozen(self) -> bool:
        """Say whether all members stand still."""
        return is_frozen(self)

    def stats(self) -> Stats:
        """Return what the group uses and has used, in plain numbers."""
        from mini_docker.cgroups.stats import read_stats

        return read_stats(self)

    def oom_kills(self) -> int:
        """Return how many members the kernel has killed because the memory limit was reached."""
        from mini_docker.cgroups.stats import number_after

        events = self.read("memory.events") or self.read("memory.oom_control")
        return number_after("oom_kill", events)

    def kill(self) -> None:
        """Kill every member, frozen ones too: cgroup.kill (Linux 5.14), a signal each otherwise."""
        try:
            write_file(self.file("cgroup.kill"), "1")
        except OSError:
            pass
        deadline = time.monotonic() + 20
        while members := self.members():
            for pid in members:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            if self.read("freezer.state") not in ("", "THAWED"):
                self.thaw()  # v1 keeps even a killed process frozen
            if time.monotonic() > deadline:
                raise TimeoutError(16, f"control group {self.path}: processes {members} do not die")
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove the group with what lies below it; one that is gone is fine. Raises OSError(EBUSY)."""
        for directory in self.directories.values():
            _remove_group(directory)


# %% notebooks/08_control_groups.ipynb#remove-group
def _remove_group(directory: str) -> None:
    """Remove a group's directory, children first; wait a moment for members that are still exiting."""
    deadline = time.monotonic() + 20
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        try:
            with os.scandir(directory) as entries:
                children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return
        for child in children:
            _remove_group(child)
        if not children:
            time.sleep(0.001)
