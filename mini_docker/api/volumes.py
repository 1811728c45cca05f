# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#volumes-routes
"""The routes of volumes."""

from __future__ import annotations

from mini_docker.api.routes import Route
from mini_docker.api.schemas import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.api.routes import Call


def volume_create(call: Call) -> None:
    """POST /volumes/create."""
    body = checked(call.request.json(), "VolumeCreate")
    made = call.engine.wiring.volumes.create(body)
    call.engine.events.publish("volume", "create", made["Name"], {"driver": made["Driver"]})
    call.reply.send_json(201, made)


def volume_list(call: Call) -> None:
    """GET /volumes."""
    users = call.engine.containers.volume_users()
    call.reply.send_json(200, call.engine.wiring.volumes.listing(call.request.filters(), users))


def volume_show(call: Call) -> None:
    """GET /volumes/{name}."""
    call.reply.send_json(200, call.engine.wiring.volumes.inspect(call.holes["name"]))


def volume_remove(call: Call) -> None:
    """DELETE /volumes/{name}."""
    name, users = call.holes["name"], call.engine.containers.volume_users()
    call.engine.wiring.volumes.remove(name, users.get(name, ()), call.request.flag("force"))
    call.engine.events.publish("volume", "destroy", name, {"driver": "local"})
    call.reply.empty(204)


def volume_prune(call: Call) -> None:
    """POST /volumes/prune: up to API 1.41 the named ones too."""
    users = call.engine.containers.volume_users()
    done = call.engine.wiring.volumes.prune(call.request.filters(), users)
    freed = {"reclaimed": str(done["SpaceReclaimed"])}
    call.engine.events.publish("volume", "prune", "", freed)
    call.reply.send_json(200, done)


VOLUME_ROUTES = (
    Route("GET", "/volumes", volume_list, "Volume"),
    Route("POST", "/volumes/create", volume_create, "Volume"),
    Route("POST", "/volumes/prune", volume_prune, "Volume"),
    Route("GET", "/volumes/{name}", volume_show, "Volume"),
    Route("DELETE", "/volumes/{name}", volume_remove, "Volume"),
)
