# Exported from notebooks/03_net.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/03_net.ipynb#vocabulary
"""Links, addresses and routes: messages to the kernel packed by hand, netlink(7) and rtnetlink(7)."""

from __future__ import annotations

import _socket  # the C half of socket: the Python half imports enum and selectors, 7 ms
import errno
import os
import struct
import sys
import time
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

# linux/netlink.h
AF_NETLINK = 16
SOCK_CLOEXEC = 0o2000000
SOL_NETLINK = 270
NETLINK_ROUTE = 0
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
NLA_TYPE_MASK = 0x3FFF

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
IFF_UP = 1
IF_OPER_UP = b"\6"
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
VETH_INFO_PEER = 1
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_NODAD = 0x02
RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_TABLE = 15
RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255
RTPROT_BOOT = 3
RTN_UNICAST = 1

# The structs: "=" is the machine's byte order without padding, "x" a byte that is left alone.
nlmsghdr = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
rtattr = struct.Struct("=HH")  # length, type
ifinfomsg = struct.Struct("=BxHiII")  # family, hardware type, index, flags, which flags to change
ifaddrmsg = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
rtmsg = struct.Struct("=8BI")  # family, 2 prefix lengths, tos, table, protocol, scope, type, flags

RECEIVE_BYTES = 1 << 16  # the kernel fills at most half of it with one datagram of a listing


# %% notebooks/03_net.ipynb#attribute
def attribute(kind: int, value: bytes | int | str | None) -> bytes:
    """Pack one attribute: its length, its type, its value, zeros up to a multiple of four, rtnetlink(3).

    An int becomes 32 bits in the machine's byte order, a str ends with a zero byte, bytes stay as they
    are (and may be attributes themselves). None is an attribute left out: no bytes.
    """
    if value is None:
        return b""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = os.fsencode(value) + b"\0"
    return rtattr.pack(rtattr.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Unpack attributes: {type: value}; the inverse of joined `attribute`s."""
    found, offset = {}, 0
    while offset + rtattr.size <= len(data):
        length, kind = rtattr.unpack_from(data, offset)
        found[kind & NLA_TYPE_MASK] = data[offset + rtattr.size : offset + length]
        offset += max(length + -length % 4, rtattr.size)
    return found


# %% notebooks/03_net.ipynb#message
if TYPE_CHECKING:

    class Message(NamedTuple):
        """A request to the kernel: the words for it, its type, its flags, and what follows the header."""

        what: str
        type: int
        flags: int
        body: bytes

else:
    Message = namedtuple("Message", ("what", "type", "flags", "body"))


def pack(message: Message, sequence: int) -> bytes:
    """Return the bytes of a message: struct nlmsghdr, its body, zeros up to a multiple of four."""
    length = nlmsghdr.size + len(message.body)
    flags = message.flags | NLM_F_REQUEST | NLM_F_ACK
    header = nlmsghdr.pack(length, message.type, flags, sequence, 0)
    return header + message.body + bytes(-length % 4)


def link_new_bridge(name: str, mac: str | None = None) -> Message:
    """Build: make a bridge `name` and bring it up, with the address `mac` if given, RTM_NEWLINK."""
    body = ifinfomsg.pack(0, 0, 0, IFF_UP, IFF_UP)
    body += attribute(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, pack_mac(mac))
    body += attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge"))
    return Message(f"add bridge '{name}'", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def pack_mac(mac: str | None) -> bytes | None:
    """Return the six bytes of "02:42:ac:1d:00:02", None for None. Raises ValueError."""
    return None if mac is None else bytes.fromhex(mac.replace(":", ""))


# %% notebooks/03_net.ipynb#socket
class Netlink:
    """A socket to the kernel of one network namespace: the one its maker was in when it was made.

    A context manager. `protocol` is NETLINK_ROUTE, or another of netlink(7). Raises OSError.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Open the socket; ask for errors in words, and without our own message in them."""
        self.socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | SOCK_CLOEXEC, protocol)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self.sequence = 0

    def __enter__(self) -> Netlink:
        """Return the socket itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.socket.close()

    def request(self, *messages: Message) -> list[bytes]:
        """Send all messages as one datagram, wait for every answer; return the bodies of the replies.

        The kernel works through all of them in order, whatever becomes of the first. Raises the OSError
        of the first that failed: "add veth 'x': File exists", and the kernel's own words if it has some.
        """
        pending = {self.sequence + n: message for n, message in enumerate(messages, 1)}
        self.sequence += len(messages)
        self.socket.send(b"".join(pack(message, n) for n, message in pending.items()))
        replies, errors = [], []
        while pending:
            for kind, flags, sequence, body in unpack(self.socket.recv(RECEIVE_BYTES)):
                if sequence not in pending:  # the answer to a request that was interrupted
                    continue
                if error := error_of(pending[sequence].what, kind, flags, body):
                    errors.append(error)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    del pending[sequence]
                else:
                    replies.append(body)
        if errors:
            raise errors[0]
        return replies

    def dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of all replies to a listing; one that a change disturbed is done again."""
        while True:
            try:
                return self.request(Message(what, kind, NLM_F_DUMP, body))
            except InterruptedError:
                continue


def unpack(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, sequence number, body) of each message in a datagram."""
    offset = 0
    while offset + nlmsghdr.size <= len(datagram):
        length, kind, flags, sequence, _ = nlmsghdr.unpack_from(datagram, offset)
        yield kind, flags, sequence, datagram[offset + nlmsghdr.size : offset + length]
        offset += max(length + -length % 4, nlmsghdr.size)


def error_of(what: str, kind: int, flags: int, body: bytes) -> OSError | None:
    """Return the error that an answer carries; None for a reply, or for the number 0: all went well.

    After the number comes the header of our message (in NLMSG_ERROR), then the kernel's own words.
    """
    if flags & NLM_F_DUMP_INTR:
        return InterruptedError(errno.EINTR, f"{what}: changed while it was listed")
    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if kind not in (NLMSG_ERROR, NLMSG_DONE) or code <= 0:
        return None
    words = f"{what}: {os.strerror(code)}"
    if flags & NLM_F_ACK_TLVS:
        details = attributes(body[4 + (nlmsghdr.size if kind == NLMSG_ERROR else 0) :])
        said = details.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
        words += f" ({said})" if said else ""
    return OSError(code, words)


# %% notebooks/03_net.ipynb#list
if TYPE_CHECKING:

    class Link(NamedTuple):
        """A network link: `kind` is "veth", "bridge", ... or "" for hardware and lo.

        `carrier` says that the other end of its cable is up, and that the kernel has noticed. `master` is
        the index of the bridge it is a port of, `peer` that of the other end of a veth, which may be in
        another namespace; 0 for none.
        """

        ifindex: int
        name: str
        kind: str
        up: bool
        carrier: bool
        master: int
        peer: int
        mtu: int
        mac: str

    class Address(NamedTuple):
        """An address of the link with that index: ip "172.29.0.1", prefix length 16."""

        ifindex: int
        ip: str
        prefix: int

    class Route(NamedTuple):
        """A route to `destination`/`prefix` ("" and 0: the default route) by a gateway or a link."""

        destination: str
        prefix: int
        gateway: str
        ifindex: int
        table: int

else:
    Link = namedtuple(
        "Link", ("ifindex", "name", "kind", "up", "carrier", "master", "peer", "mtu", "mac")
    )
    Address = namedtuple("Address", ("ifindex", "ip", "prefix"))
    Route = namedtuple("Route", ("destination", "prefix", "gateway", "ifindex", "table"))


def find_link(netlink: Netlink, name: str) -> Link:
    """Return the link `name`, RTM_GETLINK. Raises OSError(ENODEV)."""
    body = ifinfomsg.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name)
    [reply] = netlink.request(Message(f"find link '{name}'", RTM_GETLINK, 0, body))
    return parse_link(reply)


