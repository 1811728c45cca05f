"""The OCI document that a create request becomes: golden pieces, in Docker's words where it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from mini_docker.cgroups.devices import parse_rules
from mini_docker.engine import document
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.mountpoints import oci_mount, parse_bind
from mini_docker.namespaces.user import User

COMMANDS: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {"Cmd": ["sh"]}, ["sh"]),
    ({"Cmd": []}, {"Cmd": ["sh"], "Entrypoint": None}, ["sh"]),
    ({"Cmd": ["x"]}, {"Cmd": ["sh"], "Entrypoint": ["e", "-1"]}, ["e", "-1", "x"]),
    ({}, {"Cmd": ["sh"], "Entrypoint": ["e"]}, ["e", "sh"]),
    ({"Entrypoint": ["n"]}, {"Cmd": ["sh"], "Entrypoint": ["e"]}, ["n"]),
    ({"Entrypoint": [], "Cmd": ["x"]}, {"Entrypoint": ["e"]}, ["x"]),
]


@pytest.mark.parametrize(("request_", "image", "words"), COMMANDS)
def test_the_command(request_: dict[str, Any], image: dict[str, Any], words: list[str]) -> None:
    assert document.command(request_, image) == words
    with pytest.raises(InvalidRequest, match="No command specified"):
        document.command({"Cmd": None}, {"Cmd": None})


PATH = document.DEFAULT_PATH
ENVIRONMENTS: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {}, [PATH, "HOSTNAME=h", "HOME=/home"]),
    (
        {"Tty": True},
        {"Env": ["PATH=/bin"]},
        ["PATH=/bin", "HOSTNAME=h", "TERM=xterm", "HOME=/home"],
    ),
    (
        {"Env": ["A=2", "HOME=/x", "B=b=c", "GONE"]},
        {"Env": ["A=1"]},
        [PATH, "HOSTNAME=h", "A=2", "HOME=/x", "B=b=c"],
    ),
    (
        {"Env": ["A", "LANG="]},  # a name alone takes the variable away
        {"Env": ["A=1", "LANG=C"]},
        [PATH, "HOSTNAME=h", "LANG=", "HOME=/home"],
    ),
    (
        {"Env": None},
        {"Env": None},
        [PATH, "HOSTNAME=h", "HOME=/home"],
    ),  # as docker import writes it
]


@pytest.mark.parametrize(("request_", "image", "wanted"), ENVIRONMENTS)
def test_the_environment(
    request_: dict[str, Any], image: dict[str, Any], wanted: list[str]
) -> None:
    assert document.environment({"Hostname": "h", **request_}, image, "/home") == wanted


MB = 1 << 20
RESOURCES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"Memory": 0, "PidsLimit": None, "NanoCpus": 0}, {}),
    ({"Memory": 64 * MB}, {"memory": {"limit": 64 * MB, "swap": 128 * MB}}),
    ({"Memory": 64 * MB, "MemorySwap": -1}, {"memory": {"limit": 64 * MB, "swap": -1}}),
    ({"PidsLimit": 5}, {"pids": {"limit": 5}}),
    ({"NanoCpus": 1_500_000_000}, {"cpu": {"period": 100_000, "quota": 150_000}}),
    # what Docker sends for flags that nobody gave
    ({"CpuShares": 0, "BlkioWeight": 0, "CpusetCpus": "", "BlkioDeviceReadBps": []}, {}),
    ({"MemorySwappiness": -1, "OomKillDisable": False, "MemoryReservation": 0}, {}),
    (
        {"MemoryReservation": 8 * MB, "MemorySwappiness": 0, "OomKillDisable": True},
        {"memory": {"reservation": 8 * MB, "swappiness": 0, "disableOOMKiller": True}},
    ),
    (
        {
            "CpuShares": 512,
            "CpuPeriod": 50_000,
            "CpuQuota": 25_000,
            "CpusetCpus": "0",
            "CpusetMems": "0",
        },
        {"cpu": {"shares": 512, "period": 50_000, "quota": 25_000, "cpus": "0", "mems": "0"}},
    ),
    (
        {"CpuRealtimePeriod": 9000, "CpuRealtimeRuntime": 800},
        {"cpu": {"realtimePeriod": 9000, "realtimeRuntime": 800}},
    ),
    (
        {
            "BlkioWeight": 300,
            "BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 200}],
            "BlkioDeviceReadIOps": [{"Path": "/dev/null", "Rate": 7}],
        },
        {
            "blockIO": {
                "weight": 300,
                "weightDevice": [{"major": 1, "minor": 3, "weight": 200}],
                "throttleReadIOPSDevice": [{"major": 1, "minor": 3, "rate": 7}],
            }
        },
    ),
]


@pytest.mark.parametrize(("host", "wanted"), RESOURCES)
def test_resources(host: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert document.resources(host) == wanted


BAD_RESOURCES = [
    ({"Memory": 6 * MB - 1}, "Minimum memory limit allowed is 6MB"),
    ({"Memory": 8 * MB, "MemorySwap": 7 * MB}, "Minimum memoryswap limit should be larger"),
    ({"MemorySwap": 7 * MB}, "You should always set the Memory limit when using Memoryswap"),
    ({"MemoryReservation": MB}, "Minimum memory reservation allowed is 6MB"),
    ({"Memory": 8 * MB, "MemoryReservation": 9 * MB}, "can not be less than memory reservation"),
    ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
    ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
    ({"CpuPeriod": 999}, "CPU cfs period can not be less than 1ms"),
    ({"CpuQuota": 999}, "CPU cfs quota can not be less than 1ms"),
    ({"BlkioWeight": 9}, "Range of blkio weight is from 10 to 1000"),
    ({"BlkioDeviceReadBps": [{"Path": "/no", "Rate": 1}]}, "stat /no: no such file or directory"),
    ({"NanoCpus": 1_000_000}, "[Rr]ange of CPUs is from 0.01"),
    ({"NanoCpus": -1_000_000_000}, "[Rr]ange of CPUs is from 0.01"),
]


@pytest.mark.parametrize(("host", "words"), BAD_RESOURCES)
def test_a_limit_that_docker_refuses(host: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        document.resources(host)


def test_outer_volumes_come_first_and_dockers_files_after_the_volume_around_them() -> None:
    volumes = map(oci_mount, map(parse_bind, ["/1:/a/b/../b/c", "/2:/a:ro", "/3:/etc"]))
    found = document.mounts(list(volumes), "/dir")
    order = [mount["destination"] for mount in found]
    assert order.index("/proc") < order.index("/a") < order.index("/a/b/c")
    assert order.index("/etc") < order.index("/etc/hosts")
    read_only = found[order.index("/a")]
    assert (read_only["source"], "ro" in read_only["options"]) == ("/2", True)


def test_a_volume_in_place_of_dockers_file_wins() -> None:
    found = document.mounts([oci_mount(parse_bind("/mine:/etc/hosts"))], "/dir")
    sources = [mount["source"] for mount in found if mount["destination"] == "/etc/hosts"]
    assert sources[-1] == "/mine"


def test_the_document_is_pure_and_complete() -> None:
    request = {"Cmd": ["x"], "Hostname": "h", "HostConfig": {"NetworkMode": "none"}}
    image = {"WorkingDir": "/w"}
    before = repr((request, image))
    spec = document.document(request, image, "ID", "/dir", User(7, 8, (9,), "/home"))
    assert repr((request, image)) == before
    assert spec["root"] == {"path": "/dir/rootfs", "readonly": False}
    process = spec["process"]
    assert (process["cwd"], process["args"], process["terminal"]) == ("/w", ["x"], False)
    assert process["user"] == {"uid": 7, "gid": 8, "additionalGids": [9]}
    sets = process["capabilities"]
    assert [sets[name] for name in ("effective", "permitted", "ambient", "inheritable")] == [[]] * 4
    assert "CAP_SYS_ADMIN" not in sets["bounding"] and "CAP_KILL" in sets["bounding"]
    types = {namespace["type"] for namespace in spec["linux"]["namespaces"]}
    assert types == {"pid", "mount", "ipc", "uts", "cgroup", "network"}
    assert spec["linux"]["cgroupsPath"] == "/mini_docker/ID"
    devices = spec["linux"]["resources"]["devices"]
    assert devices[0] == {"allow": False, "access": "rwm"}
    assert parse_rules(devices)
    host = {**request, "HostConfig": {"NetworkMode": "host"}}
    shared = document.document(host, image, "ID", "/dir", User(0, 0, (), "/root"))
    assert {"type": "network"} not in shared["linux"]["namespaces"]
    assert shared["process"]["capabilities"]["effective"] == sets["bounding"]
