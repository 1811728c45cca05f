"""The description at /openapi.json: what it says can be asked is looked at, and always has an answer."""

from __future__ import annotations

import inspect
import json
import random
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mini_docker.api.openapi import QUERY_OF
from mini_docker.api.table import TABLE
from tests.daemons import Daemon, UnixConnection
from tests.described import description

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]


def source_of(function: Any, seen: set[Any]) -> str:
    """Return the text of a handler, and of all functions of the API that it calls."""
    if function in seen:
        return ""
    seen.add(function)
    text = inspect.getsource(function)
    called = (function.__globals__.get(name) for name in re.findall(r"\b([a-z_]+)\b", text))
    inside = (one for one in called if inspect.isfunction(one))
    ours = [one for one in inside if one.__module__.startswith("mini_docker.api.")]
    return text + "".join(source_of(one, seen) for one in ours)


READ = re.compile(r'(?:request\.(?:flag|number|query\.get)|\bquery\.get)\("([\w-]+)"|\.(filters)\(')


@pytest.mark.parametrize("route", TABLE.routes, ids=lambda route: f"{route.method} {route.path}")
def test_every_parameter_is_described_and_looked_at(route: Any) -> None:
    text = source_of(route.handler, set())
    described = set(QUERY_OF.get(f"{route.method} {route.path}", ()))
    read = {name or filters for name, filters in READ.findall(text)}
    assert read - described - {"names"} == set()
    assert {name for name in described if name != "filters" and f'"{name}"' not in text} == set()
    assert ("filters" in described) == ("filters" in read)


def test_every_described_parameter_belongs_to_a_route() -> None:
    assert QUERY_OF.keys() <= {f"{route.method} {route.path}" for route in TABLE.routes}


# ---- whatever is asked ------------------------------------------------------------------------------

TEXTS = (
    "", "web", "x", "0", "1", "-1", "../..", "a/b", "\0", "\u202e", "\u00e9", "9" * 30, "busybox", "{", "[]",
    '{"label":["a"]}', '{"nosuch":{"x":true}}', "a=b", "%", "/", "true", "2020-01-01", "1h", "x" * 5000,
)  # fmt: skip
ENDLESS = (  # what waits for more, takes a connection over, or asks a registry has tests of its own
    "/events", "/wait", "/attach", "/stats", "/start", "/auth", "/search", "/push", "/images/create",
    "/distribution", "/restart", "/explain",
)  # fmt: skip
REQUESTS = 200
PYTHONS = re.compile(
    r"Traceback|(Attribute|Type|Key|Index|Name|Unicode\w+|Recursion|Assertion|Runtime)Error"
)


def some_value(chance: random.Random, schema: dict[str, Any], depth: int = 0) -> Any:
    """Return a value that a schema allows, or now and then one that it does not."""
    if "$ref" in schema:
        schema = description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = chance.choice(schema["anyOf"])
    kind = (
        schema["type"]
        if chance.random() < 0.95
        else chance.choice(["string", "integer", "boolean"])
    )
    if kind == "string":
        return chance.choice(TEXTS)
    if kind == "integer":
        return chance.choice([0, 1, -1, 7, 1 << 20, 1 << 62, -(1 << 62)])
    if kind == "boolean":
        return chance.random() < 0.5
    if kind == "array":
        items = schema.get("items", {"type": "string"})
        return [some_value(chance, items, depth + 1) for _ in range(chance.randrange(3))]
    fields = schema.get("properties") or {}
    chosen = chance.sample(sorted(fields), min(len(fields), chance.randrange(4)))
    found = {name: some_value(chance, fields[name], depth + 1) for name in chosen if depth < 4}
    if more := schema.get("additionalProperties"):
        found[chance.choice(TEXTS)] = some_value(chance, more, depth + 1)
    return found


def some_request(chance: random.Random, where: tuple[str, str], about: Any) -> tuple[str, str, Any]:
    """Return method, path with a query, and body (None for none) of a request."""
    method, path = where
    for hole in re.findall(r"\{\w+\}", path):
        path = path.replace(hole, quote(chance.choice(TEXTS) or "web", safe=""))
    queries = [one for one in about["parameters"] if one["in"] == "query"]
    chosen = chance.sample(queries, chance.randrange(len(queries) + 1))
    query = urlencode({one["name"]: chance.choice(TEXTS) for one in chosen})
    body = about.get("requestBody")
    value = some_value(chance, body["content"]["application/json"]["schema"]) if body else None
    if path.endswith("create") and isinstance(value, dict):
        value = {"Image": "busybox", "Cmd": ["true"], **value}
    return method.upper(), f"{path}?{query}", value


def test_whatever_is_asked_has_an_answer_and_is_no_accident(daemon: Daemon) -> None:
    """Always the same requests, made of the description: no 500 without a sentence, no trace of Python."""
    chance = random.Random(18)
    operations = [
        ((method, path), about)
        for path, methods in description()["paths"].items()
        for method, about in methods.items()
        if not any(part in path for part in ENDLESS)
    ]
    daemon.create("web", "true")
    for _ in range(REQUESTS):
        method, path, body = some_request(chance, *chance.choice(operations))
        connection = UnixConnection(daemon.path)
        data = json.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if data else {}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        asked = f"{method} {path[:300]} {str(data)[:600]}: {answer.status} {raw[:300]!r}"
        if answer.status >= 400 and method != "HEAD":
            assert json.loads(raw)["message"], asked
            assert not PYTHONS.search(raw.decode()), asked
    assert not PYTHONS.search(daemon.words()), PYTHONS.findall(daemon.words())
    assert daemon.ask("GET", "/_ping") == (200, "OK")
