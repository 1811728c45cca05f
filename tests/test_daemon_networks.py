"""The daemon's networks and volumes over its API: names, ports and content, through the daemon's death."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest

from mini_docker.linux import nft
from mini_docker.linux.netlink import list_links
from mini_docker.namespaces.net import in_netns, netlink_in
from tests.daemons import Daemon
from tests.system import until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]


def said(daemon: Daemon, name: str, *words: str, **more: Any) -> str:
    """Run a container to its end; return what it said."""
    daemon.run(name, *words, **more)
    daemon.ask("POST", f"/containers/{name}/wait")
    text = daemon.logs(name, "stdout=1&stderr=1").decode(errors="replace")
    daemon.ask("DELETE", f"/containers/{name}?force=1&v=1")
    return text


def call(daemon: Daemon, port: int) -> bytes:
    """Connect to a port of the daemon's host; return what is sent."""
    try:
        with in_netns(daemon.netns_fd, socket.socket) as client:
            client.settimeout(60)
            client.connect(("127.0.0.1", port))
            return client.recv(100)
    except OSError:
        return b""


SERVE = ("nc", "-ll", "-p", "80", "-e", "echo", "hello")
FRONT = {"HostConfig": {"NetworkMode": "front"}}
BRIDGE = {"HostConfig": {"NetworkMode": "bridge"}}


def test_names_and_ports_outlive_the_daemon(daemon: Daemon) -> None:
    pool = {"IPAM": {"Config": [{"Subnet": "10.71.0.0/24"}]}}
    status, made = daemon.ask("POST", "/networks/create", {"Name": "front", **pool})
    assert status == 201 and len(made["Id"]) == 64 and made["Warning"] == ""
    ports = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    host = {"HostConfig": {"NetworkMode": "front", **ports}}
    db = daemon.run(
        "db",
        *SERVE,
        NetworkingConfig={"EndpointsConfig": {"front": {"Aliases": ["store"]}}},
        **host,
    )
    until(lambda: call(daemon, 8080) == b"hello\n")
    settings = daemon.ask("GET", "/containers/db/json")[1]["NetworkSettings"]
    assert settings["Networks"]["front"]["IPAddress"] == "10.71.0.2"
    assert settings["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    network = daemon.ask("GET", "/networks/front")[1]
    assert network["Containers"][db]["IPv4Address"] == "10.71.0.2/24"
    assert "10.71.0.2" in said(daemon, "ask", "nslookup", "store", **FRONT)
    assert daemon.ask("DELETE", "/networks/front")[0] == 403
    daemon.create("thief", "true", **host)
    status, answer = daemon.ask("POST", "/containers/thief/start")
    assert (
        status == 500
        and "Bind for 0.0.0.0:8080 failed: port is already allocated" in answer["message"]
    )
    daemon.kill()
    assert call(daemon, 8080) == b"hello\n", "the kernel needs no daemon"
    daemon.start()
    assert call(daemon, 8080) == b"hello\n"
    with pytest.raises(OSError, match="in use"):
        in_netns(daemon.netns_fd, socket.create_server, ("0.0.0.0", 8080))
    assert "10.71.0.2" in said(daemon, "again", "nslookup", "store", **FRONT)
    daemon.ask("DELETE", "/containers/db?force=1")
    assert call(daemon, 8080) == b""
    assert daemon.ask("POST", "/containers/thief/start")[0] == 204


def test_connect_and_disconnect_while_it_runs(daemon: Daemon) -> None:
    for name, subnet in (("front", "10.71.0.0/24"), ("back", "10.72.0.0/24")):
        daemon.ask(
            "POST", "/networks/create", {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}}
        )
    web = daemon.run("web", "sleep", "1000", **FRONT)
    static = {
        "Container": "web",
        "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.72.0.9"}, "Aliases": ["w"]},
    }
    assert daemon.ask("POST", "/networks/back/connect", static) == (200, "")
    assert daemon.ask("POST", "/networks/back/connect", static)[0] == 403
    back = {"HostConfig": {"NetworkMode": "back"}}
    assert "10.72.0.9" in said(daemon, "ask", "nslookup", "w", **back)
    ends = daemon.ask("GET", f"/containers/{web}/json")[1]["NetworkSettings"]["Networks"]
    assert {n: e["IPAddress"] for n, e in ends.items()} == {
        "front": "10.71.0.2",
        "back": "10.72.0.9",
    }
    assert daemon.ask("POST", "/networks/back/disconnect", {"Container": "web"}) == (200, "")
    status, answer = daemon.ask("POST", "/networks/back/disconnect", {"Container": "web"})
    assert (status, answer["message"]) == (500, f"container {web} is not connected to network back")
    assert daemon.ask("POST", "/networks/nosuch/connect", {"Container": "web"})[0] == 404
    assert daemon.ask("POST", "/networks/front/connect", {"Container": "nosuch"})[0] == 404
    assert daemon.ask("POST", "/networks/prune")[1] == {"NetworksDeleted": ["back"]}
    for wrong in (
        {"Name": 7},
        {"Name": "x", "IPAM": []},
        {"Name": "x", "IPAM": {"Config": [{"Subnet": 7}]}},
    ):
        assert daemon.ask("POST", "/networks/create", wrong)[0] == 400


