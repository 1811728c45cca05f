# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#openapi-module
"""The table of routes as an OpenAPI description, served by the daemon itself."""

from __future__ import annotations

import re

from mini_docker.api.answers import ANSWERS, ASKED_SHAPES, JSON, NOTHING, SHAPES, UNCHANGED
from mini_docker.api.routes import NEWEST, OLDEST, Route, text
from mini_docker.api.schemas import BODIES, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.api.routes import Call


# %% notebooks/18c_objects.ipynb#openapi
BODY_OF = {
    "POST /containers/create": "ContainerCreate",
    "POST /containers/{id}/update": "ContainerUpdate",
    "POST /containers/{id}/exec": "ExecCreate",
    "POST /exec/{id}/start": "ExecStart",
    "POST /commit": "Commit",
    "POST /networks/create": "NetworkCreate",
    "POST /networks/{id}/connect": "NetworkConnect",
    "POST /networks/{id}/disconnect": "NetworkDisconnect",
    "POST /volumes/create": "VolumeCreate",
    "POST /auth": "Login",
}
FILTERS, NAMED = {"filters": str}, each(str, "repo tag")
QUERY_OF: dict[str, dict[str, Any]] = {
    "GET /containers/json": {**each(bool, "all size"), "limit": int, **FILTERS},
    "POST /containers/create": each(str, "name platform"),
    "GET /containers/{id}/json": {"size": bool},
    "POST /containers/{id}/stop": {"t": int},
    "POST /containers/{id}/restart": {"t": int},
    "POST /containers/{id}/kill": {"signal": str},
    "POST /containers/{id}/rename": {"name": str},
    "DELETE /containers/{id}": each(bool, "force v link"),
    "POST /containers/prune": FILTERS,
    "POST /containers/{id}/wait": {"condition": str},
    "POST /containers/{id}/attach": {
        **each(bool, "stdin stdout stderr logs stream"), "detachKeys": str,
    },
    "GET /containers/{id}/attach/ws": {**each(bool, "logs stream"), "detachKeys": str},
    "POST /containers/{id}/resize": each(int, "h w"),
    "POST /exec/{id}/resize": each(int, "h w"),
    "GET /containers/{id}/logs": {
        **each(bool, "stdout stderr follow timestamps details"), **each(str, "since until tail"),
    },
    "GET /containers/{id}/top": {"ps_args": str},
    "GET /containers/{id}/stats": each(bool, "stream one-shot"),
    "HEAD /containers/{id}/archive": {"path": str},
    "GET /containers/{id}/archive": {"path": str},
    "PUT /containers/{id}/archive": {"path": str, "noOverwriteDirNonDir": bool},
    "POST /commit": {
        **NAMED, **each(str, "container comment author changes"), "pause": bool,
    },
    "GET /images/json": {"all": bool, "filter": str, **FILTERS},
    "POST /images/create": {
        **NAMED, **each(str, "fromImage fromSrc platform message changes"),
    },
    "GET /images/get": {"names": str},
    "POST /images/prune": FILTERS,
    "GET /images/search": {"term": str, "limit": int, **FILTERS},
    "POST /images/{name}/tag": NAMED,
    "POST /images/{name}/push": {"tag": str},
    "DELETE /images/{name}": each(bool, "force noprune"),
    "GET /networks": FILTERS,
    "GET /networks/{id}": each(str, "verbose scope"),
    "POST /networks/prune": FILTERS,
    "GET /volumes": FILTERS,
    "DELETE /volumes/{name}": {"force": bool},
    "POST /volumes/prune": FILTERS,
    "GET /plugins": FILTERS,
    "GET /events": {**each(str, "since until"), **FILTERS},
}  # fmt: skip
LOGIN_FOR = (
    "POST /images/create", "POST /images/{name}/push", "GET /images/search",
    "GET /distribution/{name}/json",
)  # fmt: skip
SIMPLE = {str: "string", bool: "boolean", int: "integer", float: "number"}


