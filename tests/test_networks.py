"""Networks of one's own: records and words without root, real traffic in namespaces of the tests' own."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import (
    Forbidden,
    NameTaken,
    NetworkFailure,
    NoSuchNetwork,
    NoSuchPlugin,
)
from mini_docker.engine.ipam import (
    Subnet,
    choose_pool,
    contains,
    default_pools,
    first_free,
    overlap,
    parse_cidr,
    plan_pools,
    show,
)
from mini_docker.engine.moments import SECOND, parse_moment, parse_until
from mini_docker.engine.network_requests import (
    endpoint_configs,
    network_settings,
    refuse_connect,
    wanted_ports,
)
from mini_docker.engine.networks import Networks
from mini_docker.engine.ports import Binding, clash, parse_wishes, port_map
from mini_docker.lab import run_in_child
from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    Netlink,
    address_add,
    find_link,
    link_delete,
    link_new_veth,
    link_set,
    list_links,
    wait_for_carrier,
)
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import in_netns, netlink_in, new_netns, open_netns
from tests.conftest import cannot_run_here

root = pytest.mark.root
RED, BLUE, GREEN = "a" * 64, "b" * 64, "c" * 64
WORLD, HOST = "203.0.113.9", "203.0.113.1"
BRIEF = 0.4  # seconds
PUBLISH = {"80/tcp": [{"HostPort": "8080"}]}


def alone(function: Callable[..., Any], *args: Any, timeout: float = 30.0) -> Any:
    """Call `function` in a child with a network of its own; what it raises fails the test."""
    outcome = run_in_child(_alone, function, *args, timeout=timeout)
    assert outcome.status == 0 and not outcome.timed_out, outcome.output or outcome.error
    return outcome.value


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    unshare(CLONE_NEWNET)
    with Netlink() as netlink:
        netlink.request(link_set("lo", up=True))
    return function(*args)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return a data root that is not there yet."""
    return str(tmp_path / "root")


def world() -> int:
    """Lay a cable to a namespace that plays the internet."""
    world_fd = new_netns()
    with Netlink() as netlink:
        netlink.request(link_new_veth("wan", "eth0", world_fd))
        netlink.request(address_add(find_link(netlink, "wan").ifindex, HOST, 24))
    with netlink_in(world_fd) as inside:
        inside.request(link_set("eth0", up=True))
        inside.request(address_add(find_link(inside, "eth0").ifindex, WORLD, 24))
    with Netlink() as netlink:
        wait_for_carrier(netlink, "wan")
    return world_fd


