# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#tree-module
"""Control groups: find the hierarchies of this machine, make a group, limit it, enter, kill, remove."""

from __future__ import annotations

import os
import re
import time
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from mini_docker.linux.step import Step

    class Limit(NamedTuple):
        """One key of linux.resources and the files that obey it in v1 and v2."""

        key: tuple[str, str]
        v1: tuple[str, str]
        v2: tuple[str, str]

else:
    from mini_docker.linux.step import Step

    Limit = namedtuple("Limit", ("key", "v1", "v2"))


# %% notebooks/08_control_groups.ipynb#control-files
def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write_file(path: str, text: str) -> None:
    """Write `text` to a control file in one write(2); the kernel's answer is the OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r} to {path}: {error.strerror}") from None
    finally:
        os.close(fd)


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
OCTAL = re.compile(r"\\([0-7]{3})")
LIMITS = (
    Limit(("memory", "limit"), ("memory", "memory.limit_in_bytes"), ("memory", "memory.max")),
    Limit(
        ("memory", "swap"), ("memory", "memory.memsw.limit_in_bytes"), ("memory", "memory.swap.max")
    ),
    Limit(("pids", "limit"), ("pids", "pids.max"), ("pids", "pids.max")),
    Limit(("cpu", "shares"), ("cpu", "cpu.shares"), ("cpu", "cpu.weight")),
    Limit(("cpu", "period"), ("cpu", "cpu.cfs_period_us"), ("cpu", "cpu.max")),
    Limit(("cpu", "quota"), ("cpu", "cpu.cfs_quota_us"), ("cpu", "cpu.max")),
)


class Hierarchies(namedtuple("Hierarchies", ("version", "mounts"))):
    """The control group trees of a machine.

    `version` is "v1", "hybrid" or "v2"; `mounts` maps a controller to the directory of its tree, and
    UNIFIED ("") to the v2 tree where there is one. Source: cgroups(7).
    """

    __slots__ = ()
    version: str
    mounts: dict[str, str]


def parse_hierarchies(mountinfo: str, unified_controllers: str | None = None) -> Hierarchies:
    """Read the trees out of the text of /proc/self/mountinfo, proc_pid_mountinfo(5).

    `unified_controllers` is the text of the v2 root's cgroup.controllers (None: read that file).
    """
    mounts: dict[str, str] = {}
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        fstype, _, super_options = tail.split(" ", 2)
        directory = OCTAL.sub(lambda found: chr(int(found[1], 8)), fields.split(" ")[4])
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
        unified_controllers = _read(f"{mounts[UNIFIED]}/cgroup.controllers")
    own = unified_controllers.split()
    mounts.update((controller, mounts[UNIFIED]) for controller in own)
    legacy = any(directory != mounts[UNIFIED] for directory in mounts.values())
    return Hierarchies("hybrid" if legacy else "v2", mounts)


def hierarchies() -> Hierarchies:
    """Return this machine's control group trees. Raises OSError(ENOENT) where none is mounted."""
    found = parse_hierarchies(_read("/proc/self/mountinfo"))
    if not found.mounts:
        raise FileNotFoundError(
            2,
            "no control group file system is mounted; remedy: mount -t cgroup2 none /sys/fs/cgroup",
        )
    return found


