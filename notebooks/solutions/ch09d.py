"""Solutions of chapter 9d, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from exercises.ch09d import check_free_range, check_overlaps
from mini_docker.lab import Exercise


def free_blank(subuid: str, count: int) -> int:
    """The untouched exercise."""
    return 100000


def free_range(subuid: str, count: int) -> int:
    """Return where `count` free numbers begin."""
    start = 100000
    for begin, size in sorted(ranges(subuid)):
        if begin >= start + count:
            break
        start = max(start, begin + size)
    return start


def ranges(subuid: str) -> list[tuple[int, int]]:
    """Return (start, count) of each line."""
    return [(int(line.split(":")[1]), int(line.split(":")[2])) for line in subuid.splitlines()]


def free_after_all(subuid: str, count: int) -> int:
    """Wrong: it never looks into the gaps."""
    return max([100000, *(begin + size for begin, size in ranges(subuid))])


def free_in_order(subuid: str, count: int) -> int:
    """Wrong: it believes that the lines are sorted."""
    start = 100000
    for begin, size in ranges(subuid):
        if begin >= start + count:
            break
        start = max(start, begin + size)
    return start


def overlaps_blank(subuid: str) -> list[tuple[str, str]]:
    """The untouched exercise."""
    return []


def overlaps(subuid: str) -> list[tuple[str, str]]:
    """Return the pairs of names whose ranges overlap."""
    return sorted(set(pairs(subuid, 0)))


def pairs(subuid: str, slack: int) -> list[tuple[str, str]]:
    """Return the pairs of different names whose ranges come nearer to each other than `slack`."""
    lines = [line.split(":") for line in subuid.splitlines()]
    owned = [(name, int(start), int(start) + int(count)) for name, start, count in lines]
    return [
        (a, b)
        for a, first, end in owned
        for b, other, other_end in owned
        if a < b and first < other_end + slack and other < end + slack
    ]


def overlaps_touching(subuid: str) -> list[tuple[str, str]]:
    """Wrong: neighbours are counted."""
    return sorted(set(pairs(subuid, 1)))


def overlaps_twice(subuid: str) -> list[tuple[str, str]]:
    """Wrong: a pair as often as its ranges meet."""
    return sorted(pairs(subuid, 0))


EXERCISES = [
    Exercise(
        "free_range",
        check_free_range,
        blank=free_blank,
        solution=free_range,
        wrong=[(free_after_all, "there are lower ones"), (free_in_order, "lines in no order")],
    ),
    Exercise(
        "overlaps",
        check_overlaps,
        blank=overlaps_blank,
        solution=overlaps,
        wrong=[(overlaps_touching, "START + COUNT - 1"), (overlaps_twice, "twice")],
    ),
]
