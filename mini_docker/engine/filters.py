# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#networks-filters
"""The filters of Docker's lists and prunes: names, labels, moments."""

from __future__ import annotations

import re
import time

from mini_docker.engine.document import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def check_filters(filters: Mapping[str, Collection[str]], known: Collection[str]) -> None:
    """Refuse a filter that is not there. Raises InvalidRequest."""
    for key in filters:
        if key not in known:
            raise InvalidRequest(f"Invalid filter '{key}'")


def matches(text: str, patterns: Collection[str]) -> bool:
    """Say whether a text is one of the patterns or has a part that one of them describes."""
    try:
        return not patterns or any(text == p or re.search(p, text) for p in patterns)
    except re.error:
        return False


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Say whether all of "key" or "key=value" are among the labels."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def parse_until(texts: Iterable[str]) -> float:
    """Return the moment before which things are old, for the filter `until`, in seconds since 1970.

    Raises InvalidRequest for what is neither a time stamp nor a duration such as "1h30m".
    """
    moments = []
    for text in texts:
        parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", text)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            moments.append(float(text))
        elif text and parts:
            hours, minutes, seconds = (float(part or 0) for part in parts.groups())
            moments.append(time.time() - hours * 3600 - minutes * 60 - seconds)
        else:
            moments.append(parse_time(text))
    return min(moments, default=float("inf"))


def parse_time(text: str) -> float:
    """Return an RFC 3339 time ("2026-11-25T16:08:21.5Z", a date alone) in seconds since 1970."""
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(\.\d+)?(Z|[+-]\d\d:\d\d)?)?", text
    )
    try:
        if not found:
            raise ValueError
        date, clock, fraction, zone = found.groups(default="")
        clock = (clock or "00:00") + ":00" * (clock.count(":") < 2)
        from calendar import timegm  # what takes this filter is not on the run path

        seconds = timegm(time.strptime(f"{date}T{clock}", "%Y-%m-%dT%H:%M:%S"))
        hours, _, minutes = zone[1:].partition(":") if len(zone) > 1 else ("0", "", "0")
        offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if zone[:1] == "-" else 1)
        return seconds + float(fraction or 0) - offset
    except (ValueError, OverflowError):
        words = f'failed to parse value as time or duration: "{text}"'
        raise InvalidRequest(words) from None