def test_volumes_over_the_api(daemon: Daemon) -> None:
    status, made = daemon.ask("POST", "/volumes/create", {"Name": "store", "Labels": {"a": "b"}})
    assert status == 201 and made["Name"] == "store"
    binds = {"HostConfig": {"Binds": ["store:/data"]}}
    said(daemon, "writer", "sh", "-c", "echo kept >/data/file", **binds)
    daemon.create("reader", "cat", "/data/file", Volumes={"/own": {}}, **binds)
    mounts = daemon.ask("GET", "/containers/reader/json")[1]["Mounts"]
    assert [(m["Type"], m["Destination"]) for m in mounts] == [
        ("volume", "/data"),
        ("volume", "/own"),
    ]
    status, answer = daemon.ask("DELETE", "/volumes/store")
    assert status == 409 and answer["message"].startswith("remove store: volume is in use - [")
    daemon.ask("POST", "/containers/reader/start")
    daemon.ask("POST", "/containers/reader/wait")
    assert b"kept" in daemon.logs("reader")
    assert len(daemon.ask("GET", "/volumes")[1]["Volumes"]) == 2
    daemon.ask("DELETE", "/containers/reader?v=1")
    assert [v["Name"] for v in daemon.ask("GET", "/volumes")[1]["Volumes"]] == ["store"]
    assert daemon.ask("GET", "/volumes/nosuch")[0] == 404
    assert daemon.ask("POST", "/volumes/create", {"Name": "../x"})[0] in (400, 404)
    assert daemon.ask("POST", "/volumes/prune")[1]["VolumesDeleted"] == ["store"]
    assert daemon.ask("DELETE", "/volumes/store?force=1") == (204, "")


def test_both_families_in_any_order_and_the_default_route_prefers_them(daemon: Daemon) -> None:
    pools = [
        {"Subnet": "fd00:72::/64"},
        {"Subnet": "10.72.0.0/24", "AuxiliaryAddresses": {"printer": "10.72.0.7"}},
    ]
    both = {"Name": "zz-both", "EnableIPv6": True, "IPAM": {"Config": pools}}
    assert daemon.ask("POST", "/networks/create", both)[0] == 201
    assert daemon.ask("GET", "/networks/zz-both")[1]["IPAM"]["Config"] == pools[::-1]
    four = {"Name": "four", "IPAM": {"Config": [{"Subnet": "10.71.0.0/24"}]}}
    daemon.ask("POST", "/networks/create", four)
    ends: dict[str, Any] = {"four": {}, "zz-both": {}}
    more: dict[str, Any] = {
        "HostConfig": {"NetworkMode": "four"},
        "NetworkingConfig": {"EndpointsConfig": ends},
    }
    text = said(daemon, "two", "sh", "-c", "ip route; ip -6 route", **more)
    assert "default via 10.72.0.1" in text and "default via fd00:72::1" in text
    printer = {"zz-both": {"IPAMConfig": {"IPv4Address": "10.72.0.7"}}}
    more = {
        "HostConfig": {"NetworkMode": "zz-both"},
        "NetworkingConfig": {"EndpointsConfig": printer},
    }
    daemon.create("printer", "true", **more)
    status, answer = daemon.ask("POST", "/containers/printer/start")
    assert status >= 400 and "Address already in use" in answer["message"]


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"Driver": "overlay"}, "This node is not a swarm manager."),
        ({"Scope": "swarm"}, "cannot create a swarm scoped network when swarm is not active"),
        ({"Ingress": True}, "Ingress network can only be global scope network"),
        ({"Driver": "macvlan"}, 'plugin "macvlan" not found'),
    ],
)
def test_networks_that_are_not_here(daemon: Daemon, more: dict[str, Any], words: str) -> None:
    status, answer = daemon.ask("POST", "/networks/create", {"Name": "x", **more})
    assert status >= 400 and words in answer["message"]


