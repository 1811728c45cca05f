"""Control groups: the trees found in mountinfo texts, each version's words, and groups of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.cgroups import files, limits, tree
from mini_docker.cgroups.files import pass_down, read_file
from mini_docker.cgroups.resources import Wrong, controller_of, files_for, unheard
from mini_docker.cgroups.tree import (
    UNIFIED,
    Cgroup,
    Hierarchies,
    hierarchies,
    parse_hierarchies,
)
from mini_docker.linux.step import apply
from tests.conftest import cannot_run_here

MB = 1 << 20
V1_TEXT = """\
30 23 0:27 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 master:2 - cgroup cgroup rw,cpu,cpuacct
33 30 0:30 / /sys/fs/cgroup/memory rw - cgroup  rw,memory,clone_children
34 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 23 0:28 / /elsewhere/memory rw - cgroup cgroup rw,memory
36 23 8:1 / / rw - ext4 /dev/root rw
"""
V2_TEXT = "25 23 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
UNIFIED_TEXT = "40 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n"


def test_v1_trees_are_found_by_controller() -> None:
    found = parse_hierarchies(V1_TEXT)
    root = "/sys/fs/cgroup"
    assert found.version == "v1"
    assert found.mounts["memory"] == f"{root}/memory"
    assert found.mounts["cpu"] == found.mounts["cpuacct"] == f"{root}/cpu,cpuacct"
    assert found.mounts["systemd"] == f"{root}/systemd"
    assert UNIFIED not in found.mounts


@pytest.mark.parametrize("option", ["rw", "xattr", "clone_children"])
def test_a_mount_option_is_no_controller(option: str) -> None:
    assert option not in parse_hierarchies(V1_TEXT).mounts


def test_v2_and_hybrid_trees() -> None:
    v2 = parse_hierarchies(V2_TEXT, "cpu memory pids\n")
    assert v2 == ("v2", dict.fromkeys(("", "cpu", "memory", "pids"), "/sys/fs/cgroup"))
    hybrid = parse_hierarchies(V1_TEXT + UNIFIED_TEXT, "hugetlb\n")
    assert hybrid.version == "hybrid"
    assert hybrid.mounts[UNIFIED] == hybrid.mounts["hugetlb"] == "/sys/fs/cgroup/unified"
    assert hybrid.mounts["memory"] == "/sys/fs/cgroup/memory"


def test_a_mount_point_with_a_space_is_decoded() -> None:
    """mountinfo writes a space as \\040, proc_pid_mountinfo(5)."""
    text = V2_TEXT.replace("/sys/fs/cgroup", r"/my\040groups")
    assert parse_hierarchies(text, "").mounts[UNIFIED] == "/my groups"


def test_a_machine_without_trees_is_told_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "read_file", lambda path: "36 23 8:1 / / rw - ext4 /dev/root rw\n")
    with pytest.raises(FileNotFoundError, match="remedy: mount -t cgroup2"):
        hierarchies()


ALL_V1 = (
    "cpu cpuacct cpuset memory devices freezer blkio pids hugetlb rdma net_cls net_prio".split()
)
V1 = Hierarchies("v1", {name: f"/cg/{name}" for name in ALL_V1})
V2 = Hierarchies(
    "v2", dict.fromkeys(["", *"cpuset cpu io memory hugetlb pids rdma".split()], "/cg")
)
CPUSET = "cpuset.cpus=0-2,7, cpuset.mems=0"
RDMA = "rdma.max=mlx5_1 hca_handle=3 hca_object=0"
SDA = {"major": 8, "minor": 0}
FILES: list[tuple[dict[str, Any], str, str]] = [
    # linux.resources, what v1 gets, what v2 gets
    ({}, "", ""),
    ({"memory": None, "cpu": {}, "blockIO": {"weight": None}}, "", ""),
    # a zero means "not said": Docker sends these two whoever asks for nothing
    ({"cpu": {"shares": 0}, "blockIO": {"weight": 0}}, "", ""),
    ({"memory": {"limit": 0, "swap": 0}, "pids": {"limit": 0}}, "", ""),
    # ... and in these it is a number
    ({"memory": {"swappiness": 0}}, "memory.swappiness=0", ""),
    (
        {"cpu": {"burst": 0, "idle": 0}},
        "cpu.cfs_burst_us=0, cpu.idle=0",
        "cpu.max.burst=0, cpu.idle=0",
    ),
    (
        {"memory": {"limit": 64, "swap": 96, "reservation": 32}},
        "memory.limit_in_bytes=64, memory.memsw.limit_in_bytes=96, memory.soft_limit_in_bytes=32",
        "memory.max=64, memory.swap.max=32, memory.low=32",
    ),
    (
        {"memory": {"limit": 64, "swap": -1}},
        "memory.limit_in_bytes=64, memory.memsw.limit_in_bytes=-1",
        "memory.max=64, memory.swap.max=max",
    ),
    ({"memory": {"limit": -1}}, "memory.limit_in_bytes=-1", "memory.max=max"),
    (
        {"memory": {"kernel": 9, "kernelTCP": 8, "disableOOMKiller": True, "useHierarchy": True}},
        "memory.kmem.limit_in_bytes=9, memory.kmem.tcp.limit_in_bytes=8, memory.oom_control=1, "
        "memory.use_hierarchy=1",
        "",
    ),
    ({"memory": {"disableOOMKiller": False}}, "", ""),
    ({"pids": {"limit": 8}}, "pids.max=8", "pids.max=8"),
    ({"pids": {"limit": -1}}, "pids.max=max", "pids.max=max"),  # -1 is EINVAL in v1 too
    (
        {"cpu": {"period": 50_000, "quota": 25_000, "burst": 5}},
        "cpu.cfs_period_us=50000, cpu.cfs_quota_us=25000, cpu.cfs_burst_us=5",
        "cpu.max=25000 50000, cpu.max.burst=5",
    ),
    ({"cpu": {"period": 50_000}}, "cpu.cfs_period_us=50000", "cpu.max=max 50000"),
    ({"cpu": {"quota": 25_000}}, "cpu.cfs_quota_us=25000", "cpu.max=25000 100000"),
    ({"cpu": {"quota": -1}}, "cpu.cfs_quota_us=-1", "cpu.max=max 100000"),
    ({"cpu": {"shares": 2}}, "cpu.shares=2", "cpu.weight=1"),
    ({"cpu": {"shares": 1024}}, "cpu.shares=1024", "cpu.weight=39"),
    ({"cpu": {"shares": 262_144}}, "cpu.shares=262144", "cpu.weight=10000"),
    (
        {"cpu": {"realtimePeriod": 9, "realtimeRuntime": 8}},
        "cpu.rt_period_us=9, cpu.rt_runtime_us=8",
        "",
    ),
    ({"cpu": {"cpus": "0-2,7", "mems": "0"}}, CPUSET, CPUSET),
    ({"blockIO": {"weight": 500}}, "blkio.weight=500", "io.bfq.weight=500"),
    (
        {"blockIO": {"weightDevice": [{**SDA, "weight": 10}]}},
        "blkio.weight_device=8:0 10",
        "io.bfq.weight=8:0 10",
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{**SDA, "rate": 9}, {"major": 8, "minor": 16, "rate": 7}]
            }
        },
        "blkio.throttle.read_bps_device=8:0 9, blkio.throttle.read_bps_device=8:16 7",
        "io.max=8:0 rbps=9, io.max=8:16 rbps=7",
    ),
    (
        {"blockIO": {"throttleWriteIOPSDevice": [{**SDA, "rate": 0}]}},
        "blkio.throttle.write_iops_device=8:0 0",
        "io.max=8:0 wiops=max",
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
        "hugetlb.2MB.limit_in_bytes=0, hugetlb.2MB.rsvd.limit_in_bytes=0",
        "hugetlb.2MB.max=0, hugetlb.2MB.rsvd.max=0",
    ),
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}}},
        RDMA,
        RDMA,
    ),
    (
        {"network": {"classID": 1_048_577, "priorities": [{"name": "eth0", "priority": 5}]}},
        "net_cls.classid=1048577, net_prio.ifpriomap=eth0 5",
        "",
    ),
    ({"anything else": {"is": "ignored"}}, "", ""),
]


@pytest.mark.parametrize(("resources", "v1", "v2"), FILES, ids=lambda value: str(value)[:40])
def test_the_words_of_each_version(resources: dict[str, Any], v1: str, v2: str) -> None:
    for trees, words in ((V1, v1), (V2, v2)):
        files = files_for(trees, resources)
        assert ", ".join(f"{file.name}={file.text}" for file in files) == words
        assert all(controller_of(file.name) in trees.mounts for file in files)


def test_a_hybrid_machine_is_told_in_the_words_of_the_tree_that_has_the_controller() -> None:
    trees = Hierarchies("hybrid", {"": "/2", "memory": "/1/memory", "io": "/2", "pids": "/1/pids"})
    asked: dict[str, Any] = {"memory": {"limit": 9}, "pids": {"limit": 3}}
    asked["blockIO"] = {"weight": 500}
    names = [file.name for file in files_for(trees, asked)]
    assert names == ["memory.limit_in_bytes", "pids.max", "io.bfq.weight"]


def test_unified_names_files_itself_a_line_a_write() -> None:
    asked = {"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "memory.high": "7"}}
    lines = [(file.name, file.text) for file in files_for(V2, asked)]
    assert lines == [("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2"), ("memory.high", "7")]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"memory": []}, "memory: [] is not an object"),
    ({"memory": {"limit": "64m"}}, "memory.limit: '64m' is not a whole number"),
    ({"memory": {"limit": True}}, "memory.limit: True is not a whole number"),
    ({"memory": {"limit": 1.5}}, "memory.limit: 1.5 is not"),
    ({"memory": {"limit": -2}}, "memory.limit: -2 is not between -1"),
    ({"memory": {"limit": 1 << 63}}, "memory.limit: 9223372036854775808 is not between"),
    ({"memory": {"swappiness": 101}}, "memory.swappiness: 101 is not between 0 and 100"),
    (
        {"memory": {"disableOOMKiller": "yes"}},
        "memory.disableOOMKiller: 'yes' is not true or false",
    ),
    ({"cpu": {"shares": 300_000}}, "cpu.shares: 300000 is not between"),
    ({"cpu": {"idle": 2}}, "cpu.idle: 2 is not"),
    ({"cpu": {"cpus": "0-"}}, "cpu.cpus: '0-' is not a list"),
    ({"cpu": {"cpus": "0\n"}}, "cpu.cpus: '0\\n' is not a list"),
    ({"cpu": {"mems": 0}}, "cpu.mems: 0 is not a string"),
    ({"blockIO": {"weight": 9}}, "blockIO.weight: 9 is not between 10 and 1000"),
    ({"blockIO": {"weightDevice": [{"minor": 0}]}}, "blockIO.weightDevice[0].major: is missing"),
    ({"blockIO": {"weightDevice": {}}}, "blockIO.weightDevice: {} is not a list"),
    (
        {"blockIO": {"throttleReadBpsDevice": [{**SDA}, {**SDA, "rate": -1}]}},
        "blockIO.throttleReadBpsDevice[1].rate: -1 is not between",
    ),
    (
        {"hugepageLimits": [{"pageSize": "../../memory.max", "limit": 1}]},
        "hugepageLimits[0].pageSize: '../../memory.max' is not a size",
    ),
    ({"hugepageLimits": ["2MB"]}, "hugepageLimits[0]: '2MB' is not an object"),
    ({"rdma": {"mlx": {"hcaHandles": -1}}}, "rdma.mlx.hcaHandles: -1 is not between"),
    ({"unified": {"../../../etc/passwd": "x"}}, "unified.../../../etc/passwd: is no name"),
    ({"unified": {"memory.max/../x": "1"}}, "unified.memory.max/../x: is no name"),
    ({"unified": {"memory.max": 7}}, "unified.memory.max: 7 is not a string"),
]


@pytest.mark.parametrize(("resources", "words"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_value_is_refused_with_its_json_path(resources: dict[str, Any], words: str) -> None:
    for trees in (V1, V2):
        if "unified" in resources and trees is V1 and "is no name" not in words:
            continue
        with pytest.raises(Wrong) as refused:
            files_for(trees, resources)
        assert str(refused.value).startswith(f"linux.resources.{words}")


def test_what_v2_cannot_swap() -> None:
    """v2 counts swap alone, so the document must say how much of the sum is memory."""
    for memory, words in (
        ({"swap": 9}, "memory.limit is missing"),
        ({"limit": 9, "swap": 8}, "less than"),
    ):
        with pytest.raises(ValueError, match=f"linux.resources.memory.swap: .*{words}"):
            files_for(V2, {"memory": memory})


def test_unified_needs_a_v2_tree() -> None:
    with pytest.raises(Wrong, match=r"unified\.memory\.high: no v2 tree .* 'memory'"):
        files_for(V1, {"unified": {"memory.high": "7"}})


def test_what_has_no_word_is_told() -> None:
    asked = {"memory": {"swappiness": 7, "disableOOMKiller": True}, "cpu": {"period": 7}}
    assert unheard(V2, asked) == ["memory.swappiness", "memory.disableOOMKiller"]
    assert unheard(V1, asked) == []
    assert unheard(V2, {"memory": {"swappiness": 0, "kernel": 0}}) == ["memory.swappiness"]


@pytest.mark.parametrize("shares", [1, 262_144])
def test_a_weight_stays_between_1_and_10000(shares: int) -> None:
    """v1 clamps its shares, v2 answers EINVAL."""
    (file,) = files_for(V2, {"cpu": {"shares": shares}})
    assert 1 <= int(file.text) <= 10_000


@pytest.mark.parametrize("path", ["", "/", "/a/../../b", "../x", "/a\0b"])
def test_a_path_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"linux\.cgroupsPath"):
        Cgroup(V2, path)


def test_a_controller_that_is_not_there_is_named(tmp_path: Path) -> None:
    group = Cgroup(Hierarchies("v1", {"pids": str(tmp_path)}), "/x/y")
    with pytest.raises(FileNotFoundError, match=r"no cgroup controller 'memory' \(memory\.limit"):
        group.create({"memory": {"limit": MB}})
    assert os.listdir(tmp_path) == []


def fake_v2(root: Path, *groups: str, controllers: str = "") -> Hierarchies:
    """Return a v2 tree of plain files."""
    for directory in (root, *(root / group for group in groups)):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text("")
    return Hierarchies("v2", dict.fromkeys(["", *controllers.split()], str(root)))


def test_v2_parents_pass_controllers_down_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit's file appears in a group once each parent, from the top, has enabled its controller."""
    written: list[tuple[str, str]] = []
    for module in (files, limits):
        monkeypatch.setattr(module, "write_file", lambda *words: written.append(words))
    trees = fake_v2(tmp_path, "x", controllers="pids cpu cpuset")
    Cgroup(trees, "/x/y").create({"pids": {"limit": 3}})
    assert written == [
        (f"{tmp_path}/cgroup.subtree_control", "+pids"),
        (f"{tmp_path}/x/cgroup.subtree_control", "+pids"),
        (f"{tmp_path}/cgroup.subtree_control", "+cpu +pids"),
        (f"{tmp_path}/x/cgroup.subtree_control", "+cpu +pids"),
        (f"{tmp_path}/x/y/pids.max", "3"),
    ]


