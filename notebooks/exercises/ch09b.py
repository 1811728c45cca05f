"""Checks of chapter 9b: policies, compiled and asked on paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed
from mini_docker.lab.filters import run_filter, verdict_words
from mini_docker.security.compiler import compile_policy
from mini_docker.security.numbers import numbers

AUDIT = 0xC000003E  # x86_64, whatever the machine: it is all on paper


def asked(policy: dict[str, Any], name: str, *arguments: int) -> str:
    """Return the verdict of a policy's program about one call, in words."""
    program = compile_policy(policy, "x86_64")
    return verdict_words(run_filter(program, AUDIT, numbers("x86_64")[name], arguments))


@check
def check_local_sockets(answer: Callable[[], dict[str, Any]]) -> Verdict:
    """Check the policy that leaves only AF_UNIX."""
    try:
        policy = answer()
        inet = asked(policy, "socket", 2)
    except ValueError as error:
        return failed(f"the document is refused: {error}")
    if inet == "allow":
        return failed("socket(AF_INET) is still allowed: no rule of yours fits it")
    if inet != "errno 13":
        return failed(f"socket(AF_INET) should fail with EACCES, errno 13; your verdict is: {inet}")
    if asked(policy, "socket", 1) != "allow":
        return failed("socket(AF_UNIX) is refused as well: its family is 1")
    if asked(policy, "socket", 0) == "allow" or asked(policy, "socket", 40) == "allow":
        return failed(
            "families other than AF_INET are still allowed: say what is allowed, not what is not"
        )
    if asked(policy, "openat", 2) != "allow" or asked(policy, "connect", 2) != "allow":
        return failed("other calls are refused too: only socket should be")
    if asked(policy, "socket", 1 << 32 | 2) == "allow":
        return failed(
            "attack two works: the kernel reads the lower 32 bits of the family, you compare more"
        )
    return passed("local sockets, and no others, however they are spelled")


@check
def check_no_code_from_data(answer: Callable[[], dict[str, Any]]) -> Verdict:
    """Check the policy against memory that is writable and executable."""
    try:
        policy = answer()
        for name in ("mmap", "mprotect", "pkey_mprotect"):
            if asked(policy, name, 0, 4096, 7) == "allow":
                return failed(f"{name} with read, write and execute (7) is allowed")
            if asked(policy, name, 0, 4096, 6) == "allow":
                return failed(
                    f"{name} with write and execute alone (6) is allowed: you compare all bits"
                )
            for kind, words in ((3, "read and write"), (5, "read and execute"), (4, "execute")):
                if asked(policy, name, 0, 4096, kind) != "allow":
                    return failed(
                        f"{name} with {words} ({kind}) is refused: then no program can even start"
                    )
    except ValueError as error:
        return failed(f"the document is refused: {error}")
    if asked(policy, "read", 7, 7, 7) != "allow":
        return failed("read is refused as well: its argument 2 is a size")
    return passed("no memory is both, and programs still start")
