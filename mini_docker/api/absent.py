# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#absent-module
"""What we do not have, answered as a Docker without it answers: swarm, plugins, builds."""

from __future__ import annotations

from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.api.routes import Call


# %% notebooks/18c_objects.ipynb#absent
NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
    "node to swarm and try again."
)


def no_manager(call: Call) -> None:
    """Answer for everything that only a swarm's manager knows."""
    raise HttpError(503, NO_MANAGER)


def no_swarm(call: Call) -> None:
    """Answer for leaving a swarm that one is not in."""
    raise HttpError(503, "This node is not part of a swarm")


def not_here(call: Call) -> None:
    """Answer for what this engine does not do yet."""
    raise HttpError(501, f"{call.request.method} {call.request.path} is not implemented here")


def no_plugins(call: Call) -> None:
    """GET /plugins."""
    for key in call.request.filters():
        if key not in ("capability", "enabled"):
            raise HttpError(400, f"Invalid filter '{key}'")
    call.reply.send_json(200, [])


def no_plugin(call: Call) -> None:
    """Answer for a plugin, of which there is none."""
    raise HttpError(404, f'plugin "{call.holes["name"]}" not found')


def prune_builds(call: Call) -> None:
    """POST /build/prune: there is no cache of builds."""
    call.engine.events.publish("builder", "prune", "", {"reclaimed": "0"})
    call.reply.send_json(200, {"CachesDeleted": None, "SpaceReclaimed": 0})


MANAGER = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
ABSENT_ROUTES = (
    Route("POST", "/swarm/leave", no_swarm, "Swarm"),
    Route("POST", "/swarm/init", not_here, "Swarm"),
    Route("POST", "/swarm/join", not_here, "Swarm"),
    *(
        Route(method, f"/{name}", no_manager, "Swarm")
        for name in MANAGER
        for method in ("GET", "POST")
    ),
    *(
        Route(method, f"/{name}/{{rest}}", no_manager, "Swarm")
        for name in MANAGER
        for method in ("GET", "POST", "DELETE")
    ),
    Route("GET", "/plugins", no_plugins, "Plugin"),
    Route("GET", "/plugins/privileges", not_here, "Plugin"),
    Route("POST", "/plugins/pull", not_here, "Plugin"),
    Route("POST", "/plugins/create", not_here, "Plugin"),
    Route("GET", "/plugins/{name}/json", no_plugin, "Plugin"),
    Route("DELETE", "/plugins/{name}", no_plugin, "Plugin"),
    *(
        Route("POST", f"/plugins/{{name}}/{verb}", no_plugin, "Plugin")
        for verb in ("enable", "disable", "upgrade", "push", "set")
    ),
    Route("POST", "/build/prune", prune_builds, "Image"),
    Route("POST", "/build", not_here, "Image"),
    Route("POST", "/session", not_here, "Session"),
)
