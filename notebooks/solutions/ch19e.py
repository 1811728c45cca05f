"""The solution of chapter 19e, and the wrong answers that its check must recognise."""

from __future__ import annotations

from exercises.ch19e import check_looks
from mini_docker.lab import Exercise


def looks_blank(times: list[float], takes: float) -> list[float]:
    """The untouched exercise."""
    return times


def looks(times: list[float], takes: float) -> list[float]:
    """Return the moments at which a look begins."""
    begun: list[float] = []
    for moment in times:
        free = begun[-1] + takes if begun else moment
        if moment >= free:
            begun.append(moment)
        elif not begun or moment >= begun[-1]:
            begun.append(free)
    return begun


def looks_deaf(times: list[float], takes: float) -> list[float]:
    """Wrong: what comes during a look is forgotten."""
    begun: list[float] = []
    for moment in times:
        if not begun or moment >= begun[-1] + takes:
            begun.append(moment)
    return begun


def looks_queue(times: list[float], takes: float) -> list[float]:
    """Wrong: each event waits for a look of its own."""
    begun: list[float] = []
    for moment in times:
        begun.append(max(moment, begun[-1] + takes) if begun else moment)
    return begun


EXERCISES = [
    Exercise(
        "looks",
        check_looks,
        looks_blank,
        looks,
        [
            (looks_blank, "four events within one look"),
            (looks_deaf, "nobody looked again"),
            (looks_queue, "looks at [0.0, 1.0], to you"),
        ],
    )
]
