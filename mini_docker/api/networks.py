# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#networks-routes
"""The routes of networks."""

from __future__ import annotations

from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route
from mini_docker.api.schemas import checked
from mini_docker.engine.network_record import FALSE, TRUE
from mini_docker.engine.store import NoSuchContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.api.routes import Call


def network_create(call: Call) -> None:
    """POST /networks/create."""
    body = checked(call.request.json(), "NetworkCreate")
    made = call.engine.wiring.networks.create(body)
    call.engine.tell_network("create", made["Id"])
    call.reply.send_json(201, made)


def network_list(call: Call) -> None:
    """GET /networks."""
    call.reply.send_json(200, call.engine.wiring.networks.listing(call.request.filters()))


def network_show(call: Call) -> None:
    """GET /networks/{id}."""
    name, query = call.holes["id"], call.request.query
    verbose = query.get("verbose") or "false"
    if verbose not in (*TRUE, *FALSE):
        words = f'strconv.ParseBool: parsing "{verbose}": invalid syntax'
        raise HttpError(400, f"invalid value for verbose: {verbose}: {words}")
    if query.get("scope") not in (None, "", "local"):
        raise HttpError(404, f"network {name} not found")
    call.reply.send_json(200, call.engine.wiring.networks.inspect(name))


def network_remove(call: Call) -> None:
    """DELETE /networks/{id}."""
    networks = call.engine.wiring.networks
    record = networks.find(call.holes["id"])
    networks.remove(record["Id"])
    tell_destroyed(call, record)
    call.reply.empty(204)


def tell_destroyed(call: Call, record: dict[str, Any]) -> None:
    """Publish that a network is gone."""
    attributes = {"name": record["Name"], "type": record["Driver"]}
    call.engine.events.publish("network", "destroy", record["Id"], attributes)


def network_prune(call: Call) -> None:
    """POST /networks/prune."""
    networks = call.engine.wiring.networks
    before = {record["Name"]: record for record in networks.listing()}
    done = networks.prune(call.request.filters())
    for name in done["NetworksDeleted"] or ():
        tell_destroyed(call, before[name])
    call.engine.events.publish("network", "prune", "", {"reclaimed": "0"})
    call.reply.send_json(200, done)


def network_connect(call: Call) -> None:
    """POST /networks/{id}/connect."""
    body = checked(call.request.json(), "NetworkConnect")
    config = body.get("EndpointConfig")
    call.engine.connect(call.holes["id"], body.get("Container") or "", config)
    call.reply.empty(200)


def network_disconnect(call: Call) -> None:
    """POST /networks/{id}/disconnect."""
    body = checked(call.request.json(), "NetworkDisconnect")
    name, force = body.get("Container") or "", bool(body.get("Force"))
    try:
        call.engine.disconnect(call.holes["id"], name, force)
    except NoSuchContainer:
        if not force:
            raise
        raise HttpError(404, f"endpoint {name} not found") from None
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
