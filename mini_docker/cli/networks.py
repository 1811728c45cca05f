# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#networks-module
"""The commands about networks."""

from __future__ import annotations

from mini_docker.cli.client import filters, quote
from mini_docker.cli.command import FILTER, Command, each
from mini_docker.cli.create import pairs
from mini_docker.cli.errors import CommandError, DaemonError
from mini_docker.cli.listing import (
    by_name,
    form_of,
    label_head,
    label_reader,
    label_words,
    rendered,
)
from mini_docker.cli.text import short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#network-list
LIST_FLAGS = f"""
{FILTER}
    --format string   Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
    --no-trunc        Do not truncate the output
-q, --quiet           Only display IDs
"""
NETWORK_HEADS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "Label": label_head,
    "CreatedAt": "CREATED AT",
}


def network_ls(call: Call, parsed: Parsed) -> int:
    """List networks by name."""
    found = call.client.json("GET", "/networks", {"filters": filters(parsed.all("filter")) or None})
    usual = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
    form = form_of(call, parsed, "networksFormat", usual)
    rows = [
        _network_row(one, not parsed.on("no-trunc")) for one in sorted(found or [], key=by_name)
    ]
    print(rendered(form, rows, NETWORK_HEADS, "*network.networkContext", usual), end="")
    return 0


def _network_row(one: dict[str, Any], cut: bool) -> dict[str, Any]:
    """Return a network's fields under the names that templates use."""
    return {
        "ID": short_id(one["Id"]) if cut else one["Id"],
        "Name": one["Name"],
        "Driver": one["Driver"],
        "Scope": one["Scope"],
        "IPv4": _word(one.get("EnableIPv4", False)),
        "IPv6": _word(one.get("EnableIPv6", False)),
        "Internal": _word(one.get("Internal", False)),
        "Labels": label_words(one.get("Labels")),
        "Label": label_reader(one.get("Labels")),
        "CreatedAt": one.get("Created", "").replace("T", " ").replace("Z", " +0000 UTC"),
    }


def _word(value: bool) -> str:
    return "true" if value else "false"


# %% notebooks/G_object_commands.ipynb#network-create
NETWORK_CREATE_FLAGS = """
    --attachable          Enable manual container attachment
    --aux-address map     Auxiliary IPv4 or IPv6 addresses used by Network driver
-d, --driver string       Driver to manage the Network
    --gateway strings     IPv4 or IPv6 Gateway for the master subnet
    --internal            Restrict external access to the network
    --ip-range strings    Allocate container ip from a sub-range
    --ipam-driver string  IP Address Management Driver
    --ipam-opt map        Set IPAM driver specific options
    --ipv6                Enable or disable IPv6 address assignment
    --label list          Set metadata on a network
-o, --opt map             Set driver specific options
    --scope string        Control the network's scope
    --subnet strings      Subnet in CIDR format that represents a network segment
"""


def network_create(call: Call, parsed: Parsed) -> int:
    """Create a network and print its id."""
    body = {
        "Name": parsed.words[0],
        "CheckDuplicate": True,
        "Driver": parsed.one("driver", "bridge"),
        "Scope": parsed.one("scope"),
        "EnableIPv6": parsed.on("ipv6"),
        "IPAM": {
            "Driver": parsed.one("ipam-driver", "default"),
            "Options": pairs(parsed.all("ipam-opt")),
            "Config": _address_pools(parsed),
        },
        "Internal": parsed.on("internal"),
        "Ingress": False,
        "Attachable": parsed.on("attachable"),
        "ConfigOnly": False,
        "Options": pairs(parsed.all("opt")),
        "Labels": pairs(parsed.all("label")),
    }
    print(call.client.json("POST", "/networks/create", None, body)["Id"])
    return 0