def list_links(netlink: Netlink) -> list[Link]:
    """Return all links of the socket's network namespace."""
    body = ifinfomsg.pack(0, 0, 0, 0, 0)
    return [parse_link(reply) for reply in netlink.dump("list links", RTM_GETLINK, body)]


def list_addresses(netlink: Netlink, family: int = _socket.AF_INET) -> list[Address]:
    """Return all addresses of a family: AF_INET, AF_INET6, or AF_UNSPEC for both."""
    body = ifaddrmsg.pack(family, 0, 0, 0, 0)
    return [parse_address(reply) for reply in netlink.dump("list addresses", RTM_GETADDR, body)]


def list_routes(netlink: Netlink, family: int = _socket.AF_INET) -> list[Route]:
    """Return the routes of a family in all tables, RT_TABLE_LOCAL (the kernel's own) among them."""
    body = rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return [parse_route(reply) for reply in netlink.dump("list routes", RTM_GETROUTE, body)]


def parse_link(body: bytes) -> Link:
    """Return the Link that an RTM_NEWLINK tells of."""
    _, _, ifindex, flags, _ = ifinfomsg.unpack_from(body)
    found = attributes(body[ifinfomsg.size :])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        ifindex,
        _string(found[IFLA_IFNAME]),
        _string(info.get(IFLA_INFO_KIND, b"")),
        bool(flags & IFF_UP),
        found.get(IFLA_OPERSTATE) == IF_OPER_UP,
        _number(found.get(IFLA_MASTER, b"")),
        _number(found.get(IFLA_LINK, b"")),
        _number(found.get(IFLA_MTU, b"")),
        found.get(IFLA_ADDRESS, b"").hex(":"),
    )