def schema_of(kind: Any, answered: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a kind, as `schemas` (or `answers`) writes them."""
    if isinstance(kind, str):
        return {"$ref": f"#/components/schemas/{kind}"}
    if isinstance(kind, tuple):
        return {"anyOf": [schema_of(one, answered) for one in kind], "nullable": True}
    if isinstance(kind, list):
        return {"type": "array", "items": schema_of(kind[0], answered), "nullable": True}
    if not isinstance(kind, dict):
        return {"type": SIMPLE[kind], "nullable": True}
    found: dict[str, Any] = {"type": "object", "nullable": True}
    if "*" in kind:
        return {**found, "additionalProperties": schema_of(kind["*"], answered)}
    needed = [n.rstrip("!") for n in kind if n.endswith("!") or answered and not n.endswith("?")]
    fields = {name.rstrip("!?"): schema_of(one, answered) for name, one in kind.items()}
    return {**found, "properties": fields, **({"required": needed} if needed else {})}


def parameters_of(where: str) -> list[dict[str, Any]]:
    """Return what a description says of a route's path, query and headers."""
    holes = re.findall(r"\{(\w+)\}", where)
    found = [
        {"name": hole, "in": "path", "required": True, "schema": {"type": "string"}}
        for hole in holes
    ]
    for name, kind in QUERY_OF.get(where, {}).items():
        found.append({"name": name, "in": "query", "schema": {"type": SIMPLE[kind]}})
    if where in LOGIN_FOR:
        schema = {"type": "string", "format": "byte"}
        found.append({"name": "X-Registry-Auth", "in": "header", "schema": schema})
    return found


def body_of(where: str) -> dict[str, Any]:
    """Return what a description says of the body that a route takes, if it takes one."""
    name = BODY_OF.get(where)
    if name is None:
        return {}
    return {"requestBody": {"content": {JSON: {"schema": schema_of(name)}}}}


def answers_of(where: str, tag: str) -> dict[str, Any]:
    """Return what a description says of a route's answers; what is not here is always refused."""
    refused = {"description": "refused", "content": {JSON: {"schema": schema_of("ErrorResponse")}}}
    status, shape = ANSWERS.get(where, NOTHING)
    if where not in ANSWERS and tag not in ("Container", "Network", "Volume"):
        return {"default": refused}
    about: dict[str, Any] = {"description": "done"}
    if isinstance(shape, str) and "/" in shape:
        about["content"] = {shape: {"schema": {"type": "string", "format": "binary"}}}
    elif shape is not None:
        about["content"] = {JSON: {"schema": schema_of(shape, True)}}
    unchanged = {"304": {"description": "it is so already"}} if where in UNCHANGED else {}
    return {str(status): about, **unchanged, "default": refused}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3 document of a table of routes: what it says is what is served."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path
        where = f"{route.method} {path}"
        paths.setdefault(path, {})[route.method.lower()] = {
            "tags": [route.tag],
            "operationId": f"{route.handler.__name__}_{route.method}_{len(paths)}",
            "summary": (route.handler.__doc__ or "").strip().splitlines()[0],
            "parameters": parameters_of(where),
            **body_of(where),
            "responses": answers_of(where, route.tag),
        }
    return {
        "openapi": "3.0.3",
        "info": {"title": "mini_docker: the Docker Engine API", "version": text(NEWEST)},
        "servers": [{"url": f"/v{text(NEWEST)}"}, {"url": f"/v{text(OLDEST)}"}, {"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {
                "ErrorResponse": schema_of({"message!": str}),
                **{name: schema_of(kinds) for name, kinds in {**BODIES, **ASKED_SHAPES}.items()},
                **{name: schema_of(kinds, True) for name, kinds in SHAPES.items()},
            }
        },
    }


def openapi(call: Call) -> None:
    """GET /openapi.json: this description."""
    from mini_docker.api.table import TABLE

    call.reply.send_json(200, describe(TABLE.routes))


OPENAPI_ROUTES = (Route("GET", "/openapi.json", openapi, "System"),)
