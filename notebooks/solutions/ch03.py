"""Solutions of chapters 3 and 3b, and the wrong answers that the checks must recognise."""

from __future__ import annotations

import socket
import struct

from exercises.ch03 import check_cable, check_list_neighbours, check_lowest_free, check_only_dns
from mini_docker.engine.bridge import ip_number, ip_text
from mini_docker.lab import Exercise
from mini_docker.linux.netlink import (
    Netlink,
    address_add,
    attributes,
    find_link,
    link_new_veth,
    link_set,
)
from mini_docker.namespaces.net import netlink_in

# --- a cable without a bridge -------------------------------------------------------------------


def cable_blank(first_fd: int, second_fd: int) -> None:
    """The untouched exercise."""


def cable(first_fd: int, second_fd: int) -> None:
    """Join two network namespaces by a cable, laid from inside the first."""
    with netlink_in(first_fd) as netlink:
        netlink.request(link_new_veth("eth0", "eth0", second_fd))
    _configure(first_fd, "10.9.0.1", True)
    _configure(second_fd, "10.9.0.2", True)


def _configure(netns_fd: int, ip: str, up: bool, prefix: int = 30) -> None:
    with netlink_in(netns_fd) as netlink:
        index = find_link(netlink, "eth0").ifindex
        netlink.request(link_set(index, up=up), address_add(index, ip, prefix))


def cable_from_here(first_fd: int, second_fd: int) -> None:
    """Wrong: the first end stays with whoever lays the cable."""
    with Netlink() as netlink:
        netlink.request(link_new_veth("eth0", "eth0", second_fd))
    _configure(second_fd, "10.9.0.2", True)


def cable_half_up(first_fd: int, second_fd: int) -> None:
    """Wrong: only the first end is up."""
    with netlink_in(first_fd) as netlink:
        netlink.request(link_new_veth("eth0", "eth0", second_fd))
    _configure(first_fd, "10.9.0.1", True)
    _configure(second_fd, "10.9.0.2", False)


def cable_wrong_prefix(first_fd: int, second_fd: int) -> None:
    """Wrong: the prefix length is left at 32, so that no route is implied."""
    with netlink_in(first_fd) as netlink:
        netlink.request(link_new_veth("eth0", "eth0", second_fd))
    _configure(first_fd, "10.9.0.1", True, 32)
    _configure(second_fd, "10.9.0.2", True, 32)


# --- the neighbour table ------------------------------------------------------------------------

RTM_GETNEIGH = 30
NDA_DST = 1
NDA_LLADDR = 2
ndmsg = struct.Struct("=BxxxiHBB")  # family, index of the link, state, flags, type


def list_neighbours_blank(netlink: Netlink) -> dict[str, str]:
    """The untouched exercise."""
    return {}


def list_neighbours(netlink: Netlink) -> dict[str, str]:
    """Return {ip: hardware address} of the IPv4 neighbours that are known."""
    entries = _entries(netlink, socket.AF_INET)
    return {
        socket.inet_ntoa(found[NDA_DST]): found[NDA_LLADDR].hex(":")
        for found in entries
        if NDA_LLADDR in found
    }


def _entries(netlink: Netlink, family: int) -> list[dict[int, bytes]]:
    body = ndmsg.pack(family, 0, 0, 0, 0)
    replies = netlink.dump("list neighbours", RTM_GETNEIGH, body)
    return [attributes(reply[ndmsg.size :]) for reply in replies]


def list_neighbours_both(netlink: Netlink) -> dict[str, str]:
    """Wrong: IPv6 as well."""
    return {
        socket.inet_ntop(
            socket.AF_INET6 if len(found[NDA_DST]) == 16 else socket.AF_INET, found[NDA_DST]
        ): found[NDA_LLADDR].hex(":")
        for found in _entries(netlink, socket.AF_UNSPEC)
        if NDA_LLADDR in found
    }


def list_neighbours_silent(netlink: Netlink) -> dict[str, str]:
    """Wrong: it lists those that never answered."""
    entries = _entries(netlink, socket.AF_INET)
    return {
        socket.inet_ntoa(found[NDA_DST]): found.get(NDA_LLADDR, b"").hex(":") for found in entries
    }


def list_neighbours_trusting(netlink: Netlink) -> dict[str, str]:
    """Wrong: it expects an address of everybody."""
    entries = _entries(netlink, socket.AF_INET)
    return {socket.inet_ntoa(found[NDA_DST]): found[NDA_LLADDR].hex(":") for found in entries}


# --- the lowest free address --------------------------------------------------------------------


def lowest_free_blank(gateway: str, prefix: int, taken: set[str]) -> str | None:
    """The untouched exercise."""
    return None


