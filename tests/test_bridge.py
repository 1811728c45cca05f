"""The default bridge network: namespaces of the tests' own play container, host and internet."""

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

from mini_docker.engine.bridge import (
    SUBNETS,
    Bridge,
    blocking_chains,
    find_bridge,
    free_subnet,
    hosts_file,
    ip_number,
    ip_text,
    mac_of,
    overlap,
    parse_subnet,
    pass_docker,
    ports,
    resolv_conf,
    unpass_docker,
)
from mini_docker.lab import one_bridge, run_in_child
from mini_docker.lab.one_bridge import BridgeNetwork, host_link, lease, leases
from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    Netlink,
    address_add,
    find_link,
    link_delete,
    link_new_bridge,
    link_new_veth,
    link_set,
    list_links,
    list_routes,
    wait_for_carrier,
)
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import in_netns, netlink_in, new_netns, open_netns
from tests.conftest import cannot_run_here

root = pytest.mark.root
GOOGLE = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
RED, BLUE = "red" + "0" * 61, "blue" + "0" * 60


@pytest.fixture
def state(tmp_path: Path) -> str:
    """Return a state directory that is not there yet."""
    return str(tmp_path / "network")


def alone(function: Callable[..., Any], *args: Any, timeout: float = 30.0) -> Any:
    """Call `function` in a child with a network of its own; what it raises fails the test."""
    outcome = run_in_child(_alone, function, *args, timeout=timeout)
    assert outcome.status == 0 and not outcome.timed_out, outcome.output
    return outcome.value


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    unshare(CLONE_NEWNET)
    return function(*args)


def internet() -> int:
    """Lay a cable to a namespace that plays the internet, and which knows no way back to containers."""
    internet_fd = new_netns()
    with Netlink() as netlink:
        netlink.request(link_new_veth("wan", "eth0", internet_fd))
        netlink.request(address_add(find_link(netlink, "wan").ifindex, "203.0.113.1", 24))
    with netlink_in(internet_fd) as inside:
        inside.request(link_set("eth0", up=True))
        inside.request(address_add(find_link(inside, "eth0").ifindex, "203.0.113.9", 24))
    with Netlink() as netlink:
        wait_for_carrier(netlink, "wan")
    return internet_fd


def visitor(client_fd: int, server_fd: int, ip: str, wait: float = 120.0) -> str:
    """Connect to `ip`:80 from one namespace to another; return whom the server sees, "" for nobody.

    Nothing answers a packet that a rule drops: who expects nobody does not `wait` for long.
    """
    with in_netns(server_fd, socket.create_server, (ip, 80)) as server:
        server.settimeout(120)
        with in_netns(client_fd, socket.socket) as client:
            client.settimeout(wait)
            try:
                client.connect((ip, 80))
            except OSError:
                return ""
            client.settimeout(120)
            connection, (seen, _) = server.accept()
            with connection:
                connection.sendall(b"hello")
                assert client.recv(100) == b"hello"
            return str(seen)


# --- arithmetic ---------------------------------------------------------------------------------


def test_addresses_are_numbers() -> None:
    assert ip_number("0.0.1.2") == 258
    assert ip_text(0xAC1D0002) == "172.29.0.2"
    assert mac_of("172.29.0.2") == "02:42:ac:1d:00:02"
    with pytest.raises(OSError, match="illegal"):
        ip_number("172.29.0")


def test_overlap_agrees_with_ipaddress() -> None:
    chance = random.Random(29)
    for _ in range(2000):
        pair = []
        for _ in range(2):
            prefix = chance.randrange(8, 31)
            first = (
                chance.getrandbits(32)
                & chance.choice((0xFFFFFFFF, 0xAC1FFFFF))
                & -(1 << (32 - prefix))
            )
            pair.append((first, prefix))
        one, other = (ipaddress.ip_network(network) for network in pair)
        assert overlap(*pair) == one.overlaps(other), pair


@pytest.mark.parametrize(
    "subnet", ["", "172.29.0.0", "172.29.0.1/16", "172.29.0.0/31", "0.0.0.0/0", "x/16", "1.2.3.0/x"]
)
def test_a_wrong_subnet_is_named(subnet: str) -> None:
    with pytest.raises(ValueError, match="is not a subnet"):
        parse_subnet(subnet)


