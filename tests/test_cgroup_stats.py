"""What groups use: both versions' files read alike, and numbers of this machine."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_docker.cgroups.stats import (
    Io,
    Pressure,
    number_after,
    parse_pressure,
    read_stats,
    table,
    watch_oom,
    whole,
)
from mini_docker.cgroups.tree import Cgroup, Hierarchies, hierarchies
from tests.conftest import cannot_run_here
from tests.system import until
from tests.test_cgroups import running

MB = 1 << 20
PSI = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
V1_FILES = {
    "cpuacct.usage": "7000000\n",
    "cpuacct.usage_user": "4000000",
    "cpuacct.usage_sys": "3000000",
    "cpuacct.usage_percpu": "2000000 5000000 \n",
    "cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5000\n",
    "memory.usage_in_bytes": "100",
    "memory.max_usage_in_bytes": "300",
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.memsw.usage_in_bytes": "140",
    "memory.failcnt": "2",
    "memory.stat": "cache 60\nhierarchical_memory_limit 1\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "pids.current": "5",
    "pids.max": "max",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 0\nTotal 1\n",
}
V2_FILES = {
    "cpu.stat": "usage_usec 7000\nuser_usec 4000\nsystem_usec 3000\n"
    "nr_periods 9\nnr_throttled 4\nthrottled_usec 5\n",
    "memory.current": "100",
    "memory.peak": "300",
    "memory.max": "max",
    "memory.swap.current": "40",
    "memory.events": "low 0\nhigh 0\nmax 2\noom 3\noom_kill 3\n",
    "memory.stat": "cache 60\nhierarchical_memory_limit 1\n",
    "pids.current": "5",
    "pids.max": "max",
    "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
    "cpu.pressure": PSI,
}


def group_of_files(root: Path, version: str, files: dict[str, str]) -> Cgroup:
    """Return a group of plain files."""
    (root / "x").mkdir()
    for name, text in files.items():
        (root / "x" / name).write_text(text)
    names = ["cpu", "cpuacct", "memory", "pids", "blkio", "io", *([""] if version == "v2" else [])]
    return Cgroup(Hierarchies(version, dict.fromkeys(names, str(root))), "/x")


@pytest.mark.parametrize(("version", "files"), [("v1", V1_FILES), ("v2", V2_FILES)])
def test_both_versions_are_read_alike(tmp_path: Path, version: str, files: dict[str, str]) -> None:
    stats = group_of_files(tmp_path, version, files).stats()
    assert stats.cpu[:6] == (7_000_000, 4_000_000, 3_000_000, 9, 4, 5000)
    assert stats.cpu.per_cpu == ((2_000_000, 5_000_000) if version == "v1" else ())
    assert stats.memory == (100, 300, 0, 40, 2, {"cache": 60, "hierarchical_memory_limit": 1})
    assert stats.pids == (5, 0)
    assert Io(8, 0, "read", 4096, 1) in stats.io
    assert Io(8, 0, "write", 0, 0) in stats.io
    assert stats.oom_kills == 3
    assert stats.pressure == ({"cpu": parse_pressure(PSI)} if version == "v2" else {})


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_is_not_counted_is_0(tmp_path: Path, version: str) -> None:
    stats = group_of_files(tmp_path, version, {}).stats()
    assert stats.cpu == (0, 0, 0, 0, 0, 0, ())
    assert stats.memory == (0, 0, 0, 0, 0, {})
    assert (stats.pids, list(stats.io), stats.oom_kills, stats.pressure) == ((0, 0), [], 0, {})


def test_a_disk_without_numbers_yet_is_read(tmp_path: Path) -> None:
    """io.stat has lines of a device alone, for disks that did nothing for the group."""
    group = group_of_files(tmp_path, "v2", {"io.stat": "8:0\n254:0 rbytes=1 rios=1\n"})
    assert Io(254, 0, "read", 1, 1) in read_stats(group).io


def test_the_small_readers() -> None:
    assert parse_pressure(PSI) == Pressure((1.5, 0.25, 0.0, 77), (0.0, 0.0, 0.0, 5))
    assert parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n").full[3] == 0
    assert table("a 1\nb x\nc 2 3\n") == {"a": 1}
    assert number_after("oom", "oom_kill 7\noom 2\n") == 2
    assert [whole(text) for text in ("7", "max", "", "9223372036854771712")] == [7, 0, 0, 0]


@pytest.fixture(params=["as mounted", "v1 alone"])
def group(request: pytest.FixtureRequest, leak_free: None) -> Iterator[Cgroup]:
    """A group of this machine in all trees."""
    trees = hierarchies()
    if request.param == "v1 alone":
        if trees.tree_of("memory") in (None, trees.unified):
            cannot_run_here("no v1 tree of the memory controller is mounted")
        mounts = {name: root for name, root in trees.mounts.items() if root != trees.unified}
        trees = Hierarchies("v1", mounts)
    group = Cgroup(trees, f"/mini_docker_stats_{os.getpid()}")
    limits = {
        "memory": {"limit": 32 * MB, "swap": 32 * MB},
        "cpu": {"quota": 5_000},  # so little that even a busy machine would give more
        "pids": {"limit": 9},
    }
    group.create(limits, everywhere=True)
    yield group
    group.kill()
    group.remove()


@pytest.mark.root
def test_the_numbers_of_a_busy_group(group: Cgroup) -> None:
    assert group.stats().cpu.usage == 0
    with running(group, "echo; while :; do :; done"):
        until(lambda: group.stats().cpu.throttled_periods > 1)
        until(lambda: group.stats().cpu.usage > 20_000_000)
        stats = group.stats()
        assert stats.cpu.throttled > 0
        assert stats.cpu.periods >= stats.cpu.throttled_periods > 1
        assert 0 < stats.memory.usage <= stats.memory.max_usage < 32 * MB == stats.memory.limit
        assert stats.pids == (1, 9)
        assert stats.oom_kills == 0
        group.kill()


@pytest.mark.root
def test_an_oom_kill_is_told_and_counted(group: Cgroup) -> None:
    fd = watch_oom(group)
    try:
        with running(group, "echo; exec tail /dev/zero") as process:
            assert select.select([fd], [], [], 240)[0]
            assert os.read(fd, 4096)
            assert process.wait(240) == -9
        assert group.oom_kills() == group.stats().oom_kills == 1
        assert group.stats().memory.max_usage > 30 * MB or group.trees.version == "v2"
    finally:
        os.close(fd)


def test_a_group_without_a_memory_tree_cannot_be_watched(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        watch_oom(Cgroup(Hierarchies("v1", {"pids": str(tmp_path)}), "/x"))
    assert len(os.listdir("/proc/self/fd")) == before
