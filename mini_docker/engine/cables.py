# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#cables
"""The cables of containers: laid into a network namespace, with a default route by the right one."""

from __future__ import annotations

import os

from mini_docker.engine.endpoint_record import addresses_of, link_local_addresses
from mini_docker.engine.ipam import broadcast_of
from mini_docker.engine.network_record import FALSE, ICC, IFACE_PREFIX, mtu_of
from mini_docker.linux.bridge_port import bridge_port_set, link_without_ipv6, route_delete_default
from mini_docker.linux.netlink import (
    Netlink,
    address_add,
    find_link,
    link_new_veth,
    link_set,
    list_links,
    list_routes,
    route_add_default,
)
from mini_docker.namespaces.net import netlink_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from mini_docker.engine.network_files import Record


def plug(netlink: Netlink, record: Record, bridge: int, endpoint: Record, netns_fd: int) -> str:
    """Lay the cable of an endpoint from `bridge`, an index, into `netns_fd`; return its inner end's name."""
    mtu = mtu_of(record)
    with netlink_in(netns_fd) as inside:
        names = {link.name for link in list_links(inside)}
        prefix = record["Options"].get(IFACE_PREFIX) or "eth"
        name = next(f"{prefix}{n}" for n in range(len(names) + 1) if f"{prefix}{n}" not in names)
        netlink.request(
            link_new_veth(endpoint["Link"], name, netns_fd, bridge, endpoint["MacAddress"])
        )
        isolated = record["Options"].get(ICC, "") in FALSE
        if isolated or endpoint["Bindings"]:
            hairpin = bool(endpoint["Bindings"])
            netlink.request(bridge_port_set(endpoint["Link"], hairpin, isolated))
        if mtu and mtu != 1500:
            netlink.request(link_set(endpoint["Link"], mtu=mtu))
        index = find_link(inside, name).ifindex
        addresses = [*addresses_of(endpoint), *link_local_addresses(endpoint)]
        messages = [link_set("lo", up=True)]
        if not any(":" in ip for ip, _ in addresses) and os.path.exists("/proc/net/if_inet6"):
            messages.append(link_without_ipv6(index))
        messages.append(link_set(index, up=True, mtu=mtu))
        messages += [address_add(index, ip, size, broadcast_of(ip, size)) for ip, size in addresses]
        inside.request(*messages)
    return name


def rank(name: str, ipv6: bool) -> tuple[bool, str]:
    """Return the order in which networks get the default route: those with IPv6 first, then by name."""
    return not ipv6, name


def lead_out(endpoints: Collection[Record], netns_fd: int) -> None:
    """Have the default routes of a container lead by that of its endpoints which `rank` puts first."""
    outward = [endpoint for endpoint in endpoints if not endpoint["Internal"]]
    outward.sort(key=lambda e: rank(e["NetworkName"], bool(e["GlobalIPv6Address"])))
    for family, key in ((2, "Gateway"), (10, "IPv6Gateway")):
        wanted = next((endpoint[key] for endpoint in outward if endpoint[key]), "")
        with netlink_in(netns_fd) as inside:
            routes = list_routes(inside, family)
            there = [r.gateway for r in routes if not r.destination and r.gateway]
            messages = [route_delete_default(gateway) for gateway in there if gateway != wanted]
            messages += [route_add_default(wanted)] if wanted and wanted not in there else []
            if messages:
                inside.request(*messages)
