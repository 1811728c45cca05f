"""Checks of chapter 9: masks as the kernel prints them."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed
from mini_docker.security.capabilities import NAMES

DOCKER = "00000000a80425fb"


@check
def check_names_of(answer: Callable[[str], list[str]]) -> Verdict:
    """Check the reading of a CapEff line."""
    if (found := answer("0000000000000000")) != []:
        return failed(f"an empty mask has no names: a list without any, where yours is {found!r}")
    if answer("0000000000000001") != ["CAP_CHOWN"]:
        return failed("bit 0 is CAP_CHOWN; you say " + ", ".join(answer("0000000000000001")))
    high = answer("0000010000000000")
    if high != ["CAP_CHECKPOINT_RESTORE"]:
        return failed(
            f"bit 40 is CAP_CHECKPOINT_RESTORE; you say {high}: is the mask more than 32 bits for you?"
        )
    names = answer(DOCKER)
    if names != sorted(names):
        return failed("the names of Docker's default mask are not sorted")
    if len(names) != 14 or "CAP_MKNOD" not in names or not set(names) <= set(NAMES):
        return failed(
            f"Docker's default mask has 14 names, CAP_MKNOD among them; you find {len(names)}"
        )
    return passed("every bit has its name")


@check
def check_missing(answer: Callable[[str, str], str | None]) -> Verdict:
    """Check the diagnosis of an EPERM."""
    for tried, name in (
        ("mount", "CAP_SYS_ADMIN"),
        ("settimeofday", "CAP_SYS_TIME"),
        ("ptrace", "CAP_SYS_PTRACE"),
    ):
        if answer(DOCKER, tried) != name:
            return failed(
                f"'{tried}' needs a capability that Docker's default lacks; you say {answer(DOCKER, tried)}"
            )
    if answer(DOCKER, "ping") is not None:
        return failed("'ping' fails, but the mask has CAP_NET_RAW: adding it would change nothing")
    if answer("0000000000000000", "ping") != "CAP_NET_RAW":
        return failed("with an empty mask 'ping' lacks CAP_NET_RAW")
    if answer("0000000000000000", "bind") != "CAP_NET_BIND_SERVICE":
        return failed(
            "with an empty mask a low port cannot be bound, for lack of CAP_NET_BIND_SERVICE"
        )
    if answer("0000000000000000", "open") is not None:
        return failed("'open' is not on the list: a guess would send the user the wrong way")
    return passed("named where it is missing, and nothing where it is not")