def test_what_is_passed_down_already_is_not_written_again(tmp_path: Path) -> None:
    fake_v2(tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu pids")
    (tmp_path / "cgroup.subtree_control").chmod(0o400)
    pass_down(str(tmp_path), "/x", ["pids"])
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu pids"


def test_a_parent_with_processes_is_told_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(path: str, text: str) -> None:
        raise OSError(16, "Device or resource busy")

    fake_v2(tmp_path)
    monkeypatch.setattr(files, "write_file", busy)
    with pytest.raises(
        OSError, match="holds processes itself.*remedy: move them into a group below"
    ):
        pass_down(str(tmp_path), "/x", ["pids"])


def test_what_is_only_counted_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside another container the root of what one sees holds processes itself."""

    def busy(path: str, text: str) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(files, "write_file", busy)
    group = Cgroup(fake_v2(tmp_path, controllers="pids cpu"), "/x")
    group.create({})
    with pytest.raises(
        OSError, match="holds processes itself, so it cannot give its children pids;"
    ):
        group.create({"pids": {"limit": 3}})


def test_the_first_file_that_the_kernel_has_is_written(tmp_path: Path) -> None:
    """A disk's weight is bfq's where that scheduler is there, and else of another scale."""
    group = Cgroup(fake_v2(tmp_path, "x", controllers="io"), "/x")
    (tmp_path / "x/io.weight").write_text("")
    group.create({"blockIO": {"weight": 1000}})
    assert (tmp_path / "x/io.weight").read_text() == "10000"
    (tmp_path / "x/io.bfq.weight").write_text("")
    group.update({"blockIO": {"weight": 1000}})
    assert (tmp_path / "x/io.bfq.weight").read_text() == "1000"


def test_a_file_that_the_kernel_lacks_is_named_with_its_key(tmp_path: Path) -> None:
    group = Cgroup(fake_v2(tmp_path, controllers="io"), "/x")
    with pytest.raises(
        OSError, match=r"blockIO\.weight: this kernel has no io\.bfq\.weight or io\.weight"
    ):
        fake_v2(tmp_path, "x")
        group.create({"blockIO": {"weight": 1000}})


def test_a_limit_that_the_kernel_has_given_up_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 5.16 to 6.5 have the file of memory.kernel and refuse every number in it; runc ignores it too."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/memory.kmem.limit_in_bytes").write_text("")
    asked: list[str] = []

    def refuse(path: str, text: str) -> None:
        asked.append(text)
        raise OSError(limits.ENOTSUPP, "Unknown error 524")

    monkeypatch.setattr(limits, "write_file", refuse)
    group = Cgroup(Hierarchies("v1", {"memory": str(tmp_path)}), "/x")
    group.update({"memory": {"kernel": 1 << 20}})
    assert set(asked) == {str(1 << 20)}


def test_an_update_adds_what_v2_wants_in_one_breath(tmp_path: Path) -> None:
    group = Cgroup(fake_v2(tmp_path, "x", controllers="cpu memory"), "/x")
    for name, text in (("memory.max", "64"), ("memory.swap.max", "0"), ("cpu.max", "50000 100000")):
        (tmp_path / "x" / name).write_text(text)
    group.update({"memory": {"swap": 96}, "cpu": {"period": 200_000}})
    assert (tmp_path / "x/memory.swap.max").read_text() == "32"
    assert (tmp_path / "x/cpu.max").read_text() == "50000 200000"


def test_a_limit_that_is_used_up_is_refused_when_asked_to_check(tmp_path: Path) -> None:
    group = Cgroup(fake_v2(tmp_path, "x", controllers="memory"), "/x")
    for name in ("memory.current", "memory.max"):
        (tmp_path / "x" / name).write_text("4096")
    with pytest.raises(
        OSError, match=r"linux\.resources\.memory\.limit: 4095 is less than what is used"
    ):
        group.update({"memory": {"limit": 4095, "checkBeforeUpdate": True}})
    group.update({"memory": {"limit": 4097, "checkBeforeUpdate": True}})
    assert (tmp_path / "x/memory.max").read_text() == "4097"


def test_two_files_that_bound_each_other_find_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v1 refuses a memory limit above memory and swap together, so to raise both the second goes first."""
    written: list[str] = []

    def write(path: str, text: str) -> None:
        name = os.path.basename(path)
        if name == "memory.limit_in_bytes" and not written:
            raise OSError(22, "Invalid argument")
        written.append(name)

    (tmp_path / "x").mkdir()
    (tmp_path / "x/memory.memsw.limit_in_bytes").touch()
    group = Cgroup(Hierarchies("v1", {"memory": str(tmp_path)}), "/x")
    monkeypatch.setattr(limits, "write_file", write)
    group.update({"memory": {"limit": 128, "swap": 256}})
    assert written == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]


