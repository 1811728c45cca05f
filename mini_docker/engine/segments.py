# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#segments
"""The wires of networks: a bridge for each, and one nft table for all."""

from __future__ import annotations

import errno
import os

from mini_docker.engine import bridge as bridges
from mini_docker.engine import nat
from mini_docker.engine.ipam import Subnet, parse_cidr
from mini_docker.engine.network_record import (
    BUILT_IN_DRIVERS,
    PREDEFINED,
    blank_record,
    default_record,
    mtu_of,
    segment_of,
)
from mini_docker.engine.ports import Binding
from mini_docker.linux import nft
from mini_docker.linux.netlink import (
    RT_TABLE_LOCAL,
    Netlink,
    address_add,
    find_link,
    link_new_bridge,
    link_set,
    list_addresses,
    list_routes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.engine.network_files import NetworkFiles, Record

NFPROTO_INET = 1


class Segments:
    """The bridges and the rules that the records in `files` ask for. All of it is under their lock."""

    def __init__(self, files: NetworkFiles, bridge: str, table: str) -> None:
        """Name the default network's bridge and the nft table of all."""
        self.files, self.bridge, self.table = files, bridge, table

    def prepare(self) -> None:
        """Have the records of bridge, host and none. Repeating it changes nothing. Raises OSError."""
        if {record["Name"] for record in self.files.records()}.issuperset(PREDEFINED):
            return
        with self.files.locked(), Netlink() as netlink:
            known = {record["Name"] for record in self.files.records()}
            for name in PREDEFINED:
                if name not in known:
                    blank = blank_record(name, os.urandom(32).hex(), BUILT_IN_DRIVERS[name])
                    self.files.write(self._default(netlink, blank) if name == "bridge" else blank)

    def _default(self, netlink: Netlink, blank: Record) -> Record:
        there = bridges.find_bridge(netlink, self.bridge)
        return default_record(blank, self.bridge, there, self.files.subnets() + routed(netlink))

    def ensure(self, netlink: Netlink, record: Record) -> int:
        """Have a network's bridge with its addresses, forwarding, and the table; return the bridge's index.

        Under the lock. What is there is asked, not remembered: somebody may have flushed the rules.
        """
        index = self._ready(netlink, record)
        if index and nft.has_table(self.table, NFPROTO_INET):
            return index
        self.write_rules()
        bridges.pass_docker(record["Bridge"])
        bridges.forward()
        return index or self._make_bridge(netlink, record)

    def _ready(self, netlink: Netlink, record: Record) -> int:
        """Return the index of a bridge that is up and has its addresses, else 0."""
        bridge = bridges.find_bridge(netlink, record["Bridge"])
        if bridge is None or not bridge.up or not bridges.forwards():
            return 0
        mine = {a.ip for a in list_addresses(netlink, 0) if a.ifindex == bridge.ifindex}
        complete = mine.issuperset(pool["Gateway"] for pool in record["Pools"])
        return bridge.ifindex if complete else 0

    def _make_bridge(self, netlink: Netlink, record: Record) -> int:
        """Make what is missing of a bridge; its addresses come last and say that the rest is there."""
        name = record["Bridge"]
        if bridges.find_bridge(netlink, name) is None:
            netlink.request(link_new_bridge(name, bridges.mac_of(record["Pools"][0]["Gateway"])))
        index = find_link(netlink, name).ifindex
        netlink.request(link_set(index, up=True, mtu=mtu_of(record)))
        write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")
        if record["EnableIPv6"]:
            write_sysctl("ipv6/conf/all/forwarding", "1")
        mine = {a.ip for a in list_addresses(netlink, 0) if a.ifindex == index}
        for pool in record["Pools"]:
            if pool["Gateway"] not in mine:
                prefix = parse_cidr(pool["Subnet"]).prefix
                netlink.request(address_add(index, pool["Gateway"], prefix))
        return index

    def dismantle(self, netlink: Netlink, record: Record) -> None:
        """Remove a network's record, rules and bridge. Under the lock; repeating it is fine."""
        self.files.disown(record["Id"])
        bridges.unpass_docker(record["Bridge"])
        self.write_rules()
        bridges.unplug(netlink, record["Bridge"])
        self.files.erase(record["Id"])

    def write_rules(self) -> None:
        """Put the table that the records ask for in place of the one that is there; without networks, none.

        Under the lock.
        """
        segments, targets = [], []
        for record in self.files.records():
            if record["Driver"] != "bridge":
                continue
            segments.append(segment_of(record))
            for endpoint in self.files.endpoints(record["Id"]).values():
                if bindings := tuple(Binding(*entry) for entry in endpoint["Bindings"]):
                    ipv4, ipv6 = endpoint["IPAddress"], endpoint["GlobalIPv6Address"]
                    targets.append(nat.Target(record["Bridge"], ipv4, ipv6, bindings))
        if segments:
            nft.run(nat.table(self.table, segments, targets))
        elif nft.has_table(self.table, NFPROTO_INET):
            nft.run(f"delete table inet {self.table}")

    def withdraw(self, netlink: Netlink) -> list[str]:
        """Take all bridges and the table off the machine; return what was removed. The records stay.

        Under the lock. `ensure` makes them anew.
        """
        removed = []
        for record in self.files.records():
            if record["Bridge"] and bridges.find_bridge(netlink, record["Bridge"]):
                bridges.unpass_docker(record["Bridge"])
                bridges.unplug(netlink, record["Bridge"])
                removed.append(f"bridge {record['Bridge']}")
        if nft.has_table(self.table, NFPROTO_INET):
            nft.run(f"delete table inet {self.table}")
            removed.append(f"nft table inet {self.table}")
        return removed

    def clear(self, netlink: Netlink) -> list[str]:
        """Remove all networks, bridges and rules; return what was removed."""
        removed = self.withdraw(netlink)
        for record in self.files.records():
            self.files.erase(record["Id"])
        return removed


def routed(netlink: Netlink) -> list[Subnet]:
    """Return the networks that this machine has routes to."""
    return [
        Subnet(32, bridges.ip_number(route.destination), route.prefix)
        for route in list_routes(netlink)
        if route.destination and route.table != RT_TABLE_LOCAL
    ]


def write_sysctl(path: str, value: str) -> None:
    """Set /proc/sys/net/`path`, where the kernel has it. Raises OSError."""
    try:
        with open(f"/proc/sys/net/{path}", "w") as file:
            file.write(value)
    except FileNotFoundError:
        if "ipv6" in path:
            raise OSError(errno.EAFNOSUPPORT, "this kernel has no IPv6") from None
        raise
