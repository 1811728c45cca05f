# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#faults-module
"""JSON as Go's decoder reads it: what is wrong with it is said in Go's words, and where."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NoJson(ValueError):
    """A text that is no JSON value; the words are those of Go's encoding/json."""


ENDED = "unexpected EOF"


def decoded(data: bytes | str) -> Any:
    """Return the one JSON value of a text; what is no UTF-8 is replaced, as in Go. Raises NoJson."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise NoJson(_words(text, error)) from None
    except RecursionError:
        raise NoJson(f"invalid character {_quoted(text[start])} exceeded max depth") from None
    if text[end:].strip(" \t\r\n"):
        raise NoJson("unexpected content after JSON")
    return _replaced(value) if "\\ud" in text or "\\uD" in text else value


def _replaced(value: Any) -> Any:
    """Return a value without halves of surrogate pairs, which nothing can be called: U+FFFD, as in Go."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_replaced(one) for one in value]
    if isinstance(value, dict):
        return {_replaced(key): _replaced(one) for key, one in value.items()}
    return value


def _no_number(word: str) -> None:
    """Refuse what Python takes for a number: NaN, Infinity and -Infinity."""
    where = "in numeric literal" if word[0] == "-" else "looking for beginning of value"
    raise NoJson(f"invalid character '{word.lstrip('-')[0]}' {where}")


DECODER = json.JSONDecoder(parse_constant=_no_number)


# %% notebooks/18_http_api.ipynb#faults-words
COMPLAINTS = {
    "Expecting property name": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Invalid control": "in string literal",
    "Expecting value": "looking for beginning of value",
}
BRACKET_OR_STRING = re.compile(r'[][{}]|"(?:\\.|[^"\\])*"', re.DOTALL)
LITERALS = {"t": "true", "f": "false", "n": "null"}


def _words(text: str, error: json.JSONDecodeError) -> str:
    """Return Go's words for Python's complaint."""
    at, rest = text[error.pos : error.pos + 1], text[error.pos :]
    if error.msg.startswith("Unterminated") or not at:
        return ENDED
    if error.msg.startswith("Invalid \\u"):  # the place is about the digits
        return _of_digits(text[text.rindex("\\u", 0, error.pos + 2) + 2 :])
    if error.msg.startswith("Invalid \\"):
        return f"invalid character {_quoted(rest[1:2])} in string escape code"
    if error.msg.startswith("Expecting ','"):
        where = "object key:value pair" if _innermost(text[: error.pos]) == "{" else "array element"
        return f"invalid character {_quoted(at)} after {where}"
    if error.msg.startswith("Expecting value") and at in LITERALS:
        return _of_literal(rest, LITERALS[at])
    where = next(words for begin, words in COMPLAINTS.items() if error.msg.startswith(begin))
    return f"invalid character {_quoted(at)} {where}"


def _of_digits(rest: str) -> str:
    """Return which of four characters is no hexadecimal digit."""
    wrong = re.sub(r"^[0-9A-Fa-f]{0,3}", "", rest)[:1]
    where = "in \\u hexadecimal character escape"
    return f"invalid character {_quoted(wrong)} {where}" if wrong else ENDED


def _of_literal(rest: str, word: str) -> str:
    """Return where a text leaves `true`, `false` or `null`."""
    for wanted, found in zip(word[1:], rest[1:], strict=False):
        if wanted != found:
            return f"invalid character {_quoted(found)} in literal {word} (expecting {_quoted(wanted)})"
    return ENDED


def _innermost(text: str) -> str:
    """Return the bracket that is open at the end of a text, none for none."""
    opened: list[str] = []
    for found in BRACKET_OR_STRING.finditer(text):
        if found[0] in "[{":
            opened.append(found[0])
        elif found[0] in "]}":
            del opened[-1:]
    return "".join(opened[-1:])


def _quoted(char: str) -> str:
    """Return a character between quotes; Go looks at bytes, and shows the first."""
    shown = char.encode()[:1].decode("latin-1")
    return "'\\''" if shown == "'" else repr(shown)
