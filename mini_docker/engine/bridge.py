# Exported from notebooks/03b_nat.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/03b_nat.ipynb#addresses
"""The default bridge network: one bridge, one table of rules, one address for each container."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import namedtuple

from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    RT_TABLE_LOCAL,
    Netlink,
    address_add,
    find_link,
    link_delete,
    link_new_bridge,
    link_new_veth,
    link_set,
    list_addresses,
    list_links,
    list_routes,
    pack_ip,
    route_add_default,
    unpack_ip,
    wait_for_carrier,
)
from mini_docker.namespaces.net import netlink_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
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


# %% notebooks/03b_nat.ipynb#rules
def rules(table: str, bridge: str, subnet: str) -> str:
    """Return the nft commands that put our table in place of an older one, in one transaction, nft(8).

    A `drop` in any table is final, while an `accept` ends the search in its own chain only.
    """
    return f"""
table ip {table}
delete table ip {table}
table ip {table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" accept
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" ct status dnat accept
        oifname "{bridge}" drop
    }}
}}
"""


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


# %% notebooks/03b_nat.ipynb#lease
if TYPE_CHECKING:

    class Bridge(NamedTuple):
        """The bridge as the kernel has it; `gateway` is its address, "" while it has none."""

        ifindex: int
        gateway: str
        prefix: int
        up: bool

else:
    Bridge = namedtuple("Bridge", ("ifindex", "gateway", "prefix", "up"))

# STATE DIRECTORY
#   lock                held while the bridge is made or removed
#   leases/IP -> ID     a symlink: making it claims the address; it is there, whole, or not at all


def lease(bridge: Bridge, container_id: str, state_dir: str) -> str:
    """Claim the lowest free address of the bridge's network for a container; return it.

    A container that holds an address keeps it. Raises OSError(EADDRNOTAVAIL) when all are taken.
    """
    os.makedirs(f"{state_dir}/leases", exist_ok=True)
    taken = leases(state_dir)
    pool = host_numbers(bridge)
    for ip, holder in taken.items():
        if holder == container_id and ip_number(ip) in pool:
            return ip
    for ip in map(ip_text, pool):
        if ip == bridge.gateway or ip in taken:
            continue
        try:
            os.symlink(container_id, f"{state_dir}/leases/{ip}")
            return ip
        except FileExistsError:  # somebody was faster
            continue
    raise OSError(errno.EADDRNOTAVAIL, f"no address is left: all {len(taken)} are leased")


def host_numbers(bridge: Bridge) -> range:
    """Return the addresses of the bridge's network as numbers, without the first and last (broadcast)."""
    size = 1 << (32 - bridge.prefix)
    first = ip_number(bridge.gateway) & -size
    return range(first + 1, first + size - 1)


def leases(state_dir: str) -> dict[str, str]:
    """Return all leases as {ip: container id}."""
    found = {}
    for ip in _names(f"{state_dir}/leases"):
        try:
            found[ip] = os.readlink(f"{state_dir}/leases/{ip}")
        except FileNotFoundError:  # freed meanwhile
            continue
    return found


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


# %% notebooks/03b_nat.ipynb#network
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
LINK_PREFIX = "md"

if TYPE_CHECKING:

    class Endpoint(NamedTuple):
        """A container's end of the network; `host_link` is the name of the other end of its cable."""

        ip: str
        prefix: int
        gateway: str
        mac: str
        host_link: str

else:
    Endpoint = namedtuple("Endpoint", ("ip", "prefix", "gateway", "mac", "host_link"))


