# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#network-record
"""What is written of a network: from a request, and of the three that are always there."""

from __future__ import annotations

import os
import re
import time

from mini_docker.engine import bridge as bridges
from mini_docker.engine import nat
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import NoSuchPlugin
from mini_docker.engine.ipam import Subnet, number_of, parse_cidr, plan_pools, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from mini_docker.engine.network_files import Record

PREDEFINED = ("bridge", "host", "none")
BUILT_IN_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}
OPTION = "com.docker.network."
MTU, NAME = f"{OPTION}driver.mtu", f"{OPTION}bridge.name"
ICC, MASQUERADE = f"{OPTION}bridge.enable_icc", f"{OPTION}bridge.enable_ip_masquerade"
HOST_BINDING = f"{OPTION}bridge.host_binding_ipv4"
IFACE_PREFIX = f"{OPTION}container_iface_prefix"
TRUE = ("", "1", "t", "T", "true", "True", "TRUE")
FALSE = ("0", "f", "F", "false", "False", "FALSE")


def now() -> str:
    """Return the time as Docker writes it: RFC 3339 in UTC, with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{date}.{nanoseconds:09}".rstrip("0").rstrip(".") + "Z"


def new_record(
    request: Mapping[str, Any], used: Collection[Subnet], hidden: Collection[Subnet]
) -> Record:
    """Return the record of a new network from the body of Docker's POST /networks/create.

    Raises InvalidRequest, Forbidden, NoSuchPlugin, NetworkFailure in Docker's words.
    """
    network_id = os.urandom(32).hex()
    ipam = request.get("IPAM") or {}
    config = [dict(entry) for entry in ipam.get("Config") or ()]
    # IPv4 first, as Docker lists them
    config.sort(key=lambda entry: ":" in str(entry.get("Subnet")))
    if (ipam.get("Driver") or "default") != "default":
        if ipam["Driver"] == "null":
            raise InvalidRequest("ipv4 pool is empty")
        raise NoSuchPlugin(f'plugin "{ipam["Driver"]}" not found')
    options = {str(k): str(v) for k, v in sorted((request.get("Options") or {}).items())}
    ipv6 = bool(request.get("EnableIPv6"))
    pools = plan_pools(config, ipv6, used, hidden)
    chosen = [pool for pool in pools if pool.get("Chosen")]
    config[:0] = [{"Subnet": pool["Subnet"], "Gateway": pool["Gateway"]} for pool in chosen]
    check_options(options)
    return {
        **blank_record(str(request["Name"]), network_id, "bridge"),
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Options": ipam.get("Options"), "Config": config},
        "Internal": bool(request.get("Internal")),
        "Attachable": bool(request.get("Attachable")),
        "Options": options,
        "Labels": dict(sorted((request.get("Labels") or {}).items())),
        "Bridge": options.get(NAME) or f"md-{network_id[:12]}",
        "Pools": pools,
    }


def blank_record(name: str, network_id: str, driver: str) -> Record:
    """Return a record in the order of Docker's JSON; `Bridge` and `Pools` are ours."""
    return {
        "Name": name,
        "Id": network_id,
        "Created": now(),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
        "Bridge": "",
        "Pools": [],
    }


def check_options(options: Mapping[str, str]) -> None:
    """Refuse options that nobody could obey. Raises InvalidRequest."""
    mtu = options.get(MTU, "0")
    if mtu.startswith("-") and mtu[1:].isdecimal():
        raise InvalidRequest(f"invalid MTU number: {mtu}")
    if not (mtu.isascii() and mtu.isdigit() and int(mtu) <= 65535):
        parsing = f'strconv.Atoi: parsing "{mtu}": invalid syntax'
        raise InvalidRequest(f"failed to parse {MTU} value: {mtu} ({parsing})")
    bridge = options.get(NAME, "bridge")
    if not 0 < len(os.fsencode(bridge)) <= 15 or not re.fullmatch(r"[\w.@-]+", bridge):
        raise InvalidRequest(
            f"invalid bridge name: '{bridge}': 1 to 15 letters, digits and . _ - @"
        )
    try:
        number_of(options.get(HOST_BINDING) or "0.0.0.0")
    except ValueError:
        value = options[HOST_BINDING]
        raise InvalidRequest(f"failed to parse {HOST_BINDING} value: {value} (nil ip)") from None
    for key in (ICC, MASQUERADE):
        if options.get(key, "") not in (*TRUE, *FALSE):
            parsing = f'strconv.ParseBool: parsing "{options[key]}": invalid syntax'
            raise InvalidRequest(f"failed to parse {key} value: {options[key]} ({parsing})")


def segment_of(record: Record) -> nat.Segment:
    """Return a network as the packet rules see it."""
    subnets = tuple(pool["Subnet"] for pool in record["Pools"])
    masquerade = record["Options"].get(MASQUERADE, "") in TRUE
    return nat.Segment(record["Bridge"], subnets, record["Internal"], masquerade)


# %% notebooks/15_networks.ipynb#network-default
def default_record(
    blank: Record, bridge: str, there: bridges.Bridge | None, used: Collection[Subnet]
) -> Record:
    """Return the record of the default network: on the bridge that is `there`, or on a free subnet."""
    if there and there.gateway:
        gateway, subnet = there.gateway, show(parse_cidr(f"{there.gateway}/{there.prefix}"))
    else:
        subnet = bridges.free_subnet([(u.first, u.prefix) for u in used if u.bits == 32])
        gateway = bridges.ip_text(parse_cidr(subnet).first + 1)
    options = {
        f"{OPTION}bridge.default_bridge": "true",
        ICC: "true",
        MASQUERADE: "true",
        HOST_BINDING: "0.0.0.0",
        NAME: bridge,
        MTU: "1500",
    }
    pool = {"Subnet": subnet, "Gateway": gateway, "Reserved": []}
    config = [{"Subnet": subnet, "Gateway": gateway}]
    ipam = {"Driver": "default", "Options": None, "Config": config}
    return {**blank, "IPAM": ipam, "Options": options, "Bridge": bridge, "Pools": [pool]}


def mtu_of(record: Record) -> int | None:
    """Return the size of packets that a network asks for."""
    return int(record["Options"].get(MTU) or 0) or None