def test_a_group_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    trees = fake_v2(tmp_path, "x")
    assert Cgroup.find(trees, "/x").directories == {str(tmp_path): f"{tmp_path}/x"}
    with pytest.raises(FileNotFoundError, match="there is no control group /y"):
        Cgroup.find(trees, "/y")


def test_members_have_a_tree_to_be_found_in(tmp_path: Path) -> None:
    """A v1 kernel without the pids controller must still know whom to kill."""
    group = Cgroup(Hierarchies("v1", {"memory": str(tmp_path)}), "/x")
    group.create({})
    assert group.plan_enter() != []


def test_a_v1_tree_is_entered_by_the_door_where_nobody_waits(tmp_path: Path) -> None:
    """Writing to cgroup.procs there would take 7 ms of each start."""
    memory, unified = f"{tmp_path}/memory", f"{tmp_path}/unified"
    group = Cgroup(Hierarchies("hybrid", {"memory": memory, tree.UNIFIED: unified}), "/x")
    group.directories = {memory: f"{memory}/x", unified: f"{unified}/x"}
    doors = [step.arguments for step in group.plan_enter()]
    assert doors == [(f"{memory}/x/tasks", "0"), (f"{unified}/x/cgroup.procs", "0")]
    assert [step.arguments for step in group.plan_enter(born_inside=True)] == doors[:1]


