# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#endpoint-record
"""What is written of a container's end of a network, and what may be asked of it."""

from __future__ import annotations

import os

from mini_docker.engine import bridge as bridges
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import Forbidden, NetworkFailure
from mini_docker.engine.ipam import contains, first_free, number_of, parse_cidr, show, usable
from mini_docker.engine.network_record import PREDEFINED
from mini_docker.linux.netlink import pack_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from mini_docker.engine.network_files import Record


def check_config(record: Record, wanted: Mapping[str, Any]) -> None:
    """Refuse what a network cannot give to an endpoint, in Docker's words. Raises InvalidRequest."""
    if record["Driver"] != "bridge":
        raise InvalidRequest(
            f"network {record['Name']} has no endpoints: it is of the kind {record['Driver']}"
        )
    check_wanted(record, wanted)


def check_wanted(record: Record, wanted: Mapping[str, Any]) -> None:
    """Refuse what no container can want of a network, whether it runs or not. Raises InvalidRequest."""
    asked = wanted.get("IPAMConfig") or {}
    addresses = [asked.get("IPv4Address") or "", asked.get("IPv6Address") or ""]
    if record["Name"] in PREDEFINED:
        if any(addresses):
            words = "user specified IP address is supported on user defined networks only"
            raise InvalidRequest(words)
        if wanted.get("Aliases"):
            words = "network-scoped alias is supported only for containers in user defined networks"
            raise InvalidRequest(words)
    check_addresses(asked)
    for bits, ip in zip((32, 128), addresses, strict=True):
        if ip and not _own_subnet(record, bits):
            words = "user specified IP address is supported only when connecting to networks with"
            raise InvalidRequest(f"{words} user configured subnets")
    try:
        if wanted.get("MacAddress") and len(pack_mac(wanted["MacAddress"]) or b"") != 6:
            raise ValueError
    except ValueError:
        raise InvalidRequest(f"address {wanted['MacAddress']}: invalid MAC address") from None


def check_addresses(asked: Mapping[str, Any]) -> None:
    """Refuse what are no addresses in an endpoint's IPAMConfig. Raises InvalidRequest in Docker's words."""
    for name, bits in (("IPv4", 32), ("IPv6", 128)):
        ip = asked.get(f"{name}Address") or ""
        try:
            if ip and parse_cidr(f"{ip}/{bits}").bits != bits:
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"invalid {name} address: {ip}") from None
    local = [ip for ip in asked.get("LinkLocalIPs") or () if ip]
    try:
        list(map(number_of, local))
    except ValueError:
        raise InvalidRequest(f"Invalid link-local IP address: [{' '.join(local)}]") from None


def _own_subnet(record: Record, bits: int) -> bool:
    """Say whether the user chose the subnet of this family."""
    pools = [pool for pool in record["Pools"] if parse_cidr(pool["Subnet"]).bits == bits]
    return any(not pool.get("Chosen") for pool in pools)


# %% notebooks/15_networks.ipynb#endpoint-new
def new_endpoint(record: Record, container_id: str, name: str, wanted: Mapping[str, Any]) -> Record:
    """Return an endpoint without addresses, which is nowhere written yet."""
    endpoint_id = os.urandom(32).hex()
    return {
        "Container": container_id,
        "Name": name,
        "NetworkName": record["Name"],
        "NetworkID": record["Id"],
        "Internal": record["Internal"],
        "EndpointID": endpoint_id,
        "Link": f"{bridges.LINK_PREFIX}{endpoint_id[:13]}",
        "IPAMConfig": wanted.get("IPAMConfig"),
        "Links": wanted.get("Links"),
        "Aliases": with_short_id(record, container_id, wanted)["Aliases"],
        "DriverOpts": wanted.get("DriverOpts"),
        **blank_addresses(),
        "MacAddress": wanted.get("MacAddress") or "",
        "Bindings": [],
    }


def with_short_id(record: Record, container_id: str, wanted: Mapping[str, Any]) -> Record:
    """Return what is wanted of a network, with the name by which the container is known there anyway."""
    aliases, short = [*(wanted.get("Aliases") or ())], container_id[:12]
    if record["Name"] not in PREDEFINED and short not in aliases:
        aliases.append(short)
    return {**wanted, "Aliases": aliases or None}


def choose_address(
    record: Record, pool: Record, ipam: Mapping[str, Any], leased: Collection[str]
) -> str:
    """Return an address of a pool: the asked one, or the lowest free one.

    Raises InvalidRequest (of another subnet), Forbidden (taken), NetworkFailure (none is left).
    """
    taken = {*leased, *pool["Reserved"], pool["Gateway"]}
    subnet = parse_cidr(pool["Subnet"])
    asked = ipam.get("IPv6Address" if subnet.bits == 128 else "IPv4Address") or ""
    if not asked:
        within = parse_cidr(pool["IPRange"]) if pool.get("IPRange") else None
        return first_free(subnet, within, taken) or _exhausted(record, subnet.bits)
    if not contains(subnet, asked):
        words = f"Invalid address {asked}: It does not belong to any of this network's subnets"
        raise InvalidRequest(words)
    ip = show(parse_cidr(f"{asked}/{subnet.bits}")).partition("/")[0]
    if ip in taken or number_of(ip)[1] not in usable(subnet):
        raise Forbidden("Address already in use")
    return ip


def _exhausted(record: Record, bits: int) -> str:
    where, kind = f"{record['Name']} ({record['Id']})", "IPv6" if bits == 128 else "IPv4"
    raise NetworkFailure(f"no available {kind} addresses on this network's address pools: {where}")


def addresses_in(record: Record, pool: Record, ip: str) -> Record:
    """Return the part of an endpoint that an address of a pool is."""
    prefix, six = parse_cidr(pool["Subnet"]).prefix, ":" in pool["Subnet"]
    gateway = "" if record["Internal"] and six else pool["Gateway"]
    if six:
        return {
            "GlobalIPv6Address": ip,
            "GlobalIPv6PrefixLen": prefix,
            "IPv6Gateway": gateway,
        }
    return {"IPAddress": ip, "IPPrefixLen": prefix, "Gateway": gateway}


def blank_addresses() -> Record:
    """Return the addresses of an endpoint that has none."""
    return {
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
    }


def link_local_addresses(endpoint: Record) -> list[tuple[str, int]]:
    """Return the addresses asked for by --link-local-ip, with their prefixes; nobody leases them."""
    asked = (endpoint["IPAMConfig"] or {}).get("LinkLocalIPs") or ()
    return [(ip, 64 if ":" in ip else 16) for ip in asked if ip]


def addresses_of(endpoint: Record) -> list[tuple[str, int]]:
    """Return the addresses of an endpoint with their prefixes."""
    pairs = [(endpoint["IPAddress"], endpoint["IPPrefixLen"])]
    pairs.append((endpoint["GlobalIPv6Address"], endpoint["GlobalIPv6PrefixLen"]))
    return [(ip, prefix) for ip, prefix in pairs if ip]


SETTINGS = (
    "IPAMConfig Links Aliases NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway "
    "GlobalIPv6Address GlobalIPv6PrefixLen MacAddress DriverOpts"
).split()


def settings_of(endpoint: Mapping[str, Any]) -> Record:
    """Return Docker's EndpointSettings of an endpoint, or of a mere config of one."""
    empty = {**blank_addresses(), "NetworkID": "", "EndpointID": ""}
    return {key: endpoint.get(key, empty.get(key)) for key in SETTINGS}
