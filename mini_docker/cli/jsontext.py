# Exported from notebooks/19c_a_client_by_hand.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19c_a_client_by_hand.ipynb#jsontext-module
"""JSON by the C half of the json module: the Python half imports re and enum, as dear as all of ours."""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/19c_a_client_by_hand.ipynb#jsontext
class _Settings:
    """What the scanner wants to know: everything as json.loads has it."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


_settings: Any = _Settings()
_scan = _json.make_scanner(_settings)


def loads(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. Raises ValueError, by the whole module: it has the words."""
    try:
        text = data.decode().strip(" \t\n\r")
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, SystemError, ValueError):
        pass
    import json

    return json.loads(data)


def dumps(value: Any) -> str:
    """Return the JSON text of a value. Raises TypeError for what JSON does not know."""
    quoted = _json.encode_basestring_ascii
    encode = _json.make_encoder({}, _refuse, quoted, None, ": ", ", ", False, False, True)
    return "".join(encode(value, 0))


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is nothing that JSON knows")
