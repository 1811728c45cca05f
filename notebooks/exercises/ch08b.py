"""Checks of chapter 8b: a rule in Docker's words, and a machine that runs our programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mini_docker.cgroups.devices import (
    ACCESS,
    DEFAULT_RULES,
    TYPES,
    Instruction,
    Rule,
    permitted,
    program_for,
)
from mini_docker.lab import Verdict, check, failed, passed

LISTS = (
    (),
    DEFAULT_RULES,
    (*DEFAULT_RULES, Rule(False, "c", 1, 7, "w")),
    (
        Rule(True, "a", None, None, "rwm"),
        Rule(False, "b", 8, None, "w"),
        Rule(True, "b", 8, 1, "w"),
    ),
    (Rule(True, "c", 1, None, "r"), Rule(True, "c", None, 3, "w")),
)
REQUESTS = [
    (kind, major, minor, access)
    for kind in "bc"
    for major in (1, 8, 136)
    for minor in (0, 1, 3, 7)
    for access in ("r", "w", "m", "rw", "rwm")
]


@check
def check_rule(answer: Callable[[str], dict[str, Any]]) -> Verdict:
    """Check the translation of --device-cgroup-rule."""
    found = answer("c 189:* rmw")
    if not found.get("allow"):
        return failed(
            "the rule allows: without 'allow': True it takes something away, or says nothing"
        )
    if "minor" in found and found["minor"] in ("*", None):
        return failed(f"a '*' is a key that is left out; your minor is {found['minor']!r}")
    if found.get("major") != 189:
        return failed(f"the major number is the number 189, not {found.get('major')!r}")
    if found.get("type") != "c" or set(found.get("access", "")) != set("rwm"):
        return failed(f"type c, letters r, m and w; yours: {found}")
    if answer("b 8:1 r") != {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "r"}:
        return failed(f"'b 8:1 r' became {answer('b 8:1 r')}")
    for text in ("c 189 rwm", "d 1:3 r", "c 1:3 x", "c 1:3", "c -1:3 r", "", "c 1:3 r\nb *:* rwm"):
        try:
            answer(text)
        except ValueError:
            continue
        return failed(f"{text!r} is no rule, and was taken")
    return passed("numbers are numbers, stars are left out, and nonsense is refused")


@check
def check_interpreter(
    answer: Callable[[Sequence[Instruction], Sequence[int]], int],
) -> Verdict:
    """Compare the interpreter with the rules' meaning, request by request."""
    for rules in LISTS:
        program = program_for(rules)
        for kind, major, minor, access in REQUESTS:
            letters = sum(ACCESS[letter] for letter in access)
            words = (letters << 16 | TYPES[kind], major, minor)
            found = answer(program, words)
            right = int(permitted(rules, kind, major, minor, access))
            if found != right:
                return failed(
                    f"{kind} {major}:{minor} {access} under {len(rules)} rules: "
                    f"the program answers {right}, yours says {found}"
                )
    return passed(f"{len(LISTS) * len(REQUESTS)} verdicts, all as the kernel's")