def seen(client_fd: int, server_fd: int, ip: str, port: int = 80, wait: float = 120.0) -> str:
    """Connect to `ip`:`port`; return whom a server on port 80 in the other namespace sees, "" for nobody.

    Nothing answers a packet that a rule drops: who expects nobody does not `wait` for long.
    """
    at = ("::" if ":" in ip else "0.0.0.0", 80)
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with in_netns(server_fd, socket.socket, family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(at)
        server.listen()
        server.settimeout(120)
        with in_netns(client_fd, socket.socket, family) as client:
            client.settimeout(wait)
            try:
                client.connect((ip, port))
                return str(server.accept()[1][0])
            except OSError:
                return ""


def create(networks: Networks, name: str, subnet: str = "", **more: Any) -> str:
    """Make a network; return its id."""
    ipam = {"IPAM": {"Config": [{"Subnet": subnet}]}} if subnet else {}
    return networks.create({"Name": name, **ipam, **more})["Id"]


# --- addresses ----------------------------------------------------------------------------------


def test_subnets_agree_with_ipaddress() -> None:
    chance = random.Random(15)
    for _ in range(2000):
        bits = chance.choice((32, 128))
        pair = []
        for _ in range(2):
            prefix = chance.randrange(bits // 4, bits + 1)
            number = chance.getrandbits(bits) & chance.choice((-1, 0xFF << (bits - 10)))
            address = ipaddress.ip_address(number.to_bytes(bits // 8, "big"))
            pair.append(f"{address}/{prefix}")
        mine = [parse_cidr(text) for text in pair]
        theirs: list[Any] = [ipaddress.ip_network(text, strict=False) for text in pair]
        assert [show(subnet) for subnet in mine] == [str(network) for network in theirs]
        assert overlap(*mine) == theirs[0].overlaps(theirs[1]), pair
        assert contains(mine[0], pair[1].partition("/")[0]) == (
            ipaddress.ip_interface(pair[1]).ip in theirs[0]
        )


@pytest.mark.parametrize(
    "text", ["", "junk", "10.9.0.0", "10.9.0.0/33", "10.9.0.0/-1", "::/129", "1.2.3.4/x"]
)
def test_what_is_no_subnet_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="invalid CIDR address: "):
        parse_cidr(text)


def test_pools_are_dockers_and_end() -> None:
    used: list[Subnet] = []
    for wanted in ("172.17.0.0/16", "172.18.0.0/16"):
        pool = choose_pool(used)
        assert show(pool) == wanted
        used.append(pool)
    assert len(list(default_pools())) == 31
    with pytest.raises(NetworkFailure, match="could not find an available, non-overlapping IPv4"):
        choose_pool(list(default_pools()))


def test_first_free_leaves_out_what_nobody_may_have() -> None:
    small = parse_cidr("10.9.0.0/29")
    assert first_free(small, None, set()) == "10.9.0.1"
    assert first_free(small, None, {f"10.9.0.{n}" for n in range(1, 6)}) == "10.9.0.6"
    assert first_free(small, None, {f"10.9.0.{n}" for n in range(1, 7)}) is None
    assert first_free(small, parse_cidr("10.10.0.0/30"), set()) is None
    assert first_free(parse_cidr("10.9.0.0/32"), None, set()) is None


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"Subnet": "172.17.3.0/24"}, Forbidden, "Pool overlaps with other one on this address space"),
        ({"Subnet": "junk"}, InvalidRequest, "Invalid subnet junk : invalid CIDR address: junk"),
        ({"Gateway": "10.9.0.1"}, InvalidRequest, "Invalid subnet  : invalid CIDR address: "),
        (
            {"Subnet": "10.9.0.0/24", "Gateway": "10.10.0.1"},
            InvalidRequest,
            r"failed to allocate gateway \(10.10.0.1\): Requested address is out of range",
        ),
        ({"Subnet": "10.9.0.0/24", "Gateway": "x"}, InvalidRequest, "invalid gateway address x in Ipam"),
        ({"Subnet": "10.9.0.0/24", "IPRange": "x"}, InvalidRequest, 'subpool "x": Invalid Address SubPool'),
        ({"Subnet": "10.9.0.0/24", "AuxiliaryAddresses": {"r": "1.2.3.4"}}, InvalidRequest, "out of range"),
    ],
)  # fmt: skip
def test_wrong_pools_in_dockers_words(config: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        plan_pools([config], False, [parse_cidr("172.17.0.0/16")], [])


def test_ipv6_needs_a_subnet_and_brings_ipv4() -> None:
    with pytest.raises(NetworkFailure, match="IPv6 address pool"):
        plan_pools([], True, [], [])
    four, six = plan_pools([{"Subnet": "fd00:9::/64"}], True, [], [])
    assert (four["Subnet"], six["Gateway"]) == ("172.17.0.0/16", "fd00:9::1")
    with pytest.raises(Forbidden):
        plan_pools([{"Subnet": "10.9.0.0/24"}, {"Subnet": "10.9.0.0/25"}], False, [], [])


# --- requests -----------------------------------------------------------------------------------


def test_what_a_container_asks_of_its_networks() -> None:
    assert endpoint_configs({}) == {"bridge": {}}
    assert endpoint_configs({"HostConfig": {"NetworkMode": "none"}}) == {"none": {}}
    assert endpoint_configs({"HostConfig": {"NetworkMode": "container:x"}}) == {}
    request = {
        "MacAddress": "02:00:00:00:00:01",
        "HostConfig": {"NetworkMode": "web", "Links": ["db:database"]},
        "NetworkingConfig": {"EndpointsConfig": {"web": {"Aliases": ["www"]}, "default": None}},
    }
    assert endpoint_configs(request) == {
        "web": {"Aliases": ["www"], "MacAddress": "02:00:00:00:00:01", "Links": ["db:database"]},
        "bridge": {},
    }
    with pytest.raises(InvalidRequest, match="port publishing and the container type network mode"):
        endpoint_configs({"HostConfig": {"NetworkMode": "container:x", "PortBindings": PUBLISH}})
    assert wanted_ports({"PublishAllPorts": True}, ["80/tcp", "53/udp"]) == {
        "80/tcp": [{}],
        "53/udp": [{}],
    }


def test_what_docker_does_not_connect() -> None:
    none, host = (
        {"Driver": driver, "Name": name} for driver, name in (("null", "none"), ("host", "host"))
    )
    web = {"Driver": "bridge", "Name": "web"}
    refuse_connect(web, "bridge", ["bridge"], True)
    for record, mode, others, running, words in (
        (host, "bridge", ["bridge"], True, "cannot be disconnected from host network"),
        (web, "host", ["host"], True, "sharing network namespace with another container or host"),
        (web, "none", ["none"], True, "private .none. mode"),
        (none, "bridge", ["bridge"], False, "private .none. mode"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            refuse_connect(record, mode, others, running)


def test_times_and_durations() -> None:
    assert parse_moment("1970-01-01T00:01:00.5Z") == 60.5 * SECOND
    assert parse_moment("1970-01-01T01:00:00+01:00") == 0
    assert parse_moment("1970-01-02") == parse_moment("1970-01-02T00:00") == 86400 * SECOND
    assert abs(parse_until(["1h30m"]) - (time.time() - 5400)) < 5
    assert parse_until(["100", "50"]) == 50
    for text in ("x", "", "2026-13-01", "1d"):
        with pytest.raises(InvalidRequest, match="failed to parse value as time or duration"):
            parse_until([text])


def test_ports_are_read() -> None:
    [wish] = parse_wishes({"80/TCP": [{"HostIp": "::1", "HostPort": "8000-8010"}]})
    assert wish == (80, "tcp", "::1", 8000, 8010)
    for wrong in ("0/tcp", "80/icmp", "x", "70000", "-1", "８０/tcp"):
        with pytest.raises(InvalidRequest):
            parse_wishes({wrong: []})
    with pytest.raises(InvalidRequest, match="Invalid ranges"):
        parse_wishes({"80/tcp": [{"HostPort": "9-8"}]})
    every = Binding("0.0.0.0", 80, "tcp", 80)
    assert clash("127.0.0.1", 80, "tcp", every)
    assert not clash("::", 80, "tcp", every) and not clash("0.0.0.0", 80, "udp", every)
    assert port_map([every], ["80/tcp", "81"]) == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}],
        "81/tcp": None,
    }


