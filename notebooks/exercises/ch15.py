"""Checks of chapters 15, 15b and 15c: real networks in namespaces that are thrown away."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable

from mini_docker.engine.ipam import overlap, parse_cidr
from mini_docker.engine.networks import Networks
from mini_docker.lab import Verdict, cannot_run, check, failed, passed, run_in_child
from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    Netlink,
    address_add,
    find_link,
    link_new_veth,
    link_set,
    wait_for_carrier,
)
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import in_netns, netlink_in, new_netns

WORLD = "203.0.113.9"


def _judge(scenario: Callable[..., Verdict], *arguments: object) -> Verdict:
    """Run a scenario in a child with a network and a data root of its own; its verdict comes back."""
    if os.geteuid() != 0:
        return cannot_run("you are not root")
    outcome = run_in_child(_alone, scenario, *arguments, timeout=20.0)
    if isinstance(outcome.value, Verdict):
        return outcome.value
    return failed(f"your function raised {outcome.error or outcome.output.strip()}")


def _alone(scenario: Callable[..., Verdict], *arguments: object) -> Verdict:
    unshare(CLONE_NEWNET)
    with Netlink() as netlink:
        netlink.request(link_set("lo", up=True))
    with tempfile.TemporaryDirectory() as root:
        return scenario(root, *arguments)


def world() -> int:
    """Lay a cable to a namespace that plays the internet; return the namespace."""
    world_fd = new_netns()
    with Netlink() as netlink:
        netlink.request(link_new_veth("wan", "eth0", world_fd))
        netlink.request(address_add(find_link(netlink, "wan").ifindex, "203.0.113.1", 24))
    with netlink_in(world_fd) as inside:
        inside.request(link_set("eth0", up=True))
        inside.request(address_add(find_link(inside, "eth0").ifindex, WORLD, 24))
    with Netlink() as netlink:
        wait_for_carrier(netlink, "wan")
    return world_fd


def seen(client_fd: int, server_fd: int, ip: str, port: int = 80) -> str:
    """Connect to `ip`:`port`; return whom a server on port 80 of the other namespace sees, "" for nobody."""
    with in_netns(server_fd, socket.create_server, ("0.0.0.0", 80)) as server:
        server.settimeout(1)
        with in_netns(client_fd, socket.socket) as client:
            client.settimeout(1)
            try:
                client.connect((ip, port))
                return str(server.accept()[1][0])
            except OSError:
                return ""


# --- 15: pools, a shop --------------------------------------------------------------------------


@check
def check_pools(answer: Callable[[list[str]], str | None]) -> Verdict:
    """Check the choice of a free /24."""
    cases = [([], "192.168.0.0/24"), (["192.168.0.0/24"], "192.168.1.0/24")]
    cases.append((["192.168.0.0/20", "10.0.0.0/8"], "192.168.16.0/24"))
    cases.append((["192.168.0.128/25", "192.168.1.7/32"], "192.168.2.0/24"))
    for used, wanted in cases:
        got = answer(list(used))
        if got is not None and any(overlap(parse_cidr(got), parse_cidr(text)) for text in used):
            return failed(f"{got} overlaps something in {used}: a subnet may lie inside another")
        if got != wanted:
            return failed(f"with {used} in use, the first free one is {wanted}, not {got}")
    if answer(["192.168.0.0/16"]) is not None:
        return failed("all of 192.168.0.0/16 is taken, and you still found one")
    return passed("the first free one, and none where there is none")


def _shop(root: str, answer: Callable[..., tuple[str, str]]) -> Verdict:
    networks, world_fd = Networks(root), world()
    networks.create({"Name": "guests"})
    web_fd, database_fd, guest_fd = new_netns(), new_netns(), new_netns()
    networks.attach(guest_fd, "9" * 64, "guest", "guests")
    found = answer(networks, web_fd, database_fd)
    if not isinstance(found, tuple) or len(found) != 2:
        return failed(f"return both addresses, (web's, database's), not {found!r}")
    web, database = found
    if not web or not database:
        return failed("a container has no address: attach returns it as IPAddress")
    if not seen(web_fd, database_fd, database):
        return failed("the web server does not reach the database: they have no network in common")
    if not seen(web_fd, world_fd, WORLD):
        return failed("the web server does not reach the world: all of its networks are internal")
    if seen(database_fd, world_fd, WORLD):
        return failed("the database reaches the world: its network is not internal")
    if seen(guest_fd, database_fd, database) or seen(guest_fd, web_fd, web):
        return failed("the guest reaches the shop: it shares a network with it")
    return passed("the web server has both, the database one, the guest none")


@check
def check_shop(answer: Callable[..., tuple[str, str]]) -> Verdict:
    """Check a shop by real traffic."""
    return _judge(_shop, answer)


# --- 15b: reading -p, a guard -------------------------------------------------------------------


@check
def check_publish(answer: Callable[[str], tuple[str, str, int, str]]) -> Verdict:
    """Check the reading of -p."""
    cases = {
        "8080:80": ("", "8080", 80, "tcp"),
        "80": ("", "", 80, "tcp"),
        "127.0.0.1:8080:80/udp": ("127.0.0.1", "8080", 80, "udp"),
        "127.0.0.1::80": ("127.0.0.1", "", 80, "tcp"),
        "[::1]:8080:80": ("::1", "8080", 80, "tcp"),
    }
    for text, wanted in cases.items():
        got = answer(text)
        if not isinstance(got, (tuple, list)) or tuple(got) != wanted:
            return failed(f"'{text}' means {wanted}; you return {got}")
    for text in ("", "x", "80:", "8080:80/icmp", "1:2:3:4", "8080:70000", "8080:0"):
        try:
            answer(text)
        except ValueError:
            continue
        return failed(f"'{text}' is no port to publish, and no ValueError was raised")
    return passed("five ways to say it, and seven that say nothing")


def _guard(root: str, answer: Callable[[], str]) -> Verdict:
    networks, world_fd = Networks(root), world()
    with netlink_in(world_fd) as inside:
        index = find_link(inside, "eth0").ifindex
        inside.request(address_add(index, "203.0.113.66", 24))
    web_fd, other_fd = new_netns(), new_netns()
    publish = {"80/tcp": [{"HostPort": "8080"}]}
    networks.attach(web_fd, "a" * 64, "web", port_bindings=publish)
    networks.attach(other_fd, "b" * 64, "other", port_bindings={"80/tcp": [{"HostPort": "8081"}]})
    nft.run(answer() or "list tables")

    def reach(client_fd: int, server_fd: int, source: str, ip: str, ports: tuple[int, int]) -> bool:
        with in_netns(server_fd, socket.create_server, ("0.0.0.0", ports[1])) as server:
            server.settimeout(1)
            with in_netns(client_fd, socket.socket) as client:
                client.settimeout(1)
                client.bind((source, 0))
                return client.connect_ex((ip, ports[0])) == 0

    def knock(source: str, server_fd: int, port: int) -> bool:
        return reach(world_fd, server_fd, source, "203.0.113.1", (port, 80))

    if not knock(WORLD, web_fd, 8080):
        return failed("203.0.113.9 cannot come in any more")
    if knock("203.0.113.66", web_fd, 8080):
        words = "the packet passes `forward`, not `input`, and its port is 80 by then"
        return failed(f"203.0.113.66 still comes in by port 8080: {words}")
    if not knock("203.0.113.66", other_fd, 8081):
        return failed("port 8081 is closed too: the container's port is 80 for both of them")
    if not reach(other_fd, world_fd, "0.0.0.0", WORLD, (8080, 8080)):
        return failed(
            "a container cannot call port 8080 of the world any more: that is no visitor, and was not "
            "sent on by a rule (`ct status`, or an address that is not the host's)"
        )
    return passed("one guest at one door, and the other door open")


@check
def check_guard(answer: Callable[[], str]) -> Verdict:
    """Check a guard by real traffic from two addresses."""
    return _judge(_guard, answer)


# --- 15c: reading a name, who knows whom --------------------------------------------------------


def _encode(*labels: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in labels)


@check
def check_read_name(answer: Callable[[bytes, int], str]) -> Verdict:
    """Check the reading of DNS names."""
    plain = b"\7\7" + _encode("database", "front") + b"\0"
    if (got := answer(plain, 2)) != "database.front":
        return failed(f"a name without pointers reads 'database.front', not {got!r}")
    pointed = plain + _encode("web") + b"\xc0\x0b"  # offset 11: front
    if (got := answer(pointed + bytes(300), len(plain))) != "web.front":
        return failed(f"'web' and a pointer to 'front' is 'web.front', not {got!r}")
    far = bytes(300) + _encode("far") + b"\0" + b"\xc1\x2c" + bytes(300)
    if (got := answer(far, 305)) != "far":
        return failed(f"a pointer has 14 bits: this one says 300, and you read {got!r}")
    wrong = {
        "has no end": b"\3web",
        "points to itself": b"\3web\xc0\x00",
        "points behind the data": b"\xc0\x63",
        "has 300 bytes": _encode(*["x" * 59] * 5) + b"\0",
    }
    for words, data in wrong.items():
        outcome = run_in_child(_refuses, answer, data, timeout=2.0)
        if outcome.timed_out:
            return failed(f"a name that {words} keeps you busy for ever")
        if outcome.value is not True:
            return failed(f"a name that {words} is no name, and no ValueError was raised")
    return passed("three names, four traps")


def _refuses(answer: Callable[[bytes, int], str], data: bytes) -> bool:
    try:
        answer(data, 0)
    except ValueError:
        return True
    return False


SHOPS = {
    "tea": {"web": ["www"], "database": ["db"], "spare": ["db"]},
    "coffee": {"web": [], "mill": ["db"]},
    "guests": {"guest": ["www"]},
}


@check
def check_who_knows(
    answer: Callable[[dict[str, dict[str, list[str]]], str, str], list[str]],
) -> Verdict:
    """Check who finds whom."""
    cases = (
        ("database", "spare", ["spare"], "a neighbour is found by name"),
        (
            "web",
            "db",
            ["database", "mill", "spare"],
            "an alias may mean several, on several networks",
        ),
        (
            "database",
            "db",
            ["database", "spare"],
            "an alias holds where it was given, for who is there",
        ),
        ("guest", "database", [], "strangers share no network: they are not found"),
        ("guest", "www", ["guest"], "an alias of another network means nothing here"),
        ("web", "db.coffee", ["mill"], "'name.network' asks one network alone"),
        ("database", "db.coffee", [], "and only one that the asker is on"),
    )
    for asker, name, wanted, words in cases:
        got = answer(SHOPS, asker, name)
        if got != wanted:
            return failed(f"{words}: {asker} asks for {name}, and finds {wanted}, not {got}")
    return passed("seven questions, each in the asker's eyes")