def test_members_of_other_pid_namespaces_are_not_pid_0(tmp_path: Path) -> None:
    """cgroup.procs shows 0 for a process we cannot name; kill(0) would be our own process group."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/cgroup.procs").write_text("0\n17\n")
    assert Cgroup(Hierarchies("v2", {"": str(tmp_path)}), "/x").members() == [17]


def test_a_group_that_goes_while_it_is_removed_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rmdir

    def busy_then_gone(path: str) -> None:
        real(path)
        raise OSError(16, "busy, and a moment later another process has removed it")

    group = Cgroup(Hierarchies("v2", {"": str(tmp_path)}), "/x")
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(os, "rmdir", busy_then_gone)
    group.remove()
    assert not (tmp_path / "x").exists()


@pytest.fixture(params=["as mounted", "v1 alone"])
def group(request: pytest.FixtureRequest, leak_free: None) -> Iterator[Cgroup]:
    """A group of this machine, of the test's own; whatever happens, it goes."""
    trees = hierarchies()
    if request.param == "v1 alone":
        mounts = {name: root for name, root in trees.mounts.items() if root != trees.unified}
        if not mounts:
            cannot_run_here("no v1 tree is mounted")
        trees = Hierarchies("v1", mounts)
    path = f"/mini_docker_test_{os.getpid()}"
    yield Cgroup(trees, path)
    left = Cgroup(hierarchies(), path)
    left.kill()
    left.remove()


