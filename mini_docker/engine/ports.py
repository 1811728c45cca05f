# Exported from notebooks/15b_ports.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15b_ports.ipynb#ports-parse
"""Published ports: which port of the host leads to which of a container, and a socket that keeps it."""

from __future__ import annotations

import _socket  # the C half of socket: the Python half imports enum and selectors
import errno
from collections import namedtuple

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import NetworkFailure
from mini_docker.linux.netlink import pack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any, NamedTuple

    class Wish(NamedTuple):
        """A port to be published: `low` to `high` are the host's ports to try, 0 and 0 for any."""

        port: int
        protocol: str
        host_ip: str
        low: int
        high: int

    class Binding(NamedTuple):
        """A published port: `host_ip` is "0.0.0.0", "::" or one address of the host."""

        host_ip: str
        host_port: int
        protocol: str
        port: int

else:
    Wish = namedtuple("Wish", ("port", "protocol", "host_ip", "low", "high"))
    Binding = namedtuple("Binding", ("host_ip", "host_port", "protocol", "port"))

PROTOCOLS = ("tcp", "udp", "sctp")
IPPROTO_SCTP = 132


def parse_port(text: str) -> int:
    """Return a port, 0 to 65535. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise InvalidRequest(f'invalid port specification: "{text}"')
    return int(text)


def parse_wishes(bindings: Mapping[str, Any]) -> list[Wish]:
    """Return what HostConfig.PortBindings ask for: {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}.

    A HostPort may be a range, "8000-8010", of which one is taken. Raises InvalidRequest.
    """
    wishes = []
    for key in sorted(bindings):
        number, _, protocol = key.partition("/")
        port, protocol = parse_port(number), protocol.lower() or "tcp"
        if protocol not in PROTOCOLS or not port:
            raise InvalidRequest(f'invalid port specification: "{key}"')
        entries: list[dict[str, Any]] = list(bindings[key] or [{}])
        for entry in entries:
            low, _, high = str(entry.get("HostPort") or "0").partition("-")
            first, last = parse_port(low), parse_port(high or low)
            if last < first:
                raise InvalidRequest(f"Invalid ranges specified for port {low}-{high}")
            wishes.append(Wish(port, protocol, _host_ip(entry), first, last))
    return wishes


def check_bindings(bindings: Mapping[str, Any]) -> None:
    """Refuse what are no ports when a container is made. Raises InvalidRequest in Docker's words."""
    for key, entries in bindings.items():
        _parse_range(key.partition("/")[0])
        for entry in entries or ():
            _parse_range(str(entry.get("HostPort") or "0"))


def _parse_range(text: str) -> None:
    try:
        for part in text.split("-", 1):
            parse_port(part)
    except InvalidRequest:
        raise InvalidRequest(f'invalid port specification: "{text}"') from None


def _host_ip(entry: Mapping[str, Any]) -> str:
    ip = str(entry.get("HostIp") or "")
    try:
        if ip:
            pack_ip(ip)
    except (OSError, ValueError):
        raise InvalidRequest(f"invalid IP address: {ip}") from None
    return ip


# %% notebooks/15b_ports.ipynb#ports-hold
def hold(wish: Wish, taken: Collection[Binding], ipv6: bool) -> tuple[list[Binding], list[Any]]:
    """Claim a port of the host; return its bindings and the sockets that keep others from it.

    The sockets are bound and never listen: nobody else can bind the port, and what no rule takes is
    refused. An empty host address means all, IPv6's too where the container has one (`ipv6`). `taken` are
    the bindings of our other containers. Raises NetworkFailure in Docker's words.
    """
    ips = [wish.host_ip] if wish.host_ip else ["0.0.0.0", *(["::"] if ipv6 else [])]
    first_words = ""  # not the error itself: its frames would keep sockets open
    for number in range(wish.low, wish.high + 1):
        for _ in range(1 if wish.low else 16):  # of any port, IPv6's twin may be taken: another
            try:
                return _hold_one(wish, ips, number, taken)
            except NetworkFailure as error:
                first_words = first_words or str(error)
    raise NetworkFailure(first_words)


def _hold_one(
    wish: Wish, ips: list[str], number: int, taken: Collection[Binding]
) -> tuple[list[Binding], list[Any]]:
    """Bind one port number on all of `ips`, or raise and hold none."""
    bindings: list[Binding] = []
    sockets: list[Any] = []
    try:
        for ip in ips:
            if number and any(clash(ip, number, wish.protocol, other) for other in taken):
                where = f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"
                raise NetworkFailure(f"Bind for {where} failed: port is already allocated")
            kept = bound(ip, number, wish.protocol)
            sockets.append(kept)
            number = number or kept.getsockname()[1]
            bindings.append(Binding(ip, number, wish.protocol, wish.port))
    except BaseException:
        for kept in sockets:
            kept.close()
        raise
    return bindings, sockets


def clash(ip: str, port: int, protocol: str, other: Binding) -> bool:
    """Say whether a binding to `ip`:`port` would meet another one's packets."""
    same = (
        ip == other.host_ip
        or (":" in ip) == (":" in other.host_ip)
        and ("0.0.0.0" in (ip, other.host_ip) or "::" in (ip, other.host_ip))
    )
    return same and (port, protocol) == (other.host_port, other.protocol)


def bound(ip: str, port: int, protocol: str) -> Any:
    """Return a socket bound to a port of the host, without listening. Raises NetworkFailure."""
    family, _ = pack_ip(ip)
    kind = _socket.SOCK_DGRAM if protocol == "udp" else _socket.SOCK_STREAM
    number = IPPROTO_SCTP if protocol == "sctp" else 0
    kept = None
    try:
        kept = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, number)
        if family == _socket.AF_INET6:
            kept.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        kept.bind((ip, port))
    except OSError as error:
        if kept is not None:
            kept.close()
        shown = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        call = f"listen {protocol}{6 if ':' in ip else 4} {shown}"
        text = {
            errno.EADDRINUSE: "address already in use",
            errno.EADDRNOTAVAIL: "cannot assign requested address",
        }.get(error.errno or 0, str(error.strerror).lower())
        raise NetworkFailure(f"{call}: bind: {text}") from None
    return kept


def port_map(bindings: Collection[Binding], exposed: Collection[str]) -> dict[str, Any]:
    """Return NetworkSettings.Ports: {"80/tcp": [{"HostIp", "HostPort"}], "81/tcp": None}."""
    found: dict[str, Any] = {key if "/" in key else f"{key}/tcp": None for key in exposed}
    for binding in bindings:
        key = f"{binding.port}/{binding.protocol}"
        entry = {"HostIp": binding.host_ip, "HostPort": str(binding.host_port)}
        found[key] = [*(found.get(key) or ()), entry]
    return found