def parse_address(body: bytes) -> Address:
    """Return the Address that an RTM_NEWADDR tells of; most IPv6 ones have no IFA_LOCAL."""
    _, prefix, _, _, ifindex = ifaddrmsg.unpack_from(body)
    found = attributes(body[ifaddrmsg.size :])
    return Address(ifindex, unpack_ip(found.get(IFA_LOCAL) or found[IFA_ADDRESS]), prefix)


def parse_route(body: bytes) -> Route:
    """Return the Route that an RTM_NEWROUTE tells of."""
    _, prefix, _, _, table, *_ = rtmsg.unpack_from(body)
    found = attributes(body[rtmsg.size :])
    return Route(
        unpack_ip(found.get(RTA_DST, b"")),
        prefix,
        unpack_ip(found.get(RTA_GATEWAY, b"")),
        _number(found.get(RTA_OIF, b"")),
        _number(found[RTA_TABLE]) if RTA_TABLE in found else table,
    )


def pack_ip(ip: str) -> tuple[int, bytes]:
    """Return (AF_INET, 4 bytes) or (AF_INET6, 16 bytes) of an address. Raises OSError for other text."""
    family = _socket.AF_INET6 if ":" in ip else _socket.AF_INET
    return family, _socket.inet_pton(family, ip)


def unpack_ip(data: bytes) -> str:
    """Return the text of an address of 4 or 16 bytes; "" for no bytes."""
    family = _socket.AF_INET6 if len(data) == 16 else _socket.AF_INET
    return _socket.inet_ntop(family, data) if data else ""


def _string(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


# %% notebooks/03_net.ipynb#wire
def link_new_veth(
    name: str,
    peer: str,
    peer_netns_fd: int | None = None,
    master: int | None = None,
    peer_mac: str | None = None,
) -> Message:
    """Build: make a veth pair, `peer` born in the network namespace `peer_netns_fd`, veth(4).

    `name` comes up, as a port of the bridge whose index is `master`; its peer cannot yet, since in that
    moment it has no peer itself. RTM_NEWLINK.
    """
    other = ifinfomsg.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, peer)
    other += attribute(IFLA_NET_NS_FD, peer_netns_fd) + attribute(IFLA_ADDRESS, pack_mac(peer_mac))
    info = attribute(IFLA_INFO_KIND, b"veth")
    info += attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    body = ifinfomsg.pack(0, 0, 0, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, name)
    body += attribute(IFLA_LINKINFO, info) + attribute(IFLA_MASTER, master)
    return Message(f"add veth '{name}'", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def link_set(
    link: int | str,
    up: bool | None = None,
    master: int | None = None,
    netns_fd: int | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    name: str | None = None,
) -> Message:
    """Build: change a link, known by its name or index; what is not given stays, RTM_SETLINK.

    `master` 0 takes a port off its bridge; `netns_fd` moves the link to another namespace; `name` renames
    a link that is known by its index.
    """
    index = link if isinstance(link, int) else 0
    body = ifinfomsg.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
    body += attribute(IFLA_IFNAME, link if isinstance(link, str) else name)
    body += attribute(IFLA_MASTER, master) + attribute(IFLA_NET_NS_FD, netns_fd)
    body += attribute(IFLA_ADDRESS, pack_mac(mac)) + attribute(IFLA_MTU, mtu)
    return Message(f"set link '{link}'", RTM_SETLINK, 0, body)


def link_delete(name: str) -> Message:
    """Build: remove the link `name`; of a veth pair both ends go, RTM_DELLINK."""
    body = ifinfomsg.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name)
    return Message(f"delete link '{name}'", RTM_DELLINK, 0, body)


def address_add(ifindex: int, ip: str, prefix: int, broadcast: str | None = None) -> Message:
    """Build: give the link with that index the address `ip`/`prefix`, RTM_NEWADDR.

    The kernel adds the route to the link's own network by itself. IPv6 asks no neighbour first whether
    they have the address (IFA_F_NODAD): it would be unusable for a second or two.
    """
    family, packed = pack_ip(ip)
    flags = IFA_F_NODAD if family == _socket.AF_INET6 else 0
    body = ifaddrmsg.pack(family, prefix, flags, 0, ifindex)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    body += attribute(IFA_BROADCAST, pack_ip(broadcast)[1] if broadcast else None)
    return Message(f"add address {ip}/{prefix}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def route_add_default(gateway: str) -> Message:
    """Build: send what no other route takes to `gateway`, which a link must already reach, RTM_NEWROUTE."""
    family, packed = pack_ip(gateway)
    body = rtmsg.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    body += attribute(RTA_GATEWAY, packed)
    what = f"add default route by {gateway}"
    return Message(what, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def wait_for_carrier(netlink: Netlink, *names: str) -> bool:
    """Wait until the kernel has noticed that the other ends of these links are up, at most 0.1 s each.

    What is sent before is lost: a bridge does not forward to a port without carrier. Returns whether all
    have it. Raises OSError(ENODEV).
    """
    for name in names:
        deadline = time.monotonic() + 0.1
        while not find_link(netlink, name).carrier:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
    return True
