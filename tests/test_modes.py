"""What containers share, and what is refused or warned of before one is made."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from mini_docker.cgroups.tree import Hierarchies
from mini_docker.engine.document import resources
from mini_docker.engine.modes import by_id, cgroup_path, check_modes, namespaces, share
from mini_docker.engine.store import NoSuchContainer
from mini_docker.engine.wishes import (
    NO_MEMORY_LIMIT,
    RUNTIMES,
    check_devices,
    check_wishes,
    discard,
    parse_numbers,
)
from tests.daemons import Daemon

ID = "f" * 64


def find(name: str) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        "shares": {"State": {"Pid": 7}, "HostConfig": {"IpcMode": "shareable"}},
        "host": {"State": {"Pid": 8}, "HostConfig": {"IpcMode": "host"}},
        "private": {"State": {"Pid": 9}, "HostConfig": {}},
        "ended": {"State": {"Pid": 0}, "HostConfig": {"IpcMode": "shareable"}},
    }
    if name not in known:
        raise NoSuchContainer(f"No such container: {name}")
    return {"Id": name, **known[name]}


def kinds(host: dict[str, Any]) -> set[str]:
    return {entry["type"] for entry in namespaces(host)}


def test_host_modes_leave_namespaces_out() -> None:
    everything = {"pid", "mount", "ipc", "uts", "cgroup", "network"}
    assert kinds({}) == everything
    host = {"PidMode": "host", "IpcMode": "host", "UTSMode": "host", "CgroupnsMode": "host"}
    assert kinds({**host, "NetworkMode": "host"}) == {"mount"}
    assert kinds({"IpcMode": "none", "CgroupnsMode": "private"}) == everything


@pytest.mark.parametrize(
    ("host", "hostname", "words"),
    [
        ({"IpcMode": "bad"}, "", "Invalid IPC mode: bad"),
        ({"IpcMode": "container:"}, "", "Invalid IPC mode: container:"),
        ({"PidMode": "private"}, "", "invalid PID mode: private"),
        ({"UTSMode": "container:x"}, "", "invalid UTS mode: container:x"),
        ({"CgroupnsMode": "bad"}, "", "invalid cgroup namespace mode: bad"),
        ({"UTSMode": "host"}, "me", "conflicting options: hostname and the UTS mode"),
    ],
)
def test_words_that_are_no_modes(host: dict[str, Any], hostname: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_modes(host, hostname)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (
            {"IpcMode": "container:private"},
            "can't join IPC of container private: non-shareable IPC",
        ),
        (
            {"IpcMode": "container:ended"},
            "can't join IPC of container ended: container ended is not",
        ),
        ({"PidMode": "container:ended"}, "^container ended is not running"),
    ],
)
def test_who_cannot_be_joined(host: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        share({"linux": {"namespaces": namespaces(host)}}, host, find)


def test_joined_namespaces_have_paths() -> None:
    host = {"IpcMode": "container:host", "PidMode": "container:private"}
    spec = share({"linux": {"namespaces": namespaces(host)}}, host, find)
    paths = {entry["type"]: entry.get("path") for entry in spec["linux"]["namespaces"]}
    assert (paths["ipc"], paths["pid"], paths["uts"]) == ("/proc/8/ns/ipc", "/proc/9/ns/pid", None)
    named = {"PidMode": "container:web", "IpcMode": "host", "NetworkMode": "bridge"}
    assert by_id(named, str.upper) == {**named, "PidMode": "container:WEB"}


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("", f"/mini_docker/{ID}"),
        ("mine", f"/mine/{ID}"),
        ("/a/b/", f"/a/b/{ID}"),
        ("../../../etc", f"/etc/{ID}"),
        ("/", f"/{ID}"),
    ],
)
def test_a_parent_group_stays_in_the_tree(parent: str, path: str) -> None:
    assert cgroup_path(ID, {"CgroupParent": parent}) == path


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Runtime": "nosuch"}, "Unknown runtime specified nosuch"),
        ({"Isolation": "hyperv"}, "Invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ({"StorageOpt": {"size": "1g"}}, "--storage-opt is supported only for overlay over xfs"),
        ({"CpusetCpus": "bad"}, "Invalid value bad for cpuset cpus: invalid format: bad"),
        ({"CpusetCpus": "0-999999999999"}, "value of out range, maximum is 8192"),
        ({"CpusetCpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ({"CpusetCpus": f"0-{10**30}"}, "invalid format"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"IOMaximumIOps": 1}, "linux does not support configuration of maximum IOPs"),
        ({"CpusetCpus": "999"}, "Requested CPUs are not available - requested 999, available: 0"),
        ({"CpusetMems": "999"}, "Requested memory nodes are not available - requested 999"),
        ({"CpuShares": -1}, "shares: invalid argument"),
    ],
)
def test_wishes_that_cannot_be_granted(host: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_wishes(host)


def test_wishes_that_can() -> None:
    for name in ("", *RUNTIMES):
        check_wishes({"Runtime": name, "CpusetCpus": "0", "Isolation": "default"})
    assert parse_numbers("0-2,7") == {0, 1, 2, 7}
    with pytest.raises(ValueError, match='driver "" with capabilities: \\[\\[gpu\\]\\]'):
        check_devices({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]})


def test_what_is_taken_with_a_warning() -> None:
    host = {"OomKillDisable": True, "KernelMemory": 1 << 26, "Memory": 0}
    kept, warnings = discard(host, resources(host))
    assert kept["KernelMemory"] == 0 and any(
        "kernel memory limit is deprecated" in w for w in warnings
    )
    assert (NO_MEMORY_LIMIT in warnings) == bool(kept["OomKillDisable"])
    nothing = {"BlkioWeight": 0, "MemorySwappiness": -1, "OomKillDisable": False}
    assert discard(nothing, resources(nothing))[1] == []


LIMITS: dict[str, Any] = {
    "Memory": 8 << 20, "MemorySwappiness": 0, "OomKillDisable": True, "PidsLimit": 9, "CpuShares": 7,
    "CpuRealtimeRuntime": 1000, "CpusetCpus": "0", "BlkioWeight": 100,
    "BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 100}],
}  # fmt: skip


def wordless(trees: Hierarchies, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the limits that a machine with these trees takes away, each with its warning."""
    limits = {
        **resources({k: v for k, v in LIMITS.items() if k != "BlkioWeightDevice"}),
        "blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 100}]},
    }
    monkeypatch.setattr("mini_docker.engine.wishes.hierarchies", lambda: trees)
    kept, warnings = discard(LIMITS, limits)
    gone = {key for key in LIMITS if kept[key] is None}
    assert len([w for w in warnings if w.startswith("Your kernel does not")]) == len(gone)
    return gone