def test_settings_have_dockers_keys() -> None:
    settings = network_settings({"web": {"IPAddress": "10.9.0.2"}}, {})
    assert settings["IPAddress"] == "" and settings["Networks"]["web"]["IPAddress"] == "10.9.0.2"
    assert network_settings({"bridge": {"IPAddress": "10.9.0.2"}}, {})["IPAddress"] == "10.9.0.2"


# --- the manager's words ------------------------------------------------------------------------


def words_of(networks: Networks) -> None:
    create(networks, "web", "10.9.0.0/24", Labels={"a": "b"})
    for request, error, words in (
        ({"Name": "web"}, NameTaken, "network with name web already exists"),
        ({"Name": "bridge"}, Forbidden, "not permitted on predefined bridge network"),
        ({"Name": " "}, InvalidRequest, "invalid name"),
        ({"Name": "x", "Driver": "nosuch"}, NoSuchPlugin, 'plugin "nosuch" not found'),
        (
            {"Name": "x", "Driver": "host"},
            Forbidden,
            'only one instance of "host" network is allowed',
        ),
        (
            {"Name": "x", "Options": {"com.docker.network.driver.mtu": "abc"}},
            InvalidRequest,
            "mtu value: abc",
        ),
        (
            {"Name": "x", "Options": {"com.docker.network.bridge.name": "../x"}},
            InvalidRequest,
            "bridge name",
        ),
        (
            {"Name": "x", "Options": {"com.docker.network.bridge.name": "lo"}},
            Forbidden,
            "conflicts with",
        ),
    ):
        with pytest.raises(error, match=words):
            networks.create(request)
    assert [record["Name"] for record in networks.listing()] == ["bridge", "host", "none", "web"]
    refused: list[tuple[str, type[Exception], str]] = [
        ("nosuch", NoSuchNetwork, "network nosuch not found"),
        ("../../etc", NoSuchNetwork, "not found"),
        ("", NoSuchNetwork, "network  not found"),
        ("host", Forbidden, "host is a pre-defined network and cannot be removed"),
    ]
    for reference, kind, words in refused:
        with pytest.raises(kind, match=words):
            networks.remove(reference)
    web = networks.inspect("web")
    assert networks.inspect(web["Id"][:7]) == web == networks.inspect(web["Id"])
    assert len(os.listdir(networks.files.directory)) == 5, "nothing is half made"


