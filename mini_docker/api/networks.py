# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#networks-routes
"""The routes of networks."""

from __future__ import annotations

from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.api.routes import Call


def of_types(body: dict[str, Any], **kinds: type) -> dict[str, Any]:
    """Return a body whose fields have these types, or are not there. Raises HttpError."""
    for field, kind in kinds.items():
        if body.get(field) is not None and not isinstance(body[field], kind):
            words = f"json: cannot unmarshal into Go struct field {field} of type {kind.__name__}"
            raise HttpError(400, words)
    return body


def ipam_of(body: dict[str, Any]) -> None:
    """Check the types inside IPAM. Raises HttpError."""
    ipam = of_types(body, IPAM=dict).get("IPAM") or {}
    for entry in of_types(ipam, Config=list, Options=dict, Driver=str).get("Config") or ():
        if not isinstance(entry, dict):
            raise HttpError(400, "json: cannot unmarshal into Go struct field Config")
        of_types(entry, Subnet=str, Gateway=str, IPRange=str, AuxiliaryAddresses=dict)


def network_create(call: Call) -> None:
    """POST /networks/create."""
    body = of_types(call.request.json(), Name=str, Driver=str, Options=dict, Labels=dict)
    ipam_of(body)
    made = call.engine.wiring.networks.create(body)
    call.engine.tell_network("create", made["Id"])
    call.reply.send_json(201, made)


def network_list(call: Call) -> None:
    """GET /networks."""
    call.reply.send_json(200, call.engine.wiring.networks.listing(call.request.filters()))


def network_show(call: Call) -> None:
    """GET /networks/{id}."""
    call.reply.send_json(200, call.engine.wiring.networks.inspect(call.holes["id"]))


def network_remove(call: Call) -> None:
    """DELETE /networks/{id}."""
    networks = call.engine.wiring.networks
    record = networks.find(call.holes["id"])
    networks.remove(record["Id"])
    attributes = {"name": record["Name"], "type": record["Driver"]}
    call.engine.events.publish("network", "destroy", record["Id"], attributes)
    call.reply.empty(204)


def network_prune(call: Call) -> None:
    """POST /networks/prune."""
    call.reply.send_json(200, call.engine.wiring.networks.prune(call.request.filters()))


def endpoint_of(call: Call) -> dict[str, Any]:
    """Return the body of connect and disconnect. Raises HttpError."""
    body = of_types(call.request.json(), Container=str, EndpointConfig=dict, Force=bool)
    config = of_types(body.get("EndpointConfig") or {}, IPAMConfig=dict, Aliases=list, Links=list)
    of_types(config, MacAddress=str, DriverOpts=dict)
    of_types(config.get("IPAMConfig") or {}, IPv4Address=str, IPv6Address=str)
    return body


def network_connect(call: Call) -> None:
    """POST /networks/{id}/connect."""
    body = endpoint_of(call)
    config = body.get("EndpointConfig")
    call.engine.connect(call.holes["id"], body.get("Container") or "", config)
    call.reply.empty(200)


def network_disconnect(call: Call) -> None:
    """POST /networks/{id}/disconnect."""
    body = endpoint_of(call)
    force = bool(body.get("Force"))
    call.engine.disconnect(call.holes["id"], body.get("Container") or "", force)
    call.reply.empty(200)


NETWORK_ROUTES = (
    Route("GET", "/networks", network_list, "Network"),
    Route("POST", "/networks/create", network_create, "Network"),
    Route("POST", "/networks/prune", network_prune, "Network"),
    Route("GET", "/networks/{id}", network_show, "Network"),
    Route("DELETE", "/networks/{id}", network_remove, "Network"),
    Route("POST", "/networks/{id}/connect", network_connect, "Network"),
    Route("POST", "/networks/{id}/disconnect", network_disconnect, "Network"),
)
