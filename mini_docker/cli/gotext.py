# Exported from notebooks/19b_templates_and_tables.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19b_templates_and_tables.ipynb#gotext-module
"""Values as Go writes them, and the functions that its templates and Docker give."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class TemplateError(Exception):
    """A template that cannot be parsed or carried out, in Go's words."""

    def __init__(self, text: str, parsing: bool = False) -> None:
        """Say it, and whether parsing failed already."""
        super().__init__(f"template: :1: {text}" if parsing else text)
        self.parsing = parsing


class Fields(dict):  # type: ignore[type-arg]
    """A line of a list, by the names that templates use."""


# %% notebooks/19b_templates_and_tables.ipynb#template-print
def go_text(value: Any) -> str:
    """Return a value as Go's fmt.Print shows it: map[a:b], [a b], true, <no value>."""
    if value is None:
        return "<no value>"
    return _inner(value)


def _inner(value: Any) -> str:
    """Return a value as Go's %v shows it inside another."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_inner(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_inner, value))}]"
    if isinstance(value, float):
        return _go_float(value)
    return str(value)


def _go_float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def go_json(value: Any) -> str:
    """Return a value as Go's encoding/json writes it: no spaces, letters of all languages.

    A row of a list, which has functions in it, is its fields in order.
    """
    if isinstance(value, Fields):
        plain = {name: value[name] for name in sorted(value) if not callable(value[name])}
        return escaped(json.dumps(plain, separators=(",", ":"), ensure_ascii=False))
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def escaped(text: str) -> str:
    """Return a JSON text with the three signs escaped that Go escapes in rows, for HTML's sake."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# %% notebooks/19b_templates_and_tables.ipynb#template-functions
VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")


def go_printf(form: str, *values: Any) -> str:
    """Return what Go's fmt.Sprintf makes of %s, %d, %v, %q, %t, %x, %f and widths."""
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        marks, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, rest.pop(0), marks, precision)
        if not width:
            return text
        return (
            text.ljust(int(width))
            if "-" in marks
            else text.rjust(int(width), "0" if "0" in marks else " ")
        )

    text = VERB.sub(one, form)
    extra = ", ".join(f"{go_type(value)}={_inner(value)}" for value in rest)
    return f"{text}%!(EXTRA {extra})" if extra else text


def _verb(verb: str, value: Any, marks: str, precision: str | None) -> str:
    """Return a value as one verb of Printf shows it; one that does not fit it, as Go complains."""
    if verb in "vs":
        text = _inner(value)
        return text[: int(precision)] if precision and verb == "s" else text
    if verb == "d" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{int(value):+d}" if "+" in marks else str(int(value))
    if verb in "feg" and isinstance(value, (int, float)):
        return f"{float(value):.{precision or 6}{verb}}"
    if verb == "q":
        return json.dumps(_inner(value), ensure_ascii=False)
    if verb == "t" and isinstance(value, bool):
        return _inner(value)
    if verb in "xX":
        text = f"{value:x}" if isinstance(value, int) else str(value).encode().hex()
        return text.upper() if verb == "X" else text
    return f"%!{verb}({go_type(value)}={_inner(value)})"


def go_type(value: Any) -> str:
    """Return what Go calls the type of a value."""
    names = {bool: "bool", int: "int", float: "float64", str: "string"}
    return names.get(type(value), "<nil>" if value is None else "map[string]interface {}")


def _index(value: Any, *keys: Any) -> Any:
    """Return `index value key ...`. Raises TemplateError."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, (list, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"error calling index: index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        elif value is None:
            raise TemplateError("error calling index: index of untyped nil")
        else:
            raise TemplateError(f"error calling index: can't index item of type {go_type(value)}")
    return value


def _slice(value: Any, first: int = 0, last: int | None = None) -> Any:
    if first < 0 or first > len(value) or (last is not None and not first <= last <= len(value)):
        raise TemplateError(
            f"error calling slice: index out of range: {first if last is None else last}"
        )
    return value[first:last]


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, dict)):
        return len(value)
    raise TemplateError(f"error calling len: len of type {go_type(value)}")


def _equal(first: Any, *others: Any) -> bool:
    return any(type(first) is type(other) and first == other for other in others)


def _print(*values: Any) -> str:
    """Join as fmt.Sprint does: a space between two operands when neither is a string."""
    text = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            text += " "
        text += _inner(value)
    return text


def _truncate(text: str, length: int) -> str:
    return text[:length]


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": go_json,
    "join": lambda parts, separator: separator.join(map(str, parts or [])),
    "split": lambda text, separator: text.split(separator),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": lambda text: re.sub(r"(?<![^\W_])\w", lambda match: match[0].upper(), text),
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": _truncate,
    "println": lambda *values: " ".join(map(_inner, values)) + "\n",
    "print": _print,
    "printf": go_printf,
    "index": _index,
    "slice": _slice,
    "len": _length,
    "not": lambda value: not value,
    "eq": _equal,
    "ne": lambda a, b: not _equal(a, b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
LAZY = ("and", "or")  # they stop at the first operand that decides
# over a column's head these do nothing: {{upper .Names}} stands under NAMES
HEAD_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **FUNCTIONS,
    **dict.fromkeys(
        ("json", "join", "split", "upper", "lower", "title", "truncate"), lambda head, *_: head
    ),
}