def lowest_free(gateway: str, prefix: int, taken: set[str]) -> str | None:
    """Return the lowest free address of the network in which `gateway`/`prefix` lies."""
    size = 1 << (32 - prefix)
    first = ip_number(gateway) & -size
    pool = map(ip_text, range(first + 1, first + size - 1))
    return next((ip for ip in pool if ip != gateway and ip not in taken), None)


def lowest_free_with_gateway(gateway: str, prefix: int, taken: set[str]) -> str | None:
    """Wrong: the gateway is not counted as taken."""
    size = 1 << (32 - prefix)
    first = ip_number(gateway) & -size
    return next(
        (ip for ip in map(ip_text, range(first + 1, first + size - 1)) if ip not in taken), None
    )


def lowest_free_above_gateway(gateway: str, prefix: int, taken: set[str]) -> str | None:
    """Wrong: it counts from the gateway upwards."""
    size = 1 << (32 - prefix)
    last = (ip_number(gateway) & -size) + size - 1
    pool = map(ip_text, range(ip_number(gateway) + 1, last))
    return next((ip for ip in pool if ip not in taken), None)


def lowest_free_last_byte(gateway: str, prefix: int, taken: set[str]) -> str | None:
    """Wrong: only the last of the four bytes is counted."""
    base = gateway.rpartition(".")[0]
    pool = [f"{base}.{n}" for n in range(1, 255)]
    return next((ip for ip in pool if ip != gateway and ip not in taken), None)


def lowest_free_broadcast(gateway: str, prefix: int, taken: set[str]) -> str | None:
    """Wrong: the last address is given away."""
    size = 1 << (32 - prefix)
    first = ip_number(gateway) & -size
    pool = map(ip_text, range(first + 1, first + size))
    return next((ip for ip in pool if ip != gateway and ip not in taken), None)


# --- names only ---------------------------------------------------------------------------------


def only_dns_blank(bridge: str) -> str:
    """The untouched exercise."""
    return ""


def only_dns(bridge: str) -> str:
    """Return nft commands that leave containers on `bridge` nothing of the outside but UDP port 53."""
    return f"""
    table ip only_dns {{
        chain forward {{
            type filter hook forward priority filter; policy accept;
            iifname "{bridge}" oifname != "{bridge}" udp dport != 53 drop
            iifname "{bridge}" oifname != "{bridge}" meta l4proto != udp drop
        }}
    }}
    """


def only_dns_accept(bridge: str) -> str:
    """Wrong: an accept, and nothing that drops the rest."""
    return f"""
    table ip only_dns {{
        chain forward {{
            type filter hook forward priority filter; policy accept;
            iifname "{bridge}" udp dport 53 accept
        }}
    }}
    """


def only_dns_input(bridge: str) -> str:
    """Wrong: the hook for packets to the host itself."""
    return only_dns(bridge).replace("hook forward", "hook input")


def only_dns_no_answers(bridge: str) -> str:
    """Wrong: everything is dropped but the question."""
    return f"""
    table ip only_dns {{
        chain forward {{
            type filter hook forward priority filter; policy drop;
            iifname "{bridge}" udp dport 53 accept
        }}
    }}
    """


def only_dns_udp(bridge: str) -> str:
    """Wrong: TCP is forgotten."""
    return f"""
    table ip only_dns {{
        chain forward {{
            type filter hook forward priority filter; policy accept;
            iifname "{bridge}" udp dport != 53 drop
        }}
    }}
    """


EXERCISES = [
    Exercise(
        "cable",
        check_cable,
        blank=cable_blank,
        solution=cable,
        wrong=[
            (cable_from_here, "lies in your own namespace"),
            (cable_half_up, "eth0 of the second namespace is down"),
            (cable_wrong_prefix, "not 10.9.0.1/30"),
        ],
    ),
    Exercise(
        "list_neighbours",
        check_list_neighbours,
        blank=list_neighbours_blank,
        solution=list_neighbours,
        wrong=[
            (list_neighbours_both, "IPv6 neighbours"),
            (list_neighbours_silent, "never answered"),
            (list_neighbours_trusting, "KeyError"),
        ],
    ),
    Exercise(
        "lowest_free",
        check_lowest_free,
        blank=lowest_free_blank,
        solution=lowest_free,
        wrong=[
            (lowest_free_with_gateway, "the gateway"),
            (lowest_free_above_gateway, "need not be the first"),
            (lowest_free_last_byte, "begins at 172.29.0.0"),
            (lowest_free_broadcast, "the broadcast address"),
        ],
    ),
    Exercise(
        "only_dns",
        check_only_dns,
        blank=only_dns_blank,
        solution=only_dns,
        wrong=[
            (only_dns_accept, "UDP port 123 can still be reached"),
            (only_dns_input, "UDP port 123 can still be reached"),
            (only_dns_no_answers, "answer does not come back"),
            (only_dns_udp, "TCP port 53 can still be reached"),
        ],
    ),
]
