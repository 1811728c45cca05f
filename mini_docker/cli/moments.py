# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#moments-module
"""Moments as users write them ("42m", "2026-11-23T19:00", "1795461910") -> seconds for a query."""

from __future__ import annotations

import re
import time

from mini_docker.cli.errors import CommandError
from mini_docker.cli.flags import is_duration, parse_duration
from mini_docker.cli.text import seconds_of

# %% notebooks/F_container_commands.ipynb#moments
WRITTEN = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(\.\d+)?)?)?)?(Z|[+-]\d\d:\d\d)?"
)


def timestamp(text: str, name: str, now: float | None = None) -> str:
    """Return a moment as "seconds.nanoseconds": how long ago, RFC 3339 or a part, or seconds since 1970.

    Without a zone, the local one is meant. Raises CommandError.
    """
    if not text or re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    if is_duration(text):
        moment = int((time.time() if now is None else now) * 10**9) - parse_duration(text)
        return f"{moment // 10**9}.{moment % 10**9:09}"
    found = WRITTEN.fullmatch(text)
    if not found:
        reason = f'failed to parse value as time or duration: "{text}"'
        raise CommandError(f'invalid value for "{name}": {reason}')
    return _written(*found.groups())


def _written(
    day: str,
    hour: str | None,
    minute: str | None,
    second: str | None,
    fraction: str | None,
    zone: str | None,
) -> str:
    """Return the seconds since 1970 of a date that was written out; no zone means ours."""
    clock = f"{hour or '00'}:{minute or '00'}:{second or '00'}"
    try:
        if zone:
            whole = int(seconds_of(f"{day}T{clock}{zone}"))
        else:
            whole = int(time.mktime(time.strptime(f"{day}T{clock}", "%Y-%m-%dT%H:%M:%S")))
    except (ValueError, OverflowError):
        raise CommandError(f"{day}T{clock} is no moment of any calendar") from None
    return f"{whole}.{(fraction or '.0')[1:].ljust(9, '0')[:9]}"
