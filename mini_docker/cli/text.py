# Exported from notebooks/19b_templates_and_tables.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19b_templates_and_tables.ipynb#text-module
"""Docker's way to write things: ages, sizes, columns, quoted commands, ports."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


# %% notebooks/19b_templates_and_tables.ipynb#ages
MINUTE, HOUR = 60, 3600
MOMENT = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)"


def age(seconds: float) -> str:
    """Return a length of time in Docker's words: "5 minutes", go-units' HumanDuration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < MINUTE:
        return f"{whole} second{'s' * (whole > 1)}"
    if whole < HOUR:
        return "About a minute" if whole < 2 * MINUTE else f"{whole // MINUTE} minutes"
    hours = int(seconds / HOUR + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for unit, length, until in (("days", 24, 336), ("weeks", 168, 1440), ("months", 720, 17520)):
        if hours < until:
            return f"{hours // length} {unit}"
    return f"{hours // 24 // 365} years"


ZERO_TIME = -62135596800  # the first of January of the year 1: Go's word for no time at all


def ago(moment: float) -> str:
    """Return how long ago a moment was, in seconds since 1970: "5 minutes ago"."""
    return f"{age(time.time() - moment)} ago"


def seconds_of(text: str) -> float:
    """Return the seconds since 1970 of "2026-11-23T19:26:56.004Z", RFC 3339; 0 for what is none."""
    from re import fullmatch

    found = fullmatch(MOMENT, text)
    if not found or text.startswith("0001-"):
        return 0.0
    from calendar import timegm

    whole, fraction, zone = found.groups()
    seconds = float(timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")))
    if zone != "Z":
        minutes = int(zone[1:3]) * 60 + int(zone[4:6])
        seconds -= (1 if zone[0] == "+" else -1) * minutes * MINUTE
    return seconds + float(fraction or 0)


def local_time(seconds: float) -> str:
    """Return a moment as Go prints it: "2026-11-23 19:26:56 +0000 UTC"."""
    local = time.localtime(seconds)
    return f"{local.tm_year:04}" + time.strftime("-%m-%d %H:%M:%S %z %Z", local)


# %% notebooks/19b_templates_and_tables.ipynb#sizes
DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def decimal_size(size: float, digits: int = 4) -> str:
    """Return "1.98MB" of bytes, go-units' HumanSizeWithPrecision."""
    return _size(float(size), 1000.0, DECIMAL_UNITS, digits)


def binary_size(size: float) -> str:
    """Return "7.656GiB" of bytes, go-units' BytesSize."""
    return _size(float(size), 1024.0, BINARY_UNITS, 4)


def _size(size: float, base: float, units: Sequence[str], digits: int) -> str:
    step = 0
    while size >= base and step < len(units) - 1:
        size, step = size / base, step + 1
    return f"{size:.{digits}g}{units[step]}"


# %% notebooks/19b_templates_and_tables.ipynb#columns
LEAST, PADDING = 10, 3  # Docker's text/tabwriter: NewWriter(out, 10, 1, 3, ' ', 0)


def columns(lines: Sequence[str], least: int = LEAST, padding: int = PADDING) -> str:
    """Return lines with their tabs turned into columns, as Go's text/tabwriter aligns them.

    A column is as wide as its widest cell in the lines around that have it; a line's last cell has no
    width. Docker's tables come out of this function byte for byte.
    """
    rows = [line.split("\t") for line in lines]
    done = [""] * len(rows)
    _align(rows, done, 0, 0, len(rows), least, padding)
    return "".join(f"{text}{row[-1]}\n" for text, row in zip(done, rows, strict=True))


def _align(
    rows: list[list[str]],
    done: list[str],
    column: int,
    first: int,
    last: int,
    least: int,
    padding: int,
) -> None:
    """Pad one column of the lines first..last, each block of neighbours that have it on its own."""
    at = first
    while at < last:
        end = at
        while end < last and len(rows[end]) > column + 1:
            end += 1
        if end == at:
            at += 1
            continue
        width = max(least, *(len(row[column]) + padding for row in rows[at:end]))
        for line in range(at, end):
            done[line] += rows[line][column].ljust(width)
        _align(rows, done, column + 1, at, end, least, padding)
        at = end


# %% notebooks/19b_templates_and_tables.ipynb#small-texts
def ellipsis(text: str, length: int) -> str:
    """Return a text cut to `length` characters, the last of them "…" if any is missing."""
    return (
        text if len(text) <= length else text[: length - 1] + "…" if length > 1 else text[:length]
    )


CONTROL = {
    7: "\\a",
    8: "\\b",
    9: "\\t",
    10: "\\n",
    11: "\\v",
    12: "\\f",
    13: "\\r",
    34: '\\"',
    92: "\\\\",
}


def quoted(text: str) -> str:
    """Return a text in double quotes with nothing in it that a terminal obeys, Go's strconv.Quote."""
    return '"' + "".join(CONTROL.get(ord(c)) or _printable(c) for c in text) + '"'


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def short_id(text: str) -> str:
    """Return the twelve digits by which people call things, without "sha256:"."""
    return text.partition(":")[2][:12] if ":" in text else text[:12]


def ports(found: Sequence[dict[str, Any]]) -> str:
    """Return published and exposed ports in the words of `docker ps`: "0.0.0.0:80-81->80-81/tcp".

    Neighbours become a range where the port outside is the one inside; others stand alone, last.
    """
    texts, alone = [], []
    groups: dict[tuple[str, str], list[int]] = {}
    for private, address, public, kind in sorted(map(_port_key, found)):
        if address and public != private:
            alone.append(f"{host_port(address, str(public))}->{private}/{kind}")
            continue
        group = groups.get((address, kind))
        if group and private == group[1] + 1:
            group[1] = private
            continue
        if group:
            texts.append(_port_range(address, kind, *group))
        groups[address, kind] = [private, private]
    texts += [_port_range(*key, *group) for key, group in groups.items()]
    return ", ".join(texts + alone)


def _port_key(port: dict[str, Any]) -> tuple[int, str, int, str]:
    public = int(port.get("PublicPort") or 0)
    return int(port["PrivatePort"]), port.get("IP", ""), public, port.get("Type", "")


def _port_range(address: str, kind: str, first: int, last: int) -> str:
    span = f"{first}" if first == last else f"{first}-{last}"
    return f"{host_port(address, span)}->{span}/{kind}" if address else f"{span}/{kind}"


def host_port(address: str, port: str) -> str:
    """Return "127.0.0.1:80" or "[::]:80"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
