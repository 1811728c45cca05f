"""Checks of chapter 6: two processes are asked for their names."""

from __future__ import annotations

import os
from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.process import CLONE_NEWUTS, sethostname, unshare

ID = "3f1c0a2b4d5e" + "0" * 52


def _observed(answer: Callable[[], tuple[str, str]]) -> tuple[tuple[str, str], str]:
    """Run the answer where it does no harm; return what it says and our name afterwards."""
    unshare(CLONE_NEWUTS)
    sethostname(b"outer")
    return answer(), os.uname().nodename


@check
def check_two_names(answer: Callable[[], tuple[str, str]]) -> Verdict:
    """Check that a child has a name of its own and its parent has kept its."""
    outcome = run_in_child(_observed, answer)
    if outcome.value is None:
        return failed(f"your function did not come back: {outcome.error or outcome.output.strip()}")
    (own, childs), after = outcome.value
    if after == "inner":
        return failed(
            "your own name is now 'inner': the namespace was changed for the parent, or shared with it"
        )
    if after != "outer":
        return failed(f"your own name was 'outer' and is now {after!r}")
    if childs == "outer":
        return failed("the child still has its parent's name: a new namespace begins as a copy")
    if childs != "inner":
        return failed(f"the child's name is {childs!r} and should be 'inner'")
    if own != "outer":
        return failed(f"you report {own!r} as your own name, the kernel says 'outer'")
    return passed("one kernel, two names")


@check
def check_short_name(answer: Callable[[str, str, bool], str | None]) -> Verdict:
    """Check Docker's choice of a host name."""
    if answer(ID, "", False) != ID[:12]:
        return failed(
            f"without a wish Docker takes the id's first twelve digits, not {answer(ID, '', False)!r}"
        )
    if answer(ID, "web", False) != "web":
        return failed("the wish 'web' was not granted")
    if answer(ID, "", True) is not None:
        return failed("in the host's namespace a name would be the host's: none may be set")
    for wanted, host, why in (
        ("x" * 65, False, "65 bytes are one more than the kernel takes"),
        ("ä" * 33, False, "33 letters ä are 66 bytes: the kernel counts bytes"),
        ("web", True, "a name together with the host's namespace renames the host"),
    ):
        try:
            answer(ID, wanted, host)
        except ValueError:
            continue
        return failed(why)
    return passed("the short id, a wish, and three refusals")
