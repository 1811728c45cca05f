# Exported from notebooks/03b_nat.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/03b_nat.ipynb#rules
"""The shortest whole bridge network: one bridge, one table of rules, one address for each container.

Chapter 3b's model. The engine's networks (chapter 15) do the same for many, from records.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Collection
from typing import NamedTuple

from mini_docker.engine.bridge import (
    LINK_PREFIX,
    Bridge,
    find_bridge,
    forward,
    forwards,
    free_subnet,
    ip_number,
    ip_text,
    mac_of,
    parse_subnet,
    pass_docker,
    ports,
    unpass_docker,
    unplug,
)
from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    RT_TABLE_LOCAL,
    Netlink,
    address_add,
    find_link,
    link_new_bridge,
    link_new_veth,
    link_set,
    list_routes,
    route_add_default,
    wait_for_carrier,
)
from mini_docker.namespaces.net import netlink_in


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


# %% notebooks/03b_nat.ipynb#lease
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
class Endpoint(NamedTuple):
    """A container's end of the network; `host_link` is the name of the other end of its cable."""

    ip: str
    prefix: int
    gateway: str
    mac: str
    host_link: str


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


def lock_state(state_dir: str) -> int:
    """Wait for the lock of a state directory; closing the descriptor lets it go, flock(2)."""
    os.makedirs(state_dir, exist_ok=True)
    fd = os.open(f"{state_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
