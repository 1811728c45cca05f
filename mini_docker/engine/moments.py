# Exported from notebooks/14e_logs.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14e_logs.ipynb#times
"""Times as Docker writes and reads them: RFC 3339, seconds since 1970, Go's durations."""

from __future__ import annotations

import re
import time

from mini_docker.engine.document import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SECOND = 1_000_000_000
MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:[Zz]|([+-])(\d\d):(\d\d))?)?"
)
UNITS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
PIECE = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"


def moment(at: int) -> str:
    """Return a time (nanoseconds since 1970) as Docker writes it: RFC 3339 in UTC, no zeros at its end."""
    seconds, fraction = divmod(at, SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09}".rstrip("0").rstrip(".") + "Z"


def parse_moment(text: str) -> int:
    """Return the nanoseconds since 1970 that "2026-11-23T19:24:48.5Z", "2026-11-23" or "1795461888.5" mean.

    Raises ValueError.
    """
    if found := MOMENT.fullmatch(text):
        import calendar  # and datetime with it: half a megabyte, which a shim does without

        *fields, fraction, sign, hours, minutes = found.groups(default="0")
        time.strptime("-".join(fields), "%Y-%m-%d-%H-%M-%S")  # no 13th month, no 25th hour
        seconds = calendar.timegm(time.struct_time((*map(int, fields), 0, 0, 0)))
        if sign != "0":
            seconds -= int(f"{sign}1") * (int(hours) * 3600 + int(minutes) * 60)
        return seconds * SECOND + int(fraction.ljust(9, "0"))
    whole, _, fraction = text.partition(".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()) or len(text) > 30:
        raise ValueError(f"'{text}' is not a time such as 2026-11-23T19:24:48Z or 1795461888.5")
    return int(whole) * SECOND + int(fraction.ljust(9, "0")[:9] or 0)


def duration(length: int) -> str:
    """Return nanoseconds as Go writes them: "300ms", "1.5s", "1m30s", "2h0m0s"."""
    if not 0 < length < SECOND:
        minutes, rest = divmod(length, 60 * SECOND)
        hours, minutes = divmod(minutes, 60)
        words = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
        return f"{words}{_decimal(rest, SECOND)}s"
    unit = next(unit for unit in ("ms", "µs", "ns") if length >= UNITS[unit])
    return _decimal(length, int(UNITS[unit])) + unit


def _decimal(number: int, unit: int) -> str:
    """Return number/unit with as many digits as it has."""
    whole, rest = divmod(number, unit)
    digits = str(unit + rest)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_duration(text: str) -> int:
    """Return the nanoseconds of Go's "1m30s", "500ms" or "0". Raises ValueError."""
    if text != "0" and not re.fullmatch(f"({PIECE})+", text):
        raise ValueError(f'time: invalid duration "{text}"')
    return int(sum(float(number) * UNITS[unit] for number, unit in re.findall(PIECE, text)))


def point_in_time(text: str) -> int:
    """Return the nanoseconds since 1970 of a time, or of a duration back from now such as "1h30m".

    Raises InvalidRequest.
    """
    try:
        if text[-1:].isalpha() and text[-1] not in "Zz":
            return time.time_ns() - parse_duration(text)
        return parse_moment(text)
    except ValueError:
        words = f'failed to parse value as time or duration: "{text}"'
        raise InvalidRequest(words) from None


def parse_until(texts: Iterable[str]) -> float:
    """Return the moment before which things are old, for the filter `until`, in seconds since 1970.

    Raises InvalidRequest.
    """
    return min(map(point_in_time, texts), default=float("inf")) / SECOND
