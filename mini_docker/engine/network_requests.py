# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#networks-requests
"""What the body of POST /containers/create asks of networks, and what inspect answers."""

from __future__ import annotations

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.endpoint_record import blank_addresses, check_addresses, settings_of
from mini_docker.engine.network_record import PREDEFINED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from mini_docker.engine.network_files import Record


def endpoint_configs(request: Mapping[str, Any]) -> dict[str, Record]:
    """Return {network: config} of the networks that the body of POST /containers/create asks for.

    A container that has another's network namespace has none of its own. Raises InvalidRequest for what
    contradicts itself, in Docker's words.
    """
    host = request.get("HostConfig") or {}
    mode = network_mode(host)
    given = (request.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    configs = {network_mode({"NetworkMode": name}): dict(c or {}) for name, c in given.items()}
    if mode.startswith("container:"):
        _refuse_with_container_mode(request, host)
        return {}
    if mode == "host":
        _refuse(
            ((host.get("Links"), f"host type networking {NO_LINKS}"),
             (request.get("MacAddress"), "mac-address and the network mode")),
        )  # fmt: skip
    config = configs.setdefault(mode, {})
    for one in configs.values():
        check_addresses(one.get("IPAMConfig") or {})
    if request.get("MacAddress") and not config.get("MacAddress"):
        config["MacAddress"] = request["MacAddress"]
    if mode not in PREDEFINED and host.get("Links") and not config.get("Links"):
        config["Links"] = list(host["Links"])
    return configs


def network_mode(host: Mapping[str, Any]) -> str:
    """Return HostConfig.NetworkMode; "default", as clients say it, is the bridge."""
    mode = str(host.get("NetworkMode") or "default")
    return "bridge" if mode == "default" else mode


NO_LINKS = "can't be used with links. This would result in undefined behavior"


def _refuse_with_container_mode(request: Mapping[str, Any], host: Mapping[str, Any]) -> None:
    conflicts = (
        (request.get("Hostname"), "hostname and the network mode"),
        (host.get("Links"), f"container type network {NO_LINKS}"),
        (host.get("Dns"), "dns and the network mode"),
        (host.get("ExtraHosts"), "custom host-to-IP mapping and the network mode"),
        (request.get("MacAddress"), "mac-address and the network mode"),
        (host.get("PortBindings"), "port publishing and the container type network mode"),
        (host.get("PublishAllPorts"), "port publishing and the container type network mode"),
        (request.get("ExposedPorts"), "port exposing and the container type network mode"),
    )
    _refuse(conflicts)


def _refuse(conflicts: Iterable[tuple[Any, str]]) -> None:
    """Raise InvalidRequest for the first of these that is given, in Docker's words."""
    for given, words in conflicts:
        if given:
            raise InvalidRequest(f"conflicting options: {words}")


def wanted_ports(host: Mapping[str, Any], exposed: Collection[str]) -> Record:
    """Return HostConfig.PortBindings, with -P completed by the exposed ports."""
    bindings = dict(host.get("PortBindings") or {})
    if host.get("PublishAllPorts"):
        for key in exposed:
            bindings.setdefault(key if "/" in key else f"{key}/tcp", [{}])
    return bindings


def refuse_connect(record: Record, mode: str, others: Collection[str], running: bool) -> None:
    """Refuse what Docker does not connect; `others` are the networks that the container is on already.

    Raises InvalidRequest.
    """
    if record["Driver"] == "host" and running:
        words = "container cannot be disconnected from host network or connected to host network"
        raise InvalidRequest(words)
    if running and (mode == "host" or mode.startswith("container:")):
        words = (
            "container sharing network namespace with another container or host cannot be connected"
        )
        raise InvalidRequest(f"{words} to any other network")
    if others and "none" in (*others, record["Name"]):
        words = (
            "container cannot be connected to multiple networks with one of the networks in private"
        )
        raise InvalidRequest(f"{words} (none) mode")


def network_settings(
    networks: Mapping[str, Record], ports: Mapping[str, Any], container_id: str = ""
) -> Record:
    """Return Docker's NetworkSettings; the old fields at its top are those of the default network."""
    default = settings_of(networks.get("bridge", {}))
    top = {key: default[key] for key in ("EndpointID", *blank_addresses())}
    return {
        "Bridge": "",
        "SandboxID": container_id,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": dict(ports),
        "SandboxKey": "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **top,
        "Networks": {name: settings_of(endpoint) for name, endpoint in networks.items()},
    }