@pytest.mark.anywhere
def test_published_ports_of_the_hosts_network_are_a_warning(daemon: Daemon) -> None:
    host = {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}}
    status, made = daemon.ask(
        "POST", "/containers/create", {"Image": "busybox", "HostConfig": host}
    )
    assert status == 201
    assert made["Warnings"] == ["Published ports are discarded when using host network mode"]


def test_names_of_ones_own_and_of_the_host(daemon: Daemon) -> None:
    body = {
        "Hostname": "web",
        "Domainname": "example.org",
        "HostConfig": {"NetworkMode": "bridge", "ExtraHosts": ["up:host-gateway"]},
    }
    text = said(
        daemon, "named", "sh", "-c", "hostname; hostname -f; cat /etc/hosts; ip route", **body
    )
    assert text.startswith("\x01") and "web\n" in text and "web.example.org\n" in text
    assert "\tweb.example.org web\n" in text
    gateway = daemon.ask("GET", "/networks/bridge")[1]["IPAM"]["Config"][0]["Gateway"]
    assert f"{gateway}\tup\n" in text and f"default via {gateway} " in text
    body = {
        "HostConfig": {"NetworkMode": "bridge", "ExtraHosts": ["up:host-nowhere"]},
        "Image": "busybox",
    }
    status, answer = daemon.ask("POST", "/containers/create", body)
    assert status == 400 and answer["message"] == 'invalid IP address in add-host: "host-nowhere"'


def wires(daemon: Daemon) -> tuple[set[str], bool]:
    """Return the bridges of the daemon's host, and whether there is a table of rules."""
    with netlink_in(daemon.netns_fd) as netlink:
        bridges = {link.name for link in list_links(netlink) if link.name.startswith("md-")}
    return bridges, "table inet mini_docker" in in_netns(daemon.netns_fd, nft.run, "list tables")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_bridges_and_rules_go_with_the_daemon_and_come_again(daemon: Daemon, number: int) -> None:
    daemon.ask("POST", "/networks/create", {"Name": "front"})
    assert "eth0" in said(daemon, "one", "ls", "/sys/class/net", **FRONT)
    assert "eth0" in said(daemon, "two", "ls", "/sys/class/net", **BRIDGE)
    bridges, table = wires(daemon)
    assert len(bridges) == 2 and table
    daemon.kill(number)
    assert wires(daemon) == ((set(), False) if number == signal.SIGTERM else (bridges, True))
    daemon.start()
    assert "eth0" in said(daemon, "one", "ls", "/sys/class/net", **FRONT)
    assert "eth0" in said(daemon, "two", "ls", "/sys/class/net", **BRIDGE)
    assert wires(daemon) == (bridges, True)


def test_they_stay_for_a_container_that_lives(daemon: Daemon) -> None:
    daemon.ask("POST", "/networks/create", {"Name": "front"})
    ports = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    daemon.run("stays", *SERVE, HostConfig={"NetworkMode": "bridge", **ports})
    until(lambda: call(daemon, 8080) == b"hello\n")
    before = wires(daemon)
    daemon.kill(signal.SIGTERM)
    assert wires(daemon) == before
    assert call(daemon, 8080) == b"hello\n"
    daemon.start()
    assert call(daemon, 8080) == b"hello\n"
