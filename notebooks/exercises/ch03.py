"""Checks of chapters 3 and 3b: the answers act on real namespaces, then the kernel is asked."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import Any

from mini_docker.lab import Verdict, cannot_run, check, failed, passed, run_in_child
from mini_docker.lab.one_bridge import BridgeNetwork
from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    Link,
    Message,
    Netlink,
    address_add,
    attribute,
    find_link,
    link_new_bridge,
    link_new_veth,
    link_set,
    list_addresses,
    list_links,
    wait_for_carrier,
)
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import in_netns, netlink_in, new_netns, open_netns

Socket = socket.socket


def _judge(scenario: Callable[..., Verdict], *arguments: object) -> Verdict:
    """Run a scenario in a child with a network of its own; its verdict comes back."""
    if os.geteuid() != 0:
        return cannot_run("you are not root")
    outcome = run_in_child(_in_own_network, scenario, *arguments)
    if isinstance(outcome.value, Verdict):
        return outcome.value
    return failed(f"your function raised {outcome.error or outcome.output.strip()}")


def _in_own_network(scenario: Callable[..., Verdict], *arguments: object) -> Verdict:
    unshare(CLONE_NEWNET)
    return scenario(*arguments)


# --- 3: a cable without a bridge ----------------------------------------------------------------


def _eth0(netns_fd: int) -> tuple[Link | None, list[str]]:
    """Return eth0 of a namespace and its IPv4 addresses as text."""
    with netlink_in(netns_fd) as netlink:
        found = [link for link in list_links(netlink) if link.name == "eth0"]
        own = [x for x in list_addresses(netlink) if found and x.ifindex == found[0].ifindex]
    return (found[0] if found else None), [f"{address.ip}/{address.prefix}" for address in own]


def _talks(source_fd: int, target_fd: int, ip: str) -> bool:
    with (
        in_netns(target_fd, Socket, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        in_netns(source_fd, Socket, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.settimeout(1)
        try:
            receiver.bind((ip, 7777))
            sender.sendto(b"hello", (ip, 7777))
            return receiver.recv(100) == b"hello"
        except OSError:
            return False


def _cable(answer: Callable[[int, int], None]) -> Verdict:
    fds = {"first": new_netns(), "second": new_netns()}
    before = _names(open_netns())
    answer(*fds.values())
    left = _names(open_netns()) - before
    if left:
        return failed(f"the link {', '.join(sorted(left))} lies in your own namespace")
    for (name, fd), wanted in zip(fds.items(), ("10.9.0.1/30", "10.9.0.2/30"), strict=True):
        link, addresses = _eth0(fd)
        if link is None:
            return failed(f"the {name} namespace has no eth0")
        if link.kind != "veth":
            return failed(
                f"eth0 of the {name} namespace is a {link.kind or 'stranger'}, not a veth"
            )
        if not link.up:
            return failed(f"eth0 of the {name} namespace is down")
        if addresses != [wanted]:
            return failed(
                f"eth0 of the {name} namespace has {addresses or 'no address'}, not {wanted}"
            )
    with netlink_in(fds["first"]) as first, netlink_in(fds["second"]) as second:
        wait_for_carrier(first, "eth0")
        wait_for_carrier(second, "eth0")
    if not (
        _talks(fds["first"], fds["second"], "10.9.0.2")
        and _talks(fds["second"], fds["first"], "10.9.0.1")
    ):
        return failed("a datagram sent in one namespace does not arrive in the other")
    return passed("both namespaces have an eth0, talk to each other, and nothing lies in yours")


def _names(netns_fd: int) -> set[str]:
    with netlink_in(netns_fd) as netlink:
        return {link.name for link in list_links(netlink)}


@check
def check_cable(answer: Callable[[int, int], None]) -> Verdict:
    """Check that two namespaces are joined by one veth."""
    return _judge(_cable, answer)


# --- 3: the neighbour table ---------------------------------------------------------------------

KNOWN = {"10.7.0.2": "02:42:0a:07:00:02", "10.7.0.33": "02:42:0a:07:00:21"}


def _add_neighbour(ifindex: int, ip: str, mac: str) -> Message:
    """RTM_NEWNEIGH of a permanent entry (NUD_PERMANENT)."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    body = struct.pack("=BxxxiHBB", family, ifindex, 0x80, 0, 0)
    body += attribute(1, socket.inet_pton(family, ip)) + attribute(
        2, bytes.fromhex(mac.replace(":", ""))
    )
    return Message(f"add neighbour {ip}", 28, 0x400, body)


def _list_neighbours(answer: Callable[[Netlink], dict[str, str]]) -> Verdict:
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0"))
        br0 = find_link(netlink, "br0").ifindex
        netlink.request(address_add(br0, "10.7.0.1", 24))
        netlink.request(link_new_veth("port", "other", None, br0), link_set("other", up=True))
        netlink.request(*(_add_neighbour(br0, ip, mac) for ip, mac in KNOWN.items()))
        try:
            netlink.request(_add_neighbour(br0, "fd07::2", "02:42:0a:07:00:99"))
        except OSError:  # a kernel without IPv6
            pass
        with Socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.sendto(b"anybody there?", ("10.7.0.99", 7777))
        found = answer(netlink)
    if not found:
        return failed("your list is empty, and the table has entries")
    if "10.7.0.99" in found:
        return failed("10.7.0.99 never answered, and you list it")
    if any(":" in ip for ip in found):
        return failed("there are IPv6 neighbours in your list")
    for ip, mac in KNOWN.items():
        if ip not in found:
            return failed(f"{ip} is in the table and not in your list")
        if found[ip] != mac:
            return failed(f"{ip} is at {mac}; you say {found[ip]!r}")
    return passed("the neighbours that answered, each with its hardware address")


