# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#resources-module
"""What a document asks for, as files to write: every key of linux.resources, in both versions' words."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NamedTuple

    from mini_docker.cgroups.tree import Hierarchies

    class File(NamedTuple):
        """A control file to write: its name, the text, and the key of linux.resources that asks for it.

        `other` is the (name, text) that says the same where the kernel lacks `name`. Without either it is
        an error, unless the file is `optional`.
        """

        name: str
        text: str
        key: str
        other: tuple[str, str] | None = None
        optional: bool = False

    class Row(NamedTuple):
        """A key whose value is one number: its least and greatest, and each version's file ("": none)."""

        key: str
        least: int
        most: int
        v1: str
        v2: str

else:
    File = namedtuple("File", ("name", "text", "key", "other", "optional"), defaults=(None, False))
    Row = namedtuple("Row", ("key", "least", "most", "v1", "v2"))


# %% notebooks/08_control_groups.ipynb#numbers
LONG = (1 << 63) - 1
ROWS = (
    Row("memory.limit", -1, LONG, "memory.limit_in_bytes", "memory.max"),
    Row("memory.swap", -1, LONG, "memory.memsw.limit_in_bytes", "memory.swap.max"),
    Row("memory.reservation", -1, LONG, "memory.soft_limit_in_bytes", "memory.low"),
    Row("memory.kernel", -1, LONG, "memory.kmem.limit_in_bytes", ""),
    Row("memory.kernelTCP", -1, LONG, "memory.kmem.tcp.limit_in_bytes", ""),
    Row("memory.swappiness", 0, 100, "memory.swappiness", ""),
    Row("cpu.shares", 0, 262_144, "cpu.shares", "cpu.weight"),
    Row("cpu.period", 0, LONG, "cpu.cfs_period_us", ""),  # v2 writes it with the quota
    Row("cpu.quota", -LONG, LONG, "cpu.cfs_quota_us", "cpu.max"),
    Row("cpu.burst", 0, LONG, "cpu.cfs_burst_us", "cpu.max.burst"),
    Row("cpu.realtimePeriod", 0, LONG, "cpu.rt_period_us", ""),
    Row("cpu.realtimeRuntime", 0, LONG, "cpu.rt_runtime_us", ""),
    Row("cpu.idle", 0, 1, "cpu.idle", "cpu.idle"),
    Row("pids.limit", -LONG, LONG, "pids.max", "pids.max"),
    Row("blockIO.weight", 0, 1000, "blkio.weight", "io.bfq.weight"),
    Row("blockIO.leafWeight", 0, 1000, "blkio.leaf_weight", ""),
    Row("network.classID", 0, (1 << 32) - 1, "net_cls.classid", ""),
)
# keys whose 0 is a number like any other; everywhere else it means "not said"
ZERO_COUNTS = {"memory.swappiness", "cpu.burst", "cpu.idle"}
# a kernel may lack these, and then the container runs without them, as with runc
OPTIONAL = {"memory.swap", "memory.kernel", "memory.kernelTCP"}
THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}
CPU_LIST = r"\d+(-\d+)?(,\d+(-\d+)?)*"
PAGE_SIZE = r"[1-9]\d*[KMG]B"
FILE_NAME = r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+"


# %% notebooks/08_control_groups.ipynb#checked
class Wrong(ValueError):
    """A value of linux.resources that cannot be obeyed; the text begins with its JSON path."""

    def __init__(self, key: str, why: str) -> None:
        """Say which key is wrong, and why."""
        super().__init__(f"linux.resources.{key}: {why}")


def is_like(pattern: str, text: str) -> bool:
    """Say whether all of `text` fits a pattern; re is imported only where a document has such a key."""
    import re

    return re.fullmatch(pattern, text) is not None


def controller_of(file: str) -> str:
    """Return the controller that a control file belongs to; the core's own files are of "cgroup"."""
    return file.partition(".")[0]


def _kind(value: Any, kind: type, key: str, words: str) -> Any:
    """Return `value` if it is of that kind, and the kind's empty value for null. Raises Wrong."""
    if value is None:
        return kind()
    if not isinstance(value, kind) or isinstance(value, bool) and kind is int:
        raise Wrong(key, f"{value!r} is not {words}")
    return value


def _section(resources: dict[str, Any], name: str) -> dict[str, Any]:
    section: dict[str, Any] = _kind(resources.get(name), dict, name, "an object")
    return section


def _list(section: dict[str, Any], name: str, key: str) -> list[Any]:
    entries: list[Any] = _kind(section.get(name), list, key, "a list")
    return entries


def _number(section: dict[str, Any], name: str, key: str, least: int, most: int) -> int:
    """Return the whole number `name` of a section, 0 where it is not given. Raises Wrong."""
    value: int = _kind(section.get(name), int, key, "a whole number")
    if not least <= value <= most:
        raise Wrong(key, f"{value} is not between {least} and {most}")
    return value