def test_the_first_subnet_that_hides_nothing() -> None:
    used = [parse_subnet(text) for text in ("172.29.4.0/24", "172.16.0.0/12")]
    assert free_subnet([]) == SUBNETS[0]
    assert free_subnet(used[:1]) == SUBNETS[1]
    assert free_subnet(used) == "10.199.0.0/16"
    assert free_subnet([(0, 0), (0, 1), (1 << 31, 1)]) == SUBNETS[0]
    with pytest.raises(OSError, match="overlaps a route of this machine") as caught:
        free_subnet([*used, parse_subnet("10.0.0.0/8")])
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_links_name_has_fifteen_bytes() -> None:
    assert host_link("0123456789abcdef" * 4) == "md0123456789abc"
    assert len(host_link("f" * 64)) == 15


# --- leases -------------------------------------------------------------------------------------


def test_leases_are_the_lowest_free_and_can_be_read(state: str) -> None:
    bridge = Bridge(7, "172.29.0.1", 29, True)
    given = [lease(bridge, name, state) for name in ("a", "b", "c", "a")]
    assert given == ["172.29.0.2", "172.29.0.3", "172.29.0.4", "172.29.0.2"]
    assert leases(state) == {"172.29.0.2": "a", "172.29.0.3": "b", "172.29.0.4": "c"}
    BridgeNetwork().release("b", state)
    BridgeNetwork().release("b", state)
    assert lease(bridge, "d", state) == "172.29.0.3"
    assert [lease(bridge, name, state) for name in ("e", "f")] == ["172.29.0.5", "172.29.0.6"]
    with pytest.raises(OSError, match="no address is left") as caught:
        lease(bridge, "g", state)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_lease_of_another_subnet_is_not_reused(state: str) -> None:
    assert lease(Bridge(7, "172.29.0.1", 16, True), "a", state) == "172.29.0.2"
    assert lease(Bridge(7, "172.30.255.254", 16, True), "a", state) == "172.30.0.1"


# --- names --------------------------------------------------------------------------------------


def test_hosts_names_the_container() -> None:
    assert hosts_file("web", "172.29.0.2").endswith("ff02::2\tip6-allrouters\n172.29.0.2\tweb\n")
    assert hosts_file("web").endswith("ip6-allrouters\n")
    assert hosts_file("web").startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost")


@pytest.mark.parametrize(
    ("host", "container"),
    [
        ("nameserver 10.0.0.2\n", "nameserver 10.0.0.2\n"),
        (
            "search a b\nnameserver 10.0.0.2\noptions x",
            "search a b\nnameserver 10.0.0.2\noptions x\n",
        ),
        ("nameserver 127.0.0.1\nnameserver 10.0.0.2", "nameserver 10.0.0.2\n"),
        ("nameserver ::1\nnameserver 2001:db8::1\nnameserver 10.0.0.2", "nameserver 10.0.0.2\n"),
        ("", GOOGLE),
        ("search a\nnameserver 127.0.1.1\n", "search a\n" + GOOGLE),
        ("nameserver\n# nameserver 1.1.1.1", "nameserver\n# nameserver 1.1.1.1\n" + GOOGLE),
    ],
)
def test_resolv_conf_keeps_what_a_container_can_reach(host: str, container: str) -> None:
    assert resolv_conf(host, "/nonexistent") == container


def test_behind_systemd_resolved_are_the_real_servers(tmp_path: Path) -> None:
    upstream = tmp_path / "resolv.conf"
    upstream.write_text("nameserver 192.0.2.53\nsearch lan\n")
    stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"
    assert resolv_conf(stub, str(upstream)) == "nameserver 192.0.2.53\nsearch lan\n"
    both = stub + "nameserver 10.0.0.2\n"
    assert resolv_conf(both, str(upstream)) == "options edns0 trust-ad\nnameserver 10.0.0.2\n"
    assert "8.8.8.8" in resolv_conf(stub, str(tmp_path / "none"))


# --- nft ----------------------------------------------------------------------------------------


def test_a_missing_library_is_named_with_its_package() -> None:
    with pytest.raises(OSError, match="libmissing.so.1 cannot be loaded; .*libnftables1") as caught:
        nft.load("libmissing.so.1")
    assert caught.value.errno == errno.ENOPKG