# %% notebooks/08_control_groups.ipynb#limits
def files_for(trees: Hierarchies, resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what to write as (controller, file, text), from the OCI document's linux.resources.

    Pure: numbers become each version's own words (v2 writes `max`, a swap without the memory in it, a
    weight of 1 to 10000, a quota and its period in one file). Source: OCI config-linux.md, cgroups(7).
    """
    files = []
    unified = trees.mounts.get(UNIFIED)
    for limit in LIMITS:
        value = resources.get(limit.key[0], {}).get(limit.key[1])
        if not value or limit.key == ("cpu", "period") and not resources["cpu"].get("quota"):
            continue
        is_v2 = trees.mounts.get(limit.v2[0]) == unified and unified is not None
        controller, name = limit.v2 if is_v2 else limit.v1
        if is_v2 and limit.key == ("cpu", "period"):
            continue  # written with the quota
        text = _v2_text(limit.key, value, resources) if is_v2 else _v1_text(limit.key, value)
        files.append((controller, name, text))
    return files


def _v1_text(key: tuple[str, str], value: int) -> str:
    return "max" if key[0] == "pids" and value < 0 else str(value)


def _v2_text(key: tuple[str, str], value: int, resources: dict[str, Any]) -> str:
    if key == ("cpu", "quota"):
        return f"{value if value > 0 else 'max'} {resources['cpu'].get('period') or 100_000}"
    if key == ("cpu", "shares"):
        return str(1 + (min(max(value, 2), 262_144) - 2) * 9999 // 262_142)
    if value < 0:
        return "max"
    if key == ("memory", "swap"):
        return str(max(0, value - resources["memory"].get("limit", 0)))
    return str(value)


# %% notebooks/08_control_groups.ipynb#cgroup
class Cgroup:
    """One group, a directory of the same name in each tree it needs.

    `directories` maps tree directory -> the group's directory in it.
    """

    def __init__(self, trees: Hierarchies, path: str) -> None:
        """Name the group at `path` ("/mini_docker/ID"); nothing is made yet."""
        self.trees = trees
        self.path = path
        self.directories = {root: root + path for root in dict.fromkeys(trees.mounts.values())}

    def create(self, resources: dict[str, Any]) -> None:
        """Make the group, mkdir(2), and write its limits; repeating it changes nothing. Raises OSError.

        A controller that a limit needs and this kernel lacks is a FileNotFoundError that names it.
        """
        files = files_for(self.trees, resources)
        for controller, name, _ in files:
            if controller not in self.trees.mounts:
                raise FileNotFoundError(
                    2, f"this kernel offers no cgroup controller '{controller}' ({name})"
                )
        self._use_only({controller for controller, _, _ in files})
        for directory in self.directories.values():
            self._make(directory, {controller for controller, _, _ in files})
        for controller, name, text in files:
            self._write(self.directories[self.trees.mounts[controller]], name, text)

    def _use_only(self, controllers: set[str]) -> None:
        """Keep the trees that a limit needs, and one tree to find the members by."""
        mounts = self.trees.mounts
        tracker = mounts.get(UNIFIED) or mounts.get("pids") or next(iter(mounts.values()))
        wanted = {self.trees.mounts[controller] for controller in controllers} | {tracker}
        self.directories = {root: path for root, path in self.directories.items() if root in wanted}

    def _make(self, directory: str, controllers: set[str]) -> None:
        """Make a group's directory; in v2 its parents must pass the controllers down first."""
        try:
            os.mkdir(directory)
        except FileExistsError:
            return
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
        root = self.trees.mounts.get(UNIFIED)
        if root is None or not directory.startswith(root + "/"):
            return
        enable = [name for name in sorted(controllers) if self.trees.mounts.get(name) == root]
        parent = root
        for part in self.path.strip("/").split("/"):
            for name in enable:
                _write_file(f"{parent}/cgroup.subtree_control", f"+{name}")
            parent = f"{parent}/{part}"

    def _write(self, directory: str, name: str, text: str) -> None:
        swap = name.startswith(("memory.memsw", "memory.swap"))
        if swap and not os.path.exists(f"{directory}/{name}"):
            return  # a kernel without swap accounting: the memory limit alone holds, as Docker warns
        _write_file(f"{directory}/{name}", text)

    def open_unified(self) -> int | None:
        """Return a descriptor of the group in the v2 tree, for a clone right into it, or None.

        To be born in a group is cheap; to move there makes the kernel wait for every CPU, 10 ms and more.
        """
        directory = self.directories.get(self.trees.mounts.get(UNIFIED, ""))
        return (
            os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if directory else None
        )

    def plan_enter(self, born_inside: bool = False) -> list[Step]:
        """Return the steps by which a process moves itself into the group (0 means the writer).

        `born_inside` leaves out the v2 tree: the clone has put it there already.
        """
        unified = self.trees.mounts.get(UNIFIED)
        return [
            Step(f"enter control group {path}", _write_file, (f"{path}/cgroup.procs", "0"))
            for tree, path in self.directories.items()
            if not (born_inside and tree == unified)
        ]

    def members(self) -> list[int]:
        """Return the pids in the group and the groups below it, in all trees; one that is gone has none.

        A process of a pid namespace that we do not see is shown as 0, and left out: it is nobody's name.
        """
        pids: set[int] = set()
        for top in self.directories.values():
            for directory, _, _ in os.walk(top):
                try:
                    pids.update(int(line) for line in _read(f"{directory}/cgroup.procs").split())
                except OSError:
                    continue
        return sorted(pids - {0})

    def kill(self) -> None:
        """Kill every member: cgroup.kill where the kernel has it (5.14), a signal each otherwise."""
        unified = self.directories.get(self.trees.mounts.get(UNIFIED, "/"), "/nowhere")
        try:
            _write_file(f"{unified}/cgroup.kill", "1")
        except OSError:
            pass
        deadline = time.monotonic() + 5
        while members := self.members():
            for pid in members:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
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
    deadline = time.monotonic() + 2
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
