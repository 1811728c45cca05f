"""Solutions of chapters 18 and 18b, and the wrong answers that their checks must recognise."""

from __future__ import annotations

import base64
import json
import re

from exercises.ch18 import (
    check_detach_keys,
    check_head,
    check_match_route,
    check_path_stat,
    check_progress,
    check_read_filters,
)
from mini_docker.lab import Exercise


def match_blank(route: str, path: str) -> dict[str, str] | None:
    """The untouched exercise."""
    return None


def match(route: str, path: str) -> dict[str, str] | None:
    """Return what stands in the holes of `route`."""
    pieces = re.split(r"\{(\w+)(:\.\*)?\}", route)
    pattern = re.escape(pieces[0])
    for name, slashes, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        pattern += f"(?P<{name}>{'.+' if slashes else '[^/]+'})" + re.escape(text)
    found = re.fullmatch(pattern, path)
    return found.groupdict() if found else None


def match_greedy(route: str, path: str) -> dict[str, str] | None:
    """Wrong: every hole takes slashes."""
    pattern = re.sub(r"\{(\w+)(:\.\*)?\}", r"(?P<\1>.+)", route)
    found = re.fullmatch(pattern, path)
    return found.groupdict() if found else None


def match_start(route: str, path: str) -> dict[str, str] | None:
    """Wrong: it looks at the start of the path only."""
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route)
    found = re.match(re.sub(r"\{(\w+):\.\*\}", r"(?P<\1>.+)", pattern), path)
    return found.groupdict() if found else None


def filters_blank(text: str) -> dict[str, list[str]]:
    """The untouched exercise."""
    return {}


def filters(text: str) -> dict[str, list[str]]:
    """Return filters by name."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no object")
    read = {}
    for name, values in found.items():
        if isinstance(values, dict):
            values = [value for value, wanted in values.items() if wanted]
        if not isinstance(values, list):
            raise ValueError(f"{name}: neither a list nor an object")
        read[name] = values
    return read


def filters_keys(text: str) -> dict[str, list[str]]:
    """Wrong: whatever can be listed is."""
    try:
        return {name: list(values) for name, values in json.loads(text).items()}
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def filters_true(text: str) -> dict[str, list[str]]:
    """Wrong: a string is a list of letters to it."""
    try:
        return {
            name: [value for value in values if not isinstance(values, dict) or values[value]]
            for name, values in json.loads(text).items()
        }
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def head_blank(data: bytes) -> tuple[int, bytes] | None:
    """The untouched exercise."""
    return None


def head(data: bytes) -> tuple[int, bytes] | None:
    """Part an answer's head from what follows it."""
    start, end, rest = data.partition(b"\r\n\r\n")
    return (int(start.split(b" ")[1]), rest) if end else None


def head_last(data: bytes) -> tuple[int, bytes] | None:
    """Wrong: it parts at the last empty line."""
    start, end, rest = data.rpartition(b"\r\n\r\n")
    return (int(start.split(b" ")[1]), rest) if end else None


def head_early(data: bytes) -> tuple[int, bytes] | None:
    """Wrong: it does not wait for the head's end."""
    start, _, rest = data.partition(b"\r\n\r\n")
    return int(start.split(b" ")[1]), rest


def keys_blank(text: str) -> bytes:
    """The untouched exercise."""
    return b""


def keys(text: str) -> bytes:
    """Return the bytes that the keys send."""
    found = b""
    for key in text.split(","):
        last = key[-1:]
        if len(key) == 1:
            found += key.encode()
        elif re.fullmatch(r"ctrl-[a-z@\[\\\]^_]", key):
            found += bytes([ord(last.upper()) - 64])
        else:
            raise ValueError(f"{key!r} is no key")
    return found


def keys_upper(text: str) -> bytes:
    """Wrong: 96 is right for letters alone."""
    return b"".join(
        bytes([(ord(key[-1]) - 96) % 256]) if key.startswith("ctrl-") else key.encode()
        for key in text.split(",")
    )


def keys_careless(text: str) -> bytes:
    """Wrong: it takes whatever begins with ctrl-."""
    return b"".join(
        bytes([ord(key[-1].upper()) & 31]) if key.startswith("ctrl-") else key.encode()
        for key in text.split(",")
    )


def progress_blank(data: bytes) -> tuple[dict[str, str], str | None]:
    """The untouched exercise."""
    return {}, None


def progress(data: bytes) -> tuple[dict[str, str], str | None]:
    """Return the last status of each layer, and the error."""
    found: dict[str, str] = {}
    for line in data.splitlines():
        message = json.loads(line)
        if "error" in message:
            return found, message["error"]
        if "id" in message:
            found[message["id"]] = message["status"]
    return found, None


def progress_optimist(data: bytes) -> tuple[dict[str, str], str | None]:
    """Wrong: it reads the status alone."""
    lines = [json.loads(line) for line in data.splitlines()]
    return {m["id"]: m["status"] for m in lines if "id" in m}, None


def progress_patient(data: bytes) -> tuple[dict[str, str], str | None]:
    """Wrong: it reads on after the error."""
    lines = [json.loads(line) for line in data.splitlines()]
    errors = [message["error"] for message in lines if "error" in message]
    return {m["id"]: m["status"] for m in lines if "id" in m}, (errors or [None])[0]


def path_stat_blank(header: str) -> tuple[str, bool, str]:
    """The untouched exercise."""
    return "", False, ""


def path_stat(header: str) -> tuple[str, bool, str]:
    """Return what the header says."""
    stat = json.loads(base64.b64decode(header))
    return stat["name"], bool(stat["mode"] & 1 << 31), stat["linkTarget"]


def path_stat_unix(header: str) -> tuple[str, bool, str]:
    """Wrong: it takes Go's bits for stat's."""
    stat = json.loads(base64.b64decode(header))
    return stat["name"], bool(stat["mode"] & 0o40000), stat["linkTarget"]


def path_stat_both(header: str) -> tuple[str, bool, str]:
    """Wrong: either will do for it."""
    stat = json.loads(base64.b64decode(header))
    return stat["name"], bool(stat["mode"] & (1 << 31 | 0o40000)), stat["linkTarget"]


EXERCISES = [
    Exercise(
        "match",
        check_match_route,
        blank=match_blank,
        solution=match,
        wrong=[(match_greedy, "one part of the path"), (match_start, "after the route's end")],
    ),
    Exercise(
        "filters",
        check_read_filters,
        blank=filters_blank,
        solution=filters,
        wrong=[(filters_keys, "is no filter"), (filters_true, "a string is no list")],
    ),
    Exercise(
        "head",
        check_head,
        blank=head_blank,
        solution=head,
        wrong=[(head_last, "at the first one"), (head_early, "the answer is None")],
    ),
    Exercise(
        "detach keys",
        check_detach_keys,
        blank=keys_blank,
        solution=keys,
        wrong=[(keys_upper, "ctrl-@"), (keys_careless, "is no key")],
    ),
    Exercise(
        "progress",
        check_progress,
        blank=progress_blank,
        solution=progress,
        wrong=[(progress_optimist, "200 was said"), (progress_patient, "nothing counts")],
    ),
    Exercise(
        "path stat",
        check_path_stat,
        blank=path_stat_blank,
        solution=path_stat,
        wrong=[(path_stat_unix, "bit 31"), (path_stat_both, "nothing of the kind")],
    ),
]