# %% notebooks/08_control_groups.ipynb#words
def weight_of(shares: int) -> int:
    """Return v2's cpu.weight (1 to 10000) for v1's cpu.shares (2 to 262144), as runc and crun map it."""
    return 1 + (max(shares, 2) - 2) * 9999 // 262_142


def io_weight_of(weight: int) -> int:
    """Return v2's io.weight (1 to 10000) for a blkio weight (10 to 1000)."""
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def _v2_words(key: str, value: int, section: dict[str, Any]) -> str:
    """Return what v2 writes for the number of a row: other units, `max` for "no limit"."""
    if key == "cpu.quota":
        return f"{value if value > 0 else 'max'} {section.get('period') or 100_000}"
    if key == "cpu.shares":
        return str(weight_of(value))
    if key == "memory.swap" and value > 0:
        return str(_swap_alone(value, section.get("limit") or 0))
    return "max" if value < 0 else str(value)


def _swap_alone(swap: int, memory: int) -> int:
    """Return v2's swap, which does not count memory. Raises Wrong where the document makes no sense."""
    if memory <= 0:
        raise Wrong(
            "memory.swap", f"{swap} is memory and swap together, and memory.limit is missing"
        )
    if swap < memory:
        raise Wrong(
            "memory.swap", f"{swap} is less than memory.limit, which it includes ({memory})"
        )
    return swap - memory


# %% notebooks/08_control_groups.ipynb#files-for
def files_for(trees: Hierarchies, resources: dict[str, Any]) -> list[File]:
    """Return the control files to write for linux.resources, in order. Devices are not among them.

    Pure. Keys that this version of control groups has no word for are left out: see `unheard`. Raises
    Wrong (a ValueError) with the JSON path of a bad value. Source: OCI config-linux.md, cgroups(7),
    the kernel's cgroup-v1/ and cgroup-v2.rst.
    """
    planners: tuple[Callable[[Hierarchies, dict[str, Any]], Iterator[File]], ...] = (
        _cpuset,
        _rows,
        _memory_switches,
        _weights_of_devices,
        _throttles,
        _huge_pages,
        _rdma,
        _priorities,
        _unified,
    )
    return [file for planner in planners for file in planner(trees, resources)]


