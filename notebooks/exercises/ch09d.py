"""Checks of chapter 9d: numbers that are lent."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

FIRST = 100_000
FREE: list[tuple[str, int, int, str]] = [
    ("", 65536, FIRST, "an empty file"),
    ("a:100000:65536\n", 65536, 165536, "one range at the beginning"),
    ("a:200000:65536\n", 65536, FIRST, "a range further up"),
    ("a:100000:10\nb:100100:10\n", 50, 100010, "a gap that is large enough"),
    ("a:100000:10\nb:100100:10\n", 95, 100110, "a gap that is too small"),
    ("b:100100:10\na:100000:100\n", 20, 100110, "lines in no order"),
    ("a:1000:98000\nb:99990:20\n", 5, 100010, "a range that begins below 100000"),
    ("a:100000:100\nb:100010:5\n", 5, 100100, "a range inside another"),
]


@check
def check_free_range(answer: Callable[[str, int], int]) -> Verdict:
    """Check the search for free numbers."""
    for text, count, wanted, words in FREE:
        found = answer(text, count)
        if found < wanted:
            return failed(f"{words}: {found} is taken, or too near to what is taken")
        if found > wanted:
            return failed(f"{words}: {found} is free, but there are lower ones")
    return passed("it finds the lowest free range")


PAIRS: list[tuple[str, list[tuple[str, str]]]] = [
    ("a:100000:10\nb:100010:10\n", []),
    ("a:100000:11\nb:100010:10\n", [("a", "b")]),
    ("b:100000:100\na:100050:1\n", [("a", "b")]),
    ("a:100000:10\na:100005:10\n", []),
    ("c:0:9\na:5:9\nb:8:1\n", [("a", "b"), ("a", "c"), ("b", "c")]),
    ("a:0:9\nb:5:9\na:7:3\n", [("a", "b")]),
]


@check
def check_overlaps(answer: Callable[[str], list[tuple[str, str]]]) -> Verdict:
    """Check the search for ranges that overlap."""
    for text, wanted in PAIRS:
        found = answer(text)
        lines = " ".join(text.split())
        if any(first == second for first, second in found):
            return failed(f"{lines}: a name with itself is no pair")
        if sorted(found) != found or any(first > second for first, second in found):
            return failed(f"{lines}: the pairs are not sorted")
        if len(set(found)) != len(found):
            return failed(f"{lines}: a pair stands there twice")
        if missing := [pair for pair in wanted if pair not in found]:
            return failed(f"{lines}: {missing[0]} share a number, and you do not say so")
        if wrong := [pair for pair in found if pair not in wanted]:
            return failed(f"{lines}: {wrong[0]} share none: the last number is START + COUNT - 1")
    return passed("every pair that shares a number is named, once")
