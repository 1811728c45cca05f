"""What a container gets at its creation, start and end, with stand-ins for the containers themselves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.engine.connect import Wiring
from mini_docker.engine.dns import Server
from mini_docker.engine.errors import NetworkFailure
from mini_docker.engine.store import Conflict
from mini_docker.lab import run_in_child
from mini_docker.linux.netlink import Netlink, link_set
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import in_netns, new_netns

root = pytest.mark.root


class House:
    """A data root, its wiring, and records that play containers."""

    def __init__(self, directory: str, names: Server | None = None, spaces: int = 3) -> None:
        self.directory = directory
        self.records: dict[str, dict[str, Any]] = {}
        self.wiring = Wiring(directory, self.find, names)
        self.sleepers: list[subprocess.Popen[bytes]] = []
        # before there are threads, as the zygote does
        self.spaces = [new_netns() for _ in range(spaces)]

    def find(self, name: str) -> dict[str, Any]:
        for record in self.records.values():
            if name in (record["Id"], record["Name"]):
                return record
        raise KeyError(name)

    def create(self, name: str, **request: Any) -> dict[str, Any]:
        container_id = f"{len(self.records):064x}"
        host = {"NetworkMode": "default", **request.pop("HostConfig", {})}
        config = {"Hostname": container_id[:12], **request}
        image: dict[str, Any] = {"ExposedPorts": {"99/tcp": {}}}
        more = self.wiring.create({**request, "HostConfig": host}, image)
        base = {
            "Id": container_id,
            "Name": name,
            "Config": config,
            "HostConfig": host,
            "ImageConfig": image,
        }
        self.records[container_id] = {**base, "State": {"Pid": 0}, **more}
        return self.records[container_id]

    def start(self, record: dict[str, Any]) -> int:
        """Connect a record, and let a sleeping process stand for its container."""
        netns_fd = self.wiring.attach(record, self.spaces.pop)
        assert netns_fd is not None
        command = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{netns_fd}", "sleep", "1000"]
        self.sleepers.append(subprocess.Popen(command))
        record["State"]["Pid"] = self.sleepers[-1].pid
        directory = f"{self.directory}/containers/{record['Id']}"
        os.makedirs(directory, exist_ok=True)
        for name, text in self.wiring.files(record, record["Config"]["Hostname"]).items():
            Path(directory, name).write_text(text)
        while os.readlink(f"/proc/{self.sleepers[-1].pid}/ns/net") != os.readlink(
            f"/proc/self/fd/{netns_fd}"
        ):
            pass
        return netns_fd

    def ends(self, record: dict[str, Any]) -> dict[str, str]:
        return {n: e["IPAddress"] for n, e in record["NetworkSettings"]["Networks"].items()}


def house(scenario: Callable[[str], None], store: str) -> None:
    outcome = run_in_child(_house, scenario, store, timeout=240.0)
    assert outcome.status == 0 and not outcome.timed_out, outcome.output or outcome.error


def _house(scenario: Callable[[str], None], store: str) -> None:
    unshare(CLONE_NEWNET)
    with Netlink() as netlink:
        netlink.request(link_set("lo", up=True))
    scenario(store)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "root")


def a_life(store: str) -> None:
    server = Server(f"{store}/network")
    home = House(store, server)
    thread = server.start()
    for name, subnet in (("front", "10.71.0.0/24"), ("back", "10.72.0.0/24")):
        home.wiring.networks.create({"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}})
    ports = {"80/tcp": [{"HostPort": "8080"}]}
    web = home.create(
        "web",
        HostConfig={"NetworkMode": "front", "PortBindings": ports, "ExtraHosts": ["x:1.2.3.4"]},
    )
    store_ = home.create("store", HostConfig={"NetworkMode": "back"})
    web_fd = home.start(web)
    home.start(store_)
    assert home.ends(web) == {"front": "10.71.0.2"}
    bound = {"HostIp": "0.0.0.0", "HostPort": "8080"}
    assert web["NetworkSettings"]["Ports"] == {"80/tcp": [bound], "99/tcp": None}
    files = home.wiring.files(web, "web")
    assert files["resolv.conf"].startswith("nameserver 127.0.0.11\n")
    assert files["hosts"].endswith("1.2.3.4\tx\n10.71.0.2\t000000000000\n")

    def asks(name: str) -> bool:
        command = f"busybox nslookup {name} 127.0.0.11 | grep -q 'Address: 10'"
        return in_netns(web_fd, os.system, command) == 0

    assert asks("web") and not asks("store")
    home.wiring.connect(web, "back", {"Aliases": ["shop"]})
    assert home.ends(web) == {"front": "10.71.0.2", "back": "10.72.0.3"} and asks("store")
    hosts = Path(store, "containers", web["Id"], "hosts")
    assert "10.72.0.3\t000000000000\n" in hosts.read_text()
    home.wiring.networks.rename(store_["Id"], "shelf")
    assert asks("shelf") and not asks("store")
    home.wiring.networks.rename(store_["Id"], "store")
    home.wiring.disconnect(web, "back", False)
    assert home.ends(web) == {"front": "10.71.0.2"} and "10.72" not in hosts.read_text()
    server.stop()
    thread.join()
    reborn = Server(f"{store}/network")  # the daemon was killed and is here again
    home.wiring.networks.held.clear()
    home.wiring = Wiring(store, home.find, reborn)
    thread = reborn.start()
    assert home.wiring.resume(home.records.values()) == []
    assert asks("web") and home.wiring.networks.held
    home.wiring.resume([], running=list(home.records))
    assert len(home.wiring.networks.endpoints_of(web["Id"])) == 1, "another's is left alone"
    home.wiring.detach(web)
    home.wiring.detach(web)
    assert (
        home.ends(web) == {"front": ""}
        and list(home.wiring.networks.inspect("front")["Containers"]) == []
    )
    home.wiring.connect(store_, "front", None)
    store_["State"]["Pid"] = 0
    home.wiring.detach(store_)
    home.wiring.disconnect(store_, "back", False)
    assert list(store_["Endpoints"]) == ["front"]
    reborn.stop()
    thread.join()
    for sleeper in home.sleepers:
        sleeper.kill()
        sleeper.wait()


@root
def test_a_life_on_networks_through_a_restart(store: str) -> None:
    house(a_life, store)


def old_links(store: str) -> None:
    home = House(store)
    db = home.create("db", Env=["VERSION=16"])
    home.start(db)
    web = home.create("web", HostConfig={"Links": ["db:database"]})
    home.start(web)
    ip = db["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert f"{ip}\tdatabase 000000000000 db\n" in home.wiring.files(web, "web")["hosts"]
    assert "DATABASE_ENV_VERSION=16" in home.wiring.link_variables(web)
    assert f"DATABASE_PORT_99_TCP_ADDR={ip}" in home.wiring.link_variables(web)
    home.wiring.networks.create({"Name": "front"})
    home.create("far", HostConfig={"NetworkMode": "front"})
    wrong = home.create("wrong", HostConfig={"Links": ["far"]})
    with pytest.raises(NetworkFailure, match="Cannot link to /far, as it does not belong"):
        home.start(wrong)
    home.wiring.connect(web, "front", None)
    resolv = Path(store, "containers", web["Id"], "resolv.conf")
    assert resolv.read_text().startswith("nameserver 127.0.0.11\n")
    home.wiring.disconnect(web, "front", False)
    assert "127.0.0.11" not in resolv.read_text()
    friend = home.create("friend", HostConfig={"NetworkMode": "container:db"})
    spec: dict[str, Any] = {"linux": {"namespaces": [{"type": "network"}]}}
    assert home.wiring.join(friend, spec) and not home.wiring.join(web, spec)
    assert spec["linux"]["namespaces"][0]["path"] == f"/proc/{db['State']['Pid']}/ns/net"
    assert home.wiring.files(friend, "friend")["hosts"] == home.wiring.files(db, "db")["hosts"]
    assert home.wiring.attach(friend, new_netns) is None
    db["State"]["Pid"] = 0
    with pytest.raises(Conflict, match="cannot join network of a non running container"):
        home.wiring.join(friend, spec)
    for mode in ("host", "none"):
        alien = home.create(mode, HostConfig={"NetworkMode": mode})
        assert home.wiring.attach(alien, new_netns) is None
        assert len(alien["NetworkSettings"]["Networks"][mode]["NetworkID"]) == 64
    for sleeper in home.sleepers:
        sleeper.kill()
        sleeper.wait()


@root
def test_links_of_the_first_year_and_borrowed_networks(store: str) -> None:
    house(old_links, store)


def alone_with_names(store: str) -> None:
    home = House(store)
    home.wiring.networks.create({"Name": "front"})
    web = home.create("web", HostConfig={"NetworkMode": "front"})
    fd = home.start(web)
    assert in_netns(fd, os.system, "busybox nslookup web 127.0.0.11 | grep -q 'Address: 172'") == 0
    home.sleepers[0].kill()
    home.sleepers[0].wait()


@root
def test_without_a_daemon_a_process_serves_the_names(store: str) -> None:
    house(alone_with_names, store)


@root
def test_volumes_are_made_at_creation_and_taken_from_others(store: str) -> None:
    home = House(store, spaces=0)
    first = home.create("first", Volumes={"/data": {}}, HostConfig={"Binds": ["store:/store"]})
    second = home.create("second", HostConfig={"VolumesFrom": ["first:ro"]})
    assert [p["Source"] for p in first["MountPoints"]] == [
        p["Source"] for p in second["MountPoints"]
    ]
    root_fd = os.open(store, os.O_PATH)
    mounts = home.wiring.mounts(second, root_fd)
    os.close(root_fd)
    assert [(m["destination"], m["options"]) for m in mounts] == [
        ("/data", ["rbind", "rprivate", "ro"]),
        ("/store", ["rbind", "rprivate", "ro"]),
    ]
    home.wiring.detach(first)