class BridgeNetwork:
    """A network of one bridge. The kernel is the record of it: what is there is asked, not remembered."""

    def __init__(
        self, name: str = "mini_docker0", subnet: str | None = None, table: str = "mini_docker"
    ) -> None:
        """Name the bridge, its nft table, and its subnet (None: the first of SUBNETS that is free)."""
        self.name = name
        self.subnet = subnet
        self.table = table

    def ensure(self, state_dir: str) -> Bridge:
        """Have the bridge with its address, forwarding, and the table; return the bridge.

        Repeating it changes nothing. Callers may be many: one makes it, the others wait. Raises OSError,
        ValueError.
        """
        with Netlink() as netlink:
            if bridge := self._ready(netlink):
                return bridge
            lock_fd = lock_state(state_dir)
            try:
                return self._ready(netlink) or self._make(netlink)
            finally:
                os.close(lock_fd)

    def _ready(self, netlink: Netlink) -> Bridge | None:
        """Return the bridge if all is as `_make` leaves it, else None."""
        bridge = find_bridge(netlink, self.name)
        if bridge and bridge.gateway and bridge.up and nft.has_table(self.table) and forwards():
            return bridge
        return None

    def _make(self, netlink: Netlink) -> Bridge:
        """Make what is missing; the bridge's address comes last and says that the rest is there."""
        bridge = find_bridge(netlink, self.name)
        subnet = self._subnet(netlink, bridge)
        first, prefix = parse_subnet(subnet)
        gateway = bridge.gateway if bridge and bridge.gateway else ip_text(first + 1)
        nft.run(rules(self.table, self.name, subnet))
        pass_docker(self.name)
        forward()
        if bridge is None:
            netlink.request(link_new_bridge(self.name, mac_of(gateway)))
        ifindex = find_link(netlink, self.name).ifindex
        netlink.request(link_set(ifindex, up=True))
        if bridge is None or not bridge.gateway:
            netlink.request(address_add(ifindex, gateway, prefix))
        return Bridge(ifindex, gateway, prefix, True)

    def _subnet(self, netlink: Netlink, bridge: Bridge | None) -> str:
        """Return the subnet that the bridge has, or else the wanted one, or else one that is free."""
        if bridge and bridge.gateway:
            return f"{ip_text(host_numbers(bridge).start - 1)}/{bridge.prefix}"
        if self.subnet:
            return self.subnet
        routes = list_routes(netlink)
        return free_subnet(
            (ip_number(route.destination), route.prefix)
            for route in routes
            if route.destination and route.table != RT_TABLE_LOCAL
        )

    def attach(self, netns_fd: int, container_id: str, state_dir: str) -> Endpoint:
        """Give the network namespace `netns_fd` an eth0 on the bridge, an address and a default route.

        Raises OSError(ENODEV) before `ensure`, OSError(EADDRNOTAVAIL) when no address is left.
        """
        with Netlink() as netlink:
            bridge = find_bridge(netlink, self.name)
            if bridge is None or not bridge.gateway:
                raise OSError(errno.ENODEV, f"bridge '{self.name}' is not there yet")
            ip = lease(bridge, container_id, state_dir)
            link = host_link(container_id)
            endpoint = Endpoint(ip, bridge.prefix, bridge.gateway, mac_of(ip), link)
            try:
                _plug(netlink, bridge, endpoint, netns_fd)
                wait_for_carrier(netlink, link, self.name)
            except BaseException:
                self.detach(container_id, state_dir)
                raise
        return endpoint

    def detach(self, container_id: str, state_dir: str) -> None:
        """Remove a container's cable, then free its address; one that has neither is fine.

        The kernel takes some 20 ms to remove a link. Of a container that has ended it removes the cable
        by itself: then `release` is enough.
        """
        with Netlink() as netlink:
            unplug(netlink, host_link(container_id))
        self.release(container_id, state_dir)

    def release(self, container_id: str, state_dir: str) -> None:
        """Free the address of a container that has ended; one that has none is fine."""
        for ip, holder in leases(state_dir).items():
            if holder == container_id:
                _remove_file(f"{state_dir}/leases/{ip}")

    def prune(self, alive: Collection[str], state_dir: str) -> list[str]:
        """Detach every container that is not in `alive` (ids); return what was removed, as lines.

        Take `alive` under the lock under which containers are made, or a new one may be cut off.
        """
        dead = {ip: holder for ip, holder in leases(state_dir).items() if holder not in alive}
        kept = {host_link(container_id) for container_id in alive}
        with Netlink() as netlink:
            stray = [name for name in ports(netlink, self.name) if name not in kept]
            for name in stray:
                unplug(netlink, name)
        for holder in dead.values():
            self.release(holder, state_dir)
        return [f"link {name}" for name in stray] + [f"lease of {ip}" for ip in dead]

    def reset(self, state_dir: str) -> list[str]:
        """Remove the cables, the leases, the bridge and the table; return what was removed, as lines.

        Repeating it removes nothing. Forwarding stays on: others may have come to rely on it.
        """
        lock_fd = lock_state(state_dir)
        try:
            removed = self.prune((), state_dir)
            with Netlink() as netlink:
                if find_bridge(netlink, self.name):
                    unplug(netlink, self.name)
                    removed.append(f"bridge {self.name}")
            if nft.has_table(self.table):
                unpass_docker(self.name)
                nft.run(f"delete table ip {self.table}")
                removed.append(f"nft table ip {self.table}")
        finally:
            os.close(lock_fd)
        return removed


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


def host_link(container_id: str) -> str:
    """Return the name of the host's end of a container's cable; a link's name has 15 bytes at most."""
    return LINK_PREFIX + container_id[:13]


def _plug(netlink: Netlink, bridge: Bridge, endpoint: Endpoint, netns_fd: int) -> None:
    """Lay the cable: one message makes both ends, one datagram configures the inner one."""
    cable = link_new_veth(endpoint.host_link, "eth0", netns_fd, bridge.ifindex, endpoint.mac)
    try:
        netlink.request(cable)
    except FileExistsError:  # the same container's, of an earlier life
        unplug(netlink, endpoint.host_link)
        netlink.request(cable)
    with netlink_in(netns_fd) as inside:
        inside.request(
            link_set("lo", up=True),
            link_set("eth0", up=True),
            address_add(find_link(inside, "eth0").ifindex, endpoint.ip, endpoint.prefix),
            route_add_default(endpoint.gateway),
        )


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


def lock_state(state_dir: str) -> int:
    """Wait for the lock of a state directory; closing the descriptor lets it go, flock(2)."""
    os.makedirs(state_dir, exist_ok=True)
    fd = os.open(f"{state_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


# %% notebooks/03b_nat.ipynb#names
RESOLVED = "/run/systemd/resolve/resolv.conf"
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")


def hosts_file(hostname: str, ip: str | None = None) -> str:
    """Return the text of a container's /etc/hosts; its own name is in it when it has an address."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
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
