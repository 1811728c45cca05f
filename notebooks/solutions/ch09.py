"""Solutions of chapter 9, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from exercises.ch09 import check_missing, check_names_of
from mini_docker.lab import Exercise
from mini_docker.security.capabilities import NAMES

NEEDED = {
    "ping": "CAP_NET_RAW",
    "mount": "CAP_SYS_ADMIN",
    "settimeofday": "CAP_SYS_TIME",
    "bind": "CAP_NET_BIND_SERVICE",
    "ptrace": "CAP_SYS_PTRACE",
}


def names_of_blank(mask: str) -> list[str]:
    """The untouched exercise."""
    return []


def names_of(mask: str) -> list[str]:
    """Return the names, such as "CAP_CHOWN", of a hexadecimal mask, sorted."""
    bits = int(mask, 16)
    return sorted(name for bit, name in enumerate(NAMES) if bits >> bit & 1)


def names_of_low(mask: str) -> list[str]:
    """Wrong: the lower 32 bits only."""
    return names_of(mask[-8:])


def names_of_unsorted(mask: str) -> list[str]:
    """Wrong: in the order of the bits."""
    bits = int(mask, 16)
    return [name for bit, name in enumerate(NAMES) if bits >> bit & 1]


def missing_blank(mask: str, tried: str) -> str | None:
    """The untouched exercise."""
    return None


def missing(mask: str, tried: str) -> str | None:
    """Return the capability that `tried` needs and `mask` lacks, or None."""
    name = NEEDED.get(tried)
    return name if name and name not in names_of(mask) else None


def missing_always(mask: str, tried: str) -> str | None:
    """Wrong: it does not look at the mask."""
    return NEEDED.get(tried)


def missing_guess(mask: str, tried: str) -> str | None:
    """Wrong: what it does not know needs everything."""
    return "CAP_SYS_ADMIN" if tried not in NEEDED else missing(mask, tried)


EXERCISES = [
    Exercise(
        "names_of",
        check_names_of,
        blank=names_of_blank,
        solution=names_of,
        wrong=[(names_of_low, "more than 32 bits"), (names_of_unsorted, "not sorted")],
    ),
    Exercise(
        "missing",
        check_missing,
        blank=missing_blank,
        solution=missing,
        wrong=[(missing_always, "would change nothing"), (missing_guess, "the wrong way")],
    ),
]