def _address_pools(parsed: Parsed) -> list[dict[str, Any]]:
    """Return the subnets, each with the range, the gateway and the addresses that lie in it."""
    subnets, ranges, gateways = (
        [one for text in parsed.all(flag) for one in text.split(",")]
        for flag in ("subnet", "ip-range", "gateway")
    )
    if len(subnets) < max(len(ranges), len(gateways)):
        raise CommandError("every ip-range or gateway must have a corresponding subnet")
    pools: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_lies_in(a, b) for other in pools for a, b in ((subnet, other), (other, subnet))):
            raise CommandError("multiple overlapping subnet configuration is not supported")
        pools[subnet] = {"Subnet": subnet}
    for key, what, texts in (("IPRange", "range", ranges), ("Gateway", "gateway", gateways)):
        for text in texts:
            pool = _pool_of(pools, text, what)
            if key in pool:
                where = f"({text}, {pool[key]}) on the same subnet ({pool['Subnet']})"
                raise CommandError(f"cannot configure multiple {what}s {where}")
            pool[key] = text
    for name, text in pairs(parsed.all("aux-address")).items():
        _pool_of(pools, text, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = text
    return list(pools.values())


def _pool_of(pools: dict[str, dict[str, Any]], address: str, what: str) -> dict[str, Any]:
    """Return the subnet in which an address lies. Raises CommandError."""
    for subnet, pool in pools.items():
        if _lies_in(address, subnet):
            return pool
    raise CommandError(f"no matching subnet for {what} {address}")


def _lies_in(address: str, subnet: str) -> bool:
    """Return whether an address, or the first of a range, lies in a subnet. Raises CommandError."""
    import ipaddress

    try:
        network = ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        raise CommandError(f"invalid subnet: invalid CIDR address: {subnet}") from None
    try:
        return ipaddress.ip_network(address, strict=False).network_address in network
    except ValueError:
        return False


# %% notebooks/G_object_commands.ipynb#network-members
CONNECT_FLAGS = """
    --alias strings          Add network-scoped alias for the container
    --driver-opt strings     driver options for the network
    --ip string              IPv4 address (e.g., "172.30.100.104")
    --ip6 string             IPv6 address (e.g., "2001:db8::33")
    --link list              Add link to another container
    --link-local-ip strings  Add a link-local address for the container
"""


def network_connect(call: Call, parsed: Parsed) -> int:
    """Put a container into a network."""
    network, container = parsed.words
    addresses = {
        "IPv4Address": parsed.one("ip"),
        "IPv6Address": parsed.one("ip6"),
        "LinkLocalIPs": parsed.all("link-local-ip"),
    }
    config = {
        "IPAMConfig": {name: value for name, value in addresses.items() if value},
        "Links": parsed.all("link"),
        "Aliases": parsed.all("alias"),
        "DriverOpts": pairs(parsed.all("driver-opt")),
    }
    body = {"Container": container, "EndpointConfig": config}
    call.client.call("POST", f"/networks/{quote(network)}/connect", None, body)
    return 0


def network_disconnect(call: Call, parsed: Parsed) -> int:
    """Take a container out of a network."""
    network, container = parsed.words
    body = {"Container": container, "Force": parsed.on("force")}
    call.client.call("POST", f"/networks/{quote(network)}/disconnect", None, body)
    return 0


def network_rm(call: Call, parsed: Parsed) -> int:
    """Remove networks."""

    def one(name: str) -> None:
        try:
            call.client.call("DELETE", f"/networks/{quote(name)}")
        except DaemonError as error:
            if not (parsed.on("force") and error.http_status == 404):
                raise
            return  # it is gone, which is what was wanted
        print(name, flush=True)

    return each(parsed.words, one)


# %% notebooks/G_object_commands.ipynb#networks-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "network ls",
        "[OPTIONS]",
        "List networks",
        LIST_FLAGS,
        network_ls,
        0,
        0,
        ("network ls --filter driver=bridge",),
    ),
    Command(
        "network create",
        "[OPTIONS] NETWORK",
        "Create a network",
        NETWORK_CREATE_FLAGS,
        network_create,
        1,
        1,
        ("network create lan", "network create --subnet 10.9.0.0/24 --internal quiet"),
    ),
    Command(
        "network rm",
        "NETWORK [NETWORK...]",
        "Remove one or more networks",
        "-f, --force  Do not error if the network does not exist",
        network_rm,
        1,
        None,
        ("network rm lan",),
    ),
    Command(
        "network connect",
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network",
        CONNECT_FLAGS,
        network_connect,
        2,
        2,
        ("network connect --alias db lan web",),
    ),
    Command(
        "network disconnect",
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
        "-f, --force  Force the container to disconnect from a network",
        network_disconnect,
        2,
        2,
        ("network disconnect lan web",),
    ),
)
