# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#containers-module
"""The routes of containers."""

from __future__ import annotations

from signal import NSIG

from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route
from mini_docker.api.schemas import CONFIG, checked
from mini_docker.engine.filters import check_filters, has_labels
from mini_docker.engine.moments import parse_until
from mini_docker.engine.store import NoSuchContainer
from mini_docker.engine.views import inspect, list_containers, summary
from mini_docker.images.catalog import find, tar_size
from mini_docker.images.layout import ARCHITECTURE, NoSuchImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.api.routes import Call
    from mini_docker.engine.container import Container


def found(call: Call) -> Container:
    """Return the container that the path names. Raises NoSuchContainer."""
    return call.engine.containers.find(call.holes["id"])


# %% notebooks/18_http_api.ipynb#container-life
def check_create(body: dict[str, Any]) -> dict[str, Any]:
    """Return a create request that can be taken, with commands as words. Raises HttpError."""
    if not body.keys() & CONFIG.keys():
        raise HttpError(400, "Config cannot be empty in order to create a container")
    checked(body, "ContainerCreate")
    for field in ("Cmd", "Entrypoint"):
        if isinstance(body.get(field), str):
            body[field] = [body[field]]
    place = body.get("WorkingDir") or "/"
    if not place.startswith("/"):
        raise HttpError(
            400, f"the working directory '{place}' is invalid, it needs to be an absolute path"
        )
    if not body.get("Image"):
        raise HttpError(400, "no image specified: field Image is empty")
    return body


def create(call: Call) -> None:
    """POST /containers/create."""
    body = check_create(call.request.json(broken=500))
    check_platform(call, body["Image"])
    container = call.engine.create(body, call.request.query.get("name", ""))
    call.reply.send_json(
        201, {"Id": container.id, "Warnings": container.record.get("Warnings", [])}
    )


def platform_of(call: Call) -> list[str]:
    """Return the parts of `platform`: os, architecture, variant. Raises HttpError in Docker's words."""
    text = call.request.query.get("platform", "").lower()
    parts = text.split("/") if text else []
    if len(parts) > 3 or "" in parts:
        raise HttpError(400, f'"{text}": cannot parse platform specifier: invalid argument')
    if len(parts) == 1 and text not in ("linux", "windows", *ARCHITECTURE, *ARCHITECTURE.values()):
        raise HttpError(
            400, f'"{text}": unknown operating system or architecture: invalid argument'
        )
    return parts


def check_platform(call: Call, name: str) -> None:
    """Refuse an image that is not for the platform that was asked for. Raises HttpError, NoSuchImage."""
    wanted = platform_of(call)
    if len(wanted) < 2:
        return
    config = call.engine.find_image(name)[0].config
    actual = [config.get("os") or "linux", config.get("architecture") or ""]
    if wanted[:2] != actual:
        words = f"image with reference {name} was found but does not match the specified platform"
        asked, is_for = "/".join(wanted), "/".join(actual)
        raise HttpError(404, f"{words}: wanted {asked}, actual: {is_for}")


def start(call: Call) -> None:
    """POST /containers/{id}/start."""
    call.engine.containers.start(call.holes["id"])
    call.reply.empty(204)


def explain(call: Call) -> None:
    """POST /containers/{id}/explain: start it, and answer with each step that was taken. Not Docker's."""
    done = call.engine.containers.start(call.holes["id"], explain=True)
    fields = ("Where", "Module", "Step", "Call", "Nanoseconds")
    call.reply.send_json(200, [dict(zip(fields, one, strict=True)) for one in done])


def stop(call: Call) -> None:
    """POST /containers/{id}/stop."""
    call.engine.containers.stop(call.holes["id"], call.request.number("t"))
    call.reply.empty(204)


def restart(call: Call) -> None:
    """POST /containers/{id}/restart."""
    call.engine.containers.restart(call.holes["id"], call.request.number("t"))
    call.reply.empty(204)


def kill(call: Call) -> None:
    """POST /containers/{id}/kill."""
    text, name = call.request.query.get("signal", ""), call.holes["id"]
    if text.lstrip("-").isdigit() and not 0 <= int(text) < NSIG:
        words = f"The linux daemon does not support signal {int(text) % (1 << 64)}"
        raise HttpError(400, f"Cannot kill container: {name}: {words}")
    try:
        call.engine.containers.kill(name, text)
    except NoSuchContainer as error:
        raise HttpError(404, f"Cannot kill container: {name}: {error}") from None
    call.reply.empty(204)


def pause(call: Call) -> None:
    """POST /containers/{id}/pause."""
    call.engine.containers.pause(call.holes["id"])
    call.reply.empty(204)


def unpause(call: Call) -> None:
    """POST /containers/{id}/unpause."""
    call.engine.containers.unpause(call.holes["id"])
    call.reply.empty(204)


