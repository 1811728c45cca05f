# Exported from notebooks/14h_asking.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14h_asking.ipynb#patterns-module
"""Regular expressions of strangers, matched without going back: by sets of positions, as Go does it."""

from __future__ import annotations

import functools
import re
import sys

if sys.version_info >= (3, 11):
    from re import _parser as parser
else:
    import sre_parse as parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Positions = frozenset[int]

NOWHERE: Positions = frozenset()
CATEGORIES: dict[object, Callable[[str], bool]] = {
    parser.CATEGORY_DIGIT: lambda c: "0" <= c <= "9",
    parser.CATEGORY_NOT_DIGIT: lambda c: not "0" <= c <= "9",
    parser.CATEGORY_WORD: lambda c: c == "_" or (c.isascii() and c.isalnum()),
    parser.CATEGORY_NOT_WORD: lambda c: not (c == "_" or (c.isascii() and c.isalnum())),
    parser.CATEGORY_SPACE: lambda c: c in " \t\n\r\f\v",
    parser.CATEGORY_NOT_SPACE: lambda c: c not in " \t\n\r\f\v",
}


# %% notebooks/14h_asking.ipynb#patterns-characters
def accepts(kind: object, value: Any, fold: bool) -> Callable[[str], bool]:
    """Return what a part says of one character; `fold` takes small and capital letters for the same.

    Raises re.error for a part that is no character.
    """
    if kind is parser.NOT_LITERAL:
        return accepts(parser.IN, ((parser.NEGATE, None), (parser.LITERAL, value)), fold)
    if kind is parser.IN:
        inverted = value[0][0] is parser.NEGATE
        tests = [accepts(kind, what, fold) for kind, what in value[inverted:]]
        return lambda c: any(test(c) for test in tests) != inverted
    if kind is parser.ANY:
        return lambda c: c != "\n"
    if kind is parser.CATEGORY:
        return CATEGORIES[value]
    if kind not in (parser.LITERAL, parser.RANGE):
        raise re.error(f"Go's regular expressions have no {kind}")
    first, last = value if kind is parser.RANGE else (value, value)
    if not fold:
        return lambda c: first <= ord(c) <= last
    return lambda c: any(first <= ord(one) <= last for one in c.lower() + c.upper())


# %% notebooks/14h_asking.ipynb#patterns-walk
class Walk:
    """A way along a pattern through one text: always all positions at once at which one may be."""

    def __init__(self, text: str, fold: bool) -> None:
        """Begin; `fold` takes small and capital letters for the same."""
        self.text, self.fold = text, fold
        self.known: dict[tuple[int, Positions], Positions] = {}

    def along(self, parts: Iterable[tuple[object, Any]], starts: Positions) -> Positions:
        """Return where one may be behind some parts in a row."""
        for kind, value in parts:
            starts = self.behind(kind, value, starts)
        return starts

    def behind(self, kind: object, value: Any, starts: Positions) -> Positions:
        """Return where one may be behind one part."""
        if kind is parser.AT:
            return frozenset(at for at in starts if self.is_at(value, at))
        if kind is parser.SUBPATTERN:
            return self.along(value[-1], starts)
        if kind is parser.BRANCH:
            return NOWHERE.union(*(self.along(way, starts) for way in value[1]))
        if kind in (parser.MAX_REPEAT, parser.MIN_REPEAT):
            return self.repeated(value[2], value[0], value[1], starts)
        test, text = accepts(kind, value, self.fold), self.text
        return frozenset(at + 1 for at in starts if at < len(text) and test(text[at]))

    def is_at(self, place: object, at: int) -> bool:
        """Say whether a position is a beginning, an end, or a border of a word."""
        if place in (parser.AT_BEGINNING, parser.AT_BEGINNING_STRING):
            return at == 0
        if place in (parser.AT_END, parser.AT_END_STRING):
            return at == len(self.text)
        word = CATEGORIES[parser.CATEGORY_WORD]
        before = at > 0 and word(self.text[at - 1])
        after = at < len(self.text) and word(self.text[at])
        return (before != after) == (place is parser.AT_BOUNDARY)

    def repeated(self, parts: Any, least: int, most: int, starts: Positions) -> Positions:
        """Return where one may be after `least` to `most` times the same; each set is walked from once."""
        for _ in range(least):
            starts, before = self.once(parts, starts), starts
            if starts == before or not starts:
                break  # it will not change any more
        everywhere = new = starts
        for _ in range(min(most - least, len(self.text) + 1)):
            new = self.once(parts, new) - everywhere
            if not new:
                break
            everywhere |= new
        return everywhere

    def once(self, parts: Any, starts: Positions) -> Positions:
        """Return where one may be after one time; what was walked before is known."""
        key = id(parts), starts
        if key not in self.known:
            self.known[key] = self.along(parts, starts)
        return self.known[key]


# %% notebooks/14h_asking.ipynb#patterns
@functools.lru_cache(64)
def read_pattern(text: str) -> Any:
    """Return a regular expression as a tree: Python's own parser makes it. Raises re.error."""
    try:
        return parser.parse(text)
    except (RecursionError, OverflowError):
        raise re.error("too deep, or too large a number", text) from None


def found_in(pattern: str, text: str) -> bool:
    """Say whether some part of a text matches a pattern. Raises re.error, also for what Go does not know."""
    if pattern.replace("-", "").replace("_", "").isalnum():
        return pattern in text
    tree = read_pattern(pattern)
    try:
        walk = Walk(text, bool(tree.state.flags & re.IGNORECASE))
        return bool(walk.along(tree, frozenset(range(len(text) + 1))))
    except RecursionError:
        raise re.error("too deep", pattern) from None