@root
def test_refusals_are_in_dockers_words(store: str) -> None:
    alone(lambda: words_of(Networks(store)))


def filtered(networks: Networks) -> None:
    web = create(networks, "web", Labels={"a": "b", "c": ""})
    create(networks, "back", Internal=True)
    networks.attach(new_netns(), RED, "red", "web")

    def names(**filters: list[str]) -> list[str]:
        return [record["Name"] for record in networks.listing(filters)]

    assert names(name=["eb"]) == ["web"] and names(name=["^b"]) == ["bridge", "back"]
    assert names(id=[web[:5]]) == ["web"] and names(driver=["null"]) == ["none"]
    assert names(type=["custom"]) == ["web", "back"] and names(label=["a=b", "c"]) == ["web"]
    assert names(dangling=["true"]) == ["back"] and names(scope=["swarm"]) == []
    assert names(name=["("]) == []
    for wrong, words in (
        ({"foo": ["x"]}, "Invalid filter 'foo'"),
        ({"type": ["x"]}, "invalid filter: 'type'='x'"),
        ({"dangling": ["x"]}, "invalid value for filter 'dangling'"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            networks.listing(wrong)
    assert networks.prune({"until": ["1h"]}) == {"NetworksDeleted": None}
    assert networks.prune({"label": ["x"]}) == {"NetworksDeleted": None}
    assert networks.prune() == {"NetworksDeleted": ["back"]}
    with pytest.raises(Forbidden, match="has active endpoints"):
        networks.remove("web")
    networks.release(RED)
    assert networks.prune({"label!": ["a=b"]}) == {"NetworksDeleted": None}
    assert networks.prune() == {"NetworksDeleted": ["web"]}


@root
def test_filters_and_prune(store: str) -> None:
    alone(lambda: filtered(Networks(store)))


# --- traffic ------------------------------------------------------------------------------------


def everybody(store: str) -> None:
    networks, world_fd, here_fd = Networks(store), world(), open_netns()
    create(networks, "web", "10.71.0.0/24")
    create(networks, "back", "10.72.0.0/24", Internal=True)
    red_fd, blue_fd, green_fd = new_netns(), new_netns(), new_netns()
    red = networks.attach(red_fd, RED, "red", "web", {"Aliases": ["www"]}, PUBLISH)
    assert (red["IPAddress"], red["Gateway"]) == ("10.71.0.2", "10.71.0.1")
    assert red["Aliases"] == ["www", RED[:12]] and red["MacAddress"] == "02:42:0a:47:00:02"
    networks.attach(blue_fd, BLUE, "blue", "web", {"MacAddress": "02:00:00:00:00:07"})
    green = networks.attach(green_fd, GREEN, "green", "back")
    for client, ip, port, expected in (
        (blue_fd, "10.71.0.2", 80, "10.71.0.3"),
        (green_fd, "10.71.0.2", 80, ""),
        (world_fd, HOST, 8080, WORLD),
        (here_fd, "127.0.0.1", 8080, "10.71.0.1"),
        (here_fd, HOST, 8080, HOST),
        (blue_fd, HOST, 8080, "10.71.0.1"),
        (red_fd, HOST, 8080, "10.71.0.1"),
        (green_fd, HOST, 8080, ""),
    ):
        wait = 120 if expected else BRIEF
        assert seen(client, red_fd, ip, port, wait) == expected, (client, ip, port)
    assert seen(red_fd, world_fd, WORLD) == HOST
    assert seen(green_fd, world_fd, WORLD, wait=BRIEF) == ""
    assert seen(red_fd, green_fd, green["IPAddress"], wait=BRIEF) == ""
    networks.attach(red_fd, RED, "red", "back")
    assert seen(red_fd, green_fd, green["IPAddress"]) == "10.72.0.3"
    assert seen(red_fd, world_fd, WORLD) == HOST
    networks.detach(RED, "web", red_fd)
    assert seen(red_fd, world_fd, WORLD, wait=BRIEF) == ""
    assert seen(world_fd, red_fd, HOST, 8080, wait=BRIEF) == ""
    with socket.create_server(("0.0.0.0", 8080)):  # the port is free again
        pass
    with pytest.raises(NetworkFailure, match="is not connected to network web"):
        networks.detach(RED, "web", red_fd)
    networks.detach(RED, "web", red_fd, force=True)


@root
def test_everybody_reaches_whom_he_may(store: str) -> None:
    alone(everybody, store)


def sixes(store: str) -> None:
    networks, here_fd = Networks(store), open_netns()
    create(networks, "six", "fd00:9::/64", EnableIPv6=True)
    red_fd, blue_fd = new_netns(), new_netns()
    red = networks.attach(red_fd, RED, "red", "six", None, PUBLISH)
    static = {"IPAMConfig": {"IPv6Address": "fd00:9::77"}}
    blue = networks.attach(blue_fd, BLUE, "blue", "six", static)
    assert (red["GlobalIPv6Address"], red["IPv6Gateway"]) == ("fd00:9::2", "fd00:9::1")
    assert blue["GlobalIPv6Address"] == "fd00:9::77"
    assert seen(blue_fd, red_fd, "fd00:9::2") == "fd00:9::77"
    assert seen(here_fd, red_fd, "fd00:9::1", 8080) == "fd00:9::1"
    assert seen(blue_fd, red_fd, "fd00:9::1", 8080) == "fd00:9::1"
    assert networks.bindings(RED) == [("0.0.0.0", 8080, "tcp", 80), ("::", 8080, "tcp", 80)]
    with socket.socket(socket.AF_INET6) as client:  # refused at once: clients go on to 127.0.0.1
        assert client.connect_ex(("::1", 8080)) == errno.ECONNREFUSED


@root
def test_ipv6_beside_ipv4(store: str) -> None:
    alone(sixes, store)


def strangers(store: str) -> None:
    networks = Networks(store)
    apart = {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.driver.mtu": "1400",
    }
    create(networks, "apart", "10.71.0.0/24", Options=apart)
    fds = [new_netns(), new_netns()]
    for fd, name in zip(fds, (RED, BLUE), strict=True):
        networks.attach(fd, name, name[:3], "apart")
    assert seen(fds[0], fds[1], "10.71.0.3", wait=BRIEF) == ""
    assert seen(open_netns(), fds[1], "10.71.0.3") == "10.71.0.1"
    with netlink_in(fds[0]) as inside:
        assert find_link(inside, "eth0").mtu == 1400


@root
def test_without_icc_neighbours_are_strangers(store: str) -> None:
    alone(strangers, store)


def asked_addresses(store: str) -> None:
    networks = Networks(store)
    create(networks, "chosen")
    pool = {
        "Subnet": "10.71.0.0/28",
        "IPRange": "10.71.0.8/30",
        "AuxiliaryAddresses": {"r": "10.71.0.9"},
    }
    networks.create({"Name": "web", "IPAM": {"Config": [pool]}})
    ip = {"IPAMConfig": {"IPv4Address": "10.71.0.13"}}
    assert networks.inspect("web")["IPAM"]["Config"] == [pool]
    assert networks.attach(new_netns(), RED, "red", "web", ip)["IPAddress"] == "10.71.0.13"
    assert networks.attach(new_netns(), BLUE, "blue", "web")["IPAddress"] == "10.71.0.10"
    networks.attach(new_netns(), GREEN, "green", "web")
    for network, config, error, words in (
        ("web", ip, Forbidden, "Address already in use"),
        (
            "web",
            {},
            NetworkFailure,
            "no available IPv4 addresses on this network's address pools: web",
        ),
        (
            "web",
            {"IPAMConfig": {"IPv4Address": "10.9.0.1"}},
            InvalidRequest,
            "does not belong to any",
        ),
        ("web", {"IPAMConfig": {"IPv4Address": "x/../y"}}, InvalidRequest, "invalid IPv4 address"),
        ("web", {"MacAddress": "zz"}, InvalidRequest, "address zz: invalid MAC address"),
        ("bridge", ip, InvalidRequest, "supported on user defined networks only"),
        ("bridge", {"Aliases": ["x"]}, InvalidRequest, "network-scoped alias is supported only"),
        (
            "chosen",
            ip,
            InvalidRequest,
            "only when connecting to networks with user configured subnets",
        ),
        ("nosuch", {}, NoSuchNetwork, "network nosuch not found"),
        ("host", {}, InvalidRequest, "has no endpoints"),
    ):
        with pytest.raises(error, match=words):
            networks.attach(new_netns(), "d" * 64, "d", network, config)
        assert networks.endpoints_of("d" * 64) == {}
    with pytest.raises(Forbidden, match="endpoint with name red already exists in network web"):
        networks.attach(new_netns(), RED, "red", "web")
    assert sorted(networks.inspect("web")["Containers"]) == [RED, BLUE, GREEN]


@root
def test_addresses_that_are_asked_for(store: str) -> None:
    alone(asked_addresses, store)


def ports_in_use(store: str) -> None:
    networks, red_fd = Networks(store), new_netns()
    with socket.create_server(("127.0.0.1", 9000)):
        mine = {
            "80/tcp": [{"HostPort": "9000-9001"}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "9000"}],
        }
        networks.attach(red_fd, RED, "red", port_bindings=mine)
    assert networks.bindings(RED) == [
        Binding("127.0.0.1", 9000, "udp", 53), Binding("0.0.0.0", 9001, "tcp", 80)
    ]  # fmt: skip
    other = Networks(store)  # as another process has it
    with pytest.raises(
        NetworkFailure,
        match=r"driver failed programming .* endpoint blue .*port is already allocated",
    ):
        other.attach(new_netns(), BLUE, "blue", port_bindings={"80/tcp": [{"HostPort": "9001"}]})
    assert other.endpoints_of(BLUE) == {} and not other.held
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("0.0.0.0", 9001))
    networks.held.clear()  # the process that held them dies
    with socket.create_server(("127.0.0.1", 9001)):
        assert other.hold_ports([RED]) == [
            "red: listen tcp4 0.0.0.0:9001: bind: address already in use"
        ]
    many = networks.attach(
        new_netns(), BLUE, "blue", port_bindings={f"{n}/tcp": [{}] for n in range(1, 20)}
    )
    assert many and len({binding.host_port for binding in networks.bindings(BLUE)}) == 19


