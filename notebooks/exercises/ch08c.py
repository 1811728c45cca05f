"""Checks of chapter 8c: arithmetic on counters that may be new, gone, or reset."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

SECOND = 1_000_000_000


@check
def check_cpu_percent(
    answer: Callable[[tuple[int, int], tuple[int, int], int], float],
) -> Verdict:
    """Check Docker's CPU percentage."""
    # in one second, a host with four processors has four seconds to give
    found = answer((5 * SECOND, 100 * SECOND), (6 * SECOND, 104 * SECOND), 4)
    if abs(found - 25.0) < 0.01:
        return failed("one processor of four, busy: Docker says 100 %, yours says 25")
    if abs(found - 100.0) > 0.01:
        return failed(f"one processor of four was busy all the time: 100 %, not {found:.1f}")
    found = answer((0, 0), (3 * SECOND, 8 * SECOND), 4)
    if abs(found - 150.0) > 0.01:
        return failed(f"one and a half processors are 150 %, not {found:.1f}")
    try:
        found = answer((1, SECOND), (1, SECOND), 4)
    except ZeroDivisionError:
        return failed(
            "two readings at the same time: you divide by the time that passed, and none did"
        )
    if found != 0:
        return failed("two readings at the same time: no time passed, so 0")
    if answer((9 * SECOND, SECOND), (SECOND, 5 * SECOND), 4) != 0:
        return failed("the container's counter went backwards: it was restarted, so 0")
    return passed("100 % is one processor, and no interval is divided by zero")


def psi(some: int, full: int) -> str:
    """Return the text of a pressure file with these totals."""
    return (
        f"some avg10=9.00 avg60=0.00 avg300=0.00 total={some}\n"
        f"full avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
    )


@check
def check_hurts(
    answer: Callable[[dict[str, str], dict[str, str]], str | None],
) -> Verdict:
    """Check who lost most time completely."""
    before = {"db": psi(9000, 8000), "web": psi(100, 50), "gone": psi(1, 1)}
    after = {"db": psi(9900, 8100), "web": psi(800, 650), "batch": psi(5000, 10)}
    found = answer(before, after)
    if found == "db":
        return failed("db has the greatest sum, from before; in between web lost more")
    if found == "batch":
        return failed("in batch some waited long, but 'full' is the time when all of them did")
    if found != "web":
        return failed(f"web's members all waited for 600 microseconds more; you say {found!r}")
    if answer(before, {"new": psi(70, 70), "db": before["db"]}) != "new":
        return failed("a group that is not in the first reading started at 0")
    if answer(before, before) is not None:
        return failed("nobody lost time between two equal readings: None")
    return passed("differences, 'full', and groups that come and go")
