# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#openapi-module
"""The table of routes as an OpenAPI description, served by the daemon itself."""

from __future__ import annotations

import re

from mini_docker.api.routes import NEWEST, OLDEST, Route, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.api.routes import Call

ERROR = {"$ref": "#/components/schemas/ErrorResponse"}


# %% notebooks/18c_objects.ipynb#openapi
def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3 document of a table of routes: what it says is what is served."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace(":.*}", "}")
        holes = re.findall(r"\{(\w+)\}", path)
        parameters = [
            {"name": hole, "in": "path", "required": True, "schema": {"type": "string"}}
            for hole in holes
        ]
        words = (route.handler.__doc__ or "").strip().splitlines()[0]
        refused = {"description": "refused", "content": {"application/json": {"schema": ERROR}}}
        paths.setdefault(path, {})[route.method.lower()] = {
            "tags": [route.tag],
            "operationId": f"{route.handler.__name__}_{route.method}_{len(paths)}",
            "summary": words,
            "parameters": parameters,
            "responses": {"default": refused},
        }
    schema = {
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": "mini_docker: the Docker Engine API", "version": text(NEWEST)},
        "servers": [{"url": f"/v{text(NEWEST)}"}, {"url": f"/v{text(OLDEST)}"}, {"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"ErrorResponse": schema}},
    }


def openapi(call: Call) -> None:
    """GET /openapi.json: this description."""
    from mini_docker.api.table import TABLE

    call.reply.send_json(200, describe(TABLE.routes))


OPENAPI_ROUTES = (Route("GET", "/openapi.json", openapi, "System"),)