@root
def test_ports_in_use(store: str) -> None:
    alone(ports_in_use, store)


# --- crashes ------------------------------------------------------------------------------------


def mended(store: str) -> None:
    networks, world_fd = Networks(store), world()
    create(networks, "web", "10.71.0.0/24")
    red_fd, blue_fd = new_netns(), new_netns()
    networks.attach(red_fd, RED, "red", "web", None, PUBLISH)
    nft.run("flush ruleset")
    networks.attach(blue_fd, BLUE, "blue", "web")
    assert seen(world_fd, red_fd, HOST, 8080) == WORLD and seen(blue_fd, world_fd, WORLD) == HOST
    with Netlink() as netlink:
        netlink.request(link_delete(f"md-{networks.find('web')['Id'][:12]}"))
        assert networks.recover(()) != []
    networks.attach(new_netns(), RED, "red", "web")
    os.symlink(
        "gone" * 16, f"{networks.files.directory}/{networks.find('web')['Id']}/leases/10.71.0.9"
    )
    os.makedirs(f"{networks.files.directory}/{'e' * 64}/leases")
    assert sorted(networks.recover([RED])) == [
        "half-made network eeeeeeeeeeee",
        "lease of 10.71.0.9",
    ]
    assert networks.recover([RED]) == []


@root
def test_what_somebody_broke_is_mended(store: str) -> None:
    alone(mended, store)


