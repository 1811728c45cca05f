# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#routes-module
"""The table of routes: a method and a path with holes, and the function that answers."""

from __future__ import annotations

import posixpath
import re
from collections import namedtuple

from mini_docker.api.http import Connection, HttpError, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NamedTuple

    from mini_docker.engine.engine import Engine

    Handler = Callable[["Call"], None]

    class Call(NamedTuple):
        """One request on its way: the engine, what was asked, how to answer, and the path's holes."""

        engine: Engine
        request: Request
        reply: Connection
        holes: dict[str, str]

    class Route(NamedTuple):
        """A line of the table; `tag` is the group in Docker's documentation."""

        method: str
        path: str
        handler: Handler
        tag: str

else:
    Call = namedtuple("Call", ("engine", "request", "reply", "holes"))
    Route = namedtuple("Route", ("method", "path", "handler", "tag"))


# %% notebooks/18_http_api.ipynb#versions
OLDEST, NEWEST = (1, 24), (1, 41)
VERSION = re.compile(r"/v([0-9.]+)(/.*)")


def text(version: tuple[int, int]) -> str:
    """Return (1, 41) as "1.41"."""
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[str, str]:
    """Return a path's version ("" where it has none) and the rest. Raises HttpError for one not spoken."""
    found = VERSION.fullmatch(path)
    if not found:
        return "", path
    parts = [int(part or 0) for part in found[1][:32].split(".")]
    version = parts[0], parts[1] if len(parts) > 1 else 0
    if version > NEWEST:
        raise HttpError(
            400,
            f"client version {found[1]} is too new. Maximum supported API version is {text(NEWEST)}",
        )
    if version < OLDEST:
        words = f"client version {found[1]} is too old. Minimum supported API version is "
        words += f"{text(OLDEST)}, please upgrade your client to a newer version"
        raise HttpError(400, words, plain=True)
    return text(version), found[2]


# %% notebooks/18_http_api.ipynb#match
def clean_path(path: str) -> str:
    """Return a path without "//", "." and "..": who asks for another one is told to ask for this."""
    clean = posixpath.normpath(f"/{path.lstrip('/')}")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def pattern(path: str) -> re.Pattern[str]:
    """Return what matches a route's path; what stands in a hole may have slashes, as names of images do."""
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", path))


class Table:
    """Routes, and the way from a request to one of them."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Compile the paths."""
        self.routes = list(routes)
        self.compiled = [(route, pattern(route.path)) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a request and what stands in its holes. Raises HttpError(404)."""
        for route, compiled in self.compiled:
            if route.method == method and (found := compiled.fullmatch(path)):
                return route, found.groupdict()
        raise HttpError(404, "page not found")
