# Exported from notebooks/11d_state.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11d_state.ipynb#jsontext
"""JSON by the C half of the json module: the Python half imports re and enum, a third of our start."""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Settings:
    """What the scanner wants to know: everything as json.loads has it."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = float
    memo: dict[str, str] = {}


_settings: Any = _Settings()
_scan = _json.make_scanner(_settings)
SPACE = " \t\n\r"


def loads(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError.

    Where something is wrong the whole module is asked after all: it finds the words for it, and the C
    half alone cannot even raise its own error.
    """
    try:
        value, end = _scan(text, len(text) - len(text.lstrip(SPACE)))
        if not text[end:].strip(SPACE):
            return value
    except (StopIteration, SystemError, ValueError):
        pass
    import json

    return json.loads(text)


def dumps(value: Any) -> str:
    """Return the JSON text of a value. Raises TypeError for what JSON does not know."""
    quoted = _json.encode_basestring_ascii
    encode = _json.make_encoder({}, _refuse, quoted, None, ": ", ", ", False, False, True)
    return "".join(encode(value, 0))


def indented(value: Any) -> str:
    """Return JSON for people, by the whole module: they do not wait for its import."""
    import json

    return json.dumps(value, indent=2)


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is nothing that JSON knows")
