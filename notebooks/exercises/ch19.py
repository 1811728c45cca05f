"""Checks of chapter 19: what scripts and people read."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_exit_status(answer: Callable[[int | None], int]) -> Verdict:
    """Check the choice of Docker's exit status."""
    if answer(2) != 127:
        return failed("ENOENT: there is no such command, and scripts know that as 127")
    if answer(13) != 126:
        return failed("EACCES: the file is there and may not be executed, which is 126")
    if answer(8) != 126:
        return failed(
            "ENOEXEC: the file is there, but no program: it cannot be executed, which is 126"
        )
    if answer(20) != 127:
        return failed(
            "ENOTDIR: a part of the path is no directory, so there is no such command: 127"
        )
    if answer(None) != 125:
        return failed("nothing was executed because the tool itself failed: that is 125")
    return passed("a script can tell whose fault it was")


@check
def check_duration(answer: Callable[[float], str]) -> Verdict:
    """Check Docker's words for a length of time."""
    cases = (
        (0.4, "Less than a second"),
        (1, "1 second"),
        (5400, "2 hours"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
    )
    for seconds, words in cases:
        found = answer(seconds)
        if found != words:
            return failed(f"{seconds:g} seconds are {words!r} to Docker, {found!r} to you")
    return passed("ten lengths, ten answers")
