"""Answers against the description that the daemon serves at /openapi.json."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from mini_docker.api.openapi import describe
from mini_docker.api.routes import NEWEST, OLDEST
from mini_docker.api.table import TABLE

PREFIX = re.compile(r"^/v1\.(\d+)(?=/)")


@functools.cache
def description() -> dict[str, Any]:
    """Return what GET /openapi.json answers."""
    return describe(TABLE.routes)


def operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """Return the described path and operation that a request means, None where there is none."""
    place = PREFIX.sub("", path.partition("?")[0])
    for route, compiled in TABLE.compiled:
        if route.method == method and compiled.fullmatch(place):
            return route.path, description()["paths"][route.path][method.lower()]
    return None


def check_answer(method: str, path: str, status: int, kind: str, data: bytes) -> str:
    """Assert that an answer is as described, and return which it was."""
    version = PREFIX.match(path)
    if (version and not OLDEST[1] <= int(version[1]) <= NEWEST[1]) or (
        found := operation(method, path)
    ) is None:
        return ""
    where = f"{method} {path} {status}"
    named, about = found
    answers = about["responses"]
    answer = answers.get(str(status)) if status < 400 else answers["default"]
    assert answer is not None, f"{where} is not described: {sorted(answers)}"
    content = answer.get("content", {})
    if not data or method == "HEAD":
        assert not content or status == 200 or method == "HEAD", f"{where}: no body"
    elif "application/json" in content:
        assert kind.startswith("application/json") or not kind, f"{where}: {kind}"
        schema = content["application/json"]["schema"]
        for one in json.loads(f"[{data.decode()}]") if status >= 400 else messages(data):
            assert not (wrong := mismatch(one, schema, "")), f"{where}: {wrong}"
    else:
        assert not kind or kind in content, f"{where}: {kind} and not {list(content)}"
    return f"{method} {named}"


def messages(data: bytes) -> list[Any]:
    """Return the JSON values of a body: a stream has several, one after the other."""
    text, decoder, found = data.decode().strip(), json.JSONDecoder(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


TYPES: dict[str, Any] = {
    "string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict,
}  # fmt: skip


def mismatch(value: Any, schema: dict[str, Any], where: str) -> str:
    """Return where a value is not as described, "" if it is: nothing may be there that is not said."""
    if "$ref" in schema:
        schema = description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if value is None:
        return "" if schema.get("nullable") else f"{where} is null"
    if "anyOf" in schema:
        tried = [mismatch(value, one, where) for one in schema["anyOf"]]
        return "" if "" in tried else tried[0]
    kind = schema["type"]
    if not isinstance(value, TYPES[kind]) or isinstance(value, bool) and kind != "boolean":
        return f"{where} is no {kind}: {value!r}"
    if kind == "array":
        wrong = (mismatch(one, schema["items"], f"{where}[]") for one in value)
    elif kind == "object":
        wrong = _in_object(value, schema, where)
    else:
        return ""
    return next(filter(None, wrong), "")


def _in_object(value: dict[str, Any], schema: dict[str, Any], where: str) -> Any:
    fields, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        yield "" if name in value else f"{where}.{name} is missing"
    for name, one in value.items():
        if name in fields or others is not None:
            yield mismatch(one, fields.get(name, others), f"{where}.{name}")
        elif fields:
            yield f"{where}.{name} is not described"