@contextlib.contextmanager
def running(group: Cgroup, script: str) -> Iterator[subprocess.Popen[str]]:
    """Run a shell inside the group, from its first printed line on; kill it at the end."""
    shell = ["sh", "-c", script]
    with subprocess.Popen(
        shell, text=True, stdout=subprocess.PIPE, preexec_fn=lambda: apply(group.plan_enter())
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.root
def test_limits_are_written_and_repeating_changes_nothing(group: Cgroup) -> None:
    resources = {
        "memory": {"limit": 64 * MB},
        "pids": {"limit": 9},
        "cpu": {"period": 100_000, "quota": 50_000},
    }
    for _ in range(2):
        group.create(resources)
        for file in files_for(group.trees, resources):
            assert group.read(file.name) == file.text
    for _ in range(2):
        group.remove()
        assert not any(map(os.path.exists, group.directories.values()))


@pytest.mark.root
def test_both_of_memory_and_swap_can_be_raised_and_lowered(group: Cgroup) -> None:
    for megabytes in (64, 128, 32):
        resources = {"memory": {"limit": megabytes * MB, "swap": 2 * megabytes * MB}}
        group.create(resources) if megabytes == 64 else group.update(resources)
        for file in files_for(group.trees, resources):
            assert group.read(file.name) == file.text or not group.has(file.name)


@pytest.mark.root
def test_an_update_takes_members_into_a_tree_that_they_were_not_in(group: Cgroup) -> None:
    """v1: who was limited in processes alone is moved when a memory limit comes."""
    group.create({"pids": {"limit": 50}})
    with running(group, "echo; exec sleep 1000") as process:
        group.update({"memory": {"limit": 64 * MB}, "cpu": {"cpus": "0"}})
        names = [file.name for file in files_for(group.trees, {"memory": {"limit": 1}})]
        members = read_file(os.path.dirname(group.file(names[0])) + "/cgroup.procs").split()
        assert str(process.pid) in members
        assert os.sched_getaffinity(process.pid) == {0}


@pytest.mark.root
def test_everywhere_means_all_trees(group: Cgroup) -> None:
    group.create({}, everywhere=True)
    assert len(group.directories) == len(set(group.trees.mounts.values()))
    with running(group, "echo; exec sleep 1000") as process:
        assert group.members() == [process.pid]
        assert Cgroup.find(hierarchies(), group.path).members() == [process.pid]
        group.kill()


@pytest.mark.root
def test_enter_kill_remove_with_a_daemonised_grandchild(group: Cgroup) -> None:
    group.create({})
    with running(
        group, "setsid sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 1000' & wait"
    ) as process:
        assert len(group.members()) == 2
        Cgroup.find(hierarchies(), group.path).kill()  # as a process that knows only the name
        assert process.wait(240) == -signal.SIGKILL
    assert group.members() == []
    group.remove()
    group.kill()


@pytest.mark.root
def test_a_process_hidden_in_a_group_below_dies_too(group: Cgroup) -> None:
    group.create({})
    with running(group, "echo ready; exec sleep 1000") as process:
        for directory in group.directories.values():
            os.mkdir(f"{directory}/below")
            Path(directory, "below/cgroup.procs").write_text(str(process.pid))
        group.kill()
        group.remove()
        assert process.wait(240) == -signal.SIGKILL


@pytest.mark.root
def test_freeze_thaw_and_die_frozen(group: Cgroup) -> None:
    group.create({})
    with running(group, "echo; while :; do :; done") as process:
        for _ in range(2):
            group.freeze()
            assert Cgroup.find(group.trees, group.path).is_frozen()
        used = cpu_ticks(process.pid)
        time.sleep(0.05)
        assert cpu_ticks(process.pid) == used
        group.thaw()
        assert not group.is_frozen()
        group.freeze()
        group.kill()
        assert process.wait(240) == -signal.SIGKILL


def cpu_ticks(pid: int) -> str:
    """Return the user and system time of a process, as /proc/PID/stat has it."""
    return " ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])


def test_a_tree_without_a_freezer_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no freezer"):
        Cgroup(Hierarchies("v1", {"pids": str(tmp_path)}), "/x").freeze()


@pytest.mark.root
def test_a_refused_value_is_named_and_nothing_is_left(group: Cgroup) -> None:
    with pytest.raises(
        OSError, match=r"linux\.resources\.pids\.limit: write '.*' to .*pids\.max: Inv"
    ):
        group.create({"pids": {"limit": 1 << 62}})
    assert not any(map(os.path.exists, group.directories.values()))


@pytest.mark.root
def test_a_delegated_group_belongs_to_its_user(group: Cgroup) -> None:
    group.create({})
    if group.trees.unified is None:
        cannot_run_here("only v2 groups are delegated")
    group.delegate(1234, 4321)
    directory = group.directories[group.trees.unified]
    owners = {
        name: os.stat(f"{directory}/{name}").st_uid for name in (".", "cgroup.procs", "cgroup.type")
    }
    assert owners == {".": 1234, "cgroup.procs": 1234, "cgroup.type": 0}


@pytest.mark.root
def test_no_internal_processes(leak_free: None) -> None:
    """v2 in earnest: a group with a member cannot give its children memory (processes it could)."""
    trees = hierarchies()
    if trees.tree_of("memory") != trees.unified:
        cannot_run_here("the memory controller is in a v1 tree")
    parent = Cgroup(trees, f"/mini_docker_parent_{os.getpid()}")
    parent.create({"pids": {"limit": 50}})
    try:
        with (
            running(parent, "echo; exec sleep 1000"),
            pytest.raises(OSError, match="holds processes"),
        ):
            Cgroup(trees, f"{parent.path}/child").create({"memory": {"limit": 64 * MB}})
    finally:
        parent.kill()
        parent.remove()