@check
def check_list_neighbours(answer: Callable[[Any], dict[str, str]]) -> Verdict:
    """Check the list of neighbours against entries that were made for it."""
    return _judge(_list_neighbours, answer)


# --- 3b: the lowest free address ----------------------------------------------------------------


@check
def check_lowest_free(answer: Callable[[str, int, set[str]], str | None]) -> Verdict:
    """Check the choice of an address, at the edges of networks of several sizes."""
    first = answer("172.29.0.1", 16, set())
    if first is None:
        return failed("an empty network has 65533 free addresses, and you return None")
    if first in ("172.29.0.0", "172.29.0.1"):
        return failed(
            f"{first} is {'the network itself' if first.endswith('.0') else 'the gateway'}"
        )
    if first != "172.29.0.2":
        return failed(
            f"in an empty 172.29.0.0/16 the lowest free address is 172.29.0.2, not {first}"
        )
    if answer("172.29.0.1", 16, {"172.29.0.2", "172.29.0.4"}) != "172.29.0.3":
        return failed("172.29.0.2 and .4 are taken: the gap between them is not used")
    if answer("10.0.0.6", 29, set()) != "10.0.0.1":
        return failed(
            "the gateway need not be the first address: it is 10.0.0.6 here, and 10.0.0.1 is free"
        )
    if answer("172.29.1.1", 16, set()) != "172.29.0.1":
        return failed("the network of 172.29.1.1/16 begins at 172.29.0.0, not at the gateway")
    crowd = {f"172.29.0.{n}" for n in range(256)}
    if answer("172.29.0.1", 16, crowd) != "172.29.1.0":
        return failed("172.29.0.255 is taken and a /16 goes on: the next address is 172.29.1.0")
    full = answer("10.0.0.1", 30, {"10.0.0.2"})
    if full is not None:
        words = "the broadcast address" if full == "10.0.0.3" else "not free"
        return failed(f"10.0.0.0/30 is full, and {full} is {words}")
    return passed("the lowest free address, and None when there is none")


# --- 3b: names only -----------------------------------------------------------------------------


def _internet() -> int:
    """Lay a cable to a namespace that plays the outside world."""
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


def _way_of(container_fd: int, internet_fd: int, port: int) -> str:
    """Send a datagram out and an answer back: "nowhere", "out" or "back" is how far they come."""
    with (
        in_netns(internet_fd, Socket, socket.AF_INET, socket.SOCK_DGRAM) as server,
        in_netns(container_fd, Socket, socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(1)
        client.settimeout(1)
        server.bind(("203.0.113.9", port))
        try:
            client.sendto(b"question", ("203.0.113.9", port))
            _, asker = server.recvfrom(100)
        except OSError:
            return "nowhere"
        try:
            server.sendto(b"answer", asker)
            client.recv(100)
        except OSError:
            return "out"
        return "back"


def _connects(container_fd: int, internet_fd: int, port: int) -> bool:
    with (
        in_netns(internet_fd, Socket) as server,
        in_netns(container_fd, Socket) as client,
    ):
        client.settimeout(1)
        server.bind(("203.0.113.9", port))
        server.listen()
        try:
            client.connect(("203.0.113.9", port))
        except OSError:
            return False
        return True


def _only_dns(answer: Callable[[str], str], state_dir: str) -> Verdict:
    internet_fd, container_fd = _internet(), new_netns()
    network = BridgeNetwork(name="lab0")
    network.ensure(state_dir)
    network.attach(container_fd, "container", state_dir)
    try:
        nft.run(answer("lab0"))
    except ValueError as error:
        return failed(f"nft does not take your commands: {str(error).splitlines()[0]}")
    way = _way_of(container_fd, internet_fd, 53)
    if way == "nowhere":
        return failed("a question to UDP port 53 does not get out")
    if way == "out":
        return failed("a question to UDP port 53 gets out, and its answer does not come back")
    if _way_of(container_fd, internet_fd, 123) != "nowhere":
        return failed("UDP port 123 can still be reached")
    for port in (53, 80):
        if _connects(container_fd, internet_fd, port):
            return failed(f"TCP port {port} can still be reached")
    if _way_of(open_netns(), internet_fd, 123) != "back":
        return failed("the host itself has lost its way out")
    return passed("names are resolved, and nothing else gets out")


@check
def check_only_dns(answer: Callable[[str], str]) -> Verdict:
    """Check by datagrams and connections what a container reaches under the answer's rules."""
    with tempfile.TemporaryDirectory() as state_dir:
        return _judge(_only_dns, answer, state_dir)