def test_each_version_warns_of_what_it_has_no_word_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v2 by its words and controllers, v1 by its files: a kernel may have been built without some."""
    names = ("", "cpu", "cpuset", "memory", "io", "pids")
    v2 = Hierarchies("v2", dict.fromkeys(names, str(tmp_path)))
    never = {"MemorySwappiness", "OomKillDisable", "CpuRealtimeRuntime"}
    assert wordless(v2, monkeypatch) == {*never, "BlkioWeight", "BlkioWeightDevice"}
    (tmp_path / "group").mkdir()
    (tmp_path / "group/io.weight").touch()
    assert wordless(v2, monkeypatch) == never
    v2.mounts.pop("pids")
    assert wordless(v2, monkeypatch) == {*never, "PidsLimit"}
    v1 = Hierarchies("v1", dict.fromkeys(("cpu", "cpuset", "memory", "pids"), str(tmp_path)))
    for name in ("cpu.shares", "cpuset.cpus", "memory.limit_in_bytes", "memory.swappiness",
                 "memory.oom_control"):  # fmt: skip
        (tmp_path / name).touch()
    missing = {"CpuRealtimeRuntime", "BlkioWeight", "BlkioWeightDevice"}
    assert wordless(v1, monkeypatch) == missing


def said(daemon: Daemon, name: str, script: str, **host: Any) -> str:
    """Return what a container says, to its end."""
    daemon.run(name, "sh", "-c", script, HostConfig=host)
    daemon.ask("POST", f"/containers/{name}/wait")
    return daemon.logs(name)[8:].decode(errors="replace")


def refusal(daemon: Daemon, name: str, **host: Any) -> str:
    """Return why a container does not start."""
    daemon.create(name, "true", HostConfig=host)
    status, answer = daemon.ask("POST", f"/containers/{name}/start")
    assert status >= 400
    return str(answer["message"])


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_containers_share_what_they_are_told_to(daemon: Daemon) -> None:
    daemon.run(
        "db", "sh", "-c", "echo hello > /dev/shm/f; sleep 1000", HostConfig={"IpcMode": "shareable"}
    )
    daemon.run("shy", "sleep", "1000")
    pids = {name: daemon.state(name)["Pid"] for name in ("db", "shy")}
    ipc = os.readlink(f"/proc/{pids['db']}/ns/ipc")
    script = "until cat /dev/shm/f; do sleep 0.1; done; readlink /proc/self/ns/ipc"
    words = said(daemon, "aa", script, IpcMode="container:db")
    assert "hello" in words and ipc in words
    assert "sleep 1000" in said(
        daemon, "bb", "cat /proc/1/cmdline | tr '\\0' ' '", PidMode="container:shy"
    )
    assert daemon.state("shy")["Running"]
    shown = daemon.ask("GET", "/containers/bb/json")[1]["HostConfig"]
    assert shown["PidMode"] == f"container:{daemon.ask('GET', '/containers/shy/json')[1]['Id']}"
    assert "non-shareable IPC" in refusal(daemon, "cc", IpcMode="container:shy")
    assert refusal(daemon, "dd", PidMode="container:aa").endswith(" is not running")
    assert daemon.run("ff", "true", HostConfig={"Runtime": "io.containerd.runc.v2"})


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_the_hosts_own(daemon: Daemon) -> None:
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts", "cgroup")}
    script = "for n in pid ipc uts cgroup; do readlink /proc/self/ns/$n; done"
    modes = {"PidMode": "host", "IpcMode": "host", "UTSMode": "host", "CgroupnsMode": "host"}
    words = said(daemon, "aa", script, **modes)
    assert all(link in words for link in own.values()), words
    assert os.uname().nodename == daemon.ask("GET", "/info")[1]["Name"]
    words = said(daemon, "bb", script)
    assert not any(link in words for link in own.values())
    assert "none" in said(daemon, "cc", "test -e /dev/shm || echo none", IpcMode="none")


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_a_parent_group_of_ones_own_goes_with_the_last(daemon: Daemon) -> None:
    host = {"CgroupParent": "/md_parent", "CgroupnsMode": "host"}
    daemon.run("aa", "sleep", "1000", HostConfig=host)
    pid = daemon.state("aa")["Pid"]
    assert "/md_parent/" in pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    assert daemon.ask("POST", "/containers/aa/pause")[0] == 204
    assert daemon.ask("POST", "/containers/aa/unpause")[0] == 204
    assert daemon.ask("DELETE", "/containers/aa?force=1")[0] == 204
    left = [d for d, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(d) == "md_parent"]
    assert left == []


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_the_answer_of_create_has_the_warnings(daemon: Daemon) -> None:
    """Whatever this kernel lacks: the answer says so, and the container starts without it."""
    host = {"NetworkMode": "none", "MemorySwappiness": 0, "OomKillDisable": True, "Memory": 8 << 20,
            "BlkioWeight": 100, "CpuShares": 512}  # fmt: skip
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    status, made = daemon.ask("POST", "/containers/create?name=limited", body)
    kept, warnings = discard(host, resources(host))
    assert (status, made["Warnings"]) == (201, warnings)
    shown = daemon.ask("GET", "/containers/limited/json")[1]["HostConfig"]
    assert [shown[key] or None for key in host] == [kept[key] or None for key in host]
    assert daemon.ask("POST", "/containers/limited/start") == (204, "")