def rename(call: Call) -> None:
    """POST /containers/{id}/rename."""
    call.engine.containers.rename(call.holes["id"], call.request.query.get("name", ""))
    call.reply.empty(204)


def remove(call: Call) -> None:
    """DELETE /containers/{id}."""
    name, containers = call.holes["id"], call.engine.containers
    if call.request.flag("link"):
        containers.unlink(name)
    else:
        containers.remove(name, *[call.request.flag(flag) for flag in ("force", "v")])
    call.reply.empty(204)


UPDATABLE = (
    "BlkioWeight CpuShares CpuPeriod CpuQuota CpusetCpus CpusetMems Memory MemorySwap MemoryReservation "
    "NanoCpus PidsLimit RestartPolicy CpuRealtimePeriod CpuRealtimeRuntime"
).split()


def update(call: Call) -> None:
    """POST /containers/{id}/update: zeros and nulls change nothing."""
    body = checked(call.request.json(broken=500), "ContainerUpdate")
    given = {key: body[key] for key in UPDATABLE if body.get(key)}
    if not (given.get("RestartPolicy") or {"Name": "x"}).get("Name"):
        given.pop("RestartPolicy")
    warnings = call.engine.containers.update(call.holes["id"], given, body)
    call.reply.send_json(200, {"Warnings": warnings or None})


PRUNE_FILTERS = frozenset(("until", "label", "label!"))


def prune(call: Call) -> None:
    """POST /containers/prune."""
    filters = call.request.filters(broken=400)
    check_filters(filters, PRUNE_FILTERS)
    if len(filters.get("until", ())) > 1:
        raise HttpError(400, "more than one until filter specified")
    until = parse_until(filters.get("until", ()))
    yes, no = filters.get("label", ()), filters.get("label!", ())

    def matches(labels: dict[str, str]) -> bool:
        return has_labels(labels, yes) and not (no and has_labels(labels, no))

    removed, freed = call.engine.containers.prune(until, matches)
    call.engine.events.publish("container", "prune", "", {"reclaimed": str(freed)})
    call.reply.send_json(200, {"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


# %% notebooks/18_http_api.ipynb#container-views
def listing(call: Call) -> None:
    """GET /containers/json."""
    request, containers = call.request, call.engine.containers
    shown = list_containers(
        containers,
        request.filters(),
        request.flag("all"),
        request.number("limit") or 0,
        call.engine.image_ids,
    )
    sizes = request.flag("size")
    links, named = containers.link_names(), call.engine.image_names() if shown else {}
    rows = [
        {**summary(c, named, links.get(c.id, ())), **(listed_sizes(call, c) if sizes else {})}
        for c in shown
    ]
    call.reply.send_json(200, rows)


def show(call: Call) -> None:
    """GET /containers/{id}/json."""
    container = found(call)
    execs = call.engine.execs.running_in(container)
    sizes = sizes_of(call, container) if call.request.flag("size") else {}
    call.reply.send_json(200, {**inspect(call.engine.containers, container, execs), **sizes})


def listed_sizes(call: Call, container: Container) -> dict[str, int]:
    """Return the sizes for a line of a list, which leaves zeros out."""
    try:
        return {key: size for key, size in sizes_of(call, container).items() if size}
    except NoSuchContainer:
        return {}  # its line tells of a moment ago


def sizes_of(call: Call, container: Container) -> dict[str, int]:
    """Return the bytes of the files that a container changed, and of all that it sees without volumes."""
    store = call.engine.store
    own = container.look(lambda: store.roots.size(container.record))
    try:
        image = find(store.layout, container.record.get("ImageID") or "").image
        below = sum(tar_size(store.layout, layer) for layer in image.layers)
    except NoSuchImage:
        below = 0  # it was removed by force, and its layers stay until the container goes
    return {"SizeRw": own, "SizeRootFs": own + below}


# %% notebooks/18_http_api.ipynb#container-routes
CONTAINER = "Container"
CONTAINER_ROUTES = (
    Route("POST", "/containers/create", create, CONTAINER),
    Route("GET", "/containers/json", listing, CONTAINER),
    Route("GET", "/containers/{id}/json", show, CONTAINER),
    Route("POST", "/containers/{id}/start", start, CONTAINER),
    Route("POST", "/containers/{id}/explain", explain, CONTAINER),
    Route("POST", "/containers/{id}/stop", stop, CONTAINER),
    Route("POST", "/containers/{id}/restart", restart, CONTAINER),
    Route("POST", "/containers/{id}/kill", kill, CONTAINER),
    Route("POST", "/containers/{id}/pause", pause, CONTAINER),
    Route("POST", "/containers/{id}/unpause", unpause, CONTAINER),
    Route("POST", "/containers/{id}/rename", rename, CONTAINER),
    Route("POST", "/containers/{id}/update", update, CONTAINER),
    Route("POST", "/containers/prune", prune, CONTAINER),
    Route("DELETE", "/containers/{id}", remove, CONTAINER),
)