def killed_before(n: int, store: str) -> bool:
    """Kill a process before its n-th step; clean up after it; say whether it died."""
    networks, netns_fd = Networks(store), new_netns()
    networks.segments.prepare()
    child = os.fork()
    if child == 0:
        try:
            count_down_to_death(n)
            networks.create({"Name": "web"})
            networks.attach(netns_fd, RED, "red", "web", None, PUBLISH)
            networks.detach(RED, "web")
            networks.remove("web")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    networks.recover(())
    for record in networks.listing({"type": ["custom"]}):
        assert networks.inspect(record["Id"])["Containers"] == {}
        networks.remove(record["Id"])
    create(networks, "web", "172.17.0.0/16")
    assert networks.attach(netns_fd, RED, "red", "web", None, PUBLISH)["IPAddress"] == "172.17.0.2"
    assert seen(open_netns(), netns_fd, "127.0.0.1", 8080) == "172.17.0.1"
    networks.reset()
    assert networks.reset() == [] and os.listdir(networks.files.directory) == ["lock"]
    with Netlink() as netlink:
        assert [link.name for link in list_links(netlink) if link.kind] == []
    return os.WIFSIGNALED(status)


def count_down_to_death(n: int) -> None:
    """Make the n-th message, transaction or change of a file of this process its last."""
    left = [n]

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return counted

    Netlink.request = deadly(Netlink.request)  # type: ignore[method-assign]
    nft.run = deadly(nft.run)
    for name in ("rename", "symlink", "unlink", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))


