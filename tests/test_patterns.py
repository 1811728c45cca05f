"""Patterns of strangers: they mean what `re` says, as far as Go has them, and never keep the daemon busy."""

from __future__ import annotations

import random
import re

import pytest

from mini_docker.engine.filters import matches
from mini_docker.engine.patterns import found_in

LONG = "a" * 249 + "_"


def small_pattern(chance: random.Random, depth: int = 0) -> str:
    """Return a pattern made by chance, of all that both languages have."""
    kind = chance.random()
    if depth > 3 or kind < 0.35:
        return chance.choice(["a", "b", "/", ".", "[ab]", "[^a]", "[a-b_]", r"\w", r"\d", r"\b"])
    inner = small_pattern(chance, depth + 1)
    if kind < 0.55:
        return inner + small_pattern(chance, depth + 1)
    if kind < 0.7:
        return f"(?:{inner}|{small_pattern(chance, depth + 1)})"
    if kind < 0.9:
        return f"(?:{inner}){chance.choice(['*', '+', '?', '{1,3}', '{2}', '{2,}', '*?'])}"
    return chance.choice([f"^{inner}", f"{inner}$", f"({inner})"])


def test_small_patterns_mean_what_re_says() -> None:
    chance = random.Random(14)
    for _ in range(3000):
        pattern = chance.choice(["", "", "(?i)"]) + small_pattern(chance)
        text = "".join(chance.choice("ab/1A_-") for _ in range(chance.randrange(8)))
        assert found_in(pattern, text) == bool(re.search(pattern, text)), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("(a+)+$", False), ("(a|a)*$", True), ("^" + "(" * 8 + "a" + "*)" * 8 + "$", False),
        ("(x+x+)+y", False), (".*.*.*.*=.*", False), ("((a{1,999}){1,999}){1,999}$", False),
        ("a{4000000000}", False), ("^(a?){500}a{500}$", False), ("a{249}_", True),
    ],
)  # fmt: skip
def test_a_hostile_pattern_is_answered(pattern: str, found: bool) -> None:
    assert found_in(pattern, LONG) is found


@pytest.mark.parametrize(
    "pattern", ["(?=a)a", r"(a)\1", "(", "a{99999999999}", "(" * 5000 + ")" * 5000]
)
def test_what_go_does_not_know_matches_no_name(pattern: str) -> None:
    with pytest.raises(re.error):
        found_in(pattern, "a")
    assert not matches("a", [pattern])
    assert matches(pattern, [pattern])  # but for the name that is just that
