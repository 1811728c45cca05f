# Exported from notebooks/14h_asking.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14h_asking.ipynb#list-filters
"""The filters of Docker's lists and prunes: names, labels, true or false."""

from __future__ import annotations

import re

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.patterns import found_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def check_filters(filters: Mapping[str, Collection[str]], known: Collection[str]) -> None:
    """Refuse a filter that is not there. Raises InvalidRequest."""
    for key in filters:
        if key not in known:
            raise InvalidRequest(f"Invalid filter '{key}'")


def check_truths(filters: Mapping[str, Collection[str]], key: str) -> None:
    """Refuse what is neither true nor false as a filter's value. Raises InvalidRequest."""
    for value in filters.get(key, ()):
        if value not in ("true", "1", "false", "0"):
            raise InvalidRequest(f"Invalid filter '{key}=[{value}]'")


def matches(text: str, patterns: Collection[str]) -> bool:
    """Say whether a text is one of the patterns or has a part that one of them describes."""
    try:
        return not patterns or any(text == p or found_in(p, text) for p in patterns)
    except re.error:
        return False


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Say whether all of "key" or "key=value" are among the labels."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
