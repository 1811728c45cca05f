"""Checks of chapter 9c: how much a HostConfig gives away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mini_docker.engine.privileges import capabilities, security_options
from mini_docker.lab import Verdict, check, failed, passed


@check
def check_clock_setter(answer: Callable[[], dict[str, Any]]) -> Verdict:
    """Check the container that sets the clock."""
    host = answer()
    try:
        names, options = capabilities(host), security_options(host)
    except ValueError as error:
        return failed(f"Docker would refuse it: {error}")
    if host.get("Privileged"):
        return failed("privileged sets the clock, and everything else: name the one capability")
    if "CAP_SYS_TIME" not in names:
        return failed("the clock cannot be set: capabilities(7) says which capability that takes")
    if more := [name for name in names if name != "CAP_SYS_TIME"]:
        return failed(f"it does not need, and may use all the same: {', '.join(more)}")
    if options.get("seccomp"):
        return failed(
            "the filter need not be changed: Docker's policy opens what the capability is for"
        )
    if options.get("no-new-privileges", ["false"])[-1] != "true":
        return failed(
            "a setuid program could still raise it: there is a --security-opt against that"
        )
    if not host.get("ReadonlyRootfs"):
        return failed("it never writes to its root, so the root can be read-only: ReadonlyRootfs")
    return passed("it can set the clock, and nothing else")


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"CapAdd": ["NET_RAW"]}, []),
    ({"Privileged": True}, ["all capabilities", "no filter", "open paths"]),
    ({"CapAdd": ["cap_sys_admin"]}, ["SYS_ADMIN"]),
    ({"CapAdd": ["SYS_ADMIN"], "NetworkMode": "host"}, ["SYS_ADMIN", "host's network"]),
    ({"CapAdd": ["all"]}, ["all capabilities"]),
    ({"SecurityOpt": ["seccomp=unconfined"]}, ["no filter"]),
    ({"SecurityOpt": ["label=disable", "seccomp:unconfined"]}, ["no filter"]),
    ({"MaskedPaths": [], "ReadonlyPaths": []}, ["open paths"]),
    ({"MaskedPaths": None}, []),
    ({"Binds": ["/var/run/docker.sock:/x:ro"]}, ["Docker's socket"]),
]


@check
def check_audit(answer: Callable[[dict[str, Any]], list[str]]) -> Verdict:
    """Check the audit on a few containers."""
    for host, wanted in CASES:
        found = answer(dict(host))
        missing = [words for words in wanted if words not in found]
        if missing:
            return failed(f"{host} has {missing[0]!r}, and you do not say so")
        wrong = [words for words in found if words not in wanted]
        if wrong:
            return failed(f"{host} has no {wrong[0]!r}: a false alarm is ignored the next time too")
        if found != sorted(found):
            return failed(f"for {host} the words are not sorted")
    return passed("every open door is named, and no closed one")