def _rows(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield the files of all keys that are one number."""
    for row in ROWS:
        name, _, short = row.key.partition(".")
        section = _section(resources, name)
        value = _number(section, short, row.key, row.least, row.most)
        if not value and (row.key not in ZERO_COUNTS or section.get(short) is None):
            continue
        if row.key == "blockIO.weight":
            yield _weight(trees, value)
        elif trees.speaks_v2(controller_of(row.v1)):
            if row.v2:
                words = _v2_words(row.key, value, section)
                yield File(row.v2, words, row.key, None, row.key in OPTIONAL)
            elif row.key == "cpu.period" and not section.get("quota"):
                yield File("cpu.max", f"max {value}", row.key)
        else:
            # pids.max alone says `max` in v1 too
            words = "max" if row.key == "pids.limit" and value < 0 else str(value)
            yield File(row.v1, words, row.key, None, row.key in OPTIONAL)


def _cpuset(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield which processors and memory nodes may be used: lists such as 0-2,7."""
    for name in ("cpus", "mems"):
        key = f"cpu.{name}"
        text = _kind(_section(resources, "cpu").get(name), str, key, "a string")
        if text and not is_like(CPU_LIST, text):
            raise Wrong(key, f"{text!r} is not a list such as 0-2,7")
        if text:
            yield File(f"cpuset.{name}", text, key)


def _memory_switches(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield v1's oom killer and hierarchy; v2 always has both."""
    memory = _section(resources, "memory")
    for name, file in (("disableOOMKiller", "oom_control"), ("useHierarchy", "use_hierarchy")):
        on = _kind(memory.get(name), bool, f"memory.{name}", "true or false")
        if on and not trees.speaks_v2("memory"):
            yield File(f"memory.{file}", "1", f"memory.{name}")


# %% notebooks/08_control_groups.ipynb#block-io
def _weight(trees: Hierarchies, weight: int, device: str = "", key: str = "blockIO.weight") -> File:
    """Return the share of a busy disk, of all disks or of one `device` ("8:0 " with its space)."""
    if not 10 <= weight <= 1000:
        raise Wrong(key, f"{weight} is not between 10 and 1000")
    bfq = f"{device}{weight}"
    if trees.speaks_v2("blkio"):
        return File("io.bfq.weight", bfq, key, ("io.weight", f"{device}{io_weight_of(weight)}"))
    tail = "_device" if device else ""
    return File(f"blkio.weight{tail}", bfq, key, (f"blkio.bfq.weight{tail}", bfq))


def _device_number(entry: Any, key: str) -> str:
    """Return `major:minor` of an entry. Raises Wrong."""
    if not isinstance(entry, dict):
        raise Wrong(key, f"{entry!r} is not an object")
    for name in ("major", "minor"):
        if entry.get(name) is None:
            raise Wrong(f"{key}.{name}", "is missing")
    numbers = [_number(entry, name, f"{key}.{name}", 0, 1 << 20) for name in ("major", "minor")]
    return "{}:{}".format(*numbers)


def _weights_of_devices(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield the shares of single disks."""
    listed = _list(_section(resources, "blockIO"), "weightDevice", "blockIO.weightDevice")
    for index, entry in enumerate(listed):
        key = f"blockIO.weightDevice[{index}]"
        device = _device_number(entry, key)
        if weight := _number(entry, "weight", f"{key}.weight", 0, 1000):
            yield _weight(trees, weight, f"{device} ", f"{key}.weight")


def _throttles(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield the bytes and operations a second that single disks may do; 0 takes a limit away."""
    section = _section(resources, "blockIO")
    for name, (v1, v2) in THROTTLES.items():
        for index, entry in enumerate(_list(section, name, f"blockIO.{name}")):
            key = f"blockIO.{name}[{index}]"
            device = _device_number(entry, key)
            rate = _number(entry, "rate", f"{key}.rate", 0, LONG)
            if trees.speaks_v2("blkio"):
                yield File("io.max", f"{device} {v2}={rate or 'max'}", key)
            else:
                yield File(v1, f"{device} {rate}", key)


# %% notebooks/08_control_groups.ipynb#the-rest
def _huge_pages(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield the limits of huge pages, and of their reservations where the kernel counts those."""
    for index, entry in enumerate(_list(resources, "hugepageLimits", "hugepageLimits")):
        key = f"hugepageLimits[{index}]"
        size = _kind(entry, dict, key, "an object").get("pageSize")
        if not is_like(PAGE_SIZE, _kind(size, str, f"{key}.pageSize", "a string")):
            raise Wrong(f"{key}.pageSize", f"{size!r} is not a size such as 2MB")
        limit = str(_number(entry, "limit", f"{key}.limit", 0, LONG))
        last = "max" if trees.speaks_v2("hugetlb") else "limit_in_bytes"
        yield File(f"hugetlb.{size}.{last}", limit, key)
        yield File(f"hugetlb.{size}.rsvd.{last}", limit, key, None, True)


def _rdma(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield the limits of remote memory adapters."""
    for device, entry in _section(resources, "rdma").items():
        key = f"rdma.{device}"
        words = [device]
        for name, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if _kind(entry, dict, key, "an object").get(name) is not None:
                number = _number(entry, name, f"{key}.{name}", 0, (1 << 32) - 1)
                words.append(f"{word}={number}")
        yield File("rdma.max", " ".join(words), key)


def _priorities(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield v1's priorities of network cards."""
    entries = _list(_section(resources, "network"), "priorities", "network.priorities")
    for index, entry in enumerate(entries):
        key = f"network.priorities[{index}]"
        name = _kind(_kind(entry, dict, key, "an object").get("name"), str, key, "a string")
        priority = _number(entry, "priority", f"{key}.priority", 0, (1 << 32) - 1)
        if not trees.speaks_v2("net_prio"):
            yield File("net_prio.ifpriomap", f"{name} {priority}", key)


def _unified(trees: Hierarchies, resources: dict[str, Any]) -> Iterator[File]:
    """Yield files of v2 that the document names itself, a line of text each. They have the last word."""
    for name, text in _section(resources, "unified").items():
        key = f"unified.{name}"
        if not is_like(FILE_NAME, name):
            raise Wrong(key, "is no name of a control file")
        if not trees.speaks_v2(controller_of(name)):
            raise Wrong(key, f"no v2 tree of this machine has a controller {controller_of(name)!r}")
        for line in _kind(text, str, key, "a string").splitlines():
            yield File(name, line, key)


def unheard(trees: Hierarchies, resources: dict[str, Any]) -> list[str]:
    """Return the keys that are set and that this machine's version of control groups has no word for.

    They are left out silently by the runtime, as runc does; an engine warns of them, as Docker does.
    """
    found = []
    for row in ROWS:
        name, _, short = row.key.partition(".")
        wordless = not row.v2 and row.key != "cpu.period" and trees.speaks_v2(controller_of(row.v1))
        value = _section(resources, name).get(short)
        if wordless and (value or value is not None and row.key in ZERO_COUNTS):
            found.append(row.key)
    for name in ("disableOOMKiller", "useHierarchy"):
        if _section(resources, "memory").get(name) and trees.speaks_v2("memory"):
            found.append(f"memory.{name}")
    return found
