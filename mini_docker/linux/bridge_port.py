# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#netlink-more
"""Three more messages of rtnetlink(7): a bridge's port, a link without IPv6, a default route taken back."""

from __future__ import annotations

import socket

from mini_docker.linux.netlink import (
    IFLA_IFNAME,
    IFLA_LINKINFO,
    RT_TABLE_MAIN,
    RTA_GATEWAY,
    RTM_NEWLINK,
    RTM_SETLINK,
    Message,
    attribute,
    ifinfomsg,
    pack_ip,
    rtmsg,
)

# linux/if_link.h, linux/rtnetlink.h
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
IFLA_BRPORT_MODE = 4
IFLA_BRPORT_ISOLATED = 33
IFLA_AF_SPEC = 26
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1
RTM_DELROUTE = 25
RT_SCOPE_NOWHERE = 255


def bridge_port_set(link: str, hairpin: bool, isolated: bool) -> Message:
    """Build: change a port of a bridge, RTM_NEWLINK.

    `hairpin`: a frame may leave by the port it came from. `isolated`: the port talks to the bridge itself
    and to no other isolated port.
    """
    data = attribute(IFLA_BRPORT_MODE, bytes([hairpin]))
    data += attribute(IFLA_BRPORT_ISOLATED, bytes([isolated]))
    info = attribute(IFLA_INFO_SLAVE_KIND, b"bridge") + attribute(IFLA_INFO_SLAVE_DATA, data)
    body = ifinfomsg.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, link)
    body += attribute(IFLA_LINKINFO, info)
    return Message(f"set port '{link}'", RTM_NEWLINK, 0, body)


def link_without_ipv6(ifindex: int) -> Message:
    """Build: let a link come up without an IPv6 address of its own (fe80::...), RTM_SETLINK."""
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    body = ifinfomsg.pack(0, 0, ifindex, 0, 0)
    body += attribute(IFLA_AF_SPEC, attribute(socket.AF_INET6, mode))
    return Message(f"set link {ifindex}", RTM_SETLINK, 0, body)


def route_delete_default(gateway: str) -> Message:
    """Build: take back `route_add_default`, RTM_DELROUTE."""
    family, packed = pack_ip(gateway)
    body = rtmsg.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, RT_SCOPE_NOWHERE, 0, 0)
    body += attribute(RTA_GATEWAY, packed)
    return Message(f"delete default route by {gateway}", RTM_DELROUTE, 0, body)
