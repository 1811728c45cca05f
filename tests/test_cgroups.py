"""Control groups: the trees found in mountinfo texts, each version's words, and groups of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.cgroups import tree
from mini_docker.cgroups.tree import (
    UNIFIED,
    Cgroup,
    Hierarchies,
    files_for,
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
    monkeypatch.setattr(tree, "_read", lambda path: "36 23 8:1 / / rw - ext4 /dev/root rw\n")
    with pytest.raises(FileNotFoundError, match="remedy: mount -t cgroup2"):
        hierarchies()


V1 = parse_hierarchies(V1_TEXT)
V2 = parse_hierarchies(V2_TEXT, "cpu memory pids")
FILES: list[tuple[dict[str, Any], str, str]] = [
    # linux.resources, what v1 gets, what v2 gets
    ({}, "", ""),
    ({"memory": {"limit": 0}, "pids": {"limit": 0}}, "", ""),
    ({"cpu": {"period": 50_000}}, "", ""),
    (
        {"memory": {"limit": 64, "swap": 96}},
        "memory.limit_in_bytes=64, memory.memsw.limit_in_bytes=96",
        "memory.max=64, memory.swap.max=32",
    ),
    (
        {"memory": {"limit": 64, "swap": -1}},
        "memory.limit_in_bytes=64, memory.memsw.limit_in_bytes=-1",
        "memory.max=64, memory.swap.max=max",
    ),
    ({"memory": {"limit": -1}}, "memory.limit_in_bytes=-1", "memory.max=max"),
    ({"pids": {"limit": 8}}, "pids.max=8", "pids.max=8"),
    ({"pids": {"limit": -1}}, "pids.max=max", "pids.max=max"),  # -1 is EINVAL in v1 too
    (
        {"cpu": {"period": 50_000, "quota": 25_000}},
        "cpu.cfs_period_us=50000, cpu.cfs_quota_us=25000",
        "cpu.max=25000 50000",
    ),
    ({"cpu": {"quota": 25_000}}, "cpu.cfs_quota_us=25000", "cpu.max=25000 100000"),
    ({"cpu": {"quota": -1}}, "cpu.cfs_quota_us=-1", "cpu.max=max 100000"),
    ({"cpu": {"shares": 2}}, "cpu.shares=2", "cpu.weight=1"),
    ({"cpu": {"shares": 1024}}, "cpu.shares=1024", "cpu.weight=39"),
    ({"cpu": {"shares": 262_144}}, "cpu.shares=262144", "cpu.weight=10000"),
]


@pytest.mark.parametrize(("resources", "v1", "v2"), FILES, ids=lambda value: str(value)[:40])
def test_the_words_of_each_version(resources: dict[str, Any], v1: str, v2: str) -> None:
    for trees, words in ((V1, v1), (V2, v2)):
        files = files_for(trees, resources)
        assert ", ".join(f"{name}={text}" for _, name, text in files) == words
        assert all(name.startswith(f"{controller}.") for controller, name, _ in files)


@pytest.mark.parametrize("shares", [1, 300_000])
def test_a_weight_stays_between_1_and_10000(shares: int) -> None:
    """v1 clamps its shares, v2 answers EINVAL."""
    ((_, _, weight),) = files_for(V2, {"cpu": {"shares": shares}})
    assert 1 <= int(weight) <= 10_000


def test_a_controller_that_is_not_there_is_named(tmp_path: Path) -> None:
    group = Cgroup(Hierarchies("v1", {"pids": str(tmp_path)}), "/x/y")
    with pytest.raises(FileNotFoundError, match=r"no cgroup controller 'memory' \(memory\.limit"):
        group.create({"memory": {"limit": MB}})
    assert os.listdir(tmp_path) == []


def test_v2_parents_pass_controllers_down_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit's file appears in a group once each parent, from the top, has enabled its controller."""
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(tree, "_write_file", lambda path, text: written.append((path, text)))
    root = str(tmp_path)
    Cgroup(Hierarchies("v2", {"": root, "pids": root, "cpu": root}), "/x/y").create(
        {"pids": {"limit": 3}}
    )
    assert written == [
        (f"{root}/cgroup.subtree_control", "+pids"),
        (f"{root}/x/cgroup.subtree_control", "+pids"),
        (f"{root}/x/y/pids.max", "3"),
    ]


def test_members_have_a_tree_to_be_found_in(tmp_path: Path) -> None:
    """A v1 kernel without the pids controller must still know whom to kill."""
    group = Cgroup(Hierarchies("v1", {"memory": str(tmp_path)}), "/x")
    group.create({})
    assert group.plan_enter() != []


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


@pytest.fixture
def group(leak_free: None) -> Iterator[Cgroup]:
    """A group of this machine, of the test's own; whatever happens, it goes."""
    path = f"/mini_docker_test_{os.getpid()}"
    yield Cgroup(hierarchies(), path)
    left = Cgroup(hierarchies(), path)
    left.kill()
    left.remove()


def spawn(group: Cgroup, script: str) -> subprocess.Popen[str]:
    """Start a shell inside the group and return once it has printed a line."""
    shell = ["sh", "-c", script]
    process = subprocess.Popen(
        shell, text=True, stdout=subprocess.PIPE, preexec_fn=lambda: apply(group.plan_enter())
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.mark.root
def test_limits_are_written_and_repeating_changes_nothing(group: Cgroup) -> None:
    resources = {
        "memory": {"limit": 64 * MB},
        "pids": {"limit": 9},
        "cpu": {"period": 100_000, "quota": 50_000},
    }
    for _ in range(2):
        group.create(resources)
        for controller, name, text in files_for(group.trees, resources):
            directory = group.directories[group.trees.mounts[controller]]
            assert Path(directory, name).read_text().strip() == text
    for _ in range(2):
        group.remove()
        assert not any(map(os.path.exists, group.directories.values()))


@pytest.mark.root
def test_enter_kill_remove_with_a_daemonised_grandchild(group: Cgroup) -> None:
    group.create({})
    process = spawn(group, "setsid sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 100' & wait")
    assert len(group.members()) == 2
    Cgroup(hierarchies(), group.path).kill()  # as a process that knows only the name
    assert process.wait(5) == -signal.SIGKILL
    assert group.members() == []
    assert process.stdout is not None
    process.stdout.close()
    group.remove()
    group.kill()


@pytest.mark.root
@pytest.mark.parametrize("only_v1", [False, True], ids=["all trees", "v1 alone"])
def test_a_process_hidden_in_a_group_below_dies_too(group: Cgroup, only_v1: bool) -> None:
    if only_v1:
        if "pids" not in group.trees.mounts or group.trees.version == "v2":
            cannot_run_here("no v1 tree of the pids controller is mounted")
        group = Cgroup(Hierarchies("v1", {"pids": group.trees.mounts["pids"]}), group.path)
    group.create({})
    process = spawn(group, "echo ready; exec sleep 100")
    for directory in group.directories.values():
        os.mkdir(f"{directory}/below")
        Path(directory, "below/cgroup.procs").write_text(str(process.pid))
    try:
        group.kill()
        group.remove()
        assert process.wait(1) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.root
def test_a_refused_value_is_named(group: Cgroup) -> None:
    with pytest.raises(OSError, match=r"write '.*' to .*pids\.max: Invalid argument"):
        group.create({"pids": {"limit": 1 << 62}})