@root
def test_without_the_library_ensure_says_so(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = nft.load
    monkeypatch.setattr(nft, "load", lambda: load("libmissing.so.1"))
    outcome = run_in_child(_alone, BridgeNetwork().ensure, state)
    assert "install the package libnftables1" in str(outcome.error)


def one_transaction() -> None:
    assert nft.run("add table ip a; add chain ip a c") == ""
    assert "chain c" in nft.run("list table ip a")
    assert nft.run("list table ip a", handles=True).count("# handle") == 2
    with pytest.raises(ValueError, match="No such file or directory"):
        nft.run("add table ip b\nadd rule ip none c accept")
    with pytest.raises(ValueError, match="^Error: "):
        nft.run("make me a firewall")
    assert nft.has_table("a") and not nft.has_table("b")
    nft.run("delete table ip a")
    assert not nft.has_table("a")


@root
def test_a_transaction_is_all_or_nothing() -> None:
    alone(one_transaction)


def test_blocking_chains_are_found_in_a_listing() -> None:
    listing = """# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain DOCKER-USER {
	}
}
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
	}
	chain mine {
		type filter hook forward priority -5; policy drop;
	}
}
"""
    assert blocking_chains(listing) == ["ip filter FORWARD", "inet firewalld mine"]
    assert blocking_chains("") == []


def beside_docker() -> None:
    assert pass_docker("br0") == []
    unpass_docker("br0")
    nft.run(
        """table ip filter {
        chain DOCKER-USER { counter return; }
        chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
    }"""
    )
    before = nft.run("list ruleset")
    for _ in range(2):
        assert pass_docker("br0") == []
        assert nft.run("list chain ip filter DOCKER-USER").count("accept") == 2
    if shutil.which("iptables") and "nf_tables" in subprocess.getoutput("iptables -V"):
        said = subprocess.run(["iptables", "-S", "DOCKER-USER"], capture_output=True, text=True)
        assert "-A DOCKER-USER -i br0" in said.stdout, said  # iptables can still read its own table
    unpass_docker("other")
    assert nft.run("list chain ip filter DOCKER-USER").count("accept") == 2
    unpass_docker("br0")
    unpass_docker("br0")
    assert nft.run("list ruleset") == before
    nft.run("delete chain ip filter FORWARD; delete chain ip filter DOCKER-USER")
    nft.run("table inet ufw { chain f { type filter hook forward priority 0; policy drop; }; }")
    assert pass_docker("br0") == ["inet ufw f"]


@root
def test_docker_is_asked_for_passage_and_left_as_it_was() -> None:
    alone(beside_docker)


def out_past_docker(state: str) -> str:
    """Reach the internet on a host whose FORWARD policy is Docker's."""
    nft.run(
        """table ip filter {
        chain DOCKER-USER { counter return; }
        chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
    }"""
    )
    internet_fd, red_fd = internet(), new_netns()
    network = BridgeNetwork()
    network.ensure(state)
    network.attach(red_fd, RED, state)
    seen = visitor(red_fd, internet_fd, "203.0.113.9")
    network.reset(state)
    assert "mini_docker" not in nft.run("list ruleset")
    return seen


@root
def test_containers_get_out_where_docker_drops(state: str) -> None:
    assert alone(out_past_docker, state) == "203.0.113.1"


def beside_a_real_dockerd(state: str, scratch: str) -> list[str]:
    """Start dockerd in this network, go out past its rules; return its DOCKER-USER before, during, after."""
    overlay = f"lowerdir=/etc,upperdir={scratch}/upper,workdir={scratch}/work"
    for name in ("upper", "work"):
        os.mkdir(f"{scratch}/{name}")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", overlay, "/etc"], check=True)
    # dockerd closes FORWARD only where it was the first to switch forwarding on
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    internet_fd, red_fd = internet(), new_netns()
    command = (
        f"dockerd --data-root {scratch}/data --exec-root /run/docker --pidfile /run/docker.pid"
    )
    with open(f"{scratch}/log", "w") as log:
        words = [*command.split(), "--storage-driver", "vfs", "-H", "unix:///run/docker.sock"]
        docker = subprocess.Popen(words, stdout=log, stderr=log)
    end = time.monotonic() + 120
    while "API listen" not in Path(f"{scratch}/log").read_text():
        if docker.poll() is not None or time.monotonic() > end:
            return []
        time.sleep(0.05)
    rules_of = "iptables -S DOCKER-USER"
    seen = [subprocess.getoutput(rules_of)]
    assert blocking_chains(nft.run("list chains")) == ["ip filter FORWARD"]
    network = BridgeNetwork()
    network.ensure(state)
    network.attach(red_fd, RED, state)
    assert visitor(red_fd, internet_fd, "203.0.113.9") == "203.0.113.1"
    seen.append(subprocess.getoutput(rules_of))
    network.reset(state)
    return [*seen, subprocess.getoutput(rules_of)]


@root
@pytest.mark.peers
def test_a_real_dockerd_lets_us_pass(state: str, tmp_path: Path) -> None:
    if not shutil.which("dockerd") or "nf_tables" not in subprocess.getoutput("iptables -V"):
        cannot_run_here(
            "dockerd and iptables-nft are not installed (remedy: apt install docker.io)"
        )
    seen = alone(beside_a_real_dockerd, state, str(tmp_path), timeout=60.0)
    if not seen:
        log = (tmp_path / "log").read_text().splitlines()
        cannot_run_here(f"dockerd does not start: {log[-1] if log else 'it says nothing'}")
    before, during, after = seen
    assert before == after
    assert during.count("mini_docker0") == 2


# --- the network --------------------------------------------------------------------------------


def makes_and_agrees(state: str) -> None:
    network = BridgeNetwork()
    bridge = network.ensure(state)
    assert network.ensure(state) == bridge
    assert (bridge.gateway, bridge.prefix) == ("172.29.0.1", 16)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    with Netlink() as netlink:
        link = find_link(netlink, "mini_docker0")
    assert link.kind == "bridge" and link.up and link.mac == "02:42:ac:1d:00:01"


@root
def test_ensure_makes_the_bridge_once(state: str) -> None:
    alone(makes_and_agrees, state)


def as_peers_see_it(state: str) -> None:
    BridgeNetwork().ensure(state)
    [seen] = json.loads(
        subprocess.check_output(["ip", "-j", "-d", "-4", "address", "show", "mini_docker0"])
    )
    assert seen["linkinfo"]["info_kind"] == "bridge" and "UP" in seen["flags"]
    assert [(x["local"], x["prefixlen"]) for x in seen["addr_info"]] == [("172.29.0.1", 16)]
    objects = json.loads(subprocess.check_output(["nft", "-j", "list", "ruleset"]))["nftables"]
    chains = {x["chain"]["name"]: x["chain"] for x in objects if "chain" in x}
    assert {x["table"]["name"] for x in objects if "table" in x} == {"mini_docker"}
    assert (chains["postrouting"]["hook"], chains["postrouting"]["type"]) == ("postrouting", "nat")
    assert (chains["forward"]["hook"], chains["forward"]["type"]) == ("forward", "filter")
    assert sum("masquerade" in str(x) for x in objects) == 1


@root
def test_ip_and_nft_agree(state: str) -> None:
    if not shutil.which("ip") or not shutil.which("nft"):
        cannot_run_here("ip and nft are not installed (remedy: apt install iproute2 nftables)")
    alone(as_peers_see_it, state)


DAMAGES: dict[str, Callable[[Netlink], object]] = {
    "rules flushed": lambda netlink: nft.run("flush ruleset"),
    "forwarding off": lambda netlink: Path("/proc/sys/net/ipv4/ip_forward").write_text("0"),
    "bridge down": lambda netlink: netlink.request(link_set("mini_docker0", up=False)),
    "bridge deleted": lambda netlink: netlink.request(link_delete("mini_docker0")),
}


def mends(damage: str, state: str) -> None:
    internet_fd, red_fd, network = internet(), new_netns(), BridgeNetwork()
    before = network.ensure(state)
    with Netlink() as netlink:
        DAMAGES[damage](netlink)
    after = network.ensure(state)
    assert after.gateway == before.gateway
    network.attach(red_fd, RED, state)
    assert visitor(red_fd, internet_fd, "203.0.113.9") == "203.0.113.1"


@root
@pytest.mark.parametrize("damage", DAMAGES)
def test_ensure_mends_what_somebody_broke(damage: str, state: str) -> None:
    alone(mends, damage, state)


def avoids(state: str) -> None:
    with Netlink() as netlink:
        netlink.request(link_new_bridge("office"))
        index = find_link(netlink, "office").ifindex
        netlink.request(address_add(index, "172.29.3.4", 24), address_add(index, "172.30.0.1", 12))
        assert any(route.destination == "172.29.3.0" for route in list_routes(netlink))
    assert BridgeNetwork().ensure(state).gateway == "10.199.0.1"
    assert BridgeNetwork(subnet="172.29.0.0/16").ensure(state).gateway == "10.199.0.1"  # it stays


@root
def test_a_used_network_is_not_hidden(state: str) -> None:
    alone(avoids, state)


def taken_name(state: str) -> None:
    with Netlink() as netlink:
        netlink.request(link_new_veth("mini_docker0", "other"))
    with pytest.raises(FileExistsError, match="is there, but is no bridge"):
        BridgeNetwork().ensure(state)


@root
def test_a_stranger_of_our_name_is_left_alone(state: str) -> None:
    alone(taken_name, state)


def whole_topology(state: str) -> None:
    internet_fd, red_fd, blue_fd = internet(), new_netns(), new_netns()
    network = BridgeNetwork()
    network.ensure(state)
    red, blue = network.attach(red_fd, RED, state), network.attach(blue_fd, BLUE, state)
    assert (red.ip, blue.ip) == ("172.29.0.2", "172.29.0.3")
    assert visitor(red_fd, blue_fd, blue.ip) == red.ip
    assert visitor(red_fd, red_fd, "127.0.0.1") == "127.0.0.1"
    assert visitor(red_fd, open_netns(), red.gateway) == red.ip
    assert visitor(open_netns(), red_fd, red.ip) == red.gateway
    assert visitor(red_fd, internet_fd, "203.0.113.9") == "203.0.113.1"
    with netlink_in(red_fd) as inside:
        assert find_link(inside, "eth0").mac == red.mac == "02:42:ac:1d:00:02"
    if shutil.which("ip"):
        route = ["ip", "route", "add", "172.29.0.0/16", "via", "203.0.113.1"]
        in_netns(internet_fd, subprocess.run, route)
        assert visitor(internet_fd, red_fd, red.ip, wait=0.4) == ""  # nobody comes in uninvited
    assert visitor(red_fd, internet_fd, "203.0.113.9") == "203.0.113.1"


@root
def test_neighbours_host_and_internet_and_nobody_else(state: str) -> None:
    alone(whole_topology, state)


def in_eight_processes(call: Callable[[int], str]) -> list[str]:
    """Call `call(n)` in eight processes at once; return what they return."""
    gate_read, gate_write = os.pipe()
    pipes = []
    for n in range(8):
        read_fd, write_fd = os.pipe()
        pipes.append(read_fd)
        if os.fork() == 0:
            try:
                os.close(gate_write)
                os.read(gate_read, 1)
                os.write(write_fd, call(n).encode())
            finally:
                os._exit(0)
        os.close(write_fd)
    os.close(gate_write)
    answers = []
    for read_fd in pipes:
        with open(read_fd) as file:
            answers.append(file.read())
    return answers


def eight_at_once(state: str) -> None:
    fds = [new_netns() for _ in range(8)]

    def connect(n: int) -> str:
        network = BridgeNetwork()
        network.ensure(state)
        return str(network.attach(fds[n], f"{n}" * 64, state).ip)

    ips = in_eight_processes(connect)
    assert sorted(ips) == [f"172.29.0.{n}" for n in range(2, 10)], ips
    assert {ip: holder[0] for ip, holder in leases(state).items()} == {
        ip: f"{n}" for n, ip in enumerate(ips)
    }
    with Netlink() as netlink:
        assert sorted(ports(netlink, "mini_docker0")) == [host_link(f"{n}" * 64) for n in range(8)]
        assert len([link for link in list_links(netlink) if link.kind == "bridge"]) == 1
    for other in range(1, 8):
        assert visitor(fds[0], fds[other], ips[other]) == ips[0]


@root
def test_eight_processes_at_once_get_eight_addresses(state: str) -> None:
    alone(eight_at_once, state)


def killed_before(n: int, state: str) -> bool:
    """Kill a process before its n-th message to the kernel, clean up after it; return whether it died."""
    network, child = BridgeNetwork(), os.fork()
    if child == 0:
        try:
            count_down_to_death(n)
            network.ensure(state)
            network.attach(new_netns(), RED, state)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    bridge = network.ensure(state)
    network.prune([], state)
    assert leases(state) == {}
    with Netlink() as netlink:
        assert ports(netlink, "mini_docker0") == []
    red_fd, internet_fd = new_netns(), internet()
    assert network.attach(red_fd, RED, state).ip == "172.29.0.2"
    assert visitor(red_fd, internet_fd, "203.0.113.9") == "203.0.113.1"
    assert visitor(red_fd, open_netns(), bridge.gateway) == "172.29.0.2"
    network.reset(state)
    assert not nft.has_table("mini_docker") and leases(state) == {}
    with Netlink() as netlink:
        assert [link.name for link in list_links(netlink) if link.kind] == ["wan"]
    return os.WIFSIGNALED(status)


def count_down_to_death(n: int) -> None:
    """Make the n-th message or transaction of this process its last: signal 9 comes before it."""
    left = [n]

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return counted

    Netlink.request = deadly(Netlink.request)  # type: ignore[method-assign]
    nft.run = deadly(nft.run)
    one_bridge.lease = deadly(lease)


@root
def test_killed_at_any_moment_the_next_one_cleans_up(state: str) -> None:
    n = 0
    while alone(killed_before, n, f"{state}{n}"):
        n += 1
    assert n > 12, f"only {n} moments were tried"


def pruned(state: str) -> None:
    network = BridgeNetwork()
    network.ensure(state)
    fds = {name: new_netns() for name in (RED, BLUE)}
    for name, fd in fds.items():
        network.attach(fd, name, state)
    with Netlink() as netlink:
        bridge = find_link(netlink, "mini_docker0").ifindex
        netlink.request(link_new_veth("mdstray", "x", None, bridge))
        netlink.request(
            link_new_veth("foreign", "y", None, bridge), link_new_veth("mdelsewhere", "z")
        )
    os.symlink("gone" * 16, f"{state}/leases/172.29.0.77")
    removed = network.prune([BLUE], state)
    assert sorted(removed) == [
        "lease of 172.29.0.2",
        "lease of 172.29.0.77",
        "link mdred0000000000",
        "link mdstray",
    ]
    assert leases(state) == {"172.29.0.3": BLUE}
    assert network.prune([BLUE], state) == []
    assert visitor(open_netns(), fds[BLUE], "172.29.0.3") == "172.29.0.1"
    with Netlink() as netlink:
        assert {"foreign", "mdelsewhere"} <= {link.name for link in list_links(netlink)}


@root
def test_prune_takes_the_dead_and_leaves_others(state: str) -> None:
    alone(pruned, state)


def reset_twice(state: str) -> None:
    nft.run("add table ip foreign; add table inet mini_docker")
    network = BridgeNetwork()
    assert network.reset(state) == []
    network.ensure(state)
    red_fd = new_netns()
    network.attach(red_fd, RED, state)
    assert network.reset(state) == [
        "link mdred0000000000",
        "lease of 172.29.0.2",
        "bridge mini_docker0",
        "nft table ip mini_docker",
    ]
    assert network.reset(state) == []
    assert nft.run("list tables").split("\n")[:2] == ["table ip foreign", "table inet mini_docker"]
    with Netlink() as netlink:
        assert find_bridge(netlink, "mini_docker0") is None
    with netlink_in(red_fd) as inside, pytest.raises(OSError, match="No such device"):
        find_link(inside, "eth0")


@root
def test_reset_removes_ours_and_only_ours(state: str) -> None:
    alone(reset_twice, state)


def failures(state: str) -> None:
    network, red_fd = BridgeNetwork(), new_netns()
    with pytest.raises(OSError, match="is not there yet") as caught:
        network.attach(red_fd, RED, state)
    assert caught.value.errno == errno.ENODEV
    network.ensure(state)
    with netlink_in(red_fd) as inside:
        inside.request(link_new_veth("eth0", "other"))
    with pytest.raises(FileExistsError, match="add veth 'mdred"):
        network.attach(red_fd, RED, state)
    assert leases(state) == {}
    with Netlink() as netlink:
        assert ports(netlink, "mini_docker0") == []
    with netlink_in(red_fd) as inside:
        inside.request(link_delete("eth0"))
    first = network.attach(red_fd, RED, state)
    assert network.attach(new_netns(), RED, state) == first  # the same container, a new life
    network.detach(RED, state)
    network.detach(RED, state)
    assert leases(state) == {}


@root
def test_a_failed_attach_leaves_nothing(state: str) -> None:
    alone(failures, state)


def two_networks(state: str) -> None:
    one = BridgeNetwork("net1", "10.71.0.0/24", "mini_docker_1")
    two = BridgeNetwork("net2", "10.72.0.0/24", "mini_docker_2")
    fds = [new_netns(), new_netns()]
    for n, network in enumerate((one, two)):
        network.ensure(f"{state}/{n}")
        network.attach(fds[n], f"{n}" * 64, f"{state}/{n}")
    assert visitor(fds[0], fds[1], "10.72.0.2", wait=0.4) == ""
    one.reset(f"{state}/0")
    assert nft.has_table("mini_docker_2") and not nft.has_table("mini_docker_1")


@root
def test_two_networks_do_not_mix(state: str) -> None:
    alone(two_networks, state)