@root
def test_killed_at_any_moment_the_next_one_cleans_up(store: str) -> None:
    n = 0
    while alone(killed_before, n, f"{store}{n}"):
        n += 3  # every third moment
    assert n > 30, f"only {n} moments were passed"


def eight_at_once(store: str) -> None:
    Networks(store).create({"Name": "web"})
    pipes = []
    for n in range(8):
        read_fd, write_fd = os.pipe()
        netns_fd = new_netns()
        if os.fork() == 0:
            try:
                end = Networks(store).attach(
                    netns_fd, f"{n}" * 64, f"c{n}", "web", None, {"80/tcp": [{}]}
                )
                os.write(write_fd, str(end["IPAddress"]).encode())
            finally:
                os._exit(0)
        os.close(write_fd)
        pipes.append(read_fd)
    ips = sorted(os.fdopen(fd).read() for fd in pipes)
    assert ips == sorted(f"172.17.0.{n}" for n in range(2, 10)), ips
    assert nft.run("list chain inet mini_docker published").count("dnat") == 8


@root
def test_eight_processes_at_once(store: str) -> None:
    alone(eight_at_once, store)


# --- beside a real dockerd ----------------------------------------------------------------------


def beside_dockerd(scratch: str) -> tuple[Any, Any] | str:
    """Run dockerd and ours in one network; return both answers about a like network, or why not."""
    for name in ("upper", "work"):
        os.mkdir(f"{scratch}/{name}")
    overlay = f"lowerdir=/etc,upperdir={scratch}/upper,workdir={scratch}/work"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", overlay, "/etc"], check=True)
    words = f"dockerd --data-root {scratch}/data --exec-root /run/docker --pidfile /run/docker.pid"
    with open(f"{scratch}/log", "w") as log:
        command = [*words.split(), "--storage-driver", "vfs", "-H", "unix:///run/docker.sock"]
        docker = subprocess.Popen(command, stdout=log, stderr=log)
    end = time.monotonic() + 120
    while "API listen" not in Path(f"{scratch}/log").read_text():
        if docker.poll() is not None or time.monotonic() > end:
            return Path(f"{scratch}/log").read_text()[-200:]
        time.sleep(0.05)
    client = ["docker", "-H", "unix:///run/docker.sock", "network"]
    options = "--subnet 10.71.0.0/24 --ip-range 10.71.0.128/25 --gateway 10.71.0.254 --internal --label a=b"
    subprocess.run([*client, "create", *options.split(), "web"], check=True, capture_output=True)
    theirs = json.loads(subprocess.check_output([*client, "inspect", "web"]))[0]
    networks = Networks(f"{scratch}/ours")
    pool = {"Subnet": "10.72.0.0/24", "IPRange": "10.72.0.128/25", "Gateway": "10.72.0.254"}
    request = {"Name": "web", "Internal": True, "Labels": {"a": "b"}, "IPAM": {"Config": [pool]}}
    networks.create(request)
    networks.create({"Name": "open"})  # its pool keeps clear of docker0
    red_fd, world_fd = new_netns(), world()
    networks.attach(red_fd, RED, "red", "open", None, PUBLISH)
    assert seen(world_fd, red_fd, HOST, 8080) == WORLD and seen(red_fd, world_fd, WORLD) == HOST
    docker.terminate()
    docker.wait()
    return theirs, networks.inspect("web")


@root
@pytest.mark.peers
def test_beside_a_real_dockerd_and_like_it(tmp_path: Path) -> None:
    if not shutil.which("dockerd") or not shutil.which("docker"):
        cannot_run_here("dockerd and docker are not installed (remedy: apt install docker.io)")
    outcome = alone(beside_dockerd, str(tmp_path), timeout=60.0)
    if isinstance(outcome, str):
        cannot_run_here(f"dockerd does not start: {outcome}")
    theirs, ours = outcome
    for answer in (theirs, ours):
        assert len(answer.pop("Id")) == 64 and answer.pop("Created").endswith("Z")
    text = (
        json.dumps(theirs)
        .replace("10.71.", "10.72.")
        .replace('"Options": {}', '"Options": null', 1)
    )
    assert {**json.loads(text), "Options": {}} == {**ours, "Options": {}}
