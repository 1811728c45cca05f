# Exported from notebooks/03b_nat.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/03b_nat.ipynb#addresses
"""What bridge networks are made of: subnets, bridges as the kernel has them, a way past Docker's rules."""

from __future__ import annotations

import errno
from collections import namedtuple

from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    Netlink,
    find_link,
    link_delete,
    list_addresses,
    list_links,
    pack_ip,
    unpack_ip,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple

SUBNETS = ("172.29.0.0/16", "172.30.0.0/16", "172.31.0.0/16", "10.199.0.0/16")


def ip_number(ip: str) -> int:
    """Return an IPv4 address as a number: "0.0.1.2" is 258. Raises OSError for other text."""
    return int.from_bytes(pack_ip(ip)[1], "big")


def ip_text(number: int) -> str:
    """Return the IPv4 address with that number, the inverse of `ip_number`."""
    return unpack_ip(number.to_bytes(4, "big"))


def parse_subnet(subnet: str) -> tuple[int, int]:
    """Return (first address as a number, prefix length) of "172.29.0.0/16". Raises ValueError."""
    ip, _, length = subnet.partition("/")
    try:
        first, prefix = ip_number(ip), int(length)
    except (OSError, ValueError):
        raise ValueError(f"'{subnet}' is not a subnet such as 172.29.0.0/16") from None
    if not 8 <= prefix <= 30 or first % (1 << (32 - prefix)):
        raise ValueError(f"'{subnet}' is not a subnet: /8 to /30, and no bits behind the prefix")
    return first, prefix


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Say whether two networks, as `parse_subnet` returns them, have an address in common."""
    shift = 32 - min(one[1], other[1])
    return one[0] >> shift == other[0] >> shift


def free_subnet(used: Iterable[tuple[int, int]], candidates: Iterable[str] = SUBNETS) -> str:
    """Return the first candidate that overlaps none of the networks in `used`.

    Routes to half of the world, by which a VPN takes all traffic, do not count. Raises
    OSError(EADDRNOTAVAIL).
    """
    real = [network for network in used if network[1] > 1]
    for subnet in candidates:
        if not any(overlap(parse_subnet(subnet), network) for network in real):
            return subnet
    words = f"each of {', '.join(candidates)} overlaps a route of this machine"
    raise OSError(errno.EADDRNOTAVAIL, words)


def mac_of(ip: str) -> str:
    """Return a hardware address made of an IPv4 address, as Docker long made them: 02:42, four bytes.

    Whoever gets the address of a container that ended gets its hardware address too: what the
    neighbours remember (ARP) stays true.
    """
    return f"02:42:{pack_ip(ip)[1].hex(':')}"


# %% notebooks/03b_nat.ipynb#docker
DOCKER_USER = "ip filter DOCKER-USER"
OURS = 'comment "mini_docker"'  # marks our rules in other people's chains


def blocking_chains(listing: str) -> list[str]:
    """Return the chains that drop what they do not know on its way through: ["ip filter FORWARD"].

    `listing` is what `nft list chains` prints. iptables' rules are among them in its nft form only.
    """
    found, table, chain = [], "", ""
    for words in map(str.split, listing.splitlines()):
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif "hook forward" in " ".join(words) and words[-2:] == ["policy", "drop;"]:
            found.append(f"{table} {chain}")
    return found


def pass_docker(bridge: str) -> list[str]:
    """Let the bridge's packets through Docker's forward chain; return the chains that block them still."""
    listing = nft.run("list chains")
    blocking = blocking_chains(listing)
    if "ip filter FORWARD" in blocking and "chain DOCKER-USER" in listing:
        unpass_docker(bridge)
        for side in ("iifname", "oifname"):
            nft.run(f'insert rule {DOCKER_USER} {side} "{bridge}" counter accept {OURS}')
        blocking.remove("ip filter FORWARD")
    return blocking


def unpass_docker(bridge: str) -> None:
    """Remove our rules from Docker's chain; no chain, or none of our rules in it, is fine."""
    try:
        listing = nft.run(f"list chain {DOCKER_USER}", handles=True)
    except ValueError:
        return
    for line in listing.splitlines():
        if f'"{bridge}"' in line and OURS in line:
            nft.run(f"delete rule {DOCKER_USER} handle {line.rpartition(' ')[2]}")


# %% notebooks/03b_nat.ipynb#kernel
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
LINK_PREFIX = "md"

if TYPE_CHECKING:

    class Bridge(NamedTuple):
        """The bridge as the kernel has it; `gateway` is its address, "" while it has none."""

        ifindex: int
        gateway: str
        prefix: int
        up: bool

else:
    Bridge = namedtuple("Bridge", ("ifindex", "gateway", "prefix", "up"))


def find_bridge(netlink: Netlink, name: str) -> Bridge | None:
    """Return the bridge `name`, None if there is none.

    Raises FileExistsError when the name belongs to another kind of link.
    """
    try:
        link = find_link(netlink, name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    if link.kind != "bridge":
        words = f"link '{name}' is there, but is no bridge ({link.kind or 'hardware'})"
        raise FileExistsError(errno.EEXIST, words)
    own = [found for found in list_addresses(netlink) if found.ifindex == link.ifindex]
    gateway, prefix = (own[0].ip, own[0].prefix) if own else ("", 0)
    return Bridge(link.ifindex, gateway, prefix, link.up)


def ports(netlink: Netlink, name: str) -> list[str]:
    """Return the names of a bridge's ports that are ends of containers' cables."""
    links = list_links(netlink)
    indexes = [link.ifindex for link in links if link.name == name]
    return [x.name for x in links if x.master in indexes and x.name.startswith(LINK_PREFIX)]


def unplug(netlink: Netlink, link: str) -> None:
    """Remove a link; one that is gone is fine."""
    try:
        netlink.request(link_delete(link))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def forwards() -> bool:
    """Say whether this machine (its network namespace) forwards packets from one link to another."""
    return _read(FORWARDING).strip() == "1"


def forward() -> None:
    """Make this machine a router. Raises OSError."""
    if not forwards():
        with open(FORWARDING, "w") as file:
            file.write("1")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


# %% notebooks/03b_nat.ipynb#names
RESOLVED = "/run/systemd/resolve/resolv.conf"
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")


def hosts_file(hostname: str, ip: str | None = None) -> str:
    """Return the text of a container's /etc/hosts; its own name is in it when it has an address."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    return "\n".join([*lines, *([f"{ip}\t{hostname}"] if ip else []), ""])


def resolv_conf(host_text: str, upstream_path: str = RESOLVED) -> str:
    """Return the text of a container's /etc/resolv.conf, made of the host's as Docker makes it.

    A server that the container cannot reach is left out: one on the host's loopback, or with an IPv6
    address. Where systemd-resolved stands alone, the servers behind it are read from `upstream_path`.
    When none is left, Google's are taken. Source: resolv.conf(5), systemd-resolved.service(8).
    """
    if _nameservers(host_text) == ["127.0.0.53"]:
        host_text = _read(upstream_path) or host_text
    lines = host_text.splitlines()
    lines = [line for line in lines if not _nameservers(line) or _reachable(_nameservers(line)[0])]
    if not _nameservers("\n".join(lines)):
        lines += [f"nameserver {ip}" for ip in FALLBACK_NAMESERVERS]
    return "\n".join([*lines, ""])


def _reachable(ip: str) -> bool:
    """Say whether a container on an IPv4 network can reach a server that its host can."""
    return ":" not in ip and not ip.startswith("127.")


def _nameservers(text: str) -> list[str]:
    """Return the addresses of the servers that a resolv.conf names."""
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]
