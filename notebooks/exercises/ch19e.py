"""The check of chapter 19e: when a screen looks again."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_looks(answer: Callable[[list[float], float], list[float]]) -> Verdict:
    """Check that no event stays unanswered and none is answered twice."""
    if answer([], 1.0) != []:
        return failed("without an event there is no look")
    if answer([5.0], 1.0) != [5.0]:
        return failed("one event, one look, at once")
    storm = answer([0.0, 0.1, 0.2, 0.3], 1.0)
    if storm == [0.0, 0.1, 0.2, 0.3]:
        return failed("four events within one look began four looks: two are enough, at 0 and at 1")
    if storm == [0.0]:
        return failed(
            "the events at 0.1 to 0.3 came after the look of 0 had begun, and nobody looked again: what they told is never shown"
        )
    for times, wanted in (
        ([0.0, 0.1, 0.2, 0.3], [0.0, 1.0]),
        ([0.0, 0.5, 1.5], [0.0, 1.0, 2.0]),
        ([0.0, 0.5, 5.0], [0.0, 1.0, 5.0]),
        ([0.0, 0.1, 1.1, 1.2, 9.0, 9.5], [0.0, 1.0, 2.0, 9.0, 10.0]),
    ):
        found = answer(list(times), 1.0)
        if found != wanted:
            return failed(f"events at {times}: looks at {wanted}, to you {found}")
    return passed("a storm costs two looks, and the last event is always seen")
