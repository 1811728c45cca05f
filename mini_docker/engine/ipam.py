# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#ipam-subnet
"""Address management: pools, subnets, and who may have which address; IPv4 and IPv6 alike, all pure."""

from __future__ import annotations

from collections import namedtuple

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import Forbidden, NetworkFailure
from mini_docker.linux.netlink import pack_ip, unpack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Any, NamedTuple

    class Subnet(NamedTuple):
        """A subnet: how many bits its addresses have (32 or 128), the first as a number, the prefix."""

        bits: int
        first: int
        prefix: int

else:
    Subnet = namedtuple("Subnet", ("bits", "first", "prefix"))


def number_of(ip: str) -> tuple[int, int]:
    """Return (32 or 128, the address as a number). Raises ValueError for other text."""
    try:
        packed = pack_ip(ip)[1]
    except (OSError, ValueError):
        raise ValueError(f"invalid IP address: {ip}") from None
    return 8 * len(packed), int.from_bytes(packed, "big")


def text_of(bits: int, number: int) -> str:
    """Return the address with that number, the inverse of `number_of`."""
    return unpack_ip(number.to_bytes(bits // 8, "big"))


def parse_cidr(text: str) -> Subnet:
    """Return the subnet of "172.18.0.0/16" or "fd00:9::/64"; bits behind the prefix are dropped.

    Raises ValueError in Go's words.
    """
    ip, _, length = text.partition("/")
    try:
        bits, number = number_of(ip)
        if not (length.isascii() and length.isdigit() and int(length) <= bits):
            raise ValueError
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None
    prefix = int(length)
    return Subnet(bits, number & -(1 << (bits - prefix)), prefix)


def show(subnet: Subnet) -> str:
    """Return a subnet as text, the inverse of `parse_cidr`."""
    return f"{text_of(subnet.bits, subnet.first)}/{subnet.prefix}"


def overlap(one: Subnet, other: Subnet) -> bool:
    """Say whether two subnets have an address in common: the shorter prefix is equal."""
    shift = one.bits - min(one.prefix, other.prefix)
    return one.bits == other.bits and one.first >> shift == other.first >> shift


def broadcast_of(ip: str, prefix: int) -> str | None:
    """Return the address at which all of an IPv4 subnet listen; IPv6 has none."""
    bits, number = number_of(ip)
    return None if bits == 128 else text_of(32, number | (1 << (32 - prefix)) - 1)


def contains(subnet: Subnet, ip: str) -> bool:
    """Say whether an address lies in a subnet. Raises ValueError."""
    bits, number = number_of(ip)
    return bits == subnet.bits and overlap(subnet, Subnet(bits, number, bits))


# %% notebooks/15_networks.ipynb#ipam-pools
NO_POOL = (
    "could not find an available, non-overlapping IPv{} address pool among the defaults "
    "to assign to the network"
)


def default_pools() -> Iterator[Subnet]:
    """Yield Docker's candidates: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in /20s."""
    for second in range(17, 32):
        yield parse_cidr(f"172.{second}.0.0/16")
    for third in range(0, 256, 16):
        yield parse_cidr(f"192.168.{third}.0/20")


def choose_pool(used: Collection[Subnet]) -> Subnet:
    """Return the first default pool that overlaps nothing in `used`; routes to half of the world (a
    VPN's) do not count.

    Raises NetworkFailure.
    """
    real = [subnet for subnet in used if subnet.prefix > 1]
    for pool in default_pools():
        if not any(overlap(pool, subnet) for subnet in real):
            return pool
    raise NetworkFailure(NO_POOL.format(4))


# %% notebooks/15_networks.ipynb#ipam-free
def usable(subnet: Subnet, within: Subnet | None = None) -> range:
    """Return the numbers that hosts may have: not the subnet's own address, not IPv4's broadcast.

    `within` is an --ip-range. A range that lies elsewhere gives none.
    """
    size = 1 << (subnet.bits - subnet.prefix)
    last = size - 1 if subnet.bits == 32 else size
    if within is None:
        return range(subnet.first + 1, subnet.first + last)
    end = within.first + (1 << (within.bits - within.prefix))
    return range(
        max(subnet.first + 1, within.first), max(min(subnet.first + last, end), within.first)
    )


def first_free(subnet: Subnet, within: Subnet | None, taken: Collection[str]) -> str | None:
    """Return the lowest usable address that is not in `taken`, None if there is none."""
    for number in usable(subnet, within):
        ip = text_of(subnet.bits, number)
        if ip not in taken:
            return ip
    return None


# %% notebooks/15_networks.ipynb#ipam-plan
def plan_pools(
    config: Iterable[Mapping[str, Any]],
    ipv6: bool,
    used: Collection[Subnet],
    hidden: Iterable[Subnet],
) -> list[dict[str, Any]]:
    """Return the subnets of a new network, as its record keeps them: Subnet, Gateway, IPRange, Reserved.

    `config` is Docker's IPAM.Config, `used` are the subnets of the networks there are, `hidden` those
    that the machine has routes to, which only a chosen pool avoids. Raises InvalidRequest, Forbidden,
    NetworkFailure in Docker's words.
    """
    pools = [_asked_pool(entry) for entry in config]
    subnets = [parse_cidr(pool["Subnet"]) for pool in pools]
    for index, subnet in enumerate(subnets):
        if any(overlap(subnet, other) for other in [*used, *subnets[:index]]):
            raise Forbidden("Pool overlaps with other one on this address space")
    families = [subnet.bits for subnet in subnets]
    if ipv6 and 128 not in families:
        raise NetworkFailure(NO_POOL.format(6))
    if max(map(families.count, families), default=0) > 1:
        raise Forbidden("bridge driver doesn't support multiple subnets")
    if 32 not in families:
        chosen = choose_pool([*used, *subnets, *hidden])
        gateway = text_of(32, chosen.first + 1)
        pool = {"Subnet": show(chosen), "Gateway": gateway, "Reserved": [], "Chosen": True}
        pools.insert(0, pool)
    return [pool for pool in pools if ipv6 or ":" not in pool["Subnet"]]


def _asked_pool(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Check one element of IPAM.Config; its gateway is the first address if none is named."""
    text = str(entry.get("Subnet") or "")
    try:
        subnet = parse_cidr(text)
    except ValueError as error:
        raise InvalidRequest(f"Invalid subnet {text} : {error}") from None
    inside = _range_of(entry, subnet)
    gateway = str(entry.get("Gateway") or "")
    auxiliary = dict(entry.get("AuxiliaryAddresses") or {})
    for ip in auxiliary.values():
        _inside(subnet, str(ip), f"failed to allocate secondary ip address ({ip})")
    if gateway:
        try:
            number_of(gateway)
        except ValueError:
            words = f"invalid gateway address {gateway} in Ipam configuration"
            raise InvalidRequest(words) from None
        _inside(subnet, gateway, f"failed to allocate gateway ({gateway})")
    else:
        found = first_free(subnet, inside, set(auxiliary.values()))
        if found is None:
            raise NetworkFailure(
                "failed to allocate gateway (): No available addresses on this pool"
            )
        gateway = found
    pool = {"Subnet": show(subnet), "Gateway": gateway, "Reserved": list(auxiliary.values())}
    return {**pool, "IPRange": show(inside)} if inside else pool


def _range_of(entry: Mapping[str, Any], subnet: Subnet) -> Subnet | None:
    """Return the --ip-range of an element of IPAM.Config; it has to lie in the subnet."""
    text = str(entry.get("IPRange") or "")
    if not text:
        return None
    try:
        inside = parse_cidr(text)
        if not overlap(inside, subnet) or inside.prefix < subnet.prefix:
            raise ValueError
    except ValueError:
        words = f'pool "{show(subnet)}" subpool "{text}": Invalid Address SubPool'
        space = 'failed to parse pool request for address space "LocalDefault"'
        raise InvalidRequest(f"{space} {words}") from None
    return inside


def _inside(subnet: Subnet, ip: str, words: str) -> None:
    try:
        inside = contains(subnet, ip)
    except ValueError:
        inside = False
    if not inside:
        raise InvalidRequest(f"{words}: Requested address is out of range")
